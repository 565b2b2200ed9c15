//! The readers, each with a folder to read from and valid files to mutate.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use glmbench::bundle::Bundle;
use glmbench::cli::prompts::read_prompts;
use glmbench::dataset::{BOOLQ, Benchmark, CEVAL, Source, catalogue, prepare, read_questions};
use glmbench::language::Language;
use glmbench::record::{Noise, RunDir, TelemetryRow};
use glmbench::report::compare::Options;
use glmbench::report::export::{self, EXPORTS, Records};
use glmbench::report::{Summary, render};
use glmbench::run::score::rescore;
use glmbench::suite::gates::Gates;
use glmbench::suite::{Configuration, Override, Suite};
use glmbench::task::{self, Evaluation, Settings};
use glmbench_ascend::profile::Profile;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::weights::{convert, open_checkpoint};

use super::copy_tree;
use super::files::{byte_level, pickle, safetensors, safetensors_of_many, safetensors_with, zipped};

/// A reader of foreign files.
pub(super) struct Reader {
    /// Name of the reader.
    pub name: &'static str,
    /// The file to mutate, in the reader's folder.
    pub file: &'static str,
    /// Text that every error must contain.
    pub names: &'static str,
    /// Writes the other files (the second folder has runs) and returns valid contents to mutate. The first must be
    /// accepted.
    pub lay: fn(&Path, &Path) -> Vec<Vec<u8>>,
    /// Packs the mutated bytes into the file, for formats inside a container.
    pub pack: fn(&[u8]) -> Vec<u8>,
    /// Reads the file and uses the result. An error comes from reading.
    pub read: fn(&Path) -> Result<(), String>,
}

fn reader(
    name: &'static str,
    file: &'static str,
    lay: fn(&Path, &Path) -> Vec<Vec<u8>>,
    read: fn(&Path) -> Result<(), String>,
) -> Reader {
    Reader { name, file, names: file.rsplit('/').next().unwrap(), lay, pack: <[u8]>::to_vec, read }
}

