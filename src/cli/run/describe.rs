//! Describing what a run would do.

use std::path::Path;

use glmbench_cpu::InstructionSet;

use glmbench_engine::EngineError;
use glmbench_engine::memory::MemoryEstimate;

use crate::record::grouped;
use crate::run::AccuracyRun;
use crate::run::duration::{Counted, Expected, Rates, SameAs, in_words};
use crate::run::machine::Machine;
use crate::run::model::ModelFacts;
use crate::run::plan::{Plan, first_prompt_of};
use crate::run::setup::Setup;
use crate::run::sharing::PromptTokens;
use crate::text::one_line;

/// Duration in seconds from which to warn the user.
const LONG_S: f64 = 3600.0;

/// The output of `--dry-run` for one configuration.
pub(super) struct Description {
    /// The whole text.
    pub(super) text: String,
    /// A sentence if the run takes long.
    pub(super) warning: Option<String>,
}

/// Describes what a run would do. Earlier runs under `root` provide the expected times.
pub(super) fn describe(setup: &Setup, plan: &Plan<'_>, root: &Path) -> anyhow::Result<Description> {
    let Setup { suite, model, compute, .. } = setup;
    let facts = model.facts(setup.tokenizer.as_ref())?;
    let mut text = match &setup.name {
        Some(name) => format!("configuration {}\n", one_line(name)),
        None => String::new(),
    };
    text += &format!("suite     {}: {}\n", suite.name, one_line(&suite.about));
    text += &format!(
        "model     {}: {} parameters, {}, rotary table {}\n",
        one_line(&setup.model_name()),
        model.config.parameters(),
        compute.precision,
        compute.rope.name(),
    );
    text += &as_read(&facts);
    if let Some(words) = plan.share_words() {
        text += &format!("share     {words}\n");
    }
    let unfit = setup.check_room(plan).err();
    text += &format!("memory    {}\n", memory(setup, plan)?);
    if let Some(error) = &unfit {
        text += &format!("          it does not fit: {error}\n");
    }
    let rates = Clock::new(setup, &facts, root)?;
    let why_unknown = match &unfit {
        None => "unknown: --out has no run of this shape, type and device",
        Some(_) => "unknown: it cannot be run",
    };
    let modelled = compute.emulate(&model.path).is_some();
    let mut times = Times { why_unknown, modelled, ..Times::default() };
    // The work of cases that do not fit is not counted, because it may be arbitrarily large.
    let recorded = unfit.is_none().then(|| plan.record(suite, &model.config, compute.precision));
    for run in plan.accuracy.iter().filter(|run| !run.own.is_empty()) {
        let task = run.evaluation.plan();
        let time = recorded.as_ref().map_or(Expected::Unknown, |recorded| {
            let case = recorded.accuracy.iter().find(|case| case.task == run.task);
            let dataset = case.map_or("", |case| case.dataset.as_str());
            rates.rates.task(run, dataset, setup.counted(plan, run.tp))
        });
        text += &format!(
            "precision {}: {} items, protocol {}, {} shots, batch {}\n{}",
            run.task,
            run.own.len(),
            task.protocol.definition().name,
            task.shots,
            run.batch,
            times.line(&time),
        );
        text += &sharing(setup, plan, run);
    }
    for case in plan.timed() {
        case.words().iter().for_each(|line| text += &format!("{line}\n"));
        if case.unfit().is_none() {
            let known = unfit.is_none().then(|| (&rates.rates, setup.counted(plan, case.tp())));
            text += &times.line(&case.expected(known));
        }
    }
    for case in setup.left_out(plan) {
        text += &format!("left out  {case}\n");
    }
    text += &times.total(&rates.words);
    text += &prompts(plan);
    let warning = times.warning(setup.name.as_deref());
    Ok(Description { text, warning })
}

/// Describes how many prompt tokens are computed.
fn sharing(setup: &Setup, plan: &Plan<'_>, run: &AccuracyRun<'_>) -> String {
    let prefix = setup.model.config.pre_seq_len.unwrap_or(0);
    let PromptTokens { all, computed } = run.prompt_tokens(&run.own, plan.capacity(run.tp).kv_blocks, prefix);
    let computed = if run.savings.shared_prefixes { computed } else { all };
    let fewer = match computed {
        computed if computed < all => {
            let ratio = all as f64 / computed as f64;
            // Below, it would read `1.0 ×`.
            let fewer = if ratio < 1.05 { String::new() } else { format!(": {ratio:.1} × fewer") };
            format!(", {} computed{fewer}, because prompts begin alike", grouped(computed))
        }
        _ => ", all computed".to_owned(),
    };
    format!("          {} tokens in first prompts{fewer}\n", grouped(all))
}

/// Lists what was read from the model, and what was assumed where its folder does not say.
fn as_read(facts: &ModelFacts) -> String {
    let details = facts.details();
    let line = |label: &str, name: &str| format!("{label:<9} {}\n", one_line(&details[name]));
    [
        ("shape", "shape"),
        ("weights", "weights"),
        ("rotation", "rotary_scaling"),
        ("prefix", "prefix_ids"),
        ("end", "end_ids"),
        ("unread", "config_words"),
    ]
    .map(|(label, name)| line(label, name))
    .concat()
}

