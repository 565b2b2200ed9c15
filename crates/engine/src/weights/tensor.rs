//! A stored tensor, and its conversion to the type that a device needs.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

const _: () =
    assert!(cfg!(target_endian = "little"), "stored numbers are little-endian and used as they are");

/// Numbers converted at a time, few enough to stay in the first-level cache.
const CHUNK: usize = 2048;

/// Number type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StorageType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of a single-precision number.
    Bf16,
}

impl StorageType {
    /// Returns the type with this name in a safetensors header; `None` if weights cannot have it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::Bf16].into_iter().find(|dtype| dtype.name() == name)
    }

    /// Returns the name in a safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// Returns the size of one number in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

/// Element type of a tensor in a file that is converted: numbers, or the integers of quantised weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ElementType {
    /// Numbers.
    Float(StorageType),
    /// Signed integers of 8 bits.
    I8,
}

impl ElementType {
    /// Returns the name in a safetensors header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Float(dtype) => dtype.name(),
            Self::I8 => "I8",
        }
    }

    /// Returns the size of one element in bytes.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Float(dtype) => dtype.bytes(),
            Self::I8 => 1,
        }
    }
}

impl From<StorageType> for ElementType {
    fn from(dtype: StorageType) -> Self {
        Self::Float(dtype)
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for StorageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One tensor: numbers as stored (little-endian, row-major), borrowed from a mapped file or owned.
///
/// The bytes need not be aligned; the `read_*` and `to_*` methods handle that. Narrowing rounds to nearest, ties to
/// even. Values too large for fp16 become infinite.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// Name in the checkpoint.
    pub name: String,
    /// Storage type of the numbers.
    pub dtype: StorageType,
    /// Extent of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The data, of size product of `shape` times `dtype.bytes()`.
    pub data: Cow<'a, [u8]>,
}

impl TensorView<'_> {
    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.bytes()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Borrows the rows `range` of the outermost dimension.
    ///
    /// # Panics
    /// If `range` exceeds the outermost dimension, or the tensor has no dimension.
    pub fn rows(&self, range: Range<usize>) -> TensorView<'_> {
        assert!(range.end <= self.shape[0], "rows {range:?} of {:?}", self.shape);
        let row_bytes = self.shape[1..].iter().product::<usize>() * self.dtype.bytes();
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        TensorView {
            name: self.name.clone(),
            dtype: self.dtype,
            shape,
            data: Cow::Borrowed(&self.data[range.start * row_bytes..range.end * row_bytes]),
        }
    }

    /// Converts the numbers from index `start` (row-major) on into `out`, filling it.
    ///
    /// # Panics
    /// If `out` exceeds the end of the tensor.
    pub fn read_f32(&self, start: usize, out: &mut [f32]) {
        let bytes = self.bytes_from(start, out.len());
        match self.dtype {
            StorageType::F32 => bytemuck::cast_slice_mut(out).copy_from_slice(bytes),
            StorageType::F16 => widen::<f16>(bytes, out),
            StorageType::Bf16 => widen::<bf16>(bytes, out),
        }
    }

    /// Like [`read_f32`](Self::read_f32), to fp16.
    pub fn read_f16(&self, start: usize, out: &mut [f16]) {
        if self.dtype == StorageType::F16 {
            let bytes = self.bytes_from(start, out.len());
            bytemuck::cast_slice_mut(out).copy_from_slice(bytes);
        } else {
            self.narrow(start, out);
        }
    }

    /// Like [`read_f32`](Self::read_f32), to bf16.
    pub fn read_bf16(&self, start: usize, out: &mut [bf16]) {
        if self.dtype == StorageType::Bf16 {
            let bytes = self.bytes_from(start, out.len());
            bytemuck::cast_slice_mut(out).copy_from_slice(bytes);
        } else {
            self.narrow(start, out);
        }
    }

    /// Returns all numbers as fp32.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        self.read_f32(0, &mut out);
        out
    }

    /// Returns all numbers as fp16.
    pub fn to_f16(&self) -> Vec<f16> {
        let mut out = vec![f16::ZERO; self.len()];
        self.read_f16(0, &mut out);
        out
    }

    /// Returns all numbers as bf16.
    pub fn to_bf16(&self) -> Vec<bf16> {
        let mut out = vec![bf16::ZERO; self.len()];
        self.read_bf16(0, &mut out);
        out
    }

    fn bytes_from(&self, start: usize, len: usize) -> &[u8] {
        let size = self.dtype.bytes();
        &self.data[start * size..(start + len) * size]
    }

    /// Converts through fp32, which represents every fp16 and bf16 number exactly, so there is one rounding only.
    fn narrow<T>(&self, start: usize, out: &mut [T])
    where
        [T]: HalfFloatSliceExt,
    {
        let mut single = [0.0f32; CHUNK];
        for (index, target) in out.chunks_mut(CHUNK).enumerate() {
            let single = &mut single[..target.len()];
            self.read_f32(start + index * CHUNK, single);
            target.convert_from_f32_slice(single);
        }
    }
}

