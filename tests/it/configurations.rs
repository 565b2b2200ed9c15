//! Suites with several configurations: one run each, interleaved on request, and resumed together.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Answer, answer};

const SUITE: &str = r#"schema = 1
name = "two"
[model]
path = "demo"
[[configuration]]
name = "half"
device = "cpu"
dtype = "fp16"
threads = 1
[[configuration]]
name = "brain"
dtype = "bf16"
threads = 1
[[accuracy]]
task = "boolq"
dataset = "DATASETS/boolq-sample"
protocol = "modeltest"
limit = 4
configurations = ["half"]
[[performance]]
batch = [1, 2]
lengths = [[8, 4]]
repetitions = 4
max_warmups = 1
"#;

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(suite: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sets = format!("{}/datasets", env!("CARGO_MANIFEST_DIR"));
        fs::write(folder.path().join("two.toml"), suite.replace("DATASETS", &sets)).unwrap();
        Self { folder }
    }

    fn run(&self, more: &[&str]) -> Answer {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let mut args = vec!["run".to_owned(), path("two.toml"), "--out".to_owned(), path("runs")];
        args.extend(more.iter().map(|&s| s.to_owned()));
        answer(&args)
    }

    /// Returns the run directories with their records, oldest first. The comparison is not a run.
    fn runs(&self) -> Vec<(PathBuf, Value)> {
        let entries = fs::read_dir(self.folder.path().join("runs")).into_iter().flatten();
        let mut paths: Vec<PathBuf> =
            entries.map(|e| e.unwrap().path()).filter(|p| p.join("run.json").exists()).collect();
        paths.sort_by_key(|p| fs::metadata(p).unwrap().created().ok());
        let read = |p: PathBuf| {
            let record = serde_json::from_slice(&fs::read(p.join("run.json")).unwrap()).unwrap();
            (p, record)
        };
        paths.into_iter().map(read).collect()
    }
}

fn timed(run: &(PathBuf, Value)) -> Vec<Value> {
    let text = fs::read_to_string(run.0.join("requests.jsonl")).unwrap();
    let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    lines.filter(|l| l["kind"] == "timed").collect()
}

fn dtype(run: &(PathBuf, Value)) -> &str {
    run.1["provenance"]["dtype"].as_str().unwrap()
}

