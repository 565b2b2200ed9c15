//! What is fitted to the published rows: which profiles share which figures.
//!
//! A figure is free if the rows identify it. If a model is left out, its prediction must not be worse than with the figure
//! fixed. The others are fixed in the profiles, which say why.

use std::path::PathBuf;

use glmbench_ascend::Pricer;
use glmbench_ascend::profile::{Profile, ProfileError};
use glmbench_device::DeviceError;

use super::cases::Held;
use super::fit::{Case, Fitted, Free, fit, leave_one_out};
use super::modelled::rms_over_models;
use super::published::{Phase, Use};
use super::text::{Figure, rounded};

/// Profiles that are fitted together.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Names of the profiles that rows belong to.
    pub profiles: &'static [&'static str],
    /// The free figures.
    free: fn() -> Vec<Free>,
    /// Names of profiles of other variants, and the profile that gives them their fitted figures.
    pub variants: &'static [(&'static str, &'static str)],
}

/// All families.
pub const FAMILIES: [Family; 2] = [
    Family { profiles: &["300i-duo"], free: of_310p, variants: &[("300i-duo-48g", "300i-duo")] },
    Family { profiles: &["800i-a2", "800i-a2-64g"], free: of_a2, variants: &[] },
];

/// Source of the figures that are fitted to the published rows.
const PUBLISHED: &str = "fitted to calibration/published.csv by glmbench calibrate --published";

fn of_310p() -> Vec<Free> {
    vec![
        Free { key: "compute_efficiency", of: vec![], start: 0.3, range: 0.05..=1.0, source: PUBLISHED },
        Free { key: "single_launch_ns", of: vec![], start: 20e3, range: 10.0..=1e6, source: PUBLISHED },
    ]
}

/// Both variants have the same cores, so they share what concerns cores. The rows of a single chip say how fast these compute.
/// The rows of eight chips cannot tell that from their links.
fn of_a2() -> Vec<Free> {
    vec![
        Free { key: "compute_efficiency", of: vec![], start: 0.6, range: 0.05..=1.0, source: PUBLISHED },
        Free { key: "prompt_layer_ns", of: vec![], start: 5e5, range: 10.0..=1e7, source: PUBLISHED },
        Free { key: "memory_efficiency", of: vec![0], start: 0.7, range: 0.05..=1.0, source: PUBLISHED },
        Free { key: "memory_efficiency", of: vec![1], start: 0.6, range: 0.05..=1.0, source: PUBLISHED },
    ]
}

/// Errors of a fit.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// A profile cannot be read.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The emulator refuses a profile, or cannot be opened.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A result cannot be written.
    #[error("{}: {problem}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        problem: std::io::Error,
    },
}

/// A family's fit to the published rows.
#[derive(Debug, Clone)]
pub struct FamilyFit {
    /// The free figures.
    pub free: Vec<Free>,
    /// The fit.
    pub fitted: Fitted,
    /// The rows of the family that can be timed.
    pub rows: Vec<FamilyRow>,
}

/// A row of a family.
#[derive(Debug, Clone, PartialEq)]
pub struct FamilyRow {
    /// Its place among all rows.
    pub at: usize,
    /// Its model.
    pub model: String,
    /// The place of its profile in the family.
    pub base: usize,
    /// Its phase.
    pub phase: Phase,
    /// Ratio of predicted to published time with its model left out of the fit; `None` if it was not fitted.
    pub left_out: Option<f64>,
}

impl FamilyFit {
    /// Returns the fitted figures of a profile of the family, rounded as its text has them.
    pub fn figures(&self, base: usize) -> Vec<Figure> {
        let own = self.free.iter().zip(&self.fitted.values).filter(|(free, _)| free.concerns(base));
        own.map(|(free, value)| {
            let phase = match free.key {
                "compute_efficiency" | "prompt_layer_ns" => Phase::Prefill,
                _ => Phase::Decode,
            };
            let ratios: Vec<(&str, f64)> = self
                .rows
                .iter()
                .filter(|row| free.concerns(row.base) && row.phase == phase)
                .filter_map(|row| Some((row.model.as_str(), row.left_out?)))
                .collect();
            let rows = ratios.len();
            Figure {
                key: free.key.to_owned(),
                value: rounded(*value),
                rows,
                error: rms_over_models(ratios).map_or(0.0, |error| error.rms),
                source: free.source.to_owned(),
            }
        })
        .collect()
    }

    /// Returns the settings of a profile of the family with the fitted figures.
    ///
    /// # Errors
    /// The profile cannot be read.
    pub fn settings(&self, family: &Family, base: usize) -> Result<String, ProfileError> {
        let name = family.profiles.get(base).copied().unwrap_or_default();
        let lines =
            self.figures(base).into_iter().map(|figure| format!("{} = {}\n", figure.key, figure.value));
        Ok(Profile::builtin(name)?.settings_lines() + &lines.collect::<String>())
    }
}

impl Family {
    /// Returns the settings of the profiles in the family.
    ///
    /// # Errors
    /// A profile cannot be read.
    pub fn bases(&self) -> Result<Vec<String>, ProfileError> {
        self.profiles.iter().map(|name| Ok(Profile::builtin(name)?.settings_lines())).collect()
    }

    /// Returns the place in the family of the profile that a row has.
    pub fn base_of(&self, held: &Held) -> Option<usize> {
        held.profile.and_then(|profile| self.profiles.iter().position(|known| *known == profile))
    }

    /// Fits the family to the rows that are for fitting.
    ///
    /// # Errors
    /// A profile cannot be read, or the emulator refuses it.
    pub fn fit(&self, pricer: &Pricer, held: &[Held]) -> Result<FamilyFit, FitError> {
        let free = (self.free)();
        let bases = self.bases()?;
        let own = |(at, held): (usize, &Held)| {
            let (base, case) = (self.base_of(held)?, held.case.as_ref().ok()?);
            Some((at, held.row.purpose == Use::Fit, Case { base, ..case.clone() }))
        };
        let own: Vec<(usize, bool, Case)> = held.iter().enumerate().filter_map(own).collect();
        let cases: Vec<&Case> = own.iter().filter(|(_, fits, _)| *fits).map(|(.., case)| case).collect();
        let fitted = fit(pricer, &bases, &free, &cases)?;
        let mut predicted = leave_one_out(pricer, &bases, &free, &cases)?.into_iter();
        // Rows that are not fitted take no prediction.
        let rows = own
            .iter()
            .map(|(at, fits, case)| FamilyRow {
                at: *at,
                model: case.model.clone(),
                base: case.base,
                phase: case.phase,
                left_out: if *fits { predicted.next().map(f64::exp) } else { None },
            })
            .collect();
        Ok(FamilyFit { free, fitted, rows })
    }
}
