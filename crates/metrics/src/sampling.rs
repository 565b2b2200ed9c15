//! pass@k.

/// Returns the unbiased estimate of pass@k from `samples` answers to one item, `passed` of which passed:
/// 1 − C(n − c, k) / C(n, k), as a product (Chen et al., "Evaluating Large Language Models Trained on Code", 2021).
///
/// `None` if `k` is 0 or there are fewer than `k` answers, or if more passed than there are.
pub fn pass_at_k(samples: u64, passed: u64, k: u64) -> Option<f64> {
    if k == 0 || samples < k || passed > samples {
        return None;
    }
    let failed = samples - passed;
    if failed < k {
        return Some(1.0);
    }
    // The product has `passed` factors. With k factors instead it is the same number: C(n − c, k) / C(n, k).
    let product: f64 = if passed <= k {
        (failed + 1..=samples).map(|n| 1.0 - k as f64 / n as f64).product()
    } else {
        (0..k).map(|i| (failed - i) as f64 / (samples - i) as f64).product()
    };
    Some(1.0 - product)
}
