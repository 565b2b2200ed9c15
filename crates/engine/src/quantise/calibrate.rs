//! The calibration: the model runs over the prompts, and the ranges of its inputs follow.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use glmbench_device::observed::Observer;
use glmbench_device::{DType, KV_BLOCK_TOKENS, Precision, SequenceView, StaticInput};

use super::kl::Logits;
use super::observations::{Observations, Recorder};
use super::weights::{FloatRows, InputForm, IntegerRows, output_errors};
use super::{ActMethod, Control, Job, QuantiseError, state};
use crate::config::{ModelConfig, Scheme};
use crate::load::load_observed;
use crate::model::{Capacity, Forward, StepInput};
use crate::weights::layout::LinearId;
use crate::weights::{StorageType, WeightSource};

/// Tokens per step. All of them have logits, so that the last layer sees all of them.
const STEP: usize = 128;

/// Returns the capacity for calibrating with these prompts.
pub(super) fn capacity(config: &ModelConfig, prompts: &[Vec<u32>]) -> Capacity {
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(1).max(1);
    Capacity { max_step_tokens: STEP, max_logit_rows: STEP, ..Capacity::for_batch(config, 1, longest) }
}

/// What the calibration found, by linear layer in the order of [`LinearId::all`].
pub(super) struct Calibration {
    /// Inputs of linear layers; empty if nothing was calibrated.
    pub(super) inputs: Vec<StaticInput>,
    /// Factors of SmoothQuant by which a layer's inputs are divided.
    pub(super) factors: Vec<Option<Vec<f32>>>,
    /// What was seen; `None` if nothing was calibrated.
    pub(super) seen: Option<Observations>,
    /// Logits of the float model, for comparison. Only with a search.
    pub(super) logits: Option<Logits>,
}

/// The results of running the model.
struct Observed {
    seen: Observations,
    logits: Option<Logits>,
    factors: Vec<Option<Vec<f32>>>,
}

impl Calibration {
    /// Calibrates a job, or goes on with what an earlier process left beside `out`.
    pub(super) fn of(job: &Job, out: &Path, control: &mut Control<'_>) -> Result<Self, QuantiseError> {
        let count = LinearId::all(&job.config).count();
        let none = Self { inputs: Vec::new(), factors: vec![None; count], seen: None, logits: None };
        if !Job::needs_calibration(&job.settings) {
            return Ok(none);
        }
        let Observed { seen, logits, factors } = job.observe(out, control)?;
        if let Some(number) = seen.not_finite() {
            let name = LinearId::all(&job.config).nth(number).map(LinearId::name).unwrap_or_default();
            return Err(QuantiseError::NotFinite { what: format!("the inputs of {name}") });
        }
        let inputs = job.inputs(&seen, &factors, control)?;
        Ok(Self { inputs, factors, seen: Some(seen), logits })
    }

    /// Returns the input quantisation of a layer.
    pub(super) fn input(&self, number: usize) -> Option<StaticInput> {
        self.inputs.get(number).copied()
    }

    /// Returns the sampled inputs of a layer.
    pub(super) fn samples(&self, number: usize) -> &[f32] {
        self.seen.as_ref().and_then(|seen| seen.linears.get(number)).map_or(&[], |seen| &seen.samples)
    }
}

impl Job {
    /// Returns the types in which the float model runs.
    pub(super) fn precision(&self) -> Precision {
        let dtype = match self.source.dtype() {
            StorageType::Bf16 => DType::Bf16,
            StorageType::F16 | StorageType::F32 => DType::Fp16,
        };
        self.config.precision(dtype.into()).unwrap_or(dtype.into())
    }

