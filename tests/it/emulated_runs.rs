//! Whole runs on the emulated card: the effect of an out-of-memory error on a search, and the devices' telemetry.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use glmbench::backend::Backend;
use glmbench::record::{ProbeOutcome, ProbePurpose, ProbeRecord, RunRecord};
use glmbench::run::plan::Plan;
use glmbench::run::provenance::record;
use glmbench::run::{Ending, Observer, Silent, execute, open_dir};
use glmbench::suite::Suite;
use glmbench_ascend::{AscendGroup, Chip, Emulation, Forced, GroupSettings};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, DeviceError, KvForm, WeightForm};
use glmbench_engine::Engine;
use glmbench_engine::EngineError;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, attention_shape};
use glmbench_engine::parallel::{Cut, Ranks};
use glmbench_engine::weights::StorageType;
use glmbench_engine::weights::unread::Unread;

use crate::in_process::origin;
use crate::support::answer;

const SEARCH: &str = "schema = 1\nname = \"s\"\n[[max_batch]]\nlengths = [[300, 3]]\nbatch_range = [1, 8]\nlimit_tpot_ms = 10000\nrepetitions = 1\n";

fn config() -> ModelConfig {
    let text = r#"{"model_type":"chatglm","num_layers":2,"hidden_size":128,"ffn_hidden_size":200,"kv_channels":32,
        "num_attention_heads":8,"multi_query_attention":true,"multi_query_group_num":2,"padded_vocab_size":320,
        "seq_length":1024,"add_qkv_bias":true}"#;
    ModelConfig::from_json(text, Path::new("config.json")).unwrap()
}

/// Loads an engine of `tp` ranks where only the clock runs.
fn engine(tp: usize, capacity: Capacity, lines: &str) -> Result<Engine, EngineError> {
    let config = config();
    let chip = Chip::Duo300i;
    let settings = GroupSettings {
        chip,
        tp,
        dtype: DType::Fp16,
        weights: WeightForm::Plain,
        kv: KvForm::Auto,
        attention: attention_shape(&Cut::new(&config, 0, tp)?.config(&config)),
        bind: false,
        // Decode gathers all sequences' blocks, and allocates memory for that on demand.
        forced: Forced::parse("decode=prompt").unwrap(),
        emulation: Some(Emulation::new(chip, None, true).unwrap().with("hccl_timeout_ms = 200").with(lines)),
    };
    let source = Arc::new(Unread { config: config.clone(), dtype: StorageType::F16 });
    let group = AscendGroup::new(settings)?;
    let ranks = Ranks::load(group, &config, RotaryMode::Model, capacity, source, &mut |_, _| {})?;
    Ok(Engine::new(Box::new(ranks)))
}

/// A search on an engine with a fault, continued on sound ones.
struct Searched {
    probes: Vec<ProbeRecord>,
    reloads: usize,
    telemetry_csv: String,
    record: RunRecord,
}

/// Returns `None` if the fault comes before the engine is loaded.
fn search(tp: usize, lines: &str) -> Option<Searched> {
    let config = config();
    let text = SEARCH.replace("lengths", &format!("tp = [{tp}]\nlengths"));
    let suite = Suite::parse(Path::new("s.toml"), &text, &[]).unwrap();
    let plan = Plan::new(&suite, &config, None, 512).unwrap();
    let loaded = match engine(tp, plan.capacity(tp), lines) {
        Err(EngineError::Device(DeviceError::OutOfMemory { .. })) => return None,
        loaded => loaded.unwrap(),
    };
    let origin = origin(&suite, &config, &loaded);
    let root = tempfile::tempdir().unwrap();
    let (mut dir, mut record) = open_dir(root.path(), None, record(&origin, &plan, &config)).unwrap();
    let mut reloads = 0;
    let mut reload = |tp, _: &mut dyn Observer| {
        reloads += 1;
        Ok(Box::new(engine(tp, plan.capacity(tp), "")?) as Box<dyn Backend>)
    };
    let stop = AtomicBool::new(false);
    let ending =
        execute(&plan, Box::new(loaded), &mut reload, &mut dir, &mut record, &mut Silent, &stop).unwrap();
    assert_eq!(ending, Ending::Complete);
    let probes = dir.read_probes().unwrap();
    let telemetry_csv = fs::read_to_string(dir.path().join("telemetry.csv")).unwrap();
    Some(Searched { probes, reloads, telemetry_csv, record })
}

