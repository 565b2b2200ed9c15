//! Linear layers: weights laid out once, at load.

mod int8;

use std::borrow::Cow;
use std::ptr;

use ascend_sys::aclDataType;

use glmbench_device::{DeviceError, HostTensor, LinearWeight};

use super::adder;
use super::api::acl;
use super::choice::{Bias, Choices, WeightFormat};
use super::core::Core;
use super::layout::{HeadLayout, bytes_as, rows_as};
use super::memory::Buffer;
use super::ops;
use super::tensor::{IntArray, Operand, View};
use super::widener::{FOLDED, widen, with_column};

use self::int8::Int8Matrix;

/// A weight `[n, k]` with its bias.
pub(super) enum Matrix {
    /// In the device's type.
    Dense(Dense),
    /// In int8.
    Int8(Int8Matrix),
}

impl Matrix {
    /// Uploads the selected rows of a weight and its bias, or all rows if `rows` is `None`.
    ///
    /// # Errors
    /// Memory ran out, or the card has no operator for the weight's form.
    pub(super) fn upload(
        core: &Core,
        choices: Choices,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        rows: Option<&[Option<usize>]>,
    ) -> Result<Self, DeviceError> {
        match weight {
            LinearWeight::Dense(dense) => Dense::upload(core, choices, dense, bias, rows).map(Self::Dense),
            other => Int8Matrix::upload(core, choices, other, bias, rows).map(Self::Int8),
        }
    }

    /// Returns the number of outputs.
    pub(super) fn n(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.n,
            Self::Int8(int8) => int8.n,
        }
    }

    /// Returns the number of inputs.
    pub(super) fn k(&self) -> usize {
        match self {
            Self::Dense(dense) => dense.k,
            Self::Int8(int8) => int8.k,
        }
    }

    /// Computes `out = x * weight^T + bias` for `rows` rows.
    pub(super) fn apply(
        &self,
        core: &Core,
        x: Operand,
        out: Operand,
        rows: usize,
    ) -> Result<(), DeviceError> {
        let x = self.input(core, x, rows)?;
        self.product(core, x, out, rows)
    }

    /// Prepares the rows for [`Matrix::product`].
    pub(super) fn input(&self, core: &Core, x: Operand, rows: usize) -> Result<Operand, DeviceError> {
        match self {
            Self::Dense(dense) => dense.input(core, x, rows),
            Self::Int8(int8) => int8.input(core, x, rows),
        }
    }

    /// Like [`Matrix::apply`], for rows from [`Matrix::input`]. They may come from another part of the same layer.
    pub(super) fn product(
        &self,
        core: &Core,
        x: Operand,
        out: Operand,
        rows: usize,
    ) -> Result<(), DeviceError> {
        match self {
            Self::Dense(dense) => dense.product(core, x, out, rows),
            Self::Int8(int8) => int8.product(core, x, out, rows),
        }
    }
}

/// A weight in the device's type.
pub(super) struct Dense {
    weight: Buffer,
    /// The bias, unless it is a column of the weight.
    bias: Option<Buffer>,
    n: usize,
    k: usize,
    /// Elements of a stored row. More than `k` if the bias is a column.
    width: usize,
    format: WeightFormat,
    how: Bias,
}

impl Dense {
    /// See [`Matrix::upload`].
    fn upload(
        core: &Core,
        choices: Choices,
        weight: HostTensor<'_>,
        bias: Option<HostTensor<'_>>,
        rows: Option<&[Option<usize>]>,
    ) -> Result<Self, DeviceError> {
        let (n, k) = (rows.map_or(weight.rows, <[_]>::len), weight.width);
        let picked = |tensor| match rows {
            None => bytes_as(tensor, core.dtype),
            Some(rows) => Cow::Owned(rows_as(tensor, rows, core.dtype)),
        };
        // The bias is a column vector: one element per row of the weight.
        let bias = bias.map(|bias| picked(HostTensor { rows: bias.width, width: 1, ..bias }));
        let (format, how) = (choices.weights, choices.bias);
        let (folded, apart) = if how == Bias::Folded { (bias, None) } else { (None, bias) };
        let width = if folded.is_some() { k + FOLDED } else { k };
        let fractal = format != WeightFormat::Plain;
        let numbers = if fractal { fractal_numbers(core, n, width, core.code())? } else { n * width };
        let buffer = core.slab.take(numbers * core.dtype.bytes(), "weights")?;
        if !core.timing_only {
            let bytes = picked(weight);
            match folded {
                None => buffer.write(0, &bytes)?,
                Some(bias) => buffer.write(0, &with_column(&bytes, &bias, n, core.dtype.bytes()))?,
            }
        }
        let bias = apart.map(|bytes| core.slab.put(&bytes, "a bias")).transpose()?;
        let matrix = Self { weight: buffer, bias, n, k, width, format, how };
        if fractal {
            core.run(ops::to_fractals(core.api(), matrix.stored(core)))?;
            core.stream.synchronize()?;
        }
        Ok(matrix)
    }

