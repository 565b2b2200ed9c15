//! The sum over the ranks: checked with whole numbers, timed by size.

use glmbench_device::{Device, DeviceError};

use super::super::Ascend;
use super::super::compare::largest_error;
use super::timings::{SizeTime, repeated};
use super::{Widths, timed};

/// A rank's result of the sum over the ranks.
#[derive(Default)]
pub(super) struct Sum {
    /// Largest error.
    pub(super) error: f64,
    /// Time of the second sum of one row.
    pub(super) time_ns: u64,
    /// Times by size.
    pub(super) sizes: Vec<SizeTime>,
}

/// Rows of the sums that are timed.
const ROWS: [usize; 6] = [1, 4, 16, 64, 256, 1024];

/// Sums 1, 2, 3 … over the ranks twice, each rank with its own start. The time is that of the second sum. If `by_size`, also
/// times sums of several rows as wide as the model.
pub(super) fn collective(device: &mut Ascend, widths: Widths, by_size: bool) -> Result<Sum, DeviceError> {
    let (tp, rank) = (device.info().tp, device.rank);
    let width = 256;
    let of = |rank: usize| (0..width).map(move |i| (rank * 3 + i % 50) as f32);
    let expected: Vec<f32> = (0..width).map(|i| (0..tp).map(|r| (r * 3 + i % 50) as f32).sum()).collect();
    let mut x = device.activation(1, width)?;
    let (mut sum, mut result) = (Vec::new(), Sum::default());
    for _ in 0..2 {
        device.upload(&of(rank).collect::<Vec<_>>(), &mut x)?;
        result.time_ns = timed(device, |device| device.all_reduce(&mut x))?;
        device.download(&x, &mut sum)?;
        result.error = result.error.max(largest_error(&sum, &expected));
    }
    if by_size {
        let mut x = device.activation(ROWS[ROWS.len() - 1], widths.hidden)?;
        for rows in ROWS {
            device.upload(&vec![0.0; rows * widths.hidden], &mut x)?;
            let bytes = (rows * widths.hidden * device.core.dtype.bytes()) as u64;
            let (time_ns, priced) = repeated(device, |device| device.all_reduce(&mut x))?;
            result.sizes.push(SizeTime { what: "all_reduce", bytes, time_ns, priced });
        }
    }
    Ok(result)
}
