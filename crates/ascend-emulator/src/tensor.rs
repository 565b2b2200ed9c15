//! Tensors, scalars, integer arrays and tensor lists: aclTensor, aclScalar, aclIntArray, aclTensorList.

use std::ffi::c_void;

use crate::half::{DType, read_f64};
use crate::pool::{self, Slot, pooled};
use crate::status::{NN_PARAM_INVALID, NN_PARAM_NULLPTR, Outcome, fail, remember};

/// Maximum number of dimensions of a tensor.
pub(crate) const MAX_DIMS: usize = 8;

/// Memory format of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// Strided.
    #[default]
    Nd,
    /// Blocks of 16 x 16 (FRACTAL_NZ), see [`crate::nz`].
    Nz,
}

/// Shape, strides and address of a tensor. Plain data, cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Element type.
    pub dtype: DType,
    /// Memory format.
    pub format: Format,
    rank: u8,
    dims: [i64; MAX_DIMS],
    strides: [i64; MAX_DIMS],
    /// Offset of the first element from `data`, in elements.
    pub offset: i64,
    /// Size of the storage behind the view, in elements.
    pub storage: i64,
    /// Number of dimensions of the storage shape.
    pub storage_rank: u8,
    /// Device address of the storage.
    pub data: usize,
}

impl View {
    /// Placeholder for an absent tensor.
    pub(crate) const NONE: Self = Self {
        dtype: DType::Uint8,
        format: Format::Nd,
        rank: 0,
        dims: [0; MAX_DIMS],
        strides: [0; MAX_DIMS],
        offset: 0,
        storage: 0,
        storage_rank: 0,
        data: 0,
    };

    /// The shape.
    pub(crate) fn dims(&self) -> &[i64] {
        &self.dims[..self.rank as usize]
    }

    /// Strides in elements, one per dimension.
    pub(crate) fn strides(&self) -> &[i64] {
        &self.strides[..self.rank as usize]
    }

    /// Number of dimensions.
    pub(crate) fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Size of the last dimension (1 for a scalar).
    pub(crate) fn width(&self) -> usize {
        self.dims().last().map_or(1, |d| *d as usize)
    }

    /// Stride of the last dimension.
    pub(crate) fn last_stride(&self) -> i64 {
        self.strides().last().copied().unwrap_or(1)
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.dims().iter().product::<i64>() as usize
    }

    /// Whether there are no elements.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the elements in bytes.
    pub(crate) fn bytes(&self) -> f64 {
        (self.len() * self.dtype.bytes()) as f64
    }

    /// Whether the view is row-major without gaps.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (dim, stride) in self.dims().iter().zip(self.strides()).rev() {
            if *dim != 1 && *stride != expected {
                return false;
            }
            expected *= dim;
        }
        true
    }

    /// Half-open range of element indices that the view can reach, counted from `data`.
    pub(crate) fn reach(&self) -> (i64, i64) {
        if self.is_empty() {
            return (self.offset, self.offset);
        }
        if self.format == Format::Nz {
            return (self.offset, self.offset + crate::nz::elements(self) as i64);
        }
        let last: i64 = self.dims().iter().zip(self.strides()).map(|(d, s)| (d - 1) * s).sum();
        (self.offset, self.offset + last + 1)
    }

    /// Address of the element at `index`, counted from the view's first element.
    pub(crate) fn at(&self, index: i64) -> *mut u8 {
        let number = self.offset + index;
        (self.data as i64 + number * self.dtype.bytes() as i64) as usize as *mut u8
    }

    /// The same elements with other dimensions and strides.
    pub(crate) fn with_shape(&self, dims: &[i64], strides: &[i64]) -> Self {
        let mut view = *self;
        view.rank = dims.len() as u8;
        view.dims[..dims.len()].copy_from_slice(dims);
        view.strides[..dims.len()].copy_from_slice(strides);
        view
    }

    /// Broadcasts the view to `dims`. Returns `None` if the shapes are incompatible.
    pub(crate) fn broadcast_to(&self, dims: &[i64]) -> Option<Self> {
        if dims.len() < self.rank() || dims.len() > MAX_DIMS {
            return None;
        }
        let mut strides = [0; MAX_DIMS];
        let front = dims.len() - self.rank();
        for (i, (dim, stride)) in self.dims().iter().zip(self.strides()).enumerate() {
            let wanted = dims[front + i];
            strides[front + i] = match *dim {
                d if d == wanted => *stride,
                1 => 0,
                _ => return None,
            };
        }
        Some(self.with_shape(dims, &strides[..dims.len()]))
    }

    /// The shape as text.
    pub(crate) fn shape(&self) -> String {
        format!("{:?}", self.dims())
    }
}

