//! Parity cases of suites: logits of configurations against the float model, from suite to comparison.

use std::fs;
use std::path::{Path, PathBuf};

use glmbench::bench::{Shape, prompts};
use glmbench::language::Language;
use glmbench::record::{ParityRecord, RunDir};
use glmbench::report::Verdict;
use glmbench::run::plan::ordinary_tokens;
use glmbench::run::{RunRequest, Wanted};
use glmbench::stats::parity::KlSummary;
use glmbench::suite::{CaseTable, Suite};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::load_tokenizer;

use crate::in_process::try_run;
use crate::support::answer;

/// Three forms of the demo model, on random tokens and on questions.
const SUITE: &str = r#"schema = 1
name = "forms"
[model]
path = "demo"
[[configuration]]
name = "fp16"
threads = 1
[[configuration]]
name = "w8a8-dynamic"
dtype = "w8a8-dynamic"
threads = 1
[[configuration]]
name = "kv"
kv = "int8"
threads = 1
[[parity]]
prompts = 3
tokens = 40
continuation = 5
seed = 7
[[parity]]
dataset = "boolq"
folder = "DATASETS/boolq-sample"
prompts = 4
tokens = 64
continuation = 0
"#;

const RANDOM: &str = "parity-i40-cpu-fp16";
const REAL: &str = "parity-boolq-sample-i64-cpu-fp16";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn suite(text: &str) -> Suite {
    let text = text.replace("DATASETS", root().join("datasets").to_str().unwrap());
    Suite::parse(&root().join("s.toml"), &text, &[]).unwrap()
}

fn lines(run: &Path, id: &str) -> Vec<ParityRecord> {
    let lines = RunDir::open(run).unwrap().read_parities().unwrap();
    lines.into_iter().filter(|line| line.parity_id == id).collect()
}

fn kl(lines: &[ParityRecord]) -> KlSummary {
    KlSummary::new(lines.iter().flat_map(|line| line.kl.clone()).collect()).unwrap()
}

/// The lines without their places on the clock.
fn figures(run: &Path) -> Vec<ParityRecord> {
    let lines = RunDir::open(run).unwrap().read_parities().unwrap();
    lines.into_iter().map(|line| ParityRecord { end_ns: 0, ..line }).collect()
}

#[test]
fn the_float_model_is_at_no_distance_from_itself_and_other_forms_are_as_the_verb_says() {
    let folder = tempfile::tempdir().unwrap();
    let request = RunRequest::new(suite(SUITE), folder.path());
    let (end, heard) = try_run(&request, usize::MAX).unwrap();
    assert_eq!((end.verdict, end.runs.len()), (Verdict::Valid, 3), "{:?}", heard.messages);
    for id in [RANDOM, REAL] {
        let own = lines(&end.runs[0], id);
        assert!(own.iter().all(|line| line.kl.iter().all(|kl| kl.to_bits() == 0)), "{own:?}");
        assert!(own.iter().all(|line| line.top1_equal as usize == line.kl.len()));
        assert!(kl(&lines(&end.runs[1], id)).mean > 0.0 && kl(&lines(&end.runs[2], id)).mean > 0.0);
    }
    // Prompts of the data set are cut, evenly spaced, and of their own lengths.
    let real = lines(&end.runs[0], REAL);
    assert!(real.len() == 4 && real.iter().all(|line| (1..=64).contains(&line.kl.len())), "{real:?}");
    assert!(lines(&end.runs[0], RANDOM).iter().all(|line| line.kl.len() == 45));
    // The verb, on the same tokens.
    let config = ModelConfig::from_file(&root().join("models/demo/config.json")).unwrap();
    let tokenizer = load_tokenizer(&root().join("models/demo"), Some(&config)).unwrap();
    let shape = Shape { batch: 3, input_tokens: 40, output_tokens: 0 };
    let drawn = prompts(shape, &ordinary_tokens(&config, Some(&tokenizer)), 7);
    let file = folder.path().join("p.json");
    fs::write(&file, serde_json::to_string(&drawn).unwrap()).unwrap();
    let words = ["parity", "--model", "demo", "--dtype", "w8a8-dynamic", "--against", "cpu:fp16", "--json"];
    let more = ["--decode", "5", "--max-kl", "9", "--max-share", "1", "--prompts", file.to_str().unwrap()];
    let said = answer(&[&words[..], &more].concat());
    let said: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let (found, own) = (kl(&lines(&end.runs[1], RANDOM)), lines(&end.runs[1], RANDOM));
    let equal: u32 = own.iter().map(|line| line.top1_equal).sum();
    assert_eq!(said["positions"], found.positions);
    let same = [
        ("kl_mean", found.mean),
        ("kl_p99", found.p99),
        ("kl_max", found.max),
        ("top1_agreement", f64::from(equal) / found.positions as f64),
    ];
    for (name, value) in same {
        assert_eq!(said[name].as_f64().unwrap().to_bits(), value.to_bits(), "{name}: {said}");
    }
    // The comparison has all runs in one table.
    let compared = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let compared = compared.into_iter().find(|path| path.to_str().unwrap().ends_with("compare")).unwrap();
    let summary = fs::read_to_string(compared.join("summary.md")).unwrap();
    for column in [format!("{RANDOM} KL mean"), format!("{REAL} KL 99 %"), format!("{REAL} Top-1 %")] {
        assert!(summary.contains(&column), "{column} is not in {summary}");
    }
    let csv = fs::read_to_string(end.runs[1].join("parity.csv")).unwrap();
    assert_eq!(csv.lines().count(), 8, "{csv}");
}

