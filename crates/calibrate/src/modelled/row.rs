//! The committed table: every published speed with its ratios.

use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use glmbench_device::{Precision, Word};

/// The text of the table.
pub(super) const TABLE: &str = include_str!("../../../ascend-emulator/calibration/residuals.csv");

/// Returns the committed rows; empty if the table is damaged, which a test excludes.
pub fn residuals() -> &'static [Residual] {
    static ROWS: LazyLock<Vec<Residual>> = LazyLock::new(|| {
        csv::Reader::from_reader(TABLE.as_bytes()).deserialize().filter_map(Result::ok).collect()
    });
    &ROWS
}

/// A published speed beside the modelled one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Residual {
    /// Name of the model.
    pub model: String,
    /// The chip.
    pub chip: String,
    /// Chips that share the model.
    pub chips: usize,
    /// Type of the weights.
    pub dtype: Word<Precision>,
    /// How operators were launched.
    pub mode: String,
    /// Sequences.
    pub batch: usize,
    /// Prompt tokens of a sequence, or the range over which the figure is a mean.
    pub input_tokens: String,
    /// Generated tokens of a sequence, likewise.
    pub output_tokens: String,
    /// `prefill` or `decode`.
    pub phase: String,
    /// `fit`, `check` or `report`.
    #[serde(rename = "use")]
    pub purpose: String,
    /// The published time, ms.
    pub published_ms: f64,
    /// Modelled over published time by the profiles before calibration; `None` if the row cannot be timed.
    pub before: Option<f64>,
    /// Modelled over published time by the shipped profile.
    pub ratio: Option<f64>,
    /// Modelled over published time with this model left out of the fit; `None` if the row was not fitted.
    pub left_out: Option<f64>,
    /// Why the row was not timed, or why it is only reported.
    pub reason: String,
}

/// The rows that are summarised together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The chip.
    pub chip: String,
    /// The number of chips; `None` for all numbers.
    pub chips: Option<usize>,
    /// `prefill` or `decode`.
    pub phase: String,
}

/// `310P3, 2 chips, decode`, or `310P3, decode, all models`.
impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chip, chips, phase } = self;
        match chips {
            Some(1) => write!(f, "{chip}, 1 chip, {phase}"),
            Some(chips) => write!(f, "{chip}, {chips} chips, {phase}"),
            None => write!(f, "{chip}, {phase}, all models"),
        }
    }
}

impl Residual {
    /// Returns the ratio by a fit that has not seen the row's model. A fitted row has the fit with the
    /// model left out, another row the fit of the shipped profile.
    pub fn predicted(&self) -> Option<f64> {
        self.left_out.or(self.ratio)
    }

    /// Returns the parameters that the model's name states: 7e9 for `Qwen-7B`.
    pub fn parameters(&self) -> Option<f64> {
        let word = |word: &str| word.strip_suffix('B')?.parse::<f64>().ok();
        self.model.split(['-', ' ', '(', ')']).find_map(word).map(|billions| billions * 1e9)
    }

    /// Whether the weights were quantised.
    pub(super) fn is_quantised(&self) -> bool {
        self.dtype.known().is_none_or(Precision::has_quantised_weights)
    }

    /// Returns the rows that it is summarised with.
    pub fn group(&self) -> Group {
        Group { chip: self.chip.clone(), chips: Some(self.chips), phase: self.phase.clone() }
    }

    /// Whether the row counts towards the stated error.
    pub fn counts(&self) -> bool {
        self.purpose != "report" && self.predicted().is_some()
    }
}
