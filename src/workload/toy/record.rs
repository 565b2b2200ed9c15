//! Toy cases of the plan, and the lines of `tosses.jsonl`.

use crate::record::course::{Course, Timed};
use crate::record::{Clock, Keyed};
use serde::{Deserialize, Serialize};

/// A toy case of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToyCase {
    pub(crate) toy_id: String,
    pub(crate) tp: u32,
    pub(crate) tosses: u32,
}

/// A line of `tosses.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Toss {
    pub(crate) toy_id: String,
    pub(crate) number: u32,
    pub(crate) clock: Clock,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
}

impl Keyed for Toss {
    type Key = String;

    fn key(&self) -> String {
        format!("toss {} of {}", self.number, self.toy_id)
    }
}

impl Timed for Toss {
    fn clock(&self) -> Clock {
        self.clock
    }

    fn end_ns(&self) -> u64 {
        self.end_ns
    }

    fn has_failed(&self) -> bool {
        false
    }
}

impl Course for ToyCase {
    type Line = Toss;
    type State = u32;
    const KIND: &'static str = "toy";
    const JOURNAL: &'static str = "tosses.jsonl";

    fn id(&self) -> &str {
        &self.toy_id
    }

    fn tp(&self) -> u32 {
        self.tp
    }

    fn part_of(line: &Toss) -> &str {
        &line.toy_id
    }

    fn follows(&self, state: &u32, line: &Toss) -> bool {
        line.number == *state && *state < self.tosses
    }

    fn take(state: &mut u32, _: &Toss) {
        *state += 1;
    }

    fn is_whole(&self, state: &u32) -> bool {
        *state >= self.tosses
    }

    fn extent(&self, state: &u32) -> String {
        format!("{state} of {} tosses", self.tosses)
    }
}
