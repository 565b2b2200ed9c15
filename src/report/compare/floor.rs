//! Noise floors: how far two runs of the same thing differ on a machine, measured or given.

use crate::language::{Text, text};
use crate::record::{Noise, NoiseFloor, Phase, Provenance};
use crate::stats::null_floor;

/// Probability that no phase of a comparison of equal runs exceeds the floor.
const CONFIDENCE: f64 = 0.95;

/// The known noise floors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NoiseFloors(Known);

#[derive(Debug, Clone, Default, PartialEq)]
enum Known {
    #[default]
    Nothing,
    /// A share for every phase, given by the user.
    Share(f64),
    /// Measured between runs by `doctor --noise`.
    Machine(Box<Noise>),
}

impl NoiseFloors {
    /// One floor for every phase.
    pub fn every(share: f64) -> Self {
        Self(Known::Share(share))
    }

    /// Floors that `doctor --noise` measured.
    ///
    /// # Errors
    /// Fails for a file without floors between runs. Floors within one process do not apply to two runs.
    pub fn of_machine(noise: Noise) -> Result<Self, String> {
        let between_runs = noise.floors.iter().any(is_between_runs);
        if between_runs {
            Ok(Self(Known::Machine(Box::new(noise))))
        } else {
            Err("has no noise floor between runs".into())
        }
    }

    /// Whether any floor is known.
    pub fn is_known(&self) -> bool {
        self.0 != Known::Nothing
    }

    /// Says why the floors do not apply to these runs, if they do not.
    pub(super) fn foreign(&self, runs: [&Provenance; 2]) -> Option<Text> {
        let Known::Machine(noise) = &self.0 else { return None };
        let fields = |run: &Provenance| {
            [
                (text!("host"), noise.host.clone(), run.host.clone()),
                (text!("CPU"), noise.cpu_model.clone(), run.cpu_model.clone()),
                (text!("device"), noise.device.to_string(), run.device.to_string()),
                (text!("kernels"), noise.kernel.clone(), run.kernel.clone()),
                (text!("threads"), noise.threads.to_string(), run.threads.to_string()),
            ]
        };
        let differs = runs.into_iter().flat_map(fields).find(|(_, here, there)| here != there);
        differs.map(|(name, here, there)| {
            text!("the noise floor is of {name} {here}, a run of {there}", name, here, there)
        })
    }

    /// Returns the difference, as a share above 1, that equal runs seldom exceed in any of `phases` phases. Applies
    /// to a phase of a case with a time of `median_ns` or more. `None` if no floor covers a time so short.
    pub(super) fn of(&self, case_id: &str, phase: Phase, median_ns: f64, phases: usize) -> Option<f64> {
        let noise = match &self.0 {
            Known::Nothing => return None,
            Known::Share(share) => return Some(*share),
            Known::Machine(noise) => noise,
        };
        let tried = || noise.floors.iter().filter(|floor| is_between_runs(floor));
        let own = tried().find(|floor| floor.case_id == case_id && floor.phase == phase);
        // Short phases are noisier than long ones. An unmeasured phase takes the worst measured floor, if it is at
        // least as long as the shortest measured phase.
        let shortest = tried().filter_map(|floor| floor.median_ns).min();
        let covered = shortest.is_some_and(|shortest| median_ns >= shortest as f64);
        let floor = |floor: &NoiseFloor| null_floor(floor.spread?, floor.runs as usize, phases, CONFIDENCE);
        // The same shape of a larger model is not this phase.
        let as_long = |own: &&NoiseFloor| own.median_ns.is_none_or(|ns| 2.0 * median_ns >= ns as f64);
        match own.filter(as_long) {
            Some(own) => floor(own),
            None => tried().filter_map(floor).max_by(f64::total_cmp).filter(|_| covered),
        }
    }
}

fn is_between_runs(floor: &NoiseFloor) -> bool {
    floor.runs >= 2 && floor.spread.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise() -> Noise {
        let floor = |case_id: &str, phase, spread, median_ns| NoiseFloor {
            case_id: case_id.into(),
            phase,
            runs: 10,
            spread: Some(spread),
            median_ns: Some(median_ns),
            floor: 0.0,
        };
        Noise {
            engine: String::new(),
            host: "here".into(),
            cpu_model: "c".into(),
            device: "cpu".into(),
            kernel: "avx2".into(),
            dtype: "fp16".into(),
            threads: 2,
            model: "demo".into(),
            made: String::new(),
            floors: vec![
                floor("b1-i64-o32", Phase::Decode, 0.01, 1_000_000),
                floor("b8-i64-o32", Phase::Decode, 0.02, 5_000_000),
            ],
        }
    }

    #[test]
    fn a_shape_has_its_own_floor_or_the_worst_of_those_tried() {
        let floors = NoiseFloors::of_machine(noise()).unwrap();
        let of = |case: &str, phase, ns, phases| floors.of(case, phase, ns, phases);
        let own = of("b1-i64-o32", Phase::Decode, 1e6, 6).unwrap();
        let worst = of("b8-i64-o32", Phase::Decode, 5e6, 6).unwrap();
        assert!(0.03 < own && own < worst, "{own} {worst}");
        assert_eq!(of("b1-i64-o32", Phase::E2e, 1e6, 6), Some(worst));
        assert_eq!(of("b1-i8-o2", Phase::E2e, 1e5, 6), None, "shorter than anything that was tried");
        assert_eq!(of("b1-i64-o32", Phase::Decode, 1e5, 6), None, "the floor is of a larger model");
        assert!(of("b1-i64-o32", Phase::Decode, 1e6, 24).unwrap() > own, "more phases, more chances");
        assert_eq!(NoiseFloors::every(0.02).of("x", Phase::E2e, 1.0, 24), Some(0.02));
        assert_eq!(NoiseFloors::default().of("x", Phase::E2e, 1.0, 24), None);
    }

    #[test]
    fn a_file_from_within_one_process_is_none() {
        let mut old = noise();
        old.floors.iter_mut().for_each(|floor| (floor.runs, floor.spread) = (0, None));
        assert!(NoiseFloors::of_machine(old).unwrap_err().contains("no noise floor between runs"));
    }
}
