//! Decides when a case is warmed up.

/// The warm-up rule of a case.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WarmUpRule {
    /// Number of consecutive warm-ups that must agree.
    pub agreeing: usize,
    /// Warm-ups agree if the slowest exceeds the quickest by at most this share.
    pub tolerance: f64,
    /// Maximum number of warm-ups.
    pub most: usize,
    /// Time after which no further warm-up starts, in nanoseconds.
    pub most_ns: u64,
}

impl Default for WarmUpRule {
    fn default() -> Self {
        Self { agreeing: 2, tolerance: 0.05, most: 6, most_ns: 60_000_000_000 }
    }
}

/// The warm-ups of one case so far.
#[derive(Debug, Clone, Default)]
pub struct WarmUp {
    times_ns: Vec<u64>,
}

impl WarmUp {
    /// Records the time of one warm-up.
    pub fn add(&mut self, total_ns: u64) {
        self.times_ns.push(total_ns);
    }

    /// Returns the number of warm-ups so far.
    pub fn count(&self) -> usize {
        self.times_ns.len()
    }

    /// Returns whether the last warm-ups agree.
    pub fn is_stable(&self, rule: &WarmUpRule) -> bool {
        let Some(first) = self.times_ns.len().checked_sub(rule.agreeing.max(1)) else { return false };
        let last = &self.times_ns[first..];
        match (last.iter().min(), last.iter().max()) {
            (Some(min), Some(max)) => *max as f64 <= *min as f64 * (1.0 + rule.tolerance),
            _ => false,
        }
    }

    /// Returns whether to start measuring: times are stable, or a limit is reached.
    pub fn is_enough(&self, rule: &WarmUpRule) -> bool {
        self.is_stable(rule)
            || self.times_ns.len() >= rule.most
            || self.times_ns.iter().sum::<u64>() >= rule.most_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_ends_when_the_last_agree_or_patience_ends() {
        let rule = WarmUpRule { agreeing: 2, tolerance: 0.05, most: 4, most_ns: 1000 };
        let after = |times: &[u64]| {
            let mut warm_up = WarmUp::default();
            times.iter().for_each(|t| warm_up.add(*t));
            (warm_up.is_stable(&rule), warm_up.is_enough(&rule))
        };
        assert_eq!(after(&[]), (false, false));
        assert_eq!(after(&[100]), (false, false));
        assert_eq!(after(&[150, 100]), (false, false));
        assert_eq!(after(&[150, 100, 104]), (true, true));
        assert_eq!(after(&[150, 100, 150, 100]), (false, true), "the most there may be");
        assert_eq!(after(&[900, 200]), (false, true), "time is up");
    }
}
