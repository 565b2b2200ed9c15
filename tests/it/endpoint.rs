//! A server as a backend: loads and timed batches on a stub of known delays, and whole runs without the command line.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use glmbench::backend::{Remote, RemoteFacts};
use glmbench::language::Language;
use glmbench::record::{LoadLevelRecord, RunDir, RunRecord};
use glmbench::report::Verdict;
use glmbench::run::endpoint::EndpointChoice;
use glmbench::run::plan::Plan;
use glmbench::run::provenance::record;
use glmbench::run::turns::InThisProcess;
use glmbench::run::{Ending, RunError, RunRequest, RunsEnd, Silent, Wanted, execute, open_dir};
use glmbench::suite::Suite;
use glmbench_engine::EngineError;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::load_tokenizer;
use glmbench_remote::testing::stub::{self, Schedule, start};
use glmbench_remote::testing::{Script, Server, Step};
use glmbench_remote::{Api, Client, Endpoint};

use crate::in_process::{StopAfter, origin};
use crate::support::answer;

const MS: u64 = 1_000_000;
/// How late a busy machine may be, in nanoseconds. The exact figures are printed.
const SLACK: u64 = 250 * MS;

/// A stub that answers after 40 ms, then every 10 ms.
const STUB: Schedule =
    Schedule { first: Duration::from_millis(40), gap: Duration::from_millis(10), tokens: 8, per_event: 1 };

/// Runs a suite on a stub and returns its directory.
fn run(api: Api, schedule: Schedule, ignores_end: bool, suite: &str) -> (tempfile::TempDir, Ending) {
    run_on(&start(api, schedule), api, ignores_end, suite)
}

/// Runs a suite on a server and returns its directory.
fn run_on(server: &Server, api: Api, ignores_end: bool, suite: &str) -> (tempfile::TempDir, Ending) {
    let root = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let config = ModelConfig::from_file(&demo.join("config.json")).unwrap();
    let tokenizer = load_tokenizer(&demo, Some(&config)).unwrap();
    let suite = Suite::parse(Path::new("s.toml"), suite, &[]).unwrap();
    let plan = Plan::new(&suite, &config, Some(&tokenizer), 512).unwrap();
    let endpoint = Endpoint::new(server.url().parse().unwrap(), api);
    let facts = RemoteFacts {
        server: "stub".into(),
        api: api.to_string(),
        ids_in: matches!(api, Api::Vllm | Api::LlamaCpp | Api::Mindie),
        choice_logprobs: false,
        ignores_end,
        metrics: false,
        details: Vec::new(),
    };
    let own = load_tokenizer(&demo, Some(&config)).unwrap();
    let backend =
        Remote::new(Client::new(endpoint).unwrap(), facts, own, config.eos_token_ids.clone(), None).unwrap();
    let origin = origin(&suite, &config, &backend);
    let first = RunRecord { run_id: "r".into(), ..record(&origin, &plan, &config) };
    let (mut dir, mut run_record) = open_dir(root.path(), None, first).unwrap();
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter(AtomicUsize::new(usize::MAX), &stop);
    let mut reload = |_, _: &mut dyn glmbench::run::Observer| {
        Err(RunError::Engine(EngineError::Option("one tensor-parallel size only".into())))
    };
    let ending =
        execute(&plan, Box::new(backend), &mut reload, &mut dir, &mut run_record, &mut observer, &stop)
            .unwrap();
    (root, ending)
}

fn levels(root: &Path) -> Vec<LoadLevelRecord> {
    RunDir::open(&root.join("r")).unwrap().read_loads().unwrap()
}

