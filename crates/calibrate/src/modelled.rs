//! The error of modelled times: how the shipped chip profiles compare with published speeds.
//!
//! # Definition
//!
//! The *ratio* of a published speed is its modelled over its published time. The ratio is predicted by a fit that has not seen
//! the row's model ([`Residual::predicted`]). The **error** of several rows is the root mean square of the logarithms of the
//! ratios, in which every model has the same weight ([`rms_over_models`]). Rows that are only reported do not count
//! ([`Residual::counts`]). This definition holds for every error in this program: of a modelled figure, of the summary by chip
//! and phase, and of the calibrated figures.
//!
//! An error is thus the logarithm of a factor. A figure *x* ± *e* lies between *x* / exp(*e*) and *x* · exp(*e*) ([`ends`]). It is
//! shown in percent. A ratio of two modelled figures has the root of the sum of the squares of both errors ([`of_ratio`]).
//!
//! # Rows
//!
//! `crates/ascend-emulator/calibration/residuals.csv` has a row for every published speed, with the ratio by the shipped profile.
//! Rows that the profiles were fitted to also have the ratio with their model left out of the fit. `glmbench calibrate
//! --published` writes the file. A modelled figure carries the error of the rows of its chip, phase and number of chips. If these are few or of one
//! model, it carries that of all rows of its chip and phase.
//!
//! A profile that was fitted to the times of a card ([`ClockFit`]) states the error of that fit instead, in the same way. There, a
//! shape takes the place of a model.

mod known;
mod row;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use glmbench_ascend::profile::Profile;
use glmbench_device::ClockFit;

use self::known::{Known, stated_of};

pub use self::row::{Group, Residual, residuals};

/// The phase of a modelled figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Prompt tokens.
    Prefill,
    /// Generated tokens.
    Decode,
    /// Both, one after the other: the larger error of the two.
    Both,
}

/// The shape of a modelled figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Number of chips.
    pub chips: usize,
    /// Sequences.
    pub batch: usize,
    /// Prompt tokens of a sequence.
    pub input_tokens: usize,
    /// Generated tokens of a sequence.
    pub output_tokens: usize,
    /// Parameters of the model; `None` if they are not known.
    pub parameters: Option<f64>,
    /// Whether operators were launched as graphs; `None` if that is not known.
    pub graphs: Option<bool>,
    /// Whether the linear layers' weights are quantised; `None` if that is not known.
    pub quantised: Option<bool>,
}

/// The times that an error rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Published rows, each of a model.
    Published,
    /// Times of a card that the profile was fitted to, each of a shape.
    Fitted,
}

/// Where a figure is outside the times that its error rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// What is outside.
    pub what: Outside,
    /// What the times are.
    pub of: Basis,
}

/// What is outside the times that an error rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// The number of chips, and the known ones.
    Chips(usize, Vec<usize>),
    /// The parameters of the model, such as `0.8 M`, and the least and the largest known ones in 10⁹.
    Parameters(String, [String; 2]),
    /// The launches: as graphs, or one by one. The known ones are of the other kind.
    Launches {
        /// Whether operators were launched as graphs.
        as_graphs: bool,
    },
    /// Quantised weights. No time of a model with them is known.
    QuantisedWeights,
    /// The batch, and the largest known one.
    Batch(usize, usize),
    /// The longest sequence in tokens, and the longest known one.
    Tokens(usize, usize),
}

impl fmt::Display for Beyond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = match self.of {
            Basis::Published => "published",
            Basis::Fitted => "fitted",
        };
        match &self.what {
            Outside::Chips(own, chips) => {
                let chips: Vec<String> = chips.iter().map(usize::to_string).collect();
                write!(f, "TP {own} ({known}: {})", chips.join(", "))
            }
            Outside::Parameters(own, [least, most]) if least == most => {
                write!(f, "model of {own} parameters ({known} {least} B)")
            }
            Outside::Parameters(own, [least, most]) => {
                write!(f, "model of {own} parameters ({known} {least} to {most} B)")
            }
            Outside::Launches { as_graphs: true } => write!(f, "launched as graphs ({known}: one by one)"),
            Outside::Launches { as_graphs: false } => write!(f, "launched one by one ({known}: as graphs)"),
            Outside::QuantisedWeights => write!(f, "quantised weights ({known}: none)"),
            Outside::Batch(own, most) => write!(f, "batch {own} ({known} up to {most})"),
            Outside::Tokens(own, most) => write!(f, "{own} tokens ({known} up to {most})"),
        }
    }
}

/// The profile of a modelled figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ground<'a> {
    /// Name and hash, as in records: `NAME sha256:HASH`.
    pub profile: Option<&'a str>,
    /// Its own fits to the times of a card.
    pub fits: &'a [ClockFit],
}

/// The error of a modelled figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Stated {
    /// The error ([`rms_over_models`]).
    pub error: f64,
    /// The largest absolute value of the logarithms.
    pub worst: f64,
    /// Number of times behind it.
    pub rows: usize,
    /// Number of models, or of shapes, that the times are of.
    pub models: usize,
    /// What the times are: published rows of models, or measured times of shapes.
    pub of: Basis,
    /// Whether the rows are of all numbers of chips, because those of the figure's own number are few or of one model.
    pub pooled: bool,
    /// Where the figure is outside the published rows; empty if it is inside.
    pub beyond: Vec<Beyond>,
}

