//! A backend without a model: answers from a table, on a virtual clock.
//!
//! Tests of resume, load, searches and validity run against it where no engine is needed. Every number that it reports
//! follows from the script, so a test can state times to the nanosecond.

use std::collections::{HashMap, VecDeque};

use glmbench_device::sensors::Sensors;
use glmbench_device::{ClockProfile, DType, DeviceInfo};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::Capacity;
use glmbench_engine::profile::OperatorTime;
use glmbench_engine::{Completion, EngineError, FinishReason, Request, RequestId, Saved, Step, StepKind};

use super::{Backend, Capabilities};

/// Number type of a scripted backend.
pub const SCRIPTED_DTYPE: DType = DType::Fp32;

/// What a scripted backend says and how long it takes.
#[derive(Debug, Clone)]
pub struct Script {
    /// Answers by prompt. A prompt without one gets token 1, repeated.
    pub answers: HashMap<Vec<u32>, ScriptedAnswer>,
    /// Time of a prefill step for each prompt token, in nanoseconds.
    pub prefill_ns_per_token: u64,
    /// Time of a decode step, in nanoseconds.
    pub decode_ns: u64,
    /// Additional time of a decode step for each sequence, in nanoseconds.
    pub decode_ns_per_sequence: u64,
    /// Maximum number of sequences that run at once.
    pub max_batch: usize,
    /// What the backend can do.
    pub capabilities: Capabilities,
    /// Number of the step that fails, counted from 1; none fails if `None`. The backend has then failed for good.
    pub failing_step: Option<u64>,
    /// Returns the error of a step with this number of sequences, if any. The backend can go on.
    pub refuse: fn(usize) -> Option<EngineError>,
    /// Whether the clock moves while the backend is idle.
    pub idles: bool,
    /// The model's shape and what memory was taken for, if the backend is to know them.
    pub model: Option<(ModelConfig, Capacity)>,
}

impl Default for Script {
    /// 1,000 ns a prompt token, 10,000 ns a decode step, no limit of the batch. A script has no logits.
    fn default() -> Self {
        Self {
            answers: HashMap::new(),
            prefill_ns_per_token: 1_000,
            decode_ns: 10_000,
            decode_ns_per_sequence: 0,
            max_batch: usize::MAX,
            capabilities: Capabilities { logits: false, ..Capabilities::ALL },
            failing_step: None,
            refuse: |_| None,
            idles: true,
            model: None,
        }
    }
}

/// The answer to one prompt.
#[derive(Debug, Clone, Default)]
pub struct ScriptedAnswer {
    /// Generated tokens, without the end-of-sequence token.
    pub tokens: Vec<u32>,
    /// Log-probabilities of the requested choices.
    pub choice_logprobs: Vec<f32>,
    /// Log-probabilities of the scored prompt tokens.
    pub prompt_logprobs: Vec<f32>,
}

/// A backend that follows a [`Script`].
#[derive(Debug)]
pub struct Scripted {
    script: Script,
    now_ns: u64,
    next_id: RequestId,
    steps: u64,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    failed: bool,
}

#[derive(Debug)]
struct Sequence {
    id: RequestId,
    request: Request,
    answer: ScriptedAnswer,
    emitted: usize,
    start_ns: Option<u64>,
}

impl Sequence {
    /// Number of tokens that it generates.
    fn length(&self) -> usize {
        let most = self.request.max_new_tokens;
        if self.request.ignore_eos { most } else { self.answer.tokens.len().min(most) }
    }

    /// Token `index` of the output.
    fn token(&self, index: usize) -> u32 {
        self.answer.tokens.get(index).copied().unwrap_or(1)
    }

    fn complete(self, end_ns: u64) -> Completion {
        let length = self.length();
        Completion {
            id: self.id,
            tokens: (0..length).map(|index| self.token(index)).collect(),
            finish: if length < self.request.max_new_tokens {
                FinishReason::Eos
            } else {
                FinishReason::Length
            },
            text: None,
            choice_logprobs: self.answer.choice_logprobs,
            prompt_logprobs: self.answer.prompt_logprobs,
            start_ns: self.start_ns.unwrap_or(end_ns),
            end_ns,
        }
    }
}

impl Scripted {
    /// Creates an idle backend whose clock shows 0.
    pub fn new(script: Script) -> Self {
        Self {
            script,
            now_ns: 0,
            next_id: 0,
            steps: 0,
            waiting: VecDeque::new(),
            running: Vec::new(),
            failed: false,
        }
    }

    fn answer(&self, request: &Request) -> ScriptedAnswer {
        let filler =
            || ScriptedAnswer { tokens: vec![1; request.max_new_tokens], ..ScriptedAnswer::default() };
        let mut answer = self.script.answers.get(&request.prompt).cloned().unwrap_or_else(filler);
        // As many as were asked for, each less likely than the one before.
        let asked = request.choice_ids.len();
        let known = answer.choice_logprobs.len();
        answer.choice_logprobs.truncate(asked);
        answer.choice_logprobs.extend((known..asked).map(|index| -1.0 - index as f32));
        // Every token is as likely as any other.
        let scored = request.score_from.map_or(0, |from| request.prompt.len() - from);
        answer.prompt_logprobs.resize(scored, -1.0);
        answer
    }

