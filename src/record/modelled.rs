//! The chip profile behind a run's modelled times: its figures with their marks, and its fits.

use glmbench_device::{ClockFigure, ClockFit, ClockProfile};
use serde::{Deserialize, Serialize};

/// The profile of a modelled clock, besides its name and hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelledBy {
    /// The card's name in full.
    pub title: String,
    /// The figures, in the order of the profile.
    pub figures: Vec<ProfileFigure>,
    /// How the profile compares with the times of a card that it was fitted to; empty for profiles fitted to none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fits: Vec<ProfileFit>,
}

/// A figure of a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileFigure {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// `published`, `derived`, `calibrated` or `assumed`.
    pub mark: String,
    /// Its source, as text.
    pub source: String,
    /// Rows that a calibrated figure was fitted to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u32>,
    /// Its error on what was left out of the fit, as a share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
}

/// How a profile compares with the times that it was fitted to: one phase on one number of chips ([`ClockFit`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProfileFit {
    /// `prefill` or `decode`.
    pub phase: String,
    /// Number of chips.
    pub chips: u32,
    /// Number of measured times.
    pub rows: u32,
    /// Number of shapes.
    pub shapes: u32,
    /// Root mean square of the logarithm of modelled over measured time, each shape left out of the fit in turn.
    pub error: f64,
    /// Its largest absolute value.
    pub worst: f64,
    /// Largest batch.
    pub batch: u32,
    /// Longest sequence in tokens.
    pub tokens: u32,
    /// Parameters of the model.
    pub parameters: f64,
    /// Whether launches were captured as graphs.
    pub graphs: bool,
}

impl From<&ClockProfile> for ModelledBy {
    fn from(of: &ClockProfile) -> Self {
        let figure = |of: &ClockFigure| {
            let ClockFigure { key, value, unit, mark, source, fit } = of.clone();
            let (rows, error) = fit.unzip();
            ProfileFigure { key, value, unit, mark, source, rows, error }
        };
        Self {
            title: of.title.clone(),
            figures: of.figures.iter().map(figure).collect(),
            fits: of.fits.iter().map(ProfileFit::from).collect(),
        }
    }
}

impl From<&ClockFit> for ProfileFit {
    fn from(of: &ClockFit) -> Self {
        let ClockFit { phase, chips, rows, shapes, error, worst, batch, tokens, parameters, graphs } =
            of.clone();
        Self { phase, chips, rows, shapes, error, worst, batch, tokens, parameters, graphs }
    }
}

impl From<&ProfileFit> for ClockFit {
    fn from(of: &ProfileFit) -> Self {
        let ProfileFit { phase, chips, rows, shapes, error, worst, batch, tokens, parameters, graphs } =
            of.clone();
        Self { phase, chips, rows, shapes, error, worst, batch, tokens, parameters, graphs }
    }
}
