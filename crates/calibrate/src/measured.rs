//! Timed cases of our own runs as cases of a fit.

use std::collections::BTreeSet;

use glmbench_ascend::Pricer;
use glmbench_device::ClockFit;
use glmbench_engine::EngineError;

use super::counted::{Batch, Machine};
use super::fit::{Case, Free};
use super::modelled::{LogError, rms_over_models};
use super::published::Phase;

/// A timed phase of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// The phase.
    pub phase: Phase,
    /// Number of chips.
    pub chips: usize,
    /// Sequences.
    pub batch: usize,
    /// Prompt tokens of a sequence.
    pub input_tokens: usize,
    /// Generated tokens of a sequence.
    pub output_tokens: usize,
    /// Time of the prefill, or of one decode step, ns.
    pub ns: f64,
}

impl Timed {
    /// Returns the batch of this phase: for decode, the batch of the step in the middle.
    fn counted(&self) -> Batch {
        let tokens = match self.phase {
            Phase::Prefill => self.input_tokens,
            Phase::Decode => self.input_tokens + self.output_tokens / 2,
        };
        Batch { sequences: self.batch, tokens }
    }

    /// Names the shape. A fit that leaves a shape out leaves out both of its phases.
    fn shape(&self) -> String {
        let Self { chips, batch, input_tokens, .. } = self;
        format!("tp{chips}-b{batch}-i{input_tokens}")
    }
}

/// Returns the timed phases of a run on a machine with this model, each with its case. `graph` says whether steps ran as graphs.
///
/// # Errors
/// The model cannot be split over the chips, or a case does not fit their memory.
pub fn cases(
    pricer: &Pricer,
    machine: &Machine,
    timed: &[Timed],
    graph: bool,
) -> Result<Vec<(Timed, Case)>, EngineError> {
    let chips: BTreeSet<usize> = timed.iter().map(|timed| timed.chips).collect();
    let mut cases = Vec::with_capacity(timed.len());
    for chips in chips {
        let own: Vec<&Timed> = timed.iter().filter(|timed| timed.chips == chips).collect();
        let machine = Machine { chips, ..machine.clone() };
        let counted = machine.count(pricer, &own.iter().map(|timed| timed.counted()).collect())?;
        cases.extend(own.into_iter().map(|timed| {
            let phases = &counted[&timed.counted()];
            let phase = if timed.phase == Phase::Prefill { &phases.prefill } else { &phases.decode };
            let case = Case {
                base: 0,
                model: timed.shape(),
                phase: timed.phase,
                chips,
                graph,
                counted: phase.clone(),
                measured_ns: timed.ns,
            };
            (timed.clone(), case)
        }));
    }
    Ok(cases)
}

/// A timed phase in a fit: its case, and the ratio of predicted to measured time with its shape left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicted {
    /// The timed phase.
    pub timed: Timed,
    /// Whether steps ran as graphs.
    pub graph: bool,
    /// Parameters of the model.
    pub parameters: f64,
    /// The ratio.
    pub left_out: f64,
}

/// Returns the errors of a fit by phase and number of chips.
pub fn fits(predicted: &[Predicted]) -> Vec<ClockFit> {
    let groups: BTreeSet<(Phase, usize)> =
        predicted.iter().map(|of| (of.timed.phase, of.timed.chips)).collect();
    let fit = |(phase, chips): (Phase, usize)| {
        let own: Vec<&Predicted> =
            predicted.iter().filter(|of| (of.timed.phase, of.timed.chips) == (phase, chips)).collect();
        let shapes: Vec<String> = own.iter().map(|of| of.timed.shape()).collect();
        let ratios = shapes.iter().map(String::as_str).zip(own.iter().map(|of| of.left_out));
        let LogError { rms: error, worst } = rms_over_models(ratios)?;
        let most = |of: &dyn Fn(&Timed) -> usize| own.iter().map(|p| of(&p.timed)).max().unwrap_or(0) as u32;
        let generated = |timed: &Timed| if phase == Phase::Decode { timed.output_tokens } else { 0 };
        Some(ClockFit {
            phase: phase.name().to_owned(),
            chips: chips as u32,
            rows: own.len() as u32,
            shapes: shapes.iter().collect::<BTreeSet<_>>().len() as u32,
            error,
            worst,
            batch: most(&|timed| timed.batch),
            tokens: most(&|timed| timed.input_tokens + generated(timed)),
            parameters: own.first()?.parameters,
            graphs: own.iter().all(|of| of.graph),
        })
    };
    groups.into_iter().filter_map(fit).collect()
}

/// Source of the figures that are fitted to runs, before the hashes of these.
const MEASURED: &str = "fitted to runs by glmbench calibrate --measured";

