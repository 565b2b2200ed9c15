//! The published rows beside the modelled times, and their summary by chip and phase.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use glmbench_ascend::Pricer;
use glmbench_ascend::profile::Profile;

use super::cases::Held;
use super::families::{FAMILIES, FamilyFit, FitError};
use super::fit::Case;
use super::published::{Lengths, Mode, Use};
use super::text::calibrated;
use crate::modelled::{Group, LogError, Residual, rms_over_models};

/// What the profiles of all chips had before they were calibrated.
const BEFORE: &str = "compute_efficiency = 0.7\nmemory_efficiency = 0.6\nsingle_launch_ns = 0\nprompt_layer_ns = 0\n\
    collective_latency_ns = 10000\nlink_peers = 1\nlink_efficiency = 0.7\npcie_bytes_per_s = 32e9\n";

/// What the profile of one chip had besides: vector operators at the rate of the memory.
const BEFORE_OF: [(&str, &str); 3] = [
    ("310P3", "link_bytes_per_s = 32e9\nactivation_bytes_per_s = 122.4e9\n"),
    ("910B3", "link_bytes_per_s = 64e9\nactivation_bytes_per_s = 1055.5314e9\n"),
    ("910B4", "link_bytes_per_s = 64e9\nactivation_bytes_per_s = 527.7654e9\n"),
];

/// Returns every row with its ratios. `fits` are those of [`FAMILIES`], in order.
///
/// # Errors
/// A profile cannot be read, or the emulator refuses it.
pub fn residuals(pricer: &Pricer, held: &[Held], fits: &[FamilyFit]) -> Result<Vec<Residual>, FitError> {
    let mut rows = Vec::with_capacity(held.len());
    for (at, held) in held.iter().enumerate() {
        let row = &held.row;
        let (mut before, mut ratio) = (None, None);
        if let (Ok(case), Some(name)) = (&held.case, held.profile) {
            let settings = settings_of(name, fits)?;
            let own = BEFORE_OF.iter().find(|(chip, _)| *chip == row.chip).map_or("", |(_, lines)| lines);
            ratio = Some(ratio_of(pricer, case, &settings)?);
            before = Some(ratio_of(pricer, case, &format!("{settings}{BEFORE}{own}"))?);
        }
        let own = fits.iter().flat_map(|fit| &fit.rows).find(|row| row.at == at);
        let left_out = own.and_then(|row| row.left_out);
        rows.push(Residual {
            model: row.model.clone(),
            chip: row.chip.clone(),
            chips: row.chips,
            dtype: row.dtype.clone(),
            mode: match row.mode {
                Mode::Graph => "graph",
                Mode::Single => "single",
                Mode::Eager => "eager",
            }
            .to_owned(),
            batch: row.batch,
            input_tokens: words(&row.input_tokens),
            output_tokens: words(&row.output_tokens),
            phase: row.phase.name().to_owned(),
            purpose: match row.purpose {
                Use::Fit => "fit",
                Use::Check => "check",
                Use::Report => "report",
            }
            .to_owned(),
            published_ms: row.value,
            before: before.map(short),
            ratio: ratio.map(short),
            left_out: left_out.map(short),
            reason: held.case.as_ref().err().unwrap_or(&row.note).clone(),
        });
    }
    Ok(rows)
}

/// Returns the settings of a profile with the figures that were fitted for its family.
fn settings_of(name: &str, fits: &[FamilyFit]) -> Result<String, FitError> {
    for (family, fit) in FAMILIES.iter().zip(fits) {
        if let Some(base) = family.profiles.iter().position(|known| *known == name) {
            return Ok(fit.settings(family, base)?);
        }
    }
    Ok(Profile::builtin(name)?.settings_lines())
}

fn ratio_of(pricer: &Pricer, case: &Case, settings: &str) -> Result<f64, FitError> {
    Ok(case.modelled_ns(pricer, settings)? / case.measured_ns)
}

fn short(ratio: f64) -> f64 {
    (ratio * 1e3).round() / 1e3
}

fn words(lengths: &Lengths) -> String {
    match lengths.all() {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}..{last}"),
        [] => String::new(),
    }
}

