//! Max-batch searches, load and real prompts, from suite to records: on a script, and with the program.

use std::fs;
use std::path::{Path, PathBuf};

use glmbench::backend::{Script, Scripted};
use glmbench::language::Language;
use glmbench::record::{LoadLevelRecord, ProbeOutcome, ProbeRecord, RunDir, search_answer};
use glmbench::run::plan::Plan;
use glmbench::run::{Ending, RunError};
use glmbench::suite::Suite;
use glmbench_device::{DType, DeviceError};
use glmbench_engine::EngineError;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::memory::{MemoryBudget, MemoryEstimate};
use glmbench_engine::model::Capacity;

use crate::in_process::execute_in;
use crate::support::answer;

/// A decode step of n sequences takes 1 + n / 2 ms, and prefill takes 1 ms per 16 tokens.
fn half_a_ms_each() -> Script {
    Script {
        prefill_ns_per_token: 62_500,
        decode_ns: 1_000_000,
        decode_ns_per_sequence: 500_000,
        ..Script::default()
    }
}

fn config() -> ModelConfig {
    ModelConfig::from_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/config.json")).unwrap()
}

/// A run directory `r` under `root`, new or resumed.
struct Run<'a> {
    root: &'a Path,
    suite: &'a str,
    script: Script,
    /// Available memory, if it matters.
    available_bytes: Option<u64>,
}

impl Run<'_> {
    fn path(&self) -> PathBuf {
        self.root.join("r")
    }

    fn dir(&self) -> RunDir {
        RunDir::open(&self.path()).unwrap()
    }

    fn probes(&self) -> Vec<ProbeRecord> {
        self.dir().read_probes().unwrap()
    }

    fn levels(&self) -> Vec<LoadLevelRecord> {
        self.dir().read_loads().unwrap()
    }

    /// Runs or resumes, until the end or until `units` units are done.
    fn run(&self, units: usize) -> Result<Ending, RunError> {
        let config = config();
        let suite = Suite::parse(Path::new("s.toml"), self.suite, &[]).unwrap();
        let mut plan = Plan::new(&suite, &config, None, 512)?;
        if let Some(bytes) = self.available_bytes {
            plan.fit_memory(&config, DType::Fp16, MemoryBudget::Together(bytes));
        }
        let capacity = plan.capacity(1);
        let model = Some((config.clone(), capacity));
        let backend = Scripted::new(Script { model, max_batch: capacity.max_batch, ..self.script.clone() });
        execute_in(self.root, &suite, &config, &plan, Box::new(backend), units)
    }
}

const ALL: usize = usize::MAX;

const SEARCH: &str = "schema = 1\nname = \"s\"\n[[max_batch]]\nlengths = [[32, 5], [256, 5]]\nbatch_range = [1, 40]\nlimit_tpot_ms = 9.2\nrepetitions = 2\n";

#[test]
fn a_planted_limit_is_found_to_the_batch_and_every_probe_has_its_line() {
    let root = tempfile::tempdir().unwrap();
    let run = Run { root: root.path(), suite: SEARCH, script: half_a_ms_each(), available_bytes: None };
    assert_eq!(run.run(ALL).unwrap(), Ending::Complete);
    let probes = run.probes();
    let first: Vec<ProbeRecord> =
        probes.iter().filter(|p| p.search_id == "max-batch-i32-o5").cloned().collect();
    // 1 + n / 2 ≤ 9.2 ms.
    assert_eq!(search_answer(&first).batch, 16);
    let order: Vec<(u32, ProbeOutcome)> = first.iter().map(|p| (p.batch, p.outcome)).collect();
    use ProbeOutcome::{Fits, TooSlow};
    assert_eq!(order[..6], [(1, Fits), (2, Fits), (4, Fits), (8, Fits), (16, Fits), (32, TooSlow)]);
    assert_eq!(order[order.len() - 2..], [(16, Fits), (17, TooSlow)]);
    let last = first.last().unwrap();
    assert_eq!((last.tpot_ns, last.repetitions.len()), (Some(9_500_000), 2));
    assert_eq!(last.reason.as_deref(), Some("TPOT 9.5 ms, limit 9.2 ms"));
    glmbench::report::render(&run.path(), Language::En).unwrap();
    let csv = fs::read_to_string(run.path().join("max_batch.csv")).unwrap();
    assert_eq!(csv.lines().count(), probes.len() + 1);
    assert!(
        csv.lines().filter(|line| line.ends_with(",true")).all(|line| line.contains(",16,fits,")),
        "{csv}"
    );
}

