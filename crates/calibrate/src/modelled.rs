//! The error of modelled times: how the shipped chip profiles compare with published speeds.
//!
//! `crates/ascend-emulator/calibration/residuals.csv` has a row for every published speed: the ratio of modelled to published
//! time, and for rows that the profiles were fitted to, the ratio when their model is left out of the fit. `glmbench calibrate
//! --published` writes it. A modelled figure carries the error of the rows of its chip, phase and number of chips; where these are
//! few or of one model, that of all rows of its chip and phase.

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

/// The error of a modelled figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Stated {
    /// Root mean square over the models of the logarithm of modelled over published time ([`rms_over_models`]).
    pub error: f64,
    /// Its largest absolute value.
    pub worst: f64,
    /// Number of published rows behind it.
    pub rows: usize,
    /// Number of models that the rows are of.
    pub models: usize,
    /// Whether the rows are of all numbers of chips, because those of the figure's own are few or of one model.
    pub pooled: bool,
    /// Where the figure is outside the published rows; empty if it is inside.
    pub beyond: Vec<String>,
}

impl Stated {
    /// Returns the error in words: `± 12 % (19 rows of 3 models; worst 34 %)`.
    pub fn words(&self) -> String {
        let Self { error, worst, rows, models, pooled, beyond } = self;
        let pooled = if *pooled { ", over all numbers of chips" } else { "" };
        let beyond =
            if beyond.is_empty() { String::new() } else { format!("; extrapolated: {}", beyond.join(", ")) };
        format!(
            "± {:.0} % ({} of {}{pooled}; worst {:.0} %{beyond})",
            100.0 * error,
            counted(*rows, "row"),
            counted(*models, "model"),
            100.0 * worst
        )
    }

    /// Returns the error in the few words of a table's cell: `± 12 %`, with an asterisk if extrapolated.
    pub fn short(&self) -> String {
        let mark = if self.beyond.is_empty() { "" } else { " *" };
        format!("± {:.0} %{mark}", 100.0 * self.error)
    }
}

/// Returns the chip whose published rows a run's profile is held against. `profile` is `NAME sha256:HASH`, as in records;
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

/// Returns the error of a modelled figure. `profile` is that of the record.
///
/// # Errors
/// Why no error is known.
pub fn stated(profile: Option<&str>, of: Of, shape: Shape) -> Result<Stated, &'static str> {
    const UNKNOWN: &str =
        "error unknown here: no shipped profile of this version; a calibrated profile's file states its own";
    let chip = profile.and_then(chip_of).ok_or(UNKNOWN)?;
    let rows = residuals();
    let one = |phase| stated_of(&rows, chip, phase, shape);
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

/// How far from the published models' sizes a model may be: the factor to the smallest and the largest.
const NEAR: (f64, f64) = (0.5, 2.0);

