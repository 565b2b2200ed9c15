//! Time of the engine steps, by operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use glmbench_device::timed::{OperatorClock, OperatorTotals};

use super::StepKind;

/// Name for the part of a step outside all operators: input lists, sampling, and the gaps between operators.
pub const REST: &str = "rest";

/// Kinds of steps that compute, in the order of their sums.
const KINDS: [StepKind; 3] = [StepKind::Prefill, StepKind::Decode, StepKind::Mixed];

/// Totals of an operator over all steps of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorTime {
    /// Prefill, decode or mixed.
    pub kind: StepKind,
    /// The operator's name, or [`REST`].
    pub operator: &'static str,
    /// Calls, time, bytes and operations. [`REST`] counts one call per step, and neither bytes nor operations.
    pub totals: OperatorTotals,
}

/// Sums a timed device's operators by kind of step.
#[derive(Debug)]
pub(super) struct Profile {
    clock: Arc<OperatorClock>,
    /// Sums by kind (in the order of [`KINDS`]), then by place in the forward pass, with [`REST`] last.
    sums: BTreeMap<(usize, usize, &'static str), OperatorTotals>,
}

impl Profile {
    /// Creates a profile of the device that counts into `clock`. Discards what the clock counted during loading.
    pub(super) fn new(clock: Arc<OperatorClock>) -> Self {
        drop(clock.take());
        Self { clock, sums: BTreeMap::new() }
    }

    /// Adds a finished step of this kind and duration.
    pub(super) fn step(&mut self, kind: StepKind, duration_ns: u64) {
        let Some(kind) = KINDS.iter().position(|known| *known == kind) else { return };
        let mut rest_ns = duration_ns;
        for (operator, totals) in self.clock.take() {
            rest_ns = rest_ns.saturating_sub(totals.time_ns);
            *self.sums.entry((kind, operator as usize, operator.name())).or_default() += totals;
        }
        let rest = OperatorTotals { calls: 1, time_ns: rest_ns, ..OperatorTotals::default() };
        *self.sums.entry((kind, usize::MAX, REST)).or_default() += rest;
    }

    /// Returns the sums since the last call.
    pub(super) fn take(&mut self) -> Vec<OperatorTime> {
        let sums = std::mem::take(&mut self.sums).into_iter();
        sums.map(|((kind, _, operator), totals)| OperatorTime { kind: KINDS[kind], operator, totals })
            .collect()
    }
}