#[test]
fn memory_is_told_from_slowness_whether_estimated_or_met() {
    let root = tempfile::tempdir().unwrap();
    let config = config();
    // Memory for six sequences of two blocks, with all other buffers.
    let capacity = Capacity { max_step_tokens: 512, ..Capacity::for_batch(&config, 6, 256 + 5) };
    let bytes = MemoryEstimate::new(&config, DType::Fp16, capacity).total_bytes();
    let run =
        Run { root: root.path(), suite: SEARCH, script: half_a_ms_each(), available_bytes: Some(bytes) };
    run.run(ALL).unwrap();
    let probes: Vec<ProbeRecord> =
        run.probes().into_iter().filter(|p| p.search_id == "max-batch-i256-o5").collect();
    let answer = search_answer(&probes);
    assert!((5..=6).contains(&answer.batch) && answer.contradiction.is_none(), "{answer:?}");
    let unrun: Vec<_> = probes.iter().filter(|p| p.outcome == ProbeOutcome::OutOfMemory).collect();
    assert!(!unrun.is_empty() && unrun.iter().all(|p| p.wanted_bytes.is_some() && p.repetitions.is_empty()));
    assert!(unrun[0].reason.as_deref().unwrap().contains("KV blocks are wanted, memory was taken for"));
    let root = tempfile::tempdir().unwrap();
    let refuse = |sequences| {
        (sequences > 5).then(|| {
            EngineError::Device(DeviceError::OutOfMemory {
                device: "fake",
                what: "a workspace".into(),
                wanted_bytes: 7,
            })
        })
    };
    let script = Script { refuse, ..half_a_ms_each() };
    let run = Run { root: root.path(), suite: SEARCH, script, available_bytes: None };
    run.run(ALL).unwrap();
    let probes: Vec<ProbeRecord> =
        run.probes().into_iter().filter(|p| p.search_id == "max-batch-i32-o5").collect();
    assert_eq!(search_answer(&probes).batch, 5);
    let met = probes.iter().find(|p| p.outcome == ProbeOutcome::OutOfMemory).unwrap();
    assert!(met.wanted_bytes.is_none() && met.reason.as_deref().unwrap().contains("a workspace"), "{met:?}");
}

#[test]
fn another_error_ends_the_search_and_a_lost_device_the_run() {
    let root = tempfile::tempdir().unwrap();
    let refuse = |sequences| (sequences == 4).then(|| EngineError::Option("the planted fault".into()));
    let script = Script { refuse, ..half_a_ms_each() };
    let run = Run { root: root.path(), suite: SEARCH, script, available_bytes: None };
    assert_eq!(run.run(ALL).unwrap(), Ending::Complete);
    let probes = run.probes();
    let failed: Vec<_> = probes.iter().filter(|p| p.outcome == ProbeOutcome::Failed).collect();
    assert_eq!(failed.len(), 2, "one a search, and the other search is still made");
    assert_eq!(failed[0].reason.as_deref(), Some("the planted fault"));
    let root = tempfile::tempdir().unwrap();
    let refuse = |sequences| {
        (sequences == 4)
            .then(|| EngineError::Device(DeviceError::Lost { device: "fake", message: "gone".into() }))
    };
    let script = Script { refuse, ..half_a_ms_each() };
    let run = Run { root: root.path(), suite: SEARCH, script, available_bytes: None };
    assert!(run.run(ALL).unwrap_err().to_string().contains("is lost: gone"));
    assert_eq!(run.probes().len(), 2, "what was probed before stays");
}

const LOAD: &str = "schema = 1\nname = \"l\"\n[[load]]\narrival = \"poisson\"\nrates = [4, 12.5]\nrequests = 50\nlengths = [[32, 5], [16, 3]]\nmax_batch = 4\nslo = { ttft_ms = 20 }\n[[load]]\narrival = \"fixed\"\nsaturation = true\nrequests = 120\nlengths = [[32, 9]]\nmax_batch = 2\n";

