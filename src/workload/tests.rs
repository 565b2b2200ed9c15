//! The toy workload goes through all layers: planned, run on a script, recorded, interrupted, resumed, audited, read back,
//! shown and exported.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use glmbench_device::rotary::RotaryMode;
use glmbench_engine::EngineError;
use glmbench_engine::config::ModelConfig;

use super::toy::record::ToyCase;
use crate::backend::{Backend, Script, Scripted};
use crate::language::Language;
use crate::record::{Contents, RunDir, RunRecord};
use crate::report::export::Records;
use crate::report::render;
use crate::run::model::ModelFacts;
use crate::run::plan::Plan;
use crate::run::provenance::{Origin, record};
use crate::run::{Ending, Found, Observer, Resume, RunError, execute, open_dir, telemetry};
use crate::suite::Suite;

const SUITE: &str = "schema = 1\nname = \"t\"\n[[toy]]\ninput_tokens = 4\ntosses = 3\n[[toy]]\ntosses = 2\n";

/// Stops a run after a number of units.
struct StopAfter<'a>(usize, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn begin(&mut self, _: &str, _: &'static str, _: u64, _: u64) {}
    fn advance(&mut self) {
        self.0 -= 1;
        self.1.store(self.0 == 0, Ordering::Relaxed);
    }
    fn end(&mut self) {}
}

fn config() -> ModelConfig {
    ModelConfig::from_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo/config.json")).unwrap()
}

/// Runs the suite below `root`, or resumes its run, until `units` units are done.
fn run(root: &Path, units: usize) -> (Ending, Vec<String>) {
    let (suite, config) = (Suite::parse(Path::new("t.toml"), SUITE, &[]).unwrap(), config());
    let plan = Plan::new(&suite, &config, None, 512).unwrap();
    let backend = Scripted::new(Script::default());
    let origin = Origin {
        suite: &suite,
        model: "planted".into(),
        facts: ModelFacts::new(&config, None, "none".into(), false),
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
    let first = RunRecord { run_id: "r".into(), ..record(&origin, &plan, &config) };
    let path = root.join("r");
    let found = path
        .exists()
        .then(|| Found { record: RunDir::open(&path).unwrap().read_run().unwrap(), path: path.clone() });
    let mut told = Vec::new();
    let resume =
        found.as_ref().map(|found| Resume { found, plan: &plan, retry_failed: false, told: &mut told });
    let (mut dir, mut record) = open_dir(root, resume, first).unwrap();
    let stop = AtomicBool::new(false);
    let mut reload = |_, _: &mut dyn Observer| {
        Err(RunError::Engine(EngineError::Option("one tensor-parallel size only".into())))
    };
    let mut observer = StopAfter(units, &stop);
    let ending =
        execute(&plan, Box::new(backend), &mut reload, &mut dir, &mut record, &mut observer, &stop).unwrap();
    (ending, told)
}

#[test]
fn the_toy_is_planned_run_recorded_and_shown() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(run(root.path(), usize::MAX), (Ending::Complete, Vec::new()));
    let path = root.path().join("r");
    let dir = RunDir::open(&path).unwrap();
    let contents = Contents::read(&dir).unwrap();
    assert!(contents.audit.is_sound(), "{:?}", contents.audit);
    let ids: Vec<(&str, u32)> = contents.tosses.iter().map(|t| (t.toy_id.as_str(), t.number)).collect();
    assert_eq!(ids, [("toy-i4", 0), ("toy-i4", 1), ("toy-i4", 2), ("toy-i8", 0), ("toy-i8", 1)]);
    assert!(contents.run.seal.unwrap().contains_key("tosses.jsonl"));
    // 1,000 ns a prompt token, and one decode step.
    let summary = render(&path, Language::En).unwrap();
    let table = summary.tables.iter().find(|table| table.title.starts_with("Toy")).unwrap();
    let cells: Vec<String> = table
        .rows
        .iter()
        .map(|row| row.cells.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(cells, ["toy-i4 3 0.014", "toy-i8 2 0.018"]);
    assert!(summary.headline.contains(&"5 of 5 tosses were made.".into()), "{:?}", summary.headline);
    let csv = fs::read(path.join("toy.csv")).unwrap();
    assert!(csv.starts_with(b"toy_id,number,total_ns\ntoy-i4,0,14000\n"));
    let exported = Records::read(&dir).unwrap().tables;
    assert_eq!(exported.iter().find(|file| file.path == "toy.csv").unwrap().bytes, csv);
}

#[test]
fn the_toy_is_resumed_and_repaired_like_any_other() {
    let straight = tempfile::tempdir().unwrap();
    run(straight.path(), usize::MAX);
    let journal = |root: &Path| fs::read_to_string(root.join("r/tosses.jsonl")).unwrap();
    let expected = journal(straight.path());
    for units in 1..5 {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(run(root.path(), units).0, Ending::Interrupted);
        assert_eq!(journal(root.path()).lines().count(), units);
        assert_eq!(run(root.path(), usize::MAX).0, Ending::Complete);
        assert_eq!(journal(root.path()), expected, "stopped after {units}");
    }
    // A line out of place is cut off, and what lay behind it is kept for its place.
    let path = straight.path().join("r/tosses.jsonl");
    let without_second: Vec<&str> =
        expected.lines().enumerate().filter(|(i, _)| *i != 1).map(|(_, line)| line).collect();
    fs::write(&path, without_second.join("\n") + "\n").unwrap();
    let (ending, told) = run(straight.path(), usize::MAX);
    assert_eq!(ending, Ending::Complete);
    assert!(told.iter().any(|said| said.starts_with("tosses.jsonl: 1 lines stand")), "{told:?}");
    let found = RunDir::open(&straight.path().join("r")).unwrap().read::<ToyCase>().unwrap();
    assert_eq!(found.len(), 5);
}

#[test]
fn a_suite_says_what_is_wrong_with_the_toy() {
    let refused = |text: &str| Suite::parse(Path::new("t.toml"), text, &[]).unwrap_err().to_string();
    let misspelt = refused(&SUITE.replace("tosses", "tossse"));
    assert!(misspelt.contains("did you mean `tosses`?"), "{misspelt}");
    let none = refused("schema = 1\nname = \"t\"\n");
    assert!(none.contains("[[performance]], [[max_batch]], [[load]], [[parity]] or [[toy]]"), "{none}");
    let long = Suite::parse(Path::new("t.toml"), &SUITE.replace("= 4", "= 9000000"), &[]).unwrap();
    let refused = Plan::new(&long, &config(), None, 512).err().unwrap().to_string();
    assert!(refused.contains("toy-i9000000 has sequences of 9000002 tokens"), "{refused}");
}
