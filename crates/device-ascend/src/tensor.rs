//! Views of device memory, and the library's descriptors of them.

use std::ffi::c_void;
use std::ptr;

use ascend_sys::{
    ACL_BF16, ACL_BOOL, ACL_FLOAT, ACL_FLOAT16, ACL_FORMAT_FRACTAL_NZ, ACL_FORMAT_ND, ACL_INT8, ACL_INT32,
    ACL_UINT64, aclDataType, aclIntArray, aclScalar, aclTensor, aclTensorList, call,
};

use glmbench_device::{DType, DeviceError};

use super::api::Api;
use super::trace;

/// Maximum number of axes of a view.
const MAX_RANK: usize = 5;

/// Type of an element on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    /// The model's type.
    Model(DType),
    /// The by-product of norms (`rstd`).
    Fp32,
    /// Indices.
    Int32,
    /// Masks.
    Bool,
    /// Quantised rows and weights.
    Int8,
    /// Encoded scales of quantised products.
    Uint64,
}

impl Element {
    fn code(self) -> aclDataType {
        match self {
            Self::Model(DType::Fp16) => ACL_FLOAT16,
            Self::Model(DType::Bf16) => ACL_BF16,
            Self::Model(DType::Fp32) | Self::Fp32 => ACL_FLOAT,
            Self::Int32 => ACL_INT32,
            Self::Bool => ACL_BOOL,
            Self::Int8 => ACL_INT8,
            Self::Uint64 => ACL_UINT64,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Model(dtype) => dtype.bytes(),
            Self::Fp32 | Self::Int32 => 4,
            Self::Bool | Self::Int8 => 1,
            Self::Uint64 => 8,
        }
    }
}

/// A strided array in device memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    start: *mut c_void,
    element: Element,
    rank: usize,
    dims: [i64; MAX_RANK],
    strides: [i64; MAX_RANK],
    /// True if the data is rearranged into the matrix unit's own blocks.
    fractal: bool,
}

impl View {
    /// Creates a contiguous view of shape `dims` at `start`.
    pub(super) fn new(start: *mut c_void, element: Element, dims: &[usize]) -> Self {
        let mut strides = [0; MAX_RANK];
        let mut step = 1;
        for (axis, extent) in dims.iter().enumerate().rev() {
            strides[axis] = step;
            step *= *extent;
        }
        Self::strided(start, element, dims, &strides[..dims.len()])
    }

    /// Creates a view with the stride of every axis, in elements.
    pub(super) fn strided(start: *mut c_void, element: Element, dims: &[usize], strides: &[usize]) -> Self {
        assert!(dims.len() == strides.len() && dims.len() <= MAX_RANK, "invariant: a stride an axis");
        let mut view = Self {
            start,
            element,
            rank: dims.len(),
            dims: [0; MAX_RANK],
            strides: [0; MAX_RANK],
            fractal: false,
        };
        for (axis, (extent, stride)) in dims.iter().zip(strides).enumerate() {
            (view.dims[axis], view.strides[axis]) = (*extent as i64, *stride as i64);
        }
        view
    }

    /// Creates a view `[rows, width]`, with rows `stride` elements apart.
    pub(super) fn matrix(
        start: *mut c_void,
        element: Element,
        rows: usize,
        width: usize,
        stride: usize,
    ) -> Self {
        Self::strided(start, element, &[rows, width], &[stride, 1])
    }

    /// Returns the same view with the data in the matrix unit's blocks.
    pub(super) fn in_fractals(self) -> Self {
        Self { fractal: true, ..self }
    }

    /// Views `[a, b]` as `[b, a]`.
    pub(super) fn transposed(mut self) -> Self {
        assert!(self.rank >= 2, "invariant: two axes");
        self.dims.swap(self.rank - 2, self.rank - 1);
        self.strides.swap(self.rank - 2, self.rank - 1);
        self
    }

    /// Returns the same shape at another address.
    pub(super) fn moved(self, start: *mut c_void) -> Self {
        Self { start, ..self }
    }

    /// Returns the extent of the last axis.
    pub(super) fn width(&self) -> usize {
        self.dims[self.rank - 1] as usize
    }

