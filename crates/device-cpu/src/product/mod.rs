//! Products of activations with packed weights, one module per way to multiply. Floating-point weights are
//! multiplied by vectors ([`vector`]) or tiles ([`tiles`]). Int8 and int4 weights have int8 activations
//! ([`int8`], [`int4`]) or floating-point ones ([`weight_only`]).
//!
//! A way to multiply implements [`WeightKernels`]. The registry of the crate selects one for each form of weight.

mod gemm;
pub(crate) mod int4;
pub(crate) mod int8;
#[cfg(target_arch = "x86_64")]
mod narrow;
mod scratch;
pub(crate) mod tiles;
#[cfg(test)]
pub(crate) mod toy_family;
#[cfg(test)]
pub(crate) mod toy_form;
pub(crate) mod vector;
pub(crate) mod weight_only;

use std::fmt::Debug;

use glmbench_device::{DeviceError, HostTensor, LinearWeight};

use crate::pack::{Rows, RowsMut};
use crate::packs::Packs;
use crate::pool::Pool;

pub(crate) use self::gemm::{Gemm, Prefetch};
pub(crate) use self::scratch::Scratch;

/// A way to pack and multiply weights.
pub(crate) trait WeightKernels: Debug + Send + Sync {
    /// Returns the name for the record.
    fn name(&self) -> &'static str;

    /// Packs `weight` `[n, k]` with its bias. Each thread of the pool writes the parts that it will read. If `packs` has kept
    /// the parts, `weight` has no numbers, only its shape.
    ///
    /// # Errors
    /// Memory ran out, or the kernels do not support the shape.
    fn pack(
        &self,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        at: (&mut Packs, &mut Pool),
    ) -> Result<Box<dyn PackedWeight>, DeviceError>;

    /// Returns the size in bytes of a packed weight of `n` outputs and `k` inputs. `group` inputs share a scale.
    fn bytes(&self, n: usize, k: usize, group: usize) -> usize;

    /// Returns the workspace in bytes per row of `k` inputs ([`Scratch::reserve`]). `group` inputs share a scale.
    /// `None` if products need no workspace.
    fn row_bytes(&self, k: usize, group: usize) -> Option<usize>;
}

/// A packed weight, with the kernels that multiply it.
pub(crate) trait PackedWeight: Debug + Send + Sync {
    /// Returns output width and input width.
    fn shape(&self) -> (usize, usize);

    /// Returns whether [`Epilogue::SwiGlu`] is supported.
    fn ends_with_swiglu(&self) -> bool;

    /// Computes `out = epilogue(x * weight^T + bias)`. The workspace must have
    /// [`row_bytes`](WeightKernels::row_bytes) per row.
    fn multiply(
        &self,
        x: Rows<'_>,
        epilogue: Epilogue,
        out: &mut RowsMut<'_>,
        scratch: &mut Scratch,
        pool: &mut Pool,
    );
}

/// The last step of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Epilogue {
    /// `sum + bias`, rounded.
    Bias,
    /// As [`Self::Bias`], then `silu` of the first half of the columns times the second half, as in the SwiGLU
    /// operator. The halves are whole panels.
    SwiGlu,
}

impl Epilogue {
    /// Returns how many parts the weight has. Each output has one column in each part.
    pub(crate) fn halves(self) -> usize {
        match self {
            Self::Bias => 1,
            Self::SwiGlu => 2,
        }
    }
}
