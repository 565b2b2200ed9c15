//! The device's data layout, where it differs from the checkpoint's.
//!
//! **Rotary pairs.** The model pairs adjacent channels and rotates the first half of a head. The operator documented for
//! both chips pairs channel `j` with `j + D/2` and rotates all channels. So the rows of the query and key weights are
//! permuted at load. The two channels of pair `p` move to `p` and `D/2 + p`. The unrotated channels fill the remaining
//! places, where cosine is 1 and sine 0. Queries and keys are permuted alike, so their products do not change.
//!
//! **Channels.** That operator takes 64 or 128 channels; some of its pages say 128 only. A smaller model's heads are
//! padded with zero rows in the weights of queries, keys and values. Zeros stay zero and add nothing to a product. The
//! padding is dropped after attention.

use std::borrow::Cow;

use glmbench_device::rotary::RotaryTable;
use glmbench_device::{AttentionShape, DType, DeviceError, HostTensor};

/// Maximum channels per head.
const FULL: usize = 128;

/// Returns the channels that a head of `channels` channels has on the device.
pub(super) fn padded_channels(channels: usize) -> usize {
    if channels <= 64 { 64 } else { FULL }
}

/// Layout of heads on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadLayout {
    /// The model's heads.
    pub(super) shape: AttentionShape,
    /// Channels per head on the device: 64 or 128.
    pub(super) channels: usize,
}

impl HeadLayout {
    /// Creates the layout for a model. Fails for heads of more than 128 channels, or not a multiple of 4: half of the
    /// channels are rotated in pairs.
    pub(super) fn new(shape: AttentionShape, device: &'static str) -> Result<Self, DeviceError> {
        let channels = padded_channels(shape.channels);
        if shape.channels > channels || !shape.channels.is_multiple_of(4) {
            return Err(DeviceError::Unsupported {
                device,
                problem: format!(
                    "heads of {} channels: the rotary operator takes a multiple of 4 up to 128",
                    shape.channels
                ),
            });
        }
        Ok(Self { shape, channels })
    }

    /// Returns whether heads have the maximum number of channels.
    pub(super) fn is_full(&self) -> bool {
        self.channels == FULL
    }

    /// Returns the same heads, padded to the maximum number of channels.
    pub(super) fn filled(self) -> Self {
        Self { channels: FULL, ..self }
    }

    /// Returns whether heads are padded.
    pub(super) fn padded(&self) -> bool {
        self.channels != self.shape.channels
    }

    /// Returns the elements in a row of queries.
    pub(super) fn q_width(&self) -> usize {
        self.shape.heads * self.channels
    }

    /// Returns the elements in a row of keys, and of values.
    pub(super) fn kv_width(&self) -> usize {
        self.shape.kv_heads * self.channels
    }

    /// Returns the rotated pairs of a head.
    fn pairs(&self) -> usize {
        self.shape.channels / 4
    }

    /// Returns the place of channel `i` of a query or key head.
    pub(super) fn place(&self, i: usize) -> usize {
        let (pairs, half) = (self.pairs(), self.channels / 2);
        match i.checked_sub(2 * pairs) {
            None => i / 2 + if i.is_multiple_of(2) { 0 } else { half },
            // The places that pairs left free: first half, then second.
            Some(still) if still < half - pairs => pairs + still,
            Some(still) => half + pairs + (still - (half - pairs)),
        }
    }

    /// Returns the rows of a weight of `heads` heads in device order; `None` is a row of zeros. `permuted` is true for
    /// queries and keys; values keep their order.
    fn rows(&self, heads: usize, permuted: bool) -> Vec<Option<usize>> {
        let mut rows = vec![None; heads * self.channels];
        for head in 0..heads {
            for i in 0..self.shape.channels {
                let place = if permuted { self.place(i) } else { i };
                rows[head * self.channels + place] = Some(head * self.shape.channels + i);
            }
        }
        rows
    }

