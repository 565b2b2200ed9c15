//! The rule of resuming: a run stopped at any moment and resumed leaves the same as an undisturbed run, except for
//! times.
//!
//! What needs a process of its own, a measured machine or a device's types runs the program. The rest runs here, on a script.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use glmbench::report::Verdict;
use glmbench::run::setup::Answering;
use glmbench::run::{RunError, RunRequest, Wanted};
use glmbench::suite::Suite;

use crate::in_process::{self, Heard};
use crate::support::{Answer, answer, glmbench, wait};

/// A suite with the sample sets: two tasks, one with two stages.
const SUITE: &str = r#"schema = 1
name = "k"
[model]
path = "demo"
[[accuracy]]
task = "ceval"
dataset = "DATASETS/ceval-sample"
protocol = "two-stage"
max_new_tokens = 4
limit = 12
batch = 4
[[accuracy]]
task = "boolq"
dataset = "DATASETS/boolq-sample"
protocol = "modeltest"
limit = 12
batch = 3
"#;

/// Two shapes to time, and a target about one of them. A run with a target first measures the machine, which takes a
/// second.
const TIMED: &str = r#"[[performance]]
batch = [1, 2]
lengths = [[16, 6]]
repetitions = 3
max_warmups = 2
[[target]]
figure = "decode-bandwidth"
case = "b1-i16-o6"
at_least = 0.5
"#;

/// A folder with a suite and its run directories.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(suite: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
        fs::write(folder.path().join("k.toml"), suite.replace("DATASETS", sets.to_str().unwrap())).unwrap();
        Self { folder }
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).to_str().unwrap().to_owned();
        let fixed = ["run".to_owned(), path("k.toml"), "--out".to_owned(), path("runs")];
        let threads = ["--threads", "1"].map(str::to_owned);
        fixed.into_iter().chain(threads).chain(more.iter().map(|&s| s.to_owned())).collect()
    }

    fn start(&self, more: &[&str]) -> Child {
        glmbench(&self.args(more)).spawn().unwrap()
    }

    fn run(&self, more: &[&str]) -> Answer {
        answer(&self.args(more))
    }

    /// Runs the suite in this process on a script, new or resumed, until its end.
    fn run_here(&self, resume: Option<Wanted>) -> Result<Heard<'static>, RunError> {
        let suite = Suite::load(&self.folder.path().join("k.toml"), &[]).unwrap();
        let mut request = RunRequest::new(suite, self.folder.path().join("runs"));
        request.choice.answering = Answering::Scripted(Box::default());
        request.resume = resume;
        let (end, heard) = in_process::try_run(&request, usize::MAX)?;
        // A script gives every item the same answer, which the report calls invalid.
        assert_ne!(end.verdict, Verdict::Incomplete);
        Ok(heard)
    }

    /// Runs a verb on the only run.
    fn verb(&self, verb: &str) -> Answer {
        answer(&[verb, self.the_run().to_str().unwrap()])
    }

    /// Returns all run directories.
    fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.path().join("runs")).into_iter().flatten();
        let mut runs: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
        // A kill may come between the creation of a folder and of its record.
        runs.retain(|run| run.join("run.json").is_file());
        runs.sort();
        runs
    }

    /// Returns the only run directory.
    fn the_run(&self) -> PathBuf {
        let runs = self.runs();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0].clone()
    }

    /// Waits until a journal has more than `lines` lines. Returns false if the program ends first.
    fn wait_for(&self, child: &mut Child, journal: &str, lines: usize) -> bool {
        let start = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < Duration::from_mins(1), "{journal} does not grow");
            if self.runs().first().is_some_and(|run| line_count(&run.join(journal)) > lines) {
                return true;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        false
    }
}

