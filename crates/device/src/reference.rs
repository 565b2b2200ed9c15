//! The reference device: ChatGLM2's operators in fp32, in plain loops that read like the paper.
//!
//! No blocking, no vectors, no threads. Every other device is tested against this one.

mod linear;

use std::sync::Arc;

use super::group::{Communicator, DeviceGroup, HostSum};
use super::rotary::RotaryTable;
use super::{
    AttentionShape, DType, Device, DeviceError, DeviceInfo, DeviceKind, HostTensor, KV_BLOCK_TOKENS,
    KvChannels, KvShape, LinearWeight, Role, SequenceView,
};

pub use self::linear::Linear;

/// The device's name.
const NAME: &str = DeviceKind::Reference.name();

/// The reference device. Its only state is its handle in a tensor-parallel group, if it is in one.
#[derive(Debug, Default)]
pub struct Reference {
    communicator: Option<Communicator>,
}

/// A group of reference devices.
#[derive(Debug)]
pub struct ReferenceGroup {
    tp: usize,
    sum: Arc<HostSum>,
}

impl ReferenceGroup {
    /// Creates a group of `tp` ranks.
    pub fn new(tp: usize) -> Self {
        Self { tp, sum: HostSum::new(NAME, tp) }
    }
}

impl DeviceGroup for ReferenceGroup {
    type Device = Reference;

    fn name(&self) -> &'static str {
        NAME
    }

    fn tp(&self) -> usize {
        self.tp
    }

    fn device(&self, rank: usize) -> Result<Reference, DeviceError> {
        Ok(Reference { communicator: Some(self.sum.communicator(rank)) })
    }

    fn abort(&self) {
        self.sum.abort();
    }
}

/// A matrix `[rows, width]`, row-major.
#[derive(Debug)]
pub struct Matrix {
    width: usize,
    data: Vec<f32>,
}

impl Matrix {
    fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.data.chunks_exact(self.width)
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..(i + 1) * self.width]
    }

    fn row_mut(&mut self, i: usize) -> &mut [f32] {
        &mut self.data[i * self.width..(i + 1) * self.width]
    }

    fn len(&self) -> usize {
        self.data.len() / self.width
    }

    fn set_len(&mut self, rows: usize) {
        self.data.resize(rows * self.width, 0.0);
    }
}

/// Keys and values, each `[layers, blocks, 128, kv_heads, channels]`.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// How keys and values are rounded, if they are integers.
    channels: Option<KvChannels>,
}

impl KvCache {
    /// Rounds the keys and values of one head in place, as far as the cache does.
    fn round(&mut self, layer: usize, at: usize, head: usize) {
        let Some(channels) = &self.channels else { return };
        let of_layer = &channels.layers()[layer];
        let width = self.shape.channels;
        let of_head = head * width..(head + 1) * width;
        for (numbers, channels) in [(&mut self.keys, &of_layer.keys), (&mut self.values, &of_layer.values)] {
            for (x, channel) in numbers[at..at + width].iter_mut().zip(&channels[of_head.clone()]) {
                *x = channel.number(channel.quantise(*x));
            }
        }
    }

    /// Returns the offset of the channels of one head at one slot.
    fn at(&self, layer: usize, (block, place): (usize, usize), head: usize) -> usize {
        let token = (layer * self.shape.blocks + block) * KV_BLOCK_TOKENS + place;
        (token * self.shape.kv_heads + head) * self.shape.channels
    }
}

impl Device for Reference {
    type Activation = Matrix;
    type Linear = Linear;
    type Vector = Vec<f32>;
    type Table = Matrix;
    type Rotary = RotaryTable;
    type KvCache = KvCache;

    fn info(&self) -> DeviceInfo {
        DeviceInfo::plain(NAME, "plain", 1, DType::Fp32)
    }

    fn activation(&self, max_rows: usize, width: usize) -> Result<Matrix, DeviceError> {
        Ok(Matrix { width, data: Vec::with_capacity(max_rows * width) })
    }