impl Stated {
    /// Returns the error in the few words of a table cell: `± 12 %`, with an asterisk if extrapolated.
    pub fn short(&self) -> String {
        short(self.error, !self.beyond.is_empty())
    }

    /// Returns the least and the largest value of a figure with this error.
    pub fn ends(&self, value: f64) -> RangeInclusive<f64> {
        ends(value, self.error)
    }
}

/// Name and hash of each shipped profile, as in records, and the chip of its published rows.
static SHIPPED: LazyLock<Vec<(String, String)>> = LazyLock::new(|| {
    let profiles = Profile::builtin_names().into_iter().filter_map(|name| Profile::builtin(name).ok());
    let of = |profile: Profile| {
        let chip = profile.soc.strip_prefix("Ascend").unwrap_or(&profile.soc).to_owned();
        (format!("{} sha256:{}", profile.name, profile.sha256), chip)
    };
    profiles.map(of).collect()
});

/// Returns the chip with the published rows that belong to a run's profile. `profile` is `NAME sha256:HASH`, as in records; `None`
/// if it is no shipped profile of this version.
fn chip_of(profile: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(known, _)| known == profile).map(|(_, chip)| chip.as_str())
}

/// Whether a run's profile is a shipped one of this version: name and hash.
pub fn is_shipped(profile: &str) -> bool {
    chip_of(profile).is_some()
}

/// Returns the least and the largest value of a figure with this error.
pub fn ends(value: f64, error: f64) -> RangeInclusive<f64> {
    value / error.exp()..=value * error.exp()
}

/// Returns an error in the few words of a table cell: `± 12 %`, with an asterisk if extrapolated.
pub fn short(error: f64, is_beyond: bool) -> String {
    format!("± {:.0} %{}", 100.0 * error, if is_beyond { " *" } else { "" })
}

/// Returns the error of a ratio of two figures with these errors, or of their product. The two are taken as independent. Figures by
/// one profile share some of their error, and their ratio errs by less.
pub fn of_ratio(a: f64, b: f64) -> f64 {
    a.hypot(b)
}

/// Logarithms of ratios, summed up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogError {
    /// Root mean square.
    pub rms: f64,
    /// Largest magnitude.
    pub worst: f64,
}

impl LogError {
    /// Returns the error of one ratio.
    fn of_one(ratio: f64) -> Self {
        let log = ratio.ln().abs();
        Self { rms: log, worst: log }
    }
}

/// Returns the error of rows' ratios, each with its model. Every model has the same weight. `None` without rows.
pub fn rms_over_models<'a>(ratios: impl IntoIterator<Item = (&'a str, f64)>) -> Option<LogError> {
    over_models(ratios.into_iter().map(|(model, ratio)| (model, LogError::of_one(ratio), 1)))
}

/// Returns the same of times with known errors: model, error, and weight of the model.
fn over_models<'a>(times: impl Iterator<Item = (&'a str, LogError, usize)>) -> Option<LogError> {
    let mut models: Vec<(&str, f64, f64, f64)> = Vec::new();
    let mut worst = 0.0_f64;
    for (of, LogError { rms, worst: most }, weight) in times {
        worst = worst.max(most);
        match models.iter_mut().find(|(model, ..)| *model == of) {
            Some((_, sum, n, _)) => (*sum, *n) = (*sum + rms * rms, *n + 1.0),
            None => models.push((of, rms * rms, 1.0, weight as f64)),
        }
    }
    let weight: f64 = models.iter().map(|(.., weight)| weight).sum();
    let sum: f64 = models.iter().map(|(_, sum, n, weight)| weight * sum / n).sum();
    (weight > 0.0).then(|| LogError { rms: (sum / weight).sqrt(), worst })
}

/// Why no figure of a profile has a known error.
pub const UNKNOWN: &str =
    "error unknown here: neither a shipped profile of this version nor one with a fit of its own";

/// Returns the error of a modelled figure.
///
/// # Errors
/// Why no error is known.
pub fn stated(ground: Ground<'_>, of: Of, shape: Shape) -> Result<Stated, &'static str> {
    let one = |phase: &str| match ground.profile.and_then(chip_of) {
        Some(chip) => stated_of(&Known::published(residuals(), chip, phase), phase, shape),
        None if ground.fits.is_empty() => Err(UNKNOWN),
        None => stated_of(&Known::fitted(ground.fits, phase), phase, shape),
    };
    match of {
        Of::Prefill => one("prefill"),
        Of::Decode => one("decode"),
        Of::Both => {
            let (prefill, decode) = (one("prefill")?, one("decode")?);
            let (mut most, other) =
                if prefill.error >= decode.error { (prefill, decode) } else { (decode, prefill) };
            most.beyond.extend(other.beyond);
            most.beyond.dedup();
            Ok(most)
        }
    }
}
