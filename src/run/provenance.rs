//! Identity (what must agree for two runs to be compared) and provenance (what is recorded beside it).

use std::collections::BTreeMap;
use std::time::SystemTime;

use glmbench_device::DeviceInfo;
use glmbench_device::rotary::RotaryMode;

use crate::record::{
    Group, Identity, LoadFacts, Provenance, Roofline, RunRecord, Status, Word, rfc3339_utc, run_id,
};
use crate::suite::Suite;

use super::cases::InputHash;
use super::environment::environment;
use super::machine::Machine;
use super::model::ModelFacts;
use super::plan::Plan;

/// The inputs of a run, collected before it starts.
pub struct Origin<'a> {
    /// The suite.
    pub suite: &'a Suite,
    /// The model as named by the user.
    pub model: String,
    /// The model's settings, and what decided on them.
    pub facts: ModelFacts,
    /// Hash of the weights.
    pub weights: String,
    /// Hash of the tokenizer file; `None` for random weights.
    pub tokenizer: Option<String>,
    /// Rounding of the rotary table.
    pub rotary: RotaryMode,
    /// The loaded device.
    pub device: DeviceInfo,
    /// Method of each telemetry column ([`super::telemetry::methods`]).
    pub telemetry: BTreeMap<String, String>,
    /// The machine's measured limits, if speed is measured.
    pub roofline: Option<Roofline>,
    /// Time and memory of loading.
    pub load: Option<LoadFacts>,
    /// Descriptions of non-finite weights in the run's type; `None` if no weights were read.
    pub weight_faults: Option<Vec<String>>,
    /// The command line.
    pub command_line: Vec<String>,
    /// The group of runs that this one belongs to.
    pub group: Option<Group>,
}

/// Returns the fields that decide comparability.
pub fn identity(origin: &Origin<'_>, plan: &Plan<'_>) -> Identity {
    let mut fields = BTreeMap::from([
        ("suite".to_owned(), origin.suite.content_hash()),
        ("weights".to_owned(), origin.weights.clone()),
        ("tokenizer".to_owned(), origin.tokenizer.clone().unwrap_or_else(|| "none".into())),
        ("dtype".to_owned(), origin.device.precision.dtype.to_string()),
        ("quantisation".to_owned(), origin.device.precision.quantisation()),
        ("rope".to_owned(), origin.rotary.name().to_owned()),
    ]);
    fields.extend(origin.facts.identity().map(|(name, value)| (name.to_owned(), value)));
    for run in &plan.accuracy {
        let evaluation = &run.evaluation;
        let task_plan = evaluation.plan();
        let mut field = |name: &str, value: String| {
            fields.insert(format!("{}.{name}", run.task), value);
        };
        if let Some(file) = task_plan.dataset.benchmark.file {
            field("task_file", file.sha256.clone());
        }
        field("dataset", task_plan.dataset.content_hash());
        field("protocol", task_plan.protocol.definition().name.to_owned());
        field("shots", task_plan.shots.to_string());
        field("max_new_tokens", task_plan.max_new_tokens.to_string());
        if let Some(draws) = task_plan.draws {
            field("samples", draws.samples.to_string());
            field("temperature", draws.temperature.to_string());
            field("top_p", draws.top_p.to_string());
            field("seed", draws.seed.to_string());
        }
        field("items", evaluation.len().to_string());
        field("inputs", evaluation.input_hash());
    }
    for InputHash { case: name, hash } in plan.input_hashes() {
        fields.insert(format!("prompts.{name}"), hash);
    }
    Identity::new(fields)
}

/// Returns the first `run.json` of a run.
pub fn record(
    origin: &Origin<'_>,
    plan: &Plan<'_>,
    config: &glmbench_engine::config::ModelConfig,
) -> RunRecord {
    let identity = identity(origin, plan);
    let started = SystemTime::now();
    RunRecord {
        run_id: run_id(started, &origin.suite.name, &origin.device.name, &identity) + &plan.shard_suffix(),
        status: Status::Running,
        identity,
        provenance: provenance(origin, plan, started),
        plan: plan.record(origin.suite, config, origin.device.precision),
        choice_tokens: plan.choice_tokens(),
        first_prompt: plan.first_prompt(),
        seal: None,
        shards: plan.shards().map(Box::new),
    }
}

/// Returns the versions of what has a part in the results: this program, and the interpreter of generated programs.
fn versions(plan: &Plan<'_>) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::from([("glmbench".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
    let runner = plan.accuracy.iter().find_map(|run| run.evaluation.runner());
    versions.extend(runner.map(|runner| ("interpreter".to_owned(), runner.interpreter())));
    versions
}

fn provenance(origin: &Origin<'_>, plan: &Plan<'_>, started: SystemTime) -> Provenance {
    let machine = Machine::read();
    let unknown = || "not told by the system".to_owned();
    Provenance {
        suite: origin.suite.name.clone(),
        model: origin.model.clone(),
        model_details: origin.facts.details(),
        engine: format!("glmbench {}", env!("CARGO_PKG_VERSION")),
        device: origin.device.name.clone().into(),
        kernel: origin.device.kernel.clone(),
        clock: super::session::clock_of(&origin.device),
        clock_profile: origin.device.modelled_by.as_ref().map(|p| format!("{} sha256:{}", p.name, p.sha256)),
        modelled_by: origin.device.modelled_by.as_ref().map(|p| Box::new(p.into())),
        dtype: Word::of(origin.device.precision),
        tp: origin.device.tp as u32,
        device_details: origin.device.details.iter().cloned().collect(),
        telemetry: origin.telemetry.clone(),
        threads: origin.device.threads as u32,
        batch: plan.accuracy.iter().map(|run| run.batch).max().unwrap_or(0) as u32,
        versions: versions(plan),
        git_commit: option_env!("GLMBENCH_GIT_COMMIT").map(str::to_owned),
        environment: environment(),
        host: machine.host.unwrap_or_else(unknown),
        os: machine.os,
        cpu_model: machine.cpu_model.unwrap_or_else(unknown),
        governor: machine.governor,
        roofline: origin.roofline.clone(),
        load: origin.load.clone(),
        weight_faults: origin.weight_faults.clone(),
        work: BTreeMap::new(),
        command_line: origin.command_line.clone(),
        scored_from: None,
        started: rfc3339_utc(started),
        finished: None,
        resumed: 0,
        group: origin.group.clone(),
    }
}
