//! Row access: a row is the last dimension of a tensor, held as fp32 in a buffer.

use crate::half::{narrow, read_f64, widen, write_f64};
use crate::tensor::{MAX_DIMS, View};

/// Calls `body` with the offset of every row in each operand. The operands share the dimensions `outer`.
pub(crate) fn for_each_row<const N: usize>(
    outer: &[i64],
    strides: [&[i64]; N],
    mut body: impl FnMut([i64; N]),
) {
    if outer.contains(&0) {
        return;
    }
    let mut index = [0i64; MAX_DIMS];
    let mut offsets = [0i64; N];
    loop {
        body(offsets);
        let mut dim = outer.len();
        loop {
            if dim == 0 {
                return;
            }
            dim -= 1;
            index[dim] += 1;
            for (offset, strides) in offsets.iter_mut().zip(strides) {
                *offset += strides[dim];
            }
            if index[dim] < outer[dim] {
                break;
            }
            for (offset, strides) in offsets.iter_mut().zip(strides) {
                *offset -= strides[dim] * outer[dim];
            }
            index[dim] = 0;
        }
    }
}

/// Reads the row at `offset`.
///
/// # Safety
/// The view lies inside live memory, and the row inside the view.
pub(crate) unsafe fn load(view: &View, offset: i64, out: &mut [f32]) {
    let stride = view.last_stride();
    // SAFETY: the caller's promise.
    unsafe {
        if stride == 1 {
            widen(view.dtype, view.at(offset), out);
        } else {
            for (i, o) in out.iter_mut().enumerate() {
                *o = read_f64(view.dtype, view.at(offset + i as i64 * stride)) as f32;
            }
        }
    }
}

/// Rounds and writes a row.
///
/// # Safety
/// As [`load`].
pub(crate) unsafe fn store(view: &View, offset: i64, numbers: &[f32]) {
    let stride = view.last_stride();
    // SAFETY: the caller's promise.
    unsafe {
        if stride == 1 {
            narrow(view.dtype, numbers, view.at(offset));
        } else {
            for (i, x) in numbers.iter().enumerate() {
                write_f64(view.dtype, f64::from(*x), view.at(offset + i as i64 * stride));
            }
        }
    }
}

/// The dimensions before the last, and their strides.
pub(crate) fn outer(view: &View) -> (&[i64], &[i64]) {
    let n = view.rank().saturating_sub(1);
    (&view.dims()[..n], &view.strides()[..n])
}

/// `view` with dimension `dim` moved to the end.
pub(crate) fn move_last(view: &View, dim: usize) -> View {
    let (mut dims, mut strides) = (view.dims().to_vec(), view.strides().to_vec());
    let (d, s) = (dims.remove(dim), strides.remove(dim));
    dims.push(d);
    strides.push(s);
    view.with_shape(&dims, &strides)
}

/// Resolves a dimension number. A negative one counts from the end.
pub(crate) fn dimension(dim: i64, rank: usize) -> Option<usize> {
    let rank = rank as i64;
    let dim = if dim < 0 { dim + rank } else { dim };
    (0..rank).contains(&dim).then_some(dim as usize)
}
