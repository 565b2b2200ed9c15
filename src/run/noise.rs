//! Noise floors: the spread between runs of the same configuration, from the times of several processes.

use glmbench_engine::EngineError;

use crate::backend::Backend;
use crate::bench::{OrdinaryTokens, Repetition, Shape, WarmUp, WarmUpRule, prompts, repeat};
use crate::record::{NoiseFloor, Phase};
use crate::stats::{median, null_floor, spread_between};
use serde::{Deserialize, Serialize};

use super::observer::Observer;

/// Confidence of a floor: one in twenty null comparisons exceeds it.
const CONFIDENCE: f64 = 0.95;
/// Seed of the prompts.
const SEED: u64 = 1;
const PHASES: [Phase; 3] = [Phase::Prefill, Phase::Decode, Phase::E2e];

/// One process's measurement of a phase of a shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// The shape.
    pub case_id: String,
    /// The phase.
    pub phase: Phase,
    /// Median over the process's repetitions.
    pub median_ns: f64,
}

/// Times each shape `repetitions` times after warming up. Returns the median of every phase.
pub fn times(
    engine: &mut dyn Backend,
    tokens: &OrdinaryTokens,
    shapes: &[Shape],
    repetitions: usize,
) -> Result<Vec<PhaseTime>, EngineError> {
    let mut times = Vec::new();
    for &shape in shapes {
        let prompts = prompts(shape, tokens, SEED);
        let mut warm_up = WarmUp::default();
        while !warm_up.is_enough(&WarmUpRule::default()) {
            warm_up.add(repeat(engine, shape, &prompts)?.total_ns());
        }
        let done =
            (0..repetitions).map(|_| repeat(engine, shape, &prompts)).collect::<Result<Vec<_>, _>>()?;
        let of_phase = |phase| {
            let ns: Vec<f64> = done.iter().filter_map(|r| phase_ns(r, phase)).collect();
            Some(PhaseTime { case_id: shape.case_id(), phase, median_ns: median(&ns)? })
        };
        times.extend(PHASES.into_iter().filter_map(of_phase));
    }
    Ok(times)
}

fn phase_ns(repetition: &Repetition, phase: Phase) -> Option<f64> {
    Some(match phase {
        Phase::Prefill => repetition.prefill_ns as f64,
        Phase::Decode if repetition.step_ns.is_empty() => return None,
        Phase::Decode => (repetition.end_ns - repetition.first_token_ns) as f64,
        Phase::E2e => repetition.total_ns() as f64,
    })
}

/// Calls `one` for each process in turn, which times the shapes. Returns the noise floors.
pub fn between<E>(
    runs: usize,
    observer: &mut dyn Observer,
    mut one: impl FnMut(usize) -> Result<Vec<PhaseTime>, E>,
) -> Result<Vec<NoiseFloor>, E> {
    observer.begin("noise", "processes", runs as u64, 0);
    let mut all = Vec::new();
    for run in 0..runs {
        let times = one(run);
        if times.is_err() {
            observer.end();
        }
        all.push(times?);
        observer.advance();
    }
    observer.end();
    Ok(floors(&all))
}

/// Returns a floor for every phase that each process timed.
fn floors(runs: &[Vec<PhaseTime>]) -> Vec<NoiseFloor> {
    let Some(first) = runs.first() else { return Vec::new() };
    let floor = |time: &PhaseTime| {
        let same = |other: &&PhaseTime| other.case_id == time.case_id && other.phase == time.phase;
        let medians: Vec<f64> =
            runs.iter().filter_map(|run| run.iter().find(same)).map(|time| time.median_ns).collect();
        let spread = spread_between(&medians)?;
        Some(NoiseFloor {
            case_id: time.case_id.clone(),
            phase: time.phase,
            runs: medians.len() as u32,
            spread: Some(spread),
            median_ns: median(&medians).map(|ns| ns.round() as u64),
            floor: null_floor(spread, medians.len(), 1, CONFIDENCE)?,
        })
    };
    first.iter().filter_map(floor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_of_the_medians_of_the_processes() {
        let run =
            |median_ns: f64| vec![PhaseTime { case_id: "b1-i8-o8".into(), phase: Phase::Decode, median_ns }];
        let found = floors(&[run(100.0), run(110.0), run(121.0)]);
        let [floor] = found.as_slice() else { panic!("{found:?}") };
        // The logarithms are 0.0953 apart, and so is their standard deviation.
        assert!((floor.spread.unwrap() - 1.1_f64.ln()).abs() < 1e-12);
        assert_eq!((floor.runs, floor.median_ns), (3, Some(110)));
        // The t quantile at 0.975 with 2 degrees of freedom is 4.3027.
        assert!((floor.floor.ln_1p() - 4.302_653 * 2f64.sqrt() * 1.1_f64.ln()).abs() < 1e-5);
        assert_eq!(floors(&[run(100.0)]), []);
        assert_eq!(floors(&[]), []);
    }
}