/// Checks that a run stopped anywhere and resumed leaves the same bytes as an undisturbed run.
fn assert_resumes(suite: &str, journal: &str) {
    let root = tempfile::tempdir().unwrap();
    let undisturbed = Run { root: root.path(), suite, script: half_a_ms_each(), available_bytes: None };
    assert_eq!(undisturbed.run(ALL).unwrap(), Ending::Complete);
    let whole = fs::read(undisturbed.path().join(journal)).unwrap();
    let ends: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] == b'\n').map(|i| i + 1).collect();
    // Cuts at every line's end, and for some lines also within and after it.
    let around =
        |(index, &end): (usize, &usize)| if index % 4 == 0 { vec![end - 1, end, end + 7] } else { vec![end] };
    let cuts: Vec<usize> = ends.iter().enumerate().flat_map(around).chain([0, 5]).collect();
    for cut in cuts.into_iter().filter(|&cut| cut <= whole.len()) {
        fs::write(undisturbed.path().join(journal), &whole[..cut]).unwrap();
        assert_eq!(undisturbed.run(ALL).unwrap(), Ending::Complete);
        assert!(fs::read(undisturbed.path().join(journal)).unwrap() == whole, "cut at byte {cut}");
    }
    for units in [1, 2, 60, 200] {
        let root = tempfile::tempdir().unwrap();
        let run = Run { root: root.path(), suite, script: half_a_ms_each(), available_bytes: None };
        if run.run(units).unwrap() == Ending::Interrupted {
            assert_eq!(run.run(ALL).unwrap(), Ending::Complete);
        }
        assert!(fs::read(run.path().join(journal)).unwrap() == whole, "stopped after {units}");
    }
}

#[test]
fn searches_are_gone_on_with_to_the_same_bytes() {
    assert_resumes(SEARCH, "probes.jsonl");
}

#[test]
fn loads_are_gone_on_with_to_the_same_bytes() {
    assert_resumes(LOAD, "load.jsonl");
}

#[test]
fn times_under_load_count_from_arrival_and_saturation_is_found() {
    let root = tempfile::tempdir().unwrap();
    let run = Run { root: root.path(), suite: LOAD, script: half_a_ms_each(), available_bytes: None };
    run.run(ALL).unwrap();
    let levels = run.levels();
    let listed: Vec<_> = levels.iter().filter(|l| l.load_id == "poisson-i32-o5+i16-o3-b4").collect();
    assert_eq!(listed.iter().map(|l| l.rate_per_s.unwrap()).collect::<Vec<_>>(), [4.0, 12.5]);
    for level in &levels {
        for request in &level.requests {
            assert!(request.arrival_ns <= request.start_ns && request.start_ns < request.first_token_ns);
            assert_eq!(request.itl_ns.len() as u32, request.output_tokens - 1);
            // The time of the first token is in no gap.
            let gaps: u64 = request.itl_ns.iter().sum();
            assert_eq!(request.first_token_ns + gaps, request.end_ns);
        }
    }
    // The first request arrives at an idle engine. Its prefill of 32 rows takes 2 ms, and a step of one sequence 1.5
    // ms.
    let first = &listed[0].requests[0];
    assert_eq!((first.queue_ns(), first.ttft_ns(), first.input_tokens), (0, 2_000_000, 32));
    assert_eq!(first.itl_ns, [1_500_000; 4]);
    // Two at once take 4 ms of prefill and 8 steps of 2 ms. That is at most one request per 10 ms, or 100 per second.
    let search: Vec<_> = levels.iter().filter(|l| l.load_id.ends_with("-saturation")).collect();
    assert_eq!(search[0].rate_per_s, None);
    let rates = |saturated: bool| {
        let of = move |l: &&&LoadLevelRecord| l.is_saturated() == Some(saturated);
        search.iter().filter(of).filter_map(|l| l.rate_per_s)
    };
    let good = rates(false).fold(0.0, f64::max);
    let bad = rates(true).fold(f64::INFINITY, f64::min);
    assert!(good > 80.0 && good < 106.0 && bad > good && bad / good <= 1.1, "{good} {bad}");
    let summary = glmbench::report::render(&run.path(), Language::En).unwrap();
    assert!(
        summary.headline.iter().any(|s| s.contains(&format!("sustains {good} requests/s, and not {bad}")))
    );
    // One sentence says how far modelled times are known.
    let (known, figures): (Vec<_>, Vec<_>) =
        summary.headline.iter().partition(|s| s.starts_with("Times are modelled"));
    assert!(known.len() == 1 && known[0].contains("their error is unknown"), "{known:?}");
    assert!(figures.iter().all(|s| s.contains("modelled on scripted")), "{figures:?}");
}