/// Returns all readers.
#[expect(clippy::too_many_lines, reason = "a list with one entry for each reader")]
pub(super) fn readers() -> Vec<Reader> {
    let run = |name, file| reader(name, file, lay_run, read_run);
    let set = |file| Reader { names: "--set", ..reader("set", file, |_, _| lines(&SETS), read_set) };
    vec![
        reader("suite", "s.toml", |_, _| all_in("suites", "toml"), |dir| read_suite(&dir.join("s.toml"))),
        set("set.txt"),
        Reader {
            names: "--configuration",
            ..reader("configuration", "c.txt", |_, _| lines(&CONFIGURATIONS), read_configuration)
        },
        reader(
            "gates",
            "g.toml",
            |_, _| all_in("suites/gates", "toml"),
            |dir| Gates::load(&dir.join("g.toml")).map(drop).map_err(|e| e.to_string()),
        ),
        reader("parity", "parity.json", lay_parity, read_parity),
        reader(
            "profile",
            "p.toml",
            |_, _| all_in("crates/ascend-emulator/profiles", "toml"),
            |dir| Profile::from_file(&dir.join("p.toml")).map(drop).map_err(|e| e.to_string()),
        ),
        reader(
            "ceval-csv",
            "val/antonym_pairs_val.csv",
            |dir, _| lay_ceval(dir, "val/antonym_pairs_val.csv"),
            |dir| read_set_of(&CEVAL, dir),
        ),
        Reader {
            // With too few examples, the error names split and subject.
            names: "antonym_pairs",
            ..reader(
                "ceval-dev",
                "dev/antonym_pairs_dev.csv",
                |dir, _| lay_ceval(dir, "dev/antonym_pairs_dev.csv"),
                |dir| read_set_of(&CEVAL, dir),
            )
        },
        reader(
            "ceval-mapping",
            "subject_mapping.json",
            |dir, _| lay_ceval(dir, "subject_mapping.json"),
            |dir| read_set_of(&CEVAL, dir),
        ),
        reader("ceval-jsonl", "val/Other/law.jsonl", lay_ceval_jsonl, |dir| read_set_of(&CEVAL, dir)),
        reader("boolq", "dev.jsonl", |_, _| vec![boolq()], |dir| read_set_of(&BOOLQ, dir)),
        reader(
            "questions",
            "q.jsonl",
            |_, _| vec![boolq()],
            |dir| read_questions(&dir.join("q.jsonl")).map(drop).map_err(|e| e.to_string()),
        ),
        reader("zip", "set.zip", |_, _| vec![zipped(&[("boolq/dev.jsonl", &boolq())])], read_zip),
        reader(
            "tokenizer-model",
            "tokenizer.model",
            |dir, _| lay_tokenizer(dir, "tokenizer.model"),
            read_tokenizer,
        ),
        Reader {
            // The fault may be in a neighbouring file.
            names: "tokenizer",
            ..reader(
                "tokenizer-config",
                "tokenizer_config.json",
                |dir, _| lay_tokenizer(dir, "tokenizer_config.json"),
                read_tokenizer,
            )
        },
        reader("tokenizer-json", "tokenizer.json", |_, _| vec![byte_level()], read_tokenizer),
        reader(
            "config",
            "config.json",
            |_, _| vec![repository("models/demo/config.json")],
            |dir| ModelConfig::from_file(&dir.join("config.json")).map(drop).map_err(|e| e.to_string()),
        ),
        reader(
            "safetensors",
            "model.safetensors",
            |_, _| vec![safetensors(), safetensors_of_many()],
            read_weights,
        ),
        Reader {
            // The index may point to a wrong name, in its folder.
            names: "/index",
            ..reader("index", "model.safetensors.index.json", lay_index, read_weights)
        },
        reader(
            "torch-zip",
            "pytorch_model.bin",
            |_, _| vec![repository("tests/data/state_dict.bin")],
            read_torch,
        ),
        Reader {
            pack: |pickle| zipped(&[("archive/data.pkl", pickle), ("archive/data/0", &[0; 12])]),
            ..reader("pickle", "pytorch_model.bin", |_, _| vec![pickle()], read_torch)
        },
        Reader {
            names: "/torch-index",
            ..reader("torch-index", "pytorch_model.bin.index.json", lay_torch_index, read_torch)
        },
        reader("bundle", "b.zip", lay_bundle, |dir| {
            let bundle = Bundle::read(&dir.join("b.zip")).map_err(|e| e.to_string())?;
            // A changed size may still be refused before it becomes an allocation.
            let _ = glmbench::bundle::replay::check(&bundle);
            glmbench::bundle::replay::Replay::of(&bundle, &bundle);
            Ok(())
        }),
        run("run", "run.json"),
        run("samples", "samples.jsonl"),
        run("prompts", "prompts.jsonl"),
        run("requests", "requests.jsonl"),
        run("probes", "probes.jsonl"),
        run("load", "load.jsonl"),
        run("telemetry", "telemetry.csv"),
        reader("noise", "noise.json", lay_noise, |dir| {
            Noise::read(&dir.join("noise.json")).map(drop).map_err(|e| e.to_string())
        }),
        reader(
            "prompt-ids",
            "p.json",
            |_, _| lines(&["[[64790, 64792, 36474], [1], [2, 3]]"]),
            |dir| {
                let read = read_prompts(&dir.join("p.json"), &ModelConfig::chatglm2_6b());
                read.map(drop).map_err(|e| format!("{e:#}"))
            },
        ),
    ]
}

const SETS: [&str; 3] = [
    "performance.0.batch=[1, 2]",
    "accuracy.0.limit=10\nmodel.dtype=bf16\nboolq=/tmp/set",
    "load.0.slo={ ttft_ms = 500, tpot_ms = 50 }",
];
const CONFIGURATIONS: [&str; 2] =
    ["device=cpu,dtype=bf16,threads=1", "name=a,device=300i-duo,emulate=true,tp=2"];

