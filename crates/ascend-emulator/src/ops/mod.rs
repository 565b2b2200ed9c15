//! The operators: first stages check and estimate cost, kernels compute.

pub(crate) mod attention;
pub(crate) mod attention_layout;
pub(crate) mod attention_plan;
pub(crate) mod elementwise;
pub(crate) mod gemm;
pub(crate) mod indexing;
pub(crate) mod linear;
pub(crate) mod norm;
pub(crate) mod quant;
pub(crate) mod rotary;
pub(crate) mod rows;

use crate::half::round_to;
use crate::tensor::View;

/// Computation of a second stage, with the parameters that are not in the views.
#[derive(Debug, Clone, Default)]
pub(crate) enum Kernel {
    /// Nothing to do (empty tensors).
    #[default]
    Nothing,
    /// `out = alpha * a * b + beta * c`; views a, b, out, and c if there is one.
    Matmul(linear::Matmul),
    /// Static quantisation; views x, scale, offset, y.
    Quantise(quant::Quantise),
    /// Products of int8; views x1, x2, scale, per-token scale, bias, out.
    QuantMatmul(quant::QuantMatmul),
    /// Products with int8 weights; views x, weight, scale, bias, y.
    WeightQuant(quant::WeightQuant),
    /// Conversion from row-major to blocks, in place.
    ToBlocks,
    /// RMS norm.
    RmsNorm(norm::RmsNorm),
    /// Two operands, one result.
    Binary(elementwise::Binary),
    /// One operand, one result.
    Unary(elementwise::Unary),
    /// Rows of a table, or slices along a dimension.
    Gather(indexing::Gather),
    /// Slices written along a dimension.
    IndexCopy(indexing::IndexCopy),
    /// Keys and values written into a paged cache.
    ScatterKv(indexing::ScatterKv),
    /// Index of the largest element.
    ArgMax(norm::ArgMax),
    /// Softmax along a dimension.
    Softmax(norm::Softmax),
    /// Rotary embedding.
    Rotary(rotary::Rotary),
    /// Attention.
    Attention(attention::Attention),
}

impl Kernel {
    /// Whether CANN's plan for the kernel ends with a copy of a view onto itself.
    pub(crate) fn writes_back(&self) -> bool {
        matches!(self, Self::IndexCopy(kernel) if kernel.is_of_rows())
    }

    /// Runs the kernel. An error is a fault that the chip would detect while running, such as an index out of range.
    ///
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(&self, views: &[View]) -> Result<(), String> {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Nothing => {}
                Self::Matmul(kernel) => kernel.run(views),
                Self::Quantise(kernel) => kernel.run(views),
                Self::QuantMatmul(kernel) => kernel.run(views),
                Self::WeightQuant(kernel) => kernel.run(views),
                Self::ToBlocks => linear::to_blocks(&views[0]),
                Self::RmsNorm(kernel) => kernel.run(views),
                Self::Binary(kernel) => kernel.run(views),
                Self::Unary(kernel) => kernel.run(views),
                Self::Gather(kernel) => kernel.run(views)?,
                Self::IndexCopy(kernel) => kernel.run(views)?,
                Self::ScatterKv(kernel) => kernel.run(views)?,
                Self::ArgMax(kernel) => kernel.run(views),
                Self::Softmax(kernel) => kernel.run(views),
                Self::Rotary(kernel) => kernel.run(views),
                Self::Attention(kernel) => kernel.run(views)?,
            }
        }
        Ok(())
    }
}

/// Corrupts a result: every seventh element changes sign and grows.
///
/// # Safety
/// The view lies inside live memory.
pub(crate) unsafe fn corrupt(view: &View) {
    for index in (0..view.len()).step_by(7) {
        let mut rest = index as i64;
        let mut at = 0;
        for (dim, stride) in view.dims().iter().zip(view.strides()).rev() {
            at += rest % dim * stride;
            rest /= dim;
        }
        // SAFETY: an index of the view.
        unsafe {
            let x = crate::half::read_f64(view.dtype, view.at(at)) as f32;
            let spoiled = round_to(view.dtype, -2.0 * x - 1.0);
            crate::half::write_f64(view.dtype, f64::from(spoiled), view.at(at));
        }
    }
}

/// Declares operators: exports the first and second stage of each, given the function that plans it.
macro_rules! two_stage {
    ($($(#[$doc:meta])* $name:ident, $first:ident ($($arg:ident: $kind:ty),* $(,)?) = $plan:path;)*) => {
        $(
            $(#[$doc])*
            ///
            /// First stage.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $first(
                $($arg: $kind,)*
                workspace_size: *mut u64,
                executor: *mut $crate::executor::RawExecutor,
            ) -> i32 {
                $crate::executor::plan(stringify!($name), workspace_size, executor, |p| $plan(p, $($arg),*))
            }

            $(#[$doc])*
            ///
            /// Second stage.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name(
                workspace: *mut std::ffi::c_void,
                workspace_size: u64,
                executor: $crate::executor::RawExecutor,
                stream: $crate::stream::RawStream,
            ) -> i32 {
                $crate::executor::launch(stringify!($name), workspace, workspace_size, executor, stream)
            }
        )*
    };
}
pub(crate) use two_stage;