#[test]
fn a_clock_that_stands_still_is_an_error_and_no_hang() {
    let root = tempfile::tempdir().unwrap();
    let script = Script { idles: false, ..half_a_ms_each() };
    let run = Run { root: root.path(), suite: LOAD, script, available_bytes: None };
    let message = run.run(ALL).unwrap_err().to_string();
    assert!(message.contains("the script's clock does not move while it is idle"), "{message}");
}

/// Returns the suite's error, or an empty string.
fn problem(body: &str) -> String {
    let text = format!("schema = 1\nname = \"x\"\n{body}");
    Suite::parse(Path::new("s.toml"), &text, &[]).map_or_else(|e| e.to_string(), |_| String::new())
}

#[test]
fn hostile_suites_are_answered_with_place_found_and_expected() {
    let search = "[[max_batch]]\nlengths = [[8, 4]]\nbatch_range = [1, 8]\nlimit_tpot_ms = 5\n";
    let load = "[[load]]\narrival = \"poisson\"\nrates = [1.5]\nrequests = 50\nlengths = [[8, 4]]\n";
    let timed = "[[performance]]\nbatch = [1]\nlengths = [[8, 4]]\ndataset = \"boolq\"\n";
    assert_eq!(problem(&[search, load, timed].concat()), "");
    for (good, from, to, says) in [
        (search, "[1, 8]", "[8, 1]", "s.toml:5:15: found [8, 1]; expected the smaller batch first"),
        (search, "[1, 8]", "[0, 8]", "found 0; expected a whole number from 1"),
        (search, "[1, 8]", "[1]", "found 1 numbers; expected [smallest, largest] batch"),
        (search, "[1, 8]", "8", "found an integer"),
        (search, "[[8, 4]]", "[[8, 1]]", "expected at least 2 output tokens"),
        (search, "= 5", "= 0", "s.toml:6:17: found 0; expected a number above 0"),
        (search, "= 5", "= -1.5", "found -1.5; expected a number above 0"),
        (search, "= 5", "= inf", "found a number that is not finite; expected a number above 0"),
        (search, "= 5", "= 1e300", "expected a number above 0, at most 1e9"),
        (search, "= 5", "= \"5\"", "found a string; expected a number above 0"),
        (search, "limit_tpot_ms", "limit_topt_ms", "found no `limit_tpot_ms`"),
        (
            search,
            "= 5",
            "= 5\nlimit_tttf_ms = 3",
            "s.toml:7:1: found the unknown key `limit_tttf_ms`; did you mean `limit_ttft_ms`?",
        ),
        (search, "= 5", "= 5\nrepetitions = 0", "found 0; expected a whole number from 1"),
        (
            load,
            "\"poisson\"",
            "\"poison\"",
            "s.toml:4:11: found \"poison\"; expected one of poisson, gamma, fixed, trace; did you mean `poisson`?",
        ),
        (load, "rates = [1.5]\n", "", "s.toml:3:1: found no `rates`; expected `rates`, requests a second"),
        (load, "[1.5]", "[]", "found an empty array"),
        (load, "[1.5]", "[0]", "found 0; expected a number above 0"),
        (
            load,
            "[1.5]",
            "[1.5]\nsaturation = true",
            "found `saturation` beside `rates`; expected one of the two",
        ),
        (load, "rates = [1.5]", "saturation = false", "found false and no `rates`"),
        (load, "rates = [1.5]", "saturation = 1", "found an integer; expected true or false"),
        (
            load,
            "rates = [1.5]\nrequests = 50",
            "saturation = true\nrequests = 99",
            &format!("found 99; expected at least {}", glmbench::stats::LEAST_FOR_GROWTH),
        ),
        (
            load,
            "rates = [1.5]\nrequests = 50",
            "saturation = true\nduration_s = 9",
            "found `duration_s`; expected `requests`",
        ),
        (load, "requests = 50\n", "", "found no `requests`"),
        (load, "requests = 50", "requests = 50\nduration_s = 3", "found `duration_s` beside `requests`"),
        (load, "requests = 50", "requests = 2000000", "expected at most 1000000 requests"),
        (load, "requests = 50", "duration_s = 1e9", "expected at most 1000000 requests"),
        (load, "requests = 50", "requests = 50\nslo = {}", "found no objective"),
        (
            load,
            "requests = 50",
            "requests = 50\nslo = { tpod_ms = 3 }",
            "found the unknown key `tpod_ms`; did you mean `tpot_ms`?",
        ),
        (load, "requests = 50", "requests = 50\ngroups = 2", "found the unknown key `groups`"),
        (load, "requests = 50", "requests = 50\nmax_batch = 0", "found 0; expected a whole number from 1"),
        (timed, "\"boolq\"", "\"boolqq\"", "found \"boolqq\"; expected one of ceval, boolq, aime2024, "),
        (timed, "dataset = \"boolq\"", "folder = \"x\"", "found `folder` without `dataset`"),
        (timed, "dataset = \"boolq\"", "padding = true", "expected `dataset` or `jsonl` beside it"),
        (
            timed,
            "dataset = \"boolq\"",
            "dataset = \"boolq\"\njsonl = \"q\"",
            "found `jsonl` beside `dataset`",
        ),
        (
            timed,
            "dataset = \"boolq\"",
            "jsonl = \"q\"\ntruncate = false\npadding = true",
            "found false beside `padding = true`",
        ),
        (
            timed,
            "dataset = \"boolq\"",
            "jsonl = \"q\"\ngroups = 0",
            "found 0; expected a whole number from 1",
        ),
        (
            timed,
            "dataset = \"boolq\"",
            "jsonl = \"q\"\ngroups = \"many\"",
            "expected how many batches are timed, or \"all\"",
        ),
    ] {
        assert_problem(good, (from, to), says);
    }
}