    fn upload_linear(
        &self,
        _role: Role,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Result<Linear, DeviceError> {
        Ok(Linear::new(weight, bias))
    }

    fn upload_vector(&self, values: HostTensor<'_>) -> Result<Vec<f32>, DeviceError> {
        Ok(values.to_f32())
    }

    fn upload_table(&self, table: HostTensor<'_>) -> Result<Matrix, DeviceError> {
        Ok(Matrix { width: table.width, data: table.to_f32() })
    }

    fn upload_rotary(&self, table: &RotaryTable) -> Result<RotaryTable, DeviceError> {
        Ok(table.clone())
    }

    fn kv_cache(&self, shape: KvShape) -> Result<KvCache, DeviceError> {
        let len = shape.layers * shape.blocks * KV_BLOCK_TOKENS * shape.kv_heads * shape.channels;
        Ok(KvCache { shape, keys: vec![0.0; len], values: vec![0.0; len], channels: None })
    }

    fn kv_cache_of_channels(&self, shape: KvShape, channels: &KvChannels) -> Result<KvCache, DeviceError> {
        channels.check(NAME, shape)?;
        Ok(KvCache { channels: Some(channels.clone()), ..self.kv_cache(shape)? })
    }

    fn embed(&mut self, table: &Matrix, ids: &[u32], out: &mut Matrix) -> Result<(), DeviceError> {
        out.set_len(ids.len());
        for (i, &id) in ids.iter().enumerate() {
            out.row_mut(i).copy_from_slice(table.row(id as usize));
        }
        Ok(())
    }

    fn rms_norm(
        &mut self,
        x: &Matrix,
        weight: &Vec<f32>,
        epsilon: f32,
        out: &mut Matrix,
    ) -> Result<(), DeviceError> {
        out.set_len(x.len());
        for (i, row) in x.rows().enumerate() {
            let mean_square = row.iter().map(|v| v * v).sum::<f32>() / row.len() as f32;
            let scale = 1.0 / (mean_square + epsilon).sqrt();
            for ((o, v), w) in out.row_mut(i).iter_mut().zip(row).zip(weight) {
                *o = v * scale * w;
            }
        }
        Ok(())
    }

    fn linear(&mut self, x: &Matrix, linear: &Linear, out: &mut Matrix) -> Result<(), DeviceError> {
        out.set_len(x.len());
        for (i, row) in x.rows().enumerate() {
            out.row_mut(i).copy_from_slice(&linear.row(row, DType::Fp32));
        }
        Ok(())
    }

    fn rotary(
        &mut self,
        qkv: &mut Matrix,
        table: &RotaryTable,
        positions: &[u32],
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        for (i, &position) in positions.iter().enumerate() {
            for head in qkv.row_mut(i).chunks_exact_mut(shape.channels).take(shape.heads + shape.kv_heads) {
                for pair in 0..table.pairs {
                    let at = position as usize * table.pairs + pair;
                    let (cos, sin) = (table.cos[at], table.sin[at]);
                    let (a, b) = (head[2 * pair], head[2 * pair + 1]);
                    head[2 * pair] = a * cos - b * sin;
                    head[2 * pair + 1] = b * cos + a * sin;
                }
            }
        }
        Ok(())
    }

    fn write_kv(
        &mut self,
        qkv: &Matrix,
        cache: &mut KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        for sequence in sequences {
            for (i, row) in sequence.rows.clone().enumerate() {
                let slot = sequence.slot(sequence.visible(i) - 1);
                let heads: Vec<&[f32]> =
                    qkv.row(row).chunks_exact(shape.channels).skip(shape.heads).collect();
                let (keys, values) = heads.split_at(shape.kv_heads);
                for head in 0..shape.kv_heads {
                    let at = cache.at(layer, slot, head);
                    cache.keys[at..at + shape.channels].copy_from_slice(keys[head]);
                    cache.values[at..at + shape.channels].copy_from_slice(values[head]);
                    cache.round(layer, at, head);
                }
            }
        }
        Ok(())
    }

    fn copy_kv_block(
        &mut self,
        cache: &mut KvCache,
        from: u32,
        to: u32,
        tokens: usize,
    ) -> Result<(), DeviceError> {
        let numbers = tokens * cache.shape.kv_heads * cache.shape.channels;
        for layer in 0..cache.shape.layers {
            let [from, to] = [from, to].map(|block| cache.at(layer, (block as usize, 0), 0));
            cache.keys.copy_within(from..from + numbers, to);
            cache.values.copy_within(from..from + numbers, to);
        }
        Ok(())
    }

    fn attention(
        &mut self,
        qkv: &Matrix,
        cache: &KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
        out: &mut Matrix,
    ) -> Result<(), DeviceError> {
        out.set_len(qkv.len());
        let scale = 1.0 / (shape.channels as f32).sqrt();
        for sequence in sequences {
            for (i, row) in sequence.rows.clone().enumerate() {
                for head in 0..shape.heads {
                    let kv_head = head / (shape.heads / shape.kv_heads);
                    let channels = head * shape.channels..(head + 1) * shape.channels;
                    let query = &qkv.row(row)[channels.clone()];
                    let places: Vec<usize> = (0..sequence.visible(i))
                        .map(|t| cache.at(layer, sequence.slot(t), kv_head))
                        .collect();
                    let scores: Vec<f32> = places
                        .iter()
                        .map(|&at| dot(query, &cache.keys[at..at + shape.channels]) * scale)
                        .collect();
                    let weights = softmax(&scores);
                    let result = &mut out.row_mut(row)[channels];
                    result.fill(0.0);
                    for (&at, weight) in places.iter().zip(weights) {
                        for (o, v) in result.iter_mut().zip(&cache.values[at..at + shape.channels]) {
                            *o += weight * v;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, x: &mut Matrix, y: &Matrix) -> Result<(), DeviceError> {
        for (a, b) in x.data.iter_mut().zip(&y.data) {
            *a += b;
        }
        Ok(())
    }

    fn swiglu(&mut self, h: &Matrix, out: &mut Matrix) -> Result<(), DeviceError> {
        out.set_len(h.len());
        for (i, row) in h.rows().enumerate() {
            let (gate, up) = row.split_at(row.len() / 2);
            for ((o, g), u) in out.row_mut(i).iter_mut().zip(gate).zip(up) {
                *o = g / (1.0 + (-g).exp()) * u;
            }
        }
        Ok(())
    }

    fn gather(&mut self, x: &Matrix, rows: &[usize], out: &mut Matrix) -> Result<(), DeviceError> {
        out.set_len(rows.len());
        for (i, &row) in rows.iter().enumerate() {
            out.row_mut(i).copy_from_slice(x.row(row));
        }
        Ok(())
    }

    fn all_reduce(&mut self, x: &mut Matrix) -> Result<(), DeviceError> {
        let Some(communicator) = &mut self.communicator else { return Ok(()) };
        let parts = communicator.exchange(&x.data)?;
        for (i, sum) in x.data.iter_mut().enumerate() {
            *sum = (0..parts.tp()).map(|rank| parts.of(rank)[i]).sum();
        }
        Ok(())
    }

    fn download(&mut self, x: &Matrix, out: &mut Vec<f32>) -> Result<(), DeviceError> {
        out.clear();
        out.extend_from_slice(&x.data);
        Ok(())
    }

    fn upload(&mut self, rows: &[f32], out: &mut Matrix) -> Result<(), DeviceError> {
        out.data.clear();
        out.data.extend_from_slice(rows);
        Ok(())
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn softmax(scores: &[f32]) -> Vec<f32> {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exps: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f32 = exps.iter().sum();
    exps.into_iter().map(|e| e / sum).collect()
}