/// Returns the figures that measured cases identify: those of one chip, and with several chips those of their links.
pub fn free(cases: &[&Case]) -> Vec<Free> {
    let figure = |key, start, range| Free { key, of: vec![], start, range, source: MEASURED };
    let has = |of: &dyn Fn(&Case) -> bool| cases.iter().any(|case| of(case));
    let mut free = Vec::new();
    if has(&|case| case.phase == Phase::Decode) {
        free.push(figure("memory_efficiency", 0.6, 0.02..=1.0));
    }
    if has(&|case| !case.graph) {
        free.push(figure("single_launch_ns", 1e4, 10.0..=1e6));
    }
    if has(&|case| case.phase == Phase::Prefill) {
        free.push(figure("compute_efficiency", 0.5, 0.02..=1.0));
        free.push(figure("prompt_layer_ns", 1e5, 10.0..=1e7));
    }
    if has(&|case| case.chips > 1) {
        free.push(figure("collective_latency_ns", 3e4, 10.0..=1e7));
        let pair = has(&|case| case.chips == 2);
        free.push(figure(if pair { "link_efficiency" } else { "mesh_efficiency" }, 0.5, 0.02..=1.0));
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_ascend::Chip;
    use glmbench_ascend::profile::Profile;
    use glmbench_device::DType;
    use glmbench_engine::config::ModelConfig;

    use crate::fit::fit;

    #[test]
    fn a_fit_states_its_errors_by_phase_and_chips() {
        let predicted = |phase, chips, batch, left_out| Predicted {
            timed: Timed { phase, chips, batch, input_tokens: 64, output_tokens: 16, ns: 1.0 },
            graph: false,
            parameters: 6e9,
            left_out,
        };
        let found = fits(&[
            predicted(Phase::Decode, 1, 1, 1.1),
            predicted(Phase::Prefill, 1, 1, 1.0),
            predicted(Phase::Decode, 1, 8, 1.0 / 1.1),
            predicted(Phase::Decode, 2, 8, 1.0),
        ]);
        let told: Vec<_> = found
            .iter()
            .map(|fit| (fit.phase.as_str(), fit.chips, fit.rows, fit.batch, fit.tokens))
            .collect();
        assert_eq!(told, [("prefill", 1, 1, 1, 64), ("decode", 1, 2, 8, 80), ("decode", 2, 1, 8, 80)]);
        assert!((found[1].error - 1.1_f64.ln()).abs() < 1e-9 && found[2].worst == 0.0);
    }

    /// The shapes of `suites/calibrate-card.toml`, timed by a card with known figures: a fit from the shipped profile finds them.
    #[test]
    fn the_cards_suite_identifies_every_figure() {
        let text = include_str!("../../../suites/calibrate-card.toml");
        let suite: toml::Table = text.parse().unwrap();
        let case = suite["performance"].as_array().unwrap()[0].as_table().unwrap();
        let numbers = |value: &toml::Value| -> Vec<usize> {
            value.as_array().unwrap().iter().map(|n| n.as_integer().unwrap() as usize).collect()
        };
        let pricer = Pricer::new().unwrap();
        let machine = Machine {
            config: ModelConfig::chatglm2_6b(),
            precision: DType::Fp16.into(),
            chip: Chip::Duo300i,
            chips: 1,
            profile: "300i-duo".into(),
        };
        let mut timed = Vec::new();
        for chips in numbers(&case["tp"]) {
            for batch in numbers(&case["batch"]) {
                for lengths in case["lengths"].as_array().unwrap() {
                    let [input_tokens, output_tokens] = numbers(lengths)[..] else { panic!("two lengths") };
                    for phase in Phase::ALL {
                        timed.push(Timed { phase, chips, batch, input_tokens, output_tokens, ns: 1.0 });
                    }
                }
            }
        }
        let (_, mut cases): (Vec<Timed>, Vec<Case>) =
            cases(&pricer, &machine, &timed, false).unwrap().into_iter().unzip();
        let known = [
            ("memory_efficiency", 0.66),
            ("single_launch_ns", 8_000.0),
            ("compute_efficiency", 0.41),
            ("prompt_layer_ns", 200_000.0),
            ("collective_latency_ns", 55_000.0),
            ("link_efficiency", 0.33),
        ];
        let base = Profile::builtin("300i-duo").unwrap().settings_lines();
        let lines: String = known.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        for case in &mut cases {
            case.measured_ns = case.modelled_ns(&pricer, &format!("{base}{lines}")).unwrap();
        }
        let free = free(&cases.iter().collect::<Vec<_>>());
        let fitted = fit(&pricer, &[base], &free, &cases.iter().collect::<Vec<_>>()).unwrap();
        for (free, value) in free.iter().zip(&fitted.values) {
            let (_, wanted) = known.iter().find(|(key, _)| *key == free.key).unwrap();
            assert!((value / wanted - 1.0).abs() < 0.03, "{}: {value}, expected {wanted}", free.key);
        }
        assert_eq!(free.len(), known.len());
    }
}
