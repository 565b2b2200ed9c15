//! `glmbench verify` confirms a sound record, detects a forged one, and rejects another model.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::{Answer, answer};

const SUITE: &str = r#"schema = 1
name = "v"
[model]
path = "demo"
[[accuracy]]
task = "ceval"
dataset = "DATASETS/ceval-sample"
protocol = "two-stage"
max_new_tokens = 16
limit = 12
[[accuracy]]
task = "boolq"
dataset = "DATASETS/boolq-sample"
protocol = "loglikelihood"
limit = 12
[[performance]]
batch = [1, 3]
lengths = [[16, 6]]
repetitions = 2
max_warmups = 1
"#;

/// A folder with a run of the suite.
struct Run {
    folder: TempDir,
    path: PathBuf,
}

impl Run {
    fn new(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
        let suite = folder.path().join("v.toml");
        fs::write(&suite, SUITE.replace("DATASETS", sets.to_str().unwrap())).unwrap();
        let out = folder.path().join("runs");
        let words = ["run", suite.to_str().unwrap(), "--out", out.to_str().unwrap()];
        answer(&[&words, more].concat()).expect(0, &[]);
        let path = fs::read_dir(out).unwrap().next().unwrap().unwrap().path();
        Self { folder, path }
    }

    fn verify(&self, more: &[&str]) -> Answer {
        answer(&[&["verify", self.path.to_str().unwrap()], more].concat())
    }

    /// Changes a line of a journal, and corrects its checksum and the seal.
    fn forge(&self, journal: &str, at: usize, change: &dyn Fn(&str) -> String) {
        let path = self.path.join(journal);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let changed = change(&lines[at]);
        assert_ne!(changed, lines[at]);
        let open = changed.rsplit_once(",\"sum\":\"").unwrap().0;
        lines[at] = format!("{open},\"sum\":\"{}\"}}", &hash(open)[..16]);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(&path, &text).unwrap();
        let record = self.path.join("run.json");
        let run = fs::read_to_string(&record).unwrap();
        let sealed: Value = serde_json::from_str(&run).unwrap();
        let run = run.replace(sealed["seal"][journal]["sha256"].as_str().unwrap(), &hash(&text));
        let open = run.rsplit_once(",\n  \"sum\": \"").unwrap().0;
        fs::write(&record, format!("{open},\n  \"sum\": \"{}\"\n}}\n", &hash(open)[..16])).unwrap();
    }
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_record_is_confirmed_to_the_last_bit_and_a_forged_line_is_found() {
    let run = Run::new(&["--threads", "2"]);
    let all = ["--items", "24", "--threads", "1"];
    let said = run.verify(&all).expect(0, &[]);
    for words in ["24 of 24 items", "2 of 2 timed cases", "to the last bit", "is as recorded"] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    // A subset: the same seed gives the same items.
    let drawn = |seed: &str| {
        run.verify(&["--items", "5", "--cases", "0", "--seed", seed, "--json"]).expect(0, &[]).out
    };
    assert_eq!(drawn("7"), drawn("7"));
    let data: Value = serde_json::from_str(&drawn("8")).unwrap();
    assert_eq!((&data["items"], &data["seed"]), (&5.into(), &8.into()));
    assert_eq!(data["differences"], Value::Array(Vec::new()));
    // The last bit of one log-probability, changed by someone who knows the format: checksums and seal are right.
    run.forge("samples.jsonl", 3, &|line| {
        let from = line.find("\"choice_logprobs\":[").unwrap() + "\"choice_logprobs\":[".len();
        let end = from + line[from..].find(',').unwrap();
        let value: f32 = line[from..end].parse().unwrap();
        format!("{}{}{}", &line[..from], f32::from_bits(value.to_bits() ^ 1), &line[end..])
    });
    answer(&["report", run.path.to_str().unwrap()]).expect(0, &[]);
    let said = run.verify(&all).expect(1, &[]);
    assert!(said.out.contains("DIFFERS: item ceval/val/"), "{}", said.out);
    assert!(said.out.contains("log-probability of choice 1: recorded -"), "{}", said.out);
    assert!(said.out.contains("1 of 26 differ"), "{}", said.out);
    run.forge("requests.jsonl", 2, &|line| {
        let at = line.find("\"output_hash\":\"").unwrap() + "\"output_hash\":\"".len();
        format!("{}{}{}", &line[..at], "0123456789abcdef", &line[at + 16..])
    });
    let said = run.verify(&["--items", "0", "--cases", "2"]).expect(1, &[]);
    assert!(said.out.contains("DIFFERS: timed case b"), "{}", said.out);
}

#[test]
fn another_family_of_kernels_is_held_to_a_bound() {
    let run = Run::new(&["--kernel", "portable", "--dtype", "bf16"]);
    for same in ["portable", "avx2", "avx512"] {
        let said = run.verify(&["--kernel", same, "--items", "6"]);
        if said.code == Some(5) {
            crate::support::skipped(&format!("this machine has no {same}"));
            continue;
        }
        let said = said.expect(0, &[]);
        assert!(said.out.contains("to the last bit"), "{}", said.out);
    }
    let said = run.verify(&["--kernel", "amx-portable", "--items", "24"]).expect(0, &[]);
    assert!(said.out.contains("within ") && said.out.contains("largest difference"), "{}", said.out);
    assert!(said.out.contains("not compared: b1-i16-o6: output hashes"), "{}", said.out);
    // Two ranks split the sums, so results are only equal within a bound.
    let said = run.verify(&["--tp", "2", "--items", "8"]).expect(0, &[]);
    assert!(said.out.contains("within "), "{}", said.out);
    // Differences beyond the bound are still found.
    run.forge("samples.jsonl", 15, &|line| {
        let from = line.find("\"choice_logprobs\":[").unwrap() + "\"choice_logprobs\":[".len();
        let end = from + line[from..].find(',').unwrap();
        format!("{}-77.5{}", &line[..from], &line[end..])
    });
    run.verify(&["--kernel", "amx-portable", "--items", "24"]).expect(1, &[]);
}

#[test]
fn other_weights_tokens_or_data_are_refused() {
    let run = Run::new(&[]);
    let copied = |name: &str| {
        let folder = run.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        for entry in fs::read_dir(demo).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_file()) {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        folder
    };
    let other = copied("other");
    let weights = other.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    // The last bytes belong to the inverse frequencies, which are computed instead of read.
    let at = bytes.len() - 1000;
    bytes[at] ^= 1;
    fs::write(&weights, bytes).unwrap();
    run.verify(&["--model", other.to_str().unwrap()]).expect(2, &["weights: found the hash", "recorded"]);
    run.verify(&["--model", copied("same").to_str().unwrap(), "--items", "3"]).expect(0, &[]);
    let set = run.folder.path().join("set");
    fs::create_dir(&set).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/boolq-sample/dev.jsonl");
    let text = fs::read_to_string(sample).unwrap();
    fs::write(set.join("dev.jsonl"), text.replacen("the", "a", 1)).unwrap();
    let words = format!("boolq={}", set.display());
    run.verify(&["--set", &words, "--items", "24"]).expect(2, &["the data set's hash is", "recorded"]);
    run.verify(&["--model", "dummy:chatglm2-6b"]).expect(2, &["tokenizer: found the hash"]);
}
