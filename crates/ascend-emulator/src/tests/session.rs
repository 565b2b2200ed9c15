//! Sessions with one configured library at a time, and helpers that read like a caller's program.

use std::cell::OnceCell;
use std::ffi::{CStr, CString, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::copy::aclrtMemcpy;
use crate::emulator::{ascend_emulator_configure, ascend_emulator_counts, ascend_emulator_reset};
use crate::executor::RawExecutor;
use crate::half::{DType, narrow, widen, write_f64};
use crate::memory::{aclrtFree, aclrtMalloc};
use crate::runtime::{aclFinalize, aclInit, aclrtResetDevice, aclrtSetDevice};
use crate::status::aclGetRecentErrMsg;
use crate::stream::{RawStream, aclrtCreateStream, aclrtDestroyStream, aclrtSynchronizeStream};
use crate::tensor::{RawTensor, aclCreateTensor, aclDestroyTensor};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Size of a session workspace in bytes.
pub(super) const WORKSPACE: u64 = 65_536;

/// A configured and initialised library with device 0 set, and a stream.
pub(super) struct Session {
    pub(super) stream: RawStream,
    workspace: OnceCell<Memory>,
    _turn: MutexGuard<'static, ()>,
}

impl Session {
    pub(super) fn new(settings: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let text = CString::new(settings).unwrap();
        let mut stream = null_mut();
        // SAFETY: the test follows the contract.
        unsafe {
            assert_eq!(ascend_emulator_reset(), 0);
            assert_eq!(ascend_emulator_configure(text.as_ptr()), 0, "{}", message());
            assert_eq!(aclInit(std::ptr::null()), 0);
            assert_eq!(aclrtSetDevice(0), 0);
            assert_eq!(aclrtCreateStream(&raw mut stream), 0);
        }
        Self { stream, workspace: OnceCell::new(), _turn: turn }
    }

    /// Starts a session without configuring or initialising the library.
    pub(super) fn raw() -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        ascend_emulator_reset();
        Self { stream: null_mut(), workspace: OnceCell::new(), _turn: turn }
    }

    /// Device memory of [`WORKSPACE`] bytes for second stages.
    pub(super) fn workspace(&self) -> *mut c_void {
        self.workspace.get_or_init(|| Memory::new(WORKSPACE as usize)).0
    }

    pub(super) fn sync(&self) -> i32 {
        // SAFETY: the session's own stream.
        unsafe { aclrtSynchronizeStream(self.stream) }
    }

    /// Runs both stages with a workspace, and synchronises.
    pub(super) fn run(
        &self,
        first: impl FnOnce(*mut u64, *mut RawExecutor) -> i32,
        second: unsafe extern "C" fn(*mut c_void, u64, RawExecutor, RawStream) -> i32,
    ) {
        let (mut size, mut executor) = (0, null_mut());
        assert_eq!(first(&raw mut size, &raw mut executor), 0, "{}", message());
        let workspace = (size > 0).then(|| Memory::new(size as usize));
        let pointer = workspace.as_ref().map_or(null_mut(), |m| m.0);
        // SAFETY: an executor just made.
        assert_eq!(unsafe { second(pointer, size, executor, self.stream) }, 0, "{}", message());
        assert_eq!(self.sync(), 0, "{}", message());
    }

    /// Ends the session and checks that nothing is left.
    pub(super) fn end(mut self) {
        drop(self.workspace.take());
        // SAFETY: the session's own stream.
        unsafe {
            if !self.stream.is_null() {
                assert_eq!(aclrtDestroyStream(self.stream), 0);
                assert_eq!(aclrtResetDevice(0), 0);
                assert_eq!(aclFinalize(), 0);
            }
        }
        assert_eq!(counts(), [0; 12], "something was left alive");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        ascend_emulator_reset();
    }
}

pub(super) fn counts() -> [u64; 12] {
    let mut counts = [0; 12];
    // SAFETY: as many places as said.
    assert_eq!(unsafe { ascend_emulator_counts(counts.as_mut_ptr(), 12) }, 12);
    counts
}