fn stated_of(rows: &[Residual], chip: &str, phase: &str, shape: Shape) -> Result<Stated, &'static str> {
    let all: Vec<&Residual> =
        rows.iter().filter(|row| row.chip == chip && row.phase == phase && row.counts()).collect();
    let same: Vec<&Residual> = all.iter().copied().filter(|row| row.chips == shape.chips).collect();
    let enough = |rows: &[&Residual]| rows.len() >= FEWEST_ROWS && models_of(rows) > 1;
    let pooled = !enough(&same);
    let used = if pooled { &all } else { &same };
    if !enough(used) {
        return Err(match used.len() {
            0 => "error unknown: no published row of this chip and phase",
            1 => "one row: error not known",
            2 => "two rows: error not known",
            _ => "rows of one model: error not known",
        });
    }
    let mut beyond = Vec::new();
    if same.is_empty() {
        let mut known: Vec<usize> = all.iter().map(|row| row.chips).collect();
        known.sort_unstable();
        known.dedup();
        let known: Vec<String> = known.iter().map(usize::to_string).collect();
        beyond.push(format!("TP {} (published: {})", shape.chips, known.join(", ")));
    }
    let sizes: Vec<f64> = used.iter().filter_map(|row| row.parameters()).collect();
    let (smallest, largest) =
        (sizes.iter().copied().reduce(f64::min), sizes.iter().copied().reduce(f64::max));
    if let (Some(own), Some(smallest), Some(largest)) = (shape.parameters, smallest, largest)
        && !(NEAR.0 * smallest..=NEAR.1 * largest).contains(&own)
    {
        let published = if smallest < largest {
            format!("{} to {} B", smallest / 1e9, largest / 1e9)
        } else {
            format!("{} B", smallest / 1e9)
        };
        beyond.push(format!("model of {} parameters (published {published})", scaled(own)));
    }
    if let Some(graphs) = shape.graphs
        && used.iter().all(|row| (row.mode == "graph") != graphs)
    {
        let (own, published) = if graphs { ("as graphs", "one by one") } else { ("one by one", "as graphs") };
        beyond.push(format!("launched {own} (published: {published})"));
    }
    let most = |of: &dyn Fn(&Residual) -> usize| used.iter().map(|row| of(row)).max().unwrap_or(0);
    let batch = most(&|row| row.batch);
    if shape.batch > batch {
        beyond.push(format!("batch {} (published up to {batch})", shape.batch));
    }
    let decodes = phase == "decode";
    let context = |input: usize, output: usize| input + if decodes { output } else { 0 };
    let longest = most(&|row| context(longest(&row.input_tokens), longest(&row.output_tokens)));
    let own = context(shape.input_tokens, shape.output_tokens);
    if own > longest {
        beyond.push(format!("{own} tokens (published up to {longest})"));
    }
    let ratios = used.iter().filter_map(|row| Some((row.model.as_str(), row.predicted()?)));
    let (error, worst) =
        rms_over_models(ratios).ok_or("error unknown: no published row of this chip and phase")?;
    Ok(Stated { error, worst, rows: used.len(), models: models_of(used), pooled, beyond })
}

fn models_of(rows: &[&Residual]) -> usize {
    let mut models: Vec<&str> = rows.iter().map(|row| row.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    models.len()
}

/// Returns `1 row`, `2 rows`.
fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Returns a number of parameters: `6.2 B`, `0.8 M`.
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
        let inside = stated_of(&rows, "910B4", "decode", shape).unwrap();
        assert_eq!(inside.words(), "± 10 % (3 rows of 2 models; worst 10 %)");
        assert_eq!(inside.short(), "± 10 %");
        let other = Shape { parameters: Some(0.8e6), graphs: Some(false), ..shape };
        assert_eq!(
            stated_of(&rows, "910B4", "decode", other).unwrap().words(),
            "± 10 % (3 rows of 2 models; worst 10 %; extrapolated: model of 0.8 M parameters (published 7 to 13 B), launched one \
             by one (published: as graphs))"
        );
        let outside = Shape { chips: 4, batch: 16, input_tokens: 8192, output_tokens: 1, ..shape };
        let outside = stated_of(&rows, "910B4", "decode", outside).unwrap();
        assert_eq!(
            outside.words(),
            "± 41 % (4 rows of 3 models, over all numbers of chips; worst 69 %; extrapolated: TP 4 (published: 1, 8), batch 16 \
             (published up to 8), 8193 tokens (published up to 2048))"
        );
        assert_eq!(outside.short(), "± 41 % *");
        // One row says nothing of its own number of chips.
        let eight = stated_of(&rows, "910B4", "decode", Shape { chips: 8, ..shape }).unwrap();
        assert!(eight.pooled && eight.rows == 4, "{eight:?}");
        assert_eq!(stated_of(&rows[3..], "910B4", "decode", shape), Err("one row: error not known"));
        assert_eq!(stated_of(&rows[..1], "910B4", "decode", shape), Err("one row: error not known"));
        assert!(stated_of(&rows, "910B4", "prefill", shape).is_err());
        assert!(stated(None, Of::Both, shape).is_err());
        assert!(stated(Some("800i-a2 sha256:00"), Of::Both, shape).is_err());
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
                let stated = stated(Some(&profile), of, shape).unwrap();
                assert!(stated.rows > 0 && stated.error < 0.5, "{name} {of:?} {stated:?}");
            }
        }
    }
}
