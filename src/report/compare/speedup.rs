//! How many times as fast the other run of a pair is, by phase and batch.

use super::{Comparison, Pair};
use crate::language::{Text, text};
use crate::record::{Clock, PerfRow, Phase};
use crate::report::modelled::{self, RatioError};
use crate::stats::{Interval, geometric_mean};
use std::collections::BTreeSet;

/// What the multiples hold side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Grounds {
    /// Every chip of one card beside every chip of the other.
    Cards,
    /// One chip beside one chip.
    Chips,
    /// Equal cases: the same lengths, batch and ranks.
    Cases,
}

impl Grounds {
    /// The grounds in words.
    pub(in crate::report) fn words(self) -> Text {
        match self {
            Self::Cards => text!("card against card"),
            Self::Chips => text!("chip against chip"),
            Self::Cases => text!("equal cases"),
        }
    }
}

/// Speed of the other run over that of the base, for one shape.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Shape {
    phase: Phase,
    batch: u32,
    times: f64,
    /// 95 % interval of a measured ratio.
    interval: Option<Interval>,
    /// Error of a ratio of modelled times.
    error: Option<RatioError>,
}

/// The multiples of a pair.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::report) struct Speedups {
    /// What is held side by side.
    pub(in crate::report) grounds: Grounds,
    /// The clock of both.
    pub(in crate::report) clock: Clock,
    shapes: Vec<Shape>,
}

/// The geometric mean of multiples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::report) struct Multiple {
    /// Speed of the other run over that of the base.
    pub(in crate::report) times: f64,
    /// Modelled: the range by the error. Measured: from the least to the largest end of the 95 % intervals of the shapes.
    pub(in crate::report) interval: Option<Interval>,
    /// Error of modelled times.
    pub(in crate::report) error: Option<RatioError>,
    /// Number of shapes.
    pub(in crate::report) shapes: usize,
}

impl Speedups {
    /// Returns the multiples of a pair. `None` if its times are not comparable.
    pub(in crate::report) fn of(comparison: &Comparison, pair: &Pair) -> Option<Self> {
        let (a, b) = (comparison.base(), comparison.other(pair));
        if a.clock() != b.clock() {
            return None;
        }
        let (grounds, shapes) =
            of_cards(comparison, pair).unwrap_or_else(|| (Grounds::Cases, of_cases(comparison, pair)));
        (!shapes.is_empty()).then(|| Self { grounds, clock: a.clock(), shapes })
    }

    /// Whether the base is the faster one, by the mean of the first phase. Sentence and chart of a pair then say how many times as fast it
    /// is as the other.
    pub(in crate::report) fn favours_base(&self) -> bool {
        super::answer::PHASES
            .into_iter()
            .find_map(|phase| self.mean(phase, None))
            .is_some_and(|first| first.times < 1.0)
    }

    /// The speed of the base over that of the other run.
    #[must_use]
    pub(in crate::report) fn turned(mut self) -> Self {
        for shape in &mut self.shapes {
            shape.times = 1.0 / shape.times;
            shape.interval = shape.interval.filter(|of| of.low > 0.0).map(|of| of.map_decreasing(f64::recip));
        }
        self
    }

    /// The batches of a phase, ascending.
    pub(in crate::report) fn batches(&self, phase: Phase) -> BTreeSet<u32> {
        self.shapes.iter().filter(|shape| shape.phase == phase).map(|shape| shape.batch).collect()
    }

    /// The mean of a phase over its shapes, or over those of one batch.
    pub(in crate::report) fn mean(&self, phase: Phase, batch: Option<u32>) -> Option<Multiple> {
        let own: Vec<&Shape> = self
            .shapes
            .iter()
            .filter(|shape| shape.phase == phase && batch.is_none_or(|batch| shape.batch == batch))
            .collect();
        let times = geometric_mean(&own.iter().map(|shape| shape.times).collect::<Vec<_>>())?;
        let error = RatioError::mean(own.iter().map(|shape| shape.error));
        let intervals: Option<Vec<Interval>> = own.iter().map(|shape| shape.interval).collect();
        let interval = match self.clock {
            Clock::Modelled => error.map(|error| error.ends(times)),
            Clock::Measured => intervals.and_then(|all| all.into_iter().reduce(Interval::hull)),
        };
        Some(Multiple { times, interval, error, shapes: own.len() })
    }

    /// The least and the largest multiple of a phase.
    pub(in crate::report) fn range(&self, phase: Phase) -> Option<Interval> {
        let own = self.shapes.iter().filter(|shape| shape.phase == phase);
        Interval::spanning(own.map(|shape| shape.times))
    }
}

/// The shapes of two modelled cards with different numbers of chips: whole cards if both runs have such cases, else single chips.
fn of_cards(comparison: &Comparison, pair: &Pair) -> Option<(Grounds, Vec<Shape>)> {
    let (a, b) = (&comparison.base().summary, &comparison.other(pair).summary);
    let (.., found) = modelled::beside((&a.run, &a.performance), (&b.run, &b.performance))?;
    let grounds = if found.iter().any(|beside| beside.cards) { Grounds::Cards } else { Grounds::Chips };
    let own = found.iter().filter(|beside| beside.cards == (grounds == Grounds::Cards));
    let shapes: Vec<Shape> = own
        .map(|beside| {
            let error = error(comparison, pair, (beside.a, beside.b));
            let PerfRow { phase, batch, .. } = *beside.a;
            Shape { phase, batch, times: beside.ratio, interval: None, error }
        })
        .collect();
    (!shapes.is_empty()).then_some((grounds, shapes))
}

/// The phases of equal cases that have a ratio.
fn of_cases(comparison: &Comparison, pair: &Pair) -> Vec<Shape> {
    let phases = pair.cases.iter().flat_map(|case| &case.phases);
    let shape = |phase: &super::PhaseComparison| {
        let ratio = phase.ratio.filter(|ratio| *ratio > 0.0)?;
        Some(Shape {
            phase: phase.phase,
            batch: phase.a.batch,
            times: 1.0 / ratio,
            interval: phase.interval.filter(|of| of.low > 0.0).map(|of| of.map_decreasing(f64::recip)),
            error: error(comparison, pair, (&phase.a, &phase.b)),
        })
    };
    phases.filter_map(shape).collect()
}

/// The error of a ratio of two modelled times. `None` for measured ones.
fn error(comparison: &Comparison, pair: &Pair, (a, b): (&PerfRow, &PerfRow)) -> Option<RatioError> {
    RatioError::between([(comparison.base().run(), a), (comparison.other(pair).run(), b)])
}
