//! Random weights of a given shape, generated on demand, to measure speed and memory without a checkpoint.
//!
//! Each number depends on seed, tensor name and index only, not on threads, request order or other tensors. A 4-layer
//! model has the same first 4 layers as the full model.

use std::borrow::Cow;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use sha2::{Digest, Sha256};

use super::{Part, StorageType, StoredTensor, TensorView, WeightError, WeightSource, combine, layout};
use crate::config::ModelConfig;

/// Standard deviation of every number, as in ChatGLM2's initialisation.
const STD: f32 = 0.02;
/// Numbers per piece of work. One thread generates tensors of up to this size alone.
const SPLIT: usize = 1 << 18;
/// Numbers generated at a time, few enough to stay in the first-level cache.
const CHUNK: usize = 2048;
/// Version of the generator. Changes with it, so that old and new numbers never share a fingerprint.
const GENERATOR: &str = "dummy-1";

/// A source of deterministic random weights: norms around 1, all others around 0, standard deviation 0.02.
#[derive(Debug, Clone)]
pub struct Dummy {
    config: ModelConfig,
    dtype: StorageType,
    seed: u64,
}

impl Dummy {
    /// Creates weights for a model of this config, stored as `dtype`. Each seed gives another model.
    pub fn new(config: ModelConfig, dtype: StorageType, seed: u64) -> Self {
        Self { config, dtype, seed }
    }

    /// Generates a part of a tensor on `threads` threads; returns `None` if memory does not suffice.
    fn generate(&self, name: &str, shape: &[usize], part: &Part, threads: usize) -> Option<Vec<u8>> {
        let size = self.dtype.bytes();
        shape.iter().try_fold(size, |product, &extent| product.checked_mul(extent))?;
        let runs = part.runs(shape);
        let count: usize = runs.iter().map(Range::len).sum();
        let mut data = zeroed(count * size)?;
        let stream = Stream::of_tensor(self.seed, name);
        let mut pieces = pieces(&runs, size, &mut data);
        let share = if count <= SPLIT { pieces.len() } else { pieces.len().div_ceil(threads.max(1)) };
        std::thread::scope(|scope| {
            for pieces in pieces.chunks_mut(share.max(1)) {
                let mut work = move || pieces.iter_mut().for_each(|(at, b)| stream.fill(*at, self.dtype, b));
                if count <= SPLIT {
                    work();
                } else {
                    scope.spawn(work);
                }
            }
        });
        Some(data)
    }

    fn made(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        let (name, expected) = (name.to_owned(), shape.to_vec());
        match layout::expected_shape(&self.config, &name) {
            None => Err(WeightError::MissingTensor { place: self.place(), name, expected }),
            Some(found) if found != shape => {
                Err(WeightError::Shape { place: self.place(), name, found, expected })
            }
            Some(whole) => {
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                let shape = part.shape(&whole);
                match self.generate(&name, &whole, part, threads) {
                    Some(data) => Ok(TensorView { name, dtype: self.dtype, shape, data: Cow::Owned(data) }),
                    None => Err(WeightError::TooLarge { name, shape }),
                }
            }
        }
    }
}

/// Splits the memory of consecutive `runs` into pieces of at most [`SPLIT`] numbers, each with the index of its first
/// number.
fn pieces<'a>(runs: &[Range<usize>], size: usize, data: &'a mut [u8]) -> Vec<(u64, &'a mut [u8])> {
    let mut rest = data;
    let mut pieces = Vec::new();
    for run in runs {
        for start in run.clone().step_by(SPLIT) {
            let count = SPLIT.min(run.end - start);
            let (piece, tail) = std::mem::take(&mut rest).split_at_mut(count * size);
            pieces.push((start as u64, piece));
            rest = tail;
        }
    }
    pieces
}

/// Returns `bytes` zeros, or `None` if memory does not suffice (a plain `vec!` would end the program).
pub(super) fn zeroed(bytes: usize) -> Option<Vec<u8>> {
    Vec::<u8>::new().try_reserve_exact(bytes).ok()?;
    // The pages come untouched from the system, so the threads that fill them also fault them in.
    Some(vec![0; bytes])
}