/// Writes `calibration/residuals.csv` and the fitted profiles below `folder`.
///
/// # Errors
/// A file cannot be written, or a profile cannot be read.
pub fn write(folder: &Path, rows: &[Residual], fits: &[FamilyFit]) -> Result<(), FitError> {
    let put = |path: PathBuf, text: &[u8]| {
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|problem| FitError::Unwritable { path: path.clone(), problem })
    };
    let mut table = csv::Writer::from_writer(Vec::new());
    let written = rows.iter().try_for_each(|row| table.serialize(row)).map_err(|e| e.to_string());
    let bytes = written.and_then(|()| table.into_inner().map_err(|e| e.to_string()));
    let path = folder.join("calibration/residuals.csv");
    let bytes = bytes.map_err(|problem| FitError::Unwritable {
        path: path.clone(),
        problem: std::io::Error::other(problem),
    })?;
    put(path, &bytes)?;
    for (name, text) in profiles(fits)? {
        put(folder.join(format!("profiles/{name}.toml")), text.as_bytes())?;
    }
    Ok(())
}

/// Geometric mean and range of ratios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Geometric mean.
    pub mean: f64,
    /// Least ratio.
    pub least: f64,
    /// Largest ratio.
    pub most: f64,
}

/// Ratios of the rows of a chip, for a phase and a number of chips.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Which rows.
    pub of: Group,
    /// Number of rows.
    pub rows: usize,
    /// Ratios before calibration.
    pub before: Spread,
    /// Ratios with the shipped profile.
    pub after: Spread,
    /// Number of models.
    pub models: usize,
    /// The rows' error ([`modelled`](crate::modelled) has the definition).
    pub error: Option<LogError>,
}

/// Summarises the rows that count, by chip, number of chips and phase. A chip and phase with several numbers of chips has a line
/// over all of them besides.
pub fn summaries(rows: &[Residual]) -> Vec<Summary> {
    let mut groups: Vec<(Group, Vec<&Residual>)> = Vec::new();
    for row in rows.iter().filter(|row| row.counts()) {
        let of = row.group();
        match groups.iter_mut().find(|(known, _)| *known == of) {
            Some((_, own)) => own.push(row),
            None => groups.push((of, vec![row])),
        }
    }
    let summary = |(of, own): (Group, Vec<&Residual>)| Summary {
        of,
        rows: own.len(),
        before: spread(own.iter().filter_map(|row| row.before)),
        after: spread(own.iter().filter_map(|row| row.ratio)),
        models: own.iter().map(|row| row.model.as_str()).collect::<BTreeSet<_>>().len(),
        error: rms_over_models(own.iter().filter_map(|row| Some((row.model.as_str(), row.predicted()?)))),
    };
    let mut all: Vec<(Group, Vec<&Residual>)> = Vec::new();
    for (_, own) in &groups {
        let of = Group { chips: None, ..own[0].group() };
        let several =
            groups.iter().filter(|(_, rows)| rows[0].chip == own[0].chip && rows[0].phase == own[0].phase);
        let rows: Vec<&Residual> = several.clone().flat_map(|(_, rows)| rows.iter().copied()).collect();
        if several.count() > 1 && all.iter().all(|(known, _)| *known != of) {
            all.push((of, rows));
        }
    }
    groups.into_iter().chain(all).map(summary).collect()
}

fn spread(ratios: impl Iterator<Item = f64>) -> Spread {
    let logs: Vec<f64> = ratios.map(f64::ln).collect();
    let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
    let least = logs.iter().copied().fold(f64::MAX, f64::min);
    let most = logs.iter().copied().fold(f64::MIN, f64::max);
    Spread { mean: mean.exp(), least: least.exp(), most: most.exp() }
}

/// Returns the shipped profiles with the fitted figures: name and text.
///
/// # Errors
/// A profile cannot be read.
pub fn profiles(fits: &[FamilyFit]) -> Result<Vec<(&'static str, String)>, FitError> {
    let mut texts = Vec::new();
    for (family, fit) in FAMILIES.iter().zip(fits) {
        for (base, name) in family.profiles.iter().enumerate() {
            let figures = fit.figures(base);
            let variants = family.variants.iter().filter(|(_, of)| of == name).map(|(variant, _)| variant);
            for name in std::iter::once(name).chain(variants) {
                texts.push((*name, calibrated(&Profile::builtin(name)?.text, None, &figures)));
            }
        }
    }
    Ok(texts)
}

