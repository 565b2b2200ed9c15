//! Reads and writes by index: embedding, gather, slice, index copy, the paged cache.

use crate::clock::Cost;
use crate::executor::{Plan, Planned};
use crate::half::{DType, read_index};
use crate::ops::Kernel;
use crate::ops::elementwise::copy;
use crate::ops::rows::{dimension, for_each_row};
use crate::ops::two_stage;
use crate::status::Outcome;
use crate::tensor::{RawIntArray, RawTensor, View};

use std::collections::HashSet;
use std::ffi::{CStr, c_char};

/// `out[.., i.., ..] = self[.., index[i..], ..]`. Views: self, index, out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gather {
    dim: usize,
}

/// Returns the indices in a view, in row-major order.
///
/// # Safety
/// The view lies inside live memory.
unsafe fn indices(view: &View) -> Vec<i64> {
    let mut out = Vec::with_capacity(view.len());
    for_each_row(view.dims(), [view.strides()], |[at]| {
        // SAFETY: the caller's promise.
        out.push(unsafe { read_index(view.dtype, view.at(at)) });
    });
    out
}

/// Returns `view` at `index` along `dim`, without that dimension.
fn pick(view: &View, dim: usize, index: i64) -> View {
    let (mut dims, mut strides) = (view.dims().to_vec(), view.strides().to_vec());
    dims.remove(dim);
    let stride = strides.remove(dim);
    let mut picked = view.with_shape(&dims, &strides);
    picked.offset += index * stride;
    picked
}

impl Gather {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) -> Result<(), String> {
        let [table, index, out] = views else { return Ok(()) };
        let size = table.dims()[self.dim];
        // The dimensions of the index replace `dim`. The output is contiguous.
        let count = index.len() as i64;
        let mut dims = table.dims().to_vec();
        dims[self.dim] = count;
        let mut strides = vec![0; dims.len()];
        let mut step = 1;
        for (stride, dim) in strides.iter_mut().zip(&dims).rev() {
            *stride = step;
            step *= dim;
        }
        let flat = out.with_shape(&dims, &strides);
        // SAFETY: the caller's promise.
        for (i, index) in unsafe { indices(index) }.into_iter().enumerate() {
            let from = if index < 0 { index + size } else { index };
            if !(0..size).contains(&from) {
                return Err(format!("index {index} is out of range, there are {size}"));
            }
            // SAFETY: the caller's promise.
            unsafe { copy(&pick(table, self.dim, from), &pick(&flat, self.dim, i as i64)) };
        }
        Ok(())
    }
}

/// `self[.., index[i], ..] = source[.., i, ..]`. Views: self, index, source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IndexCopy {
    dim: usize,
}

impl IndexCopy {
    /// Whether it copies along the first dimension. CANN implements that case by ScatterUpdate.
    pub(crate) fn is_of_rows(self) -> bool {
        self.dim == 0
    }

    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) -> Result<(), String> {
        let [target, index, source] = views else { return Ok(()) };
        let size = target.dims()[self.dim];
        // SAFETY: the caller's promise.
        for (i, index) in unsafe { indices(index) }.into_iter().enumerate() {
            if !(0..size).contains(&index) {
                return Err(format!("index {index} is out of range, there are {size}"));
            }
            // SAFETY: the caller's promise.
            unsafe { copy(&pick(source, self.dim, i as i64), &pick(target, self.dim, index)) };
        }
        Ok(())
    }
}

/// Writes keys and values of tokens to slots of a paged cache `[blocks, block size, heads, channels]`. The operator's
/// page requires distinct, non-negative slots. Views: key, key cache, slots, value, value cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScatterKv;

impl ScatterKv {
    /// # Safety
    /// Every view lies inside live memory.
    pub(crate) unsafe fn run(self, views: &[View]) -> Result<(), String> {
        let [key, key_cache, slots, value, value_cache, ..] = views else { return Ok(()) };
        let (blocks, size) = (key_cache.dims()[0], key_cache.dims()[1]);
        let mut written = HashSet::new();
        // SAFETY: the caller's promise.
        for (token, slot) in unsafe { indices(slots) }.into_iter().enumerate() {
            if !(0..blocks * size).contains(&slot) {
                return Err(format!("slot {slot} is out of range, there are {}", blocks * size));
            }
            if !written.insert(slot) {
                return Err(format!("slot {slot} of token {token} came before"));
            }
            for (from, cache) in [(key, key_cache), (value, value_cache)] {
                let place = pick(&pick(cache, 0, slot / size), 0, slot % size);
                // SAFETY: the caller's promise.
                unsafe { copy(&pick(from, 0, token as i64), &place) };
            }
        }
        Ok(())
    }
}