#[test]
fn each_configuration_makes_a_run_of_its_own_cases() {
    let bench = Bench::new(SUITE);
    bench.run(&[]).expect(0, &[]);
    let runs = bench.runs();
    assert_eq!(runs.iter().map(dtype).collect::<Vec<_>>(), ["fp16", "bf16"]);
    let cases = |run: &(PathBuf, Value), kind: &str| run.1["plan"][kind].as_array().unwrap().len();
    assert_eq!(runs.iter().map(|r| cases(r, "accuracy")).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(runs.iter().map(|r| cases(r, "performance")).collect::<Vec<_>>(), [2, 2]);
    let group = |run: &(PathBuf, Value)| run.1["provenance"]["group"]["id"].as_str().unwrap().to_owned();
    assert_eq!(group(&runs[0]), group(&runs[1]));
}

#[test]
fn quantised_forms_are_configurations_and_part_of_what_a_run_is() {
    let suite = SUITE
        .replace("dtype = \"bf16\"", "dtype = \"w8a8-dynamic\"\nkv = \"int8\"")
        .replace("repetitions = 4", "repetitions = 2")
        .replace("schema = 1", "schema = 1\ninterleave = true");
    let bench = Bench::new(&suite);
    bench.run(&[]).expect(0, &[]);
    let runs = bench.runs();
    assert_eq!(runs.iter().map(dtype).collect::<Vec<_>>(), ["fp16", "w8a8-dynamic+kv-int8"]);
    let identity =
        |run: &(PathBuf, Value), field: &str| run.1["identity"]["fields"][field].as_str().unwrap().to_owned();
    assert_eq!(runs.iter().map(|r| identity(r, "dtype")).collect::<Vec<_>>(), ["fp16", "fp16"]);
    let quantisation: Vec<_> = runs.iter().map(|r| identity(r, "quantisation")).collect();
    assert_eq!(quantisation, ["none", "w8a8-dynamic+kv-int8"]);
    let table = fs::read_to_string(runs[1].0.join("perf.csv")).unwrap();
    assert!(table.contains(",w8a8-dynamic+kv-int8,"), "{table}");
    // Fewer bytes cross the memory bus, for the same arithmetic.
    let cost = |run: &(PathBuf, Value), what: &str| {
        run.1["plan"]["performance"][0]["decode_cost"][what].as_u64().unwrap()
    };
    assert!(cost(&runs[1], "bytes") < cost(&runs[0], "bytes"));
    assert_eq!(cost(&runs[1], "flops"), cost(&runs[0], "flops"));
    // The command line takes precedence over the suite.
    bench.run(&["--only", "brain", "--dtype", "fp16", "--kv", "auto"]).expect(0, &[]);
    assert_eq!(dtype(&bench.runs()[2]), "fp16");
}

#[test]
fn flags_choose_among_configurations_or_put_them_aside() {
    let bench = Bench::new(SUITE);
    bench.run(&["--only", "brain"]).expect(0, &[]);
    assert_eq!(bench.runs().iter().map(dtype).collect::<Vec<_>>(), ["bf16"]);
    bench.run(&["--only", "quarter"]).expect(2, &["--only quarter", "it has half, brain"]);
    // With a device on the command line, the cases of the first configuration run on it.
    bench.run(&["--device", "cpu", "--threads", "1"]).expect(0, &[]);
    let runs = bench.runs();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1].1["plan"]["accuracy"].as_array().unwrap().len(), 1);
    assert!(runs[1].1["provenance"]["group"].is_null());
    bench.run(&["--configuration", "device=gpu"]).expect(2, &["device=gpu", "expected one of cpu"]);
    bench.run(&["--configuration", "threads"]).expect(2, &["\"threads\"", "KEY=VALUE"]);
    bench.run(&["--configuration", "treads=2"]).expect(2, &["did you mean `threads`?"]);
}

