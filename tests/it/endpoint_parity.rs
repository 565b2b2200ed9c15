//! Our client against our server: a suite over HTTP gives the embedded engine's answers to the last digit.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::serve::Served;
use crate::support::answer;

/// Both protocols of C-Eval (text and choices), and BoolQ's comparison of log-probabilities.
fn suite(folder: &Path) -> PathBuf {
    let data = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets").join(name);
    let case = |task: &str, set: &str, protocol: &str| {
        format!(
            "[[accuracy]]\ntask = \"{task}\"\ndataset = {:?}\nprotocol = \"{protocol}\"\nlimit = 16\nbatch = 5\n",
            data(set)
        )
    };
    let text = format!(
        "schema = 1\nname = \"parity\"\n[model]\npath = \"demo\"\n{}{}{}",
        case("ceval", "ceval-sample", "two-stage"),
        case("ceval", "ceval-sample", "modeltest-0shot"),
        case("boolq", "boolq-sample", "loglikelihood"),
    );
    let path = folder.join("parity.toml");
    fs::write(&path, text).unwrap();
    path
}

/// What a model said of each item: everything of a sample but its times and checksum.
fn said(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("samples.jsonl")).unwrap();
    let fields = [
        "task",
        "doc_id",
        "state",
        "pred",
        "choice_logprobs",
        "margin",
        "output_tokens",
        "text",
        "input_tokens_n",
    ];
    let of = |line: &str| {
        let sample: Value = serde_json::from_str(line).unwrap();
        fields.iter().map(|field| sample[*field].clone()).collect::<Value>()
    };
    text.lines().map(of).collect()
}

fn run_under(out: &Path) -> PathBuf {
    let mut runs = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path());
    runs.next().expect("a run")
}

#[test]
fn a_suite_over_http_gives_the_engines_answers_to_the_last_digit() {
    let root = tempfile::tempdir().unwrap();
    let suite = suite(root.path());
    let suite = suite.to_str().unwrap();
    let (here, there) = (root.path().join("here"), root.path().join("there"));
    answer(&["run", suite, "--out", here.to_str().unwrap()]).expect(0, &[]);
    let server = Served::start(&[]);
    let url = format!("http://{}", server.address);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let flags = ["--endpoint", &url, "--api", "vllm", "--tokenizer", model.to_str().unwrap()];
    let run = |more: &[&str], code: i32, says: &[&str]| {
        let all = [&["run", suite, "--out", there.to_str().unwrap()], &flags[..], more].concat();
        answer(&all).expect(code, says);
    };
    // What it costs is said before anything is sent, and a bound below it is kept.
    let all = [&["run", suite, "--out", there.to_str().unwrap(), "--dry-run"], &flags[..]].concat();
    let told = answer(&all);
    assert!(told.out.contains("total     64 requests, up to"), "{}", told.out);
    assert!(told.out.contains("chosen_logprobs      works"), "{}", told.out);
    run(&["--max-requests", "63"], 2, &["may send 64 requests; --max-requests allows 63"]);
    run(&[], 0, &[]);
    let (a, b) = (run_under(&here), run_under(&there));
    let (ours, theirs) = (said(&a), said(&b));
    assert_eq!(ours.len(), 48);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    // By text alone: a server that names its candidates by their text reveals the same numbers.
    let by_text = root.path().join("by-text");
    let flags = ["--endpoint", &url, "--api", "openai", "--tokenizer", model.to_str().unwrap()];
    let all = [&["run", suite, "--out", by_text.to_str().unwrap()], &flags[..]].concat();
    answer(&all).expect(0, &[]);
    for (ours, theirs) in ours.iter().zip(&said(&run_under(&by_text))) {
        for field in [0, 1, 2, 3, 4, 7] {
            assert_eq!(ours[field], theirs[field], "{ours}");
        }
    }
    // A question for choices may need a second, deeper request in this protocol. The bound says so.
    let told = answer(&[&all[..], &["--dry-run"]].concat());
    assert!(told.out.contains("total     64 to 96 requests"), "{}", told.out);
    let checked = answer(&[&["check", suite][..], &flags[..]].concat()).expect(0, &[]);
    assert!(
        checked.out.contains("total     64 to 96 requests") && checked.out.contains("accuracy"),
        "{checked:?}"
    );
    // In slices: each stops at its bound, to be resumed, and what comes together is the whole.
    let sliced = root.path().join("sliced");
    let all = [&["run", suite, "--resume", "--out", sliced.to_str().unwrap()], &flags[..]].concat();
    let slice = |most: &str| answer(&[&all[..], &["--max-requests", most]].concat());
    slice("20").expect(3, &["--max-requests 20", "--resume goes on"]);
    let part = said(&run_under(&sliced)).len();
    assert!((3..20).contains(&part), "{part} items for 20 requests");
    slice("2").expect(3, &["may need 3"]);
    slice("200").expect(0, &[]);
    for (ours, theirs) in ours.iter().zip(&said(&run_under(&sliced))) {
        assert_eq!((&ours[1], &ours[4]), (&theirs[1], &theirs[4]));
    }
    // Its items can be put to the server again, and only to a server.
    let run = run_under(&sliced);
    let run = run.to_str().unwrap();
    answer(&["verify", run])
        .expect(2, &["was answered by the server at", "--endpoint URL --api openai --tokenizer"]);
    let again = [&["verify", run, "--items", "12", "--seed", "1"], &flags[..]].concat();
    let verified = answer(&again).expect(0, &[]).out;
    assert!(
        verified.contains("12 of 48 items")
            && verified.contains("everything that was put again is as recorded"),
        "{verified}"
    );
    answer(&[&["verify", a.to_str().unwrap()][..], &flags[..]].concat()).expect(2, &["leave out --endpoint"]);
    // The two can be compared, and what the server does not tell is said.
    answer(&[
        "compare",
        a.to_str().unwrap(),
        b.to_str().unwrap(),
        "--out",
        root.path().join("c").to_str().unwrap(),
    ])
    .expect(0, &[]);
    let page = fs::read_to_string(root.path().join("c/report.html")).unwrap();
    assert!(
        page.contains("does not tell its") && page.contains("weights"),
        "the page is silent about weights"
    );
    let record = fs::read_to_string(b.join("run.json")).unwrap();
    assert!(record.contains("not told by the server") && record.contains("served type"), "{record}");
}
