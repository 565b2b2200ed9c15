//! A part of a tensor, as needed by one of several ranks.

use std::borrow::Cow;
use std::ops::Range;

use super::TensorView;

/// Selects elements of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The whole tensor.
    Whole,
    /// These ranges of the outermost dimension, concatenated.
    Rows(Vec<Range<usize>>),
    /// These columns of every row of a matrix.
    Columns(Range<usize>),
}

impl Part {
    /// Returns the shape of this part of a tensor of shape `whole`.
    pub fn shape(&self, whole: &[usize]) -> Vec<usize> {
        let mut shape = whole.to_vec();
        match self {
            Self::Whole => {}
            Self::Rows(ranges) => shape[0] = ranges.iter().map(Range::len).sum(),
            Self::Columns(range) => shape[1] = range.len(),
        }
        shape
    }

    /// Returns the part as index ranges of consecutive elements of a row-major tensor of shape `whole`.
    pub fn runs(&self, whole: &[usize]) -> Vec<Range<usize>> {
        let width: usize = whole.iter().skip(1).product();
        match self {
            Self::Whole => std::iter::once(0..whole.iter().product()).collect(),
            Self::Rows(ranges) => ranges.iter().map(|r| r.start * width..r.end * width).collect(),
            Self::Columns(range) => {
                (0..whole[0]).map(|row| row * width + range.start..row * width + range.end).collect()
            }
        }
    }

    /// Returns this part of `tensor`: borrowed if it is one run of a borrowed tensor, else copied.
    ///
    /// # Panics
    /// If the part exceeds the tensor.
    pub fn of<'a>(&self, tensor: TensorView<'a>) -> TensorView<'a> {
        if *self == Self::Whole {
            return tensor;
        }
        let size = tensor.dtype.bytes();
        let runs = self.runs(&tensor.shape);
        let bytes = |run: &Range<usize>| run.start * size..run.end * size;
        let data = match (&tensor.data, runs.as_slice()) {
            (Cow::Borrowed(data), [run]) => Cow::Borrowed(&data[bytes(run)]),
            (data, runs) => {
                let mut part = Vec::with_capacity(runs.iter().map(|run| run.len() * size).sum());
                runs.iter().for_each(|run| part.extend_from_slice(&data[bytes(run)]));
                Cow::Owned(part)
            }
        };
        TensorView { shape: self.shape(&tensor.shape), data, ..tensor }
    }
}

#[cfg(test)]
mod tests {
    use super::super::StorageType;
    use super::*;

    /// The `[4, 3]` matrix of 0 to 11.
    fn matrix(bytes: &[u8]) -> TensorView<'_> {
        let shape = vec![4, 3];
        TensorView { name: "m".into(), dtype: StorageType::F32, shape, data: Cow::Borrowed(bytes) }
    }

    #[test]
    fn parts_are_the_rows_and_columns_that_they_name() {
        let numbers: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let bytes: &[u8] = bytemuck::cast_slice(&numbers);
        let one = |range: Range<usize>| Part::Rows(std::iter::once(range).collect());
        let cases = [
            (Part::Whole, vec![4, 3], numbers.clone(), true),
            (one(1..3), vec![2, 3], vec![3., 4., 5., 6., 7., 8.], true),
            (Part::Rows(vec![3..4, 0..1]), vec![2, 3], vec![9., 10., 11., 0., 1., 2.], false),
            (Part::Columns(1..3), vec![4, 2], vec![1., 2., 4., 5., 7., 8., 10., 11.], false),
        ];
        for (part, shape, expected, is_borrowed) in cases {
            let view = part.of(matrix(bytes));
            assert_eq!((&view.shape, view.to_f32()), (&shape, expected), "{part:?}");
            assert_eq!(matches!(view.data, Cow::Borrowed(_)), is_borrowed, "{part:?}");
            let owned = TensorView { data: Cow::Owned(bytes.to_vec()), ..matrix(bytes) };
            assert_eq!(part.of(owned).to_f32(), view.to_f32());
        }
    }

    #[test]
    fn a_vector_is_cut_like_rows() {
        let numbers = [0f32, 1., 2., 3., 4.];
        let view = TensorView { shape: vec![5], ..matrix(bytemuck::cast_slice(&numbers)) };
        let part = Part::Rows(vec![0..1, 3..5]).of(view);
        assert_eq!((part.shape.clone(), part.to_f32()), (vec![3], vec![0., 3., 4.]));
    }
}
