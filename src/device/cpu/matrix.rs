//! Matrices of activations.

use crate::device::DeviceError;

use super::buffer::Buffer;
use super::kernels::PANEL;
use super::linear::{Rows, RowsMut};

/// `[rows, width]`, rows padded to sixteen numbers.
#[derive(Debug)]
pub struct Matrix {
    /// The numbers, padded by sixteen at the end.
    pub data: Buffer<f32>,
    max_rows: usize,
    /// Rows in use.
    pub rows: usize,
    /// Numbers of a row.
    pub width: usize,
    /// Numbers between rows.
    pub stride: usize,
}

impl Matrix {
    /// Room for so many rows.
    pub fn new(max_rows: usize, width: usize) -> Result<Self, DeviceError> {
        let stride = row_stride(width);
        let data = Buffer::zeroed(max_rows * stride + PANEL, "activations")?;
        Ok(Self { data, max_rows, rows: 0, width, stride })
    }

    /// Uses so many rows of it.
    pub fn set_rows(&mut self, rows: usize) {
        assert!(rows <= self.max_rows, "invariant: {rows} rows fit the activation's {}", self.max_rows);
        self.rows = rows;
    }

    /// For a product to read.
    pub fn view(&self) -> Rows<'_> {
        Rows { data: &self.data, rows: self.rows, stride: self.stride }
    }

    /// For a product to write.
    pub fn view_mut(&mut self) -> RowsMut<'_> {
        RowsMut { stride: self.stride, data: &mut self.data }
    }

    /// A row's numbers.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.stride..i * self.stride + self.width]
    }

    /// The same, to write.
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.stride..i * self.stride + self.width]
    }
}

/// Numbers between rows of so many: an odd number of cache lines. Rows a power of two apart would share a few sets of each
/// cache, and a block of them would not stay there while columns pass by.
pub fn row_stride(width: usize) -> usize {
    (width.div_ceil(PANEL) | 1) * PANEL
}
