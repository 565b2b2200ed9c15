//! The search for the layers that quantisation harms most.
//!
//! One pass ranks all linear layers by the error of their outputs over the samples of the calibration. Those with the largest
//! errors stay in float. The logits of both models then tell whether that was right.

use std::collections::BTreeSet;

use super::calibrate::Calibration;
use super::source::{InMemory, quantised_config};
use super::weights::{IntegerRows, output_errors};
use super::{Control, Job, QuantiseError};
use crate::weights::layout::LinearId;

/// A layer with the error of its outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranked {
    /// The layer.
    pub linear: LinearId,
    /// The sum of squared errors over the sum of squares of its outputs.
    pub error: f64,
}

/// Ranks the layers that would be quantised, leaves `count` of them in float, and compares the logits of both models. Returns
/// the ranking, and the mean KL divergences without and with those layers in float.
pub(super) fn search(
    job: &mut Job,
    calibration: &Calibration,
    count: usize,
    control: &mut Control<'_>,
) -> Result<(Vec<Ranked>, Option<(f64, f64)>), QuantiseError> {
    let ranked = ranked(job, calibration, control)?;
    let before = kl(job, calibration, control)?;
    let chosen: BTreeSet<LinearId> = ranked.iter().take(count).map(|ranked| ranked.linear).collect();
    job.settings.float.extend(&chosen);
    let after = kl(job, calibration, control)?;
    control.say(format!(
        "mean KL from the float model: {before:.2e} with {} layers in float, {after:.2e} with {} more",
        job.settings.float.len() - chosen.len(),
        chosen.len()
    ));
    if after > before {
        control.say(
            "warning: the layers that were left in float did not help; choose others with --leave-float"
                .into(),
        );
    }
    Ok((ranked, Some((before, after))))
}

fn ranked(
    job: &Job,
    calibration: &Calibration,
    control: &mut Control<'_>,
) -> Result<Vec<Ranked>, QuantiseError> {
    let all: Vec<LinearId> = LinearId::all(&job.config).collect();
    control.stage("ranking", "layers", all.len() as u64);
    let mut ranked = Vec::new();
    for (number, &id) in all.iter().enumerate() {
        control.check()?;
        if !job.settings.float.contains(&id) {
            let factors = calibration.factors.get(number).and_then(Option::as_deref);
            let float = job.float_rows(id, factors)?;
            let integers = IntegerRows::of(&float, job.settings.scheme, job.group_of(id))?;
            let input = [calibration.input(number)];
            let errors = output_errors(&float, &integers, calibration.samples(number), &input);
            ranked.push(Ranked { linear: id, error: errors[0] });
            drop(float);
            job.source.release(&id.weight());
        }
        control.done(1);
    }
    ranked.sort_by(|a, b| b.error.total_cmp(&a.error).then(a.linear.cmp(&b.linear)));
    Ok(ranked)
}

/// Returns the mean KL divergence of the quantised model's logits from the float model's.
fn kl(job: &Job, calibration: &Calibration, control: &mut Control<'_>) -> Result<f64, QuantiseError> {
    let Some(expected) = &calibration.logits else { return Ok(0.0) };
    let (config, source) = (quantised_config(job), InMemory::new(job, calibration));
    let mut model = job.loaded(None, &source, &config, control)?;
    Ok(expected.mean_kl(&job.logits(&mut *model, "logits of the quantised model", control)?))
}