/// Every time of a load is the time in the stub schedule, in every protocol, whatever else is under way.
#[test]
fn a_load_has_the_times_of_the_stub() {
    let suite = "schema = 1\nname = \"s\"\n[[load]]\narrival = \"fixed\"\nrates = [50]\nrequests = 20\nlengths = [[16, 8]]\n";
    for api in Api::ALL {
        let (root, ending) = run(api, STUB, api != Api::Tgi, suite);
        assert_eq!(ending, Ending::Complete, "{api}");
        let levels = levels(root.path());
        let requests = &levels[0].requests;
        assert_eq!(requests.len(), 20, "{api}");
        let mut worst = 0;
        for (i, request) in requests.iter().enumerate() {
            let wire = request.wire.as_ref().expect("a request over a wire has its times");
            assert_eq!(request.error, None, "{api}");
            assert_eq!((request.output_tokens, wire.attempts), (8, 1), "{api}");
            // On a busy machine, events may arrive together.
            assert!((1..=8).contains(&wire.events), "{api}: {} events", wire.events);
            // Scheduled 20 ms apart, whenever they were sent.
            assert_eq!(request.arrival_ns - levels[0].start_ns, (i as u64 + 1) * 20 * MS, "{api}");
            let off = request.ttft_sent_ns().unwrap().abs_diff(40 * MS);
            worst = worst.max(off);
            assert!(request.ttft_sent_ns().unwrap() >= 39 * MS && off < SLACK, "{api}: {off} ns off");
            assert!(request.ttft_ns() >= request.ttft_sent_ns().unwrap(), "{api}");
            assert_eq!(request.itl_ns.len(), 7, "{api}");
            if request.has_token_times() {
                assert_eq!(request.ttft_ns() + request.itl_ns.iter().sum::<u64>(), request.e2e_ns(), "{api}");
            } else {
                assert_eq!((request.tpot_ns(), request.end_ns), (None, wire.closed_ns), "{api}");
            }
            assert!(wire.closed_ns >= request.end_ns, "{api}");
        }
        println!("{api}: TTFT up to {worst} ns off");
    }
}

/// A request that met a closed connection and was sent again is a failure, and both attempts are in the record.
#[test]
fn a_request_that_was_sent_again_has_failed_with_both_its_times() {
    let suite = "schema = 1\nname = \"s\"\n[[load]]\nconcurrency = [1]\nrequests = 4\nlengths = [[16, 8]]\n";
    // The model is asked for first, then comes the warm-up. The second of the load finds its connection closed.
    let server = Server::start(|request| match request.number {
        3 => Script::default().step(Step::Close),
        _ => stub::answer(Api::Vllm, STUB, request),
    });
    let (root, ending) = run_on(&server, Api::Vllm, true, suite);
    assert_eq!(ending, Ending::Complete);
    let levels = levels(root.path());
    let failed: Vec<bool> = levels[0].requests.iter().map(|request| request.error.is_some()).collect();
    assert_eq!(failed, [false, true, false, false]);
    let again = &levels[0].requests[1];
    assert!(again.error.as_ref().unwrap().contains("sent twice"), "{again:?}");
    let wire = again.wire.as_ref().unwrap();
    let [first] = wire.before.as_slice() else { panic!("{wire:?}") };
    assert_eq!((wire.attempts, again.output_tokens), (2, 8));
    assert!(again.start_ns <= first.start_ns, "{again:?}");
    let sent = first.sent_ns.unwrap();
    assert!(first.start_ns <= sent && sent <= first.end_ns && first.end_ns < wire.sent_ns, "{wire:?}");
    assert!(wire.sent_ns < again.first_token_ns && wire.connect_ns > 0, "{again:?}");
    assert_eq!(server.received(), 7);
    let run = root.path().join("r");
    glmbench::report::render(&run, Language::En).unwrap();
    let mut csv = csv::Reader::from_path(run.join("load.csv")).unwrap();
    let header = csv.headers().unwrap().clone();
    let at = |name: &str| header.iter().position(|known| known == name).unwrap();
    let (all, failed, resent) = (at("requests"), at("failed"), at("resent"));
    let row = csv.records().next().unwrap().unwrap();
    assert_eq!((&row[all], &row[failed], &row[resent]), ("4", "1", "1"));
}

/// A closed loop has no more requests under way than stated, and none waits for an arrival.
#[test]
fn a_closed_loop_sends_when_an_answer_ends() {
    let suite =
        "schema = 1\nname = \"s\"\n[[load]]\nconcurrency = [1, 4]\nrequests = 8\nlengths = [[16, 8]]\n";
    let (root, ending) = run(Api::Vllm, STUB, true, suite);
    assert_eq!(ending, Ending::Complete);
    for level in levels(root.path()) {
        let limit = level.concurrency.unwrap() as usize;
        assert_eq!((level.requests.len(), level.rate_per_s, level.is_saturated()), (8, None, None));
        for request in &level.requests {
            let open = |other: &&glmbench::record::LoadRequest| {
                other.arrival_ns <= request.arrival_ns
                    && request.arrival_ns < other.wire.as_ref().unwrap().closed_ns
            };
            assert!(level.requests.iter().filter(open).count() <= limit, "more than {limit} at once");
        }
    }
}

