//! Where the time of the engine's steps goes, operator by operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::device::timed::{OperatorClock, OperatorTotals};

use super::StepKind;

/// The word for what of a step is in no operator: lists, sampling, what lies between two operators.
pub const REST: &str = "rest";

/// What an operator took in all steps of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorTime {
    /// Prefill or decode.
    pub kind: StepKind,
    /// The operator's word, or [`REST`].
    pub operator: &'static str,
    /// Calls, time, bytes and operations; the rest has a call a step, and neither bytes nor operations.
    pub totals: OperatorTotals,
}

/// Sums up a timed device's operators by the kind of step.
#[derive(Debug)]
pub(super) struct Profile {
    clock: Arc<OperatorClock>,
    /// By kind, prefill first, and the operator's place in the forward pass, the rest last.
    sums: BTreeMap<(bool, usize, &'static str), OperatorTotals>,
}

impl Profile {
    /// Of the device that counts into `clock`; what it has counted while it was loaded is dropped.
    pub(super) fn new(clock: Arc<OperatorClock>) -> Self {
        drop(clock.take());
        Self { clock, sums: BTreeMap::new() }
    }

    /// A step of this kind is done, and took so long.
    pub(super) fn step(&mut self, kind: StepKind, duration_ns: u64) {
        let decode = kind == StepKind::Decode;
        let mut rest_ns = duration_ns;
        for (operator, totals) in self.clock.take() {
            rest_ns = rest_ns.saturating_sub(totals.time_ns);
            *self.sums.entry((decode, operator as usize, operator.name())).or_default() += totals;
        }
        let rest = OperatorTotals { calls: 1, time_ns: rest_ns, ..OperatorTotals::default() };
        *self.sums.entry((decode, usize::MAX, REST)).or_default() += rest;
    }

    /// The sums since this was asked last.
    pub(super) fn take(&mut self) -> Vec<OperatorTime> {
        let kind = |decode| if decode { StepKind::Decode } else { StepKind::Prefill };
        let sums = std::mem::take(&mut self.sums).into_iter();
        sums.map(|((decode, _, operator), totals)| OperatorTime { kind: kind(decode), operator, totals })
            .collect()
    }
}