fn line_count(path: &Path) -> usize {
    fs::read(path).unwrap_or_default().split(|&b| b == b'\n').count() - 1
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the samples without their times.
pub(crate) fn samples(run: &Path) -> Vec<Value> {
    let mut all = lines(&run.join("samples.jsonl"));
    for line in &mut all {
        let fields = line.as_object_mut().unwrap();
        // The checksum covers the times.
        fields.remove("sum").unwrap();
        assert!(fields.remove("t_start_ns").unwrap().as_u64() <= fields.remove("t_end_ns").unwrap().as_u64());
    }
    all
}

/// Returns case, repetition and output of the timed repetitions, and whether the machine was measured around them.
fn timed(run: &Path) -> Vec<Value> {
    let all = lines(&run.join("requests.jsonl"));
    let timed = all.iter().filter(|line| line["kind"] == "timed");
    timed
        .map(|r| {
            let steps = r["step_ns"].as_array().unwrap().len();
            json!([r["case_id"], r["repetition"], r["output_hash"], steps, r["spots"].is_object()])
        })
        .collect()
}

/// Returns the rows of `accuracy.csv` without run and duration.
fn accuracy(run: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(run.join("accuracy.csv")).unwrap();
    let kept: Vec<bool> =
        reader.headers().unwrap().iter().map(|name| !["run_id", "duration_s"].contains(&name)).collect();
    let row = |row: csv::StringRecord| {
        row.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(cell, _)| cell.to_owned()).collect()
    };
    reader.records().map(|line| row(line.unwrap())).collect()
}

#[track_caller]
fn assert_same(run: &Path, undisturbed: &Path) {
    assert_eq!(samples(run), samples(undisturbed));
    let prompts = |run: &Path| fs::read(run.join("prompts.jsonl")).unwrap();
    assert!(prompts(run) == prompts(undisturbed), "the prompts differ");
    assert_eq!(timed(run), timed(undisturbed));
    assert_eq!(accuracy(run), accuracy(undisturbed));
    let status = |run: &Path| record(run)["status"].clone();
    assert_eq!(status(run), "complete");
    assert!(run.join("report.html").is_file() && run.join("perf.csv").is_file());
    // The run's clock does not go back after resuming.
    for pair in lines(&run.join("requests.jsonl")).windows(2) {
        assert!(pair[0]["end_ns"].as_u64() <= pair[1]["start_ns"].as_u64());
    }
}

fn record(run: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(run.join("run.json")).unwrap()).unwrap()
}

fn write_record(run: &Path, change: impl Fn(&mut Value)) {
    let mut changed = record(run);
    change(&mut changed);
    fs::write(run.join("run.json"), changed.to_string()).unwrap();
}

/// Cuts the journals of a finished run at each of `cuts` (shares of their bytes) and sets the status of its record.
/// Then resumes and compares the result with the undisturbed run. `start` starts a run, or resumes it.
fn cut_and_resume(bench: &Bench, cuts: &[(f64, f64, &str)], start: &dyn Fn(bool)) {
    start(false);
    let run = bench.the_run();
    let undisturbed = bench.folder.path().join("undisturbed");
    copy(&run, &undisturbed);
    let [samples, requests] = ["samples.jsonl", "requests.jsonl"].map(|name| run.join(name));
    for (resumed, (of_samples, of_requests, status)) in (1..).zip(cuts) {
        for (path, share) in [(&samples, of_samples), (&requests, of_requests)] {
            let bytes = fs::metadata(path).unwrap().len() as f64;
            File::options().write(true).open(path).unwrap().set_len((share * bytes) as u64).unwrap();
        }
        fs::remove_file(run.join("report.html")).unwrap();
        write_record(&run, |r| r["status"] = json!(status));
        start(true);
        assert_eq!(bench.the_run(), run);
        assert_same(&run, &undisturbed);
        assert_eq!(record(&run)["provenance"]["resumed"], resumed);
    }
}

#[test]
fn a_run_cut_at_any_byte_is_gone_on_with_to_the_same_end() {
    let bench = Bench::new(SUITE);
    // The last cut: killed before the report, after the record was marked complete.
    let [running, complete] = ["running", "complete"];
    let cuts = [
        (0.0, 0.0, running),
        (0.01, 0.0, running),
        (0.3, 0.0, running),
        (0.999, 0.0, running),
        (1.0, 0.0, complete),
    ];
    cut_and_resume(&bench, &cuts, &|resumes| {
        bench.run_here(resumes.then_some(Wanted::Missing)).unwrap();
    });
    // Nothing is left to resume: a further request to resume says so and starts a new run.
    let heard = bench.run_here(Some(Wanted::Missing)).unwrap();
    assert!(
        heard.has_heard("no unfinished run of the same suite, data, model and device; a new one begins"),
        "{:?}",
        heard.messages
    );
    assert_eq!(bench.runs().len(), 2);
}