/// The random numbers of one tensor.
#[derive(Clone, Copy)]
struct Stream {
    key: u64,
    mean: f32,
}

impl Stream {
    fn of_tensor(seed: u64, name: &str) -> Self {
        let hash = Sha256::digest(format!("{seed}:{name}"));
        let key = hash.iter().take(8).fold(0, |key, &byte| key << 8 | u64::from(byte));
        Self { key, mean: if name.ends_with("norm.weight") { 1.0 } else { 0.0 } }
    }

    /// Returns number `index`: a sum of four 16-bit uniforms, a close and bounded approximation of the normal
    /// distribution.
    fn number(self, index: u64) -> f32 {
        /// Standard deviation of the sum: 65536 · √(4/12).
        const SPREAD: f32 = 37837.227;
        /// Mean of the sum: 4 · 65535/2.
        const CENTRE: i32 = 131070;
        let bits = mix(self.key.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        let lanes = [bits, bits >> 16, bits >> 32, bits >> 48];
        let sum: i32 = lanes.iter().map(|&lane| i32::from(lane as u16)).sum();
        self.mean + (sum - CENTRE) as f32 * (STD / SPREAD)
    }

    /// Fills `bytes` with the numbers from index `start` on.
    fn fill(self, start: u64, dtype: StorageType, bytes: &mut [u8]) {
        let mut numbers = [0.0f32; CHUNK];
        let mut halves = [0u16; CHUNK];
        for (chunk, target) in bytes.chunks_mut(CHUNK * dtype.bytes()).enumerate() {
            let numbers = &mut numbers[..target.len() / dtype.bytes()];
            let first = start + (chunk * CHUNK) as u64;
            for (number, index) in numbers.iter_mut().zip(first..) {
                *number = self.number(index);
            }
            let halves = &mut halves[..numbers.len()];
            match dtype {
                StorageType::F32 => target.copy_from_slice(bytemuck::cast_slice(numbers)),
                StorageType::F16 => {
                    bytemuck::cast_slice_mut::<_, f16>(halves).convert_from_f32_slice(numbers);
                    target.copy_from_slice(bytemuck::cast_slice(halves));
                }
                StorageType::Bf16 => {
                    bytemuck::cast_slice_mut::<_, bf16>(halves).convert_from_f32_slice(numbers);
                    target.copy_from_slice(bytemuck::cast_slice(halves));
                }
            }
        }
    }
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014): a bijection that scatters neighbouring counters.
fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl WeightSource for Dummy {
    fn place(&self) -> String {
        format!("random {} weights, seed {}", self.dtype, self.seed)
    }

    fn stored(&self) -> Vec<StoredTensor> {
        let describe = |(name, shape): (String, Vec<usize>)| StoredTensor {
            name,
            dtype: self.dtype.name().to_owned(),
            bytes: shape.iter().fold(self.dtype.bytes() as u64, |bytes, &n| bytes.saturating_mul(n as u64)),
            shape,
            origin: self.place(),
        };
        layout::model_tensors(&self.config).map(describe).collect()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        self.made(name, shape, &Part::Whole)
    }

    fn part(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        self.made(name, shape, part)
    }

    /// Does nothing: a view owns its generated tensor.
    fn release(&self, _name: &str) {}

    fn dtype(&self) -> StorageType {
        self.dtype
    }

    /// Hashes everything that determines the numbers: generator, seed, type, names and shapes.
    fn fingerprint(&self, _hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        let head = format!("{GENERATOR}\0{}\0{}", self.seed, self.dtype);
        let tensors = layout::model_tensors(&self.config).map(|(name, shape)| format!("\0{name}\0{shape:?}"));
        Ok(combine(std::iter::once(head).chain(tensors)))
    }
}

#[cfg(test)]
mod tests {
    use super::layout::{EMBEDDING, FINAL_NORM, QKV_BIAS, layer_tensor};
    use super::*;

    fn small() -> ModelConfig {
        ModelConfig { num_layers: 2, padded_vocab_size: 1000, ..ModelConfig::chatglm2_6b() }
    }

