//! Checks for non-finite weights: NaN or infinity in the file, or values that overflow the compute type.
//!
//! One such weight can make every answer meaningless, or have no effect if no token uses it. A model with such weights
//! is therefore loaded all the same, and the caller gets the list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use glmbench_device::{DType, Precision};

use super::{Part, RawTensor, StorageType, StoredTensor, TensorView, WeightError, WeightSource, layout};
use crate::not_finite;

/// Faults recorded per tensor; beyond this number the count is "or more".
const REMEMBERED: usize = 1000;
/// Bytes checked at a time.
const CHUNK: usize = 1 << 16;
/// Fewest bytes that are worth a thread of their own.
const RUN: usize = 1 << 23;

/// A tensor with numbers that are not finite in the run's type.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightFault {
    /// The tensor's name.
    pub tensor: String,
    /// Index of the first such number, outermost dimension first.
    pub index: Vec<usize>,
    /// Storage type of the tensor.
    pub stored: StorageType,
    /// Value as stored.
    pub value: f32,
    /// The type in which the value becomes infinite, if it is finite as stored.
    pub becomes: Option<DType>,
    /// Number of faults, up to 1,000.
    pub count: usize,
    /// Number of elements in the tensor.
    pub of: usize,
}

impl fmt::Display for WeightFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tensor, index, stored, value, becomes, count, of } = self;
        match becomes {
            None => write!(f, "tensor {tensor} {index:?} is {}", not_finite(*value)),
            Some(dtype) => {
                write!(f, "tensor {tensor} {index:?} is {value} in {stored}, infinite in {dtype}")
            }
        }?;
        let more = if *count >= REMEMBERED { " or more" } else { "" };
        write!(f, " ({count}{more} of {of} numbers)")
    }
}

/// A source that checks every number as it is requested.
pub struct Watched {
    source: Arc<dyn WeightSource>,
    precision: Precision,
    found: Mutex<BTreeMap<String, Found>>,
}

/// Faults found in one tensor. The indices are a set, because ranks may request the same numbers.
struct Found {
    shape: Vec<usize>,
    stored: StorageType,
    first: (usize, f32),
    becomes: Option<DType>,
    indices: BTreeSet<usize>,
}

impl Watched {
    /// Creates a source that checks `source` for a run in `precision`.
    pub fn new(source: Arc<dyn WeightSource>, precision: Precision) -> Self {
        Self { source, precision, found: Mutex::default() }
    }

    /// Returns the faults found so far, by tensor name.
    pub fn faults(&self) -> Vec<WeightFault> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = |(name, found): (&String, &Found)| WeightFault {
            tensor: name.clone(),
            index: unravelled(found.first.0, &found.shape),
            stored: found.stored,
            value: found.first.1,
            becomes: found.becomes,
            count: found.indices.len(),
            of: found.shape.iter().product(),
        };
        found.iter().map(fault).collect()
    }

    /// Returns the type in which a tensor's numbers must be finite. Quantised weights are scaled by their row's
    /// maximum, so fp32 suffices for them.
    fn kept_in(&self, name: &str, shape: &[usize]) -> DType {
        let is_table = name == layout::EMBEDDING || name == layout::PREFIX_EMBEDDING;
        let is_scaled = self.precision.has_quantised_weights() && shape.len() == 2 && !is_table;
        if is_scaled { DType::Fp32 } else { self.precision.dtype }
    }

    fn look(&self, view: &TensorView<'_>, shape: &[usize], part: &Part) {
        let kept_in = self.kept_in(&view.name, shape);
        let runs = part.runs(shape);
        faulty(view, limit(view.dtype, kept_in), &|at| {
            let mut value = [0.0];
            view.read_f32(at, &mut value);
            let index = whole_index(at, &runs);
            let mut all = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            let found = all.entry(view.name.clone()).or_insert_with(|| Found {
                shape: shape.to_vec(),
                stored: view.dtype,
                first: (usize::MAX, 0.0),
                becomes: None,
                indices: BTreeSet::new(),
            });
            if index < found.first.0 {
                found.first = (index, value[0]);
                found.becomes = value[0].is_finite().then_some(kept_in);
            }
            if found.indices.len() < REMEMBERED {
                found.indices.insert(index);
            }
        });
    }
}

