//! Rotary embedding of queries and keys.

use glmbench_device::rotary::RotaryTable;
use glmbench_device::{DType, DeviceError};

use super::choice::Rotation;
use super::core::{Core, Scratch};
use super::layout::{HeadLayout, decode, encode};
use super::memory::Inbox;
use super::ops;
use super::tensor::View;

use ascend_sys::{ACL_MEMCPY_DEVICE_TO_DEVICE, ACL_MEMCPY_DEVICE_TO_HOST, ACL_MEMCPY_HOST_TO_DEVICE};

/// Cosine and sine of every position, per channel. The table stays on the host: a step sends the rows it needs.
pub struct Rotary {
    cos: Vec<u8>,
    sin: Vec<u8>,
    row_bytes: usize,
}

impl Rotary {
    pub(super) fn new(table: &RotaryTable, layout: &HeadLayout, dtype: DType) -> Self {
        let [cos, sin] = layout.rotary_rows(table, dtype);
        Self { cos, sin, row_bytes: layout.channels * dtype.bytes() }
    }

    fn row(&self, values: &[u8], position: u32) -> std::ops::Range<usize> {
        let begin = position as usize * self.row_bytes;
        assert!(begin + self.row_bytes <= values.len(), "invariant: position {position} is in the table");
        begin..begin + self.row_bytes
    }
}

/// Queries and keys of a step, rotated in place.
#[derive(Clone, Copy)]
pub(super) struct Rotated {
    pub(super) query: *mut std::ffi::c_void,
    pub(super) key: *mut std::ffi::c_void,
    /// Buffer id of the activation.
    pub(super) id: u64,
}

/// The rotary operator.
pub(super) struct Rotator {
    how: Rotation,
    layout: HeadLayout,
    /// Cosines of all rows, then sines.
    rows: Inbox,
    /// Positions of the rows that the device has.
    sent: Vec<u32>,
    scratch: Scratch,
}

impl Rotator {
    pub(super) fn new(how: Rotation, layout: HeadLayout) -> Self {
        let rows = Inbox::new("rotary rows");
        Self { how, layout, rows, sent: Vec::new(), scratch: Scratch::default() }
    }

    /// Rotates row `i` by the angles of position `positions[i]`.
    pub(super) fn run(
        &mut self,
        core: &Core,
        table: &Rotary,
        rotated: Rotated,
        positions: &[u32],
    ) -> Result<(), DeviceError> {
        if self.how == Rotation::Host {
            return self.on_host(core, table, rotated, positions);
        }
        self.send(core, table, positions)?;
        let (rows, channels) = (positions.len(), self.layout.channels);
        let shape = self.layout.shape;
        let half = rows * table.row_bytes;
        let angles = [0, half]
            .map(|offset| View::new(self.rows.buffer().at(offset), core.element(), &[1, rows, 1, channels]));
        let tensor = |start, heads| View::new(start, core.element(), &[1, rows, heads, channels]);
        let (query, key) = (tensor(rotated.query, shape.heads), tensor(rotated.key, shape.kv_heads));
        let name = [rotated.id, self.rows.buffer().id, rows as u64, 0];
        if self.how == Rotation::Apply {
            return core.run_cached(("rotary", name), |api| ops::rotary(api, [query, key], angles));
        }
        for view in [query, key] {
            let place = self.scratch.reserve(core, view.bytes())?;
            let out = View::new(place, core.element(), &[1, rows, view.bytes() / half, channels]);
            core.run(ops::rotate_one(core.api(), view, angles, out))?;
            let kind = ACL_MEMCPY_DEVICE_TO_DEVICE;
            // SAFETY: the same number of bytes on both sides.
            unsafe { core.stream.copy(view.start(), place, view.bytes(), kind) }?;
        }
        Ok(())
    }

    /// Sends the rows of `positions`, unless the last layer sent the same.
    fn send(&mut self, core: &Core, table: &Rotary, positions: &[u32]) -> Result<(), DeviceError> {
        if self.sent == positions {
            return Ok(());
        }
        // If sending fails, the device has neither the old nor the new rows.
        self.sent.clear();
        let half = positions.len() * table.row_bytes;
        self.rows.send(&core.slab, &core.stream, 2 * half, |bytes| {
            for (values, to) in [&table.cos, &table.sin].into_iter().zip(bytes.chunks_exact_mut(half)) {
                for (position, row) in positions.iter().zip(to.chunks_exact_mut(table.row_bytes)) {
                    row.copy_from_slice(&values[table.row(values, *position)]);
                }
            }
        })?;
        self.sent.extend_from_slice(positions);
        Ok(())
    }

    /// Rotates on the host, as a last resort: copies to the host and back.
    fn on_host(
        &self,
        core: &Core,
        table: &Rotary,
        rotated: Rotated,
        positions: &[u32],
    ) -> Result<(), DeviceError> {
        let (dtype, channels) = (core.dtype, self.layout.channels);
        let shape = self.layout.shape;
        for (place, heads) in [(rotated.query, shape.heads), (rotated.key, shape.kv_heads)] {
            let mut bytes = vec![0u8; positions.len() * heads * table.row_bytes];
            // SAFETY: as many bytes on both sides.
            unsafe {
                let kind = ACL_MEMCPY_DEVICE_TO_HOST;
                core.stream.copy_now(bytes.as_mut_ptr().cast(), place, bytes.len(), kind)?;
            }
            let mut values = Vec::new();
            decode(&bytes, dtype, &mut values);
            for (row, position) in values.chunks_exact_mut(heads * channels).zip(positions) {
                let (mut cos, mut sin) = (Vec::new(), Vec::new());
                decode(&table.cos[table.row(&table.cos, *position)], dtype, &mut cos);
                decode(&table.sin[table.row(&table.sin, *position)], dtype, &mut sin);
                row.chunks_exact_mut(channels).for_each(|head| rotate_halves(head, &cos, &sin, dtype));
            }
            let back = encode(&values, dtype);
            // SAFETY: as above.
            unsafe {
                let kind = ACL_MEMCPY_HOST_TO_DEVICE;
                core.stream.copy_now(place, back.as_ptr().cast(), back.len(), kind)?;
            }
        }
        Ok(())
    }
}

/// Rounds both products before the sum, as the model's own code does. The sum is rounded when it is encoded.
fn rotate_halves(head: &mut [f32], cos: &[f32], sin: &[f32], dtype: DType) {
    let half = head.len() / 2;
    for j in 0..half {
        let (a, b) = (head[j], head[j + half]);
        head[j] = dtype.round(a * cos[j]) - dtype.round(b * sin[j]);
        head[j + half] = dtype.round(b * cos[j + half]) + dtype.round(a * sin[j + half]);
    }
}
