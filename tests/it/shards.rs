//! Shards of a plan: any of them, in any order and however often stopped, merge to the unsharded run, or are refused.

mod million;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};

use glmbench::language::Language;
use glmbench::record::{Clock, MergeError, Merged, Roofline, RunDir, RunRecord, Status, WRITER, merge};
use glmbench::report::{Summary, Verdict, render};
use glmbench::run::setup::Answering;
use glmbench::run::shard::Shard;
use glmbench::run::shard_status::{PlanStatus, Standing};
use glmbench::run::{RunRequest, Wanted};
use glmbench::suite::Suite;
use proptest::prelude::*;
use regex::Regex;

use crate::in_process::try_run;
use crate::support::glmbench;

/// Items of two tasks, shapes, and a load.
const PARTS: [&str; 3] = [
    "[[accuracy]]\ntask = \"boolq\"\ndataset = \"DATA/boolq-sample\"\nprotocol = \"modeltest\"\nlimit = 11\nbatch = 3\n\
     [[accuracy]]\ntask = \"ceval\"\ndataset = \"DATA/ceval-sample\"\nprotocol = \"modeltest-0shot\"\nlimit = 9\nbatch = 4\n",
    "[[performance]]\nbatch = [1, 2, 3]\nlengths = [[32, 4], [8, 2]]\nrepetitions = 2\n",
    "[[load]]\narrival = \"poisson\"\nrates = [50]\nrequests = 4\nlengths = [[16, 4]]\nmax_batch = 3\n",
];

fn suite(parts: &[&str]) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    format!("schema = 1\nname = \"s\"\n{}", parts.concat()).replace("DATA", data.to_str().unwrap())
}

fn request(out: &Path, text: &str, shard: Option<(u32, u32)>) -> RunRequest {
    let mut request = RunRequest::new(Suite::parse(Path::new("s.toml"), text, &[]).unwrap(), out);
    request.choice.answering = Answering::Scripted(Box::default());
    request.shard = shard.map(|(index, count)| Shard::new(index, count).unwrap());
    request
}

/// Runs to the end.
fn run(out: &Path, text: &str, shard: Option<(u32, u32)>) -> PathBuf {
    let (end, _) = try_run(&request(out, text, shard), usize::MAX).unwrap();
    assert_eq!((end.verdict, end.runs.len()), (Verdict::Valid, 1));
    end.runs[0].clone()
}

/// Stops after some units, then goes on to the end.
fn run_in_pieces(out: &Path, text: &str, shard: (u32, u32), pieces: &[usize], killed: bool) -> PathBuf {
    for units in pieces {
        let mut part = request(out, text, Some(shard));
        part.resume = Some(Wanted::Missing);
        let (end, _) = try_run(&part, *units).unwrap();
        if killed && end.verdict == Verdict::Incomplete {
            kill(&end.runs[0]);
        }
    }
    let mut rest = request(out, text, Some(shard));
    rest.resume = Some(Wanted::Missing);
    let (end, _) = try_run(&rest, usize::MAX).unwrap();
    assert_eq!(end.verdict, Verdict::Valid);
    end.runs[0].clone()
}

