//! Records that were changed after writing: every verb reports it, and `--resume` repairs what can be repaired.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::resume::samples;
use crate::support::{Answer, answer};

/// Two tasks, one with two stages, on the CPU.
const ASKED: &str = r#"schema = 1
name = "asked"
[model]
path = "demo"
[[accuracy]]
task = "ceval"
dataset = "DATASETS/ceval-sample"
protocol = "two-stage"
max_new_tokens = 4
limit = 8
batch = 4
[[accuracy]]
task = "boolq"
dataset = "DATASETS/boolq-sample"
protocol = "modeltest"
limit = 8
"#;

/// Shapes, searches and loads on an emulated card in clock-only mode.
const TIMED: &str = r#"schema = 1
name = "timed"
[model]
path = "dummy:MODEL/config.json"
[[performance]]
batch = [1, 2, 4]
lengths = [[16, 6]]
[[max_batch]]
lengths = [[16, 5]]
batch_range = [1, 12]
limit_tpot_ms = 1000
[[max_batch]]
lengths = [[32, 5]]
batch_range = [1, 3]
limit_tpot_ms = 1000
[[load]]
arrival = "poisson"
rates = [20, 40, 60]
requests = 12
lengths = [[16, 4]]
max_batch = 4
"#;

/// A finished run and its command line.
struct Bench {
    folder: TempDir,
    words: Vec<String>,
}

impl Bench {
    fn new(suite: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        let suite = suite
            .replace("DATASETS", home.join("datasets").to_str().unwrap())
            .replace("MODEL", home.join("models/demo").to_str().unwrap());
        let path = folder.path().join("s.toml");
        fs::write(&path, suite).unwrap();
        let out = folder.path().join("runs");
        let fixed = ["run", path.to_str().unwrap(), "--out", out.to_str().unwrap(), "--threads", "1"];
        let words = fixed.iter().chain(more).map(|&word| word.to_owned()).collect();
        let bench = Self { folder, words };
        answer(&bench.words).expect(0, &[]);
        copy(&bench.run(), &bench.untouched());
        bench
    }

    fn asked() -> Self {
        Self::new(ASKED, &[])
    }

    fn timed() -> Self {
        Self::new(TIMED, &["--device", "800i-a2", "--emulate"])
    }

    /// Returns the run directory.
    fn run(&self) -> PathBuf {
        let entries = fs::read_dir(self.folder.path().join("runs")).unwrap();
        let runs: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0].clone()
    }

    /// Returns the copy of the run before any tampering.
    fn untouched(&self) -> PathBuf {
        self.folder.path().join("untouched")
    }

    /// Restores the original state of the run.
    fn restore(&self) {
        let run = self.run();
        fs::remove_dir_all(&run).unwrap();
        copy(&self.untouched(), &run);
    }

    fn answer(&self, verb: &[&str]) -> Answer {
        let run = self.run();
        answer(&[&verb[..1], &[run.to_str().unwrap()], &verb[1..]].concat())
    }

    fn resume(&self, more: &[&str]) -> Answer {
        let more = ["--resume"].iter().chain(more).map(|&word| word.to_owned());
        answer(&self.words.iter().cloned().chain(more).collect::<Vec<_>>())
    }

    /// Checks that the run equals an undisturbed one, except for times.
    #[track_caller]
    fn assert_mended(&self, how: &str) {
        let (run, untouched) = (self.run(), self.untouched());
        for file in ["samples.jsonl", "prompts.jsonl", "requests.jsonl", "probes.jsonl", "load.jsonl"] {
            assert_eq!(without_times(&run.join(file)), without_times(&untouched.join(file)), "{how}: {file}");
        }
        let left: Vec<_> = fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name()).collect();
        let kept = left.iter().filter(|name| name.to_string_lossy().contains(".kept."));
        assert_eq!(kept.count(), 0, "{how}: {left:?}");
        self.answer(&["report"]).expect(0, &[]);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Returns the lines of a journal without times, and without the checksums that cover the times.
