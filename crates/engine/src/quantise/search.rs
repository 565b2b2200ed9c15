//! The search for the layers that quantisation harms most.
//!
//! One pass measures the output error of every linear layer over the samples of the calibration. They are ranked
//! twice: by the error relative to the outputs, and by the error itself. The second is what a layer adds to the
//! residual stream. Neither is right for all models. The logits decide between the layers that each would leave in
//! float.

use std::collections::BTreeSet;

use super::calibrate::Calibration;
use super::source::{InMemory, quantised_config};
use super::weights::{InputForm, IntegerRows, output_errors};
use super::{Control, Job, KlChange, QuantiseError};
use crate::weights::layout::LinearId;

/// A layer with the errors of its outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// The layer.
    pub linear: LinearId,
    /// The sum of squared errors over the sum of squares of its outputs.
    pub relative: f64,
    /// The sum of squared errors.
    pub absolute: f64,
}

/// What a search found.
pub(super) struct Found {
    /// The layers, the worst first by the criterion that the logits preferred.
    pub(super) ranked: Vec<Ranked>,
    /// The effect of the chosen layers.
    pub(super) kl: KlChange,
}

/// Ranks the layers that would be quantised, leaves `count` of them in float, and compares the logits of the models.
pub(super) fn search(
    job: &mut Job,
    calibration: &Calibration,
    count: usize,
    control: &mut Control<'_>,
) -> Result<Found, QuantiseError> {
    let measured = measured(job, calibration, control)?;
    let given = job.settings.float.clone();
    let before = kl(job, calibration, control)?;
    let mut best: Option<(f64, Vec<Ranked>, BTreeSet<LinearId>)> = None;
    for by in [|ranked: &Ranked| ranked.relative, |ranked: &Ranked| ranked.absolute] {
        let mut ranked = measured.clone();
        ranked.sort_by(|a, b| by(b).total_cmp(&by(a)).then(a.linear.cmp(&b.linear)));
        let chosen: BTreeSet<LinearId> = ranked.iter().take(count).map(|ranked| ranked.linear).collect();
        if best.as_ref().is_some_and(|(_, _, others)| *others == chosen) {
            continue;
        }
        job.settings.float = given.union(&chosen).copied().collect();
        let after = kl(job, calibration, control)?;
        if best.as_ref().is_none_or(|(least, ..)| after.total_cmp(least).is_lt()) {
            best = Some((after, ranked, chosen));
        }
    }
    let (after, ranked, chosen) = best.unwrap_or((before, measured, BTreeSet::new()));
    job.settings.float = given.union(&chosen).copied().collect();
    control.say(format!(
        "mean KL from the float model: {before:.2e} with {} layers in float, {after:.2e} with {} more",
        given.len(),
        chosen.len()
    ));
    // A KL that is no number did not help either.
    if after.total_cmp(&before).is_gt() {
        let words =
            "warning: the layers that were left in float did not help; choose others with --leave-float";
        control.say(words.to_owned());
    }
    Ok(Found { ranked, kl: KlChange { before, after } })
}

/// Measures the errors of all layers that would be quantised.
fn measured(
    job: &Job,
    calibration: &Calibration,
    control: &mut Control<'_>,
) -> Result<Vec<Ranked>, QuantiseError> {
    let all: Vec<LinearId> = LinearId::all(&job.config).collect();
    control.stage("ranking", "layers", all.len() as u64);
    let mut measured = Vec::new();
    for (number, &linear) in all.iter().enumerate() {
        control.check()?;
        if !job.settings.float.contains(&linear) {
            let factors = calibration.factors.get(number).and_then(Option::as_deref);
            let float = job.float_rows(linear, factors)?;
            let integers = IntegerRows::of(&float, job.settings.scheme, job.group_of(linear))?;
            let input = [match calibration.input(number) {
                Some(input) => InputForm::Static(input),
                None if job.settings.scheme.has_integer_inputs() => InputForm::PerToken,
                None => InputForm::Float,
            }];
            let [error] = output_errors(&float, &integers, calibration.samples(number), &input)[..] else {
                continue;
            };
            measured.push(Ranked { linear, relative: error.relative, absolute: error.absolute });
            drop(float);
            job.source.release(&linear.weight());
        }
        control.done(1);
    }
    Ok(measured)
}

/// Returns the mean KL divergence of the quantised model's logits from the float model's logits.
fn kl(job: &Job, calibration: &Calibration, control: &mut Control<'_>) -> Result<f64, QuantiseError> {
    let Some(expected) = &calibration.logits else { return Ok(0.0) };
    let (config, source) = (quantised_config(job), InMemory::new(job, calibration));
    let mut model = job.loaded(None, &source, &config, control)?;
    Ok(expected.mean_kl(&job.logits(&mut *model, "logits of the quantised model", control)?))
}