    /// Runs the model over the prompts: once for the extremes, and once more for histograms if the method needs them.
    fn observe(&self, out: &Path, control: &mut Control<'_>) -> Result<Observed, QuantiseError> {
        let key = state::Key::of(self);
        let kept = state::read(out, &key, &self.config);
        if kept.is_some() {
            control.say("going on with the calibration that an earlier process left".to_owned());
        }
        let seen = kept.unwrap_or_else(|| Observations::new(&self.config));
        let recorder = Recorder { seen, tokens: self.tokens(), factors: Vec::new() };
        let recorder = Arc::new(Mutex::new(recorder));
        let lock = || recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let observer = Arc::clone(&recorder) as Arc<Mutex<dyn Observer>>;
        let mut model = self.loaded(Some(observer), &*self.source, &self.config, control)?;
        let mut pass = |what: &'static str, control: &mut Control<'_>| {
            let done = lock().seen.prompts.min(self.prompts.len());
            control.stage(what, "prompts", self.prompts.len() as u64);
            control.done(done as u64);
            for prompt in &self.prompts[done..] {
                control.check()?;
                run_prompt(&mut *model, prompt, &mut |_| {})?;
                let mut recorder = lock();
                recorder.seen.prompts += 1;
                state::write(out, &key, &recorder.seen)?;
                control.done(1);
            }
            Ok::<(), QuantiseError>(())
        };
        if lock().seen.pass == 1 {
            pass("calibrating", control)?;
        }
        let factors = self.factors(&lock().seen)?;
        if self.settings.scheme.has_static_inputs() && self.settings.method != ActMethod::MinMax {
            let mut recorder = lock();
            if recorder.seen.pass == 1 {
                recorder.seen.begin_histograms(&factors);
            }
            recorder.factors.clone_from(&factors);
            drop(recorder);
            pass("histograms", control)?;
        }
        let seen = lock().seen.clone();
        // A pass of its own: an interrupted calibration has seen only some of the prompts.
        let logits = self.settings.search.is_some().then(|| {
            lock().seen.pass = 0;
            self.logits(&mut *model, "logits of the float model", control)
        });
        Ok(Observed { seen, logits: logits.transpose()?, factors })
    }

    /// Returns the number of tokens of all prompts.
    fn tokens(&self) -> u64 {
        self.prompts.iter().map(|prompt| prompt.len() as u64).sum()
    }

    /// Collects the logits of a model for comparison.
    pub(super) fn logits(
        &self,
        model: &mut dyn Forward,
        what: &'static str,
        control: &mut Control<'_>,
    ) -> Result<Logits, QuantiseError> {
        let mut logits = Logits::new(self.tokens());
        control.stage(what, "prompts", self.prompts.len() as u64);
        for prompt in &self.prompts {
            control.check()?;
            run_prompt(model, prompt, &mut |rows| logits.add(rows, self.config.padded_vocab_size))?;
            control.done(1);
        }
        Ok(logits)
    }

    /// Loads a model of this job on the CPU, observed if there is an observer.
    pub(super) fn loaded(
        &self,
        observer: Option<Arc<Mutex<dyn Observer>>>,
        source: &dyn WeightSource,
        config: &ModelConfig,
        control: &mut Control<'_>,
    ) -> Result<Box<dyn Forward>, QuantiseError> {
        let capacity = capacity(&self.config, &self.prompts);
        let precision = config.precision(self.precision().dtype.into())?;
        let mut begun = false;
        let mut loaded = 0;
        let progress = &mut |done: usize, total: usize| {
            if !std::mem::replace(&mut begun, true) {
                control.stage("loading", "tensors", total as u64);
            }
            control.done((done - loaded) as u64);
            loaded = done;
        };
        Ok(load_observed(config, source, precision, capacity, observer, progress)?)
    }

    /// Returns the factors of SmoothQuant: `max|x|^alpha / max|w|^(1 - alpha)` for every input channel of a quantised layer behind
    /// a norm. Channels that are always 0 have the factor 1.
    fn factors(&self, seen: &Observations) -> Result<Vec<Option<Vec<f32>>>, QuantiseError> {
        let of = |(id, seen): (LinearId, &super::observations::Seen)| {
            let Some(alpha) = self.settings.smooth else { return Ok(None) };
            if self.settings.float.contains(&id) || id.norm_before().is_none() {
                return Ok(None);
            }
            let weight = self.float_rows(id, None)?.magnitudes();
            let of = |(x, w): (f32, f32)| match x.powf(alpha) / w.powf(1.0 - alpha) {
                factor if factor.is_finite() && factor > 0.0 => factor.clamp(1e-4, 1e4),
                _ => 1.0,
            };
            Ok(Some(seen.magnitudes().into_iter().zip(weight).map(of).collect()))
        };
        LinearId::all(&self.config).zip(&seen.linears).map(of).collect()
    }

