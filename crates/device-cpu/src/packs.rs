//! Packed weights that outlive the process: each part is handed out as soon as it is packed, or taken from a mapped file.

use std::fmt::{self, Debug};
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;

use glmbench_device::DeviceError;

use crate::buffer::{Buffer, LINE_BYTES};

/// The way that this crate packs weights. Every change of the bytes of a packed weight takes another number, which makes
/// older files of packed weights worthless.
pub(crate) const PACK_LAYOUT: u32 = 1;

/// Bytes that stay as they are while they are shared.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Receives the parts of packed weights, in order.
pub type KeepPart = Box<dyn FnMut(&[u8]) + Send>;

/// Where the packed weights of a rank come from.
#[derive(Default)]
pub enum Packs {
    /// They are packed from the numbers that are uploaded.
    #[default]
    Fresh,
    /// As [`Self::Fresh`]. Each part is also passed to this function.
    Keep(KeepPart),
    /// They were packed before. The ranges are the parts, aligned to cache lines, in the order in which [`Self::Keep`] had them.
    /// The numbers that are uploaded need their shapes only.
    Kept(SharedBytes, std::vec::IntoIter<Range<usize>>),
}

impl Debug for Packs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fresh => "Fresh",
            Self::Keep(_) => "Keep",
            Self::Kept(..) => "Kept",
        })
    }
}

impl Packs {
    /// Returns the next part, of `len` numbers: a kept one, or zeros that the caller fills. `what` names the purpose in errors.
    ///
    /// # Errors
    /// Memory ran out, or the next kept part is another one.
    pub(crate) fn take<T: Pod>(&mut self, len: usize, what: &str) -> Result<Packed<T>, DeviceError> {
        let Self::Kept(bytes, parts) = self else { return Ok(Packed::Own(Buffer::zeroed(len, what)?)) };
        let range = parts.next();
        let is_it = |range: &Range<usize>| {
            let part = bytes.as_ref().as_ref().get(range.clone());
            let is_aligned = |part: &[u8]| part.as_ptr().addr().is_multiple_of(LINE_BYTES);
            part.is_some_and(|part| is_aligned(part) && Some(part.len()) == len.checked_mul(size_of::<T>()))
        };
        match range.clone().filter(is_it) {
            Some(range) => Ok(Packed::Kept { bytes: Arc::clone(bytes), range }),
            None => Err(DeviceError::Setting {
                device: crate::NAME,
                problem: format!(
                    "kept {what}: found bytes {range:?}, expected an aligned part with {len} numbers of {} bytes",
                    size_of::<T>()
                ),
            }),
        }
    }

    /// Hands out a part that was filled.
    pub(crate) fn keep<T: Pod>(&mut self, part: &Packed<T>) {
        if let Self::Keep(keep) = self {
            keep(bytemuck::cast_slice(part));
        }
    }
}

/// Numbers of a packed weight, in memory of this process or in shared bytes.
pub(crate) enum Packed<T> {
    Own(Buffer<T>),
    /// `range` is aligned and holds whole numbers.
    Kept {
        bytes: SharedBytes,
        range: Range<usize>,
    },
}

impl<T> Packed<T> {
    /// Returns the numbers for filling; `None` if they were kept.
    pub(crate) fn fresh(&mut self) -> Option<&mut Buffer<T>> {
        if let Self::Own(buffer) = self { Some(buffer) } else { None }
    }
}

impl<T: Pod> Deref for Packed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Own(buffer) => buffer,
            Self::Kept { bytes, range } => bytemuck::cast_slice(&bytes.as_ref().as_ref()[range.clone()]),
        }
    }
}

impl<T> Debug for Packed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(_) => f.write_str("Own"),
            Self::Kept { range, .. } => write!(f, "Kept({range:?})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{Cpu, CpuOptions, InstructionSet};
    use glmbench_device::{AttentionShape, DType, Device, HostTensor, Precision, Role};

    /// Returns the parts of a weight, packed by these kernels.
    fn parts(precision: Precision, set: InstructionSet) -> Vec<Vec<u8>> {
        let (n, k) = (35, 300);
        let numbers = (0..n * k).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0);
        let data: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        let dense = HostTensor { dtype: DType::Fp32, rows: n, width: k, data: &data };
        let attention = AttentionShape { heads: 2, kv_heads: 1, channels: 16 };
        let options = CpuOptions {
            threads: 2,
            instruction_set: Some(set),
            ..CpuOptions::plain(precision, 8, attention)
        };
        let parts = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&parts);
        let keep = Packs::Keep(Box::new(move |part| to.lock().unwrap().push(part.to_vec())));
        let cpu = Cpu::new(options).unwrap().with_packs(keep);
        cpu.upload_table(dense).unwrap();
        cpu.upload_linear(Role::Down, precision.weights.of_dense(dense), None).unwrap();
        drop(cpu);
        Arc::into_inner(parts).unwrap().into_inner().unwrap()
    }

    /// Files of packed weights hold these bytes. If they change on purpose, [`PACK_LAYOUT`] changes with them.
    /// `scripts/packs_reference.py` computes the hash in NumPy and shares nothing with this program.
    #[test]
    fn the_layout_of_this_version_is_this() {
        let mut hash = 0xCBF2_9CE4_8422_2325_u64;
        for precision in Precision::TYPES {
            // The kernels of `avx512-bf16-portable` for integers are those of the machine.
            for set in [InstructionSet::Portable, InstructionSet::AmxPortable] {
                for byte in parts(precision, set).into_iter().flatten() {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
                }
            }
        }
        assert_eq!((PACK_LAYOUT, hash), (1, 4_288_734_322_921_983_857));
    }

    #[test]
    fn a_part_of_another_length_or_place_is_refused() {
        let bytes: SharedBytes = Arc::new(AlignedBytes([1; 256]));
        let kept = |range: Range<usize>| Packs::Kept(Arc::clone(&bytes), vec![range].into_iter());
        let numbers = kept(64..128).take::<f32>(16, "weights").unwrap();
        assert_eq!(numbers[..], [f32::from_bits(0x0101_0101); 16]);
        let reversed = Range { start: usize::MAX, end: 0 };
        for range in [64..127, 65..129, 64..192, 256..320, 0..0, reversed] {
            assert!(kept(range.clone()).take::<f32>(16, "weights").is_err(), "{range:?}");
        }
        assert!(kept(0..64).take::<f32>(usize::MAX, "weights").is_err());
        let mut packs = kept(0..64);
        packs.take::<u8>(64, "weights").unwrap();
        let error = packs.take::<u8>(64, "weights").unwrap_err().to_string();
        assert!(error.contains("kept weights: found bytes None"), "{error}");
    }

    #[repr(align(64))]
    struct AlignedBytes([u8; 256]);

    impl AsRef<[u8]> for AlignedBytes {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
}
