//! `--pack-cache` from the command line: what it says, what the record says, and who refuses it.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use glmbench::record::RunRecord;
use serde_json::Value;

use crate::support::answer;

/// Links the files of the demo. Copies would be new, and weights that have just changed are not kept.
fn demo(to: &Path) {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")).unwrap() {
        let entry = entry.unwrap();
        symlink(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Writes a suite of a few items and one small shape.
fn suite(folder: &Path) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/boolq-sample");
    let text = format!(
        "schema = 1\nname = \"small\"\n[[accuracy]]\ntask = \"boolq\"\ndataset = {data:?}\nprotocol = \"modeltest\"\n\
         limit = 5\n[[performance]]\nbatch = [1]\nlengths = [[8, 2]]\nrepetitions = 1\n"
    );
    let path = folder.join("small.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn run_of(out: &Path) -> (PathBuf, RunRecord) {
    let run = fs::read_dir(out).unwrap().next().unwrap().unwrap().path();
    let record = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    (run, record)
}

/// Returns what does not change from run to run: the answer with its log-probabilities, without times.
fn answer_of(sample: &Value) -> Vec<Value> {
    ["doc_id", "pred", "choice_logprobs", "output_tokens"].map(|key| sample[key].clone()).to_vec()
}

#[test]
fn runs_map_what_the_first_one_kept_and_answer_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    demo(&model);
    let suite = suite(dir.path());
    let mut found = Vec::new();
    for (name, used, says) in [
        ("plain", None, ""),
        ("first", Some("written"), "packed weights: kept in "),
        ("second", Some("mapped"), "packed weights: mapped from "),
    ] {
        let out = dir.path().join(name);
        let mut words = vec!["run", &suite];
        words.extend(["--model", model.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        words.extend(used.map(|_| "--pack-cache"));
        let told = answer(&words).expect(0, &[says]).words;
        assert_eq!(told.contains("packed weights"), used.is_some(), "{told}");
        let (run, record) = run_of(&out);
        assert_eq!(record.provenance.load.unwrap().pack_cache.as_deref(), used);
        let lines = fs::read_to_string(run.join("samples.jsonl")).unwrap();
        let answers: Vec<_> =
            lines.lines().map(|line| answer_of(&serde_json::from_str(line).unwrap())).collect();
        found.push((record.identity, answers));
    }
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn who_has_no_packed_weights_refuses_the_flag_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let bench = ["bench", "-p", "8", "-n", "2", "--pack-cache", "--out", out];
    let refused = |more: &[&str], says: &[&str]| {
        answer(&[&bench, more].concat()).expect(2, says);
    };
    refused(
        &["--model", "dummy:models/demo/config.json"],
        &["--pack-cache: random weights", "expected a model folder"],
    );
    refused(&["--model", "demo", "--device", "reference"], &["--pack-cache: device reference"]);
    refused(&["--model", "demo", "--device", "300i-duo", "--emulate"], &["--pack-cache: device 300i-duo"]);
}