#[test]
fn two_configurations_in_turns_are_blocks_of_a_b_b_a() {
    let bench = Bench::new(SUITE);
    let answer = bench.run(&["--interleave", "--blocks", "3"]);
    let answer =
        answer.expect(0, &["3 blocks cannot decide all phases of this comparison; at least 8 are needed"]);
    let runs = bench.runs();
    for case in ["b1-i8-o4", "b2-i8-o4"] {
        let of = |run| timed(run).into_iter().filter(|l| l["case_id"] == case).collect::<Vec<_>>();
        let [a, b] = [of(&runs[0]), of(&runs[1])];
        let number = |line: &Value, key: &str| line[key].as_u64().unwrap();
        // Each block has four of either: the suite asks for four in total, but a block needs A B B A twice.
        let blocks = |lines: &[Value]| lines.iter().map(|l| number(l, "block")).collect::<Vec<_>>();
        assert_eq!(blocks(&a), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!(blocks(&b), blocks(&a));
        // Each process has its own clock, so the order of A and B across the runs cannot be checked. The number of
        // blocks can.
        for run in &runs {
            let group = &run.1["provenance"]["group"];
            assert_eq!(group["blocks"], 3);
        }
    }
    assert_eq!(runs[0].1["plan"]["performance"][0]["repetitions"], 12);
    assert!(answer.out.contains("3 blocks cannot decide 6 phases; at least 8 are needed"), "{}", answer.out);
    assert!(answer.out.contains("--blocks 8 --out "), "{}", answer.out);
    // Interleaving needs two configurations, and `--blocks` needs `--interleave`.
    bench
        .run(&["--interleave", "--only", "half"])
        .expect(2, &["interleaving needs two configurations, there are 1"]);
    bench.run(&["--blocks", "3"]).expect(2, &["give --interleave, too"]);
}

/// The null test, with the default number of blocks.
#[test]
fn a_configuration_is_timed_against_itself() {
    let bench = Bench::new(&SUITE.replace("batch = [1, 2]", "batch = [1]"));
    let words = ["--interleave", "--configuration", "threads=1", "--configuration", "threads=1"];
    let answer = bench.run(&words).expect(0, &[]);
    let runs = bench.runs();
    assert_eq!(runs.len(), 2);
    let names: Vec<&Value> = runs.iter().map(|run| &run.1["provenance"]["group"]["configuration"]).collect();
    assert_eq!(names, ["threads=1", "threads=1 #2"]);
    for run in &runs {
        // Three phases need seven blocks.
        assert_eq!(run.1["provenance"]["group"]["blocks"], 7);
        assert_eq!(timed(run).len(), 7 * 4);
    }
    assert!(answer.out.contains("7 blocks"), "{}", answer.out);
    assert!(!answer.out.contains("not timed in turn"), "{}", answer.out);
}

#[test]
fn a_group_is_gone_on_with_where_it_stopped() {
    let bench = Bench::new(SUITE);
    bench.run(&[]).expect(0, &[]);
    let first = bench.runs();
    let kept = fs::read(first[0].0.join("requests.jsonl")).unwrap();
    // The second run had written half its lines before a power failure.
    let (second, _) = &first[1];
    let lines = fs::read_to_string(second.join("requests.jsonl")).unwrap();
    let half: Vec<&str> = lines.lines().take(3).collect();
    fs::write(second.join("requests.jsonl"), half.join("\n") + "\n").unwrap();
    fs::remove_file(second.join("report.html")).unwrap();
    bench.run(&["--resume"]).expect(0, &["is already finished"]);
    let runs = bench.runs();
    assert_eq!(runs.len(), 2);
    assert_eq!(fs::read(runs[0].0.join("requests.jsonl")).unwrap(), kept);
    assert_eq!(timed(&runs[1]).len(), 8);
    assert_eq!(runs[1].1["provenance"]["resumed"], 1);
    // If the second run had not started, it starts in the same group.
    fs::remove_dir_all(&runs[1].0).unwrap();
    bench.run(&["--resume"]).expect(0, &["is already finished"]);
    let runs = bench.runs();
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[0].1["provenance"]["group"]["id"], runs[1].1["provenance"]["group"]["id"]);
}

#[test]
fn interleaved_runs_are_gone_on_with_block_by_block() {
    let bench = Bench::new(SUITE);
    bench.run(&["--interleave", "--blocks", "2"]).expect(0, &[]);
    let whole: Vec<_> = bench.runs().iter().map(timed).collect();
    // B is one repetition behind A in the middle of the last block.
    for (run, lines) in bench.runs().iter().zip([18, 17]) {
        let text = fs::read_to_string(run.0.join("requests.jsonl")).unwrap();
        let kept: Vec<&str> = text.lines().take(lines).collect();
        fs::write(run.0.join("requests.jsonl"), kept.join("\n") + "\n").unwrap();
        fs::remove_file(run.0.join("report.html")).unwrap();
    }
    bench.run(&["--interleave", "--blocks", "2", "--resume"]).expect(0, &[]);
    assert_eq!(bench.runs().len(), 2);
    for (run, whole) in bench.runs().iter().zip(&whole) {
        let keys = |lines: &[Value]| {
            let key = |l: &Value| (l["case_id"].clone(), l["repetition"].clone());
            lines.iter().map(key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&timed(run)), keys(whole), "{}", run.0.display());
        assert_eq!(run.1["status"], "complete");
    }
    // The repetition that only A had is from another process than B's new one, so the pair belongs to no block.
    let apart = |run: &(PathBuf, Value)| timed(run).iter().filter(|l| l["block"].is_null()).count();
    assert_eq!(bench.runs().iter().map(apart).collect::<Vec<_>>(), [0, 1]);
    // If the journal of one side is lost, it is measured again and decides nothing.
    let lost = &bench.runs()[0].0;
    fs::remove_file(lost.join("requests.jsonl")).unwrap();
    let answer = bench.run(&["--interleave", "--blocks", "2", "--resume"]);
    let runs = bench.runs();
    assert!(timed(&runs[0]).iter().all(|l| l["block"].is_null()), "{}", answer.out);
    assert!(answer.out.contains("not timed in turn"), "{}", answer.out);
}