/// Gaps between events are no gaps between tokens if an event holds several.
#[test]
fn events_of_several_tokens_are_counted_as_tokens_and_leave_itl_empty() {
    let suite = "schema = 1\nname = \"s\"\n[[load]]\narrival = \"fixed\"\nrates = [100]\nrequests = 4\nlengths = [[16, 8]]\n";
    let (root, _) = run(Api::Vllm, Schedule { per_event: 4, ..STUB }, true, suite);
    let levels = levels(root.path());
    for request in &levels[0].requests {
        assert_eq!(request.output_tokens, 8);
        assert!(request.wire.as_ref().unwrap().events <= 2);
    }
    glmbench::report::render(&root.path().join("r"), Language::En).unwrap();
    let csv = fs::read_to_string(root.path().join("r/load.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let row: std::collections::HashMap<String, String> = reader.deserialize().next().unwrap().unwrap();
    assert_eq!(row["itl_p50_ns"], "");
    assert!(row["events_per_token"].parse::<f64>().unwrap() <= 0.25, "{csv}");
    assert!(row["tpot_p50_ns"].is_empty() && !row["ttft_sent_p50_ns"].is_empty(), "{csv}");
}

/// A batch's times over a wire add up, and its tokens have their places.
#[test]
fn a_timed_batch_has_the_times_of_the_stub() {
    let suite =
        "schema = 1\nname = \"s\"\n[[performance]]\nbatch = [3]\nlengths = [[16, 8]]\nrepetitions = 2\n";
    // Far enough apart that a busy machine does not join them.
    let apart = Schedule { gap: Duration::from_millis(80), ..STUB };
    let (root, ending) = run(Api::Vllm, apart, true, suite);
    assert_eq!(ending, Ending::Complete);
    let requests = RunDir::open(&root.path().join("r")).unwrap().read_requests().unwrap();
    for request in &requests {
        assert_eq!((request.error.clone(), request.step_ns.len()), (None, 7));
        assert_eq!(request.first_token_ns + request.step_ns.iter().sum::<u64>(), request.end_ns);
        assert!(
            request.prefill_ns >= 39 * MS && request.prefill_ns < 40 * MS + SLACK,
            "{}",
            request.prefill_ns
        );
    }
    // A server that stops early does not give the shape.
    let short = Schedule { tokens: 5, ..STUB };
    let (root, _) = run(Api::Vllm, short, true, suite);
    let requests = RunDir::open(&root.path().join("r")).unwrap().read_requests().unwrap();
    assert!(
        requests[0].error.as_ref().unwrap().contains("ended after 5 of 8 tokens"),
        "{:?}",
        requests[0].error
    );
}

/// Where the end cannot be ignored, a shorter answer is an answer, and a fixed shape is refused.
#[test]
fn a_server_that_ends_early_is_loaded_as_it_is() {
    let load = "schema = 1\nname = \"s\"\n[[load]]\narrival = \"fixed\"\nrates = [100]\nrequests = 4\nlengths = [[16, 8]]\n";
    let (root, _) = run(Api::Tgi, Schedule { tokens: 5, ..STUB }, false, load);
    let levels = levels(root.path());
    assert!(levels[0].requests.iter().all(|r| r.error.is_none() && r.output_tokens == 5), "{levels:?}");
}

/// Requests a run of a suite on a stub, as a user of the library does.
fn request(server: &Server, suite: &str, out: &Path) -> RunRequest {
    let suite = Suite::parse(Path::new("s.toml"), suite, &[]).unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let endpoint = Endpoint::new(server.url().parse().unwrap(), Api::Vllm);
    let choice = EndpointChoice { tokenizer: Some(demo), ..EndpointChoice::new(endpoint) };
    RunRequest { endpoint: Some(choice), ..RunRequest::new(suite, out) }
}

fn live(request: &RunRequest) -> Result<RunsEnd, RunError> {
    request.run(&mut InThisProcess(request), &mut Silent, &AtomicBool::new(false))
}

const TWO_LOADS: &str = "schema = 1\nname = \"s\"\n[[load]]\nconcurrency = [1, 4, 2]\nrequests = 6\nlengths = [[16, 4]]\n\
    [[load]]\narrival = \"fixed\"\nrates = [50]\nrequests = 6\nlengths = [[16, 4]]\n";

/// A quick stub: the time of its tokens is not the point.
const QUICK: Schedule =
    Schedule { first: Duration::from_millis(20), gap: Duration::from_millis(20), tokens: 8, per_event: 1 };

#[test]
fn a_library_user_runs_a_suite_on_a_server_in_slices() {
    let (server, root) = (start(Api::Vllm, QUICK), tempfile::tempdir().unwrap());
    let mut request = request(&server, TWO_LOADS, root.path());
    // A level is whole or nothing: the warm-up request and six more.
    request.endpoint.as_mut().unwrap().max_requests = Some(15);
    let refused = live(&request).unwrap_err().to_string();
    assert!(refused.contains("may send 28 requests; --max-requests allows 15"), "{refused}");
    assert!(fs::read_dir(root.path()).unwrap().next().is_none(), "nothing was recorded");
    request.resume = Some(Wanted::Missing);
    for (levels_there, verdict) in [(2, Verdict::Incomplete), (4, Verdict::Valid)] {
        let end = live(&request).unwrap();
        let levels = RunDir::open(&end.runs[0]).unwrap().read_loads().unwrap();
        assert_eq!(levels.len(), levels_there);
        // Six requests are no proof that this program was punctual on a busy machine.
        assert!(end.verdict == verdict || end.verdict == Verdict::Invalid, "{:?}", end.verdict);
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "one run");
}

/// Each request under way has a thread. What needs too many is refused by name, before the first request of the run.
#[test]
fn too_many_requests_at_once_are_refused_before_the_run() {
    let (server, root) = (start(Api::Vllm, QUICK), tempfile::tempdir().unwrap());
    for (table, says) in [
        (
            "[[load]]\narrival = \"poisson\"\nsaturation = true\nrequests = 9000",
            "poisson-i16-o4-b16-saturation: 9000 requests",
        ),
        ("[[load]]\narrival = \"fixed\"\nrates = [20000]\nrequests = 20000", "fixed-i16-o4-b16: 10"),
        ("[[performance]]\nbatch = [10000]", "b10000-i16-o4: 10000 requests"),
    ] {
        let suite = format!("schema = 1\nname = \"s\"\n{table}\nlengths = [[16, 4]]\n");
        let refused = live(&request(&server, &suite, root.path())).unwrap_err().to_string();
        assert!(refused.contains(says) && refused.contains("at most 8192"), "{refused}");
    }
    assert!(fs::read_dir(root.path()).unwrap().next().is_none(), "nothing was recorded");
}

/// A closed loop has a concurrency where an open one has a rate, in every table.
#[test]
fn a_closed_loop_is_told_by_its_concurrency() {
    let (server, root) = (start(Api::Vllm, QUICK), tempfile::tempdir().unwrap());
    let runs: Vec<String> = ["a", "b"]
        .iter()
        .map(|name| {
            let end = live(&request(&server, TWO_LOADS, &root.path().join(name))).unwrap();
            end.runs[0].to_str().unwrap().to_owned()
        })
        .collect();
    let csv = fs::read_to_string(format!("{}/load.csv", runs[0])).unwrap();
    for row in csv::Reader::from_reader(csv.as_bytes()).deserialize() {
        let row: std::collections::HashMap<String, String> = row.unwrap();
        assert_eq!(row["offered_per_s"].is_empty(), !row["concurrency"].is_empty(), "{row:?}");
    }
    // Exit code 4 where a busy machine was not punctual.
    let shown = answer(&["show", &runs[0], "closed"]);
    assert!(shown.out.contains("Concurrency") && !shown.out.contains("Offered /s"), "{shown:?}");
    let levels = shown.out.lines().filter_map(|line| line.split_whitespace().next()?.parse::<u32>().ok());
    assert_eq!(levels.take(3).collect::<Vec<_>>(), [1, 2, 4], "{}", shown.out);
    assert!(answer(&["show", &runs[0], "fixed"]).out.contains("Offered /s"));
    let rows = answer(&["export", &runs[0], "--format", "jsonl"]).out;
    assert_eq!(rows.lines().filter(|line| line.starts_with("{\"line\":\"load\"")).count(), 4, "{rows}");
    let sql = answer(&["export", &runs[0], "--format", "sql"]).out;
    assert_eq!(sql.matches("INSERT OR REPLACE INTO loads").count(), 4, "{sql}");
    let out = root.path().join("c");
    let compared = answer(&["compare", &runs[0], &runs[1], "--out", out.to_str().unwrap()]).out;
    // The loads are the answer: there is nothing else to compare.
    let said = ["highest throughput", "in common"].map(|words| compared.matches(words).count());
    assert!(said[0] >= 1 && said[1] == 0, "{compared}");
    let page = fs::read_to_string(out.join("report.html")).unwrap().replace("&#x2f;", "/");
    for words in ["highest throughput", "Rate /s, concurrency", "concurrency 4", "highest sustained"] {
        assert!(page.contains(words), "{words}");
    }
    let csv = fs::read_to_string(out.join("comparison.csv")).unwrap();
    assert!(csv.contains("concurrency 2,") && csv.contains("highest throughput"), "{csv}");
}
