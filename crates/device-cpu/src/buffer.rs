//! Memory of the CPU device: aligned, on huge pages if available, shared between threads by ranges.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

use bytemuck::Zeroable;

use glmbench_device::DeviceError;

/// Size of a huge page. Buffers of at least this size are mapped.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Size of a cache line in bytes.
pub(crate) const LINE_BYTES: usize = 64;

/// A fixed number of zero-initialised numbers, aligned to a cache line.
///
/// Large buffers are anonymous mappings. Their pages are zero without being touched, so the thread that first writes a
/// part also places it in memory. Huge pages can be requested before that.
#[derive(Debug)]
pub struct Buffer<T> {
    pointer: NonNull<T>,
    len: usize,
}

// SAFETY: the buffer exclusively owns its memory, like a `Vec<T>`.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: shared access is read-only, like a `Vec<T>`.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: Copy + Zeroable> Buffer<T> {
    /// Allocates `len` zeros; `what` names the purpose in the error.
    pub fn zeroed(len: usize, what: &str) -> Result<Self, DeviceError> {
        let out_of_memory =
            |wanted_bytes| DeviceError::OutOfMemory { device: crate::NAME, what: what.into(), wanted_bytes };
        let Some(layout) = Self::layout(len) else { return Err(out_of_memory(usize::MAX)) };
        if layout.size() == 0 {
            return Ok(Self { pointer: NonNull::dangling(), len });
        }
        #[cfg(test)]
        TAKEN_BYTES.set(TAKEN_BYTES.get() + layout.size() as u64);
        // All-zero bytes are a valid `T` (`Zeroable`).
        let memory = if is_mapped(layout.size()) {
            map_zeroed(layout.size())
        } else {
            // SAFETY: the layout's size is not zero.
            NonNull::new(unsafe { alloc_zeroed(layout) })
        };
        let pointer = memory.ok_or_else(|| out_of_memory(layout.size()))?.cast();
        Ok(Self { pointer, len })
    }
}

impl<T> Buffer<T> {
    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_mul(size_of::<T>())?, LINE_BYTES).ok()
    }

    /// Returns a handle through which threads write disjoint ranges.
    pub fn shared(&mut self) -> SharedSlice<'_, T> {
        SharedSlice { pointer: self.pointer.as_ptr(), len: self.len, borrow: PhantomData }
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let Some(layout) = Self::layout(self.len) else { return };
        if layout.size() == 0 {
            return;
        }
        if is_mapped(layout.size()) {
            unmap(self.pointer.cast(), layout.size());
        } else {
            // SAFETY: allocated in `zeroed` with this same layout.
            unsafe { dealloc(self.pointer.as_ptr().cast(), layout) }
        }
    }
}

/// Returns whether a buffer of `bytes` bytes is mapped.
fn is_mapped(bytes: usize) -> bool {
    cfg!(target_os = "linux") && bytes >= HUGE_PAGE_BYTES
}

/// Maps zero pages and requests huge pages, which reduce address translation while gigabytes of weights stream by. The
/// kernel may ignore the request.
#[cfg(target_os = "linux")]
fn map_zeroed(bytes: usize) -> Option<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous map touches no memory that is in use.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the range was just mapped, and MADV_HUGEPAGE changes no contents.
    unsafe { libc::madvise(memory, bytes, libc::MADV_HUGEPAGE) };
    NonNull::new(memory.cast())
}

#[cfg(target_os = "linux")]
fn unmap(memory: NonNull<u8>, bytes: usize) {
    // SAFETY: mapped by `map_zeroed` with this length, and owned by the buffer that is being dropped.
    unsafe { libc::munmap(memory.as_ptr().cast(), bytes) };
}

#[cfg(not(target_os = "linux"))]
fn map_zeroed(_bytes: usize) -> Option<NonNull<u8>> {
    None
}

#[cfg(not(target_os = "linux"))]
fn unmap(_memory: NonNull<u8>, _bytes: usize) {}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised numbers lie at `pointer`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes the access unique.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

/// Size of a result, in bytes, from which it is streamed past the caches. A smaller one is read again from there.
const STREAMED_BYTES: usize = 4 << 20;

/// Returns whether a result of so many numbers is streamed: a line that is not in a cache need not be read before it is
/// written, and the operands stay in the caches.
pub(crate) fn is_streamed(numbers: usize) -> bool {
    numbers >= STREAMED_BYTES / size_of::<f32>()
}