/// The failing allocation is the first after loading where a batch larger than the first needs memory.
#[test]
fn a_search_that_meets_the_end_of_memory_notes_it_and_goes_on() {
    for tp in [1, 2] {
        let met = |p: &&ProbeRecord| p.outcome == ProbeOutcome::OutOfMemory;
        let found = (1..400)
            .filter_map(|n| search(tp, &format!("fault = oom:{n}")))
            .find(|found| found.probes.iter().find(met).is_none_or(|p| p.batch > 1))
            .unwrap();
        let told = found.probes.iter().find(met).expect("some batch wants more memory than the first");
        let reason = told.reason.as_deref().unwrap();
        assert!(reason.contains("cannot be allocated") && told.wanted_bytes.is_none(), "{told:?}");
        assert_eq!(found.reloads, 1);
        let at = found.probes.iter().position(|p| p == told).unwrap();
        let after: Vec<_> = found.probes[at + 1..].iter().collect();
        assert!(after.iter().all(|p| p.outcome == ProbeOutcome::Fits), "{after:?}");
        assert!(after.iter().any(|p| p.purpose == ProbePurpose::Verify && p.batch == told.batch));
        // A probe that fails in its first step ends where it began: nobody knows how long that step took.
        let goes_on = |two: &[ProbeRecord]| match two[1].outcome {
            ProbeOutcome::OutOfMemory => two[0].end_ns <= two[1].end_ns,
            _ => two[0].end_ns < two[1].end_ns,
        };
        assert!(found.probes.windows(2).all(goes_on), "the clock goes on");
        eprintln!("{tp}: {} probes, batch {} met it: {reason}", found.probes.len(), told.batch);
    }
}

#[test]
fn telemetry_of_every_chip_stands_beside_the_hosts_and_says_how_it_came_about() {
    let fake = search(2, "telemetry = fake").unwrap();
    let how = &fake.record.provenance.telemetry;
    for column in ["power_w", "npu_util", "temp_c"] {
        assert!(
            how[column].starts_with("made up by the emulator (telemetry = fake), no measurement"),
            "{how:?}"
        );
    }
    assert!(how["device_memory_bytes"].starts_with("the emulator's count"), "{how:?}");
    assert_eq!(how["freq_khz"], "absent: not read on this device");
    let rows: Vec<Vec<&str>> = fake.telemetry_csv.lines().skip(1).map(|l| l.split(',').collect()).collect();
    assert_eq!(rows.len(), 3 * fake.probes.len(), "{}", fake.telemetry_csv);
    for sample in rows.chunks(3) {
        assert!(!sample[0][1].is_empty() && sample[0][6].is_empty(), "{sample:?}");
        for (device, row) in ["0", "1"].iter().zip(&sample[1..]) {
            assert_eq!([row[1], row[2], row[3], row[4], row[6]], ["", "11.1", "0.11", "11.0", *device]);
            assert!(row[7].parse::<u64>().unwrap() > 0, "{row:?}");
        }
    }
    let plain = search(1, "").unwrap();
    let how = &plain.record.provenance.telemetry;
    assert!(["power_w", "npu_util", "temp_c"].iter().all(|c| how[*c].starts_with("absent: ")), "{how:?}");
    assert!(plain.telemetry_csv.lines().skip(1).all(|l| l.split(',').nth(2) == Some("")));
}

/// The tables show the memory of the fullest chip on the card. Two chips hold half of the model each.
#[test]
fn the_cards_memory_stands_in_the_tables() {
    let folder = tempfile::tempdir().unwrap();
    let suite = folder.path().join("m.toml");
    let text = "schema = 1\nname = \"m\"\n[model]\npath = \"dummy:chatglm2-6b\"\n[[performance]]\nbatch = [1]\n\
        lengths = [[128, 4]]\ntp = [1, 2]\nrepetitions = 1\nmax_warmups = 0\n";
    fs::write(&suite, text).unwrap();
    let out = folder.path().join("runs");
    let told = answer(&[
        "run",
        suite.to_str().unwrap(),
        "--device",
        "300i-duo",
        "--emulate",
        "--out",
        out.to_str().unwrap(),
    ])
    .expect(0, &[]);
    let run = fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let mut rows = csv::Reader::from_path(run.join("perf.csv")).unwrap();
    let rows: Vec<BTreeMap<String, String>> = rows.deserialize().map(Result::unwrap).collect();
    let of_tp = |tp: &str| -> u64 {
        let row = rows.iter().find(|row| row["tp"] == tp && row["phase"] == "e2e").unwrap();
        assert_eq!(row["peak_rss_bytes"], "");
        row["device_memory_bytes"].parse().unwrap()
    };
    let (one, two) = (of_tp("1"), of_tp("2"));
    assert!((12_500_000_000..15_000_000_000).contains(&one), "{one}");
    assert!((one / 2..one * 55 / 100).contains(&two), "{two} of {one}");
    let shown = |bytes: u64| {
        let gib = bytes as f64 / f64::from(1 << 30);
        if gib < 10.0 { format!("{gib:.2} GiB") } else { format!("{gib:.1} GiB") }
    };
    for text in [&told.out, &fs::read_to_string(run.join("summary.md")).unwrap()] {
        assert!(text.contains(&shown(one)) && text.contains(&shown(two)), "{text}");
    }
}