#[test]
fn a_stopped_case_goes_on_to_the_same_lines() {
    let of = |out: &Path| {
        let mut request = RunRequest::new(suite(SUITE), out);
        request.choice.only = vec!["w8a8-dynamic".into()];
        request
    };
    let straight = tempfile::tempdir().unwrap();
    let (end, _) = try_run(&of(straight.path()), usize::MAX).unwrap();
    let expected = figures(&end.runs[0]);
    assert_eq!(expected.len(), 7);
    for units in [1, 3, 5] {
        let folder = tempfile::tempdir().unwrap();
        let mut request = of(folder.path());
        let (stopped, _) = try_run(&request, units).unwrap();
        assert_eq!(stopped.verdict, Verdict::Incomplete);
        assert_eq!(figures(&stopped.runs[0]), expected[..units]);
        request.resume = Some(Wanted::Missing);
        let (resumed, _) = try_run(&request, usize::MAX).unwrap();
        assert_eq!((resumed.verdict, &resumed.runs), (Verdict::Valid, &stopped.runs));
        assert_eq!(figures(&resumed.runs[0]), expected, "stopped after {units}");
    }
    // A line out of place is found, and its place is filled again.
    let path = end.runs[0].join("parity.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let kept: Vec<&str> = text.lines().enumerate().filter(|(at, _)| *at != 1).map(|(_, line)| line).collect();
    fs::write(&path, kept.join("\n") + "\n").unwrap();
    let summary = glmbench::report::render(&end.runs[0], Language::En).unwrap();
    assert_eq!(summary.verdict(), Verdict::Invalid);
}

/// Two quantised runs with `--model`, and a suite that names neither model nor type.
#[test]
fn the_reference_is_the_suites_own_model_unless_it_is_named() {
    let table = |text: &str| {
        let suite = suite(&format!("schema = 1\nname = \"s\"\n{text}"));
        let table = &suite.parity[0];
        (table.model().into_string().unwrap(), table.dtype().to_string(), table.words(&[]))
    };
    let of = |text: &str| {
        let (model, dtype, _) = table(text);
        (model, dtype)
    };
    let pair = |model: &str, dtype: &str| (model.to_owned(), dtype.to_owned());
    assert_eq!(of("[[parity]]\n"), pair("demo", "fp16"));
    assert_eq!(of("[model]\ndtype = \"w8a8-dynamic\"\n[[parity]]\n"), pair("demo", "fp16"));
    assert_eq!(
        of("[model]\npath = \"dummy:chatglm2-6b\"\ndtype = \"bf16\"\n[[parity]]\n"),
        pair("dummy:chatglm2-6b", "bf16")
    );
    assert_eq!(of("[[parity]]\nagainst = \"reference\"\n"), pair("demo", "fp32"));
    assert_eq!(
        of("[[parity]]\nagainst = \"cpu:bf16\"\nreference = \"dummy:chatglm2-6b\"\n"),
        pair("dummy:chatglm2-6b", "bf16")
    );
    assert_eq!(table("[[parity]]\n").2, "parity       20 prompts of 256 tokens at most, against cpu fp16");
    // What decides is in the hash of a suite; where the model is, is not.
    let hash = |text: &str| suite(&format!("schema = 1\nname = \"s\"\n{text}")).content_hash();
    let base = hash("[[parity]]\n");
    assert_eq!(base, hash("[model]\npath = \"demo\"\n[[parity]]\nagainst = \"cpu:fp16\"\ntp = [2]\n"));
    for other in ["prompts = 21", "tokens = 9", "continuation = 0", "seed = 2", "against = \"cpu:fp32\""] {
        assert_ne!(base, hash(&format!("[[parity]]\n{other}\n")), "{other}");
    }
}

#[test]
fn hostile_tables_are_answered_with_place_found_and_expected() {
    let problem = |line: &str| {
        let text = format!("schema = 1\nname = \"x\"\n[[parity]]\n{line}\n");
        Suite::parse(Path::new("s.toml"), &text, &[]).map_or_else(|e| e.to_string(), |_| String::new())
    };
    for (line, says) in [
        ("", ""),
        ("against = \"cpu\"", ""),
        (
            "against = \"gpu\"",
            "s.toml:4:11: found \"gpu\"; expected cpu or reference, and where wanted a type behind it",
        ),
        ("against = \"cpu:fp17\"", "s.toml:4:11: found \"cpu:fp17\"; expected cpu or reference"),
        ("against = \"300i-duo\"", "s.toml:4:11: found \"300i-duo\"; expected cpu or reference"),
        (
            "against = \"reference:fp16\"",
            "s.toml:4:11: found \"reference:fp16\"; expected reference:fp32, its only type",
        ),
        ("against = 1", "s.toml:4:11: found an integer; expected a string"),
        ("against = \"\"", "s.toml:4:11: found an empty string"),
        ("reference = 3", "s.toml:4:13: found an integer"),
        ("prompts = 0", "s.toml:4:11: found 0; expected a whole number from 1"),
        ("prompts = 10001", "s.toml:4:11: found 10001; expected 10000 prompts at most"),
        ("prompts = \"all\"", "s.toml:4:11: found a string; expected a whole number"),
        ("tokens = 0", "s.toml:4:10: found 0; expected a whole number from 1"),
        ("continuation = -1", "s.toml:4:16: found -1; expected a whole number from 0"),
        ("folder = \"x\"", "s.toml:4:10: found `folder` without `dataset`"),
        ("tokes = 3", "s.toml:4:1: found the unknown key `tokes`; did you mean `tokens`?"),
        ("configurations = [\"a\"]", "found a case for the configuration \"a\""),
        ("groups = 2", "s.toml:4:1: found the unknown key `groups`"),
    ] {
        let found = problem(line);
        assert!(if says.is_empty() { found.is_empty() } else { found.contains(says) }, "{line}: {found}");
    }
}

#[test]
fn what_cannot_be_compared_is_refused_by_name_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut shape: serde_json::Value =
        serde_json::from_slice(&fs::read(root().join("models/demo/config.json")).unwrap()).unwrap();
    shape["padded_vocab_size"] = 96.into();
    fs::write(folder.path().join("other.json"), shape.to_string()).unwrap();
    let refused = |tables: &str, says: &str| {
        let head = "schema = 1\nname = \"s\"\n[model]\npath = \"demo\"\n";
        fs::write(folder.path().join("s.toml"), format!("{head}{tables}")).unwrap();
        let refused = answer(&["run", &path("s.toml"), "--out", &path("runs")]);
        assert!(refused.code != Some(0) && refused.words.contains(says), "{refused:?}");
        let left = fs::read_dir(folder.path().join("runs")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{says}");
    };
    refused("[[parity]]\nreference = \"nowhere\"\n", "the reference of parity-i256-cpu-fp16: --model ");
    refused("[[parity]]\nreference = \"dummy:other.json\"\n", "has a vocabulary of 96 tokens, the model of ");
    refused("[[parity]]\ntokens = 3000\n", "parity-i3000-cpu-fp16 has sequences of 3032 tokens");
    refused("[[parity]]\n[[parity]]\n", "found the case parity-i256-cpu-fp16 twice; expected one");
    let timing = "[[configuration]]\nname = \"duo\"\ndevice = \"300i-duo\"\nemulate = true\nmodel = \"dummy:other.json\"\n";
    refused(&format!("{timing}[[parity]]\n"), "compares logits, and this emulated card computes times alone");
}

#[test]
fn a_reference_without_room_leaves_its_case_out_and_the_others_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let mut shape: serde_json::Value =
        serde_json::from_slice(&fs::read(root().join("models/demo/config.json")).unwrap()).unwrap();
    shape["num_layers"] = 4096.into();
    shape["ffn_hidden_size"] = (1 << 24).into();
    fs::write(folder.path().join("huge.json"), shape.to_string()).unwrap();
    let huge = "[[parity]]\nreference = \"dummy:huge.json\"\nprompts = 1\ntokens = 16\n";
    let head = "schema = 1\nname = \"s\"\n[model]\npath = \"demo\"\n";
    let other = "[[parity]]\nagainst = \"cpu:fp32\"\nprompts = 1\ntokens = 16\n";
    fs::write(folder.path().join("s.toml"), format!("{head}{huge}{other}")).unwrap();
    let ran = answer(&["run", &path("s.toml"), "--out", &path("runs"), "--threads", "1"]).expect(0, &[]);
    assert!(
        ran.out.contains("Left out: parity-i16-cpu-fp16 (out of memory by estimate: the reference wants"),
        "{ran:?}"
    );
    assert!(ran.out.contains("against demo on cpu in fp32"), "{ran:?}");
    fs::write(folder.path().join("s.toml"), format!("{head}{huge}")).unwrap();
    let refused = answer(&["check", &path("s.toml")]);
    assert!(refused.code != Some(0) && refused.words.contains("out of memory by estimate"), "{refused:?}");
}