fn without_times(path: &Path) -> Vec<Value> {
    let strip = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        strip_times(&mut line);
        line
    };
    fs::read_to_string(path).unwrap_or_default().lines().map(strip).collect()
}

fn strip_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.ends_with("_ns") && name != "sum" && name != "peak_rss_bytes");
            fields.values_mut().for_each(strip_times);
        }
        Value::Array(values) => values.iter_mut().for_each(strip_times),
        _ => {}
    }
}

/// Returns a line with a corrected checksum, as from someone who knows the format.
fn forged(line: &str) -> String {
    let open = line.rsplit_once(",\"sum\":\"").unwrap().0;
    let digest = Sha256::digest(open);
    let sum: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{open},\"sum\":\"{sum}\"}}")
}

fn edit(path: &Path, change: &dyn Fn(Vec<String>) -> Vec<String>) {
    let text = fs::read_to_string(path).unwrap();
    let lines = change(text.lines().map(str::to_owned).collect());
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// A change of a journal, and a word of the resulting message.
type Tampering = (&'static str, fn(&Path), &'static str);

/// The ways to tamper with a journal.
const TAMPERINGS: [Tampering; 13] = [
    ("deleted", |path| fs::remove_file(path).unwrap(), ""),
    ("emptied", |path| fs::write(path, "").unwrap(), ""),
    ("first line gone", |path| edit(path, &|lines| lines[1..].to_vec()), ""),
    (
        "middle line gone",
        |path| {
            edit(path, &|mut lines| {
                lines.remove(lines.len() / 2);
                lines
            });
        },
        "",
    ),
    ("last line gone", |path| edit(path, &|lines| lines[..lines.len() - 1].to_vec()), ""),
    ("half of it gone", |path| edit(path, &|lines| lines[..lines.len() / 2].to_vec()), ""),
    (
        "last line torn",
        |path| {
            let length = fs::metadata(path).unwrap().len();
            fs::File::options().write(true).open(path).unwrap().set_len(length - 5).unwrap();
        },
        "torn",
    ),
    (
        "a line twice",
        |path| {
            edit(path, &|mut lines| {
                lines.push(lines[0].clone());
                lines
            });
        },
        "repeats",
    ),
    (
        "two lines exchanged",
        |path| {
            edit(path, &|mut lines| {
                lines.swap(0, 1);
                lines
            });
        },
        "",
    ),
    (
        "a line of rubbish",
        |path| edit(path, &|lines| [lines, vec!["rubbish".into()]].concat()),
        "cannot be read",
    ),
    (
        "a byte changed",
        |path| {
            edit(path, &|mut lines| {
                // Changes the last digit before the checksum, so the line stays readable.
                let before_sum = lines[0].rfind(",\"sum\"").unwrap();
                let at = lines[0][..before_sum].rfind(|c: char| c.is_ascii_digit()).unwrap();
                let other = if &lines[0][at..=at] == "7" { "8" } else { "7" };
                lines[0].replace_range(at..=at, other);
                lines
            });
        },
        "not as it was written",
    ),
    (
        "fifty lines invented",
        |path| {
            edit(path, &|mut lines| {
                let invented = |number: usize| {
                    let name = ["\"doc_id\":\"", "\"case_id\":\"", "\"search_id\":\"", "\"load_id\":\""];
                    let name = name.into_iter().find(|name| lines[0].contains(name)).unwrap();
                    forged(&lines[0].replacen(name, &format!("{name}invented-{number}-"), 1))
                };
                let more: Vec<String> = (0..50).map(invented).collect();
                lines.extend(more);
                lines
            });
        },
        "",
    ),
    (
        "a line forged",
        |path| {
            edit(path, &|mut lines| {
                let last = lines.len() - 1;
                let fields = ["\"t_start_ns\":", "\"prompt\":\"", "\"start_ns\":", "\"end_ns\":"];
                let field = fields.into_iter().find(|field| lines[last].contains(field)).unwrap();
                lines[last] = forged(&lines[last].replacen(field, &format!("{field}1"), 1));
                lines
            });
        },
        "",
    ),
];

/// Tampers with each of `journals` in each way. The report must say so and end with 4, and `--resume` must restore the
/// run.
fn tamper_and_mend(bench: &Bench, journals: &[&str]) {
    for journal in journals {
        for (how, tamper, says) in TAMPERINGS {
            let how = format!("{journal}, {how}");
            tamper(&bench.run().join(journal));
            let report = bench.answer(&["report"]).expect(4, &[]);
            assert!(report.out.contains("INVALID"), "{how}: {}", report.out);
            let page = fs::read_to_string(bench.run().join("summary.md")).unwrap();
            assert!(page.contains("not what the plan says") && page.contains(journal), "{how}: {page}");
            assert!(page.contains(says), "{how}: {page}");
            bench.answer(&["export", "--format", "jsonl"]).expect(4, &["not what the plan says", journal]);
            bench.resume(&[]).expect(0, &["repaired: ", journal]);
            bench.assert_mended(&how);
            bench.restore();
        }
    }
}

#[test]
fn samples_and_prompts_that_were_laid_hands_on_are_told_and_mended() {
    tamper_and_mend(&Bench::asked(), &["samples.jsonl", "prompts.jsonl"]);
}

#[test]
fn repetitions_probes_and_levels_that_were_laid_hands_on_are_told_and_mended() {
    tamper_and_mend(&Bench::timed(), &["requests.jsonl", "probes.jsonl", "load.jsonl"]);
}

#[test]
fn every_verb_knows_that_lines_are_missing() {
    let bench = Bench::asked();
    let (run, other) = (bench.run(), bench.untouched());
    let [run, other] = [&run, &other].map(|path| path.to_str().unwrap());
    let gates = bench.folder.path().join("gates.toml");
    fs::write(&gates, "schema = 1\n[[accuracy]]\nmax_drop = \"100%\"\n").unwrap();
    let alone = bench.folder.path().join("alone.toml");
    fs::write(&alone, "schema = 1\n[[accuracy]]\nmin = \"1%\"\n").unwrap();
    let [gates, alone] = [&gates, &alone].map(|path| path.to_str().unwrap());
    // A gate file that decides nothing does not pass.
    answer(&["report", run, "--gate", gates])
        .expect(2, &["none of its gates can be judged here", "`glmbench compare`"]);
    let out = bench.folder.path().join("compared");
    let out = out.to_str().unwrap();
    answer(&["compare", other, run, "--out", out]).expect(0, &[]);
    edit(&bench.run().join("samples.jsonl"), &|lines| lines[..10].to_vec());
    for verb in [
        &["report", run][..],
        &["compare", other, run, "--out", out],
        &["compare", run, other, "--out", out],
        &["report", run, "--gate", alone],
        &["compare", other, run, "--gate", gates, "--out", out],
        &["score", run],
        &["export", run, "--format", "jsonl"],
        &["export", run, "--format", "csv"],
        &["show", run, "boolq/dev/0"],
        &["verify", run, "--items", "1"],
    ] {
        let said = answer(verb);
        // A gate that needs another run may fail, but it must not pass.
        assert_eq!(said.code, Some(4), "{verb:?}: {said:?}");
    }
    let scored = fs::read_dir(bench.folder.path().join("runs")).unwrap().count();
    assert_eq!(scored, 1, "a new run was made of what is not sound");
}

#[test]
fn answers_are_held_against_their_keys_and_the_record_is_not_taken_at_its_word() {
    let bench = Bench::asked();
    bench.answer(&["report"]).expect(0, &[]);
    let path = bench.run().join("samples.jsonl");
    let before = fs::read_to_string(bench.run().join("accuracy.csv")).unwrap();
    // As from an older program: without checksums and seal.
    let unsealed = |line: &String| {
        format!("{}}}", line.rsplit_once(",\"sum\"").unwrap().0).replace("\"schema\":4", "\"schema\":2")
    };
    for file in ["samples.jsonl", "prompts.jsonl", "requests.jsonl"] {
        edit(&bench.run().join(file), &|lines| lines.iter().map(unsealed).collect());
    }
    let run_json = bench.run().join("run.json");
    let mut record: Value = serde_json::from_str(&fs::read_to_string(&run_json).unwrap()).unwrap();
    let fields = record.as_object_mut().unwrap();
    fields.remove("seal");
    fields.remove("sum");
    fields["schema"] = 2.into();
    fs::write(&run_json, record.to_string()).unwrap();
    let report = bench.answer(&["report"]).expect(0, &[]);
    assert!(report.out.contains("unknown: ") && report.out.contains("record sealed"), "{}", report.out);
    assert!(fs::read_to_string(bench.run().join("summary.md")).unwrap().contains("not sealed"));
    // Marks three wrong answers as right, or the reverse.
    edit(&path, &|mut lines| {
        let wrong = lines.iter_mut().filter(|line| line.contains("\"state\":\"scored\""));
        wrong.take(3).for_each(|line| {
            let flipped = if line.contains("\"correct\":true") { "false" } else { "true" };
            *line = line.replacen("\"correct\":true", &format!("\"correct\":{flipped}"), 1);
        });
        lines
    });
    bench.answer(&["report"]).expect(4, &[]);
    let page = fs::read_to_string(bench.run().join("summary.md")).unwrap();
    assert!(page.contains("is not what answer and key say"), "{page}");
    let counts = |text: &str| -> Vec<String> {
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let at = reader.headers().unwrap().iter().position(|name| name == "correct").unwrap();
        reader.records().map(|row| row.unwrap()[at].to_owned()).collect()
    };
    let after = fs::read_to_string(bench.run().join("accuracy.csv")).unwrap();
    assert_eq!(counts(&after), counts(&before), "the recomputed one counts");
    bench.answer(&["score"]).expect(0, &["is not what answer and key say"]);
}

/// Returns a `run.json` with a corrected checksum.
fn forged_page(text: &str) -> String {
    let open = text.rsplit_once(",\n  \"sum\": \"").unwrap().0;
    let sum: String = Sha256::digest(open)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{open},\n  \"sum\": \"{sum}\"\n}}\n")
}

