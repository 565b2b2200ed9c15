//! Appends a one to input rows, for weights with their bias as a column.
//!
//! Products with weights in fractals take no bias. A bias added afterwards meets a product that is already rounded. Of all
//! the places where a 310P rounds, that one moves ChatGLM2's logits most (`NUMBERS.md`). As a column of the weight, the
//! bias is multiplied by an input of one. It is the last product that the matrix unit sums in fp32.

use glmbench_device::DeviceError;

use super::core::{Core, Wide};
use super::layout::encode;
use super::ops;
use super::tensor::{Operand, View};

/// Extra columns of a weight with its bias: the width of a fractal, so that rows stay aligned. Unused columns are zero.
pub(super) const FOLDED: usize = 16;

/// Copies `rows` rows of `k` elements, each followed by a one. The buffer is reallocated if it is too small or `k` changes.
pub(super) fn widen(core: &Core, x: Operand, rows: usize, k: usize) -> Result<Operand, DeviceError> {
    let width = k + FOLDED;
    let mut held = core.wide.borrow_mut();
    if held.as_ref().is_none_or(|wide| wide.rows < rows || wide.k != k) {
        // Queued work may still use the old buffer.
        core.stream.synchronize()?;
        *held = None;
        let rows = rows.next_power_of_two();
        let mut row = vec![0.0; width];
        row[k] = 1.0;
        let bytes = encode(&row, core.dtype).repeat(rows);
        *held = Some(Wide { buffer: core.slab.put(&bytes, "rows with a one behind them")?, rows, k });
    }
    let wide = &held.as_ref().expect("invariant: just made").buffer;
    core.run_cached(("widen", [x.id, wide.id, rows as u64, k as u64]), |api| {
        ops::copy(api, View::matrix(wide.at(0), core.element(), rows, k, width), x.view)
    })?;
    Ok(Operand { view: View::new(wide.at(0), core.element(), &[rows, width]), id: wide.id })
}

/// Returns `n` rows of a weight, each followed by its bias element and zeros. Elements have `bytes` bytes.
pub(super) fn with_column(weight: &[u8], bias: &[u8], n: usize, bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(weight.len() + n * FOLDED * bytes);
    for (row, bias) in weight.chunks_exact(weight.len() / n).zip(bias.chunks_exact(bytes)) {
        out.extend_from_slice(row);
        out.extend_from_slice(bias);
        out.resize(out.len() + (FOLDED - 1) * bytes, 0);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_number_of_the_bias_behind_it() {
        let wide = with_column(&[1, 2, 3, 4, 5, 6, 7, 8], &[9, 10, 11, 12], 2, 2);
        let zeros = [0u8; 2 * (FOLDED - 1)];
        assert_eq!(wide, [&[1, 2, 3, 4, 9, 10], &zeros[..], &[5, 6, 7, 8, 11, 12], &zeros].concat());
    }
}