/// `--emulate` applies to whichever side is a card. If neither is, it is refused.
#[test]
fn the_cpu_is_compared_with_an_emulated_card() {
    let parity = ["parity", "--model", "demo", "--decode", "4", "--max-share", "0.05", "--json", "--emulate"];
    for (sides, engine, reference) in [
        (&["--against", "300i-duo"][..], "cpu fp16", "300i-duo (emulated) fp16"),
        (
            &["--device", "800i-a2", "--tp", "2", "--against", "cpu"],
            "800i-a2 (emulated) fp16 tp 2",
            "cpu fp16",
        ),
    ] {
        let outcome = answer(&[&parity, sides].concat()).expect(0, &[]).out;
        let outcome: serde_json::Value = serde_json::from_str(&outcome).unwrap();
        assert_eq!((&outcome["engine"], &outcome["reference"]), (&engine.into(), &reference.into()));
        assert!(outcome["max_abs_difference"].as_f64().unwrap() > 0.0, "{outcome}");
    }
    answer(&[&parity[..], &["--against", "cpu"]].concat())
        .expect(2, &["--emulate: device cpu has no emulator; expected 300i-duo or 800i-a2"]);
}

/// An emulated chip is near no core, so its rank shares the host's cores.
#[test]
fn ranks_of_an_emulated_card_are_bound_to_the_cores_there_are() {
    let chat = ["chat", "--model", "demo", "--prompt", "a", "--max-new-tokens", "1", "--bind"];
    let said = answer(&[&chat[..], &["--device", "300i-duo", "--emulate"]].concat()).expect(0, &[]);
    assert!(!said.words.contains("not bound"), "{said:?}");
}

/// Two shapes of two batches, a search and a load, where only the clock runs.
const MODELLED: &str = r#"schema = 1
name = "modelled"
[model]
path = "dummy:chatglm2-6b"
[[performance]]
batch = BATCHES
lengths = [[300, 6], [40, 4]]
repetitions = 1
[[max_batch]]
lengths = [[128, 3]]
batch_range = [1, 4]
limit_tpot_ms = 10000
repetitions = 2
[[load]]
arrival = "poisson"
lengths = [[64, 4]]
rates = [2, 20]
requests = 12
max_batch = 4
"#;

/// Runs a suite. Returns its temporary folder, and the directory of the run with `name` in its path.
fn modelled(name: &str, suite: &str, more: &[&str]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(folder.path().join("s.toml"), suite).unwrap();
    let (suite, out) = (path("s.toml"), path("runs"));
    let mut args = vec!["run", suite.as_str(), "--out", out.as_str()];
    args.extend(more);
    answer(&args).expect(0, &[]);
    let run = run_named(&folder.path().join("runs"), name);
    (folder, run)
}

fn run_named(runs: &Path, part: &str) -> std::path::PathBuf {
    let paths = fs::read_dir(runs).unwrap().map(|entry| entry.unwrap().path());
    let mut of = paths.filter(|p| p.join("run.json").exists() && p.to_str().unwrap().contains(part));
    of.next().unwrap()
}

const JOURNALS: [&str; 3] = ["requests.jsonl", "probes.jsonl", "load.jsonl"];

fn journals(run: &Path) -> Vec<String> {
    JOURNALS.iter().map(|name| fs::read_to_string(run.join(name)).unwrap()).collect()
}

/// Returns the phases' durations and the memory of each case, by case id.
fn durations(run: &Path) -> std::collections::BTreeMap<String, String> {
    let text = fs::read_to_string(run.join("requests.jsonl")).unwrap();
    let line = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let ns = |key: &str| line[key].as_u64().unwrap();
        let whole = ns("end_ns") - ns("start_ns");
        let decode = ns("end_ns") - ns("first_token_ns");
        let (prefill, steps, memory) = (&line["prefill_ns"], &line["step_ns"], &line["device_memory_bytes"]);
        let told = format!("{prefill} {steps} {decode} {whole} {memory}");
        (line["case_id"].as_str().unwrap().to_owned(), told)
    };
    text.lines().map(line).collect()
}

#[test]
fn modelled_times_are_the_same_whatever_ran_before_and_after_a_resume() {
    let card = ["--device", "300i-duo", "--emulate"];
    let suite = MODELLED.replace("BATCHES", "[1, 4]");
    let (first, run) = modelled("duo", &suite, &card);
    let (_again, second) = modelled("duo", &suite, &card);
    assert_eq!(journals(&run), journals(&second));
    // With other cases before each.
    let (_other, turned) = modelled("duo", &MODELLED.replace("BATCHES", "[4, 1]"), &card);
    assert_eq!(durations(&run), durations(&turned));
    // After another card, in one process.
    let configuration = "device=300i-duo,emulate=true";
    let words = ["--configuration", "device=800i-a2,emulate=true", "--configuration", configuration];
    let (_after, behind) = modelled("duo", &suite, &words);
    assert_eq!(journals(&run), journals(&behind));
    // Cut off after its second case, and resumed.
    let whole = journals(&run);
    let lines: String = whole[0].split_inclusive('\n').take(2).collect();
    fs::write(run.join("requests.jsonl"), lines).unwrap();
    for name in &JOURNALS[1..] {
        fs::remove_file(run.join(name)).unwrap();
    }
    fs::remove_file(run.join("report.html")).unwrap();
    let path = |name: &str| first.path().join(name).to_str().unwrap().to_owned();
    let (suite, out) = (path("s.toml"), path("runs"));
    let mut args = vec!["run", suite.as_str(), "--out", out.as_str(), "--resume"];
    args.extend(card);
    answer(&args).expect(0, &[]);
    assert_eq!(journals(&run), whole);
}
