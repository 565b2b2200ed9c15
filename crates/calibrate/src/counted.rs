//! The work of published shapes: the engine's own plan on the emulated chip, counted once and priced by any profile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use glmbench_ascend::profile::Profile;
use glmbench_ascend::{AscendGroup, Chip, Emulation, Forced, GroupSettings, Pricer, Work, WorkCounter};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, DeviceError, Precision};
use glmbench_engine::cache::blocks_for;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, attention_shape};
use glmbench_engine::parallel::{Cut, Ranks};
use glmbench_engine::sampler::Sampling;
use glmbench_engine::weights::StorageType;
use glmbench_engine::weights::unread::Unread;
use glmbench_engine::{Engine, EngineError, Request, StepKind};

/// The steps of a timed batch: prefill, and two decode steps. The second decode step repeats what the first planned.
const OUTPUT_TOKENS: usize = 3;

/// A model on a number of chips.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// The model's shape.
    pub config: ModelConfig,
    /// Types of weights, activations and cache.
    pub precision: Precision,
    /// The chips.
    pub chip: Chip,
    /// Number of chips.
    pub chips: usize,
    /// The profile that the work is counted with.
    pub profile: String,
}

/// Work of a phase, and the time that its clock has besides: the host's share before a step's first launch and after its
/// last operator.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Counted {
    /// The chip's work.
    pub work: Work,
    /// The rest of the clock time, ns.
    pub rest_ns: f64,
}

impl Counted {
    /// Returns the time of the phase by a profile, ns.
    ///
    /// # Errors
    /// The emulator refuses the profile.
    pub fn price(&self, pricer: &Pricer, settings: &str) -> Result<f64, DeviceError> {
        Ok(pricer.price(settings, &self.work)? + self.rest_ns)
    }

    /// Adds another phase, taken `share` times.
    #[must_use]
    pub fn with(self, other: &Self, share: f64) -> Self {
        Self { work: self.work.with(&other.work, share), rest_ns: self.rest_ns + share * other.rest_ns }
    }
}

/// A batch of equal sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Batch {
    /// Number of sequences.
    pub sequences: usize,
    /// Prompt tokens of a sequence.
    pub tokens: usize,
}

/// Both phases of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Phases {
    /// All prefill steps.
    pub prefill: Counted,
    /// One decode step behind the prompt.
    pub decode: Counted,
}

impl Machine {
    /// Counts the work of batches.
    ///
    /// # Errors
    /// The model cannot be split or does not fit the chips' memory, or a step fails.
    pub fn count(
        &self,
        pricer: &Pricer,
        batches: &BTreeSet<Batch>,
    ) -> Result<BTreeMap<Batch, Phases>, EngineError> {
        let profile = Profile::builtin(&self.profile).map_err(|e| EngineError::Option(e.to_string()))?;
        let (mut engine, counter) = self.load(batches)?;
        let settings = profile.settings_lines();
        let mut found = BTreeMap::new();
        for &batch in batches {
            let mut phases = Phases::default();
            for Step { kind, work, clock_ns } in steps(&mut engine, &counter, batch)? {
                let rest_ns = clock_ns - pricer.price(&settings, &work)?;
                let counted = Counted { work, rest_ns };
                match kind {
                    StepKind::Prefill => phases.prefill = phases.prefill.with(&counted, 1.0),
                    StepKind::Decode => phases.decode = counted,
                    StepKind::Mixed | StepKind::Idle => {}
                }
            }
            found.insert(batch, phases);
        }
        Ok(found)
    }

    fn load(&self, batches: &BTreeSet<Batch>) -> Result<(Engine, WorkCounter), EngineError> {
        let longest = |batch: &Batch| batch.tokens + OUTPUT_TOKENS;
        let blocks = |batch: &Batch| batch.sequences * blocks_for(longest(batch));
        let most = |of: &dyn Fn(&Batch) -> usize| batches.iter().map(of).max().unwrap_or(1);
        let max_batch = most(&|batch| batch.sequences);
        let capacity = Capacity {
            max_batch,
            max_step_tokens: self.chip.device().step_tokens().max(max_batch),
            max_context: most(&longest),
            kv_blocks: most(&blocks),
            max_logit_rows: max_batch,
        };
        let rank = Cut::new(&self.config, 0, self.chips)?.config(&self.config);
        let profile = std::path::Path::new(&self.profile);
        let emulation = Emulation::new(self.chip, Some(profile), true)
            .map_err(|e| EngineError::Option(e.to_string()))?
            .with("record = on");
        let group = AscendGroup::new(GroupSettings {
            chip: self.chip,
            tp: self.chips,
            dtype: self.precision.dtype,
            weights: self.precision.weights,
            kv: self.precision.kv,
            attention: attention_shape(&rank),
            bind: false,
            forced: Forced::default(),
            emulation: Some(emulation),
        })?;
        let counter = group.work();
        let dtype = if self.precision.dtype == DType::Bf16 { StorageType::Bf16 } else { StorageType::F16 };
        let source = Arc::new(Unread { config: self.config.clone(), dtype });
        let ranks = Ranks::load(group, &self.config, RotaryMode::Model, capacity, source, &mut |_, _| {})?;
        Ok((Engine::new(Box::new(ranks)), counter))
    }
}

/// A step of the engine.
struct Step {
    /// What the step computes.
    kind: StepKind,
    /// The chip's work.
    work: Work,
    /// Time of the clock, ns.
    clock_ns: f64,
}

/// Runs a batch. Returns every step.
fn steps(engine: &mut Engine, counter: &WorkCounter, batch: Batch) -> Result<Vec<Step>, EngineError> {
    for _ in 0..batch.sequences {
        engine.submit(Request {
            prompt: vec![5; batch.tokens.max(1)],
            max_new_tokens: OUTPUT_TOKENS,
            sampling: Sampling::Greedy,
            ignore_eos: true,
            ..Request::probe()
        })?;
    }
    let mut steps = Vec::new();
    counter.take();
    while !engine.is_idle() {
        let step = engine.step()?;
        let clock_ns = (step.end_ns - step.start_ns) as f64;
        steps.push(Step { kind: step.kind, work: counter.take(), clock_ns });
    }
    Ok(steps)
}