/// Returns the smallest bits without sign that are not finite in `kept_in`, where narrowing rounds to nearest, ties to
/// even.
fn limit(stored: StorageType, kept_in: DType) -> u32 {
    match (stored, kept_in) {
        (StorageType::F16, _) => 0x7C00,
        (StorageType::Bf16, DType::Fp16) => 0x4780,
        (StorageType::Bf16, DType::Bf16 | DType::Fp32) => 0x7F80,
        (StorageType::F32, DType::Fp16) => 0x477F_F000,
        (StorageType::F32, DType::Bf16) => 0x7F7F_8000,
        (StorageType::F32, DType::Fp32) => 0x7F80_0000,
    }
}

/// Reports the indices of all numbers of `view` that reach `limit`, by their bits without sign.
///
/// All cores take part. For a mapped file, this is also where its pages are brought into the process.
fn faulty(view: &TensorView<'_>, limit: u32, tell: &(dyn Fn(usize) + Sync)) {
    let size = view.dtype.bytes();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let run = view.data.len().div_ceil(threads).next_multiple_of(CHUNK).max(RUN);
    std::thread::scope(|scope| {
        for (number, data) in view.data.chunks(run).enumerate().skip(1) {
            scope.spawn(move || faulty_in(data, size, limit, &|at| tell(number * (run / size) + at)));
        }
        faulty_in(&view.data[..run.min(view.data.len())], size, limit, tell);
    });
}

/// Reports the indices of the numbers of `size` bytes that reach `limit`.
///
/// Per chunk, only the maximum is computed first, which the compiler vectorises. Chunks without faults need nothing
/// else.
fn faulty_in(data: &[u8], size: usize, limit: u32, tell: &dyn Fn(usize)) {
    let short = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) & 0x7FFF;
    let long = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) & 0x7FFF_FFFF;
    for (number, chunk) in data.chunks(CHUNK).enumerate() {
        let first = number * (CHUNK / size);
        if size == 2 {
            let (numbers, limit) = (chunk.as_chunks::<2>().0, limit as u16);
            if numbers.iter().fold(0, |most, bytes| short(bytes).max(most)) >= limit {
                let all = numbers.iter().enumerate().filter(|(_, bytes)| short(bytes) >= limit);
                all.for_each(|(i, _)| tell(first + i));
            }
        } else {
            let numbers = chunk.as_chunks::<4>().0;
            if numbers.iter().fold(0, |most, bytes| long(bytes).max(most)) >= limit {
                let all = numbers.iter().enumerate().filter(|(_, bytes)| long(bytes) >= limit);
                all.for_each(|(i, _)| tell(first + i));
            }
        }
    }
}

/// Maps index `at` of a part to the index in the whole tensor; `runs` are the part's ranges.
fn whole_index(at: usize, runs: &[std::ops::Range<usize>]) -> usize {
    let mut left = at;
    for run in runs {
        if left < run.len() {
            return run.start + left;
        }
        left -= run.len();
    }
    at
}

/// Splits a row-major index into one index per dimension.
fn unravelled(flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut left = flat;
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&extent| {
            let here = left % extent.max(1);
            left /= extent.max(1);
            here
        })
        .collect();
    index.reverse();
    index
}

impl WeightSource for Watched {
    fn place(&self) -> String {
        self.source.place()
    }

    fn stored(&self) -> Vec<StoredTensor> {
        self.source.stored()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        self.part(name, shape, &Part::Whole)
    }