    /// Number of waiting requests that the batch has room for.
    fn room(&self) -> usize {
        self.script.max_batch.saturating_sub(self.running.len()).min(self.waiting.len())
    }

    /// Feeds the prompts of waiting requests that the batch has room for. Each gets its first token.
    fn prefill(&mut self, step: &mut Step) {
        for mut sequence in self.waiting.drain(..self.room()).collect::<Vec<_>>() {
            sequence.start_ns = Some(step.start_ns);
            step.started.push(sequence.id);
            step.tokens += sequence.request.prompt.len();
            step.sequences += 1;
            self.running.push(sequence);
        }
        (step.kind, step.prompt_tokens) = (StepKind::Prefill, step.tokens);
        self.now_ns += self.script.prefill_ns_per_token * step.tokens as u64;
    }

    /// Gives every running sequence its next token.
    fn decode(&mut self, step: &mut Step) {
        let sequences = self.running.len();
        (step.kind, step.sequences, step.tokens) = (StepKind::Decode, sequences, sequences);
        self.now_ns += self.script.decode_ns + self.script.decode_ns_per_sequence * sequences as u64;
    }
}

impl Backend for Scripted {
    fn capabilities(&self) -> Capabilities {
        self.script.capabilities
    }

    fn device_info(&self) -> DeviceInfo {
        let clock = ClockProfile {
            name: "script".into(),
            sha256: "script".into(),
            memory_bytes_per_s: 0,
            matmul_flops_per_s: 0,
            title: "a test".into(),
            figures: Vec::new(),
            fits: Vec::new(),
        };
        DeviceInfo { modelled_by: Some(clock), ..DeviceInfo::plain("scripted", "none", 1, SCRIPTED_DTYPE) }
    }

    fn submit(&mut self, request: Request) -> Result<RequestId, EngineError> {
        if request.prompt.is_empty() {
            return Err(EngineError::Request("the prompt is empty".into()));
        }
        let id = self.next_id;
        self.next_id += 1;
        let answer = self.answer(&request);
        self.waiting.push_back(Sequence { id, request, answer, emitted: 0, start_ns: None });
        Ok(id)
    }

    fn step(&mut self) -> Result<Step, EngineError> {
        let start_ns = self.now_ns;
        let mut step = Step {
            kind: StepKind::Idle,
            start_ns,
            end_ns: start_ns,
            sequences: 0,
            tokens: 0,
            prompt_tokens: 0,
            saved: Saved::default(),
            started: Vec::new(),
            emitted: Vec::new(),
            details: Vec::new(),
            prompts: Vec::new(),
            finished: Vec::new(),
        };
        if self.is_idle() {
            return Ok(step);
        }
        self.steps += 1;
        if self.script.failing_step == Some(self.steps) {
            self.failed = true;
            return Err(EngineError::Option("the script fails here".into()));
        }
        let (old, new) = (self.running.len(), self.room());
        if let Some(error) = (self.script.refuse)(if new > 0 { new } else { old }) {
            return Err(error);
        }
        if new > 0 {
            self.prefill(&mut step);
        } else {
            self.decode(&mut step);
        }
        step.end_ns = self.now_ns;
        let taking_part = if step.kind == StepKind::Prefill { old..self.running.len() } else { 0..old };
        for sequence in &mut self.running[taking_part] {
            if sequence.emitted < sequence.length() {
                step.emitted.push((sequence.id, sequence.token(sequence.emitted)));
                sequence.emitted += 1;
            }
        }
        let (done, running) = std::mem::take(&mut self.running)
            .into_iter()
            .partition::<Vec<_>, _>(|sequence| sequence.emitted >= sequence.length());
        self.running = running;
        step.finished = done.into_iter().map(|sequence| sequence.complete(step.end_ns)).collect();
        Ok(step)
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.running.clear();
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn wait_until(&mut self, ns: u64) -> Result<(), EngineError> {
        if self.now_ns < ns && !self.script.idles {
            return Err(EngineError::Option("the script's clock does not move while it is idle".into()));
        }
        self.now_ns = self.now_ns.max(ns);
        Ok(())
    }

    fn start_afresh(&mut self) -> Result<(), EngineError> {
        self.clear();
        Ok(())
    }

    fn has_failed(&self) -> bool {
        self.failed
    }

    fn sensors(&self) -> Option<&dyn Sensors> {
        None
    }

    fn take_profile(&mut self) -> Vec<OperatorTime> {
        Vec::new()
    }

    fn model(&self) -> Option<(&ModelConfig, Capacity)> {
        self.script.model.as_ref().map(|(config, capacity)| (config, *capacity))
    }
}
