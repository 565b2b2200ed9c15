//! Axes drawn by hand: positions of values, and which values are labelled.

use crate::report::format::significant;

/// Division of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Division {
    /// Linear, from 0.
    FromZero,
    /// Linear, around the values.
    Even,
    /// Logarithmic.
    Log,
}

/// An axis with its range and the values to label.
#[derive(Debug, Clone)]
pub(in crate::report) struct Axis {
    division: Division,
    low: f64,
    high: f64,
    pub(in crate::report) ticks: Vec<f64>,
}

impl Axis {
    /// Creates an axis that holds all `values` with a margin. Ignores values that it cannot show: non-finite ones,
    /// and on a logarithmic axis those that are not positive.
    pub(in crate::report) fn of(division: Division, values: impl IntoIterator<Item = f64>) -> Self {
        let shows = |x: &f64| x.is_finite() && (division != Division::Log || *x > 0.0);
        let values: Vec<f64> = values.into_iter().filter(shows).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return Self { division, low: 0.5, high: 1.5, ticks: Vec::new() };
        }
        match division {
            Division::Log => {
                let ticks = factor_ticks(low, high);
                let end = |tick: Option<&f64>, value: f64| tick.copied().unwrap_or(value);
                Self { division, low: end(ticks.first(), low), high: end(ticks.last(), high), ticks }
            }
            Division::FromZero => {
                let high = if high > 0.0 { high * 1.05 } else { 1.0 };
                Self { division, low: 0.0, high, ticks: even_ticks(0.0, high) }
            }
            Division::Even => {
                let room = if high > low { 0.04 * (high - low) } else { 0.5 * low.abs().max(1e-9) };
                let (low, high) = (low - room, high + room);
                Self { division, low, high, ticks: even_ticks(low, high) }
            }
        }
    }

    /// Labels these values instead of round ones, for example the batch sizes present. The axis ends with them.
    pub(in crate::report) fn naming(mut self, mut values: Vec<f64>) -> Self {
        values.retain(|x| x.is_finite() && *x > 0.0);
        values.sort_by(f64::total_cmp);
        values.dedup();
        if let (Some(&first), Some(&last)) = (values.first(), values.last()) {
            let room = if last > first { 1.0 } else { 1.15 };
            (self.low, self.high) = (first / room, last * room);
        }
        self.ticks = values;
        self
    }

    /// Position of a value: 0 at the low end, 1 at the high end, clamped.
    pub(in crate::report) fn place(&self, x: f64) -> f64 {
        let share = match self.division {
            Division::Log => (x / self.low).ln() / (self.high / self.low).ln(),
            Division::FromZero | Division::Even => (x - self.low) / (self.high - self.low),
        };
        share.clamp(0.0, 1.0)
    }

    /// The lowest value shown.
    pub(in crate::report) fn low(&self) -> f64 {
        self.low
    }

    /// The highest value shown.
    pub(in crate::report) fn high(&self) -> f64 {
        self.high
    }
}

/// A round number at or above a fifth of the range.
fn even_step(low: f64, high: f64) -> f64 {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough)
}

/// About seven round values above 0, from at or below `low` to at or above `high`.
fn covering_ticks(low: f64, high: f64) -> Vec<f64> {
    let step = even_step(low, high);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    let ticks: Vec<f64> = (first..=last).map(|i| i as f64 * step).filter(|x| *x > 0.0).collect();
    if ticks.len() < 2 { vec![low, high] } else { ticks }
}

/// About six round values from `low` to `high`.
fn even_ticks(low: f64, high: f64) -> Vec<f64> {
    let step = even_step(low, high);
    let first = (low / step).ceil() as i64;
    (first..first + 20).map(|i| i as f64 * step).take_while(|x| *x <= high * (1.0 + 1e-12)).collect()
}

/// Most labelled values of a logarithmic axis.
const FACTORS: usize = 9;

