//! Runs with and without what the engine spares itself: the samples are equal, and the record says what was spared.

use std::path::Path;

use glmbench::record::{Contents, PromptRecord, RunDir, SampleRecord, TaskWork};
use glmbench::report::Verdict;
use glmbench::run::RunRequest;
use glmbench::run::setup::Setup;
use glmbench::suite::Suite;
use glmbench_engine::{PromptLookup, Savings};

use crate::in_process::try_run;

/// Every protocol on the sample sets.
const SUITE: &str = r#"schema = 1
name = "k"
[model]
path = "demo"
[[accuracy]]
task = "ceval"
dataset = "SETS/ceval-sample"
protocol = "two-stage"
max_new_tokens = 40
limit = 12
batch = 4
[[accuracy]]
task = "ceval"
dataset = "SETS/ceval-sample"
protocol = "modeltest-5shot"
limit = 24
batch = 3
[[accuracy]]
task = "ceval"
dataset = "SETS/ceval-sample"
protocol = "modeltest-0shot"
max_new_tokens = 40
limit = 8
batch = 8
[[accuracy]]
task = "boolq"
dataset = "SETS/boolq-sample"
protocol = "modeltest"
limit = 12
batch = 2
[[accuracy]]
task = "boolq"
dataset = "SETS/boolq-sample"
protocol = "loglikelihood"
limit = 12
batch = 1
"#;

fn request(out: &Path, savings: Savings) -> RunRequest {
    let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    let text = SUITE.replace("SETS", sets.to_str().unwrap());
    let mut request = RunRequest::new(Suite::parse(Path::new("k.toml"), &text, &[]).unwrap(), out);
    request.choice.savings = savings;
    request.choice.compute.threads = Some(1);
    request
}

fn contents(request: &RunRequest) -> (Contents, Vec<PromptRecord>) {
    let (end, _) = try_run(request, usize::MAX).unwrap();
    assert_eq!(end.verdict, Verdict::Valid);
    let dir = RunDir::open(&end.runs[0]).unwrap();
    (Contents::read(&dir).unwrap(), dir.read_prompts(|_| true).unwrap())
}

/// The lines of a run, as bytes. Times alone may differ.
fn lines((contents, prompts): &(Contents, Vec<PromptRecord>)) -> (String, &[PromptRecord]) {
    let timeless = |sample: &SampleRecord| SampleRecord { t_start_ns: 0, t_end_ns: 0, ..sample.clone() };
    let samples: Vec<SampleRecord> = contents.samples.iter().map(timeless).collect();
    (serde_json::to_string(&samples).unwrap(), prompts)
}

#[test]
fn samples_of_every_protocol_are_equal_with_and_without_savings() {
    let folder = tempfile::tempdir().unwrap();
    let plain = contents(&request(&folder.path().join("plain"), Savings::NONE));
    let work_of = |(contents, _): &(Contents, _)| contents.run.provenance.work.clone();
    let spared = |work: &TaskWork| work.reused + work.guessed;
    assert!(work_of(&plain).values().all(|work| spared(work) == 0 && work.prefilled > 0));
    for savings in [
        Savings::ALL,
        Savings { prompt_lookup: PromptLookup::Always, ..Savings::ALL },
        Savings { prompt_lookup: PromptLookup::Never, ..Savings::ALL },
        Savings { shared_prefixes: false, prompt_lookup: PromptLookup::Always },
    ] {
        let sparing = contents(&request(&folder.path().join("sparing"), savings));
        assert_eq!(lines(&sparing), lines(&plain), "{savings:?}");
        let (with, without) = (work_of(&sparing), work_of(&plain));
        for (task, work) in &with {
            assert_eq!(work.prefilled + work.reused, without[task].prefilled, "{task}");
            assert_eq!(work.generated, without[task].generated, "{task}");
        }
        println!("{with:#?}");
        let sum = |of: fn(&TaskWork) -> u64| with.values().map(of).sum::<u64>();
        assert_eq!(sum(|work| work.reused) > 0, savings.shared_prefixes);
        let accepted = sum(|work| work.accepted);
        match savings.prompt_lookup {
            PromptLookup::Never => assert_eq!(accepted, 0),
            // What gains depends on the times of steps.
            PromptLookup::WhereItGains => {}
            PromptLookup::Always => assert!(accepted > 0),
        }
    }
}

/// One prompt after the other, the engine computes what the plan says.
#[test]
fn the_plan_says_how_many_tokens_are_computed() {
    let folder = tempfile::tempdir().unwrap();
    let mut request = request(folder.path(), Savings::ALL);
    request
        .suite
        .accuracy
        .retain(|case| case.protocol == "loglikelihood" || case.protocol == "modeltest-5shot");
    request.suite.accuracy.iter_mut().for_each(|case| case.batch = 1);
    let setups = Setup::all(&request.choice, &request.suite).unwrap();
    let plan = setups[0].plan().unwrap();
    let planned = plan.accuracy.iter().map(|run| run.prompt_tokens(&run.own, plan.capacity(1).kv_blocks, 0));
    let planned: Vec<_> = planned.map(|tokens| (tokens.computed, tokens.all)).collect();
    let work = contents(&request).0.run.provenance.work;
    let cases = plan.accuracy.iter().map(|run| &work[&run.task]);
    let done: Vec<_> = cases.map(|work| (work.prefilled, work.prefilled + work.reused)).collect();
    println!("{planned:?}");
    // The tokens that a prompt leaves behind may begin the next one, too.
    for ((computed, all), done) in planned.iter().zip(done) {
        assert_eq!(*all, done.1);
        assert!(done.0 <= *computed && computed <= all, "{computed} {done:?}");
    }
    // Demonstrations are shared. Prompts without them may have nothing in common.
    assert!(planned.iter().any(|(computed, all)| computed < all), "{planned:?}");
}
