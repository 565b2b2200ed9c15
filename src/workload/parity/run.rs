//! A parity case: both engines are fed the same tokens, prompt by prompt, and the distributions of the next token are compared.
//!
//! The reference is loaded when the case begins and dropped when it ends, beside the engine of the run.

use std::ffi::OsString;
use std::sync::Arc;

use glmbench_device::{DeviceKind, Precision};

use glmbench_engine::model::Capacity;
use glmbench_engine::{Engine, EngineError};

use super::record::{ParityCase, ParityRecord, ReferenceCase};
use super::schema::ParityTable;
use crate::backend::Capabilities;
use crate::bench::{LOGIT_ROWS, OrdinaryTokens, Shape, compare_logits, continuation, prompts};
use crate::compute::Compute;
use crate::record::Word;
use crate::run::cases::{Case, Planning, Recording, Room, Workload};
use crate::run::duration::Counted;
use crate::run::found::FoundModel;
use crate::run::questions::input_hash;
use crate::run::{Ending, RunError, Session};
use crate::stats::parity::PositionParity;
use crate::text::one_line;

/// A parity case that is ready to run.
#[derive(Debug, Clone)]
pub struct ParityRun {
    /// The name within a run.
    pub parity_id: String,
    /// Number of prompts.
    pub count: usize,
    /// Tokens of the longest sequence: prompt and continuation.
    pub tokens: usize,
    /// Real prompts; `None` for random tokens.
    pub prompts: Option<Vec<Vec<u32>>>,
    /// Where the prompts are from, in words.
    pub source: String,
    /// Tokens of a random prompt.
    pub input_tokens: usize,
    /// Tokens of the reference's greedy continuation.
    pub continuation: usize,
    /// Seed of the random tokens.
    pub seed: u64,
    /// Number of tensor-parallel ranks.
    pub tp: usize,
    /// Device of the reference.
    pub device: DeviceKind,
    /// Wanted type of the reference. A quantised checkpoint has a form of its own.
    pub dtype: Precision,
    /// Model of the reference, as a value of `--model`.
    pub model: OsString,
    /// The reference; `None` before it is looked for, and on a server.
    pub reference: Option<Arc<Reference>>,
    /// Why the case does not run; `None` if it runs.
    pub unfit: Option<String>,
}

/// What a run is compared with: found, not loaded.
#[derive(Debug)]
pub struct Reference {
    /// The model's name for records.
    pub name: String,
    /// The model.
    pub model: FoundModel,
    /// How it computes.
    pub compute: Compute,
    /// The capacity that it is loaded with.
    pub capacity: Capacity,
    /// Memory that it takes on this host, by estimate.
    pub bytes: u64,
}

impl Case for ParityRun {
    fn id(&self) -> String {
        self.parity_id.clone()
    }

    fn tp(&self) -> usize {
        self.tp
    }

    fn room(&self) -> Room {
        Room { optional: true, logit_rows: LOGIT_ROWS, ..Room::of(1, self.tokens) }
    }

    fn host_bytes(&self) -> u64 {
        self.reference.as_ref().map_or(0, |reference| reference.bytes)
    }

    fn unfit(&self) -> Option<&str> {
        self.unfit.as_deref()
    }

    fn leave_out(&mut self, reason: String) {
        self.unfit = Some(reason);
    }

    fn needs(&self, _: Capabilities) -> Capabilities {
        Capabilities { logits: true, ..Capabilities::NONE }
    }

    fn input_hash(&self) -> Option<String> {
        self.prompts.as_ref().map(|prompts| input_hash(prompts.iter()))
    }

    fn prompts(&self) -> Option<String> {
        self.prompts.as_ref().map(|_| format!("{}: {}", self.parity_id, self.source))
    }

    fn words(&self) -> Vec<String> {
        let against = match &self.reference {
            Some(of) => format!("{} on {} in {}", of.name, of.compute.device.name(), of.compute.precision),
            None => format!("{} in {}", self.device.name(), self.dtype),
        };
        vec![
            format!("parity    {}: logits against {}", self.parity_id, one_line(&against)),
            format!(
                "          {}, each with {} tokens of the reference's continuation",
                one_line(&self.source),
                self.continuation
            ),
        ]
    }

    /// Counts the run's own passes: those of the reference are the same for each shard.
    fn work(&self, on: Counted<'_>) -> u64 {
        let shape = Shape { batch: 1, input_tokens: self.tokens, output_tokens: 1 };
        on.work(shape).saturating_mul(self.count as u64)
    }
}

impl Workload for ParityRun {
    type Table = ParityTable;
    type Recorded = ParityCase;

    fn plan(tables: &[ParityTable], on: Planning<'_>) -> Result<Vec<Self>, String> {
        super::plan::plan(tables, on)
    }