/// Message of the last failure on this thread.
pub(super) fn message() -> String {
    let text = aclGetRecentErrMsg();
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, valid until the next call.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Owned device memory.
pub(super) struct Memory(pub(super) *mut c_void);

impl Memory {
    pub(super) fn new(bytes: usize) -> Self {
        let mut pointer = null_mut();
        // SAFETY: a place for the pointer.
        assert_eq!(unsafe { aclrtMalloc(&raw mut pointer, bytes, 0) }, 0, "{}", message());
        Self(pointer)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; a test may have freed it or lost the device.
        let _ = unsafe { aclrtFree(self.0) };
    }
}

/// A tensor with its own memory.
pub(super) struct Array {
    pub(super) memory: Memory,
    pub(super) tensor: RawTensor,
    dtype: DType,
    len: usize,
}

/// A tensor handle.
pub(super) fn tensor(
    data: *mut c_void,
    dtype: DType,
    dims: &[i64],
    strides: Option<&[i64]>,
    offset: i64,
    format: i32,
    storage: &[i64],
) -> RawTensor {
    // SAFETY: the arrays are as long as said.
    let handle = unsafe {
        aclCreateTensor(
            dims.as_ptr(),
            dims.len() as u64,
            dtype as i32,
            strides.map_or(std::ptr::null(), <[i64]>::as_ptr),
            offset,
            format,
            storage.as_ptr(),
            storage.len() as u64,
            data,
        )
    };
    assert!(!handle.is_null(), "{}", message());
    handle
}

impl Array {
    /// Creates a row-major array of these numbers, rounded to the type.
    pub(super) fn new(dtype: DType, dims: &[i64], numbers: &[f32]) -> Self {
        let len = dims.iter().product::<i64>() as usize;
        assert_eq!(numbers.len(), len);
        let array = Self::empty(dtype, dims);
        let mut bytes = vec![0u8; len * dtype.bytes()];
        for (i, x) in numbers.iter().enumerate() {
            // SAFETY: inside the vector.
            unsafe { write_f64(dtype, f64::from(*x), bytes.as_mut_ptr().add(i * dtype.bytes())) };
        }
        array.write(&bytes);
        array
    }

    /// Creates a row-major array. The memory is as aclrtMalloc left it.
    pub(super) fn empty(dtype: DType, dims: &[i64]) -> Self {
        let len = dims.iter().product::<i64>() as usize;
        let memory = Memory::new((len * dtype.bytes()).max(1));
        let tensor = tensor(memory.0, dtype, dims, None, 0, 2, dims);
        Self { memory, tensor, dtype, len }
    }

    pub(super) fn write(&self, bytes: &[u8]) {
        let n = bytes.len();
        // SAFETY: the memory has room.
        let code = unsafe { aclrtMemcpy(self.memory.0, n, bytes.as_ptr().cast(), n, 1) };
        assert_eq!(code, 0, "{}", message());
    }

    /// Reads the elements as fp32.
    pub(super) fn read(&self) -> Vec<f32> {
        let n = self.len * self.dtype.bytes();
        let mut bytes = vec![0u8; n];
        // SAFETY: as many bytes on both sides.
        let code = unsafe { aclrtMemcpy(bytes.as_mut_ptr().cast(), n, self.memory.0, n, 2) };
        assert_eq!(code, 0, "{}", message());
        let mut out = vec![0f32; self.len];
        // SAFETY: as many numbers.
        unsafe { widen(self.dtype, bytes.as_ptr(), &mut out) };
        out
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        // SAFETY: made in `empty`; a test may have destroyed it.
        let _ = unsafe { aclDestroyTensor(self.tensor) };
    }
}

/// Rounds the numbers to the type.
pub(super) fn rounded(dtype: DType, numbers: &[f32]) -> Vec<f32> {
    let mut bytes = vec![0u8; numbers.len() * dtype.bytes()];
    let mut out = vec![0f32; numbers.len()];
    // SAFETY: as many numbers.
    unsafe {
        narrow(dtype, numbers, bytes.as_mut_ptr());
        widen(dtype, bytes.as_ptr(), &mut out);
    }
    out
}

/// Pseudo-random numbers between -1 and 1.
pub(super) fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(n).collect()
}

/// Relative rounding error of the type: half a unit in the last place.
pub(super) fn epsilon(dtype: DType) -> f32 {
    match dtype {
        DType::Float16 => 1.0 / 2048.0,
        DType::Bf16 => 1.0 / 256.0,
        _ => f32::EPSILON,
    }
}

/// Asserts that every number is within `relative * |expected| + absolute`.
pub(super) fn assert_close(found: &[f32], expected: &[f32], relative: f32, absolute: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= relative * e.abs() + absolute, "number {i} is {f}, expected {e}");
    }
}