/// A plan that asks for something other than the lines contain: every verb reports it, and `--resume` knows the real
/// plan.
#[test]
fn a_plan_that_was_changed_is_no_plan_of_these_lines() {
    let bench = Bench::timed();
    let path = bench.run().join("run.json");
    let text = fs::read_to_string(&path).unwrap();
    for (what, with) in [
        ("\"limit_tpot_ns\": 1000000000", "\"limit_tpot_ns\": 1"),
        ("\"input_tokens\": 16,", "\"input_tokens\": 17,"),
        ("\"batch\": 4,", "\"batch\": 5,"),
    ] {
        let changed = text.replacen(what, with, 1);
        assert_ne!(changed, text, "{what}");
        fs::write(&path, forged_page(&changed)).unwrap();
        bench.answer(&["report"]).expect(4, &["not what the plan says"]);
        bench.answer(&["export", "--format", "jsonl"]).expect(4, &["not what the plan says"]);
        bench.restore();
    }
}

#[test]
fn a_changed_run_json_is_told() {
    let bench = Bench::asked();
    let path = bench.run().join("run.json");
    let text = fs::read_to_string(&path).unwrap();
    for (what, with) in [
        ("\"items\": 8,", "\"items\": 4,"),
        ("\"protocol\": \"two-stage\"", "\"protocol\": \"modeltest-0shot\""),
        ("\"expected\": null", "\"expected\": 0.5"),
        ("\"host\": \"", "\"host\": \"x"),
        ("\"lines\": 16", "\"lines\": 17"),
    ] {
        let changed = text.replacen(what, with, 1);
        assert_ne!(changed, text, "{what}");
        fs::write(&path, changed).unwrap();
        let report = bench.answer(&["report"]).expect(4, &[]);
        assert!(report.out.contains("INVALID"), "{what}: {}", report.out);
        let page = fs::read_to_string(bench.run().join("summary.md")).unwrap();
        assert!(page.contains("run.json is not as it was written"), "{what}: {page}");
        // The command determines the plan, so the record is rewritten.
        bench.resume(&[]).expect(0, &["repaired: run.json is not as it was written"]);
        bench.assert_mended(what);
        bench.restore();
    }
    // The plan has fewer items, with a corrected checksum, but identity and journals show the real number.
    fs::write(&path, forged_page(&text.replacen("\"items\": 8,", "\"items\": 4,", 1))).unwrap();
    bench.answer(&["report"]).expect(4, &[]);
    let page = fs::read_to_string(bench.run().join("summary.md")).unwrap();
    for says in ["8 items, 4 are in the plan", "the plan has 4 for the items of ceval, its identity 8"] {
        assert!(page.contains(says), "{says}: {page}");
    }
    // The seal is removed, with a corrected checksum.
    let (front, behind) = text.split_once(",\n  \"seal\": {").unwrap();
    let behind = behind.split_once("\n  }").unwrap().1;
    fs::write(&path, forged_page(&format!("{front}{behind}"))).unwrap();
    bench.answer(&["report"]).expect(4, &["calls the run complete and has no seal"]);
    bench.resume(&[]).expect(0, &["repaired: run.json had no seal"]);
    bench.assert_mended("no seal");
}

