//! Continuous batching of ragged sequences: admit, prefill, decode, finish.
//!
//! Waiting requests are admitted in order while the batch has a free place and the KV cache has blocks for their whole
//! length. A running sequence therefore never runs out of blocks. A step is a prefill of as many prompt tokens as fit, or one
//! token of every running sequence, or both ([`Scheduling`]). If the request allows them, guesses of the next tokens are fed
//! with it. A sequence's results do not depend on the others; see the device's contract.

mod admit;
mod check;
mod clock;
mod force;
mod guess;
mod plan;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use glmbench_device::sensors::Sensors;
use glmbench_device::timed::OperatorClock;
use glmbench_device::{DeviceInfo, SequenceView};

use super::cache::BlockAllocator;
use super::config::ModelConfig;
use super::model::{Capacity, Forward, StepInput};
use super::profile::{OperatorTime, Profile};
use super::sequence::{Choosing, Sequence};
use super::tokenizer::Tokenizer;
use super::weights::packed::PackCache;
use super::weights::watch::WeightFault;
use super::{EngineError, FinishReason, Occupancy, Request, RequestId, Saved, Step, StepKind};

pub use self::force::Forced;
use self::guess::Guessing;
use self::plan::{Part, Plan};

pub use self::plan::Scheduling;

/// A loaded model with its queue of sequences.
pub struct Engine {
    model: Box<dyn Forward>,
    allocator: BlockAllocator,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    next_id: RequestId,
    clock: Instant,
    logits: Vec<f32>,
    /// Time per operator, if the device is timed.
    profile: Option<Profile>,
    weight_faults: Option<Vec<WeightFault>>,
    pack_cache: Option<PackCache>,
    /// Decodes outputs whose text matters.
    tokenizer: Option<Arc<Tokenizer>>,
    scheduling: Scheduling,
    /// Prefill steps since the last step that decoded.
    prefills: usize,
    guessing: Guessing,
    /// [`DeviceInfo::rows_are_independent`].
    rows_are_independent: bool,
    /// [`DeviceInfo::chunks_are_independent`].
    chunks_are_independent: bool,
}

impl Engine {
    /// Creates an engine for a loaded model.
    pub fn new(model: Box<dyn Forward>) -> Self {
        let allocator = BlockAllocator::new(model.capacity().kv_blocks);
        let DeviceInfo { rows_are_independent, chunks_are_independent, .. } = model.device_info();
        Self {
            model,
            allocator,
            waiting: VecDeque::new(),
            running: Vec::new(),
            next_id: 0,
            clock: Instant::now(),
            logits: Vec::new(),
            profile: None,
            weight_faults: None,
            pack_cache: None,
            tokenizer: None,
            scheduling: Scheduling::default(),
            prefills: 0,
            guessing: Guessing::new(rows_are_independent),
            rows_are_independent,
            chunks_are_independent,
        }
    }

    /// Like [`Engine::new`], for a model on a timed device ([`glmbench_device::timed`]) that counts into `clock`.
    pub fn profiled(model: Box<dyn Forward>, clock: Arc<OperatorClock>) -> Self {
        Self { profile: Some(Profile::new(clock)), ..Self::new(model) }
    }

    /// Returns each operator's totals since the last call; empty if the device is not timed.
    pub fn take_profile(&mut self) -> Vec<OperatorTime> {
        self.profile.as_mut().map(Profile::take).unwrap_or_default()
    }

    /// Returns the weights found during loading that are NaN, or infinite in the run's type. `None` if no weights were
    /// read.
    pub fn weight_faults(&self) -> Option<&[WeightFault]> {
        self.weight_faults.as_deref()
    }

    /// Sets the weight faults found during loading.
    pub(super) fn set_weight_faults(&mut self, faults: Vec<WeightFault>) {
        self.weight_faults = Some(faults);
    }

    /// Returns what became of the cache of packed weights; `None` if none was asked for.
    pub fn pack_cache(&self) -> Option<&PackCache> {
        self.pack_cache.as_ref()
    }

    /// Sets what became of the cache of packed weights.
    pub(super) fn set_pack_cache(&mut self, pack_cache: PackCache) {
        self.pack_cache = Some(pack_cache);
    }

    /// Sets the tokenizer that decodes outputs. Requests with stop texts need it.
    pub fn set_tokenizer(&mut self, tokenizer: Arc<Tokenizer>) {
        self.tokenizer = Some(tokenizer);
    }

