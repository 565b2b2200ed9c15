//! A toy case: plans it, and runs the tosses that have no line yet.

use super::record::{Toss, ToyCase};
use super::schema::ToyTable;
use crate::backend::Capabilities;
use crate::bench::{OrdinaryTokens, Shape, prompts, repeat};
use crate::run::cases::{Case, Planning, Recording, Room, Workload, fits_model};
use crate::run::{Ending, RunError, Session};

/// A toy case that is ready to run.
#[derive(Debug)]
pub struct ToyRun {
    shape: Shape,
    tosses: usize,
    tp: usize,
}

impl Case for ToyRun {
    fn id(&self) -> String {
        let ranks = if self.tp == 1 { String::new() } else { format!("-tp{}", self.tp) };
        format!("toy-i{}{ranks}", self.shape.input_tokens)
    }

    fn tp(&self) -> usize {
        self.tp
    }

    fn room(&self) -> Room {
        Room::of(1, self.shape.sequence_tokens())
    }

    fn needs(&self, _: Capabilities) -> Capabilities {
        Capabilities { ignores_end: true, ..Capabilities::NONE }
    }

    fn words(&self) -> Vec<String> {
        vec![format!("toy       {}: {} tosses", self.id(), self.tosses)]
    }
}

impl Workload for ToyRun {
    type Table = ToyTable;
    type Recorded = ToyCase;

    fn plan(tables: &[ToyTable], on: Planning<'_>) -> Result<Vec<Self>, String> {
        let mut runs = Vec::new();
        for table in tables {
            let shape = Shape { batch: 1, input_tokens: table.input_tokens, output_tokens: 2 };
            let of_tp = |&tp: &usize| Self { shape, tosses: table.tosses, tp };
            for run in table.scope.tp_ranks.iter().map(of_tp) {
                fits_model(&run.id(), shape.sequence_tokens(), on.config)?;
                runs.push(run);
            }
        }
        Ok(runs)
    }

    fn record(&self, _: Recording<'_>) -> ToyCase {
        ToyCase { toy_id: self.id(), tp: self.tp as u32, tosses: self.tosses as u32 }
    }

    fn is_done(&self, lines: &[Toss]) -> bool {
        lines.len() >= self.tosses
    }

    fn run(&self, tokens: &OrdinaryTokens, session: &mut Session<'_>) -> Result<Ending, RunError> {
        let id = self.id();
        session.dir.restore::<ToyCase>(&id)?;
        let there = session.dir.read::<ToyCase>()?.iter().filter(|toss| toss.toy_id == id).count();
        session.observer.begin(&id, "tosses", self.tosses as u64, there as u64);
        for number in there..self.tosses {
            if session.stopped() {
                return Ok(Ending::Interrupted);
            }
            let prompts = prompts(self.shape, tokens, number as u64);
            let times = repeat(session.engine, self.shape, &prompts)?;
            let toss = Toss {
                toy_id: id.clone(),
                number: number as u32,
                clock: session.clock(),
                start_ns: session.run_ns(times.start_ns),
                end_ns: session.run_ns(times.end_ns),
            };
            session.dir.append::<ToyCase>(&toss)?;
            session.observer.advance();
        }
        session.observer.end();
        Ok(Ending::Complete)
    }
}