/// Orders streamed stores before later stores of this thread, which hand the numbers to other threads.
pub(crate) fn fence_streams() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Prefetches bytes into the second-level cache. Does nothing on processors without a supported prefetch instruction.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(LINE_BYTES) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction; it changes no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Prefetches one cache line into the first-level cache. `place` may be any address.
#[inline(always)]
pub(crate) fn prefetch_line(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction; it changes no memory and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Prefetches one cache line into the second-level cache. `place` may be any address.
#[inline(always)]
pub(crate) fn prefetch_to_l2(place: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction; it changes no memory and never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(place.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Returns how many numbers `rows` rows of `columns` numbers span, `stride` numbers apart. `None` if the type cannot
/// hold the result: then no slice holds the rows.
#[inline(always)]
pub(crate) fn length(rows: usize, columns: usize, stride: usize) -> Option<usize> {
    let Some(last) = rows.checked_sub(1) else { return Some(0) };
    last.checked_mul(stride)?.checked_add(columns)
}

/// A mutable slice that several threads write at the same time, each in its own ranges.
#[derive(Debug, Clone, Copy)]
pub struct SharedSlice<'a, T> {
    pointer: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `range`, and its callers keep ranges disjoint.
unsafe impl<T: Send> Send for SharedSlice<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedSlice<'_, T> {}

impl<'a, T> SharedSlice<'a, T> {
    /// Creates a handle to a slice.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// Returns a pointer to number `i`, for kernels that write a tile of a matrix.
    pub fn pointer(&self, i: usize) -> *mut T {
        assert!(i <= self.len, "invariant: inside the slice");
        // SAFETY: inside the slice, or one past it.
        unsafe { self.pointer.add(i) }
    }

    /// Returns one range for writing.
    ///
    /// # Safety
    /// No two ranges that live at the same time may overlap.
    pub unsafe fn range(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "invariant: ranges lie inside the slice");
        // SAFETY: inside the slice by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }

    /// Returns `rows` rows of `columns` numbers for writing, `stride` numbers apart, starting with number `first`.
    ///
    /// # Safety
    /// As [`Self::range`], for every row.
    pub(crate) unsafe fn strided(
        &self,
        first: usize,
        rows: usize,
        columns: usize,
        stride: usize,
    ) -> Strided<'a, T> {
        let inside = |numbers| first <= self.len && numbers <= self.len - first;
        let fits = (columns <= stride || rows < 2) && length(rows, columns, stride).is_some_and(inside);
        assert!(fits, "invariant: rows lie inside the slice");
        Strided { pointer: self.pointer.wrapping_add(first), rows, columns, stride, borrow: PhantomData }
    }
}

/// Rows of a matrix that one thread writes, while other threads may write other columns of the same rows.
#[derive(Debug)]
pub(crate) struct Strided<'a, T> {
    pointer: *mut T,
    rows: usize,
    columns: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<'a, T> Strided<'a, T> {
    /// Returns `rows` rows of `columns` numbers, `stride` numbers apart.
    pub(crate) fn new(numbers: &'a mut [T], rows: usize, columns: usize, stride: usize) -> Self {
        let shared = SharedSlice::new(numbers);
        // SAFETY: the slice is borrowed exclusively.
        unsafe { shared.strided(0, rows, columns, stride) }
    }

    /// Returns the number of rows.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of columns.
    #[inline(always)]
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Returns the distance between rows, in numbers.
    #[inline(always)]
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Returns a pointer to a number. It is valid if row and column are.
    #[inline(always)]
    pub(crate) fn pointer(&self, row: usize, column: usize) -> *mut T {
        self.pointer.wrapping_add(row * self.stride + column)
    }

    /// Returns a row.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "invariant: inside the matrix");
        // SAFETY: inside the numbers, which only this value may write.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(row, 0), self.columns) }
    }
}

#[cfg(test)]
thread_local! {
    static TAKEN_BYTES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Returns the total bytes of all buffers that this thread has allocated so far.
#[cfg(test)]
pub(crate) fn taken_bytes() -> u64 {
    TAKEN_BYTES.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_matrix_are_what_they_are_and_lie_inside() {
        let mut numbers: Vec<usize> = (0..20).collect();
        let shared = SharedSlice::new(&mut numbers);
        // SAFETY: the two share no column.
        let (mut left, mut right) = unsafe { (shared.strided(0, 3, 2, 8), shared.strided(2, 3, 2, 8)) };
        left.row(1).copy_from_slice(right.row(2));
        assert_eq!((left.rows(), left.columns()), (3, 2));
        assert_eq!((left.row(1), right.row(0)), (&mut [18, 19][..], &mut [2, 3][..]));
        const HUGE: usize = usize::MAX;
        // The last three are too large, or wrap to an end inside the slice.
        for (first, rows, columns, stride) in [
            (3, 3, 2, 8),
            (0, 4, 2, 8),
            (0, 2, 9, 8),
            (21, 0, 0, 8),
            (0, 2, 1, HUGE),
            (0, 3, 1, HUGE / 2 + 1),
            (0, 1, HUGE, 8),
        ] {
            // SAFETY: nothing is accessed.
            let beyond = || unsafe { shared.strided(first, rows, columns, stride) }.rows();
            let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(beyond));
            assert!(found.is_err(), "{first} {rows} {columns} {stride}");
        }
    }
}
