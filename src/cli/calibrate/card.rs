//! Fits a profile to the times of a card: runs, and bundles of the self-test.

use std::path::Path;

use anyhow::{Context, bail};

use glmbench_ascend::profile::{Mark, Profile};
use glmbench_ascend::{Chip, Pricer};
use glmbench_calibrate::fit::{Case, Fitted, Free, fit, leave_one_out};
use glmbench_calibrate::measured::{Predicted, fits, free};
use glmbench_calibrate::modelled::rms_over_models;
use glmbench_calibrate::published::Phase;
use glmbench_calibrate::text::{Figure, calibrated, rounded, with_fits};

use crate::cli::{emit, say};
use crate::record::write_whole;

use super::{Args, bundles, percent, runs, table};

/// A fitted value this close to an end of its range stands at it.
const AT_END: f64 = 1e-3;
/// Above this error, a profile does not describe the times that it is fitted to.
const MOST_RMS: f64 = 0.5;

/// What times are held against.
pub(super) struct Source<'a> {
    /// The profile to start from.
    pub(super) profile: &'a Profile,
    /// The built-in profile of its card, by name.
    pub(super) base: &'a str,
    /// The model of the runs, if given.
    pub(super) model: Option<&'a Path>,
    /// Whether modelled times are taken as a card's.
    pub(super) rehearsal: bool,
}

/// A time of the card.
pub(super) struct Held {
    /// Its shape, for the table.
    pub(super) label: String,
    /// The case of the fit.
    pub(super) case: Case,
    /// The timed phase; `None` for a single operator.
    pub(super) step: Option<Predicted>,
}

/// Checks that times of a chip can be held against a profile. `what` says what the times are of.
pub(super) fn check_chip(profile: &Profile, chip: Chip, what: &str) -> anyhow::Result<()> {
    if Chip::of_soc(&profile.soc) != Some(chip) {
        bail!("--profile {}: of {}; {what}", profile.name, profile.soc);
    }
    Ok(())
}

/// Fits the profile, shows the figures and the residuals, and writes the fitted profile.
pub(super) fn fit_card(args: &Args) -> anyhow::Result<()> {
    if let Some(path) = args.out.as_deref().filter(|path| path.symlink_metadata().is_ok()) {
        bail!("--out {}: is there already; give another path", path.display());
    }
    let word = args.profile.as_deref().unwrap_or(Path::new(Chip::Duo300i.name()));
    let profile =
        if word.exists() { Profile::from_file(word)? } else { Profile::builtin(&word.to_string_lossy())? };
    let Some(chip) = Chip::of_soc(&profile.soc) else {
        bail!("--profile {}: of {}, which no built-in profile describes", profile.name, profile.soc);
    };
    let source = Source {
        profile: &profile,
        base: chip.name(),
        model: args.model.as_deref(),
        rehearsal: args.rehearsal,
    };
    let pricer = Pricer::new()?;
    let (mut held, mut names): (Vec<Held>, Vec<String>) = (Vec::new(), Vec::new());
    for word in &args.measured {
        let is_bundle = word.extension().is_some_and(|end| end == "zip");
        let (own, name) = if is_bundle {
            bundles::read(word, &source, &pricer)?
        } else {
            runs::read(word, &source, &pricer)?
        };
        held.extend(own);
        names.push(name);
    }
    let cases: Vec<&Case> = held.iter().map(|held| &held.case).collect();
    let free = free(&cases);
    if held.len() <= free.len() {
        bail!(
            "--measured has {} times; expected more than the {} figures to fit; run suites/calibrate-card.toml",
            held.len(),
            free.len()
        );
    }
    let bases = [profile.settings_lines()];
    let fitted = fit(&pricer, &bases, &free, &cases)?;
    let left_out = leave_one_out(&pricer, &bases, &free, &cases)?;
    let by = if args.rehearsal { "REHEARSAL on modelled times: fitted" } else { "fitted" };
    let source = format!("{by} by glmbench calibrate to {} times of {}", held.len(), names.join(", "));
    let figures: Vec<Figure> = free
        .iter()
        .zip(&fitted.values)
        .map(|(free, value)| {
            let (rows, error) = error_of(free, &cases, &left_out);
            Figure { key: free.key.into(), value: *value, rows, error, source: source.clone() }
        })
        .collect();
    show(&profile, &figures, &held, &left_out, &fitted, &pricer)?;
    warn(&free, &fitted);
    if let Some(path) = &args.out {
        write(path, &profile, &figures, &held, &left_out)?;
    }
    Ok(())
}