    /// Sets how prompts share the steps with the sequences that decode. Returns what applies. Mixed steps need a device whose rows
    /// and chunks are independent, or results would depend on what runs beside a sequence. Other devices
    /// [alternate](Scheduling::ALTERNATING).
    pub fn set_scheduling(&mut self, wanted: Scheduling) -> Scheduling {
        let can_mix = self.rows_are_independent && self.chunks_are_independent;
        self.scheduling = match wanted {
            Scheduling::Mixed(_) if !can_mix => Scheduling::ALTERNATING,
            other => other,
        };
        self.scheduling
    }

    /// Returns the model's shape.
    pub fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    /// Returns the capacity that the model was loaded for.
    pub fn capacity(&self) -> Capacity {
        self.model.capacity()
    }

    /// Describes the device.
    pub fn device_info(&self) -> DeviceInfo {
        self.model.device_info()
    }

    /// Whether an error has ended the model ([`Forward::has_failed`]).
    pub fn has_failed(&self) -> bool {
        self.model.has_failed()
    }

    /// Returns the devices' sensors; `None` if there are none that this program reads.
    pub fn sensors(&self) -> Option<&dyn Sensors> {
        self.model.sensors()
    }

    /// Queues a request.
    ///
    /// # Errors
    /// The model can never run this request: its prompt is empty, a token is unknown, or the sequence is too long.
    pub fn submit(&mut self, mut request: Request) -> Result<RequestId, EngineError> {
        self.check(&request)?;
        request.savings.shared_prefixes &= self.chunks_are_independent;
        if !request.savings.shared_prefixes {
            // It finds the cache as in a new process, whatever ran before.
            self.allocator.drop_cached();
        }
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.push_back(Sequence::new(id, request));
        Ok(id)
    }

