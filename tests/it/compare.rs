//! `glmbench compare` from the user's view: two real runs, their gates, and the report in a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Answer, answer};

/// Two tasks of a few items, and two small shapes.
const SUITE: &str = r#"schema = 1
name = "pair"
[model]
path = "demo"
[[accuracy]]
task = "ceval"
dataset = "DATASETS/ceval-sample"
protocol = "modeltest-0shot"
max_new_tokens = 4
limit = 12
batch = 4
[[accuracy]]
task = "boolq"
dataset = "DATASETS/boolq-sample"
protocol = "modeltest"
limit = 12
[[performance]]
batch = [1, 2]
lengths = [[16, 6]]
repetitions = 6
max_warmups = 2
"#;

/// A folder with runs of the demo model: two in fp16 and one in bf16.
struct Runs {
    folder: TempDir,
    fp16: [PathBuf; 2],
    bf16: PathBuf,
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn runs() -> &'static Runs {
    static RUNS: OnceLock<Runs> = OnceLock::new();
    RUNS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
        let suite = folder.path().join("pair.toml");
        fs::write(&suite, SUITE.replace("DATASETS", sets.to_str().unwrap())).unwrap();
        let run = |place: &str, dtype: &str| {
            let out = folder.path().join(place);
            answer(&["run", &text(&suite), "--threads", "1", "--dtype", dtype, "--out", &text(&out)])
                .expect(0, &[]);
            fs::read_dir(out).unwrap().next().unwrap().unwrap().path()
        };
        let (fp16, bf16) = ([run("one", "fp16"), run("two", "fp16")], run("three", "bf16"));
        Runs { folder, fp16, bf16 }
    })
}

/// Runs a comparison into its own folder.
fn compared(name: &str, a: &Path, b: &Path, more: &[&str]) -> (Answer, PathBuf) {
    let out = runs().folder.path().join("out").join(name);
    let mut args = vec!["compare".to_owned(), text(a), text(b), "--out".to_owned(), text(&out)];
    args.extend(more.iter().map(|&word| word.to_owned()));
    (answer(&args), out)
}

#[test]
fn two_equal_runs_compare_and_the_files_are_there() {
    let [a, b] = &runs().fp16;
    let (answer, out) = compared("equal", a, b, &["--json"]);
    let json: Value = serde_json::from_str(&answer.expect(0, &["report.html"]).out).unwrap();
    assert_eq!(json["identity_differences"].as_array().unwrap().len(), 0);
    let rows = json["rows"].as_array().unwrap();
    let verdicts = |kind: &str| -> Vec<String> {
        let of_kind = rows.iter().filter(|row| row["kind"] == kind && row["verdict"].is_string());
        of_kind.map(|row| row["verdict"].as_str().unwrap().to_owned()).collect()
    };
    // All answers are equal, but twelve items are too few for a statement about the runs.
    assert_eq!(verdicts("accuracy"), ["cannot tell (needs n = 268)"; 2]);
    // The runs were made one after the other, so the load of the machine may have changed between them.
    assert_eq!(verdicts("speed"), ["not timed in turn"; 6]);
    let headline = json["headline"].to_string();
    assert!(headline.contains("what decides") && headline.contains("glmbench compare A1"), "{headline}");
    for name in [
        "comparison.csv",
        "flips.csv",
        "summary.md",
        "report.html",
        "charts/accuracy.svg",
        "charts/accuracy.png",
    ] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(!html.contains("http") && !html.contains("<script"), "needs nothing beside it");
}

#[test]
fn other_identity_is_refused_and_can_be_allowed() {
    let (a, b) = (&runs().fp16[0], &runs().bf16);
    compared("refused", a, b, &[]).0.expect(2, &["--allow-mismatch", "dtype: A fp16, B bf16"]);
    let (answer, _) = compared("allowed", a, b, &["--allow-mismatch"]);
    let answer = answer.expect(0, &[]);
    assert!(answer.out.starts_with("The runs have different identities"), "{}", answer.out);
    // Machines whose kernels for the two types differ name them after the type.
    let title = answer.out.lines().find(|line| line.starts_with("Accuracy in percent, B cpu bf16"));
    assert!(title.is_some_and(|line| line.contains(" against A cpu fp16")), "{}", answer.out);
}