#[test]
fn an_unfinished_run_is_incomplete_and_one_with_a_gap_invalid() {
    let bench = Bench::asked();
    let path = bench.run().join("run.json");
    // The record as it is during the run.
    let text = fs::read_to_string(&path).unwrap();
    let mut record: Value = serde_json::from_str(&text).unwrap();
    record["status"] = "running".into();
    record["schema"] = 2.into();
    record.as_object_mut().unwrap().remove("sum");
    fs::write(&path, record.to_string()).unwrap();
    for kept in [0, 5, 12, 16] {
        fs::write(
            bench.run().join("samples.jsonl"),
            fs::read(bench.untouched().join("samples.jsonl")).unwrap(),
        )
        .unwrap();
        edit(&bench.run().join("samples.jsonl"), &|lines| lines[..kept].to_vec());
        edit(&bench.run().join("prompts.jsonl"), &|lines| lines[..kept].to_vec());
        // Torn in the middle of a line, as after a kill.
        let torn = "{\"schema\":4,\"task\":\"boo";
        let text = fs::read_to_string(bench.run().join("samples.jsonl")).unwrap();
        fs::write(bench.run().join("samples.jsonl"), text.clone() + torn).unwrap();
        bench.answer(&["report"]).expect(3, &[]);
        if kept == 12 {
            let out = bench.folder.path().join("scored");
            bench.answer(&["export", "--format", "jsonl"]).expect(3, &["is INCOMPLETE"]);
            let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
            bench.answer(&["show", first["doc_id"].as_str().unwrap()]).expect(3, &["is INCOMPLETE"]);
            bench.answer(&["score", "--out", out.to_str().unwrap()]).expect(3, &["is INCOMPLETE"]);
            bench.answer(&["verify", "--items", "2"]).expect(3, &["is INCOMPLETE"]);
            // Read while the run writes: the prompts of several items exist, but their samples do not yet.
            fs::copy(bench.untouched().join("prompts.jsonl"), bench.run().join("prompts.jsonl")).unwrap();
            bench.answer(&["report"]).expect(3, &[]);
        }
        fs::copy(bench.untouched().join("prompts.jsonl"), bench.run().join("prompts.jsonl")).unwrap();
        fs::copy(bench.untouched().join("samples.jsonl"), bench.run().join("samples.jsonl")).unwrap();
    }
    // The first task has lost its last items, while the second has lines.
    edit(&bench.run().join("samples.jsonl"), &|mut lines| {
        lines.drain(4..8);
        lines
    });
    bench.answer(&["report"]).expect(4, &[]);
}