    /// Opens the float weight of a layer.
    pub(super) fn float_rows<'a>(
        &'a self,
        id: LinearId,
        factors: Option<&'a [f32]>,
    ) -> Result<FloatRows<'a>, QuantiseError> {
        let [rows, width] = id.shape(&self.config);
        let view = self.source.tensor(&id.weight(), &[rows, width])?;
        Ok(FloatRows { view, factors, rows, width })
    }

    /// Determines the input quantisation of every layer.
    fn inputs(
        &self,
        seen: &Observations,
        factors: &[Option<Vec<f32>>],
        control: &mut Control<'_>,
    ) -> Result<Vec<StaticInput>, QuantiseError> {
        if !self.settings.scheme.has_static_inputs() {
            return Ok(Vec::new());
        }
        let stored = self.source.dtype();
        control.stage("ranges", "layers", seen.linears.len() as u64);
        let mut inputs = Vec::with_capacity(seen.linears.len());
        for ((id, seen), factors) in LinearId::all(&self.config).zip(&seen.linears).zip(factors) {
            control.check()?;
            let extremes = seen.range(factors.as_deref()).input(stored);
            let bounded = seen.histogram.as_ref().map(|histogram| histogram.best_range().input(stored));
            inputs.push(match (self.settings.method, bounded) {
                (ActMethod::Histogram, Some(bounded)) => bounded,
                // Layers that stay in float have inputs that nobody asks for.
                (ActMethod::Automatic, Some(bounded))
                    if bounded != extremes && !self.settings.float.contains(&id) =>
                {
                    self.better(id, factors.as_deref(), &seen.samples, [extremes, bounded])?
                }
                _ => extremes,
            });
            control.done(1);
        }
        Ok(inputs)
    }

    /// Returns the better of two input quantisations of a layer: the one with outputs closer to the float layer. If both
    /// are alike, returns the first.
    fn better(
        &self,
        id: LinearId,
        factors: Option<&[f32]>,
        samples: &[f32],
        [first, second]: [StaticInput; 2],
    ) -> Result<StaticInput, QuantiseError> {
        let float = self.float_rows(id, factors)?;
        let integers = IntegerRows::of(&float, self.settings.scheme, self.group_of(id))?;
        let errors = output_errors(&float, &integers, samples, &[first, second].map(InputForm::Static));
        drop(float);
        self.source.release(&id.weight());
        Ok(if errors[1].absolute < errors[0].absolute { second } else { first })
    }

    /// Returns the number of inputs of a layer that share a scale.
    pub(super) fn group_of(&self, id: LinearId) -> usize {
        match (self.settings.scheme, self.settings.group) {
            (Scheme::W4a16, group) if group > 0 => group,
            _ => id.shape(&self.config)[1],
        }
    }
}

/// Feeds a prompt in steps of [`STEP`] tokens. `logits` receives the rows of each step.
pub(super) fn run_prompt(
    model: &mut dyn Forward,
    prompt: &[u32],
    logits: &mut dyn FnMut(&[f32]),
) -> Result<(), QuantiseError> {
    let blocks: Vec<u32> = (0..prompt.len().div_ceil(KV_BLOCK_TOKENS) as u32).collect();
    let mut rows = Vec::new();
    for (step, tokens) in prompt.chunks(STEP).enumerate() {
        let start = step * STEP;
        let positions: Vec<u32> = (start as u32..(start + tokens.len()) as u32).collect();
        let logit_rows: Vec<usize> = (0..tokens.len()).collect();
        let view = SequenceView { rows: 0..tokens.len(), context: start + tokens.len(), blocks: &blocks };
        let input = StepInput { tokens, positions: &positions, sequences: &[view], logit_rows: &logit_rows };
        model.forward(&input, &mut rows)?;
        logits(&rows);
    }
    Ok(())
}