/// Checks the error of a suite with `from` replaced by `to`.
#[track_caller]
fn assert_problem(good: &str, (from, to): (&str, &str), says: &str) {
    assert!(good.contains(from), "{from}");
    let found = problem(&good.replacen(from, to, 1));
    assert!(found.contains(says), "\n   found {found}\nexpected {says}");
}

#[test]
fn the_prompt_tokens_of_a_mixed_step_are_a_number_within_bounds() {
    let load = "[[load]]\narrival = \"poisson\"\nrates = [1.5]\nrequests = 50\nlengths = [[8, 4]]\n";
    for (tokens, says) in [
        ("0", "found 0; expected a whole number from 1"),
        ("9000000", "found 9000000; expected at most 1048576 prompt tokens in a step"),
    ] {
        assert_problem(load, ("requests = 50", &format!("requests = 50\nprefill_chunk = {tokens}")), says);
    }
}

#[test]
fn the_hash_moves_with_what_decides_and_old_suites_keep_theirs() {
    let hash = |body: &str| {
        let text = format!("schema = 1\nname = \"x\"\n{body}");
        Suite::parse(Path::new("s.toml"), &text, &[]).unwrap().content_hash()
    };
    let search = "[[max_batch]]\nlengths = [[8, 4]]\nbatch_range = [1, 8]\nlimit_tpot_ms = 5\n";
    let load = "[[load]]\narrival = \"poisson\"\nrates = [1.5]\nrequests = 50\nlengths = [[8, 4]]\n";
    let timed = "[[performance]]\nbatch = [1]\nlengths = [[8, 4]]\n";
    for (good, from, to) in [
        (search, "= 5", "= 6"),
        (search, "[1, 8]", "[1, 9]"),
        (load, "1.5", "1.6"),
        (load, "50", "51"),
        (load, "\"poisson\"", "\"fixed\""),
        (load, "50", "50\nprefill_chunk = 64"),
        (timed, "[[8, 4]]", "[[8, 4]]\ndataset = \"boolq\""),
    ] {
        assert_ne!(hash(good), hash(&good.replacen(from, to, 1)), "{to}");
    }
    assert_eq!(hash(search), hash(&search.replacen("= 5", "= 5.0\ntp = [2]", 1)));
    let chunk = |tokens: u32| hash(&format!("{load}prefill_chunk = {tokens}\n"));
    assert_ne!(chunk(64), chunk(128));
    // The hash from before steps could be mixed.
    assert_eq!(hash(load), "129622a03e602829ac5cf08808bedb86c9203103f71df67669a14e8b867ba456");
    // The hash from before searches and loads existed.
    assert_eq!(hash(timed), "e434bc9e1b5a15d3ea308792c3a204742d02c56bc092f34e62b150da71f94545");
}