    fn record(&self, _: Recording<'_>) -> ParityCase {
        let of = self.reference.as_deref();
        let dtype = of.map_or(self.dtype, |of| of.compute.precision);
        ParityCase {
            parity_id: self.parity_id.clone(),
            tp: self.tp as u32,
            reference: ReferenceCase {
                model: of.map_or_else(|| self.model.to_string_lossy().into_owned(), |of| of.name.clone()),
                device: self.device.name().into(),
                dtype: Word::of(dtype),
            },
            prompts: self.count as u32,
            source: self.source.clone(),
            continuation: self.continuation as u32,
            seed: self.prompts.is_none().then_some(self.seed),
            unfit: self.unfit.clone(),
        }
    }

    fn is_done(&self, lines: &[ParityRecord]) -> bool {
        lines.len() >= self.count
    }

    fn run(&self, tokens: &OrdinaryTokens, session: &mut Session<'_>) -> Result<Ending, RunError> {
        run(self, tokens, session)
    }
}

impl ParityRun {
    /// Returns the prompts. Random ones are drawn from `tokens`.
    fn fed(&self, tokens: &OrdinaryTokens) -> Vec<Vec<u32>> {
        let shape = Shape { batch: self.count, input_tokens: self.input_tokens, output_tokens: 0 };
        self.prompts.clone().unwrap_or_else(|| prompts(shape, tokens, self.seed))
    }
}

/// Compares the prompts that have no line yet.
fn run(case: &ParityRun, tokens: &OrdinaryTokens, session: &mut Session<'_>) -> Result<Ending, RunError> {
    let id = &case.parity_id;
    session.dir.restore::<ParityCase>(id)?;
    let there = session.dir.read::<ParityCase>()?.iter().filter(|line| line.parity_id == *id).count();
    if there >= case.count {
        return Ok(Ending::Complete);
    }
    if session.stopped() {
        return Ok(Ending::Interrupted);
    }
    let mut loaded = Loaded::new(case, session)?;
    session.observer.begin(id, "prompts", case.count as u64, there as u64);
    let ending = compare_all(case, &case.fed(tokens)[there..], there, &mut loaded, session);
    session.observer.end();
    ending
}

fn compare_all(
    case: &ParityRun,
    prompts: &[Vec<u32>],
    there: usize,
    loaded: &mut Loaded,
    session: &mut Session<'_>,
) -> Result<Ending, RunError> {
    for (prompt, index) in prompts.iter().zip(there as u32..) {
        if session.stopped() {
            return Ok(Ending::Interrupted);
        }
        // Modelled times of a prompt do not depend on those before it, which an earlier process may have fed.
        session.start_afresh()?;
        let line = loaded.compare(case, index, prompt, session)?;
        session.dir.append::<ParityCase>(&line)?;
        session.observer.advance();
    }
    Ok(Ending::Complete)
}

/// The reference's engine, and the hash of its weights.
struct Loaded {
    engine: Engine,
    weights: String,
}

impl Loaded {
    fn new(case: &ParityRun, session: &mut Session<'_>) -> Result<Self, RunError> {
        let unknown = || EngineError::Option(format!("{}: its reference is not known", case.parity_id));
        let Reference { model, compute, capacity, .. } = case.reference.as_deref().ok_or_else(unknown)?;
        let weights = model.fingerprint(compute.precision.dtype, false, session.observer)?;
        session.observer.say(&format!("{}: the reference is loaded beside the model", case.parity_id));
        Ok(Self { engine: model.load(compute, *capacity, session.observer)?, weights })
    }

    /// Compares one prompt. Numbers that break down are the prompt's error, and other prompts go on.
    fn compare(
        &mut self,
        case: &ParityRun,
        index: u32,
        prompt: &[u32],
        session: &mut Session<'_>,
    ) -> Result<ParityRecord, RunError> {
        let mut line = ParityRecord {
            parity_id: case.parity_id.clone(),
            prompt: index,
            clock: session.clock(),
            reference: self.weights.clone(),
            kl: Vec::new(),
            top1_equal: 0,
            error: None,
            end_ns: 0,
        };
        match self.positions(case, index, prompt, session) {
            Ok(positions) => {
                line.top1_equal = positions.iter().filter(|position| position.top1_equal).count() as u32;
                line.kl = positions.into_iter().map(|position| position.kl).collect();
            }
            Err(error @ (EngineError::NotFinite { .. } | EngineError::Request(_))) => {
                line.error = Some(error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        line.end_ns = session.run_ns(session.engine.now_ns());
        Ok(line)
    }

    fn positions(
        &mut self,
        case: &ParityRun,
        index: u32,
        prompt: &[u32],
        session: &mut Session<'_>,
    ) -> Result<Vec<PositionParity>, EngineError> {
        let mut fed = prompt.to_vec();
        if case.continuation > 0 {
            fed.extend(continuation(&mut self.engine, prompt, case.continuation)?);
        }
        let mut positions = Vec::with_capacity(fed.len());
        let of = format!("prompt {index}");
        compare_logits(&mut self.engine, session.engine, &fed, &of, &mut |_, theirs, ours| {
            positions.push(PositionParity::new(theirs, ours));
        })?;
        Ok(positions)
    }
}
