//! Runs on the scripted backend: what a run does with answers and times, without a model.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use glmbench::backend::{Capabilities, Script, Scripted, ScriptedAnswer};
use glmbench::record::{RunDir, SampleState};
use glmbench::run::plan::Plan;
use glmbench::run::{Ending, RunError};
use glmbench::suite::Suite;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::tokenizer::Tokenizer;

use crate::in_process::execute_in;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

/// A suite on a script, recorded under `root`.
struct Run<'a> {
    root: &'a Path,
    suite: String,
    script: Script,
}

impl Run<'_> {
    fn path(&self) -> PathBuf {
        self.root.join("r")
    }

    /// Runs or resumes until the end, or until `units` units are done.
    fn run(&self, units: usize) -> Result<Ending, RunError> {
        let config = ModelConfig::from_file(&demo().join("config.json")).unwrap();
        let tokenizer = glmbench_engine::load::load_tokenizer(&demo(), Some(&config)).unwrap();
        self.run_with(&config, &tokenizer, units)
    }

    fn run_with(
        &self,
        config: &ModelConfig,
        tokenizer: &Tokenizer,
        units: usize,
    ) -> Result<Ending, RunError> {
        let suite = Suite::parse(Path::new("s.toml"), &self.suite, &[]).unwrap();
        let plan = Plan::new(&suite, config, Some(tokenizer), 512)?;
        let backend = Scripted::new(self.script.clone());
        execute_in(self.root, &suite, config, &plan, Box::new(backend), units)
    }

    fn journals(&self) -> [String; 3] {
        ["samples.jsonl", "requests.jsonl", "load.jsonl"]
            .map(|name| fs::read_to_string(self.path().join(name)).unwrap_or_default())
    }
}

const ALL: usize = usize::MAX;

fn everything() -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/boolq-sample");
    format!(
        "schema = 1\nname = \"s\"\n[[accuracy]]\ntask = \"boolq\"\ndataset = {data:?}\nprotocol = \"modeltest\"\nlimit = 12\nbatch = 5\n\
         [[performance]]\nbatch = [2]\nlengths = [[32, 4]]\nrepetitions = 3\n\
         [[load]]\narrival = \"poisson\"\nrates = [50, 100]\nrequests = 8\nlengths = [[16, 4]]\nmax_batch = 3\n"
    )
}

/// The timed cases of [`everything`].
fn timed() -> String {
    let suite = everything();
    let (begin, end) = (suite.find("[[accuracy]]").unwrap(), suite.find("[[performance]]").unwrap());
    format!("{}{}", &suite[..begin], &suite[end..])
}

/// Runs a suite, stopped after `units` units and resumed until it is complete.
fn in_pieces(suite: &str, units: usize) -> [String; 3] {
    let root = tempfile::tempdir().unwrap();
    let run = Run { root: root.path(), suite: suite.to_owned(), script: Script::default() };
    let mut pieces = 0;
    while run.run(units).unwrap() == Ending::Interrupted {
        pieces += 1;
        assert!(pieces < 100, "after {units} units the run makes no progress");
    }
    assert!(pieces > 0 || units == ALL, "it was not stopped after {units} units");
    run.journals()
}

/// Stopped anywhere and resumed, timed cases leave the journals of an undisturbed run, times included.
#[test]
fn timed_cases_that_are_resumed_anywhere_equal_a_straight_run() {
    let expected = in_pieces(&timed(), ALL);
    assert!(expected[1..].iter().all(|journal| journal.lines().count() > 1), "{expected:?}");
    // A level of a load is one piece of work: fewer units would never finish it.
    for units in 9..=18 {
        assert_eq!(in_pieces(&timed(), units), expected, "stopped after {units} units");
    }
}

/// Items, too, but for their times: which of them share a batch depends on where the run was stopped.
#[test]
fn items_that_are_resumed_anywhere_have_the_same_answers() {
    let without_times = |[samples, ..]: [String; 3]| -> Vec<serde_json::Value> {
        let untimed = |line: &str| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            for key in ["t_start_ns", "t_end_ns", "sum"] {
                line.as_object_mut().unwrap().remove(key).unwrap();
            }
            line
        };
        samples.lines().map(untimed).collect()
    };
    let expected = without_times(in_pieces(&everything(), ALL));
    assert_eq!(expected.len(), 12);
    for units in [9, 10, 11, 13, 15, 17] {
        assert_eq!(without_times(in_pieces(&everything(), units)), expected, "stopped after {units} units");
    }
}

