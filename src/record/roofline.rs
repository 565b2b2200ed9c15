//! The roofline that timings are compared with: measured on the machine, or of a modelled chip.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The two limits of a roofline, with all measurements behind them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Roofline {
    /// Memory bandwidth in bytes per second: measured by streaming, or from the profile of a modelled chip.
    pub bandwidth_bytes_per_s: f64,
    /// Measured arithmetic peak of the fastest unit for the type of the run, in floating-point operations per second.
    pub peak_flops_per_s: f64,
    /// The measurements. `None` if nothing was measured, and in records older than this field.
    #[serde(rename = "limits", default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredLimits>,
}

/// All measured limits of a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredLimits {
    /// Number of threads in measurements with all threads.
    pub threads: u32,
    /// The measurement method, in words.
    pub method: String,
    /// Bandwidth of streaming reads by all threads, in bytes per second.
    pub bandwidth: MeasuredRate,
    /// Bandwidth of streaming reads by one thread, in bytes per second.
    pub bandwidth_one_thread: MeasuredRate,
    /// The arithmetic units, in operations per second.
    pub units: Vec<MeasuredUnit>,
    /// The unit that provides the roofline's peak.
    pub peak_unit: Option<String>,
    /// Products of that unit needed for one product in the run's type. The roofline's peak is the unit's rate divided
    /// by this.
    #[serde(default = "super::wire::one", skip_serializing_if = "super::wire::is_one")]
    pub peak_products: u32,
    /// The fastest way of reading, which gave the bandwidth, in words. Empty in records older than this field.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reader: String,
}

impl MeasuredLimits {
    /// Returns the unit of that name, if this machine has it.
    pub fn unit(&self, name: &str) -> Option<&MeasuredUnit> {
        self.units.iter().find(|unit| unit.unit == name)
    }

    /// Returns the peak in the run's type at a sample, in operations per second.
    pub fn peak_in(&self, sample: &RooflineSample) -> Option<f64> {
        Some(sample.peak(self.peak_unit.as_ref()?)? / f64::from(self.peak_products.max(1)))
    }

    /// Returns the name of the peak for the type of the run: `fp32-avx2`, `amx-bf16 / 3`.
    pub fn peak_words(&self) -> Option<String> {
        let unit = self.peak_unit.as_ref()?;
        Some(if self.peak_products > 1 { format!("{unit} / {}", self.peak_products) } else { unit.clone() })
    }
}

/// A short measurement of the limits beside a repetition. It uses all threads, as in [`MeasuredLimits`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RooflineSample {
    /// Bandwidth of streaming reads, in bytes per second; `None` if there was no memory for the measurement.
    pub bandwidth_bytes_per_s: Option<u64>,
    /// Operations per second by unit: the unit for the run's type, and those that targets name.
    pub peak_ops_per_s: BTreeMap<String, u64>,
}

/// The samples around a repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RooflineSamples {
    /// Just before the repetition.
    pub before: RooflineSample,
    /// Just after the repetition. It is also the next repetition's `before`, unless two configurations are timed
    /// alternately.
    pub after: RooflineSample,
}

impl RooflineSample {
    /// Returns the bandwidth, in bytes per second.
    pub fn bandwidth(&self) -> Option<f64> {
        self.bandwidth_bytes_per_s.map(|rate| rate as f64)
    }

    /// Returns the rate of a unit, in operations per second.
    pub fn peak(&self, unit: &str) -> Option<f64> {
        self.peak_ops_per_s.get(unit).map(|rate| *rate as f64)
    }
}

impl RooflineSamples {
    /// Iterates over one limit before and after the repetition, without missing measurements.
    pub fn both(&self, of: impl Fn(&RooflineSample) -> Option<f64>) -> impl Iterator<Item = f64> {
        [of(&self.before), of(&self.after)].into_iter().flatten()
    }

    /// Returns the mean of one limit before and after the repetition. If only one was measured, returns that.
    pub fn mean(&self, of: impl Fn(&RooflineSample) -> Option<f64>) -> Option<f64> {
        let (sum, count) = self.both(of).fold((0.0, 0.0), |(sum, count), rate| (sum + rate, count + 1.0));
        (count > 0.0).then(|| sum / count)
    }
}

/// A rate per second, over several rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeasuredRate {
    /// The median over the rounds.
    pub median: f64,
    /// The slowest round.
    pub low: f64,
    /// The fastest round.
    pub high: f64,
}

/// The measured rates of an arithmetic unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredUnit {
    /// The unit's name: `fp32-avx2`, `amx-bf16`….
    pub unit: String,
    /// With all threads, in operations per second. A multiply-add counts as two operations.
    pub all_threads: MeasuredRate,
    /// With one thread, in operations per second.
    pub one_thread: MeasuredRate,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_around_a_repetition_is_the_mean_of_what_is_there() {
        let sample = |bandwidth, peak: Option<u64>| RooflineSample {
            bandwidth_bytes_per_s: bandwidth,
            peak_ops_per_s: peak.map(|peak| ("fp32-avx2".to_owned(), peak)).into_iter().collect(),
        };
        let peak = |samples: &RooflineSamples, unit| samples.mean(|sample| sample.peak(unit));
        let samples = RooflineSamples { before: sample(Some(40), None), after: sample(Some(30), Some(7)) };
        assert_eq!(
            (
                samples.mean(RooflineSample::bandwidth),
                peak(&samples, "fp32-avx2"),
                peak(&samples, "amx-bf16")
            ),
            (Some(35.0), Some(7.0), None)
        );
        let samples = RooflineSamples { before: sample(None, Some(5)), after: sample(Some(30), Some(7)) };
        assert_eq!(
            (samples.mean(RooflineSample::bandwidth), peak(&samples, "fp32-avx2")),
            (Some(30.0), Some(6.0))
        );
        assert_eq!(RooflineSamples::default().mean(RooflineSample::bandwidth), None);
    }

    #[test]
    fn a_type_of_several_products_has_a_part_of_its_units_rate() {
        let json = r#"{"threads":1,"method":"m","bandwidth":{"median":1.0,"low":1.0,"high":1.0},
            "bandwidth_one_thread":{"median":1.0,"low":1.0,"high":1.0},"units":[],"peak_unit":"amx-bf16","peak_products":3}"#;
        let measured: MeasuredLimits = serde_json::from_str(json).unwrap();
        let sample = RooflineSample {
            bandwidth_bytes_per_s: None,
            peak_ops_per_s: [("amx-bf16".to_owned(), 6)].into(),
        };
        assert_eq!(
            (measured.peak_in(&sample), measured.peak_words()),
            (Some(2.0), Some("amx-bf16 / 3".into()))
        );
    }

    #[test]
    fn limits_that_were_measured_again_at_the_end_are_read_without_that() {
        let limits = |more: &str| {
            let rate = r#"{"median":2.0,"low":1.0,"high":3.0}"#;
            let text = format!(
                r#"{{"threads":2,"method":"m","bandwidth":{rate},"bandwidth_one_thread":{rate},"units":[],"peak_unit":null{more}}}"#
            );
            serde_json::from_str::<MeasuredLimits>(&text).unwrap()
        };
        assert_eq!(limits(r#","at_end":{"threads":2}"#), limits(""));
    }
}
