//! The commands around a run: check, list, dataset prepare.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

/// Runs the program in the checkout. Returns exit code, stdout and stderr.
fn glmbench(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("glmbench").unwrap();
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_reads_every_row_and_answers_with_code_2_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.toml");
    let suite = "schema = 1\nname = \"s\"\n[[accuracy]]\ntask = \"boolq\"\ndataset = \"b\"\nprotocol = \"modeltest\"\n";
    fs::write(&path, suite).unwrap();
    let path = path.to_str().unwrap();
    let (code, _, words) = glmbench(&["check", path]);
    assert!(code == 2 && words.contains("b: nothing there"), "{words}");
    fs::create_dir(dir.path().join("b")).unwrap();
    fs::write(dir.path().join("b/dev.jsonl"), "{}\n").unwrap();
    let (code, _, words) = glmbench(&["check", path]);
    assert!(code == 2 && words.contains("dev.jsonl:1: column 2: missing field `question`"), "{words}");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/boolq-sample");
    let (code, data, words) = glmbench(&["check", path, "--set", &format!("boolq={}", sample.display())]);
    assert_eq!((code, words.as_str()), (0, ""));
    assert!(data.contains("as catalogued under `boolq-sample`"), "{data}");
    let (code, _, words) = glmbench(&["check", path, "--set", "accuracy.0.protocl=x"]);
    assert!(code == 2 && words.contains("did you mean `protocol`?"), "{words}");
}

/// `run` takes the demo model where nothing names one, and `check` checks with it.
#[test]
fn a_suite_without_a_model_is_checked_with_the_one_that_run_takes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.toml");
    fs::write(
        &path,
        "schema = 1\nname = \"s\"\n[[performance]]\nbatch = [1]\nlengths = [[16, 4], [9000, 4]]\n",
    )
    .unwrap();
    let path = path.to_str().unwrap();
    for verb in ["check", "run"] {
        let (code, _, words) = glmbench(&[verb, path]);
        assert!(code == 2 && words.contains("which is the demo model"), "{verb}: {words}");
    }
    let (code, data, words) = glmbench(&["check", path, "--set", "performance.0.lengths=[[16,4]]"]);
    assert!(code == 0 && data.contains("every prompt and shape fits"), "{data}{words}");
}

/// Only a cause in the machine is blamed on it.
#[test]
fn a_refusal_names_its_cause() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.toml");
    fs::write(&path, "schema = 1\nname = \"s\"\n").unwrap();
    let (code, _, words) = glmbench(&["run", path.to_str().unwrap(), "--dry-run"]);
    assert!(code == 2 && words.contains("no case") && !words.contains("on this machine"), "{words}");
    let most = ["--set", "performance.0.batch=[4294967296]", "--set", "performance.0.lengths=[[16,16]]"];
    let run = ["run", "suites/performance.toml", "--model", "demo", "--dry-run"];
    let (code, _, words) = glmbench(&[&run[..], &most].concat());
    assert!(code == 5 && words.contains("on this machine the run would be refused"), "{words}");
}

/// The protocols, in the order of their tasks.
const PROTOCOLS: [&str; 42] = [
    "two-stage",
    "modeltest-5shot",
    "modeltest-0shot",
    "modeltest-0shot-fixed",
    "modeltest",
    "loglikelihood",
    // aime2024, arc-challenge, arc-easy, bbh, cmmlu, gpqa
    "modeltest",
    "lm-eval",
    "lm-eval",
    "lm-eval-cot",
    "opencompass-cot",
    "modeltest",
    "lm-eval",
    "answer-format",
    // gsm8k
    "modeltest",
    "modeltest-bare",
    "lm-eval-strict",
    "lm-eval-flexible",
    "cot-8shot",
    // hellaswag
    "lm-eval",
    "lm-eval-norm",
    // humaneval
    "modeltest",
    "modeltest-fixed",
    "lm-eval",
    "chat",
    // humaneval-x
    "modeltest",
    "codegeex",
    // longbench
    "modeltest",
    "official",
    // mmlu
    "modeltest-5shot",
    "modeltest-0shot",
    "modeltest-5shot-fixed",
    "modeltest-0shot-fixed",
    "lm-eval",
    "lm-eval-5shot",
    // needlebench
    "modeltest",
    // truthfulqa, wikitext-2, wikitext-2-joined
    "modeltest-mc",
    "lm-eval",
    "modeltest-gen",
    "lm-eval-gen",
    "lm-eval",
    "llama-cpp",
];