two_stage! {
    /// Looks up rows of a table.
    aclnnEmbedding, aclnnEmbeddingGetWorkspaceSize(weight: RawTensor, indices: RawTensor, out: RawTensor) = embedding;
    /// Gathers slices along a dimension.
    aclnnGatherV2, aclnnGatherV2GetWorkspaceSize(table: RawTensor, dim: i64, index: RawTensor, out: RawTensor) = gather;
    /// Takes a slice from `start` to `end` with a step.
    aclnnSlice, aclnnSliceGetWorkspaceSize(x: RawTensor, dim: i64, start: i64, end: i64, step: i64, out: RawTensor) = slice;
    /// `self[index[i]] = source[i]` along a dimension.
    aclnnInplaceIndexCopy, aclnnInplaceIndexCopyGetWorkspaceSize(target: RawTensor, dim: i64, index: RawTensor, source: RawTensor) = index_copy;
    /// Writes keys and values into a paged cache.
    aclnnScatterPaKvCache, aclnnScatterPaKvCacheGetWorkspaceSize(
        key: RawTensor, key_cache: RawTensor, slots: RawTensor, value: RawTensor, value_cache: RawTensor,
        compress_lens: RawTensor, compress_seq_offset: RawTensor, seq_lens: RawTensor,
        cache_mode: *mut c_char, scatter_mode: *mut c_char, strides: RawIntArray, offsets: RawIntArray,
    ) = scatter;
}

const INDEX: &[DType] = &[DType::Int32, DType::Int64];

fn embedding(p: &mut Plan<'_>, weight: RawTensor, index: RawTensor, out: RawTensor) -> Outcome<Planned> {
    let (weight, index) = (p.input(weight, "weight")?, p.input(index, "indices")?);
    let out = p.output(out, "out")?;
    p.require(weight.rank() == 2, || {
        format!("weight has shape {}, expected two dimensions", weight.shape())
    })?;
    gathered(p, &weight, "weight", 0, &index, &out)
}

fn gather(
    p: &mut Plan<'_>,
    table: RawTensor,
    dim: i64,
    index: RawTensor,
    out: RawTensor,
) -> Outcome<Planned> {
    let (table, index) = (p.input(table, "self")?, p.input(index, "index")?);
    let out = p.output(out, "out")?;
    let found = dimension(dim, table.rank());
    p.require(found.is_some(), || format!("dim is {dim}, self has shape {}", table.shape()))?;
    gathered(p, &table, "self", found.unwrap_or(0), &index, &out)
}

fn gathered(
    p: &Plan<'_>,
    table: &View,
    name: &str,
    dim: usize,
    index: &View,
    out: &View,
) -> Outcome<Planned> {
    let types =
        [DType::Float16, DType::Float, DType::Bf16, DType::Int32, DType::Int64, DType::Int8, DType::Uint8];
    p.dtype(table, name, &types)?;
    p.dtype(index, "indices", INDEX)?;
    p.same_dtype((table, name), (out, "out"))?;
    let mut expected = table.dims()[..dim].to_vec();
    expected.extend(index.dims());
    expected.extend(&table.dims()[dim + 1..]);
    p.require(expected.len() <= crate::tensor::MAX_DIMS, || "out would have too many dimensions".to_owned())?;
    p.shape(out, "out", &expected)?;
    p.contiguous(out, "out")?;
    let cost = Cost { bytes: 2.0 * out.bytes() + index.bytes(), ..Cost::default() };
    let kernel = if out.is_empty() { Kernel::Nothing } else { Kernel::Gather(Gather { dim }) };
    Ok(Planned { kernel, cost, workspace: 0 })
}

fn slice(
    p: &mut Plan<'_>,
    x: RawTensor,
    dim: i64,
    start: i64,
    end: i64,
    step: i64,
    out: RawTensor,
) -> Outcome<Planned> {
    if p.is_310p() && p.by_the_book() {
        return p.no_kernel();
    }
    let (x, out) = (p.input(x, "self")?, p.output(out, "out")?);
    let found = dimension(dim, x.rank());
    p.require(found.is_some(), || format!("dim is {dim}, self has shape {}", x.shape()))?;
    p.require(step > 0, || format!("step is {step}, expected at least 1"))?;
    p.same_dtype((&x, "self"), (&out, "out"))?;
    p.dtype(
        &x,
        "self",
        &[DType::Float16, DType::Float, DType::Bf16, DType::Int32, DType::Int64, DType::Int8],
    )?;
    let dim = found.unwrap_or(0);
    let size = x.dims()[dim];
    let clamp = |i: i64| if i < 0 { (i + size).max(0) } else { i.min(size) };
    let (start, end) = (clamp(start), clamp(end));
    let mut dims = x.dims().to_vec();
    dims[dim] = ((end - start).max(0) + step - 1) / step;
    p.shape(&out, "out", &dims)?;
    let mut strides = x.strides().to_vec();
    let offset = start * strides[dim];
    strides[dim] *= step;
    let mut cut = x.with_shape(&dims, &strides);
    cut.offset += if out.is_empty() { 0 } else { offset };
    p.reshape(0, &cut);
    let cost = Cost { bytes: 2.0 * out.bytes(), ..Cost::default() };
    let kernel =
        if out.is_empty() { Kernel::Nothing } else { Kernel::Unary(crate::ops::elementwise::Unary::Cast) };
    Ok(Planned { kernel, cost, workspace: 0 })
}

