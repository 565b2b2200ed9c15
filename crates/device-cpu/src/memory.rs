//! The memory needs of a CPU device, computed before it is allocated, by the code that allocates it.

use glmbench_device::{Precision, WeightForm};

use crate::InstructionSet;
use crate::attention::KvCache;
use crate::kernels::Kernels;
use crate::pack::row_stride;
use crate::product::{Scratch, WeightKernels};

/// The properties of a CPU device that determine its memory. The workspace of attention is not included: some hundred
/// KiB per thread, and 65 bytes per thread for each token of the longest context.
#[derive(Debug, Clone, Copy)]
pub struct CpuMemory {
    precision: Precision,
    set: InstructionSet,
    threads: usize,
}

impl CpuMemory {
    /// Describes a device. `None`, or a set that this machine does not have, selects the machine's best kernels.
    pub fn new(precision: Precision, set: Option<InstructionSet>, threads: usize) -> Self {
        let best = || InstructionSet::best_for(precision.dtype);
        let set = set.filter(|set| set.available()).unwrap_or_else(best);
        Self { precision, set, threads }
    }

    fn kernels(&self) -> Kernels {
        Kernels::detect(self.set, self.precision.dtype)
            .expect("invariant: a set that is available has kernels")
    }

    /// Returns the kernels that multiply the weights of linear layers.
    fn products(&self) -> Box<dyn WeightKernels> {
        let kernels = self.kernels().weights(self.precision.weights.form());
        kernels.expect("invariant: every type has kernels for its weights")
    }

    /// Returns the largest share of one of `tp` ranks, which share the threads.
    #[must_use]
    pub fn of_rank(self, tp: usize) -> Self {
        Self { threads: self.threads.div_ceil(tp), ..self }
    }

    /// Returns the same device with the weights of linear layers in the type of the activations.
    #[must_use]
    pub fn with_float_weights(self) -> Self {
        Self { precision: Precision { weights: WeightForm::Plain, ..self.precision }, ..self }
    }

    /// Returns the types.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Returns the size in bytes of the weight `[n, k]` of a linear layer.
    pub fn linear_bytes(&self, n: usize, k: usize) -> u64 {
        self.grouped_linear_bytes(n, k, self.precision.storage().group(k))
    }

    /// Does the same for a weight of a checkpoint: `group` inputs share a scale.
    pub fn grouped_linear_bytes(&self, n: usize, k: usize, group: usize) -> u64 {
        self.products().bytes(n, k, group) as u64
    }

    /// Returns the size in bytes of the workspace for products, if the widest of their inputs has `k` numbers.
    pub fn product_bytes(&self, k: usize) -> u64 {
        let row_bytes = self.products().row_bytes(k, self.precision.storage().group(k));
        row_bytes.map_or(0, |row_bytes| Scratch::bytes(row_bytes, self.threads) as u64)
    }

    /// Returns the size in bytes of a KV cache block of one layer and head with `channels` channels.
    pub fn kv_block_bytes(&self, channels: usize) -> u64 {
        let kernels = self.kernels().cache(self.precision.kv);
        KvCache::block_bytes(channels, self.precision, &kernels) as u64
    }

    /// Returns the size in bytes of a row of activations.
    pub fn row_bytes(&self, width: usize) -> u64 {
        (row_stride(width) * size_of::<f32>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::taken_bytes;
    use crate::pack::PANEL;
    use crate::{Cpu, CpuOptions};
    use glmbench_device::{
        AttentionShape, Device, HostTensor, KvChannel, KvChannels, KvForm, KvLayerChannels, KvShape, Role,
    };

    /// For all kernels and types.
    #[test]
    fn what_is_said_is_what_is_taken() {
        let forms = Precision::TYPES.into_iter();
        let forms = forms.flat_map(|form| KvForm::ALL.map(|kv| Precision { kv, ..form }));
        for precision in forms {
            for set in InstructionSet::ALL.into_iter().filter(|set| set.available()) {
                for threads in [1, 3] {
                    holds(precision, set, threads);
                }
            }
        }
    }

    fn holds(precision: Precision, set: InstructionSet, threads: usize) {
        let what = format!("{precision} by {} on {threads}", set.name());
        let memory = CpuMemory::new(precision, Some(set), threads);
        let attention = AttentionShape { heads: 2, kv_heads: 1, channels: 40 };
        let options = CpuOptions {
            threads,
            instruction_set: Some(set),
            ..CpuOptions::plain(precision, 300, attention)
        };
        let cpu = Cpu::new(options).unwrap();

        let before = taken_bytes();
        let row = cpu.activation(7, 70).unwrap();
        assert_eq!(
            taken_bytes() - before,
            7 * memory.row_bytes(70) + (PANEL * size_of::<f32>()) as u64,
            "{what}"
        );
        drop(row);

        // The widest comes first, because growing the workspace frees the old one.
        let before = taken_bytes();
        let weights = [(33, 2100), (90, 70)].map(|(rows, width)| {
            let data = vec![0; rows * width * precision.dtype.bytes()];
            let host = HostTensor { dtype: precision.dtype, rows, width, data: &data };
            cpu.upload_linear(Role::Down, precision.weights.of_dense(host), None).unwrap()
        });
        let told = memory.linear_bytes(33, 2100) + memory.linear_bytes(90, 70) + memory.product_bytes(2100);
        assert_eq!(taken_bytes() - before, told, "{what}");
        drop(weights);

        let before = taken_bytes();
        let shape = KvShape { layers: 2, kv_heads: 3, channels: 40, blocks: 5 };
        if precision.kv == KvForm::C8 {
            let all = vec![KvChannel { scale: 1.0, offset: 0.0 }; 3 * 40];
            let layer = KvLayerChannels { keys: all.clone(), values: all };
            cpu.kv_cache_of_channels(shape, &KvChannels::new(vec![layer; 2], 3 * 40).unwrap()).unwrap();
        } else {
            cpu.kv_cache(shape).unwrap();
        }
        let told = 2 * 3 * 5 * memory.kv_block_bytes(40);
        // The integers of one token may be added to this: they are needed while it is written. The scales and offsets
        // of a checkpoint's channels may be added, too, in whole panels.
        let channels = if precision.kv == KvForm::C8 { 2 * 3 * 48 * 4 * 4 } else { 0 };
        let token = 3 * 40 + channels;
        assert!((told..=told + token).contains(&(taken_bytes() - before)), "{what}");
    }
}