#[test]
fn gates_decide_the_exit_code_and_leave_junit() {
    let [a, b] = &runs().fp16;
    let gates = runs().folder.path().join("gates.toml");
    let junit = runs().folder.path().join("gates.xml");
    let judged = |name: &str, text_of_gates: &str| {
        fs::write(&gates, format!("schema = 1\n{text_of_gates}")).unwrap();
        compared(name, a, b, &["--gate", &text(&gates), "--junit", &text(&junit)]).0
    };
    let kept =
        "[[accuracy]]\nmax_drop = \"30%\"\nmax_failed = \"0%\"\n[[speed]]\nmetric = \"e2e\"\nmax = \"600 s\"";
    let answer = judged("kept", kept).expect(0, &[]);
    assert!(answer.out.contains("gates: 6 passed, 0 failed, 0 undecided"), "{}", answer.out);
    let broken = "[[speed]]\nmetric = \"e2e\"\ncase = \"b1-*\"\nmax = \"1 ns\"";
    judged("broken", broken).expect(1, &[]);
    let xml = fs::read_to_string(&junit).unwrap();
    assert!(
        xml.contains("tests=\"1\" failures=\"1\"") && xml.contains("expected at most 0.000001 ms"),
        "{xml}"
    );
    // The two runs were not interleaved, so a limit on their ratio is undecided unless judged by the ratio alone.
    let open = judged("open", "[[speed]]\nmetric = \"e2e\"\ncase = \"b1-*\"\nmax_ratio = 1.5").expect(4, &[]);
    assert!(open.out.contains("not timed in turn") && open.out.contains("is undecided: "), "{}", open.out);
    assert!(fs::read_to_string(&junit).unwrap().contains("<error message=\"undecided: "));
    judged("counts", "undecided = \"fail\"\n[[speed]]\nmetric = \"e2e\"\nmax_ratio = 1.5").expect(1, &[]);
    judged("ratio", "[[speed]]\nmetric = \"e2e\"\nmax_ratio = 1000.0\nuntimed = \"ratio\"").expect(0, &[]);
    judged("slip", "[[speed]]\nmetric = \"e2e\"\nmaximum = \"1 ns\"")
        .expect(2, &["gates.toml:4:1", "`maximum`"]);
    judged("missing", "[[accuracy]]\ntask = \"mmlu\"\nmin = \"1%\"").expect(1, &[]);
    // A single run: its own limits are judged, and the others are mentioned.
    fs::write(&gates, "schema = 1\n[[accuracy]]\nmin = \"99.9%\"\nmax_drop = \"1%\"").unwrap();
    answer_of_report(a, &gates).expect(1, &["against another run: 1"]);
    fs::write(&gates, "schema = 1\n[[accuracy]]\nmin = \"1%\"").unwrap();
    answer_of_report(a, &gates).expect(0, &[]);
}

fn answer_of_report(run: &Path, gates: &Path) -> Answer {
    answer(&["report", &text(run), "--gate", &text(gates)])
}

#[test]
fn the_example_of_gates_is_one() {
    let [a, b] = &runs().fp16;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/gates/example.toml");
    let (answer, _) = compared("example", a, b, &["--gate", &text(&example)]);
    // The drop in throughput is undecided, whatever the other results.
    assert!(answer.code == Some(4) || answer.code == Some(1), "{answer:?}");
    assert!(answer.out.contains("accuracy drop of ceval"), "{}", answer.out);
}

#[test]
fn several_runs_stand_on_either_side_of_two_dashes() {
    let ([a, b], bf16) = (&runs().fp16, &runs().bf16);
    let out = runs().folder.path().join("out").join("sides");
    let answer = answer(&["compare", "--out", &text(&out), &text(a), "--", &text(b)]).expect(0, &[]);
    assert!(
        answer.out.contains("not timed in turn"),
        "one run a side is no more than two runs: {}",
        answer.out
    );
    let other = ["compare", "--out", &text(&out), &text(a), &text(bf16), "--", &text(b)];
    crate::support::answer(&other).expect(2, &["is given as a further run", "differ in dtype"]);
}

