//! An interval, and a value with its interval.

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// A value with its interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The value.
    pub value: f64,
    /// Its 95 % interval. `None` if there is too little to compute one.
    pub interval: Option<Interval>,
}

impl Interval {
    /// Returns the interval that holds only `x`.
    pub fn point(x: f64) -> Self {
        Self { low: x, high: x }
    }

    /// Returns the least interval that holds all of `values`, NaN aside. `None` without values.
    pub fn spanning(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        values.into_iter().map(Self::point).reduce(Self::hull)
    }

    /// Returns the least interval that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// Applies an increasing function to both ends.
    #[must_use]
    pub fn map(self, increasing: impl Fn(f64) -> f64) -> Self {
        Self { low: increasing(self.low), high: increasing(self.high) }
    }

    /// Applies a decreasing function to both ends, which swap.
    #[must_use]
    pub fn map_decreasing(self, decreasing: impl Fn(f64) -> f64) -> Self {
        Self { low: decreasing(self.high), high: decreasing(self.low) }
    }

    /// Whether `x` lies within the interval or at an end.
    pub fn contains(self, x: f64) -> bool {
        self.low <= x && x <= self.high
    }

    /// Both ends.
    pub fn ends(self) -> [f64; 2] {
        [self.low, self.high]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_hull_is_the_least_that_holds_both(values in prop::collection::vec(-1e6f64..1e6, 1..9)) {
            let all = Interval::spanning(values.iter().copied()).unwrap();
            prop_assert!(values.iter().all(|x| all.contains(*x)));
            prop_assert!(all.ends().iter().all(|end| values.contains(end)));
        }

        #[test]
        fn mapped_intervals_hold_the_mapped_values(a in 0.1f64..10.0, b in 0.1f64..10.0, share in 0.0f64..=1.0) {
            let all = Interval::point(a).hull(Interval::point(b));
            let inside = (all.low + share * (all.high - all.low)).clamp(all.low, all.high);
            prop_assert!(all.map(f64::ln).contains(inside.ln()));
            prop_assert!(all.map_decreasing(f64::recip).contains(inside.recip()));
        }
    }

    #[test]
    fn nothing_spans_nothing() {
        assert_eq!(Interval::spanning([]), None);
    }
}