#[test]
fn what_failed_is_done_again_where_it_is_asked_for() {
    let bench = Bench::asked();
    let whole = samples(&bench.run());
    // Two items failed for a transient reason. One of them is in the middle of the first task.
    let failed = |line: &String| {
        let mut fields: Value = serde_json::from_str(line).unwrap();
        fields["state"] = "failed".into();
        fields["correct"] = false.into();
        fields["pred"] = Value::Null;
        fields["error"] = "device 300i-duo is lost: planted".into();
        fields.as_object_mut().unwrap().remove("sum");
        let text = fields.to_string();
        // Fields are in alphabetical order, except that the schema number comes first.
        let text = format!("{{\"schema\":4,{}", text[1..].replacen("\"schema\":4,", "", 1));
        forged(&format!("{},\"sum\":\"0\"}}", text.strip_suffix('}').unwrap()))
    };
    let samples_path = bench.run().join("samples.jsonl");
    edit(&samples_path, &|mut lines| {
        for at in [3, 12] {
            lines[at] = failed(&lines[at]);
        }
        lines
    });
    // Sealed in this state: only the content of the lines tells of the failure.
    let path = bench.run().join("run.json");
    let bytes = fs::read(&samples_path).unwrap();
    let sealed: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = fs::read_to_string(&path).unwrap();
    let record: Value = serde_json::from_str(&text).unwrap();
    let text = text.replace(record["seal"]["samples.jsonl"]["sha256"].as_str().unwrap(), &sealed);
    let open = text.rsplit_once(",\n  \"sum\": \"").unwrap().0;
    let sum: String = Sha256::digest(open)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(&path, format!("{open},\n  \"sum\": \"{sum}\"\n}}\n")).unwrap();
    let report = bench.answer(&["report"]);
    assert!(!report.out.contains("not what the plan says"), "{}", report.out);
    let words = ["2 are cut off", "kept for their places"];
    bench.resume(&["--retry-failed"]).expect(0, &words);
    assert_eq!(samples(&bench.run()), whole);
    bench.assert_mended("retried");
}

