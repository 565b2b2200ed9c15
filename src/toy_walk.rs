//! A benchmark that is not built in, through the whole program: read, planned, run on the scripted backend, recorded,
//! scored again, shown, reported, exported. Its parts are `dataset/toy.rs` and `task/toy.rs`, and a line of each list.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use glmbench_device::rotary::RotaryMode;
use glmbench_engine::EngineError;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::tokenizer::Tokenizer;
use tempfile::TempDir;

use crate::backend::{Backend, Script, Scripted, ScriptedAnswer};
use crate::dataset::{Benchmark, Source, TOY_SUMS};
use crate::record::{RunDir, RunRecord, SampleRecord, SampleState};
use crate::report::accuracy_rows;
use crate::report::export::{self, Records};
use crate::run::plan::Plan;
use crate::run::prompts::first_prompt;
use crate::run::provenance::{Origin, record};
use crate::run::score::rescore;
use crate::run::{Ending, Observer, RunError, execute, model::ModelFacts, open_dir, telemetry};
use crate::suite::Suite;
use crate::task;

/// Three questions. The answers are 5, 0.5 and -2.
const FINAL: &str = "two and three\t5\na quarter twice\t0.5\none less three\t-2\n";

/// What the model writes about them: right in other words, wrong, and nothing to read.
const OUTPUTS: [&str; 3] = [" it is 5.0", " so 7", " hm"];

struct Silent;

impl Observer for Silent {
    fn begin(&mut self, _: &str, _: &str, _: u64, _: u64) {}
    fn advance(&mut self) {}
    fn end(&mut self) {}
}

/// The data set, and the directory of a run on it.
struct Walk {
    root: TempDir,
    tokenizer: Tokenizer,
}

impl Walk {
    fn run() -> Self {
        let root = tempfile::tempdir().unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let config = ModelConfig::from_file(&demo.join("config.json")).unwrap();
        let tokenizer = glmbench_engine::load::load_tokenizer(&demo, Some(&config)).unwrap();
        let walk = Self { root, tokenizer };
        fs::create_dir(walk.data()).unwrap();
        fs::write(walk.data().join("examples.tsv"), "one and one\t2\n").unwrap();
        fs::write(walk.data().join("final.tsv"), FINAL).unwrap();
        walk.execute(&config);
        walk
    }

    fn data(&self) -> std::path::PathBuf {
        self.root.path().join("sums")
    }

    fn suite(&self) -> Suite {
        let text = format!(
            "schema = 1\nname = \"s\"\n[[accuracy]]\ntask = \"toy-sums\"\nprotocol = \"last-number\"\ndataset = {:?}\n",
            self.data()
        );
        Suite::parse(Path::new("s.toml"), &text, &[]).unwrap()
    }

    fn execute(&self, config: &ModelConfig) {
        let suite = self.suite();
        let plan = Plan::new(&suite, config, Some(&self.tokenizer), 512).unwrap();
        let [case] = plan.accuracy.as_slice() else { panic!("one case was planned") };
        let answer = |(index, text): (usize, &&str)| {
            let (prompt, ids) = case.evaluation.first_prompt(index).unwrap();
            assert!(prompt.starts_with("one and one = 2\n") && prompt.ends_with(" ="), "{prompt}");
            let tokens = self.tokenizer.encode(text);
            (ids, ScriptedAnswer { tokens, ..ScriptedAnswer::default() })
        };
        let answers = OUTPUTS.iter().enumerate().map(answer).collect::<HashMap<_, _>>();
        let backend = Scripted::new(Script { answers, ..Script::default() });
        let origin = Origin {
            suite: &suite,
            model: "scripted".into(),
            facts: ModelFacts::new(config, None, "none".into(), false),
            weights: "none".into(),
            tokenizer: None,
            rotary: RotaryMode::Model,
            device: backend.device_info(),
            telemetry: telemetry::methods(&backend),
            roofline: None,
            load: None,
            weight_faults: None,
            command_line: Vec::new(),
            group: None,
        };
        let first = RunRecord { run_id: "r".into(), ..record(&origin, &plan, config) };
        let (mut dir, mut run) = open_dir(self.root.path(), None, first).unwrap();
        let mut reload = |_, _: &mut dyn Observer| {
            Err(RunError::Engine(EngineError::Option("one tensor-parallel size only".into())))
        };
        let stop = AtomicBool::new(false);
        let end =
            execute(&plan, Box::new(backend), &mut reload, &mut dir, &mut run, &mut Silent, &stop).unwrap();
        assert_eq!(end, Ending::Complete);
    }