/// Answers decide scores: the larger log-probability wins, whatever else the script does.
#[test]
fn the_scripted_choice_is_the_answer() {
    let root = tempfile::tempdir().unwrap();
    let probe = Run { root: root.path(), suite: everything(), script: Script::default() };
    probe.run(ALL).unwrap();
    let samples = RunDir::open(&probe.path()).unwrap().read_samples().unwrap();
    assert_eq!(samples.len(), 12);
    // Without an answer in the script the first choice is likelier, for every item alike.
    let first = samples[0].pred.clone();
    assert!(samples.iter().all(|s| s.pred == first && s.state == SampleState::Scored));
    // The prompt of the first item is told to prefer the other.
    let prompts: Vec<u32> = first_prompt(&probe.path());
    let answer = ScriptedAnswer { choice_logprobs: vec![-2.0, -0.5], ..ScriptedAnswer::default() };
    let script = Script { answers: HashMap::from([(prompts, answer)]), ..Script::default() };
    let root = tempfile::tempdir().unwrap();
    let run = Run { root: root.path(), suite: everything(), script };
    run.run(ALL).unwrap();
    let samples = RunDir::open(&run.path()).unwrap().read_samples().unwrap();
    let others = samples.iter().filter(|s| s.pred != first).count();
    assert_eq!((others, samples[0].choice_logprobs.as_slice()), (1, &[-2.0, -0.5][..]));
}

/// Token ids in the first call of the first item.
fn first_prompt(run: &Path) -> Vec<u32> {
    let lines = fs::read_to_string(run.join("prompts.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let ids = line["calls"][0]["input_tokens"].as_array().unwrap();
    ids.iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Times are the script's to the nanosecond: prefill by prompt token, decode by step.
#[test]
fn times_are_the_scripts() {
    let root = tempfile::tempdir().unwrap();
    let script = Script { decode_ns_per_sequence: 100, ..Script::default() };
    let run = Run { root: root.path(), suite: everything(), script };
    run.run(ALL).unwrap();
    let dir = RunDir::open(&run.path()).unwrap();
    let requests = dir.read_requests().unwrap();
    for line in requests.iter().filter(|line| line.error.is_none()) {
        assert_eq!(line.prefill_ns, 2 * 32 * 1_000);
        assert_eq!(line.step_ns, [10_200, 10_200, 10_200]);
        assert_eq!(line.end_ns - line.start_ns, 64_000 + 3 * 10_200);
    }
    for level in dir.read_loads().unwrap() {
        assert_eq!(level.requests.len(), 8);
        assert!(level.requests.iter().all(|request| request.error.is_none()));
    }
}

/// What a backend cannot do is refused before the first line, with what would do.
#[test]
fn a_plan_beyond_a_backend_is_refused() {
    let timed = "schema = 1\nname = \"s\"\n[[performance]]\nbatch = [1]\nlengths = [[8, 2]]\n";
    let load = "schema = 1\nname = \"s\"\n[[load]]\narrival = \"poisson\"\nrates = [5]\nrequests = 2\nlengths = [[8, 2]]\n";
    let search = "schema = 1\nname = \"s\"\n[[max_batch]]\nlengths = [[8, 2]]\nbatch_range = [1, 2]\nlimit_tpot_ms = 1\n";
    let parity = "schema = 1\nname = \"s\"\n[[parity]]\nprompts = 1\n";
    let all = Capabilities::ALL;
    for (suite, can, says) in [
        (everything(), Capabilities { choice_logprobs: false, ..all }, "log-probabilities of choices"),
        (timed.to_owned(), Capabilities { step_times: false, ..all }, "[[load]] would do"),
        (load.to_owned(), Capabilities { ignores_end: false, ..all }, "fixed number of tokens"),
        (search.to_owned(), Capabilities { memory: false, ..all }, "does not know its memory"),
        (
            parity.to_owned(),
            Capabilities { logits: false, ..all },
            "returns no logits, which [[parity]] compares",
        ),
    ] {
        let root = tempfile::tempdir().unwrap();
        let script = Script { capabilities: can, ..Script::default() };
        let run = Run { root: root.path(), suite, script };
        let error = run.run(ALL).unwrap_err().to_string();
        assert!(error.contains("backend scripted") && error.contains(says), "{error}");
        assert!(run.journals().iter().all(String::is_empty));
    }
    let root = tempfile::tempdir().unwrap();
    let script = Script {
        capabilities: Capabilities { step_times: false, memory: false, ..all },
        ..Script::default()
    };
    let run = Run { root: root.path(), suite: load.to_owned(), script };
    assert_eq!(run.run(ALL).unwrap(), Ending::Complete);
}

/// An error of the backend ends the run with what was done, and the run goes on.
#[test]
fn a_backend_that_fails_leaves_what_was_done() {
    let root = tempfile::tempdir().unwrap();
    let failing = Script { failing_step: Some(3), ..Script::default() };
    let run = Run { root: root.path(), suite: everything(), script: failing };
    let error = run.run(ALL).unwrap_err().to_string();
    assert!(error.contains("the script fails here"), "{error}");
    let [samples, ..] = run.journals();
    let done = samples.lines().count();
    assert!((1..12).contains(&done), "{done} items were done");
    let run = Run { script: Script::default(), ..run };
    assert_eq!(run.run(ALL).unwrap(), Ending::Complete);
    assert!(run.journals()[0].starts_with(&samples));
}
