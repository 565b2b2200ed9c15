//! The error of modelled times: how the shipped chip profiles compare with published speeds.
//!
//! `crates/ascend-emulator/calibration/residuals.csv` has a row for every published speed: the ratio of modelled to published
//! time. Rows that the profiles were fitted to also have the ratio with their model left out of the fit. `glmbench calibrate
//! --published` writes it. A modelled figure carries the error of the rows of its chip, phase and number of chips. If these are
//! few or of one model, it carries that of all rows of its chip and phase.
//!
//! A profile that was fitted to the times of a card ([`ClockFit`]) states the error of that fit instead, in the same way.

use glmbench_device::ClockFit;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The committed table.
const TABLE: &str = include_str!("../../ascend-emulator/calibration/residuals.csv");

/// The shipped profiles: name, chip of the published rows, and text.
const PROFILES: [(&str, &str, &str); 4] = [
    ("300i-duo", "310P3", include_str!("../../ascend-emulator/profiles/300i-duo.toml")),
    ("300i-duo-48g", "310P3", include_str!("../../ascend-emulator/profiles/300i-duo-48g.toml")),
    ("800i-a2", "910B4", include_str!("../../ascend-emulator/profiles/800i-a2.toml")),
    ("800i-a2-64g", "910B3", include_str!("../../ascend-emulator/profiles/800i-a2-64g.toml")),
];

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
    pub dtype: String,
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

impl Residual {
    /// Returns the ratio that says most of an unseen model: that with the model left out, if it was fitted.
    pub fn predicted(&self) -> Option<f64> {
        self.left_out.or(self.ratio)
    }

    /// Returns the parameters that the model's name states: 7e9 for `Qwen-7B`.
    pub fn parameters(&self) -> Option<f64> {
        let word = |word: &str| word.strip_suffix('B')?.parse::<f64>().ok();
        self.model.split(['-', ' ', '(', ')']).find_map(word).map(|billions| billions * 1e9)
    }

    /// Names the rows that it is summarised with: `310P3, 2 chips, decode`.
    pub fn group(&self) -> String {
        let Self { chip, chips, phase, .. } = self;
        format!("{chip}, {}, {phase}", counted(*chips, "chip"))
    }

    /// Whether the row counts towards the stated error.
    pub fn counts(&self) -> bool {
        self.purpose != "report" && self.predicted().is_some()
    }
}

/// Returns the committed rows; empty if the table is damaged, which a test excludes.
pub fn residuals() -> Vec<Residual> {
    csv::Reader::from_reader(TABLE.as_bytes()).deserialize().filter_map(Result::ok).collect()
}

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
}

/// The times that an error rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Published rows, each of a model.
    Published,
    /// Times of a card that the profile was fitted to, each of a shape.
    Fitted,
}

