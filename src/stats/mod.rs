//! Confidence intervals, quantiles, bootstrap, paired tests, equivalence, outlier flags, drift, steps in a series. Pure functions on
//! slices of numbers.
//!
//! Nothing here reads a clock, a file or a device. Randomness comes only from a seed that the caller passes, so the
//! same samples give the same results on every machine. A value that cannot be computed is `None`, never a
//! placeholder. Examples: no samples, one sample for a spread, a non-finite number.
//!
//! Every function is checked against SciPy, statsmodels and NumPy through `fixtures.json`, which `python3
//! scripts/stats_fixtures.py > src/stats/fixtures.json` writes.

mod arrivals;
mod binomial;
mod bootstrap;
mod change;
mod describe;
mod drift;
mod events;
mod growth;
mod interval;
mod modes;
mod null;
mod outlier;
mod paired;
pub mod parity;
mod proportion;
mod random;
mod rank_sum;
mod ratio;
pub mod rng;
mod shift;
mod steps;

#[cfg(test)]
mod fixtures;

pub use arrivals::{ArrivalProcess, arrivals};
pub use binomial::{binomial_at_least, binomial_exact};
pub use bootstrap::{RESAMPLES, median_interval};
pub use change::{Change, adjusted, rules_out, within};
pub use describe::{mad, mean, median, quantile, stddev};
pub use drift::{Drift, drift};
pub use events::{LEAST_EVENTS_PER_TOKEN, tell_token_times};
pub use growth::{Growth, LEAST_FOR_GROWTH, growth};
pub use interval::{Estimate, Interval};
pub use modes::{TwoModes, two_modes};
pub use null::{null_floor, spread_between};
pub use outlier::{Fence, Outlier, outliers};
pub use paired::{
    LEAST_DISCORDANT, PairCounts, detectable_difference, difference_interval, discordant_share, holm,
    identical_items_to_show_same, items_needed, items_to_show_same, macro_difference_interval, mcnemar_exact,
    score_interval,
};
pub use proportion::{standard_error, wilson};
pub use rank_sum::rank_sum;
pub use ratio::{MedianRatio, geometric_mean, ratio_of_medians};
pub use rng::Rng;
pub use shift::{Shift, block_log_ratio, blocks_needed, runs_needed};
pub use steps::{Level, STEP_ALPHA, STEP_LEAST, Step, levels, steps};
