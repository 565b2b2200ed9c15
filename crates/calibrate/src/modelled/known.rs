//! The times that an error rests on, and where a figure is outside them.

use glmbench_device::ClockFit;

use super::row::Residual;
use super::{Basis, Beyond, LogError, Outside, Shape, Stated, over_models};

/// The fewest rows that state an error. They are of two models at least.
const FEWEST_ROWS: usize = 3;

/// How many times smaller or larger than all known models a model may be.
const NEAR: f64 = 2.0;

/// Times of one chip and phase, against which a figure is held.
pub(super) struct Known {
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
    error: LogError,
    chips: usize,
    parameters: Option<f64>,
    graphs: bool,
    /// Whether the weights were quantised; `None` if that is not known.
    quantised: Option<bool>,
    batch: usize,
    /// Longest sequence.
    tokens: usize,
}

impl Known {
    pub(super) fn published(rows: &[Residual], chip: &str, phase: &str) -> Self {
        let of_row = |row: &Residual| {
            let error = LogError::of_one(row.predicted()?);
            let input = longest(&row.input_tokens);
            Some(Time {
                model: row.model.clone(),
                rows: 1,
                shapes: 1,
                error,
                chips: row.chips,
                parameters: row.parameters(),
                graphs: row.mode == "graph",
                quantised: Some(row.is_quantised()),
                batch: row.batch,
                tokens: if phase == "decode" { input + longest(&row.output_tokens) } else { input },
            })
        };
        let own = rows.iter().filter(|row| row.chip == chip && row.phase == phase && row.counts());
        Self { of: Basis::Published, times: own.filter_map(of_row).collect() }
    }

    pub(super) fn fitted(fits: &[ClockFit], phase: &str) -> Self {
        let of_fit = |(at, fit): (usize, &ClockFit)| Time {
            model: at.to_string(),
            rows: fit.rows as usize,
            shapes: fit.shapes as usize,
            error: LogError { rms: fit.error, worst: fit.worst },
            chips: fit.chips as usize,
            parameters: Some(fit.parameters),
            graphs: fit.graphs,
            quantised: None,
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
    fn beyond(&self, used: &[&Time], phase: &str, shape: Shape) -> Vec<Beyond> {
        let mut beyond = Vec::new();
        if self.times.iter().all(|time| time.chips != shape.chips) {
            let mut chips: Vec<usize> = self.times.iter().map(|time| time.chips).collect();
            chips.sort_unstable();
            chips.dedup();
            beyond.push(Outside::Chips(shape.chips, chips));
        }
        let sizes = || used.iter().filter_map(|time| time.parameters);
        if let (Some(own), Some(smallest), Some(largest)) =
            (shape.parameters, sizes().reduce(f64::min), sizes().reduce(f64::max))
            && !(smallest / NEAR..=NEAR * largest).contains(&own)
        {
            // Three digits after the point, without zeros at the end.
            let short = |parameters: f64| ((parameters / 1e6).round() / 1e3).to_string();
            beyond.push(Outside::Parameters(scaled(own), [short(smallest), short(largest)]));
        }
        if let Some(as_graphs) = shape.graphs
            && used.iter().all(|time| time.graphs != as_graphs)
        {
            beyond.push(Outside::Launches { as_graphs });
        }
        if shape.quantised == Some(true) && used.iter().all(|time| time.quantised == Some(false)) {
            beyond.push(Outside::QuantisedWeights);
        }
        let batch = used.iter().map(|time| time.batch).max().unwrap_or(0);
        if shape.batch > batch {
            beyond.push(Outside::Batch(shape.batch, batch));
        }
        let tokens = used.iter().map(|time| time.tokens).max().unwrap_or(0);
        let own = shape.input_tokens + if phase == "decode" { shape.output_tokens } else { 0 };
        if own > tokens {
            beyond.push(Outside::Tokens(own, tokens));
        }
        beyond.into_iter().map(|what| Beyond { what, of: self.of }).collect()
    }
}

fn rows_of(times: &[&Time]) -> usize {
    times.iter().map(|time| time.rows).sum()
}

/// Returns the error of a shape by these times.
pub(super) fn stated_of(known: &Known, phase: &str, shape: Shape) -> Result<Stated, &'static str> {
    let all: Vec<&Time> = known.times.iter().collect();
    let same: Vec<&Time> = all.iter().copied().filter(|time| time.chips == shape.chips).collect();
    let enough = |times: &[&Time]| rows_of(times) >= FEWEST_ROWS && models_of(times) > 1;
    let pooled = !enough(&same);
    let used = if pooled { &all } else { &same };
    if !enough(used) {
        return Err(known.lacks(used));
    }
    let LogError { rms: error, worst } =
        over_models(used.iter().map(|time| (time.model.as_str(), time.error, time.shapes)))
            .ok_or("error unknown")?;
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

fn models_of(times: &[&Time]) -> usize {
    let mut models: Vec<(&str, usize)> =
        times.iter().map(|time| (time.model.as_str(), time.shapes)).collect();
    models.sort_unstable();
    models.dedup();
    models.iter().map(|(_, shapes)| shapes).sum()
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