#[test]
fn a_timed_part_cut_at_any_byte_is_gone_on_with_to_the_same_end() {
    let bench = Bench::new(&[SUITE, TIMED].concat());
    let cuts = [(0.7, 0.0, "running"), (1.0, 0.3, "running"), (1.0, 0.99, "interrupted")];
    cut_and_resume(&bench, &cuts, &|resumes| {
        bench.run(if resumes { &["--resume"] } else { &[] }).expect(0, &[]);
    });
    // The machine is measured around the repetitions of the case with the target, both before and after resuming.
    for line in timed(&bench.the_run()) {
        assert_eq!(line[4], json!(line[0] == "b1-i16-o6"), "{line}");
    }
}

/// Run directories are named by the second of their start.
fn next_second() {
    std::thread::sleep(Duration::from_millis(1050));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()).filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn kill_9_again_and_again_leaves_the_same_files() {
    let suite =
        SUITE.replace("limit = 12", "limit = 90").replace("lengths = [[16, 6]]", "lengths = [[256, 64]]");
    let undisturbed = Bench::new(&suite);
    undisturbed.run(&[]).expect(0, &[]);
    let bench = Bench::new(&suite);
    let mut killed = 0;
    for (journal, more) in [("samples.jsonl", 5), ("requests.jsonl", 2)] {
        let mut child = bench.start(if killed == 0 { &[] } else { &["--resume"] });
        let before = bench.runs().first().map_or(0, |run| line_count(&run.join(journal)));
        let in_time = bench.wait_for(&mut child, journal, before + more);
        child.kill().unwrap();
        let ended = wait(child);
        if !in_time || ended.code.is_some() {
            break;
        }
        killed += 1;
    }
    assert!(killed > 0, "the run was over before it could be killed");
    if record(&bench.the_run())["status"] != "complete" {
        bench.run(&["--resume"]).expect(0, &[]);
    }
    assert_same(&bench.the_run(), &undisturbed.the_run());
}

#[test]
fn ctrl_c_and_sigterm_leave_a_run_to_go_on_with() {
    let suite = SUITE.replace("limit = 12\nbatch = 3", "batch = 1");
    for signal in [crate::support::heard("INT"), "TERM"] {
        let bench = Bench::new(&suite);
        let mut child = bench.start(&[]);
        assert!(bench.wait_for(&mut child, "samples.jsonl", 3), "over before it could be stopped");
        let sent =
            Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
        assert!(sent.success());
        let stopped = wait(child).expect(3, &["stopping after this step", "--resume continues"]);
        let run = bench.the_run();
        assert_eq!(record(&run)["status"], "interrupted", "{stopped:?}");
        assert!(line_count(&run.join("samples.jsonl")) < 12 + 224);
        next_second();
        bench.run(&[]).expect(0, &["found an unfinished run of this suite at", "--resume continues it"]);
        assert_eq!(bench.runs().len(), 2);
        bench.run(&["--resume"]).expect(0, &[]);
        assert_same(&run, &bench.runs()[1]);
    }
}

#[test]
fn one_process_at_a_time_writes_a_run() {
    let bench = Bench::new(SUITE);
    bench.run_here(None).unwrap();
    let run = bench.the_run();
    write_record(&run, |r| r["status"] = json!("running"));
    fs::write(run.join("samples.jsonl"), "").unwrap();
    let before = fs::read(run.join("run.json")).unwrap();
    let other = File::options().append(true).open(run.join("samples.jsonl")).unwrap();
    other.try_lock().unwrap();
    let Err(refused) = bench.run_here(Some(Wanted::Missing)) else {
        panic!("it wrote beside another process")
    };
    assert!(refused.to_string().contains("samples.jsonl is being written by another process"), "{refused}");
    assert_eq!(fs::read(run.join("run.json")).unwrap(), before, "the writer's record was touched");
    drop(other);
    bench.run_here(Some(Wanted::Missing)).unwrap();
    assert_eq!(bench.the_run(), run);
}