fn lines(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn repository(path: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn all_in(folder: &str, extension: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn boolq() -> Vec<u8> {
    let all = repository("datasets/boolq-sample/dev.jsonl");
    all.split_inclusive(|&byte| byte == b'\n').take(12).flatten().copied().collect()
}

fn read_suite(path: &Path) -> Result<(), String> {
    let suite = Suite::load(path, &[]).map_err(|e| e.to_string())?;
    suite.content_hash();
    suite.configurations.iter().for_each(|configuration| drop(suite.of(configuration)));
    Ok(())
}

/// Reads each line as a `--set` on a valid suite.
fn read_set(dir: &Path) -> Result<(), String> {
    let text = repository("suites/quickstart.toml");
    let text = String::from_utf8(text).unwrap().replace(
        "[[performance]]",
        "[[load]]\narrival = \"fixed\"\nrates = [1]\nrequests = 4\nlengths = [[8, 4]]\n[[performance]]",
    );
    let bytes = fs::read(dir.join("set.txt")).unwrap();
    let of_line = |line: &[u8]| {
        let at = line.iter().position(|&byte| byte == b'=')?;
        let key = String::from_utf8(line[..at].to_vec()).ok().filter(|key| !key.is_empty())?;
        Some(Override { key, value: os_string(&line[at + 1..]) })
    };
    let overrides: Vec<Override> = bytes.split(|&byte| byte == b'\n').filter_map(of_line).collect();
    let suite = Suite::parse(Path::new("s.toml"), &text, &overrides);
    // The fault of a value may show at another key of the file.
    suite.map(drop).map_err(|e| e.to_string().replace("s.toml:", "--set or s.toml:"))
}

#[cfg(unix)]
fn os_string(bytes: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStringExt;
    OsString::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

fn read_configuration(dir: &Path) -> Result<(), String> {
    let bytes = fs::read(dir.join("c.txt")).unwrap();
    let read = Configuration::from_words(&String::from_utf8_lossy(&bytes));
    read.map(drop).map_err(|e| format!("--configuration: {e}"))
}

fn lay_parity(_: &Path, _: &Path) -> Vec<Vec<u8>> {
    let found = r#"{"engine": "cpu fp16", "reference": "x", "positions": 545, "kl_mean": 1e-5, "kl_p99": 2e-4, "kl_max": 5e-4,
        "kl_threshold": 0.0001, "share_above_threshold": 0.001, "pass": true}"#;
    lines(&[found])
}

fn read_parity(dir: &Path) -> Result<(), String> {
    let gates =
        Gates::parse(&dir.join("g.toml"), "schema = 1\n[[parity]]\nfile = \"parity.json\"\n").unwrap();
    let run = RunDir::open(&dir.parent().unwrap().join("base")).unwrap();
    let summary = Summary::of(run.read_run().unwrap(), &[], &[]);
    glmbench::gate::judge_run(&gates, &summary, &[]).map(drop).map_err(|e| e.to_string())
}

fn lay_ceval(dir: &Path, file: &str) -> Vec<Vec<u8>> {
    copy_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/ceval-sample"), dir);
    vec![fs::read(dir.join(file)).unwrap()]
}

fn lay_ceval_jsonl(dir: &Path, _: &Path) -> Vec<Vec<u8>> {
    fs::create_dir_all(dir.join("val/Other")).unwrap();
    let row = |id: usize| {
        let letter = ["A", "B", "C", "D"][id % 4];
        serde_json::json!({"id": id, "inputs_pretokenized": "问题\nA. 1\nB. 2\nC. 3\nD. 4", "choices_pretokenized":
            ["A", "B", "C", "D"], "label": id % 4, "targets_pretokenized": [letter]})
    };
    vec![(0..6).map(|id| format!("{}\n", row(id))).collect::<String>().into_bytes()]
}

/// Reads a data set and builds the prompts of every protocol from it.
fn read_set_of(benchmark: &'static Benchmark, dir: &Path) -> Result<(), String> {
    let source = Source::open(benchmark, dir).map_err(|e| e.to_string())?;
    let split = benchmark.default_split;
    let dataset = source.read(split, &[]).map_err(|e| e.to_string())?;
    dataset.content_hash();
    dataset.questions();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let tokenizer = Tokenizer::from_dir(&demo).unwrap();
    for protocol in task::protocols_of(benchmark) {
        let settings = Settings { split: split.to_owned(), limit: Some(3), ..Settings::default() };
        // Examples come from the demonstration split, which this reads too. Not every layout has one.
        let plan = match task::Plan::new(protocol, &source, &settings) {
            Err(_) if !source.has_split(benchmark.demonstration_split) => continue,
            plan => plan.map_err(|e| e.to_string())?,
        };
        let Ok(evaluation) = Evaluation::new(plan, &tokenizer, 2048) else { continue };
        (0..evaluation.len()).for_each(|item| drop(evaluation.first_prompt(item)));
    }
    Ok(())
}

fn read_zip(dir: &Path) -> Result<(), String> {
    let out = dir.join("out");
    let _ = fs::remove_dir_all(&out);
    let entry = catalogue::entries().iter().find(|entry| entry.name == "boolq-sample").unwrap();
    let made = prepare::prepare(entry, &dir.join("set.zip"), &out, true, &|| false);
    if made.is_err() {
        assert!(!out.exists(), "something is left of an archive that was refused");
    }
    made.map(drop).map_err(|e| e.to_string())
}

fn lay_tokenizer(dir: &Path, file: &str) -> Vec<Vec<u8>> {
    for name in ["tokenizer.model", "tokenizer_config.json"] {
        fs::write(dir.join(name), repository(&format!("models/demo/{name}"))).unwrap();
    }
    vec![fs::read(dir.join(file)).unwrap()]
}

fn read_tokenizer(dir: &Path) -> Result<(), String> {
    let tokenizer = Tokenizer::from_dir(dir).map_err(|e| e.to_string())?;
    let ids = tokenizer.encode_prompt("Was ist 是什么? \u{1f600} a\u{301}\t\n\0 <s> [MASK] 0x00");
    let _ = tokenizer.decode(&ids);
    let most = (tokenizer.vocab_size() as u32).min(1000);
    let _ = tokenizer.decode_pieces(&(0..most).collect::<Vec<_>>());
    let _ = tokenizer.decode(&[u32::MAX, 0, 1]);
    Ok(())
}

fn lay_index(dir: &Path, _: &Path) -> Vec<Vec<u8>> {
    fs::write(dir.join("model-1.safetensors"), safetensors()).unwrap();
    fs::write(dir.join("model-2.safetensors"), safetensors_with(&[("c", [1, 1])])).unwrap();
    let map = serde_json::json!({"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"});
    vec![serde_json::json!({"metadata": {"total_size": 22}, "weight_map": map}).to_string().into_bytes()]
}

/// Opens a checkpoint and reads all its tensors.
fn read_weights(dir: &Path) -> Result<(), String> {
    let source = open_checkpoint(dir).map_err(|e| e.to_string())?;
    for stored in source.stored() {
        let view = source.tensor(&stored.name, &stored.shape).map_err(|e| e.to_string())?;
        let _ = view.to_f32();
    }
    source.fingerprint(&|_| ()).map(drop).map_err(|e| e.to_string())
}

fn lay_torch_index(dir: &Path, _: &Path) -> Vec<Vec<u8>> {
    let shard = zipped(&[("archive/data.pkl", &pickle()), ("archive/data/0", &[0; 12])]);
    fs::write(dir.join("pytorch_model-00001-of-00001.bin"), shard).unwrap();
    let map = serde_json::json!({"w": "pytorch_model-00001-of-00001.bin"});
    vec![serde_json::json!({"metadata": {}, "weight_map": map}).to_string().into_bytes()]
}

/// Reads a pickled checkpoint and converts it.
fn read_torch(dir: &Path) -> Result<(), String> {
    let plan = convert::Plan::read(dir).map_err(|e| e.to_string())?;
    let out = dir.join("out");
    let _ = fs::remove_dir_all(&out);
    plan.write(&out, &mut |_| ()).map(drop).map_err(|e| e.to_string())
}

fn lay_noise(_: &Path, _: &Path) -> Vec<Vec<u8>> {
    let floor =
        r#"{"case_id": "b1-i64-o32", "phase": "decode", "blocks": 20, "ratio": 1.001, "floor": 0.012}"#;
    let noise = format!(
        r#"{{"schema": 2, "engine": "e", "host": "h", "cpu_model": "c", "device": "cpu", "kernel": "avx2", "dtype": "fp16",
        "threads": 2, "model": "demo", "made": "2026-01-01T00:00:00Z", "floors": [{floor}, {floor}]}}"#
    );
    lines(&[&noise])
}

const JOURNALS: [&str; 7] = [
    "run.json",
    "samples.jsonl",
    "prompts.jsonl",
    "requests.jsonl",
    "probes.jsonl",
    "load.jsonl",
    "telemetry.csv",
];

/// Copies a run's folder. Only the file with the reader's name is mutated.
fn lay_run(dir: &Path, runs: &Path) -> Vec<Vec<u8>> {
    let name = dir.file_name().unwrap().to_str().unwrap();
    let file = JOURNALS.iter().find(|file| file.split('.').next() == Some(name)).unwrap();
    copy_tree(&runs.join("base"), dir);
    vec![fs::read(dir.join(file)).unwrap()]
}

/// Reads a run and does what the commands do with it. Pages take longer, so only one run in eight gets them, chosen by its bytes.
fn read_run(dir: &Path) -> Result<(), String> {
    use_run(dir, |sink| sink.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).is_multiple_of(8))
}