/// Leaves a stopped run as `kill -9` does: with a torn line, the status of a running one, and the file of a dead process.
fn kill(run: &Path) {
    let dir = RunDir::open(run).unwrap();
    let record = dir.read_run().unwrap();
    dir.write_run(&RunRecord { status: Status::Running, ..record }).unwrap();
    for file in ["samples.jsonl", "requests.jsonl"] {
        let text = fs::read(run.join(file)).unwrap();
        fs::write(run.join(file), &text[..text.len().saturating_sub(7)]).unwrap();
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let space = fs::read_link("/proc/self/ns/pid").map(|link| link.display().to_string()).unwrap_or_default();
    let writer = serde_json::json!({
        "host": "gone", "pid": 4_294_967_000_u32, "started": "2026-01-01T00:00:00Z", "process_start": 1,
        "place": format!("{} {space}", boot.trim()), "beat": 3,
    });
    fs::write(run.join(WRITER), writer.to_string()).unwrap();
}

fn merged(out: &Path, shards: &[PathBuf]) -> Result<Merged, MergeError> {
    merge(out, shards, false, Vec::new())
}

fn refusal(out: &Path, shards: &[PathBuf], partial: bool) -> String {
    let message = merge(out, shards, partial, Vec::new()).unwrap_err().to_string();
    assert!(!out.exists(), "{message}");
    message
}

const JOURNALS: [&str; 4] = ["samples.jsonl", "prompts.jsonl", "requests.jsonl", "load.jsonl"];

/// The bytes of all journals but for times, memory and checksums.
fn journals(run: &Path) -> Vec<String> {
    let times = Regex::new(r#""(\w*_ns|peak_rss_bytes|sum)":(\[[^\]]*\]|"[^"]*"|[^,}\]]*)"#).unwrap();
    let read = |name: &&str| fs::read_to_string(run.join(name)).unwrap_or_default();
    JOURNALS.iter().map(|name| times.replace_all(&read(name), "$1").into_owned()).collect()
}

/// The same without warm-ups, which a resumed case repeats.
fn results(run: &Path) -> Vec<Vec<String>> {
    let counted = |line: &&str| !line.contains("\"kind\":\"warmup\"");
    journals(run).iter().map(|text| text.lines().filter(counted).map(str::to_owned).collect()).collect()
}

#[test]
fn merged_journals_equal_those_of_the_unsharded_run_byte_for_byte() {
    let root = tempfile::tempdir().unwrap();
    let text = suite(&PARTS);
    let whole = run(&root.path().join("whole"), &text, None);
    let record = RunDir::open(&whole).unwrap().read_run().unwrap();
    let shards: Vec<PathBuf> =
        (1..=3).map(|index| run(&root.path().join("shards"), &text, Some((index, 3)))).collect();
    for (shard, index) in shards.iter().zip(1..) {
        let own = RunDir::open(shard).unwrap().read_run().unwrap();
        assert_eq!(own.identity, record.identity);
        assert_eq!(own.shards.as_ref().unwrap().plan_hash, record.plan.hash());
        assert!(own.run_id.ends_with(&format!("-{index}of3")), "{}", own.run_id);
        let summary = render(shard, Language::En).unwrap();
        assert!(summary.title().contains(&format!("shard {index} of 3")), "{}", summary.title());
        assert_eq!(summary.record_faults(), None);
    }
    let out = root.path().join("merged");
    let made = merged(&out, &[root.path().join("shards")]).unwrap();
    assert_eq!((made.items, made.notes.len()), (20, 0), "{:?}", made.notes);
    assert_eq!(journals(&out), journals(&whole));
    assert!(journals(&whole).iter().all(|text| !text.is_empty()));
    let summary = render(&out, Language::En).unwrap();
    assert_eq!((summary.verdict(), summary.record_faults()), (Verdict::Valid, None));
    assert_eq!((&summary.run.identity, &summary.run.plan), (&record.identity, &record.plan));
    assert!(summary.title().contains("3 shards merged"), "{}", summary.title());
    // Nothing of the merge is left beside it.
    let names: Vec<String> = fs::read_dir(root.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn a_plan_with_more_shards_than_work_has_empty_ones() {
    let root = tempfile::tempdir().unwrap();
    let text = suite(&PARTS[1..2]);
    let whole = run(&root.path().join("whole"), &text, None);
    for index in 1..=9 {
        run(root.path(), &text, Some((index, 9)));
    }
    let out = root.path().join("merged");
    merged(&out, &[root.path().to_owned()]).unwrap();
    assert_eq!(journals(&out), journals(&whole));
    assert_eq!(render(&out, Language::En).unwrap().verdict(), Verdict::Valid);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    /// Any number of shards, in any order, stopped, killed and requeued anywhere, some of them on two machines.
    #[test]
    fn any_shards_make_the_unsharded_run_or_a_refusal_with_a_reason(
        count in 1_u32..7,
        order in any::<u64>(),
        pieces in prop::collection::vec(prop::collection::vec(1_usize..9, 0..3), 7),
        killed in any::<[bool; 7]>(),
        twice in any::<[bool; 7]>(),
        lost in prop::option::weighted(0.3, 0_usize..7),
    ) {
        let root = tempfile::tempdir().unwrap();
        let text = suite(&PARTS);
        let whole = run(&root.path().join("whole"), &text, None);
        let mut indices: Vec<u32> = (1..=count).collect();
        indices.sort_by_key(|index| order.rotate_left(index * 7).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut shards = Vec::new();
        for index in indices {
            let at = index as usize - 1;
            let (shard, own) = ((index, count), &pieces[at]);
            shards.push(run_in_pieces(&root.path().join("a"), &text, shard, own, killed[at]));
            if twice[at] {
                shards.push(run(&root.path().join("b"), &text, Some(shard)));
            }
        }
        let out = root.path().join("merged");
        if let Some(lost) = lost.map(|lost| lost as u32 % count + 1) {
            let is_lost = |shard: &PathBuf| shard.to_str().unwrap().ends_with(&format!("-{lost}of{count}"));
            shards.retain(|shard| !is_lost(shard));
            if shards.is_empty() {
                return Ok(());
            }
            let message = refusal(&out, &shards, false);
            prop_assert!(message.contains(&format!("shard {lost} of {count} is missing")), "{}", message);
            return Ok(());
        }
        let made = merged(&out, &shards).unwrap();
        prop_assert_eq!(results(&out), results(&whole));
        prop_assert_eq!(made.record.status, Status::Complete);
        let two = twice[..count as usize].iter().filter(|twice| **twice).count();
        prop_assert_eq!(made.notes.iter().filter(|note| note.contains("two runs without a difference")).count(), two);
        // Whichever shard has the load: its lines have times only.
        let bare = made.notes.iter().filter(|note| note.contains("their times were not compared"));
        prop_assert!(bare.clone().count() <= 1 && bare.clone().all(|note| note.contains("load.jsonl")), "{:?}", made.notes);
    }
}

#[test]
fn a_partial_merge_says_so_everywhere() {
    let root = tempfile::tempdir().unwrap();
    let text = suite(&PARTS);
    let out = root.path().join("merged");
    run(root.path(), &text, Some((1, 4)));
    run(root.path(), &text, Some((4, 4)));
    let (stopped, _) = try_run(&request(root.path(), &text, Some((2, 4))), 2).unwrap();
    let made = merge(&out, &[root.path().to_owned()], true, Vec::new()).unwrap();
    let says = "2 of 4 shards (shard 2 in part, shard 3 missing)";
    assert_eq!(made.record.part_words().as_ref().map(ToString::to_string).as_deref(), Some(says));
    assert_eq!(made.record.status, Status::Interrupted);
    let summary = render(&out, Language::En).unwrap();
    assert_eq!((summary.verdict(), summary.record_faults()), (Verdict::Incomplete, None));
    assert!(summary.title().contains(says), "{}", summary.title());
    // What is there is told of the whole plan, not of what is there.
    let all = made.record.lacking().unwrap().accuracy.iter().map(|case| case.items).sum::<u64>();
    let there = format!("{} of {all} items", made.items);
    let found = &summary.checks.iter().find(|check| check.name == "whole plan run").unwrap().found;
    assert!(made.items < all && summary.title().contains(&there), "{there}: {}", summary.title());
    assert!(found.contains(&there), "{there}: {found}");
    for file in ["summary.md", "report.html"] {
        let page = fs::read_to_string(out.join(file)).unwrap();
        assert!(page.contains("2 of 4 shards") && page.contains("shard 3 missing"), "{file}");
    }
    // The advice begins with what is to be done first.
    let advice = |summary: &Summary| {
        let check = summary.checks.iter().find(|check| check.name == "whole plan run").unwrap();
        check.advice.clone()
    };
    let (of_shard, of_merged) = (advice(&render(&stopped.runs[0], Language::En).unwrap()), advice(&summary));
    assert!(of_shard.starts_with("Run the same command with --resume") && of_shard.contains("other shards"));
    assert!(of_merged.starts_with("Run the shards that are missing or in part with --resume"), "{of_merged}");
    // What is there stands in the plan's order.
    let whole = run(&root.path().join("whole"), &text, None);
    let (all, part) = (results(&whole), results(&out));
    for (all, part) in all.iter().zip(&part) {
        let mut rest = all.iter();
        assert!(part.iter().all(|line| rest.any(|other| other == line)), "{part:?}");
        assert!(part.len() < all.len() || part.is_empty() || all.len() < 3);
    }
    // A merged run is nothing to go on with, and a shard is not the whole run.
    let mut resumed = request(root.path(), &text, None);
    resumed.resume = Some(Wanted::Missing);
    let (end, heard) = try_run(&resumed, usize::MAX).unwrap();
    assert!(heard.has_heard("a new one begins") && end.runs[0] != out && end.runs[0] != stopped.runs[0]);
}

#[test]
fn a_finished_shard_is_left_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    let text = suite(&PARTS[1..2]);
    let first = run(root.path(), &text, Some((1, 2)));
    let lines = fs::read(first.join("requests.jsonl")).unwrap();
    let again = run_in_pieces(root.path(), &text, (1, 2), &[], false);
    assert_eq!((&again, fs::read(first.join("requests.jsonl")).unwrap()), (&first, lines));
    assert!(!first.join(WRITER).exists());
    // A run of the shard by another program does not count for this program: a merge would refuse it.
    let dir = RunDir::open(&first).unwrap();
    let mut record = dir.read_run().unwrap();
    record.provenance.engine = "glmbench 0.0.0".into();
    dir.write_run(&record).unwrap();
    let own = run_in_pieces(root.path(), &text, (1, 2), &[], false);
    assert_ne!(own, first);
    let plans = PlanStatus::read(root.path()).unwrap();
    let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
    assert!(names.len() == 2 && names.iter().any(|name| name.contains("glmbench 0.0.0")), "{names:?}");
}

#[test]
fn one_process_writes_a_shard() {
    let root = tempfile::tempdir().unwrap();
    let text = suite(&PARTS[1..2]);
    let (stopped, _) = try_run(&request(root.path(), &text, Some((1, 2))), 1).unwrap();
    let run = &stopped.runs[0];
    // This very process.
    let mut dir = RunDir::open(run).unwrap();
    dir.claim("here").unwrap().unwrap();
    let mut second = request(root.path(), &text, Some((1, 2)));
    for resume in [None, Some(Wanted::Missing)] {
        second.resume = resume;
        let error = try_run(&second, usize::MAX).err().unwrap().to_string();
        assert!(
            error.contains(WRITER)
                && error.contains("on host here")
                && error.contains("one writer per shard"),
            "{error}"
        );
    }
    let found = &PlanStatus::read(root.path()).unwrap()[0];
    assert_eq!(found.shards[0].standing, Standing::Running);
    assert_eq!(found.missing(), [2]);
    drop(dir);
    // A process that is gone is told of, with what to do if it is not.
    kill(run);
    assert_eq!(PlanStatus::read(root.path()).unwrap()[0].shards[0].standing, Standing::Stopped);
    second.resume = Some(Wanted::Missing);
    let (end, heard) = try_run(&second, usize::MAX).unwrap();
    assert_eq!((&end.runs[0], end.verdict), (run, Verdict::Valid));
    assert!(
        heard.has_heard("process 4294967000 on host gone") && heard.has_heard("it notices and ends"),
        "{:?}",
        heard.messages
    );
    let found = &PlanStatus::read(root.path()).unwrap()[0];
    assert_eq!((found.shards[0].standing, found.is_done()), (Standing::Done, false));
    assert!(
        found.words()[0].contains("1 of 2 shards done, 0 running, 0 stopped, 1 not begun"),
        "{:?}",
        found.words()
    );
}

/// Gives a run another machine.
fn on_host(run: &Path, host: &str, bandwidth: f64) {
    let dir = RunDir::open(run).unwrap();
    let mut record = dir.read_run().unwrap();
    record.provenance.host = host.into();
    record.provenance.roofline =
        Some(Roofline { bandwidth_bytes_per_s: bandwidth, peak_flops_per_s: 1e12, measured: None });
    dir.write_run(&record).unwrap();
}

#[test]
fn speeds_name_their_host_and_unlike_hosts_have_no_common_verdict() {
    let root = tempfile::tempdir().unwrap();
    let text = suite(&PARTS[1..2]);
    let shards: Vec<PathBuf> =
        (1..=2).map(|index| run(&root.path().join("s"), &text, Some((index, 2)))).collect();
    on_host(&shards[0], "fast", 2e10);
    on_host(&shards[1], "slow", 1e10);
    let out = root.path().join("merged");
    let made = merged(&out, &shards).unwrap();
    let shares = made.record.shards.as_ref().unwrap();
    assert_eq!(shares.unlike_hosts(), Some(vec![vec!["fast"], vec!["slow"]]));
    let summary = render(&out, Language::En).unwrap();
    let csv = fs::read_to_string(out.join("perf.csv")).unwrap();
    for row in &summary.performance {
        let host = made.record.host_of(&row.case_id);
        assert!(["fast", "slow"].contains(&host) && row.host == host);
    }
    assert!(csv.contains(",fast\n") && csv.contains(",slow\n"), "{csv}");
    let check = summary.checks.iter().find(|check| check.name == "one kind of machine").unwrap();
    assert!(check.found.contains("virtual clock"), "{}", check.found);
    // Against a run of the fast host, the slow host's cases have no verdict.
    let other = run(&root.path().join("whole"), &text, None);
    on_host(&other, "fast", 2.02e10);
    let other = RunDir::open(&other).unwrap().read_run().unwrap();
    let on_clock = |run: &RunRecord, clock: Clock| {
        let mut run = run.clone();
        run.provenance.clock = clock;
        run
    };
    // No machine changes a virtual clock.
    for clock in [Clock::Measured, Clock::Modelled] {
        let (made, other) = (on_clock(&made.record, clock), on_clock(&other, clock));
        for case in &other.plan.performance {
            let unlike = made.unlike_machines(&case.case_id, &other, &case.case_id);
            let is_slow = made.host_of(&case.case_id) == "slow";
            assert_eq!(unlike.is_some(), is_slow && clock == Clock::Measured, "{unlike:?}");
        }
    }
}

#[test]
fn the_command_line_takes_shards_from_flag_and_environment() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("s.toml");
    fs::write(&path, suite(&PARTS)).unwrap();
    let path = path.to_str().unwrap();
    let array = |id: &str| {
        [
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_MAX", "4"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    let answer = |verb: &[&str], variables: &[(String, String)]| {
        let mut command = glmbench(verb);
        command.envs(variables.iter().cloned());
        crate::support::Answer::of(command.output().unwrap())
    };
    let said =
        answer(&["run", path, "--dry-run"], &array("3")).expect(0, &["shard 3/4 by SLURM_ARRAY_TASK_ID"]);
    assert!(
        said.out.contains("share     shard 3 of 4: ") && said.out.contains(" of 20 items, "),
        "{}",
        said.out
    );
    let said = answer(&["check", path, "--shard", "2/4", "--model", "demo"], &[]).expect(0, &[]);
    assert!(said.out.contains("share        shard 2 of 4: "), "{}", said.out);
    answer(&["run", path, "--dry-run", "--shard", "2/4"], &array("3"))
        .expect(2, &["--shard 2/4 contradicts task 3 of the Slurm array (shard 3/4)"]);
    answer(&["run", path, "--dry-run", "--shard", "none"], &array("3")).expect(0, &[]);
    answer(&["run", path, "--shard", "5/4"], &[])
        .expect(2, &["found shard 5 of 4; shards are numbered from 1 to 4"]);
    answer(&["run", path, "--dry-run", "--shard", "1/2", "--interleave"], &[])
        .expect(2, &["--interleave times on one machine"]);
    let folder = root.path().to_str().unwrap();
    answer(&["status", folder], &[]).expect(2, &["found no run of a shard"]);
    answer(&["merge", "/dev/null/x", folder], &[]).expect(2, &["found no run of a shard"]);
    let script = answer(&["slurm", path, "--shards", "4", "--", "--limit", "3"], &[]).expect(0, &[]);
    assert!(script.out.contains("--shard \"$SLURM_ARRAY_TASK_ID/4\" --resume"), "{}", script.out);
    answer(&["slurm", path, "--shards", "4", "--", "--out", "x"], &[])
        .expect(2, &["the script sets it itself"]);
    answer(&["slurm", path, "--shards", "4", "--", "--bogus"], &[]).expect(2, &["after `--`", "--bogus"]);
    let several = concat!(env!("CARGO_MANIFEST_DIR"), "/suites/quickstart.toml");
    answer(&["slurm", several, "--shards", "3"], &[])
        .expect(2, &["--shard 1/3: the suite has 3 configurations", "give --only NAME"]);
}

/// Shards of the engine, started by the program: another process each, as in a cluster.
#[test]
fn shards_of_the_demo_model_merge_to_the_answers_of_one_run() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("s.toml");
    fs::write(&path, suite(&PARTS[..1])).unwrap();
    let at = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
    let run = |words: &[&str]| {
        crate::support::answer(&[&["run", path.to_str().unwrap()], words].concat()).expect(0, &[])
    };
    run(&["--out", &at("whole")]);
    for index in 1..=3 {
        run(&["--out", &at("shards"), "--shard", &format!("{index}/3"), "--resume"]);
    }
    crate::support::answer(&["status", &at("shards")]).expect(0, &[]);
    let said = crate::support::answer(&["merge", &at("merged"), &at("shards")])
        .expect(0, &["3 shards merged: 20 items"]);
    assert!(said.out.contains("3 shards merged"), "{}", said.out);
    let whole = fs::read_dir(at("whole")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(journals(Path::new(&at("merged"))), journals(&whole));
    crate::support::answer(&["merge", &at("merged"), &at("shards")]).expect(2, &["is there already"]);
}

/// A shard measures the limits of its machine for loads, too: without them, no other machine's times could be judged with its own.
#[test]
fn a_shard_of_loads_measures_its_machine() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("s.toml");
    let load = "schema = 1\nname = \"l\"\n[model]\npath = \"demo\"\n[[load]]\nconcurrency = [1]\nrequests = 2\nlengths = [[16, 4]]\n";
    fs::write(&path, load).unwrap();
    for (shard, expected) in [("none", false), ("1/1", true)] {
        let out = root.path().join(shard.replace('/', "of"));
        let words = ["run", path.to_str().unwrap(), "--threads", "1", "--out", out.to_str().unwrap()];
        crate::support::answer(&[&words[..], &["--shard", shard]].concat()).expect(0, &[]);
        let run = fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
        let record = RunDir::open(&run).unwrap().read_run().unwrap();
        assert_eq!(record.provenance.roofline.is_some(), expected, "--shard {shard}");
    }
}
