//! Sums of attention rows over part of their context.

use std::ops::Range;

use crate::simd::Vectors;

use super::CHUNK_ROWS;
use super::softmax::{Decay, Mix, RowState};

/// The layout of the rows of a chunk: split into strips of `width` numbers, one strip of all rows after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Strips {
    /// Number of rows with space in a strip.
    pub rows: usize,
    /// Numbers per strip.
    pub width: usize,
}

impl Strips {
    /// Returns the distance between strips of a row, in numbers.
    #[inline(always)]
    pub(super) fn distance(self) -> usize {
        self.rows * self.width
    }

    /// Returns where the numbers of a row are in a strip.
    #[inline(always)]
    pub(super) fn range(self, strip: usize, row: usize) -> Range<usize> {
        let first = strip * self.distance() + row * self.width;
        first..first + self.width
    }
}

/// The softmax of a chunk of rows over part of a context, before division by the total. It holds the values, weighted
/// relative to the row's largest score, in strips, followed by each row's [`RowState`].
#[derive(Debug)]
pub(super) struct Sums<'a> {
    values: &'a mut [f32],
    states: &'a mut [RowState],
    strips: Strips,
}

impl<'a> Sums<'a> {
    /// Returns how many numbers a chunk's sums take, for rows of `width` numbers.
    pub(super) fn numbers(width: usize) -> usize {
        CHUNK_ROWS * (width + 2)
    }

    /// Creates sums on the numbers of one chunk.
    pub(super) fn new(data: &'a mut [f32], strips: Strips) -> Self {
        let (values, states) = data.split_at_mut(data.len() - 2 * CHUNK_ROWS);
        Self { values, states: bytemuck::cast_slice_mut(states), strips }
    }

    /// Resets all rows to the empty state.
    pub(super) fn clear(&mut self) {
        self.values.fill(0.0);
        self.states.fill(RowState::EMPTY);
    }

    /// Returns all weighted values.
    pub(super) fn values(&mut self) -> &mut [f32] {
        self.values
    }

    /// Returns the state of a row.
    pub(super) fn state(&self, row: usize) -> RowState {
        self.states[row]
    }

    /// Returns the states of some rows.
    pub(super) fn states(&mut self, rows: Range<usize>) -> &mut [RowState] {
        &mut self.states[rows]
    }

    /// Returns the strips per row. A chunk of few rows has space for more.
    fn strips(&self) -> usize {
        self.values.len() / CHUNK_ROWS / self.strips.width
    }

    /// Returns a row's weighted values, strip by strip.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = &[f32]> {
        let Strips { width, .. } = self.strips;
        let strips = self.values.chunks_exact(self.strips.distance()).take(self.strips());
        strips.map(move |strip| &strip[row * width..][..width])
    }

    fn row_mut(&mut self, row: usize) -> impl Iterator<Item = &mut [f32]> {
        let Strips { width, .. } = self.strips;
        let count = self.strips();
        let strips = self.values.chunks_exact_mut(self.strips.distance()).take(count);
        strips.map(move |strip| &mut strip[row * width..][..width])
    }

    /// Multiplies a row's weighted values by `factor`.
    pub(super) fn scale(&mut self, row: usize, factor: f32) {
        self.row_mut(row).flatten().for_each(|x| *x *= factor);
    }

    /// Adds the sums of the first `rows` rows over the next part of their context.
    pub(super) fn merge(&mut self, rows: usize, next: &Sums<'_>, vectors: Vectors) {
        for row in 0..rows {
            let (before, other) = (self.state(row), next.state(row));
            let max = before.max.max(other.max);
            let factor = |before| vectors.run(Decay { before, now: max });
            let (a, b) = (factor(before.max), factor(other.max));
            self.states[row] = RowState { max, total: before.total * a + other.total * b };
            for (x, y) in self.row_mut(row).zip(next.row(row)) {
                vectors.run(Mix { x, a, y, b });
            }
        }
    }
}