impl Basis {
    /// Words for one time, for what is left out of the fit, and for the whole.
    fn words(self) -> [&'static str; 3] {
        match self {
            Self::Published => ["row", "model", "published"],
            Self::Fitted => ["measured time", "shape", "fitted"],
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
    /// Root mean square over the models of the logarithm of modelled over published time ([`rms_over_models`]).
    pub error: f64,
    /// Its largest absolute value.
    pub worst: f64,
    /// Number of times behind it.
    pub rows: usize,
    /// Number of models, or of shapes, that the times are of.
    pub models: usize,
    /// What the times are: published rows of models, or measured times of shapes.
    pub of: Basis,
    /// Whether the rows are of all numbers of chips, because those of the figure's own are few or of one model.
    pub pooled: bool,
    /// Where the figure is outside the published rows; empty if it is inside.
    pub beyond: Vec<String>,
}

impl Stated {
    /// Returns the error in words: `± 12 % (19 rows of 3 models; worst 34 %)`.
    pub fn words(&self) -> String {
        let Self { error, worst, rows, models, of, pooled, beyond } = self;
        let [row, model, _] = of.words();
        let pooled = if *pooled { ", over all numbers of chips" } else { "" };
        let beyond =
            if beyond.is_empty() { String::new() } else { format!("; extrapolated: {}", beyond.join(", ")) };
        format!(
            "± {:.0} % ({} of {}{pooled}; worst {:.0} %{beyond})",
            100.0 * error,
            counted(*rows, row),
            counted(*models, model),
            100.0 * worst
        )
    }

    /// Returns the error in the few words of a table's cell: `± 12 %`, with an asterisk if extrapolated.
    pub fn short(&self) -> String {
        let mark = if self.beyond.is_empty() { "" } else { " *" };
        format!("± {:.0} %{mark}", 100.0 * self.error)
    }
}

/// Returns the chip with the published rows that belong to a run's profile. `profile` is `NAME sha256:HASH`, as in
/// records;
/// `None` if it is no shipped profile of this version.
fn chip_of(profile: &str) -> Option<&'static str> {
    let (name, hash) = profile.split_once(" sha256:")?;
    let (.., chip, text) = PROFILES.iter().find(|(known, ..)| *known == name)?;
    let own: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    (own == hash).then_some(*chip)
}

/// Whether a run's profile is a shipped one of this version: name and hash.
pub fn is_shipped(profile: &str) -> bool {
    chip_of(profile).is_some()
}

/// Returns the root mean square, and the largest, of the logarithm of rows' ratios, each with its model. Every model has the same
/// weight. `None` without rows.
pub fn rms_over_models<'a>(ratios: impl IntoIterator<Item = (&'a str, f64)>) -> Option<(f64, f64)> {
    let mut models: Vec<(&str, f64, f64)> = Vec::new();
    let mut worst = 0.0_f64;
    for (of, ratio) in ratios {
        let log = ratio.ln();
        worst = worst.max(log.abs());
        match models.iter_mut().find(|(model, ..)| *model == of) {
            Some((_, sum, n)) => (*sum, *n) = (*sum + log * log, *n + 1.0),
            None => models.push((of, log * log, 1.0)),
        }
    }
    if models.is_empty() {
        return None;
    }
    let mean = models.iter().map(|(_, sum, n)| sum / n).sum::<f64>() / models.len() as f64;
    Some((mean.sqrt(), worst))
}

/// Why no figure of a profile has a known error.
pub const UNKNOWN: &str =
    "error unknown here: neither a shipped profile of this version nor one with a fit of its own";

