//! The limits that timings are held against: the machine's own, as measured on it, or a modelled chip's.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The two limits of a roofline, and all that was measured for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Roofline {
    /// Memory bandwidth as measured by streaming, or of a modelled chip by its profile, bytes a second.
    pub bandwidth_bytes_per_s: f64,
    /// Arithmetic peak as measured, floating-point operations a second, of the fastest unit for the run's type.
    pub peak_flops_per_s: f64,
    /// What was measured; `None` where nothing was, and in records from before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<MachineLimits>,
}

/// All that was measured of a machine's limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineLimits {
    /// Threads that took part where all did.
    pub threads: u32,
    /// How it was measured, in words.
    pub method: String,
    /// Streaming reads of all threads, bytes a second.
    pub bandwidth: LimitRate,
    /// Streaming reads of one thread, bytes a second.
    pub bandwidth_one_thread: LimitRate,
    /// The arithmetic units, operations a second.
    pub units: Vec<UnitLimit>,
    /// The unit that the roofline's peak is of.
    pub peak_unit: Option<String>,
    /// Products of that unit for each product of the run's type: the roofline's peak is the unit's rate over this.
    #[serde(default = "super::wire::one", skip_serializing_if = "super::wire::is_one")]
    pub peak_products: u32,
    /// How the bandwidth was read, in words: the fastest way. Empty in records from before it was kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reader: String,
}

impl MachineLimits {
    /// The unit of that word, where this machine has it.
    pub fn unit(&self, name: &str) -> Option<&UnitLimit> {
        self.units.iter().find(|unit| unit.unit == name)
    }

    /// The peak of the run's type beside a repetition, operations a second.
    pub fn peak_in(&self, spot: &Spot) -> Option<f64> {
        Some(spot.peak(self.peak_unit.as_ref()?)? / f64::from(self.peak_products.max(1)))
    }

    /// What the peak of the run's type is of, in words: `fp32-avx2`, `amx-bf16 / 3`.
    pub fn peak_words(&self) -> Option<String> {
        let unit = self.peak_unit.as_ref()?;
        Some(if self.peak_products > 1 { format!("{unit} / {}", self.peak_products) } else { unit.clone() })
    }
}

/// A short measurement of the machine's limits, beside a repetition: all threads, as in [`MachineLimits`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spot {
    /// Streaming reads, bytes a second; `None` where there was no memory for it.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// Operations a second by unit: of the run's type, and those that targets name.
    pub peak_ops_per_s: BTreeMap<String, u64>,
}

/// The spots around a repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spots {
    /// Right before it.
    pub before: Spot,
    /// Right after it; of the next repetition of the case it is the one before, unless they are timed in turns with another
    /// configuration's.
    pub after: Spot,
}

impl Spot {
    /// Bandwidth, bytes a second.
    pub fn bandwidth(&self) -> Option<f64> {
        self.bandwidth_bytes_per_s.map(|rate| rate as f64)
    }

    /// Rate of a unit, operations a second.
    pub fn peak(&self, unit: &str) -> Option<f64> {
        self.peak_ops_per_s.get(unit).map(|rate| *rate as f64)
    }
}

impl Spots {
    /// One limit, before and after; without those that were not measured.
    pub fn both(&self, of: impl Fn(&Spot) -> Option<f64>) -> impl Iterator<Item = f64> {
        [of(&self.before), of(&self.after)].into_iter().flatten()
    }

    /// The mean of one limit before and after; where only one was measured, that.
    pub fn mean(&self, of: impl Fn(&Spot) -> Option<f64>) -> Option<f64> {
        let (sum, count) = self.both(of).fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
        (count > 0.0).then(|| sum / count)
    }
}

/// A rate over several rounds, a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LimitRate {
    /// Half of the rounds were as fast.
    pub median: f64,
    /// The slowest round.
    pub low: f64,
    /// The fastest round.
    pub high: f64,
}

/// What an arithmetic unit does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitLimit {
    /// Its word: `fp32-avx2`, `amx-bf16`….
    pub unit: String,
    /// All threads, operations a second (multiply and add count two).
    pub all_threads: LimitRate,
    /// One thread, operations a second.
    pub one_thread: LimitRate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_around_a_repetition_is_the_mean_of_what_is_there() {
        let spot = |bandwidth, peak: Option<u64>| Spot {
            bandwidth_bytes_per_s: bandwidth,
            peak_ops_per_s: peak.map(|peak| ("fp32-avx2".to_owned(), peak)).into_iter().collect(),
        };
        let peak = |spots: &Spots, unit| spots.mean(|spot| spot.peak(unit));
        let spots = Spots { before: spot(Some(40), None), after: spot(Some(30), Some(7)) };
        assert_eq!(
            (spots.mean(Spot::bandwidth), peak(&spots, "fp32-avx2"), peak(&spots, "amx-bf16")),
            (Some(35.0), Some(7.0), None)
        );
        let spots = Spots { before: spot(None, Some(5)), after: spot(Some(30), Some(7)) };
        assert_eq!((spots.mean(Spot::bandwidth), peak(&spots, "fp32-avx2")), (Some(30.0), Some(6.0)));
        assert_eq!(Spots::default().mean(Spot::bandwidth), None);
    }

    #[test]
    fn a_type_of_several_products_has_a_part_of_its_units_rate() {
        let json = r#"{"threads":1,"method":"m","bandwidth":{"median":1.0,"low":1.0,"high":1.0},
            "bandwidth_one_thread":{"median":1.0,"low":1.0,"high":1.0},"units":[],"peak_unit":"amx-bf16","peak_products":3}"#;
        let limits: MachineLimits = serde_json::from_str(json).unwrap();
        let spot = Spot { bandwidth_bytes_per_s: None, peak_ops_per_s: [("amx-bf16".to_owned(), 6)].into() };
        assert_eq!((limits.peak_in(&spot), limits.peak_words()), (Some(2.0), Some("amx-bf16 / 3".into())));
    }

    #[test]
    fn limits_that_were_measured_again_at_the_end_are_read_without_that() {
        let limits = |more: &str| {
            let rate = r#"{"median":2.0,"low":1.0,"high":3.0}"#;
            let text = format!(
                r#"{{"threads":2,"method":"m","bandwidth":{rate},"bandwidth_one_thread":{rate},"units":[],"peak_unit":null{more}}}"#
            );
            serde_json::from_str::<MachineLimits>(&text).unwrap()
        };
        assert_eq!(limits(r#","at_end":{"threads":2}"#), limits(""));
    }
}