/// Describes the required and the available memory.
pub(in crate::cli) fn memory(setup: &Setup, plan: &Plan<'_>) -> Result<String, EngineError> {
    let Setup { model, compute, .. } = setup;
    // Ranks hold some data in common, so the largest number of ranks needs the most memory.
    let estimates = plan.tp_sizes().into_iter().filter_map(|tp| setup.estimate(plan, tp).ok());
    let estimate = estimates
        .max_by_key(MemoryEstimate::total_bytes)
        .unwrap_or_else(|| MemoryEstimate::new(&model.config, compute.memory(), plan.capacity(1)));
    let gb = |bytes: u64| format!("{:.3} GB", bytes as f64 / 1e9);
    let there = match setup.memory_budget()? {
        Some(budget) => budget.words(),
        None => "the card says what it holds when it is loaded".to_owned(),
    };
    let beside =
        plan.timed().iter().filter(|case| case.unfit().is_none()).map(|case| case.host_bytes()).max();
    let beside = match beside.unwrap_or(0) {
        0 => String::new(),
        bytes => format!("; beside it on this host {} of a reference", gb(bytes)),
    };
    Ok(format!(
        "{} = weights {} + KV cache {} + working memory {}{beside}; {there}",
        gb(estimate.total_bytes()),
        gb(estimate.weight_bytes),
        gb(estimate.kv_bytes),
        gb(estimate.activation_bytes),
    ))
}

/// The source of expected times.
struct Clock {
    rates: Rates,
    /// What the times refer to, in words.
    words: String,
}

impl Clock {
    fn new(setup: &Setup, facts: &ModelFacts, root: &Path) -> anyhow::Result<Self> {
        let Setup { model, compute, .. } = setup;
        if let Some(emulate) = compute.emulate(&model.path)
            && let Some(machine) = emulate.machine_of(compute.device)?
        {
            let here = if emulate.timing_only { "" } else { "; how long this machine computes is unknown" };
            let words = format!("modelled{here}");
            return Ok(Self { rates: Rates::of_profile(machine.clock), words });
        }
        let machine = Machine::read();
        let has_threads = compute.device.has_threads();
        let kernel = || compute.kernel.unwrap_or_else(|| InstructionSet::best_for(compute.precision.dtype));
        let same = SameAs {
            host: machine.host,
            cpu_model: machine.cpu_model,
            device: compute.device.into(),
            kernel: has_threads.then(|| kernel().name().to_owned()),
            threads: has_threads.then(|| compute.thread_count()),
            precision: compute.precision,
            shape: facts.shape.clone(),
            model: setup.model_name(),
        };
        let counted = Counted {
            config: &model.config,
            precision: compute.precision,
            step_tokens: compute.device.step_tokens(),
        };
        Ok(Self { rates: Rates::read(root, &same, counted), words: "on this machine".to_owned() })
    }
}

/// The accumulated times of all cases so far.
#[derive(Default)]
struct Times {
    seconds: f64,
    at_most: bool,
    at_least: bool,
    unknown: usize,
    cases: usize,
    /// What to print if no time is known.
    why_unknown: &'static str,
    /// Whether times are of a virtual clock, so that no user waits that long.
    modelled: bool,
}

impl Times {
    /// Formats a case's time and adds it to the total.
    fn line(&mut self, expected: &Expected) -> String {
        self.cases += 1;
        let words = match expected {
            Expected::Known { seconds, at_most, by } => {
                self.seconds += seconds;
                self.at_most |= at_most;
                let about = if *at_most { "at most about" } else { "about" };
                format!("{about} {}, by {by}", in_words(*seconds))
            }
            Expected::AtLeast { seconds, by } => {
                self.seconds += seconds;
                self.at_least = true;
                format!("at least {}, by {by}", in_words(*seconds))
            }
            Expected::Unknown => {
                self.unknown += 1;
                "time unknown".to_owned()
            }
        };
        format!("          {words}\n")
    }

    /// Formats the total time.
    fn total(&self, whose: &str) -> String {
        if self.cases == 0 {
            return String::new();
        }
        format!("time      {} {whose}\n", self.words())
    }

    fn words(&self) -> String {
        if self.unknown == self.cases {
            return self.why_unknown.to_owned();
        }
        let known = in_words(self.seconds);
        match (self.at_least || self.unknown > 0, self.at_most, self.unknown) {
            (false, _, _) if self.seconds < 0.1 => known,
            (false, false, _) => format!("about {known}"),
            (false, true, _) => format!("at most about {known}"),
            (true, _, 0) => format!("at least {known}"),
            (true, _, unknown) => format!("at least {known}, and {unknown} of {} cases unknown,", self.cases),
        }
    }

    /// Returns a warning if the cases with known times take long.
    fn warning(&self, name: Option<&str>) -> Option<String> {
        let of = name.map(|name| format!(" for configuration {name}")).unwrap_or_default();
        let warned = self.seconds >= LONG_S && !self.modelled;
        warned.then(|| {
            format!("glmbench: this takes {} on this machine{of}", self.words().trim_end_matches(','))
        })
    }
}

/// Describes choice tokens and first prompts.
fn prompts(plan: &Plan<'_>) -> String {
    let mut text = String::new();
    for run in &plan.accuracy {
        let choices: Vec<String> =
            run.evaluation.choices().iter().map(|c| format!("{} = {}", c.answer, c.id)).collect();
        let choices = if choices.is_empty() {
            "none (the answer is read from text)".into()
        } else {
            choices.join(", ")
        };
        text += &format!("\nchoice tokens of {}: {choices}\n", run.task);
        if let Some(first) = first_prompt_of(run) {
            text += &format!(
                "first prompt of {} ({}):\n{}\nids: {:?}\n",
                run.task,
                one_line(&first.doc_id),
                first.text,
                first.token_ids
            );
        }
    }
    text
}