    /// Creates the library's descriptor.
    pub(super) fn tensor(&self, api: &Api) -> Result<Tensor, DeviceError> {
        let (dims, strides) = (&self.dims[..self.rank], &self.strides[..self.rank]);
        // Storage: the elements that the view spans; for fractals, the matrix in its blocks.
        let span =
            dims.iter().zip(strides).map(|(extent, stride)| (extent - 1).max(0) * stride).sum::<i64>() + 1;
        let storage = if self.fractal {
            fractal_storage(dims, strides, FRACTAL_BYTES / self.element.bytes())
        } else {
            vec![span]
        };
        let format = if self.fractal { ACL_FORMAT_FRACTAL_NZ } else { ACL_FORMAT_ND };
        let rank = self.rank as u64;
        api.ready()?;
        // SAFETY: all arrays are as long as said and are copied; the memory outlives the queued work by the owner's care.
        let handle = unsafe {
            call!(
                api.libraries.nn,
                aclCreateTensor(
                    dims.as_ptr(),
                    rank,
                    self.element.code(),
                    strides.as_ptr(),
                    0,
                    format,
                    storage.as_ptr(),
                    storage.len() as u64,
                    self.start
                )
            )
        };
        let handle = created(api, "aclCreateTensor", handle)?;
        api.trace.describe(handle, || self.words());
        Ok(Tensor { handle, destroy: api.libraries.nn.aclDestroyTensor.as_ref().ok().copied() })
    }

    /// Returns type, shape, strides (unless rows are contiguous) and format.
    fn words(&self) -> String {
        let element = match self.element {
            Element::Model(dtype) => dtype.to_string(),
            Element::Fp32 => "fp32".to_owned(),
            Element::Int32 => "int32".to_owned(),
            Element::Bool => "bool".to_owned(),
            Element::Int8 => "int8".to_owned(),
            Element::Uint64 => "uint64".to_owned(),
        };
        let (dims, strides) = (&self.dims[..self.rank], &self.strides[..self.rank]);
        let mut step = 1;
        let contiguous = dims.iter().zip(strides).rev().all(|(extent, stride)| {
            let fits = *extent == 1 || *stride == step;
            step *= extent;
            fits
        });
        let strides = if contiguous { String::new() } else { format!(" strides {strides:?}") };
        let format = if self.fractal { " in fractals" } else { "" };
        format!("{element} {dims:?}{strides}{format}")
    }

    /// Returns whether both views have the same extents.
    pub(super) fn same_shape(&self, other: &Self) -> bool {
        self.dims[..self.rank] == other.dims[..other.rank]
    }

    /// Returns the size of the viewed elements in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.dims[..self.rank].iter().product::<i64>() as usize * self.element.bytes()
    }

    /// Returns the strides of a view with three axes, in elements.
    pub(super) fn strides(&self) -> [usize; 3] {
        assert!(self.rank == 3, "invariant: three axes");
        [0, 1, 2].map(|axis| self.strides[axis] as usize)
    }

    /// Returns the address of the first element.
    pub(super) fn start(&self) -> *mut c_void {
        self.start
    }
}

/// Bytes of a row of a fractal.
const FRACTAL_BYTES: usize = 32;

/// Returns `[n1, m1, 16, columns]` of a matrix that may be viewed transposed. The stored matrix's width is the axis of
/// stride 1. A fractal has `columns` columns.
fn fractal_storage(dims: &[i64], strides: &[i64], columns: usize) -> Vec<i64> {
    let columns = columns as i64;
    let [a, b] = [dims[dims.len() - 2], dims[dims.len() - 1]];
    let (rows, width) = if strides[dims.len() - 1] == 1 { (a, b) } else { (b, a) };
    vec![(width + columns - 1) / columns, (rows + 15) / 16, 16, columns]
}

fn created<T>(api: &Api, function: &str, handle: Result<*mut T, &str>) -> Result<*mut T, DeviceError> {
    match handle {
        Err(missing) => Err(api.missing(missing)),
        Ok(handle) if handle.is_null() => Err(DeviceError::Unsupported {
            device: api.device,
            problem: format!("{function} gave nothing for arguments that are documented as legal"),
        }),
        Ok(handle) => Ok(handle),
    }
}