/// The process of a block ends with its parent, and its results are kept for resuming.
#[test]
fn a_stopped_command_stops_its_block() {
    let suite = SUITE
        .replace("lengths = [[8, 4]]", "lengths = [[512, 64]]")
        .replace("repetitions = 4", "repetitions = 40");
    let bench = Bench::new(&suite);
    let path = |name: &str| bench.folder.path().join(name).to_str().unwrap().to_owned();
    let args = [
        "run".to_owned(),
        path("two.toml"),
        "--out".to_owned(),
        path("runs"),
        "--interleave".into(),
        "--blocks".into(),
        "2".into(),
    ];
    let child = crate::support::glmbench(&args).spawn().unwrap();
    let begun = || {
        bench.runs().iter().any(|run| {
            fs::read_to_string(run.0.join("requests.jsonl")).is_ok_and(|text| text.contains("warmup"))
        })
    };
    let waited = std::time::Instant::now();
    while !begun() && waited.elapsed().as_secs() < 120 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // Only the parent gets the signal.
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    crate::support::wait(child).expect(3, &["--resume continues"]);
    for run in bench.runs() {
        assert_eq!(run.1["status"], "interrupted");
        // Only whole cases of blocks are recorded.
        assert_eq!(timed(&run).len() % 20, 0);
    }
}

#[test]
fn doctor_has_processes_time_a_model_and_a_comparison_takes_what_they_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("noise.json");
    let file = file.to_str().unwrap();
    let args = ["doctor", "--noise", "--runs", "3", "--every", "0", "--shape", "1x8x4", "--out", file];
    let said = answer(&args).expect(0, &[]);
    assert!(said.out.contains("3 equal runs spread by"), "{}", said.out);
    let kept: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(kept["floors"].as_array().unwrap().len(), 3);
    assert_eq!((&kept["floors"][0]["runs"], &kept["floors"][0]["case_id"]), (&3.into(), &"b1-i8-o4".into()));
    answer(&["doctor", "--noise", "--shape", "8x0x1"]).expect(2, &["BATCHxINPUTxOUTPUT"]);
    answer(&["doctor", "--noise", "--model", "nowhere"]).expect(2, &["--model nowhere"]);
}

#[test]
fn a_group_killed_before_its_comparison_makes_that_alone() {
    // Two equal configurations, which the command compares at its end.
    let suite =
        SUITE.replace("dtype = \"bf16\"\nthreads = 1", "threads = 2").replace("dtype = \"fp16\"\n", "");
    let suite = suite.replace("limit = 4\nconfigurations = [\"half\"]", "limit = 4");
    let bench = Bench::new(&suite);
    bench.run(&[]).expect(0, &["report: "]);
    let runs = bench.runs();
    let group = runs[0].1["provenance"]["group"]["id"].as_str().unwrap();
    let comparison = bench.folder.path().join("runs").join(format!("{group}-compare"));
    assert!(comparison.join("report.html").is_file());
    fs::remove_dir_all(&comparison).unwrap();
    let files = |runs: &[(PathBuf, Value)]| -> Vec<Vec<u8>> {
        let of = |run: &PathBuf| {
            ["run.json", "samples.jsonl", "requests.jsonl"].map(|f| fs::read(run.join(f)).unwrap())
        };
        runs.iter().flat_map(|(run, _)| of(run)).collect()
    };
    let before = files(&runs);
    bench.run(&["--resume"]).expect(0, &["is already finished"]);
    assert!(comparison.join("report.html").is_file(), "the comparison was not made");
    let after = bench.runs();
    assert_eq!(after.len(), 2, "a run was made again");
    assert_eq!(files(&after), before, "a run was touched");
    // Everything is complete, so a further `--resume` finds nothing to resume.
    bench.run(&["--resume"]).expect(0, &[]);
    assert_eq!(bench.runs().len(), 4);
}