/// Converts 16-bit numbers to fp32, through a buffer because `bytes` may be unaligned.
fn widen<T: bytemuck::Pod>(bytes: &[u8], out: &mut [f32])
where
    [T]: HalfFloatSliceExt,
{
    let mut buffer = [T::zeroed(); CHUNK];
    for (source, target) in bytes.chunks(CHUNK * size_of::<T>()).zip(out.chunks_mut(CHUNK)) {
        let buffer = &mut buffer[..target.len()];
        bytemuck::cast_slice_mut(buffer).copy_from_slice(source);
        buffer.convert_to_f32_slice(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(dtype: StorageType, data: &[u8]) -> TensorView<'_> {
        TensorView {
            name: "t".into(),
            dtype,
            shape: vec![data.len() / dtype.bytes()],
            data: Cow::Borrowed(data),
        }
    }

    #[test]
    fn every_half_number_survives_the_way_through_fp32_even_unaligned() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let mut bytes = vec![0u8];
        bytes.extend_from_slice(bytemuck::cast_slice(&bits));
        let half = view(StorageType::F16, &bytes[1..]);
        let brain = view(StorageType::Bf16, &bytes[1..]);
        for (&bits, single) in bits.iter().zip(half.to_f32()) {
            let expected = f16::from_bits(bits).to_f32();
            assert!(single.to_bits() == expected.to_bits() || single.is_nan() && expected.is_nan());
        }
        for (&bits, single) in bits.iter().zip(brain.to_f32()) {
            let expected = bf16::from_bits(bits).to_f32();
            assert!(single.to_bits() == expected.to_bits() || single.is_nan() && expected.is_nan());
        }
        assert!(bits.iter().zip(half.to_f16()).all(|(&b, x)| x.to_bits() == b));
        assert!(bits.iter().zip(brain.to_bf16()).all(|(&b, x)| x.to_bits() == b));
    }

    #[test]
    fn narrowing_rounds_to_nearest_even() {
        // Halfway between two fp16 neighbours (spacing 2^-10 at 1): down to even, up to even, just above.
        let numbers =
            [1.0 + 2f32.powi(-11), 1.0 + 3.0 * 2f32.powi(-11), 1.0 + 2f32.powi(-11) + 2f32.powi(-20)];
        let single = view(StorageType::F32, bytemuck::cast_slice(&numbers));
        let bits: Vec<u16> = single.to_f16().iter().map(|x| x.to_bits()).collect();
        assert_eq!(bits, [0x3C00, 0x3C02, 0x3C01]);
        let numbers = [1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8), 70000.0];
        let single = view(StorageType::F32, bytemuck::cast_slice(&numbers));
        assert_eq!(single.to_bf16()[0].to_bits(), 0x3F80);
        assert_eq!(single.to_bf16()[1].to_bits(), 0x3F82);
        assert_eq!(single.to_f16()[2], f16::INFINITY);
    }

    #[test]
    fn rows_are_the_rows() {
        let numbers: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let mut tensor = view(StorageType::F32, bytemuck::cast_slice(&numbers));
        tensor.shape = vec![4, 3];
        let middle = tensor.rows(1..3);
        assert_eq!((middle.shape.as_slice(), middle.to_f32()), (&[2, 3][..], vec![3., 4., 5., 6., 7., 8.]));
        let mut two = [0.0; 2];
        tensor.read_f32(10, &mut two);
        assert_eq!(two, [10., 11.]);
    }
}