/// Fits all families.
///
/// # Errors
/// A profile cannot be read, or the emulator refuses it.
pub fn fits(pricer: &Pricer, held: &[Held]) -> Result<Vec<FamilyFit>, FitError> {
    FAMILIES.iter().map(|family| family.fit(pricer, held)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::held;
    use crate::modelled::{self, Ground, Of, Shape, stated};
    use crate::published;

    #[test]
    fn several_numbers_of_chips_have_a_line_over_all_models() {
        let groups = summaries(modelled::residuals());
        let rows = |of: &str| groups.iter().find(|group| group.of.to_string() == of).map(|group| group.rows);
        assert_eq!((rows("310P3, 2 chips, decode"), rows("310P3, decode, all models")), (Some(3), Some(15)));
        assert_eq!(rows("910B3, decode, all models"), None);
    }

    /// A figure states the error of the rows of its chip, phase and number of chips, or that of all models: the summary's.
    #[test]
    fn the_summary_and_the_figures_state_one_error() {
        let groups = summaries(modelled::residuals());
        let mut pooled = 0;
        for (name, chip) in [("300i-duo", "310P3"), ("800i-a2", "910B4"), ("800i-a2-64g", "910B3")] {
            let profile = format!("{name} sha256:{}", Profile::builtin(name).unwrap().sha256);
            for (phase, of) in [("prefill", Of::Prefill), ("decode", Of::Decode)] {
                for chips in [1, 2, 8] {
                    let shape = Shape {
                        chips,
                        batch: 1,
                        input_tokens: 256,
                        output_tokens: 256,
                        parameters: None,
                        graphs: None,
                        quantised: None,
                    };
                    let stated = stated(Ground { profile: Some(&profile), fits: &[] }, of, shape).unwrap();
                    let all = format!("{chip}, {phase}, all models");
                    let one = format!("{chip}, 1 chip, {phase}");
                    let own = format!("{chip}, {chips} chip{}, {phase}", if chips == 1 { "" } else { "s" });
                    // If all rows of a chip are of one number of chips, the chip has no line over all.
                    let names = if stated.pooled { [all, one] } else { [own.clone(), own] };
                    let group = names
                        .iter()
                        .find_map(|name| groups.iter().find(|of| of.of.to_string() == *name))
                        .unwrap();
                    assert_eq!((group.rows, group.models), (stated.rows, stated.models), "{}", group.of);
                    let LogError { rms, worst } = group.error.unwrap();
                    assert!((rms - stated.error).abs() < 1e-12 && (worst - stated.worst).abs() < 1e-12);
                    pooled += usize::from(stated.pooled);
                }
            }
        }
        assert!(pooled > 0, "the 910B4 has one row of one chip, which is not enough");
    }

    /// The committed figures and residuals are what `glmbench calibrate --published` derives.
    #[test]
    fn the_committed_profiles_are_the_fit_to_the_published_rows() {
        let pricer = Pricer::new().unwrap();
        let held = held(published::rows().unwrap()).unwrap();
        let fits = fits(&pricer, &held).unwrap();
        let rows = residuals(&pricer, &held, &fits).unwrap();
        for (name, text) in profiles(&fits).unwrap() {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let derived = Profile::from_file(file.path()).unwrap();
            for (derived, shipped) in derived.entries.iter().zip(&Profile::builtin(name).unwrap().entries) {
                let near = (derived.value - shipped.value).abs() <= 0.02 * shipped.value.abs();
                assert!(
                    near && derived.mark == shipped.mark,
                    "{name}: derived {derived:?}, shipped {shipped:?}"
                );
            }
        }
        let committed = modelled::residuals();
        assert_eq!(rows.len(), committed.len());
        for (row, committed) in rows.iter().zip(committed) {
            assert_eq!(
                &Residual { before: None, ratio: None, left_out: None, ..row.clone() },
                &Residual { before: None, ratio: None, left_out: None, ..committed.clone() }
            );
            let near = |a: Option<f64>, b: Option<f64>, by: f64| match (a, b) {
                (Some(a), Some(b)) => (a / b - 1.0).abs() < by,
                (a, b) => a == b,
            };
            assert!(near(row.before, committed.before, 0.01), "{row:?} {committed:?}");
            assert!(near(row.ratio, committed.ratio, 0.02), "{row:?} {committed:?}");
            assert!(near(row.left_out, committed.left_out, 0.05), "{row:?} {committed:?}");
        }
    }
}