#[test]
fn a_text_of_any_length_is_checked_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let joined = fs::read_to_string("datasets/tasks/wikitext-2-joined.toml").unwrap();
    let own = joined.replace("wikitext-2-joined", "own-text").replace("window = 512", "window = 4");
    let (task, data) = (dir.path().join("own.toml"), dir.path().join("data"));
    fs::write(&task, own).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("wiki.test.tokens"), "A line of this text . \n".repeat(2_000)).unwrap();
    let (code, said, _) = glmbench(&["check", task.to_str().unwrap(), data.to_str().unwrap()]);
    let calls: u64 = said
        .split(" calls of the model")
        .next()
        .and_then(|before| before.rsplit(' ').next())
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{said}"));
    assert!(code == 0 && calls > 1_000, "{said}");
}

#[test]
fn lists_come_as_words_and_as_json() {
    for (what, names) in [
        (
            "suites",
            &[
                "accept",
                "boolq",
                "calibrate-card",
                "calibration",
                "ceval",
                "cpu-limits",
                "duo-vs-a2-w8a8",
                "duo-vs-a2",
                "forms",
                "load",
                "max-batch",
                "modeltest",
                "performance-boolq",
                "performance-ceval",
                "performance",
                "quantisation",
                "quickstart",
                "serving",
                "smoke",
            ][..],
        ),
        ("protocols", &PROTOCOLS[..]),
        (
            "tasks",
            &[
                "ceval",
                "boolq",
                "aime2024",
                "arc-challenge",
                "arc-easy",
                "bbh",
                "cmmlu",
                "gpqa",
                "gsm8k",
                "hellaswag",
                "humaneval",
                "humaneval-x",
                "longbench",
                "mmlu",
                "needlebench",
                "truthfulqa",
                "wikitext-2",
                "wikitext-2-joined",
            ],
        ),
        (
            "datasets",
            &[
                "ceval",
                "boolq",
                "gsm8k",
                "mmlu",
                "truthfulqa",
                "wikitext-2",
                "ceval-sample",
                "boolq-sample",
                "gsm8k-sample",
                "wikitext-2-sample",
            ],
        ),
    ] {
        let (code, words, _) = glmbench(&["list", what]);
        assert!(code == 0 && names.iter().all(|name| words.contains(name)), "{words}");
        let (_, data, _) = glmbench(&["list", what, "--json"]);
        let data: Vec<Value> = serde_json::from_str(&data).unwrap();
        assert_eq!(data.iter().map(|row| row["name"].as_str().unwrap()).collect::<Vec<_>>(), names);
    }
    let (_, words, _) = glmbench(&["list", "protocols"]);
    assert!(words.contains(r#"choose: "[Round 1]\n\n问：{question}\nA. {A}"#), "{words}");
}

#[test]
fn prepare_makes_the_layout_and_says_what_it_made() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("set");
    let prepare = [
        "dataset",
        "prepare",
        "boolq-sample",
        "datasets/boolq-sample/dev.jsonl",
        "--out",
        out.to_str().unwrap(),
    ];
    let (code, data, _) = glmbench(&prepare);
    assert!(code == 0 && data.starts_with("boolq-sample: dev 224 items in "), "{data}");
    assert_eq!(
        fs::read(out.join("dev.jsonl")).unwrap(),
        fs::read("datasets/boolq-sample/dev.jsonl").unwrap()
    );
    let (code, _, words) = glmbench(&prepare);
    assert!(code == 2 && words.contains("something there already"), "{words}");
    let (code, _, words) = glmbench(&["dataset", "prepare", "nothing", "x.zip"]);
    assert!(code == 2 && words.contains("no data set `nothing` in the catalogue"), "{words}");
}
