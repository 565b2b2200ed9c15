//! Continuous batching of ragged sequences: admit, prefill, decode, finish.
//!
//! Waiting requests are admitted in order while the batch has a free place and the KV cache has blocks for their whole
//! length. A running sequence therefore never runs out of blocks. A step is either a prefill of as many prompt tokens
//! as fit, or one token of every running sequence. Prefill comes first; [`Engine::set_prefill_run`] bounds how long the
//! running sequences wait for it. A sequence's results do not depend on the others; see the device's
//! contract.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glmbench_device::sensors::Sensors;
use glmbench_device::timed::OperatorClock;
use glmbench_device::{DeviceInfo, SequenceView};

use super::cache::{BlockAllocator, blocks_for};
use super::config::ModelConfig;
use super::model::{Capacity, Forward, StepInput};
use super::profile::{OperatorTime, Profile};
use super::sequence::{Choosing, Sequence};
use super::tokenizer::Tokenizer;
use super::weights::watch::WeightFault;
use super::{EngineError, FinishReason, Occupancy, Request, RequestId, Step, StepKind};

/// The last part of a wait, which spins instead of sleeping.
const SPIN: Duration = Duration::from_micros(200);

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
    /// Decodes outputs whose text matters.
    tokenizer: Option<Arc<Tokenizer>>,
    /// Most prefill steps in a row while a sequence waits to decode.
    prefill_run: Option<usize>,
    /// Prefill steps since the last decoding step.
    prefills: usize,
}

/// Rows of one sequence in a step, before block tables are borrowed.
struct Part {
    index: usize,
    rows: std::ops::Range<usize>,
    /// Number of rows, from the last backwards, to return logits of.
    logits: usize,
}