#[test]
fn what_was_changed_meanwhile_is_not_gone_on_with() {
    let bench = Bench::new(SUITE);
    bench.run(&[]).expect(0, &[]);
    let run = bench.the_run();
    write_record(&run, |r| r["status"] = json!("interrupted"));
    let kept = fs::read(run.join("run.json")).unwrap();
    next_second();
    for other in
        [&["--set", "accuracy.1.limit=11"][..], &["--limit", "3"], &["--dtype", "fp32"], &["--rope", "exact"]]
    {
        let args: Vec<&str> = [&["--resume"], other].concat();
        bench.run(&args).expect(0, &["a new one begins"]);
    }
    assert_eq!(bench.runs().len(), 5);
    assert_eq!(fs::read(run.join("run.json")).unwrap(), kept);
}

#[test]
fn lines_that_are_lost_or_unreadable_are_made_again_in_their_places() {
    let bench = Bench::new(SUITE);
    bench.run_here(None).unwrap();
    let run = bench.the_run();
    write_record(&run, |r| r["status"] = json!("interrupted"));
    let resumes_with = |says: &[&str]| {
        let heard = bench.run_here(Some(Wanted::Missing)).unwrap();
        assert!(says.iter().all(|words| heard.has_heard(words)), "{:?}", heard.messages);
    };
    // A line missing in the middle is computed again, and the lines after it keep their places.
    let undisturbed = bench.folder.path().join("undisturbed");
    copy(&run, &undisturbed);
    let path = run.join("samples.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let mut fewer: Vec<&str> = text.lines().collect();
    fewer.remove(2);
    fs::write(&path, fewer.join("\n") + "\n").unwrap();
    resumes_with(&["2 lines stand, 21 more are kept for their places"]);
    assert_eq!(samples(&run), samples(&undisturbed));
    // An unreadable line is set aside and computed again.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"schema\":4", "\"schema\":7", 2)).unwrap();
    resumes_with(&[
        "0 lines stand, 22 more are kept",
        "2 are cut off and set aside in samples.jsonl.set-aside",
    ]);
    assert_eq!(samples(&run), samples(&undisturbed));
    assert!(fs::read_to_string(run.join("samples.jsonl.set-aside")).unwrap().contains("\"schema\":7"));
}

/// Runs that start in the same second get different directories.
#[test]
fn two_runs_of_one_second_have_two_names() {
    let bench = Bench::new(SUITE);
    std::thread::scope(|scope| {
        let runs = [(); 3].map(|()| scope.spawn(|| bench.run_here(None).map(drop).unwrap()));
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
    let runs = bench.runs();
    assert_eq!(runs.len(), 3, "{runs:?}");
    for run in &runs {
        assert_eq!(record(run)["run_id"], run.file_name().unwrap().to_str().unwrap());
        assert_same(run, &runs[0]);
    }
}

/// Returns the journal size of a run in bytes.
fn journal_bytes(run: &Path) -> u64 {
    let files = fs::read_dir(run).into_iter().flatten().flatten();
    let journals = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "jsonl"));
    journals.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}

/// Kills `kills` runs at moments spread over a run, and resumes each.
fn kill_at_many_moments(kills: u32) {
    let undisturbed = Bench::new(SUITE);
    undisturbed.run(&[]).expect(0, &[]);
    let whole = journal_bytes(&undisturbed.the_run());
    let mut killed = 0;
    for moment in 0..kills {
        let bench = Bench::new(SUITE);
        let mut child = bench.start(&[]);
        // Waits for written bytes instead of a time, since the speed of a busy machine varies.
        let enough = whole * u64::from(moment) / u64::from(kills);
        let written = || bench.runs().first().map_or(0, |run| journal_bytes(run));
        while written() < enough && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        killed += u32::from(wait(child).code.is_none());
        let is_finished =
            |run: &PathBuf| record(run)["status"] == "complete" && run.join("report.html").exists();
        if !bench.runs().first().is_some_and(is_finished) {
            bench.run(&["--resume"]).expect(0, &[]);
        }
        assert_same(&bench.the_run(), &undisturbed.the_run());
        bench.verb("report").expect(0, &[]);
    }
    assert!(killed > kills / 2, "{killed} of {kills} were killed before their end");
}

#[test]
fn a_run_killed_at_any_moment_is_gone_on_with() {
    kill_at_many_moments(8);
}

/// The long version: `cargo test --release --test it -- --ignored hundreds`.
#[test]
#[ignore = "takes about ten minutes"]
fn a_run_killed_at_hundreds_of_moments_is_gone_on_with() {
    kill_at_many_moments(400);
}