#[test]
fn what_is_no_run_is_named() {
    let [a, b] = &runs().fp16;
    let folder = runs().folder.path();
    compared("none", a, &folder.join("out"), &[]).0.expect(2, &["is no run"]);
    compared("itself", a, a, &[]).0.expect(2, &["is given twice"]);
    answer(&["compare", &text(a)]).expect(2, &["1 given; a comparison needs two runs or more"]);
    answer(&["compare", &text(a), "--", &text(a)]).expect(2, &["is given twice"]);
    compared("share", a, b, &["--threshold", "3"]).0.expect(2, &["--threshold"]);
    compared("floor", a, b, &["--noise-floor", "nowhere.json"]).0.expect(2, &["--noise-floor nowhere.json"]);
    let file = folder.join("a-file");
    fs::write(&file, "").unwrap();
    let out = file.join("below");
    answer(&["compare", &text(a), &text(b), "--out", &text(&out)]).expect(2, &["cannot write", "a-file"]);
}

/// With `GLMBENCH_CHROMIUM` set to a browser, the page renders and prints to PDF without any error message.
#[test]
fn a_browser_draws_the_page() {
    let Some(browser) = std::env::var_os("GLMBENCH_CHROMIUM") else {
        crate::support::skipped("GLMBENCH_CHROMIUM names no browser");
        return;
    };
    let [a, b] = &runs().fp16;
    let (answer, out) = compared("browser", a, b, &[]);
    answer.expect(0, &[]);
    let page = format!("file://{}", text(&out.join("report.html")));
    let draw = |how: String| {
        let user = format!("--user-data-dir={}", text(&out.join("browser")));
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,2400",
            "--enable-logging=stderr",
            &user,
            &how,
            &page,
        ];
        Command::new(&browser).args(flags).output().unwrap()
    };
    let (png, pdf) = (out.join("page.png"), out.join("page.pdf"));
    let drawn = draw(format!("--screenshot={}", text(&png)));
    assert!(drawn.status.success() && fs::read(&png).unwrap().starts_with(b"\x89PNG"));
    let console = String::from_utf8_lossy(&drawn.stderr).into_owned();
    assert!(!console.contains("CONSOLE"), "{console}");
    assert!(draw(format!("--print-to-pdf={}", text(&pdf))).status.success());
    assert!(fs::read(&pdf).unwrap().starts_with(b"%PDF"));
}

/// Not a check: prints how long a comparison of two runs with 100,000 items and 10,000 repetitions takes.
/// `cargo test --release -- --ignored --nocapture how_long`
#[test]
#[ignore = "a measurement; run it on a quiet machine"]
fn how_long_a_large_comparison_takes() {
    let folder = tempfile::tempdir().unwrap();
    let grown: Vec<PathBuf> =
        ["a", "b"].map(|name| grow(&runs().fp16[0], &folder.path().join(name))).to_vec();
    let start = std::time::Instant::now();
    // These records are not the output of a run, and the comparison says so.
    compared("large", &grown[0], &grown[1], &["--json"]).0.expect(4, &[]);
    eprintln!("100,000 items, 10,000 repetitions: {:.2} s", start.elapsed().as_secs_f64());
}

/// Returns a run with only the first task and case, but many more lines.
fn grow(run: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    let mut record: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    for (part, length) in [("accuracy", "items"), ("performance", "repetitions")] {
        let cases = record["plan"][part].as_array_mut().unwrap();
        cases.truncate(1);
        cases[0][length] = if part == "accuracy" { 100_000 } else { 10_000 }.into();
    }
    fs::write(to.join("run.json"), record.to_string()).unwrap();
    let first = |name: &str, wanted: &str| {
        let lines = fs::read_to_string(run.join(name)).unwrap();
        let line = lines.lines().find(|line| line.contains(wanted)).unwrap();
        serde_json::from_str::<Value>(line).unwrap()
    };
    let (mut sample, mut request) = (first("samples.jsonl", "ceval"), first("requests.jsonl", "timed"));
    let samples = (0..100_000_u32).map(|i| {
        sample["doc_id"] = format!("val-{i}").into();
        sample["doc_hash"] = format!("{i:064x}").into();
        sample["subject"] = format!("subject-{}", i % 52).into();
        format!("{sample}\n")
    });
    fs::write(to.join("samples.jsonl"), samples.collect::<String>()).unwrap();
    let requests = (0..10_000_u32).map(|i| {
        request["repetition"] = i.into();
        request["end_ns"] =
            (request["first_token_ns"].as_u64().unwrap() + 1_000_000 + u64::from(i * 7919 % 1000)).into();
        format!("{request}\n")
    });
    fs::write(to.join("requests.jsonl"), requests.collect::<String>()).unwrap();
    to.to_owned()
}