fn index_copy(
    p: &mut Plan<'_>,
    target: RawTensor,
    dim: i64,
    index: RawTensor,
    source: RawTensor,
) -> Outcome<Planned> {
    if p.is_310p() && p.by_the_book() {
        return p.no_kernel();
    }
    let target = p.both(target, "selfRef")?;
    let (index, source) = (p.input(index, "index")?, p.input(source, "source")?);
    p.dtype(&target, "selfRef", &[DType::Float16, DType::Float, DType::Bf16, DType::Int32, DType::Int8])?;
    p.dtype(&index, "index", INDEX)?;
    p.same_dtype((&target, "selfRef"), (&source, "source"))?;
    p.require(index.rank() == 1, || format!("index has shape {}, expected one dimension", index.shape()))?;
    let found = dimension(dim, target.rank());
    p.require(found.is_some(), || format!("dim is {dim}, selfRef has shape {}", target.shape()))?;
    let dim = found.unwrap_or(0);
    let mut expected = target.dims().to_vec();
    expected[dim] = index.dims()[0];
    p.shape(&source, "source", &expected)?;
    let cost = Cost { bytes: 2.0 * source.bytes() + index.bytes(), ..Cost::default() };
    let kernel = if source.is_empty() { Kernel::Nothing } else { Kernel::IndexCopy(IndexCopy { dim }) };
    Ok(Planned { kernel, cost, workspace: 0 })
}

/// Reads a C string argument. Null reads as empty.
pub(crate) fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller of the exported function passed a C string.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

fn scatter(
    p: &mut Plan<'_>,
    key: RawTensor,
    key_cache: RawTensor,
    slots: RawTensor,
    value: RawTensor,
    value_cache: RawTensor,
    compress_lens: RawTensor,
    compress_seq_offset: RawTensor,
    seq_lens: RawTensor,
    cache_mode: *mut c_char,
    scatter_mode: *mut c_char,
    strides: RawIntArray,
    offsets: RawIntArray,
) -> Outcome<Planned> {
    if p.is_310p() {
        return p.no_kernel();
    }
    let (key, key_cache) = (p.input(key, "key")?, p.both(key_cache, "keyCacheRef")?);
    let slots = p.input(slots, "slotMapping")?;
    let (value, value_cache) = (p.input(value, "value")?, p.both(value_cache, "valueCacheRef")?);
    p.absent(&[
        ("compressLensOptional", compress_lens),
        ("compressSeqOffsetOptional", compress_seq_offset),
        ("seqLensOptional", seq_lens),
    ])?;
    let (cache_mode, scatter_mode) = (text(cache_mode), text(scatter_mode));
    p.require(["", "Norm"].contains(&cache_mode.as_str()), || {
        format!("cacheModeOptional is \"{cache_mode}\", expected \"Norm\" (others are not played)")
    })?;
    p.require(["", "None"].contains(&scatter_mode.as_str()), || {
        format!("scatterModeOptional is \"{scatter_mode}\", expected \"None\" (others are not played)")
    })?;
    p.require(strides.is_null() && offsets.is_null(), || {
        "stridesOptional and offsetsOptional are not played, expected null".to_owned()
    })?;
    p.dtype(&key, "key", &[DType::Float16, DType::Bf16, DType::Int8])?;
    p.dtype(&slots, "slotMapping", INDEX)?;
    for (view, name) in [(&key_cache, "keyCacheRef"), (&value, "value"), (&value_cache, "valueCacheRef")] {
        p.same_dtype((&key, "key"), (view, name))?;
    }
    for (from, from_name, cache, cache_name) in
        [(&key, "key", &key_cache, "keyCacheRef"), (&value, "value", &value_cache, "valueCacheRef")]
    {
        p.require(from.rank() == 3 && cache.rank() == 4, || {
            format!(
                "{from_name} has shape {}, {cache_name} has {}: expected [tokens, heads, channels] and [blocks, block \
                 size, heads, channels]",
                from.shape(),
                cache.shape()
            )
        })?;
        p.require(cache.dims()[2..] == from.dims()[1..], || {
            format!("{cache_name} has shape {}, {from_name} has {}", cache.shape(), from.shape())
        })?;
        p.shape(&slots, "slotMapping", &from.dims()[..1])?;
    }
    p.require(key_cache.dims()[..2] == value_cache.dims()[..2], || {
        "keyCacheRef and valueCacheRef have different blocks".to_owned()
    })?;
    let cost = Cost { bytes: 2.0 * (key.bytes() + value.bytes()) + slots.bytes(), ..Cost::default() };
    let kernel = if slots.is_empty() { Kernel::Nothing } else { Kernel::ScatterKv(ScatterKv) };
    Ok(Planned { kernel, cost, workspace: 0 })
}
