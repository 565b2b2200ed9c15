//! What a calibration sees of a model: extremes, histograms and samples of the inputs of every linear layer, and the extremes of
//! keys and values.

use glmbench_device::observed::Observer;

use super::range::{Histogram, Range};
use crate::config::ModelConfig;
use crate::weights::layout::LinearId;

/// Rows of inputs kept per layer, evenly spaced over the calibration.
pub(super) const SAMPLES: usize = 32;

/// The inputs of one linear layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// The lowest number of each input channel.
    pub(super) low: Vec<f32>,
    /// The highest number of each input channel.
    pub(super) high: Vec<f32>,
    /// Up to [`SAMPLES`] rows.
    pub(super) samples: Vec<f32>,
    /// Counts of the second pass, of inputs divided by the factors of SmoothQuant.
    pub(super) histogram: Option<Histogram>,
    /// Rows seen in this pass.
    pub(super) rows: u64,
    /// Whether every number was finite.
    pub(super) is_finite: bool,
}

impl Seen {
    fn new(width: usize) -> Self {
        Self {
            low: vec![f32::INFINITY; width],
            high: vec![f32::NEG_INFINITY; width],
            samples: Vec::new(),
            histogram: None,
            rows: 0,
            is_finite: true,
        }
    }

    /// Returns the range of the inputs, divided by `factors` if there are any.
    pub(super) fn range(&self, factors: Option<&[f32]>) -> Range {
        let divided = |extremes: &[f32], channel: usize| {
            factors.map_or(extremes[channel], |factors| extremes[channel] / factors[channel])
        };
        let channels = 0..self.low.len();
        let low = channels.clone().map(|at| divided(&self.low, at)).fold(f32::INFINITY, f32::min);
        let high = channels.map(|at| divided(&self.high, at)).fold(f32::NEG_INFINITY, f32::max);
        Range::new(low, high)
    }

    /// Returns the largest magnitude of each channel.
    pub(super) fn magnitudes(&self) -> Vec<f32> {
        self.low.iter().zip(&self.high).map(|(low, high)| low.abs().max(high.abs())).collect()
    }
}

/// What a calibration has seen so far.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Observations {
    /// In the order of [`LinearId::all`], which is that of the upload.
    pub(super) linears: Vec<Seen>,
    /// The largest magnitude of each channel `[keys | values]`, by layer.
    pub(super) caches: Vec<Vec<f32>>,
    /// The pass, 1 or 2, and the number of its prompts that are done.
    pub(super) pass: usize,
    pub(super) prompts: usize,
}

impl Observations {
    /// Returns those of a calibration that has not begun.
    pub(super) fn new(config: &ModelConfig) -> Self {
        let linears = LinearId::all(config).map(|id| Seen::new(id.shape(config)[1])).collect();
        let caches = vec![vec![0.0; 2 * config.kv_width()]; config.num_layers];
        Self { linears, caches, pass: 1, prompts: 0 }
    }

    /// Begins the second pass, which counts numbers in the ranges of the first.
    pub(super) fn begin_histograms(&mut self, factors: &[Option<Vec<f32>>]) {
        for (seen, factors) in self.linears.iter_mut().zip(factors) {
            seen.histogram = Some(Histogram::new(seen.range(factors.as_deref())));
            seen.rows = 0;
        }
        (self.pass, self.prompts) = (2, 0);
    }

    /// Returns the first layer whose inputs were not finite.
    pub(super) fn not_finite(&self) -> Option<usize> {
        self.linears.iter().position(|seen| !seen.is_finite)
    }
}

/// The observer of a calibration.
pub(super) struct Recorder {
    pub(super) seen: Observations,
    /// Tokens of the whole calibration.
    pub(super) tokens: u64,
    /// Factors of SmoothQuant, by linear layer. Used in the second pass.
    pub(super) factors: Vec<Option<Vec<f32>>>,
}

impl Observer for Recorder {
    fn inputs(&mut self, number: usize, rows: &[f32], width: usize) {
        let (tokens, pass) = (self.tokens.max(1), self.seen.pass);
        let factors = self.factors.get(number).and_then(Option::as_deref);
        let Some(seen) = self.seen.linears.get_mut(number) else { return };
        for row in rows.chunks_exact(width) {
            let samples = |rows: u64| rows * (SAMPLES as u64).min(tokens) / tokens;
            let is_sample = samples(seen.rows + 1) > samples(seen.rows);
            seen.rows += 1;
            if pass == 2
                && let Some(histogram) = &mut seen.histogram
            {
                match factors {
                    Some(factors) => {
                        row.iter().zip(factors).for_each(|(x, factor)| histogram.add(x / factor));
                    }
                    None => row.iter().for_each(|x| histogram.add(*x)),
                }
                continue;
            }
            seen.is_finite &= row.iter().all(|x| x.is_finite());
            for ((x, low), high) in row.iter().zip(&mut seen.low).zip(&mut seen.high) {
                *low = low.min(*x);
                *high = high.max(*x);
            }
            if is_sample {
                seen.samples.extend_from_slice(row);
            }
        }
    }

    fn keys_and_values(&mut self, layer: usize, rows: &[f32], width: usize) {
        if self.seen.pass != 1 {
            return;
        }
        let Some(most) = self.seen.caches.get_mut(layer) else { return };
        for row in rows.chunks_exact(width) {
            most.iter_mut().zip(row).for_each(|(most, x)| *most = most.max(x.abs()));
        }
    }
}