/// Returns the error of a modelled figure.
///
/// # Errors
/// Why no error is known.
pub fn stated(ground: Ground<'_>, of: Of, shape: Shape) -> Result<Stated, &'static str> {
    let rows = residuals();
    let one = |phase: &str| match ground.profile.and_then(chip_of) {
        Some(chip) => stated_of(&Known::published(&rows, chip, phase), phase, shape),
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

/// The fewest rows that state an error. They are of two models at least.
const FEWEST_ROWS: usize = 3;

/// How far from the known models' sizes a model may be: the factor to the smallest and the largest.
const NEAR: (f64, f64) = (0.5, 2.0);

/// Times of one chip and phase, against which a figure is held.
struct Known {
    of: Basis,
    times: Vec<Time>,
}

/// Some of these times: a published row, or a fit's times on one number of chips.
struct Time {
    /// The model; of a fit, nothing.
    model: String,
    /// Number of times.
    rows: usize,
    /// Number of models or shapes, if the model's name does not say.
    shapes: usize,
    /// Root mean square of the logarithm of the ratio, and its largest.
    error: (f64, f64),
    chips: usize,
    parameters: Option<f64>,
    graphs: bool,
    batch: usize,
    /// Longest sequence.
    tokens: usize,
}

impl Known {
    fn published(rows: &[Residual], chip: &str, phase: &str) -> Self {
        let of_row = |row: &Residual| {
            let log = row.predicted()?.ln().abs();
            let input = longest(&row.input_tokens);
            Some(Time {
                model: row.model.clone(),
                rows: 1,
                shapes: 1,
                error: (log, log),
                chips: row.chips,
                parameters: row.parameters(),
                graphs: row.mode == "graph",
                batch: row.batch,
                tokens: if phase == "decode" { input + longest(&row.output_tokens) } else { input },
            })
        };
        let own = rows.iter().filter(|row| row.chip == chip && row.phase == phase && row.counts());
        Self { of: Basis::Published, times: own.filter_map(of_row).collect() }
    }

    fn fitted(fits: &[ClockFit], phase: &str) -> Self {
        let of_fit = |(at, fit): (usize, &ClockFit)| Time {
            model: at.to_string(),
            rows: fit.rows as usize,
            shapes: fit.shapes as usize,
            error: (fit.error, fit.worst),
            chips: fit.chips as usize,
            parameters: Some(fit.parameters),
            graphs: fit.graphs,
            batch: fit.batch as usize,
            tokens: fit.tokens as usize,
        };
        let own = fits.iter().filter(|fit| fit.phase == phase).enumerate();
        Self { of: Basis::Fitted, times: own.map(of_fit).collect() }
    }

    /// Says why these times state no error.
    fn lacks(&self, used: &[&Time]) -> &'static str {
        match (self.of, rows_of(used)) {
            (Basis::Published, 0) => "error unknown: no published row of this chip and phase",
            (Basis::Published, 1) => "one row: error not known",
            (Basis::Published, 2) => "two rows: error not known",
            (Basis::Published, _) => "rows of one model: error not known",
            (Basis::Fitted, 0) => "error unknown: the profile's fit has no time of this phase",
            (Basis::Fitted, _) => "too few times in the profile's fit: error not known",
        }
    }

    /// Where a figure is outside the times that its error rests on: all, or those on its own number of chips.
    fn beyond(&self, used: &[&Time], phase: &str, shape: Shape) -> Vec<String> {
        let known = self.of.words()[2];
        let mut beyond = Vec::new();
        if self.times.iter().all(|time| time.chips != shape.chips) {
            let mut chips: Vec<usize> = self.times.iter().map(|time| time.chips).collect();
            chips.sort_unstable();
            chips.dedup();
            let chips: Vec<String> = chips.iter().map(usize::to_string).collect();
            beyond.push(format!("TP {} ({known}: {})", shape.chips, chips.join(", ")));
        }
        let sizes = || used.iter().filter_map(|time| time.parameters);
        if let (Some(own), Some(smallest), Some(largest)) =
            (shape.parameters, sizes().reduce(f64::min), sizes().reduce(f64::max))
            && !(NEAR.0 * smallest..=NEAR.1 * largest).contains(&own)
        {
            let (smallest, largest) = (smallest / 1e9, largest / 1e9);
            // Three digits after the point, without zeros at the end.
            let short = |billions: f64| ((billions * 1e3).round() / 1e3).to_string();
            let range = if smallest < largest {
                format!("{} to {}", short(smallest), short(largest))
            } else {
                short(smallest)
            };
            beyond.push(format!("model of {} parameters ({known} {range} B)", scaled(own)));
        }
        if let Some(graphs) = shape.graphs
            && used.iter().all(|time| time.graphs != graphs)
        {
            let (own, other) = if graphs { ("as graphs", "one by one") } else { ("one by one", "as graphs") };
            beyond.push(format!("launched {own} ({known}: {other})"));
        }
        let batch = used.iter().map(|time| time.batch).max().unwrap_or(0);
        if shape.batch > batch {
            beyond.push(format!("batch {} ({known} up to {batch})", shape.batch));
        }
        let tokens = used.iter().map(|time| time.tokens).max().unwrap_or(0);
        let own = shape.input_tokens + if phase == "decode" { shape.output_tokens } else { 0 };
        if own > tokens {
            beyond.push(format!("{own} tokens ({known} up to {tokens})"));
        }
        beyond
    }
}

fn rows_of(times: &[&Time]) -> usize {
    times.iter().map(|time| time.rows).sum()
}

fn stated_of(known: &Known, phase: &str, shape: Shape) -> Result<Stated, &'static str> {
    let all: Vec<&Time> = known.times.iter().collect();
    let same: Vec<&Time> = all.iter().copied().filter(|time| time.chips == shape.chips).collect();
    let enough = |times: &[&Time]| rows_of(times) >= FEWEST_ROWS && models_of(times) > 1;
    let pooled = !enough(&same);
    let used = if pooled { &all } else { &same };
    if !enough(used) {
        return Err(known.lacks(used));
    }
    let (error, worst) = rms(used).ok_or("error unknown")?;
    Ok(Stated {
        error,
        worst,
        rows: rows_of(used),
        models: models_of(used),
        of: known.of,
        pooled,
        beyond: known.beyond(used, phase, shape),
    })
}

/// Returns the root mean square over models, or shapes, and the largest error.
fn rms(times: &[&Time]) -> Option<(f64, f64)> {
    let mut models: Vec<(&str, f64, f64, f64)> = Vec::new();
    let mut worst = 0.0_f64;
    for time in times {
        let (square, shapes) = (time.error.0 * time.error.0, time.shapes as f64);
        worst = worst.max(time.error.1);
        match models.iter_mut().find(|(model, ..)| *model == time.model) {
            Some((_, sum, n, _)) => (*sum, *n) = (*sum + square, *n + 1.0),
            None => models.push((&time.model, square, 1.0, shapes)),
        }
    }
    let weight: f64 = models.iter().map(|(.., shapes)| shapes).sum();
    let mean = models.iter().map(|(_, sum, n, shapes)| shapes * sum / n).sum::<f64>() / weight;
    (weight > 0.0).then(|| (mean.sqrt(), worst))
}

fn models_of(times: &[&Time]) -> usize {
    let mut models: Vec<(&str, usize)> =
        times.iter().map(|time| (time.model.as_str(), time.shapes)).collect();
    models.sort_unstable();
    models.dedup();
    models.iter().map(|(_, shapes)| shapes).sum()
}

/// Returns `1 row`, `2 rows`.
fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Returns a number of parameters: `6.2 B`, `13 B`, `0.8 M`.
fn scaled(parameters: f64) -> String {
    let (value, unit) = if parameters >= 1e8 { (parameters / 1e9, "B") } else { (parameters / 1e6, "M") };
    if value >= 10.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// Returns the longest length of a column of the table.
fn longest(text: &str) -> usize {
    text.rsplit("..").next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(model: &str, chips: usize, batch: usize, left_out: f64) -> Residual {
        Residual {
            model: model.into(),
            chip: "910B4".into(),
            chips,
            dtype: "fp16".into(),
            mode: "graph".into(),
            batch,
            input_tokens: "32..1024".into(),
            output_tokens: "1024".into(),
            phase: "decode".into(),
            purpose: "fit".into(),
            published_ms: 10.0,
            before: None,
            ratio: Some(1.0),
            left_out: Some(left_out),
            reason: String::new(),
        }
    }

    fn of(rows: &[Residual], phase: &str, shape: Shape) -> Result<Stated, &'static str> {
        stated_of(&Known::published(rows, "910B4", phase), phase, shape)
    }

    #[test]
    fn a_profile_fitted_to_a_card_states_the_error_of_its_fit() {
        let fit = |phase: &str, chips, error| ClockFit {
            phase: phase.into(),
            chips,
            rows: 9,
            shapes: 9,
            error,
            worst: 2.0 * error,
            batch: 32,
            tokens: 2064,
            parameters: 6.24e9,
            graphs: false,
        };
        let fits = [fit("prefill", 1, 0.02), fit("decode", 1, 0.03), fit("decode", 2, 0.05)];
        let ground = Ground { profile: Some("mine sha256:00"), fits: &fits };
        let shape = Shape {
            chips: 1,
            batch: 8,
            input_tokens: 1024,
            output_tokens: 64,
            parameters: Some(6.24e9),
            graphs: Some(false),
        };
        let words = |of, shape| stated(ground, of, shape).unwrap().words();
        assert_eq!(words(Of::Decode, shape), "± 3 % (9 measured times of 9 shapes; worst 6 %)");
        assert_eq!(words(Of::Both, shape), "± 3 % (9 measured times of 9 shapes; worst 6 %)");
        let outside = Shape { chips: 4, batch: 64, graphs: Some(true), ..shape };
        assert_eq!(
            words(Of::Decode, outside),
            "± 4 % (18 measured times of 18 shapes, over all numbers of chips; worst 10 %; extrapolated: TP 4 (fitted: 1, 2), \
             launched as graphs (fitted: one by one), batch 64 (fitted up to 32))"
        );
        assert!(
            stated(Ground { fits: &fits[..1], ..ground }, Of::Decode, shape)
                .unwrap_err()
                .contains("no time of this phase")
        );
        assert!(
            stated(Ground { fits: &[], ..ground }, Of::Decode, shape).unwrap_err().contains("unknown here")
        );
    }

    #[test]
    fn the_error_is_that_of_models_left_out_and_says_where_it_extrapolates() {
        let rows = [
            row("a-7B", 1, 4, 1.1),
            row("b-13B", 1, 8, 1.0 / 1.1),
            row("b-13B", 1, 8, 1.1),
            row("c-70B", 8, 4, 2.0),
        ];
        let shape = Shape {
            chips: 1,
            batch: 8,
            input_tokens: 1024,
            output_tokens: 1024,
            parameters: Some(6.2e9),
            graphs: Some(true),
        };
        let inside = of(&rows, "decode", shape).unwrap();
        assert_eq!(inside.words(), "± 10 % (3 rows of 2 models; worst 10 %)");
        assert_eq!(inside.short(), "± 10 %");
        let other = Shape { parameters: Some(0.8e6), graphs: Some(false), ..shape };
        assert_eq!(
            of(&rows, "decode", other).unwrap().words(),
            "± 10 % (3 rows of 2 models; worst 10 %; extrapolated: model of 0.8 M parameters (published 7 to 13 B), launched one \
             by one (published: as graphs))"
        );
        let outside = Shape { chips: 4, batch: 16, input_tokens: 8192, output_tokens: 1, ..shape };
        let outside = of(&rows, "decode", outside).unwrap();
        assert_eq!(
            outside.words(),
            "± 41 % (4 rows of 3 models, over all numbers of chips; worst 69 %; extrapolated: TP 4 (published: 1, 8), batch 16 \
             (published up to 8), 8193 tokens (published up to 2048))"
        );
        assert_eq!(outside.short(), "± 41 % *");
        // One row says nothing of its own number of chips.
        let eight = of(&rows, "decode", Shape { chips: 8, ..shape }).unwrap();
        assert!(eight.pooled && eight.rows == 4, "{eight:?}");
        assert_eq!(of(&rows[3..], "decode", shape), Err("one row: error not known"));
        assert_eq!(of(&rows[..1], "decode", shape), Err("one row: error not known"));
        assert!(of(&rows, "prefill", shape).is_err());
        let named = |profile| Ground { profile, fits: &[] };
        assert!(stated(named(None), Of::Both, shape).is_err());
        assert!(stated(named(Some("800i-a2 sha256:00")), Of::Both, shape).is_err());
    }

    #[test]
    fn every_shipped_profile_has_rows_and_the_table_is_whole() {
        let all = csv::Reader::from_reader(TABLE.as_bytes()).into_records().count();
        assert_eq!(residuals().len(), all);
        let shape = Shape {
            chips: 1,
            batch: 1,
            input_tokens: 256,
            output_tokens: 256,
            parameters: None,
            graphs: None,
        };
        assert!(residuals().iter().all(|row| row.parameters().is_some()));
        for (name, _, text) in PROFILES {
            let hash: String = Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
            let profile = format!("{name} sha256:{hash}");
            for of in [Of::Prefill, Of::Decode, Of::Both] {
                let stated = stated(Ground { profile: Some(&profile), fits: &[] }, of, shape).unwrap();
                assert!(stated.rows > 0 && stated.error < 0.5, "{name} {of:?} {stated:?}");
            }
        }
    }
}
