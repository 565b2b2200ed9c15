//! Paths and arguments that are not UTF-8. Linux allows them, so every command accepts them or gives an error.

#![cfg(target_os = "linux")]
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{Answer, answer, answer_to};

const SUITE: &str = r#"schema = 1
name = "p"
[model]
path = "model"
[[accuracy]]
task = "boolq"
dataset = "nowhere"
protocol = "modeltest"
limit = 2
[[performance]]
batch = [1]
lengths = [[8, 4]]
repetitions = 2
max_warmups = 1
"#;

/// A folder with a non-UTF-8 name that contains a model, a data set and a suite.
struct Place {
    _folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(OsStr::from_bytes(b"d\xff"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (from, to) in [("models/demo", "model"), ("datasets/boolq-sample", "set")] {
            fs::create_dir_all(path.join(to)).unwrap();
            for entry in fs::read_dir(root.join(from)).unwrap().map(|entry| entry.unwrap()) {
                fs::copy(entry.path(), path.join(to).join(entry.file_name())).unwrap();
            }
        }
        fs::write(path.join("s.toml"), SUITE).unwrap();
        Self { _folder: folder, path }
    }

    fn at(&self, name: &str) -> OsString {
        self.path.join(name).into()
    }

    /// Returns a word such as `boolq=PATH`.
    fn word(&self, before: &str, name: &str) -> OsString {
        [OsStr::new(before), &self.at(name)].into_iter().collect()
    }
}

fn asked(words: &[&OsStr], code: i32) -> Answer {
    let answer = answer(words);
    assert_eq!(answer.code, Some(code), "{words:?}: {answer:?}");
    answer
}

#[test]
fn every_command_takes_paths_that_are_no_utf8() {
    let place = Place::new();
    let o = OsStr::new;
    let (suite, runs, model, set) =
        (place.at("s.toml"), place.at("runs"), place.at("model"), place.word("boolq=", "set"));
    let run = [o("run"), &suite, o("--set"), &set, o("--threads"), o("1"), o("--out"), &runs];
    // The suite's model is in the same folder. Two repetitions are not a valid measurement.
    let first = answer(&run);
    assert!(matches!(first.code, Some(0 | 4)), "{first:?}");
    let named = [&run[..], &[o("--model"), &model]].concat();
    assert!(matches!(answer(&named).code, Some(0 | 4)));
    let dry = [&run[..6], &[o("--dry-run")]].concat();
    assert!(asked(&dry, 0).out.contains("precision boolq: 2 items"));
    asked(&[o("check"), &suite, o("--set"), &set, o("--model"), &model], 0);
    let listed = asked(&[o("list"), o("suites"), place.path.as_os_str(), o("--json")], 0).out;
    assert!(listed.contains("d\u{fffd}/s.toml"), "{listed}");
    asked(&[o("list"), o("datasets"), place.path.as_os_str(), o("--json")], 0);
    let mut all: Vec<OsString> = fs::read_dir(&runs).unwrap().map(|run| run.unwrap().path().into()).collect();
    all.sort();
    let [a, b] = all.as_slice() else { panic!("{all:?}") };
    let record = fs::read_to_string(Path::new(a).join("run.json")).unwrap();
    assert!(record.contains("d\u{fffd}/s.toml"), "the command line is there, what is no UTF-8 as U+FFFD");
    let either = |words: &[&OsStr]| {
        let answer = answer(words);
        assert!(matches!(answer.code, Some(0 | 4)), "{words:?}: {answer:?}");
        answer
    };
    either(&[o("report"), a]);
    let out = place.at("compared");
    either(&[o("compare"), a, b, o("--allow-mismatch"), o("--json"), o("--out"), &out]);
    asked(&[o("show"), a, o("boolq/dev/0"), o("--with"), b, o("--json")], 0);
    asked(&[o("show"), a, o("b1-i8-o4"), o("--set"), &set, o("--model"), &model], 0);
    asked(&[o("score"), a, o("--json")], 0);
    let out = place.at("exported");
    for format in ["jsonl", "sql", "csv", "modeltest"] {
        asked(&[o("export"), a, o("--format"), o(format), o("--out"), &out], 0);
    }
    let texts = place.at("texts");
    fs::write(&texts, "What is it?\n").unwrap();
    let greedy = [o("--max-new-tokens"), o("4")];
    asked(&[&[o("chat"), o("--model"), &model, o("--texts"), &texts][..], &greedy].concat(), 0);
    assert_eq!(answer_to(&[o("tokenize"), o("--model"), &model], b"\"a\"\n").code, Some(0));
    let (prompts, logits) = (place.at("p.json"), place.at("l.safetensors"));
    fs::write(&prompts, "[[1, 2, 3]]").unwrap();
    asked(&[o("logits"), o("--model"), &model, o("--prompts"), &prompts, o("--out"), &logits], 0);
    asked(&[o("parity"), o("--model"), &model, o("--reference"), &logits], 0);
    asked(&[o("dataset"), o("manifest"), o("boolq"), &place.at("set")], 0);
    let (archive, made) = (place.at("set/dev.jsonl"), place.at("made"));
    asked(&[o("dataset"), o("prepare"), o("boolq-sample"), &archive, o("--out"), &made], 0);
    let (pickled, converted) = (place.path.join("bin"), place.at("converted"));
    fs::create_dir(&pickled).unwrap();
    fs::copy(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/state_dict.bin"),
        pickled.join("pytorch_model.bin"),
    )
    .unwrap();
    asked(&[o("convert"), pickled.as_os_str(), &converted], 0);
    let dummy = place.word("dummy:", "model/config.json");
    let flags = [o("--prompts"), &prompts, o("--out"), &logits];
    asked(&[&[o("logits"), o("--model"), &dummy][..], &flags].concat(), 0);
}

/// Words that must be text are rejected by name, never by a panic.
#[test]
fn words_that_are_no_utf8_are_answered() {
    let word = OsStr::from_bytes(b"a\xff");
    let o = OsStr::new;
    for words in [
        &[word][..],
        &[o("run"), word],
        &[o("run"), o("suites/quickstart.toml"), o("--model"), word],
        &[o("run"), o("suites/quickstart.toml"), o("--set"), word],
        &[o("run"), o("suites/quickstart.toml"), o("--set"), OsStr::from_bytes(b"a\xff=1")],
        &[o("run"), o("suites/quickstart.toml"), o("--set"), OsStr::from_bytes(b"accuracy.0.limit=\xff")],
        &[o("run"), o("suites/quickstart.toml"), o("--set"), OsStr::from_bytes(b"ceval=\xff")],
        &[o("run"), o("suites/quickstart.toml"), o("--configuration"), word],
        &[o("run"), o("suites/quickstart.toml"), o("--only"), word],
        &[o("run"), o("suites/quickstart.toml"), o("--device"), word],
        &[o("run"), o("suites/quickstart.toml"), o("--ptuning"), word],
        &[
            o("run"),
            o("suites/quickstart.toml"),
            o("--emulate"),
            o("--device"),
            o("300i-duo"),
            o("--profile"),
            word,
        ],
        &[o("report"), word],
        &[o("compare"), word, word],
        &[o("compare"), word, word, o("--noise-floor"), word],
        &[o("show"), word, word],
        &[o("score"), word, o("--protocol"), word],
        &[o("export"), word, o("--format"), word],
        &[o("check"), word],
        &[o("list"), o("suites"), word],
        &[o("dataset"), o("prepare"), word, word],
        &[o("dataset"), o("manifest"), o("boolq"), word],
        &[o("convert"), word, word],
        &[o("chat"), o("--model"), word],
        &[o("chat"), o("--model"), o("demo"), o("--prompt"), word],
        &[o("chat"), o("--model"), o("demo"), o("--texts"), word],
        &[o("logits"), o("--model"), o("demo"), o("--prompts"), word, o("--out"), word],
        &[o("parity"), o("--model"), o("demo"), o("--reference"), word],
        &[o("tokenize"), o("--model"), word],
        &[o("doctor"), o("--noise"), o("--model"), word],
        &[o("npu-selftest"), o("--device"), word],
        &[o("completions"), word],
    ] {
        let said = asked(words, 2).words;
        assert!(!said.is_empty(), "{words:?}");
    }
}
