//! Comparison of two models by their logits.

/// Positions that are compared, evenly spaced over the calibration: their logits must fit into memory.
const POSITIONS: u64 = 256;

/// Logits of some positions.
pub(super) struct Logits {
    rows: Vec<Vec<f32>>,
    seen: u64,
    tokens: u64,
}

impl Logits {
    /// Creates an empty collection for a calibration of `tokens` tokens.
    pub(super) fn new(tokens: u64) -> Self {
        Self { rows: Vec::new(), seen: 0, tokens: tokens.max(1) }
    }

    /// Takes the rows that come next.
    pub(super) fn add(&mut self, rows: &[f32], width: usize) {
        for row in rows.chunks_exact(width) {
            let taken = |seen: u64| seen * POSITIONS.min(self.tokens) / self.tokens;
            if taken(self.seen + 1) > taken(self.seen) {
                self.rows.push(row.to_vec());
            }
            self.seen += 1;
        }
    }

    /// Returns the mean KL divergence of `other` from these.
    pub(super) fn mean_kl(&self, other: &Self) -> f64 {
        let sum: f64 = self.rows.iter().zip(&other.rows).map(|(p, q)| kl(p, q)).sum();
        sum / self.rows.len().max(1) as f64
    }
}

/// Returns the KL divergence of the distribution of logits `q` from that of `p`, in nats.
fn kl(p: &[f32], q: &[f32]) -> f64 {
    let (p_norm, q_norm) = (log_sum(p), log_sum(q));
    let terms = p.iter().zip(q).map(|(p, q)| {
        let log_p = f64::from(*p) - p_norm;
        log_p.exp() * (log_p - (f64::from(*q) - q_norm))
    });
    terms.sum()
}

fn log_sum(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(most) + logits.iter().map(|x| f64::from(x - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_is_that_of_the_distributions() {
        assert!(kl(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]).abs() < 1e-12);
        // p = (1/2, 1/2), q = (1/4, 3/4).
        let found = kl(&[0.0, 0.0], &[0.0, 3f32.ln()]);
        assert!((found - (0.5 * 2f64.ln() + 0.5 * (2.0 / 3.0f64).ln())).abs() < 1e-7);
    }

    #[test]
    fn positions_are_evenly_spaced() {
        let mut logits = Logits::new(1000);
        (0..1000).for_each(|i| logits.add(&[i as f32], 1));
        assert_eq!((logits.rows.len(), logits.rows[255][0]), (256, 999.0));
        let mut few = Logits::new(3);
        few.add(&[1.0, 2.0, 3.0], 1);
        assert_eq!(few.rows.len(), 3);
    }
}