/// Returns the number of times that a figure is fitted to, and their error with each shape left out. The times are those of its phase,
/// and for the links those of several chips.
fn error_of(free: &Free, cases: &[&Case], left_out: &[f64]) -> (usize, f64) {
    let concerns = |case: &Case| match free.key {
        "compute_efficiency" | "prompt_layer_ns" => case.phase == Phase::Prefill,
        "memory_efficiency" => case.phase == Phase::Decode,
        "single_launch_ns" => !case.graph,
        _ => case.chips > 1,
    };
    let own: Vec<(&Case, f64)> = cases.iter().copied().zip(left_out.iter().copied()).collect();
    let own: Vec<_> = own.into_iter().filter(|(case, _)| concerns(case)).collect();
    (own.len().max(1), error(&own))
}

/// Returns the error of cases, each with the logarithm of predicted over measured time. A shape, or an operator, takes the place of a
/// model.
fn error(cases: &[(&Case, f64)]) -> f64 {
    let ratios = cases.iter().map(|(case, log)| (case.model.as_str(), log.exp()));
    rms_over_models(ratios).map_or(0.0, |error| error.rms)
}

fn show(
    profile: &Profile,
    figures: &[Figure],
    held: &[Held],
    left_out: &[f64],
    fitted: &Fitted,
    pricer: &Pricer,
) -> anyhow::Result<()> {
    let mut shown = table(&["figure", "before", "fitted", "times", "error on shapes left out"]);
    for figure in figures {
        let before = profile.value(&figure.key).unwrap_or_default();
        shown.add_row([
            figure.key.clone(),
            before.to_string(),
            rounded(figure.value).to_string(),
            figure.rows.to_string(),
            percent(figure.error),
        ]);
    }
    let mut residuals = table(&["shape", "phase", "measured ms", "modelled ms", "ratio", "left out"]);
    let mut logs = Vec::with_capacity(held.len());
    for (Held { label, case, .. }, left_out) in held.iter().zip(left_out) {
        let log = case.residual(pricer, &fitted.settings)?;
        logs.push((case, log));
        let ratio = log.exp();
        let ms = case.measured_ns / 1e6;
        residuals.add_row([
            label.clone(),
            case.phase.name().to_owned(),
            format!("{ms:.3}"),
            format!("{:.3}", ms * ratio),
            format!("{ratio:.3}"),
            format!("{:.3}", left_out.exp()),
        ]);
    }
    let all: Vec<(&Case, f64)> = held.iter().map(|held| &held.case).zip(left_out.iter().copied()).collect();
    emit(&format!(
        "{shown}\n\nerror {} on what is fitted, {} on shapes left out of the fit\n\n{residuals}",
        percent(error(&logs)),
        percent(error(&all))
    ))?;
    Ok(())
}

fn warn(free: &[Free], fitted: &Fitted) {
    for (free, value) in free.iter().zip(&fitted.values) {
        let (least, most) = (free.range.start(), free.range.end());
        if *value <= least * (1.0 + AT_END) || *value >= most * (1.0 - AT_END) {
            say(&format!(
                "glmbench: warning: {} = {} stands at an end of its range, {least} to {most}: the times do not tell it, or are not \
                 of this card",
                free.key,
                rounded(*value)
            ));
        }
    }
    if fitted.rms > MOST_RMS {
        say(&format!(
            "glmbench: warning: rms {} after the fit: the profile does not describe these times",
            percent(fitted.rms)
        ));
    }
}

/// Writes the fitted profile, with the errors of its steps.
fn write(
    path: &Path,
    profile: &Profile,
    figures: &[Figure],
    held: &[Held],
    left_out: &[f64],
) -> anyhow::Result<()> {
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let steps = held
        .iter()
        .zip(left_out)
        .filter_map(|(held, log)| held.step.clone().map(|step| Predicted { left_out: log.exp(), ..step }));
    let fits = fits(&steps.collect::<Vec<_>>());
    let text = with_fits(&calibrated(&profile.text, name.as_deref(), figures), &fits)
        .context("the fitted profile; nothing is written")?;
    let written = Profile::parse(&text, &path.display().to_string())
        .context("the fitted profile; nothing is written")?;
    // A fit takes long enough for another to write the file.
    if path.symlink_metadata().is_ok() {
        bail!("--out {}: is there by now; give another path", path.display());
    }
    write_whole(path, text.as_bytes())?;
    let marked = written.entries.iter().filter(|entry| entry.mark == Mark::Calibrated).count();
    say(&format!("written: {}, {marked} calibrated figures", path.display()));
    if fits.is_empty() {
        say("a bundle times single operators, so the profile states no error of whole steps; with a run of \
             suites/calibrate-card.toml beside it, it does");
    }
    Ok(())
}