    /// Whether no sequence is waiting or running.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Drops one sequence and frees its blocks. Returns whether it was waiting or running.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        if let Some(index) = self.running.iter().position(|sequence| sequence.id == id) {
            let sequence = self.running.remove(index);
            self.allocator.give(sequence.blocks);
            return true;
        }
        let waiting = self.waiting.len();
        self.waiting.retain(|sequence| sequence.id != id);
        self.waiting.len() < waiting
    }

    /// Returns how many sequences and KV-cache blocks are in use.
    pub fn occupancy(&self) -> Occupancy {
        let kv_blocks = self.model.capacity().kv_blocks;
        Occupancy {
            waiting: self.waiting.len(),
            running: self.running.len(),
            kv_blocks_used: kv_blocks - self.allocator.free(),
            kv_blocks,
        }
    }

    /// Drops all sequences, and what the KV cache keeps of earlier ones.
    pub fn clear(&mut self) {
        self.waiting.clear();
        for sequence in std::mem::take(&mut self.running) {
            self.allocator.give(sequence.blocks);
        }
        self.allocator.drop_cached();
    }

    /// Drops all sequences and what the device keeps from earlier work ([`Device::release_cached`]). Later work then
    /// takes the same time and memory as in a new process.
    ///
    /// [`Device::release_cached`]: glmbench_device::Device::release_cached
    ///
    /// # Errors
    /// Errors of the device.
    pub fn start_afresh(&mut self) -> Result<(), EngineError> {
        self.clear();
        self.model.release_cached()
    }

    /// Runs one step.
    pub fn step(&mut self) -> Result<Step, EngineError> {
        let start_ns = self.now_ns();
        let reused = self.admit()?;
        let plan = self.plan();
        let (kind, Plan { parts, prompt_tokens }) = (plan.kind(), plan);
        self.prefills = if kind == StepKind::Prefill { self.prefills + 1 } else { 0 };
        let tokens = parts.iter().map(|p| p.rows.len()).sum();
        let sequences = parts.len();
        let mut step = Step {
            kind,
            start_ns,
            end_ns: start_ns,
            sequences,
            tokens,
            prompt_tokens,
            saved: Saved { reused, guessed: parts.iter().map(|p| p.guesses.len()).sum(), accepted: 0 },
            started: Vec::new(),
            emitted: Vec::new(),
            details: Vec::new(),
            prompts: Vec::new(),
            finished: Vec::new(),
        };
        if parts.is_empty() {
            // Every request fits an empty cache, so this cannot happen. An error is better than a caller that waits
            // forever.
            return if self.waiting.is_empty() { Ok(step) } else { Err(no_blocks()) };
        }
        self.forward(&parts)?;
        let mut finished = self.collect(&parts, start_ns, &mut step);
        // Sequences are removed by their places, the last first.
        finished.sort_unstable_by_key(|(index, _)| *index);
        step.end_ns = self.now_ns();
        match kind {
            StepKind::Decode => self.guessing.note(tokens, step.end_ns - start_ns, step.saved),
            // Rows of prompts have other costs, so the duration says nothing of decoding steps.
            StepKind::Mixed => self.guessing.note_outcome(step.saved),
            StepKind::Prefill | StepKind::Idle => {}
        }
        if let Some(profile) = &mut self.profile {
            profile.step(kind, step.end_ns - start_ns);
        }
        self.retire(&finished, &mut step);
        Ok(step)
    }

    fn forward(&mut self, parts: &[Part]) -> Result<(), EngineError> {
        let prefix = self.model.config().pre_seq_len.unwrap_or(0);
        let mut tokens = Vec::new();
        let mut positions = Vec::new();
        let mut views = Vec::new();
        let mut logit_rows = Vec::new();
        for part in parts {
            let sequence = &self.running[part.index];
            let end = sequence.fed + part.rows.len();
            let known = end.min(sequence.tokens.len());
            tokens.extend_from_slice(&sequence.tokens[sequence.fed..known]);
            tokens.extend_from_slice(&part.guesses);
            positions.extend(sequence.fed as u32..end as u32);
            views.push(SequenceView {
                rows: part.rows.clone(),
                context: prefix + end,
                blocks: &sequence.blocks,
            });
            logit_rows.extend(part.rows.end - part.logits..part.rows.end);
        }
        let input =
            StepInput { tokens: &tokens, positions: &positions, sequences: &views, logit_rows: &logit_rows };
        self.model.forward(&input, &mut self.logits)
    }

    /// Chooses each sequence's next tokens. Returns the sequences that ended, and why.
    fn collect(&mut self, parts: &[Part], start_ns: u64, step: &mut Step) -> Vec<(usize, FinishReason)> {
        let config = self.model.config();
        let of = Choosing { config, tokenizer: self.tokenizer.as_deref() };
        let prefix = config.pre_seq_len.unwrap_or(0);
        let mut rest = &self.logits[..];
        let mut finished = Vec::new();
        for part in parts {
            let sequence = &mut self.running[part.index];
            if sequence.start_ns.is_none() {
                sequence.start_ns = Some(start_ns);
                step.started.push(sequence.id);
            }
            let (rows, others) = rest.split_at(part.logits * config.padded_vocab_size);
            let rows = rows.chunks_exact(config.padded_vocab_size);
            rest = others;
            let finish = if sequence.prompt_left() == 0 {
                sequence.verify(&part.guesses, rows, &of, step)
            } else {
                let finish = sequence.read(part.rows.len(), rows, &of, step);
                // What comes after broken numbers is broken, too.
                let is_good = !matches!(finish, Some(FinishReason::BrokenLogits(_)));
                if sequence.request.savings.shared_prefixes && is_good {
                    self.allocator.publish(&sequence.content(prefix), &sequence.blocks);
                }
                finish
            };
            finished.extend(finish.map(|reason| (part.index, reason)));
        }
        finished
    }

    /// Turns ended sequences into completions and frees their blocks.
    fn retire(&mut self, finished: &[(usize, FinishReason)], step: &mut Step) {
        let prefix = self.model.config().pre_seq_len.unwrap_or(0);
        for &(index, finish) in finished.iter().rev() {
            let sequence = self.running.remove(index);
            // What comes after broken numbers is broken, too.
            let is_good = !matches!(finish, FinishReason::BrokenLogits(_));
            let kept =
                (sequence.request.savings.shared_prefixes && is_good).then(|| sequence.content(prefix));
            let (completion, blocks) = sequence.complete(finish, step);
            match kept {
                Some(content) => self.allocator.keep(&content, blocks),
                None => self.allocator.give(blocks),
            }
            step.finished.push(completion);
        }
        step.finished.reverse();
    }
}

fn no_blocks() -> EngineError {
    EngineError::Option("the KV cache has no free blocks".into())
}