/// Contents of a tensor handle.
#[derive(Debug)]
pub(crate) struct Tensor {
    /// Shape and address.
    pub view: View,
}

impl Default for Tensor {
    fn default() -> Self {
        Self { view: View::NONE }
    }
}

/// Contents of a scalar handle.
#[derive(Debug, Default)]
pub(crate) struct Scalar {
    value: f64,
}

/// Contents of an integer array handle.
#[derive(Debug, Default)]
pub(crate) struct IntArray {
    values: Vec<i64>,
}

/// Contents of a tensor list handle.
#[derive(Debug, Default)]
pub(crate) struct TensorList {
    members: Vec<usize>,
}

pooled!(Tensor, b"tnsr", "tensor", |tensor| tensor.view = View::NONE);
pooled!(Scalar, b"sclr", "scalar", |scalar| scalar.value = 0.0);
pooled!(IntArray, b"iarr", "integer array", |array| array.values.clear());
pooled!(TensorList, b"tlst", "tensor list", |list| list.members.clear());

/// C handle of a tensor.
pub(crate) type RawTensor = *mut Slot<Tensor>;
/// C handle of a scalar.
pub(crate) type RawScalar = *mut Slot<Scalar>;
/// C handle of an integer array.
pub(crate) type RawIntArray = *mut Slot<IntArray>;
/// C handle of a tensor list.
pub(crate) type RawTensorList = *mut Slot<TensorList>;

/// # Safety
/// `numbers` is null or points to `count` numbers.
unsafe fn dims_of(numbers: *const i64, count: u64) -> Option<([i64; MAX_DIMS], usize)> {
    let count = usize::try_from(count).ok().filter(|n| *n <= MAX_DIMS)?;
    let mut dims = [0; MAX_DIMS];
    if count > 0 {
        if numbers.is_null() {
            return None;
        }
        // SAFETY: the caller's promise.
        dims[..count].copy_from_slice(unsafe { std::slice::from_raw_parts(numbers, count) });
    }
    dims[..count].iter().all(|d| (0..1 << 40).contains(d)).then_some((dims, count))
}

/// Creates a tensor. Returns null if an argument is invalid. Without strides the view is row-major.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclCreateTensor(
    view_dims: *const i64,
    view_dims_num: u64,
    dtype: i32,
    stride: *const i64,
    offset: i64,
    format: i32,
    storage_dims: *const i64,
    storage_dims_num: u64,
    data: *mut c_void,
) -> RawTensor {
    let refuse = |message: String| {
        remember(&format!("aclCreateTensor: {message}"));
        std::ptr::null_mut()
    };
    let Some(dtype) = DType::from_code(dtype) else {
        return refuse(format!("dataType {dtype} is unknown"));
    };
    let format = match format {
        29 => Format::Nz,
        -1..=2 => Format::Nd,
        _ => return refuse(format!("format {format} is unknown")),
    };
    // SAFETY: the caller's arrays.
    let (view, storage) =
        unsafe { (dims_of(view_dims, view_dims_num), dims_of(storage_dims, storage_dims_num)) };
    let (Some((dims, rank)), Some((storage, storage_rank))) = (view, storage) else {
        return refuse(format!("expected at most {MAX_DIMS} dimensions, none negative, in both shapes"));
    };
    let mut strides = [0; MAX_DIMS];
    if stride.is_null() {
        let mut step = 1i64;
        for i in (0..rank).rev() {
            strides[i] = step;
            step = step.saturating_mul(dims[i].max(1));
        }
    } else {
        // SAFETY: the caller's array has as many numbers as the view has dimensions.
        strides[..rank].copy_from_slice(unsafe { std::slice::from_raw_parts(stride, rank) });
    }
    if offset < 0 || strides[..rank].iter().any(|s| !(0..1 << 40).contains(s)) {
        return refuse("an offset or stride is negative or absurd".to_owned());
    }
    let product =
        |dims: &[i64]| dims.iter().try_fold(1i64, |a, d| a.checked_mul(*d)).filter(|n| *n < 1 << 48);
    let (Some(_), Some(storage)) = (product(&dims[..rank]), product(&storage[..storage_rank])) else {
        return refuse("a shape has too many numbers".to_owned());
    };
    pool::create::<Tensor>(|tensor| {
        let (rank, storage_rank, data) = (rank as u8, storage_rank as u8, data as usize);
        tensor.view = View { dtype, format, rank, dims, strides, offset, storage, storage_rank, data };
    })
}

