//! Fits the shipped profiles to the published speeds, and prints how they compare.

use std::path::Path;

use comfy_table::Table;

use glmbench_ascend::Pricer;
use glmbench_calibrate::cases::held;
use glmbench_calibrate::families::{FAMILIES, FamilyFit};
use glmbench_calibrate::modelled::Residual;
use glmbench_calibrate::published;
use glmbench_calibrate::residuals::{Spread, fits, residuals, summaries, write};
use glmbench_calibrate::text::Figure;

use crate::cli::{emit, say};

use super::{percent, table};

/// Fits the profiles, prints figures and ratios, and writes both below `out`. With `rows`, also prints every row.
pub(super) fn fit_published(out: Option<&Path>, rows: bool) -> anyhow::Result<()> {
    let pricer = Pricer::new()?;
    let held = held(published::rows()?)?;
    let fits = fits(&pricer, &held)?;
    let residuals = residuals(&pricer, &held, &fits)?;
    emit(&format!(
        "Fitted figures:\n\n{}\n\nModelled over published time, by chip, number of chips and phase:\n\n{}",
        figures(&fits),
        by_group(&residuals)
    ))?;
    if rows {
        let (timed, untimed): (Vec<&Residual>, Vec<&Residual>) =
            residuals.iter().partition(|row| row.ratio.is_some());
        emit(&format!(
            "\nModelled over published time, row by row:\n\n{}\n\nRows that do not count:\n\n{}\n\nRows that cannot be timed:\n\n{}",
            by_row(&timed),
            reasons(timed.into_iter().filter(|row| !row.counts())),
            reasons(untimed.into_iter())
        ))?;
    }
    if let Some(folder) = out {
        write(folder, &residuals, &fits)?;
        say(&format!("written: {0}/calibration/residuals.csv, {0}/profiles/", folder.display()));
    }
    Ok(())
}

fn figures(fits: &[FamilyFit]) -> Table {
    let mut figures = table(&["profile", "figure", "value", "rows", "error on unseen models"]);
    for (family, fit) in FAMILIES.iter().zip(fits) {
        for (base, name) in family.profiles.iter().enumerate() {
            for Figure { key, value, rows, error, .. } in fit.figures(base) {
                let (value, rows) = (value.to_string(), rows.to_string());
                figures.add_row([(*name).to_owned(), key, value, rows, percent(error)]);
            }
        }
    }
    figures
}

/// The ratios of the rows that count, before calibration and now, and their error on models that the fit has not seen.
fn by_group(rows: &[Residual]) -> Table {
    let heads =
        ["rows of", "n", "models", "before [range]", "now [range]", "error on unseen models", "worst"];
    let mut groups = table(&heads);
    for group in summaries(rows) {
        let spread = |of: Spread| format!("{:.2} [{:.2} to {:.2}]", of.mean, of.least, of.most);
        groups.add_row([
            group.of.to_string(),
            group.rows.to_string(),
            group.models.to_string(),
            spread(group.before),
            spread(group.after),
            group.error.map(|of| percent(of.rms)).unwrap_or_default(),
            group.error.map(|of| percent(of.worst)).unwrap_or_default(),
        ]);
    }
    groups
}

fn by_row(rows: &[&Residual]) -> Table {
    let heads = [
        "chip", "chips", "model", "type", "launches", "batch", "in", "out", "phase", "use", "ms", "before",
        "now", "left out",
    ];
    let mut all = table(&heads);
    let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
    for row in rows {
        all.add_row([
            row.chip.clone(),
            row.chips.to_string(),
            row.model.clone(),
            row.dtype.to_string(),
            row.mode.clone(),
            row.batch.to_string(),
            row.input_tokens.clone(),
            row.output_tokens.clone(),
            row.phase.clone(),
            row.purpose.clone(),
            row.published_ms.to_string(),
            ratio(row.before),
            ratio(row.ratio),
            ratio(row.left_out),
        ]);
    }
    all
}

/// The reasons of rows, each once for a model on a chip.
fn reasons<'a>(rows: impl Iterator<Item = &'a Residual>) -> Table {
    let mut found: Vec<(&Residual, usize)> = Vec::new();
    for row in rows {
        let of = |row: &'a Residual| (&row.model, &row.chip, row.chips, &row.reason);
        match found.iter_mut().find(|(known, _)| of(known) == of(row)) {
            Some((_, count)) => *count += 1,
            None => found.push((row, 1)),
        }
    }
    let mut all = table(&["chip", "chips", "model", "rows", "reason"]);
    for (row, count) in found {
        all.add_row([
            row.chip.clone(),
            row.chips.to_string(),
            row.model.clone(),
            count.to_string(),
            row.reason.clone(),
        ]);
    }
    all
}