#[test]
fn real_prompts_keep_their_own_lengths_in_the_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(folder.path().join("q.jsonl"), "{\"question\": \"is a bus a car\"}\n{\"question\": \"what\"}\n{\"question\": \"one more question than fits\"}\n").unwrap();
    let suite = "schema = 1\nname = \"q\"\n[model]\npath = \"demo\"\n[[performance]]\nbatch = [2]\nlengths = [[8, 3]]\njsonl = \"q.jsonl\"\ngroups = \"all\"\nrepetitions = 2\nmax_warmups = 1\n[[performance]]\nbatch = [4]\nlengths = [[16, 3]]\njsonl = \"q.jsonl\"\npadding = true\nrepetitions = 1\nmax_warmups = 1\n[[max_batch]]\nlengths = [[16, 4]]\nbatch_range = [1, 2]\nlimit_tpot_ms = 60000\nrepetitions = 1\n[[load]]\narrival = \"fixed\"\nrates = [200]\nduration_s = 0.05\nlengths = [[8, 3]]\njsonl = \"q.jsonl\"\nslo = { e2e_ms = 60000 }\n";
    fs::write(folder.path().join("q.toml"), suite).unwrap();
    answer(&["check", &path("q.toml")]).expect(0, &[]);
    let ran = answer(&["run", &path("q.toml"), "--out", &path("runs"), "--threads", "1"]).expect(0, &[]);
    assert!(ran.out.contains("2 is the largest batch of 1 to 2"), "{}", ran.out);
    let run = fs::read_dir(folder.path().join("runs")).unwrap().next().unwrap().unwrap().path();
    let dir = RunDir::open(&run).unwrap();
    let requests = dir.read_requests().unwrap();
    let short = requests.iter().find(|r| r.case_id == "q-i8-b2-o3").unwrap();
    let lengths = &short.prompts.as_ref().unwrap().input_tokens;
    assert!(lengths.len() == 2 && lengths[0] != lengths[1] && lengths.iter().all(|&n| n <= 8), "{lengths:?}");
    let padded = requests.iter().find(|r| r.case_id == "q-i16-padded-b4-o3").unwrap();
    assert_eq!(padded.prompts.as_ref().unwrap().input_tokens, [16; 4]);
    let notes = dir.read_run().unwrap().plan.performance[0].prompts.clone().unwrap().notes;
    assert!(notes.iter().any(|n| n.contains("the last 1 left out: no whole batch of 2")), "{notes:?}");
    let perf = fs::read_to_string(run.join("perf.csv")).unwrap();
    assert_eq!(perf.lines().filter(|line| line.contains(",true,")).count(), 6, "{perf}");
    let level = &dir.read_loads().unwrap()[0];
    assert_eq!((level.load_id.as_str(), level.requests.len()), ("fixed-q-i8-o3-b16", 10));
    answer(&["run", &path("q.toml"), "--model", "dummy:models/demo/config.json", "--out", &path("runs")])
        .expect(2, &["random weights have no tokenizer, and real prompts need one"]);
}