/// An emulated card computes as the card rounds. The reference computes on the host.
#[test]
fn an_emulated_card_is_near_the_host() {
    let text = "schema = 1\nname = \"card\"\n[model]\npath = \"demo\"\n\
                [[configuration]]\nname = \"duo\"\ndevice = \"300i-duo\"\nemulate = true\n\
                [[configuration]]\nname = \"a2\"\ndevice = \"800i-a2\"\nemulate = true\ntp = 2\n\
                [[parity]]\nprompts = 3\ntokens = 24\ncontinuation = 4\n";
    let folder = tempfile::tempdir().unwrap();
    let mut request = RunRequest::new(suite(text), folder.path());
    let (end, _) = try_run(&request, usize::MAX).unwrap();
    assert_eq!((end.verdict, end.runs.len()), (Verdict::Valid, 2));
    for (run, id) in end.runs.iter().zip(["parity-i24-cpu-fp16", "parity-i24-cpu-fp16-tp2"]) {
        let found = kl(&lines(run, id));
        assert_eq!(found.positions, 3 * 28);
        assert!(found.mean > 0.0 && found.max < 0.1, "{found:?}");
    }
    // A case that was stopped goes on to the same bytes, modelled times included.
    let straight = fs::read_to_string(end.runs[0].join("parity.jsonl")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    request.out = folder.path().to_owned();
    request.choice.only = vec!["duo".into()];
    try_run(&request, 2).unwrap();
    request.resume = Some(Wanted::Missing);
    let (resumed, _) = try_run(&request, usize::MAX).unwrap();
    assert_eq!(fs::read_to_string(resumed.runs[0].join("parity.jsonl")).unwrap(), straight);
}

/// The note stands where it explains a failed gate, and nowhere else.
#[test]
fn a_gate_that_integers_fail_says_what_it_is_for() {
    const NOTE: &str = "The default gate is for float activations.";
    let of = |words: &[&str], code: i32| {
        let all = [&["parity", "--model", "demo", "--decode", "2", "--against", "cpu:fp16"], words].concat();
        answer(&all).expect(code, &[]).out
    };
    assert!(of(&["--dtype", "w8a8-dynamic"], 1).contains(NOTE));
    assert!(!of(&["--dtype", "w8a8-dynamic", "--max-kl", "9", "--max-share", "1"], 0).contains(NOTE));
    assert!(!of(&["--dtype", "bf16", "--max-kl", "1e-9"], 1).contains(NOTE));
}