/// Does the same, with pages.
pub(super) fn read_whole_run(dir: &Path) -> Result<(), String> {
    use_run(dir, |_| true)
}

fn use_run(dir: &Path, has_pages: impl Fn(&[u8]) -> bool) -> Result<(), String> {
    // Report files and locks are left over from the previous input.
    let run = RunDir::open(dir).map_err(|e| e.to_string())?;
    let mut records = Records::read(&run).map_err(|e| e.to_string())?;
    records.prompts = run.read_prompts(|_| true).map_err(|e| e.to_string())?;
    let summary = Summary::of(records.run.clone(), &records.samples, &records.requests);
    summary.verdict_sentence();
    let exported = EXPORTS.iter().filter_map(|export| export::files(*export, &records).ok()).flatten();
    let sink: Vec<u8> = exported.flat_map(|file| file.bytes).collect();
    drop(rescore(&records.run, &records.samples, None, std::time::SystemTime::UNIX_EPOCH));
    if has_pages(&sink) {
        let _ = render(dir, Language::En);
        let options = Options { allow_mismatch: true, out: Some(dir.join("compared")), ..Options::default() };
        drop(glmbench::report::render_comparison(
            &[dir.parent().unwrap().join("base"), dir.to_path_buf()],
            &options,
        ));
    }
    // This comes last, because it cuts off torn lines.
    let mut run = run;
    run.hold().map_err(|e| e.to_string())?;
    run.append_telemetry(&TelemetryRow::default()).map_err(|e| e.to_string())
}

fn lay_bundle(_: &Path, _: &Path) -> Vec<Vec<u8>> {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("b.zip");
    let words = ["npu-selftest", "--small", "--emulate", "--bundle", path.to_str().unwrap()];
    crate::support::answer(&words).expect(0, &[]);
    vec![fs::read(path).unwrap()]
}
