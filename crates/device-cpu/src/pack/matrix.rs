//! Matrices of activations.

use std::ops::Range;

use glmbench_device::DeviceError;

use crate::buffer::Buffer;

use super::PANEL;

/// A matrix `[rows, width]` with rows padded to sixteen numbers.
#[derive(Debug)]
pub struct Matrix {
    /// The numbers, padded by sixteen at the end.
    pub data: Buffer<f32>,
    max_rows: usize,
    /// Rows in use.
    pub rows: usize,
    /// Numbers per row.
    pub width: usize,
    /// Distance between rows, in numbers.
    pub stride: usize,
}

impl Matrix {
    /// Allocates space for `max_rows` rows.
    pub fn new(max_rows: usize, width: usize) -> Result<Self, DeviceError> {
        let stride = row_stride(width);
        let data = Buffer::zeroed(max_rows * stride + PANEL, "activations")?;
        Ok(Self { data, max_rows, rows: 0, width, stride })
    }

    /// Sets the number of rows in use.
    pub fn set_rows(&mut self, rows: usize) {
        assert!(rows <= self.max_rows, "invariant: {rows} rows fit the activation's {}", self.max_rows);
        self.rows = rows;
    }

    /// Returns a view for a product to read.
    pub(crate) fn view(&self) -> Rows<'_> {
        Rows { data: &self.data, rows: self.rows, stride: self.stride }
    }

    /// Returns a view for a product to write.
    pub(crate) fn view_mut(&mut self) -> RowsMut<'_> {
        RowsMut { stride: self.stride, data: &mut self.data }
    }

    /// Returns the numbers of a row.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.stride..i * self.stride + self.width]
    }

    /// Returns the numbers of a row, padded to whole panels.
    pub(crate) fn padded_row(&self, i: usize) -> &[f32] {
        &self.data[i * self.stride..][..self.width.next_multiple_of(PANEL)]
    }

    /// Returns the numbers of a row, for writing.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.stride..i * self.stride + self.width]
    }
}

/// Returns the distance between rows of `width` numbers: an odd number of cache lines. Rows a power of two apart would
/// share a few cache sets. A block of them would not stay in cache while columns pass by.
pub(crate) fn row_stride(width: usize) -> usize {
    (width.div_ceil(PANEL) | 1) * PANEL
}

/// A matrix to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Row-major numbers, padded by sixteen at the end.
    pub(crate) data: &'a [f32],
    /// Rows in use.
    pub(crate) rows: usize,
    /// Distance between rows, in numbers.
    pub(crate) stride: usize,
}

impl Rows<'_> {
    /// Returns a range of the rows.
    pub(crate) fn range(&self, rows: &Range<usize>) -> Self {
        Self { data: &self.data[rows.start * self.stride..], rows: rows.len(), stride: self.stride }
    }
}

/// A matrix to write.
#[derive(Debug)]
pub(crate) struct RowsMut<'a> {
    /// Row-major numbers; rows are padded to sixteen.
    pub(crate) data: &'a mut [f32],
    /// Distance between rows, in numbers.
    pub(crate) stride: usize,
}