/// 1, 2 and 5 times powers of ten from at or below `low` to at or above `high`. Over more decades 1 and 3, or the powers alone.
fn factor_ticks(low: f64, high: f64) -> Vec<f64> {
    // Over a small range, even ticks say more.
    if high / low < 3.0 {
        return covering_ticks(low / 1.02, high * 1.02);
    }
    let covering = |steps: &[f64]| -> Vec<f64> {
        let powers = low.log10().floor() as i32..=high.log10().floor() as i32 + 1;
        let all: Vec<f64> =
            powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power))).collect();
        // A value on a tick stays on it, whatever the last bit of the power.
        let first = all.iter().rposition(|x| *x <= low * (1.0 + 1e-9)).unwrap_or(0);
        let last = all.iter().position(|x| *x >= high * (1.0 - 1e-9)).unwrap_or(all.len() - 1);
        all[first..=last.max(first + 1).min(all.len() - 1)].to_vec()
    };
    let fine = covering(&[1.0, 2.0, 5.0]);
    if fine.len() <= FACTORS {
        return fine;
    }
    let coarse = covering(&[1.0, 3.0]);
    if coarse.len() <= FACTORS { coarse } else { covering(&[1.0]) }
}

/// A tick label.
pub(in crate::report) fn tick_name(x: f64) -> String {
    if x != 0.0 && x.abs() < 1e-3 {
        return format!("{x:e}");
    }
    let text = significant(x, 3);
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    let shown = if trimmed.is_empty() || trimmed == "-0" { "0" } else { trimmed };
    shown.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        let even = Axis::of(Division::FromZero, [3.0, 97.0]);
        assert_eq!(even.ticks, [0.0, 25.0, 50.0, 75.0, 100.0]);
        let log = Axis::of(Division::Log, [0.9, 60.0]);
        assert_eq!(log.ticks, [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        let wide = Axis::of(Division::Log, [1.0, 1e5]);
        assert_eq!(wide.ticks.len(), 6);
        let around = Axis::of(Division::Even, [-0.021, 0.018]);
        assert!(around.ticks.contains(&0.0) && around.ticks.len() >= 4, "{around:?}");
        assert_eq!(Axis::of(Division::Log, [0.0, f64::NAN]).ticks, Vec::<f64>::new());
    }

    #[test]
    fn the_ticks_of_a_logarithmic_axis_cover_the_data() {
        for (low, high) in
            [(0.9, 60.0), (30.0, 4100.0), (1.0, 1.0), (2.0, 5.0), (0.003, 90_000.0), (7.0, 7.1)]
        {
            let axis = Axis::of(Division::Log, [low, high]);
            let (first, last) = (axis.ticks[0], *axis.ticks.last().unwrap());
            assert!(
                first <= low * 1.001 && last >= high * 0.999 && first < last,
                "{low} to {high}: {axis:?}"
            );
            assert!((2..=10).contains(&axis.ticks.len()), "{axis:?}");
            assert_eq!((axis.low(), axis.high()), (first, last));
        }
        let edge = Axis::of(Division::Log, [10.0, 1000.0]);
        assert_eq!((edge.low(), edge.high()), (10.0, 1000.0));
    }

    #[test]
    fn values_stand_in_order_and_inside() {
        for division in [Division::FromZero, Division::Log] {
            let axis = Axis::of(division, [1.0, 4.0, 16.0]);
            let places = [1.0, 4.0, 16.0].map(|x| axis.place(x));
            assert!(places.windows(2).all(|w| w[0] < w[1]) && places.iter().all(|p| (0.0..=1.0).contains(p)));
        }
        assert_eq!(Axis::of(Division::Even, [5.0]).place(5.0), 0.5);
    }

    #[test]
    fn names_are_short() {
        for (x, text) in [(0.0, "0"), (0.5, "0.5"), (-0.5, "−0.5"), (20.0, "20"), (1200.0, "1200")] {
            assert_eq!(tick_name(x), text);
        }
        for (x, text) in [(0.025, "0.025"), (1e-5, "1e-5")] {
            assert_eq!(tick_name(x), text);
        }
    }
}