    /// Returns the rows of the fused weight `[q | k | v]` for each of the three weights on the device.
    pub(super) fn split(&self) -> [Vec<Option<usize>>; 3] {
        let (heads, kv) = (self.shape.heads, self.shape.kv_heads);
        let (k_begin, v_begin) = (heads * self.shape.channels, (heads + kv) * self.shape.channels);
        let shifted = |rows: Vec<Option<usize>>, by: usize| -> Vec<Option<usize>> {
            rows.into_iter().map(|row| row.map(|r| r + by)).collect()
        };
        [
            self.rows(heads, true),
            shifted(self.rows(kv, true), k_begin),
            shifted(self.rows(kv, false), v_begin),
        ]
    }

    /// Returns the channel of the model at each place of a row of keys, and of values; `None` is padding.
    pub(super) fn kv_places(&self) -> [Vec<Option<usize>>; 2] {
        [true, false].map(|permuted| self.rows(self.shape.kv_heads, permuted))
    }

    /// Returns cosines and sines of all positions, per channel, as little-endian elements of `dtype`.
    pub(super) fn rotary_rows(&self, table: &RotaryTable, dtype: DType) -> [Vec<u8>; 2] {
        let (pairs, half) = (table.pairs, self.channels / 2);
        let positions = table.cos.len() / pairs.max(1);
        let rows = |values: &[f32], still: f32| {
            let mut out = vec![still; positions * self.channels];
            for (row, pair) in out.chunks_exact_mut(self.channels).zip(values.chunks_exact(pairs.max(1))) {
                row[..pairs].copy_from_slice(pair);
                row[half..half + pairs].copy_from_slice(pair);
            }
            encode(&out, dtype)
        };
        [rows(&table.cos, 1.0), rows(&table.sin, 0.0)]
    }
}

/// Encodes values as little-endian bytes of `dtype`, rounded to nearest.
pub(super) fn encode(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::Fp32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::Fp16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        DType::Bf16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
    }
}

/// Decodes little-endian bytes of `dtype` and appends the values to `out`.
pub(super) fn decode(bytes: &[u8], dtype: DType, out: &mut Vec<f32>) {
    let begin = out.len();
    out.resize(begin + bytes.len() / dtype.bytes(), 0.0);
    let (rows, width) = (1, out.len() - begin);
    HostTensor { dtype, rows, width, data: bytes }.row_f32(0, &mut out[begin..]);
}