/// A load says how steps are shared, and its record how they were. Cases behind it are prefilled first.
#[test]
fn mixed_steps_are_recorded_where_a_load_asks_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let load =
        "[[load]]\narrival = \"fixed\"\nrates = [300]\nrequests = 12\nlengths = [[200, 9]]\nmax_batch = 4\n";
    let suite = format!(
        "schema = 1\nname = \"m\"\n[model]\npath = \"demo\"\n{load}{load}prefill_chunk = 32\n[[performance]]\nbatch = [2]\n\
         lengths = [[600, 3]]\nrepetitions = 1\nmax_warmups = 1\n"
    );
    fs::write(folder.path().join("m.toml"), suite).unwrap();
    let plain = "fixed-i200-o9-b4";
    let words = |flags: &[&str], out: &str| {
        let args = ["run", &path("m.toml"), "--out", &path(out), "--threads", "1"];
        let ran = answer(&[&args[..], flags].concat()).expect(0, &[]);
        let run = fs::read_dir(folder.path().join(out)).unwrap().next().unwrap().unwrap().path();
        let dir = RunDir::open(&run).unwrap();
        let csv = fs::read_to_string(run.join("load.csv")).unwrap();
        let last = |line: &str| line.rsplit(',').next().unwrap_or_default().to_owned();
        let columns: Vec<String> = csv.lines().map(last).collect();
        let plan = dir.read_run().unwrap().plan;
        let asked: Vec<_> =
            plan.loads.iter().map(|load| (load.load_id.clone(), load.prefill_chunk)).collect();
        assert_eq!(asked, [(plain.to_owned(), None), (format!("{plain}-c32"), Some(32))]);
        let levels = dir.read_loads().unwrap();
        assert!(levels.iter().flat_map(|level| &level.requests).all(|request| request.error.is_none()));
        let repetition = &dir.read_requests().unwrap()[0];
        assert_eq!(repetition.step_ns.len(), 2, "a case behind a load has steps of its own");
        (levels.into_iter().map(|level| level.scheduling).collect::<Vec<_>>(), columns, ran.out)
    };
    let (levels, columns, said) = words(&[], "cpu");
    assert_eq!(levels, [None, Some("mixed 32".to_owned())]);
    assert_eq!(columns, ["scheduling", "prefill-first", "mixed 32"]);
    assert!(said.contains("Load fixed-i200-o9-b4-c32"), "{said}");
    let (levels, columns, _) = words(&["--device", "300i-duo", "--emulate"], "card");
    assert_eq!(
        levels,
        [None, Some("alternating 2".to_owned())],
        "a card decodes with an operator of its own"
    );
    assert_eq!(columns, ["scheduling", "prefill-first", "alternating 2"]);
}

#[test]
fn given_texts_are_answered_each_with_its_length_and_times() {
    let ask = |texts: &str, more: &[&str]| {
        let args = [
            "chat",
            "--model",
            "demo",
            "--threads",
            "1",
            "--greedy",
            "--max-new-tokens",
            "5",
            "--texts",
            texts,
        ];
        answer(&[&args[..], more].concat())
    };
    let list = r#"["is a bus a car", 'what']"#;
    let told = ask(list, &["--ignore-eos", "--batch", "2"]).expect(0, &[]).out;
    for part in [
        "Question[0]: is a bus a car\nAnswer[0]: ",
        "Question[1]: what\n",
        "Generate[1] token num: 5\nTime[1]: first token ",
    ] {
        assert!(told.contains(part), "{part:?} is not in: {told}");
    }
    let answers =
        |told: &str| told.lines().filter(|l| l.starts_with("Answer")).map(str::to_owned).collect::<Vec<_>>();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "is a bus a car\n\nwhat\n").unwrap();
    let alone = ask(file.path().to_str().unwrap(), &["--ignore-eos"]).expect(0, &[]).out;
    assert_eq!(answers(&alone), answers(&told), "a text's answer does not depend on its batch");
    for (texts, says) in [
        ("nowhere.txt", "nowhere.txt: expected a file with one text per line"),
        ("[", "the list has no end"),
        ("[]", "found no text"),
        ("['a', ' ']", "text 1 is empty"),
    ] {
        ask(texts, &[]).expect(2, &[says]);
    }
    fs::write(file.path(), b"ok\n\xff\n").unwrap();
    ask(file.path().to_str().unwrap(), &[]).expect(2, &[":2: found a byte that is not UTF-8"]);
    ask(&format!("['{}']", "word ".repeat(3000)), &[]).expect(2, &["exceeds the model's seq_length"]);
    answer(&["chat", "--model", "demo", "--batch", "2"]).expect(2, &["--texts"]);
}