/// Flips one bit in the files of the run at a time, `count` times, and checks that no report accepts it. Every tenth
/// time, also checks that `--resume` repairs it.
fn turn_bits_over(bench: &Bench, count: u64) {
    let files: Vec<PathBuf> = fs::read_dir(bench.untouched())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl") || path.ends_with("run.json"))
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .collect();
    let mut rng = glmbench::stats::Rng::new(1);
    for number in 0..count {
        let file = &files[rng.below(files.len() as u64) as usize];
        let mut bytes = fs::read(file).unwrap();
        let (at, bit) = (rng.below(bytes.len() as u64) as usize, rng.below(8));
        bytes[at] ^= 1 << bit;
        let name = file.file_name().unwrap().to_str().unwrap();
        fs::write(bench.run().join(name), &bytes).unwrap();
        let said = bench.answer(&["report"]);
        let how = format!("{name}, byte {at}, bit {bit}");
        // An unreadable run.json is an input error.
        let is_told = said.code == Some(4) || (name == "run.json" && said.code == Some(2));
        assert!(is_told, "{how}: {said:?}");
        if name != "run.json" && number % 10 == 0 {
            bench.resume(&[]).expect(0, &[]);
            bench.assert_mended(&how);
        }
        bench.restore();
    }
}

#[test]
fn no_bit_can_be_turned_over_unnoticed() {
    turn_bits_over(&Bench::asked(), 20);
    turn_bits_over(&Bench::timed(), 20);
}

/// The long version: `cargo test --release --test it -- --ignored hundreds`.
#[test]
#[ignore = "takes some minutes"]
fn no_bit_of_hundreds_can_be_turned_over_unnoticed() {
    turn_bits_over(&Bench::asked(), 700);
    turn_bits_over(&Bench::timed(), 700);
}
