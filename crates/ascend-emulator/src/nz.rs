//! FRACTAL_NZ: a matrix `[rows, columns]` in blocks of 16 rows by 32 bytes. The blocks of a block column are
//! contiguous.
//!
//! Element `(r, c)` of a 2-byte type is at `((c / 16) * R + r / 16) * 256 + (r % 16) * 16 + c % 16`, where `R` is the
//! number of block rows. For 1-byte types a block has 32 columns. Rows and columns are padded with zeros to whole
//! blocks.

use crate::half::DType;
use crate::tensor::View;

/// Number of columns in a block.
pub(crate) fn block_columns(dtype: DType) -> usize {
    32 / dtype.bytes().min(32)
}

/// Returns the blocked matrix behind a two-dimensional view: rows, columns, and whether the view is its transpose.
pub(crate) fn base(view: &View) -> (usize, usize, bool) {
    let (dims, strides) = (view.dims(), view.strides());
    let n = dims.len();
    if n < 2 {
        return (1, view.len(), false);
    }
    let transposed = strides[n - 2] == 1 && strides[n - 1] != 1;
    let (rows, columns) = (dims[n - 2] as usize, dims[n - 1] as usize);
    if transposed { (columns, rows, true) } else { (rows, columns, false) }
}

/// Number of elements of the blocked matrix behind a view, padding included.
pub(crate) fn elements(view: &View) -> usize {
    let (rows, columns, _) = base(view);
    padded(rows, columns, view.dtype)
}

/// Number of elements of a blocked `[rows, columns]`, padding included.
pub(crate) fn padded(rows: usize, columns: usize, dtype: DType) -> usize {
    rows.next_multiple_of(16) * columns.next_multiple_of(block_columns(dtype))
}

/// Index of the element `(row, column)`.
#[inline(always)]
pub(crate) fn place(row: usize, column: usize, rows: usize, block_columns: usize) -> usize {
    let block = column / block_columns * rows.div_ceil(16) + row / 16;
    block * 16 * block_columns + row % 16 * block_columns + column % block_columns
}

/// Rearranges a row-major `[rows, columns]` into blocks, in place.
///
/// # Safety
/// `data` points to [`padded`] numbers of `bytes` bytes, and the first `rows * columns` are initialised.
pub(crate) unsafe fn to_blocks(data: *mut u8, rows: usize, columns: usize, dtype: DType) {
    let bytes = dtype.bytes();
    let width = block_columns(dtype);
    // SAFETY: the caller's promise.
    let from = unsafe { std::slice::from_raw_parts(data, rows * columns * bytes) }.to_vec();
    // SAFETY: the caller's promise.
    unsafe { data.write_bytes(0, padded(rows, columns, dtype) * bytes) };
    for row in 0..rows {
        for column in (0..columns).step_by(width) {
            let n = width.min(columns - column);
            let source = &from[(row * columns + column) * bytes..];
            // SAFETY: a place inside the padded matrix; `n` numbers stay within one block row.
            unsafe {
                let to = data.add(place(row, column, rows, width) * bytes);
                std::ptr::copy_nonoverlapping(source.as_ptr(), to, n * bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_a_permutation_with_zero_padding() {
        let (rows, columns) = (18usize, 33usize);
        let size = padded(rows, columns, DType::Float16);
        assert_eq!(size, 32 * 48);
        let mut data = vec![0u16; size];
        for (i, x) in data.iter_mut().enumerate().take(rows * columns) {
            *x = i as u16 + 1;
        }
        // SAFETY: the vector has the padded size.
        unsafe { to_blocks(data.as_mut_ptr().cast(), rows, columns, DType::Float16) };
        // The definition, written out: [column block][row block][16][16].
        for r in 0..32 {
            for c in 0..48 {
                let at = (((c / 16) * 2 + r / 16) * 16 + r % 16) * 16 + c % 16;
                let expected = if r < rows && c < columns { (r * columns + c) as u16 + 1 } else { 0 };
                assert_eq!(data[at], expected);
            }
        }
    }
}