macro_rules! handles {
    ($($(#[$doc:meta])* $name:ident: $raw:ty,)*) => {$(
        $(#[$doc])*
        pub(super) struct $name {
            pub(super) handle: *mut $raw,
            destroy: Option<unsafe extern "C" fn(*const $raw) -> i32>,
        }

        impl Drop for $name {
            fn drop(&mut self) {
                if let Some(destroy) = self.destroy {
                    // SAFETY: created by us, and this is the last use.
                    unsafe { destroy(self.handle) };
                }
            }
        }
    )*};
}

handles! {
    /// The descriptor of a view.
    Tensor: aclTensor,
    /// A scalar on the host.
    Scalar: aclScalar,
    /// An integer array on the host.
    IntArray: aclIntArray,
    /// A list of tensors.
    TensorList: aclTensorList,
}

impl Scalar {
    /// Creates an fp32 scalar.
    pub(super) fn new(api: &Api, mut value: f32) -> Result<Self, DeviceError> {
        api.ready()?;
        // SAFETY: the number is copied.
        let handle =
            unsafe { call!(api.libraries.nn, aclCreateScalar(ptr::from_mut(&mut value).cast(), ACL_FLOAT)) };
        let handle = created(api, "aclCreateScalar", handle)?;
        api.trace.describe(handle, || format!("scalar {value}"));
        Ok(Self { handle, destroy: api.libraries.nn.aclDestroyScalar.as_ref().ok().copied() })
    }
}

impl IntArray {
    /// Creates an array of `values`.
    pub(super) fn new(api: &Api, values: &[i64]) -> Result<Self, DeviceError> {
        api.ready()?;
        // SAFETY: the numbers are copied.
        let handle =
            unsafe { call!(api.libraries.nn, aclCreateIntArray(values.as_ptr(), values.len() as u64)) };
        let handle = created(api, "aclCreateIntArray", handle)?;
        api.trace.describe(handle, || trace::numbers(values));
        Ok(Self { handle, destroy: api.libraries.nn.aclDestroyIntArray.as_ref().ok().copied() })
    }
}

impl TensorList {
    /// Creates a list of one tensor. The list destroys its member.
    pub(super) fn of(api: &Api, view: View) -> Result<Self, DeviceError> {
        let tensor = view.tensor(api)?;
        let members = [tensor.handle.cast_const()];
        // SAFETY: one member.
        let handle = unsafe { call!(api.libraries.nn, aclCreateTensorList(members.as_ptr(), 1)) };
        let handle = created(api, "aclCreateTensorList", handle)?;
        api.trace.describe(handle, || format!("list of {}", view.words()));
        // The list destroys it.
        std::mem::forget(tensor);
        Ok(Self { handle, destroy: api.libraries.nn.aclDestroyTensorList.as_ref().ok().copied() })
    }
}

/// Anything that an executor needs alive.
#[expect(dead_code, reason = "held, not read")]
pub(super) enum Held {
    Tensor(Tensor),
    Scalar(Scalar),
    IntArray(IntArray),
    TensorList(TensorList),
}

impl From<Tensor> for Held {
    fn from(value: Tensor) -> Self {
        Self::Tensor(value)
    }
}

impl From<Scalar> for Held {
    fn from(value: Scalar) -> Self {
        Self::Scalar(value)
    }
}

impl From<IntArray> for Held {
    fn from(value: IntArray) -> Self {
        Self::IntArray(value)
    }
}

impl From<TensorList> for Held {
    fn from(value: TensorList) -> Self {
        Self::TensorList(value)
    }
}

/// An input or output of a product.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    /// The rows.
    pub(super) view: View,
    /// Id of the buffer that holds the rows, for the plan's key.
    pub(super) id: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_row_major_and_can_be_transposed() {
        let view = View::new(ptr::null_mut(), Element::Int32, &[2, 3, 4]);
        assert_eq!((&view.dims[..3], &view.strides[..3]), (&[2, 3, 4][..], &[12, 4, 1][..]));
        let turned = view.transposed();
        assert_eq!((&turned.dims[..3], &turned.strides[..3]), (&[2, 4, 3][..], &[12, 1, 4][..]));
        assert_eq!(view.bytes(), 96);
    }

    #[test]
    fn fractals_are_those_of_the_stored_matrix() {
        assert_eq!(fractal_storage(&[20, 40], &[40, 1], 16), [3, 2, 16, 16]);
        assert_eq!(fractal_storage(&[40, 20], &[1, 40], 16), [3, 2, 16, 16]);
        assert_eq!(fractal_storage(&[20, 40], &[40, 1], 32), [2, 2, 16, 32]);
    }
}