    fn dir(&self) -> RunDir {
        RunDir::open(&self.root.path().join("r")).unwrap()
    }

    fn read(&self) -> (RunRecord, Vec<SampleRecord>) {
        (self.dir().read_run().unwrap(), self.dir().read_samples().unwrap())
    }
}

#[test]
fn the_benchmark_is_found_by_its_name_and_its_faults_have_their_lines() {
    assert_eq!(Benchmark::from_name("toy-sums"), Some(&TOY_SUMS));
    assert!(task::find(&TOY_SUMS, "last-number").is_some());
    let dir = tempfile::tempdir().unwrap();
    let none = Source::open(&TOY_SUMS, dir.path()).unwrap_err().to_string();
    assert!(none.contains("no files of Toy Sums; expected `{examples,final}.tsv`"), "{none}");
    fs::write(dir.path().join("final.tsv"), "no tab\ntwo\tinf\n").unwrap();
    let rows = Source::open(&TOY_SUMS, dir.path()).unwrap().read("final", &[]).unwrap_err().to_string();
    assert!(
        rows.contains("final.tsv:1: found no tab") && rows.contains("final.tsv:2: found the answer"),
        "{rows}"
    );
}

#[test]
fn answers_are_recorded_and_the_record_names_the_benchmark() {
    let (run, samples) = Walk::run().read();
    let case = &run.plan.accuracy[0];
    assert_eq!((case.task.as_str(), case.benchmark.as_str()), ("toy-sums", "toy-sums"));
    assert_eq!((case.asked_under(), case.chance), ("last-number", None));
    let found: Vec<_> =
        samples.iter().map(|s| (s.gold.as_str(), s.pred.as_deref(), s.state, s.correct)).collect();
    assert_eq!(
        found,
        [
            ("5", Some("5"), SampleState::Scored, true),
            ("0.5", Some("7"), SampleState::Scored, false),
            ("-2", None, SampleState::Unscorable, false),
        ]
    );
}

#[test]
fn stored_answers_are_scored_and_prompts_made_again() {
    let walk = Walk::run();
    let (run, samples) = walk.read();
    let again = rescore(&run, &samples, Some("last-number"), SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(again.samples, samples);
    assert_eq!(again.run.plan.accuracy, run.plan.accuracy);
    let kept: BTreeMap<String, String> = walk
        .dir()
        .read_prompts(|_| true)
        .unwrap()
        .into_iter()
        .map(|prompts| (prompts.doc_id, prompts.calls[0].prompt.clone()))
        .collect();
    for sample in &samples {
        let prompt = first_prompt(&run.plan.accuracy[0], sample, &walk.data(), &walk.tokenizer).unwrap();
        assert_eq!(prompt.prompt, kept[&sample.doc_id]);
    }
}

#[test]
fn the_report_counts_it_and_modeltests_files_show_it() {
    let walk = Walk::run();
    let (run, samples) = walk.read();
    let rows = accuracy_rows(&run, &samples);
    assert_eq!((rows[0].task.as_str(), rows[0].correct, rows[0].unscorable), ("toy-sums", 1, 1));
    let format = export::find("modeltest").unwrap();
    let records = Records::read_for(format, &walk.dir()).unwrap();
    let files = export::files(format, &records).unwrap();
    let result = files.iter().find(|file| file.path.ends_with("_full_result.csv")).unwrap();
    assert!(result.path.contains("ToySums_pa_batch"), "{}", result.path);
    let text = String::from_utf8(result.bytes.clone()).unwrap();
    let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').map(str::trim).collect()).collect();
    assert_eq!(cells[1], ["total", "0.3333333333333333", "1", "3"], "{text}");
    assert_eq!(cells[2], ["final.jsonl", "0.3333333333333333", "1", "3"], "{text}");
}