/// # Safety
/// As [`pool::get`].
unsafe fn destroy<T: pool::Pooled>(api: &str, handle: *const Slot<T>) -> i32 {
    // SAFETY: the caller's promise.
    match unsafe { pool::get(handle) } {
        Ok(slot) => {
            slot.destroy();
            0
        }
        Err(pool::Dead::Null) => 0,
        Err(dead) => {
            remember(&format!("{api}: the {} {}", T::WORD, dead.words()));
            NN_PARAM_INVALID
        }
    }
}

/// Destroys a tensor.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclDestroyTensor(tensor: *const Slot<Tensor>) -> i32 {
    // SAFETY: the caller's pointer is a tensor handle.
    unsafe { destroy("aclDestroyTensor", tensor) }
}

/// Creates a scalar from a host value.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclCreateScalar(value: *mut c_void, dtype: i32) -> RawScalar {
    let Some(dtype) = DType::from_code(dtype).filter(|_| !value.is_null()) else {
        remember(&format!("aclCreateScalar: value is {value:p}, dataType {dtype}"));
        return std::ptr::null_mut();
    };
    // SAFETY: not null; the caller's value has this type.
    let value = unsafe { read_f64(dtype, value.cast::<u8>()) };
    pool::create::<Scalar>(|scalar| scalar.value = value)
}

/// Destroys a scalar.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclDestroyScalar(scalar: *const Slot<Scalar>) -> i32 {
    // SAFETY: the caller's pointer is a scalar handle.
    unsafe { destroy("aclDestroyScalar", scalar) }
}

/// Creates an integer array.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclCreateIntArray(values: *const i64, count: u64) -> RawIntArray {
    if values.is_null() && count > 0 {
        remember("aclCreateIntArray: value is null");
        return std::ptr::null_mut();
    }
    pool::create::<IntArray>(|array| {
        if count > 0 {
            // SAFETY: not null; the caller's array has `count` numbers.
            array.values.extend_from_slice(unsafe { std::slice::from_raw_parts(values, count as usize) });
        }
    })
}

/// Destroys an integer array.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclDestroyIntArray(array: *const Slot<IntArray>) -> i32 {
    // SAFETY: the caller's pointer is an integer array handle.
    unsafe { destroy("aclDestroyIntArray", array) }
}

/// Creates a list, which takes ownership of the tensors.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclCreateTensorList(tensors: *const RawTensor, count: u64) -> RawTensorList {
    if tensors.is_null() && count > 0 {
        remember("aclCreateTensorList: value is null");
        return std::ptr::null_mut();
    }
    pool::create::<TensorList>(|list| {
        for i in 0..count as usize {
            // SAFETY: not null; the caller's array has `count` handles.
            list.members.push(unsafe { tensors.add(i).read() } as usize);
        }
    })
}

/// Destroys a list and its tensors.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn aclDestroyTensorList(list: *const Slot<TensorList>) -> i32 {
    // SAFETY: the caller's pointer is a tensor list handle.
    let members = match unsafe { pool::get(list) } {
        Ok(slot) => slot.value().members.clone(),
        Err(_) => Vec::new(),
    };
    // SAFETY: as above.
    let mut code = unsafe { destroy("aclDestroyTensorList", list) };
    for member in members {
        // SAFETY: the members are tensor handles.
        let of_member = unsafe { destroy("aclDestroyTensorList", member as *const Slot<Tensor>) };
        code = if code == 0 { of_member } else { code };
    }
    code
}

/// Returns a live handle, or a failure that names the argument.
///
/// # Safety
/// As [`pool::get`].
pub(crate) unsafe fn live<'a, T: pool::Pooled>(handle: *const Slot<T>, name: &str) -> Outcome<&'a Slot<T>> {
    // SAFETY: the caller's promise.
    match unsafe { pool::get(handle) } {
        Ok(slot) => Ok(slot),
        Err(pool::Dead::Null) => fail(NN_PARAM_NULLPTR, format!("{name} is null")),
        Err(dead) => fail(NN_PARAM_INVALID, format!("{name}: the {} {}", T::WORD, dead.words())),
    }
}

/// Reads a scalar argument.
pub(crate) fn scalar(handle: RawScalar, name: &str) -> Outcome<f64> {
    // SAFETY: the caller of the exported function passed a scalar handle.
    Ok(unsafe { live(handle, name)? }.value().value)
}

/// Reads an integer array argument.
pub(crate) fn int_array<'a>(handle: RawIntArray, name: &str) -> Outcome<&'a [i64]> {
    // SAFETY: the caller of the exported function passed an integer array handle.
    Ok(&unsafe { live(handle, name)? }.value().values)
}

/// Reads the handles in a tensor list argument.
pub(crate) fn members<'a>(handle: RawTensorList, name: &str) -> Outcome<&'a [usize]> {
    // SAFETY: the caller of the exported function passed a tensor list handle.
    Ok(&unsafe { live(handle, name)? }.value().members)
}
