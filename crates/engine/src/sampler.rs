//! Sampling of the next token.
//!
//! The random stream is our own (SplitMix64, one number per token), so a seed gives the same text on every platform and
//! version. Filters run in Hugging Face's order: repetition penalty, temperature, top-k, top-p.

/// How the next token is chosen from the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampling {
    /// The largest logit, or the lowest id among equal ones.
    Greedy,
    /// A random draw from the filtered distribution.
    Random(RandomSampling),
}

/// Parameters of a random draw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomSampling {
    /// Divisor of the logits; above 0.
    pub temperature: f32,
    /// Keeps only the `top_k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps only the most likely tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Divisor of the logits of earlier tokens (factor for negative logits); 1 has no effect.
    pub repetition_penalty: f32,
    /// Seed of the random stream.
    pub seed: u64,
}

impl RandomSampling {
    /// Returns ChatGLM2's own chat defaults: temperature 0.8, top-p 0.8.
    pub fn chat(seed: u64) -> Self {
        Self { temperature: 0.8, top_k: 0, top_p: 0.8, repetition_penalty: 1.0, seed }
    }

    /// Checks the parameters. The error names the one that is out of range.
    pub fn check(&self) -> Result<(), String> {
        let positive = |name: &str, v: f32| {
            if v > 0.0 && v.is_finite() {
                Ok(())
            } else {
                Err(format!("{name} is {v}, expected a positive number"))
            }
        };
        positive("temperature", self.temperature)?;
        positive("repetition penalty", self.repetition_penalty)?;
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(format!("top-p is {}, expected above 0 and at most 1", self.top_p));
        }
        Ok(())
    }
}

/// The sampling state of one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: u64,
}

impl Sampler {
    /// Creates a fresh state.
    pub fn new(sampling: Sampling) -> Self {
        let random = match sampling {
            Sampling::Greedy => 0,
            Sampling::Random(parameters) => parameters.seed,
        };
        Self { sampling, random }
    }

    /// Chooses a token. `seen` holds the prompt and the output so far.
    ///
    /// The logits must be finite ([`super::NotFinite::find`]); otherwise the choice is meaningless.
    pub fn choose(&mut self, logits: &[f32], seen: &[u32]) -> u32 {
        match self.sampling {
            Sampling::Greedy => argmax(logits),
            Sampling::Random(parameters) => {
                let draw = self.next_unit();
                draw_token(logits, seen, &parameters, draw)
            }
        }
    }

    /// Returns the stream's next number in `0..1` (SplitMix64, upper 53 bits).
    fn next_unit(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Returns the index of the largest number, the first among equal ones.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, l) in logits.iter().enumerate() {
        if *l > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// Returns the natural log of the softmax denominator, `ln sum(e^l)`, in double precision.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - f64::from(max)).exp()).sum();
    f64::from(max) + sum.ln()
}

fn draw_token(logits: &[f32], seen: &[u32], p: &RandomSampling, draw: f64) -> u32 {
    let mut scores: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
    if p.repetition_penalty != 1.0 {
        let mut unique = seen.to_vec();
        unique.sort_unstable();
        unique.dedup();
        for id in unique {
            // A logit of minus infinity is left out, whatever its penalty.
            if let Some((_, score)) = scores.get_mut(id as usize).filter(|(_, score)| score.is_finite()) {
                let penalised =
                    if *score < 0.0 { *score * p.repetition_penalty } else { *score / p.repetition_penalty };
                // Beyond the type's range, differences of scores would be NaN.
                *score = penalised.clamp(f32::MIN, f32::MAX);
            }
        }
    }
    // Most likely first, lower id first among equal ones, so that a fixed stream gives fixed tokens.
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if p.top_k > 0 {
        scores.truncate(p.top_k);
    }
    let best = scores[0].1;
    let weights: Vec<f64> = scores.iter().map(|s| f64::from((s.1 - best) / p.temperature).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut kept = 0;
    let mut mass = 0.0;
    for w in &weights {
        mass += w;
        kept += 1;
        if mass >= total * f64::from(p.top_p) {
            break;
        }
    }
    let mut left = draw * mass;
    for (score, w) in scores[..kept].iter().zip(&weights) {
        left -= w;
        if left < 0.0 {
            return score.0;
        }
    }
    scores[kept - 1].0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(Sampler::new(Sampling::Greedy).choose(&[0.0, 2.0, 2.0], &[]), 1);
    }

    #[test]
    fn draws_follow_the_distribution_and_the_filters() {
        let logits = [0.0f32, 1.0, 2.0];
        let sampling =
            RandomSampling { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 7 };
        let mut sampler = Sampler::new(Sampling::Random(sampling));
        let mut counts = [0u32; 3];
        for _ in 0..20_000 {
            counts[sampler.choose(&logits, &[]) as usize] += 1;
        }
        let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        for (count, l) in counts.iter().zip(logits) {
            let p = f64::from(l).exp() / total;
            let sd = (p * (1.0 - p) / 20_000.0).sqrt();
            assert!((f64::from(*count) / 20_000.0 - p).abs() < 5.0 * sd);
        }
        let only_best = [
            RandomSampling { top_k: 1, ..sampling },
            RandomSampling { top_p: 1e-6, ..sampling },
            RandomSampling { temperature: 1e-3, ..sampling },
        ];
        for sampling in only_best {
            let mut sampler = Sampler::new(Sampling::Random(sampling));
            assert!((0..100).all(|_| sampler.choose(&logits, &[]) == 2));
        }
        let penalised = RandomSampling { repetition_penalty: 1e6, top_k: 1, ..sampling };
        assert_eq!(Sampler::new(Sampling::Random(penalised)).choose(&logits, &[2]), 1);
    }

    #[test]
    fn penalties_beyond_the_range_of_logits_keep_the_likeliest_first() {
        let strong = RandomSampling { repetition_penalty: 1e-44, ..RandomSampling::chat(1) };
        let mut sampler = Sampler::new(Sampling::Random(strong));
        assert!((0..20).all(|_| sampler.choose(&[1.0, 3.0, -2.0], &[1]) == 1));
        let weak = RandomSampling { repetition_penalty: f32::MAX, ..strong };
        let mut sampler = Sampler::new(Sampling::Random(weak));
        let logits = [-30.0, -20.0, f32::NEG_INFINITY];
        assert!((0..20).all(|_| sampler.choose(&logits, &[0, 1, 2]) < 2));
    }

    #[test]
    fn a_seed_fixes_the_stream() {
        let stream = |seed| {
            let mut s = Sampler::new(Sampling::Random(RandomSampling::chat(seed)));
            (0..50).map(|_| s.choose(&[0.1, 0.2, 0.3, 0.4], &[])).collect::<Vec<_>>()
        };
        assert_eq!(stream(1), stream(1));
        assert_ne!(stream(1), stream(2));
    }
}