    #[test]
    fn the_numbers_do_not_depend_on_threads() {
        for dtype in [StorageType::F32, StorageType::F16, StorageType::Bf16] {
            let dummy = Dummy::new(small(), dtype, 7);
            for shape in [vec![1000, 4096], vec![3 * SPLIT + 1], vec![5]] {
                let alone = dummy.generate(EMBEDDING, &shape, &Part::Whole, 1).unwrap();
                for threads in [2, 3, 7] {
                    assert!(
                        alone == dummy.generate(EMBEDDING, &shape, &Part::Whole, threads).unwrap(),
                        "{threads} {dtype}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_part_has_the_numbers_of_the_whole() {
        let dummy = Dummy::new(small(), StorageType::F16, 7);
        let shape = [1000, 4096];
        for part in [Part::Rows(vec![3..700, 900..901]), Part::Columns(5..2053), Part::Columns(1..3)] {
            let expected = part.of(dummy.tensor(EMBEDDING, &shape).unwrap());
            let found = dummy.part(EMBEDDING, &shape, &part).unwrap();
            assert!(found.shape == expected.shape && found.data == expected.data, "{part:?}");
        }
    }

    #[test]
    fn the_numbers_of_a_seed_stay_what_they_are() {
        let dummy = Dummy::new(small(), StorageType::F32, 0);
        let first = |name: &str, shape: &[usize]| dummy.tensor(name, shape).unwrap().to_f32()[..4].to_vec();
        assert_eq!(first(EMBEDDING, &[1000, 4096]), [0.03709997, 0.013272114, 0.020536916, -0.029678179]);
        assert_eq!(
            first(&layer_tensor(1, QKV_BIAS), &[4608]),
            [-0.006860439, 0.026273066, -0.009943117, -0.010420954]
        );
        assert_eq!(first(FINAL_NORM, &[4096]), [0.9954373, 1.0098548, 0.95632875, 1.0106524]);
        assert_eq!(
            dummy.fingerprint(&|_| ()).unwrap(),
            "03e217e64f0688c3caa5eb53770d09b46ddfa1562dc73043091fbc15459bc169"
        );
    }

    #[test]
    fn types_are_roundings_of_the_same_numbers_and_seeds_differ() {
        let of =
            |dtype, seed| Dummy::new(small(), dtype, seed).tensor(EMBEDDING, &[1000, 4096]).unwrap().to_f16();
        assert!(of(StorageType::F32, 1) == of(StorageType::F16, 1));
        assert!(of(StorageType::F32, 1) != of(StorageType::F32, 2));
    }

    #[test]
    fn the_numbers_are_spread_as_they_should_be() {
        let dummy = Dummy::new(small(), StorageType::F32, 3);
        let numbers = dummy.tensor(EMBEDDING, &[1000, 4096]).unwrap().to_f32();
        let n = numbers.len() as f64;
        let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = numbers.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        let lagged = numbers.windows(2).map(|x| f64::from(x[0] * x[1])).sum::<f64>() / n / variance;
        assert!(mean.abs() < 5.0 * 0.02 / n.sqrt(), "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 1e-4, "{variance}");
        assert!(lagged.abs() < 5.0 / n.sqrt(), "{lagged}");
        let norm = dummy.tensor(FINAL_NORM, &[4096]).unwrap().to_f32();
        assert!(norm.iter().all(|x| (x - 1.0).abs() < 0.08));
    }

    #[test]
    fn what_the_model_has_not_or_memory_cannot_hold_is_an_error() {
        let dummy = Dummy::new(small(), StorageType::F16, 0);
        let message = |name: &str, shape: &[usize]| dummy.tensor(name, shape).unwrap_err().to_string();
        assert!(message("nonsense", &[1]).contains("nonsense is missing"));
        assert!(message(FINAL_NORM, &[1]).contains("shape [4096], expected [1]"));
        let most = 1 << 24;
        let config = ModelConfig { padded_vocab_size: most, hidden_size: most, ..small() };
        let huge = Dummy::new(config, StorageType::F32, 0);
        let error = huge.tensor(EMBEDDING, &[most, most]).unwrap_err().to_string();
        assert!(error.contains("does not fit in memory"), "{error}");
    }
}
