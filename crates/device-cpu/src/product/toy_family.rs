//! The smallest example of a family with its own order of sums, for tests only. `docs/ADDING.md` points here.
//!
//! Even and odd inputs are summed apart, each in a chain of fused multiply-adds. The two sums are added at the end. The
//! reference computes one output at a time; the other kernels compute sixteen side by side.

use glmbench_device::{DType, DeviceError, HostTensor, LinearWeight};

use crate::buffer::{Buffer, SharedSlice};
use crate::elementwise::Finish;
use crate::pack::{PANEL, Rows, RowsMut, padded_vector};
use crate::packs::{Packed, Packs};
use crate::pool::Pool;
use crate::simd::{InstructionSet, Vectors};

use super::{Epilogue, PackedWeight, Scratch, WeightKernels};

/// Products of the family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToyKernels {
    pub(crate) set: InstructionSet,
    /// What computes all that is no product.
    pub(crate) vectors: Vectors,
}

impl WeightKernels for ToyKernels {
    fn name(&self) -> &'static str {
        self.set.name()
    }

    fn pack(
        &self,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        (packs, _): (&mut Packs, &mut Pool),
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let weight = weight.dense(crate::NAME)?;
        let (n, k, dtype) = (weight.rows, weight.width, self.vectors.dtype());
        let mut panels = packs.take(n.next_multiple_of(PANEL) * k, "weights")?;
        let mut row = vec![0.0; k];
        if let Some(panels) = panels.fresh() {
            for output in 0..n {
                weight.row_f32(output, &mut row);
                let panel = &mut panels[output / PANEL * PANEL * k..][..PANEL * k];
                for (to, number) in panel.iter_mut().skip(output % PANEL).step_by(PANEL).zip(&row) {
                    *to = dtype.round(*number);
                }
            }
        }
        packs.keep(&panels);
        let bias = bias.map(|bias| padded_vector(bias, dtype)).transpose()?;
        Ok(Box::new(ToyLinear { n, k, panels, bias, kernels: *self }))
    }

    fn bytes(&self, n: usize, k: usize, _group: usize) -> usize {
        n.next_multiple_of(PANEL) * k * DType::Fp32.bytes()
    }

    fn row_bytes(&self, _k: usize, _group: usize) -> Option<usize> {
        None
    }
}

/// A weight in panels of sixteen outputs: `[n / 16, k, 16]`.
#[derive(Debug)]
struct ToyLinear {
    n: usize,
    k: usize,
    panels: Packed<f32>,
    bias: Option<Buffer<f32>>,
    kernels: ToyKernels,
}

impl PackedWeight for ToyLinear {
    fn shape(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    fn ends_with_swiglu(&self) -> bool {
        false
    }

    fn multiply(
        &self,
        x: Rows<'_>,
        _epilogue: Epilogue,
        out: &mut RowsMut<'_>,
        _scratch: &mut Scratch,
        pool: &mut Pool,
    ) {
        let (k, stride) = (self.k, out.stride);
        let shared = SharedSlice::new(out.data);
        pool.split(self.n.div_ceil(PANEL), x.rows * self.n * k, &|panels| {
            for panel in panels {
                let columns = panel * PANEL..(panel + 1) * PANEL;
                let weights = self.panels[columns.start * k..columns.end * k].as_chunks::<PANEL>().0;
                let bias = self.bias.as_ref().map(|bias| &bias[columns.clone()]);
                for row in 0..x.rows {
                    let begin = row * stride + columns.start;
                    // SAFETY: the columns of a panel belong to one thread.
                    let sums = unsafe { shared.range(begin..begin + PANEL) };
                    let row = &x.data[row * x.stride..][..k];
                    let product =
                        if self.kernels.set == InstructionSet::Toy { side_by_side } else { one_by_one };
                    sums.copy_from_slice(&product(row, weights));
                    self.kernels.vectors.run(Finish { sums, bias });
                }
            }
        });
    }
}

/// The reference: plain Rust, one output at a time.
fn one_by_one(x: &[f32], weights: &[[f32; PANEL]]) -> [f32; PANEL] {
    std::array::from_fn(|output| {
        let (mut even, mut odd) = (0.0, 0.0);
        for (i, (x, w)) in x.iter().zip(weights).enumerate() {
            let sum = if i % 2 == 0 { &mut even } else { &mut odd };
            *sum = x.mul_add(w[output], *sum);
        }
        even + odd
    })
}

/// The same sums, sixteen outputs side by side.
fn side_by_side(x: &[f32], weights: &[[f32; PANEL]]) -> [f32; PANEL] {
    let mut sums = [[0.0f32; PANEL]; 2];
    for (i, (x, w)) in x.iter().zip(weights).enumerate() {
        for (sum, w) in sums[i % 2].iter_mut().zip(w) {
            *sum = x.mul_add(*w, *sum);
        }
    }
    std::array::from_fn(|output| sums[0][output] + sums[1][output])
}