impl Engine {
    /// Creates an engine for a loaded model.
    pub fn new(model: Box<dyn Forward>) -> Self {
        let allocator = BlockAllocator::new(model.capacity().kv_blocks);
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
            tokenizer: None,
            prefill_run: None,
            prefills: 0,
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

    /// Sets the tokenizer that decodes outputs. Requests with stop texts need it.
    pub fn set_tokenizer(&mut self, tokenizer: Arc<Tokenizer>) {
        self.tokenizer = Some(tokenizer);
    }

    /// Sets after how many prefill steps in a row the running sequences get a decoding step. `None`, the default, lets
    /// them wait until all prompts are prefilled. No result depends on it, only the order of the steps.
    pub fn set_prefill_run(&mut self, steps: Option<usize>) {
        self.prefill_run = steps;
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

    /// Returns the nanoseconds on the engine's clock: the device's virtual clock if it has one, else real time.
    pub fn now_ns(&self) -> u64 {
        self.model.modelled_ns().unwrap_or_else(|| self.clock.elapsed().as_nanos() as u64)
    }

    /// Idles until [`Engine::now_ns`] reaches `ns`: the thread sleeps, or the device advances its virtual clock.
    ///
    /// # Errors
    /// The device has a virtual clock that does not advance while idle.
    pub fn wait_until(&mut self, ns: u64) -> Result<(), EngineError> {
        let Some(now_ns) = self.model.modelled_ns() else {
            self.sleep_until(ns);
            return Ok(());
        };
        self.model.idle(ns.saturating_sub(now_ns));
        if self.now_ns() < ns {
            let device = self.model.device_info().name;
            return Err(EngineError::Option(format!(
                "device {device} keeps a virtual clock that does not move while it is idle; arrivals over time need one that does"
            )));
        }
        Ok(())
    }

    /// Sleeps most of the wait and spins for the rest, because a sleep ends some tens of microseconds late.
    fn sleep_until(&self, ns: u64) {
        let left = Duration::from_nanos(ns.saturating_sub(self.now_ns()));
        if let Some(sleep) = left.checked_sub(SPIN) {
            std::thread::sleep(sleep);
        }
        while self.now_ns() < ns {
            std::hint::spin_loop();
        }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// The model can never run this request: its prompt is empty, a token is unknown, or the sequence is too long.
    pub fn submit(&mut self, request: Request) -> Result<RequestId, EngineError> {
        self.check(&request)?;
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

    /// Drops all sequences.
    pub fn clear(&mut self) {
        self.waiting.clear();
        for sequence in std::mem::take(&mut self.running) {
            self.allocator.give(sequence.blocks);
        }
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
        self.admit()?;
        let (kind, parts) = self.plan();
        self.prefills = if kind == StepKind::Prefill { self.prefills + 1 } else { 0 };
        let tokens = parts.iter().map(|p| p.rows.len()).sum();
        let sequences = parts.len();
        let mut step = Step {
            kind,
            start_ns,
            end_ns: start_ns,
            sequences,
            tokens,
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
        let finished = self.collect(&parts, start_ns, &mut step);
        step.end_ns = self.now_ns();
        if let Some(profile) = &mut self.profile {
            profile.step(kind, step.end_ns - start_ns);
        }
        self.retire(&finished, &mut step);
        Ok(step)
    }

    fn check(&self, request: &Request) -> Result<(), EngineError> {
        let config = self.model.config();
        let limits = self.model.capacity();
        let refuse = |problem: String| Err(EngineError::Request(problem));
        if request.prompt.is_empty() {
            return refuse("the prompt is empty".into());
        }
        let known = config.padded_vocab_size;
        let ids = [&request.prompt[..], &request.choice_ids, &request.stop.ids, &request.report.ids];
        if let Some(id) = ids.into_iter().flatten().find(|&&id| id as usize >= known) {
            return refuse(format!("token {id} is outside the model's vocabulary of {known}"));
        }
        if !request.stop.texts.is_empty() && self.tokenizer.is_none() {
            return refuse("the engine has no tokenizer, so it cannot watch for stop texts".into());
        }
        let length = request.prompt.len().saturating_add(request.max_new_tokens);
        if length > config.seq_length {
            return refuse(format!(
                "prompt of {} and {} new tokens exceed the model's seq_length {}",
                request.prompt.len(),
                request.max_new_tokens,
                config.seq_length
            ));
        }
        let context = length + config.pre_seq_len.unwrap_or(0);
        if context > limits.max_context || blocks_for(context) > limits.kv_blocks {
            return refuse(format!(
                "prompt of {} and {} new tokens exceed the {} tokens that memory was taken for",
                request.prompt.len(),
                request.max_new_tokens,
                limits.max_context
            ));
        }
        Ok(())
    }

    fn admit(&mut self) -> Result<(), EngineError> {
        let prefix = self.model.config().pre_seq_len.unwrap_or(0);
        while self.running.len() < self.model.capacity().max_batch {
            let Some(next) = self.waiting.front() else { break };
            let length = prefix + next.request.prompt.len() + next.request.max_new_tokens;
            let Some(blocks) = self.allocator.take(length) else { break };
            if let Err(error) = self.model.write_prefix(&blocks) {
                self.allocator.give(blocks);
                return Err(error);
            }
            if let Some(mut sequence) = self.waiting.pop_front() {
                sequence.blocks = blocks;
                self.running.push(sequence);
            }
        }
        Ok(())
    }

    /// Plans prompt chunks while any prompt is unfinished, else one token of every sequence.
    fn plan(&self) -> (StepKind, Vec<Part>) {
        let decode = self.plan_decode();
        let is_decodes_turn = self.prefill_run.is_some_and(|most| self.prefills >= most);
        if is_decodes_turn && !decode.is_empty() {
            return (StepKind::Decode, decode);
        }
        let prefill = self.plan_prefill();
        if !prefill.is_empty() {
            return (StepKind::Prefill, prefill);
        }
        let kind = if decode.is_empty() { StepKind::Idle } else { StepKind::Decode };
        (kind, decode)
    }

    /// Plans as many prompt tokens as fit.
    fn plan_prefill(&self) -> Vec<Part> {
        let limits = self.model.capacity();
        let mut parts = Vec::new();
        let (mut row, mut logits_left) = (0, limits.max_logit_rows);
        for (index, sequence) in self.running.iter().enumerate() {
            let left = sequence.prompt_left();
            let mut count = left.min(limits.max_step_tokens - row);
            let wanted = if sequence.request.report.prompt.is_some() {
                count = count.min(logits_left);
                count
            } else {
                usize::from(count == left)
            };
            let logits = wanted.min(logits_left);
            // The last row waits for a step that can return its logits.
            count -= wanted - logits;
            if count > 0 {
                parts.push(Part { index, rows: row..row + count, logits });
                row += count;
                logits_left -= logits;
            }
        }
        parts
    }

    /// Plans one token of every sequence whose prompt is fed.
    fn plan_decode(&self) -> Vec<Part> {
        let fed = self.running.iter().enumerate().filter(|(_, sequence)| sequence.prompt_left() == 0);
        let rows = fed.take(self.model.capacity().max_step_tokens).enumerate();
        rows.map(|(row, (index, _))| Part { index, rows: row..row + 1, logits: 1 }).collect()
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
            tokens.extend_from_slice(&sequence.tokens[sequence.fed..end]);
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

    /// Chooses each sequence's next token. Returns the sequences that ended, and why.
    fn collect(&mut self, parts: &[Part], start_ns: u64, step: &mut Step) -> Vec<(usize, FinishReason)> {
        let config = self.model.config();
        let of = Choosing { config, tokenizer: self.tokenizer.as_deref() };
        let mut rows = self.logits.chunks_exact(config.padded_vocab_size);
        let mut finished = Vec::new();
        for part in parts {
            let sequence = &mut self.running[part.index];
            sequence.start_ns.get_or_insert(start_ns);
            sequence.fed += part.rows.len();
            let mut finish = None;
            let (mut position, mut last) = (sequence.fed - part.logits, None);
            for logits in rows.by_ref().take(part.logits) {
                finish = finish.or_else(|| sequence.note_prompt(position, logits));
                position += 1;
                last = Some(logits);
            }
            if let Some(logits) = last.filter(|_| finish.is_none() && sequence.prompt_left() == 0) {
                if sequence.fed == sequence.request.prompt.len() {
                    sequence.note_choices(logits);
                    step.prompts.extend(sequence.take_prompt_detail());
                }
                finish = sequence.advance(logits, &of, step);
            }
            finished.extend(finish.map(|reason| (part.index, reason)));
        }
        finished
    }

    /// Turns ended sequences into completions and frees their blocks.
    fn retire(&mut self, finished: &[(usize, FinishReason)], step: &mut Step) {
        for &(index, finish) in finished.iter().rev() {
            let (completion, blocks) = self.running.remove(index).complete(finish, step);
            self.allocator.give(blocks);
            step.finished.push(completion);
        }
        step.finished.reverse();
    }

    /// Feeds `tokens` in chunks and passes the logits of every position to `each(position, logits)`. The engine must
    /// be idle.
    pub fn teacher_force(
        &mut self,
        tokens: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        if !self.is_idle() {
            return Err(EngineError::Request("sequences are running".into()));
        }
        let probe = Request { prompt: tokens.to_vec(), ..Request::probe() };
        self.check(&probe)?;
        let prefix = self.model.config().pre_seq_len.unwrap_or(0);
        let blocks = self.allocator.take(prefix + tokens.len()).ok_or_else(no_blocks)?;
        let result = self.feed(tokens, &blocks, each);
        self.allocator.give(blocks);
        result
    }

    /// Feeds one sequence in chunks and passes on the logits of every row.
    fn feed(
        &mut self,
        tokens: &[u32],
        blocks: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let limits = self.model.capacity();
        let prefix = self.model.config().pre_seq_len.unwrap_or(0);
        let vocab = self.model.config().padded_vocab_size;
        self.model.write_prefix(blocks)?;
        let chunk = limits.max_step_tokens.min(limits.max_logit_rows);
        for begin in (0..tokens.len()).step_by(chunk) {
            let end = tokens.len().min(begin + chunk);
            let positions: Vec<u32> = (begin as u32..end as u32).collect();
            let rows: Vec<usize> = (0..end - begin).collect();
            let view = SequenceView { rows: 0..end - begin, context: prefix + end, blocks };
            let input = StepInput {
                tokens: &tokens[begin..end],
                positions: &positions,
                sequences: &[view],
                logit_rows: &rows,
            };
            self.model.forward(&input, &mut self.logits)?;
            for (row, logits) in self.logits.chunks_exact(vocab).enumerate() {
                each(begin + row, logits);
            }
        }
        Ok(())
    }
}

fn no_blocks() -> EngineError {
    EngineError::Option("the KV cache has no free blocks".into())
}