    fn part(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        let view = self.source.part(name, shape, part)?;
        self.look(&view, shape, part);
        Ok(view)
    }

    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        self.source.raw(name)
    }

    fn release(&self, name: &str) {
        self.source.release(name);
    }

    fn dtype(&self) -> StorageType {
        self.source.dtype()
    }

    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        self.source.fingerprint(hashed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};
    use std::borrow::Cow;

    /// One tensor of 2 × 4 numbers.
    struct One(StorageType, Vec<u8>);

    impl WeightSource for One {
        fn place(&self) -> String {
            "here".into()
        }
        fn stored(&self) -> Vec<StoredTensor> {
            Vec::new()
        }
        fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
            let data = Cow::Borrowed(self.1.as_slice());
            Ok(TensorView { name: name.into(), dtype: self.0, shape: shape.to_vec(), data })
        }
        fn release(&self, _name: &str) {}
        fn dtype(&self) -> StorageType {
            self.0
        }
        fn fingerprint(&self, _hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
            Ok(String::new())
        }
    }

    fn told(numbers: &[f32; 8], stored: StorageType, precision: Precision, name: &str) -> Vec<String> {
        let bytes = |x: &f32| match stored {
            StorageType::F32 => x.to_le_bytes().to_vec(),
            StorageType::F16 => f16::from_f32(*x).to_le_bytes().to_vec(),
            StorageType::Bf16 => bf16::from_f32(*x).to_le_bytes().to_vec(),
        };
        let watched =
            Watched::new(Arc::new(One(stored, numbers.iter().flat_map(bytes).collect())), precision);
        watched.tensor(name, &[2, 4]).unwrap();
        watched.faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_number_that_is_none_is_named_with_its_place() {
        let mut numbers = [1.0; 8];
        assert!(told(&numbers, StorageType::F16, DType::Fp16.into(), "w").is_empty());
        (numbers[5], numbers[7]) = (f32::NAN, f32::INFINITY);
        for stored in [StorageType::F16, StorageType::Bf16, StorageType::F32] {
            let told = told(&numbers, stored, DType::Fp32.into(), "w");
            assert_eq!(told, ["tensor w [1, 1] is NaN (2 of 8 numbers)"]);
        }
        numbers = [-1e5; 8];
        let of = |stored, precision: Precision, name| told(&numbers, stored, precision, name);
        assert_eq!(
            of(StorageType::Bf16, DType::Fp16.into(), "w"),
            ["tensor w [0, 0] is -99840 in BF16, infinite in fp16 (8 of 8 numbers)"]
        );
        assert!(of(StorageType::Bf16, DType::Bf16.into(), "w").is_empty());
        assert!(of(StorageType::F32, DType::Fp32.into(), "w").is_empty());
        // Quantised weights are scaled first. The embedding table is not quantised.
        assert!(of(StorageType::Bf16, Precision::W8A8_DYNAMIC, "w").is_empty());
        assert_eq!(of(StorageType::Bf16, Precision::W8A8_DYNAMIC, layout::EMBEDDING).len(), 1);
    }

    #[test]
    fn the_limits_are_where_narrowing_becomes_infinite() {
        for (stored, kept_in) in [
            (StorageType::Bf16, DType::Fp16),
            (StorageType::F32, DType::Fp16),
            (StorageType::F32, DType::Bf16),
            (StorageType::F32, DType::Fp32),
            (StorageType::F16, DType::Bf16),
        ] {
            let value = |bits: u32| match stored {
                StorageType::F32 => f32::from_bits(bits),
                StorageType::F16 => f16::from_bits(bits as u16).to_f32(),
                StorageType::Bf16 => bf16::from_bits(bits as u16).to_f32(),
            };
            let holds = |bits: u32| match kept_in {
                DType::Fp32 => value(bits).is_finite(),
                DType::Fp16 => f16::from_f32(value(bits)).is_finite(),
                DType::Bf16 => bf16::from_f32(value(bits)).is_finite(),
            };
            let limit = limit(stored, kept_in);
            assert!(holds(limit - 1) && !holds(limit), "{stored} in {kept_in}");
        }
    }

    #[test]
    fn parts_are_told_by_their_place_in_the_whole_and_once() {
        let mut numbers = [1.0f32; 8];
        (numbers[3], numbers[6]) = (f32::NAN, f32::NAN);
        let data = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let watched = Watched::new(Arc::new(One(StorageType::F32, data)), DType::Fp32.into());
        watched.part("w", &[2, 4], &Part::Columns(2..4)).unwrap();
        watched.part("w", &[2, 4], &Part::Rows(std::iter::once(1..2).collect())).unwrap();
        let faults = watched.faults();
        assert_eq!(faults.len(), 1);
        assert_eq!((faults[0].index.clone(), faults[0].count), (vec![0, 3], 2));
    }

    #[test]
    fn a_chunk_behind_the_first_is_looked_at_too() {
        for at in [2 * CHUNK, RUN - 2, RUN, 2 * RUN + CHUNK] {
            let mut data = vec![0u8; 3 * RUN];
            data[at + 1] = 0x7C;
            let shape = [1, data.len() / 2];
            let watched = Watched::new(Arc::new(One(StorageType::F16, data)), DType::Fp16.into());
            watched.tensor("w", &shape).unwrap();
            assert_eq!(watched.faults()[0].index, [0, at / 2]);
        }
    }
}