/// Returns a tensor's bytes as elements of `dtype`, borrowed if they already are.
pub(super) fn bytes_as(tensor: HostTensor<'_>, dtype: DType) -> Cow<'_, [u8]> {
    if tensor.dtype == dtype {
        return Cow::Borrowed(tensor.data);
    }
    let mut row = vec![0.0; tensor.width];
    let mut bytes = Vec::with_capacity(tensor.rows * tensor.width * dtype.bytes());
    for i in 0..tensor.rows {
        tensor.row_f32(i, &mut row);
        bytes.extend_from_slice(&encode(&row, dtype));
    }
    Cow::Owned(bytes)
}

/// Returns selected rows of a tensor as elements of `dtype`; `None` is a row of zeros.
pub(super) fn rows_as(tensor: HostTensor<'_>, rows: &[Option<usize>], dtype: DType) -> Vec<u8> {
    let stride = tensor.width * tensor.dtype.bytes();
    let mut bytes = Vec::with_capacity(rows.len() * tensor.width * dtype.bytes());
    for row in rows {
        match row {
            None => bytes.resize(bytes.len() + tensor.width * dtype.bytes(), 0),
            Some(row) => {
                let data = &tensor.data[row * stride..(row + 1) * stride];
                bytes.extend_from_slice(&bytes_as(HostTensor { rows: 1, data, ..tensor }, dtype));
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_device::rotary::{RotaryMode, RotaryScaling, RotarySpec};

    fn layout(channels: usize) -> HeadLayout {
        HeadLayout::new(AttentionShape { heads: 4, kv_heads: 2, channels }, "test").unwrap()
    }

    #[test]
    fn chatglm2s_places_are_those_of_the_documented_permutation() {
        let layout = layout(128);
        for j in 0..32 {
            assert_eq!((layout.place(2 * j), layout.place(2 * j + 1)), (j, 64 + j));
            assert_eq!((layout.place(64 + j), layout.place(96 + j)), (32 + j, 96 + j));
        }
    }

    #[test]
    fn every_channel_has_a_place_of_its_own() {
        for channels in [4, 16, 32, 64, 80, 96, 128] {
            let layout = layout(channels);
            let mut places: Vec<usize> = (0..channels).map(|i| layout.place(i)).collect();
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), channels);
            assert!(places.iter().all(|p| *p < layout.channels));
        }
        assert!(HeadLayout::new(AttentionShape { heads: 1, kv_heads: 1, channels: 256 }, "test").is_err());
    }

    /// The operator's rotation, `out_j = x_j cos_j -+ x_(j +- D/2) sin_j`.
    fn rotate_halves(x: &[f32], cos: &[f32], sin: &[f32]) -> Vec<f32> {
        let half = x.len() / 2;
        let other = |j: usize| if j < half { -x[j + half] } else { x[j - half] };
        (0..x.len()).map(|j| x[j] * cos[j] + other(j) * sin[j]).collect()
    }

    #[test]
    fn rotating_halves_of_permuted_heads_is_rotating_adjacent_pairs() {
        let layouts = [16, 32, 64, 96, 128].map(layout).into_iter();
        for layout in layouts.clone().chain(layouts.map(HeadLayout::filled)) {
            let channels = layout.shape.channels;
            let spec = RotarySpec {
                channels: channels / 2,
                scaling: RotaryScaling::None,
                mode: RotaryMode::Exact,
                dtype: DType::Fp32,
            };
            let table = RotaryTable::new(spec, 8);
            let [cos, sin] = layout.rotary_rows(&table, DType::Fp32).map(|bytes| {
                let mut values = Vec::new();
                decode(&bytes, DType::Fp32, &mut values);
                values
            });
            let head: Vec<f32> = (0..channels).map(|i| (i as f32 * 0.7).sin()).collect();
            let mut placed = vec![0.0; layout.channels];
            head.iter().enumerate().for_each(|(i, v)| placed[layout.place(i)] = *v);
            for position in 0..8 {
                let row = position * layout.channels..(position + 1) * layout.channels;
                let rotated = rotate_halves(&placed, &cos[row.clone()], &sin[row]);
                for i in 0..channels {
                    let at = position * table.pairs + i / 2;
                    let expected = match (i / 2 < table.pairs, i % 2) {
                        (false, _) => head[i],
                        (true, 0) => head[i] * table.cos[at] - head[i + 1] * table.sin[at],
                        (true, _) => head[i] * table.cos[at] + head[i - 1] * table.sin[at],
                    };
                    assert!((rotated[layout.place(i)] - expected).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn the_fused_weight_is_split_and_filled() {
        let [q, k, v] = layout(32).split();
        assert_eq!((q.len(), k.len(), v.len()), (4 * 64, 2 * 64, 2 * 64));
        let mut seen: Vec<usize> = [q, k, v.clone()].concat().into_iter().flatten().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..8 * 32).collect::<Vec<_>>());
        assert_eq!((v[0], v[31], v[32]), (Some(192), Some(223), None));
    }

    #[test]
    fn numbers_are_kept_or_converted() {
        let data = encode(&[1.0, 2.5, -3.0, 65504.0], DType::Fp16);
        let tensor = HostTensor { dtype: DType::Fp16, rows: 2, width: 2, data: &data };
        assert!(matches!(bytes_as(tensor, DType::Fp16), Cow::Borrowed(_)));
        let mut back = Vec::new();
        decode(&bytes_as(tensor, DType::Fp32), DType::Fp32, &mut back);
        assert_eq!(back, [1.0, 2.5, -3.0, 65504.0]);
        let picked = rows_as(tensor, &[Some(1), None], DType::Fp16);
        let mut back = Vec::new();
        decode(&picked, DType::Fp16, &mut back);
        assert_eq!(back, [-3.0, 65504.0, 0.0, 0.0]);
    }
}