    /// Returns the weight `[n, k]` as uploaded, including the bias if that is a column.
    fn stored(&self, core: &Core) -> View {
        View::new(self.weight.at(0), core.element(), &[self.n, self.width])
    }

    /// Returns the weight as `[k, n]`, as products require it.
    fn right(&self, core: &Core) -> View {
        let seen = self.stored(core).transposed();
        if self.format == WeightFormat::Plain { seen } else { seen.in_fractals() }
    }

    /// See [`Matrix::input`].
    fn input(&self, core: &Core, x: Operand, rows: usize) -> Result<Operand, DeviceError> {
        if self.width == self.k { Ok(x) } else { widen(core, x, rows, self.k) }
    }

    /// See [`Matrix::product`].
    fn product(&self, core: &Core, x: Operand, out: Operand, rows: usize) -> Result<(), DeviceError> {
        let ids = [x.id, self.weight.id, out.id, rows as u64];
        let bias = self.bias.as_ref().map(|bias| View::new(bias.at(0), core.element(), &[self.n]));
        match (self.how, bias) {
            (Bias::Addmm, Some(bias)) => core
                .run_cached(("addmm", ids), |api| ops::addmm(api, bias, x.view, self.right(core), out.view)),
            (_, bias) => {
                core.run_cached(("matmul", ids), |api| match self.format {
                    WeightFormat::FractalOperator => ops::matmul_nz(api, x.view, self.right(core), out.view),
                    WeightFormat::FractalMm => ops::mm(api, x.view, self.right(core), out.view),
                    WeightFormat::Fractal | WeightFormat::Plain => {
                        ops::matmul(api, x.view, self.right(core), out.view)
                    }
                })?;
                let Some(bias) = bias else { return Ok(()) };
                adder::add(core, Some(("bias", ids)), out.view, bias)
            }
        }
    }
}

/// Returns the elements of a type that a weight occupies in fractals.
fn fractal_numbers(core: &Core, n: usize, k: usize, dtype: aclDataType) -> Result<usize, DeviceError> {
    let api = core.api();
    let shape = IntArray::new(api, &[n as i64, k as i64])?;
    let mut numbers = 0u64;
    // SAFETY: a live array and a place for the result.
    unsafe {
        acl!(
            api,
            api.libraries.nn,
            aclnnCalculateMatmulWeightSizeV2(shape.handle, dtype, ptr::from_mut(&mut numbers))
        )
    }?;
    Ok((numbers as usize).max(n * k))
}

/// A linear layer. The fused layer of queries, keys and values has three parts.
pub struct Linear(pub(super) Weights);

pub(super) enum Weights {
    Plain(Matrix),
    /// Gate and up, each padded with zero rows to `half` rows.
    GateUp(Matrix),
    Qkv(Box<[Matrix; 3]>),
}

impl Linear {
    /// Uploads the fused `[q | k | v]` in three parts, with heads in the device's layout.
    pub(super) fn qkv(
        core: &Core,
        choices: Choices,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        layout: &HeadLayout,
    ) -> Result<Self, DeviceError> {
        let [q, k, v] = layout.split();
        let part = |rows: &[Option<usize>]| Matrix::upload(core, choices, weight, bias, Some(rows));
        Ok(Self(Weights::Qkv(Box::new([part(&q)?, part(&k)?, part(&v)?]))))
    }

    /// Uploads `[gate | up]`, each half padded with zero rows to `half` rows.
    pub(super) fn gate_up(
        core: &Core,
        choices: Choices,
        weight: LinearWeight<'_>,
        half: usize,
    ) -> Result<Self, DeviceError> {
        let ffn = weight.rows() / 2;
        if half == ffn {
            return Ok(Self(Weights::GateUp(Matrix::upload(core, choices, weight, None, None)?)));
        }
        let part = |begin: usize| (0..half).map(move |row| (row < ffn).then_some(begin + row));
        let rows: Vec<Option<usize>> = part(0).chain(part(ffn)).collect();
        Ok(Self(Weights::GateUp(Matrix::upload(core, choices, weight, None, Some(&rows))?)))
    }
}
