//! Device memory in pieces, and small inputs that the host sends every step.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use ascend_sys::{ACL_MEM_MALLOC_HUGE_FIRST, ACL_MEMCPY_DEVICE_TO_HOST, ACL_MEMCPY_HOST_TO_DEVICE, call};

use glmbench_device::DeviceError;

use super::api::acl;
use super::context::Context;
use super::runtime::{Event, Stream};

/// Alignment of pieces in a shared chunk, as operators require, in bytes.
const ALIGNMENT: usize = 64;
/// Size of a chunk for small pieces, in bytes. A piece of a quarter of it or more gets its own chunk.
const CHUNK_BYTES: usize = 2 << 20;

/// Returns the bytes reserved for a piece of `len` bytes. The documentation asks for `ALIGN_UP(len, 32) + 32` for parts of
/// one allocation. The result also keeps the next piece aligned.
fn piece_bytes(len: usize) -> usize {
    (len.next_multiple_of(32) + 32).next_multiple_of(ALIGNMENT)
}

/// One allocation.
struct Chunk {
    context: Arc<Context>,
    start: *mut c_void,
    len: usize,
}

// SAFETY: an address; it is given back from a thread on which the device is set, or the library refuses.
unsafe impl Send for Chunk {}
// SAFETY: as above, and nothing in it changes.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(context: &Arc<Context>, len: usize, what: &str) -> Result<Arc<Self>, DeviceError> {
        let mut start = ptr::null_mut();
        let api = &context.api;
        // SAFETY: a place for the address.
        let taken = unsafe {
            acl!(api, api.libraries.rt, aclrtMalloc(&raw mut start, len, ACL_MEM_MALLOC_HUGE_FIRST))
        };
        match taken {
            Ok(()) => {
                api.ledger.take(context.ordinal(), len);
                Ok(Arc::new(Self { context: context.clone(), start, len }))
            }
            Err(DeviceError::OutOfMemory { device, what: call, .. }) => Err(DeviceError::OutOfMemory {
                device,
                what: format!("{what}, by {call}"),
                wanted_bytes: len,
            }),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.context.is_abandoned() {
            return;
        }
        let api = &self.context.api;
        api.ledger.give_back(self.context.ordinal(), self.len);
        // SAFETY: allocated by us; every piece of it is gone.
        let _ = unsafe { call!(api.libraries.rt, aclrtFree(self.start)) };
    }
}

/// Allocates device memory.
pub(super) struct Slab {
    context: Arc<Context>,
    /// The chunk being filled, and the bytes used so far.
    open: RefCell<Option<(Arc<Chunk>, usize)>>,
    next_id: RefCell<u64>,
}

/// Device memory of one owner.
pub(super) struct Buffer {
    chunk: Arc<Chunk>,
    offset: usize,
    len: usize,
    /// Unique per buffer. Never reused, even if the address is.
    pub(super) id: u64,
}

impl Slab {
    pub(super) fn new(context: &Arc<Context>) -> Self {
        Self { context: context.clone(), open: RefCell::new(None), next_id: RefCell::new(1) }
    }

    /// Allocates `len` uninitialised bytes. `what` names the purpose in the out-of-memory message.
    pub(super) fn take(&self, len: usize, what: &str) -> Result<Buffer, DeviceError> {
        let bytes = piece_bytes(len);
        let (chunk, offset) = if bytes >= CHUNK_BYTES / 4 {
            (Chunk::new(&self.context, bytes, what)?, 0)
        } else {
            let mut open = self.open.borrow_mut();
            let (chunk, used) = match open.take().filter(|(_, used)| used + bytes <= CHUNK_BYTES) {
                Some(open) => open,
                None => (Chunk::new(&self.context, CHUNK_BYTES, what)?, 0),
            };
            *open = Some((chunk.clone(), used + bytes));
            (chunk, used)
        };
        let mut next = self.next_id.borrow_mut();
        *next += 1;
        Ok(Buffer { chunk, offset, len, id: *next })
    }

    /// Closes the open chunk: the next small piece begins a new one.
    pub(super) fn close(&self) {
        self.open.take();
    }

    /// Allocates `bytes.len()` bytes and copies `bytes` there.
    pub(super) fn put(&self, bytes: &[u8], what: &str) -> Result<Buffer, DeviceError> {
        let buffer = self.take(bytes.len(), what)?;
        buffer.write(0, bytes)?;
        Ok(buffer)
    }
}

impl Buffer {
    /// Returns the address of byte `offset`.
    pub(super) fn at(&self, offset: usize) -> *mut c_void {
        assert!(offset <= self.len, "invariant: byte {offset} lies in the buffer's {}", self.len);
        self.chunk.start.wrapping_byte_add(self.offset + offset)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Copies from the host, synchronously. No queued work may use the range.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        assert!(offset + bytes.len() <= self.len, "invariant: the bytes fit the buffer");
        if bytes.is_empty() {
            return Ok(());
        }
        let api = &self.chunk.context.api;
        let (count, source) = (bytes.len(), bytes.as_ptr().cast());
        let room = self.len - offset;
        // SAFETY: both ends hold the bytes.
        unsafe {
            let kind = ACL_MEMCPY_HOST_TO_DEVICE;
            acl!(api, api.libraries.rt, aclrtMemcpy(self.at(offset), room, source, count, kind))
        }
    }

    /// Copies to the host, synchronously. Work that writes the range must have been waited for.
    pub(super) fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        assert!(offset + bytes.len() <= self.len, "invariant: the bytes are in the buffer");
        if bytes.is_empty() {
            return Ok(());
        }
        let api = &self.chunk.context.api;
        let (count, target) = (bytes.len(), bytes.as_mut_ptr().cast());
        // SAFETY: both ends hold the bytes.
        unsafe {
            let kind = ACL_MEMCPY_DEVICE_TO_HOST;
            acl!(api, api.libraries.rt, aclrtMemcpy(target, count, self.at(offset), count, kind))
        }
    }

    /// Fills the buffer with zeros, synchronously.
    pub(super) fn clear(&self) -> Result<(), DeviceError> {
        let api = &self.chunk.context.api;
        // SAFETY: the buffer is ours.
        unsafe { acl!(api, api.libraries.rt, aclrtMemset(self.at(0), self.len, 0, self.len)) }
    }
}

/// Granularity of pinned memory for results, in bytes.
const PINNED_UNIT: usize = 64 << 10;

/// Page-locked host memory for results from the device. It grows on demand.
#[derive(Default)]
pub(super) struct Outbox(Option<Pinned>);

impl Outbox {
    /// Copies `len` bytes to the host, after all queued work. `from` is a multiple of 64 with at least `len` bytes behind
    /// it.
    pub(super) fn receive(
        &mut self,
        context: &Arc<Context>,
        stream: &Stream,
        from: *mut c_void,
        len: usize,
    ) -> Result<&[u8], DeviceError> {
        if len == 0 {
            stream.synchronize()?;
            return Ok(&[]);
        }
        if self.0.as_ref().is_none_or(|pinned| pinned.len < len) {
            self.0 = None;
            self.0 = Some(Pinned::new(context, len.next_multiple_of(PINNED_UNIT))?);
        }
        let pinned = self.0.as_ref().expect("invariant: just made");
        // SAFETY: both places hold the bytes, and the copy is waited for before anything else happens to them.
        let queued = unsafe { stream.copy(pinned.start, from, len, ACL_MEMCPY_DEVICE_TO_HOST) };
        if let Err(error) = queued.and_then(|()| stream.synchronize()) {
            // The copy may still write the memory, so it is freed only once nothing runs.
            let _ = stream.quiesce();
            return Err(error);
        }
        // SAFETY: ours, of that length, written by the copy, and nothing else writes it before the next call.
        Ok(unsafe { std::slice::from_raw_parts(pinned.start.cast::<u8>(), len) })
    }
}

/// Page-locked host memory.
struct Pinned {
    context: Arc<Context>,
    start: *mut c_void,
    len: usize,
}

impl Pinned {
    fn new(context: &Arc<Context>, len: usize) -> Result<Self, DeviceError> {
        let mut start = ptr::null_mut();
        let api = &context.api;
        // SAFETY: a place for the address.
        unsafe { acl!(api, api.libraries.rt, aclrtMallocHost(&raw mut start, len)) }?;
        Ok(Self { context: context.clone(), start, len })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.context.is_abandoned() {
            return;
        }
        // SAFETY: allocated by us.
        let _ = unsafe { call!(self.context.api.libraries.rt, aclrtFreeHost(self.start)) };
    }
}

/// Copies that may be in flight at once.
const SLOTS: usize = 4;

/// A device buffer that the host refills every step, in stream order: earlier work still sees the earlier content.
pub(super) struct Inbox {
    what: &'static str,
    device: Option<Buffer>,
    slots: Vec<(Pinned, Event)>,
    next: usize,
}

impl Inbox {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, device: None, slots: Vec::new(), next: 0 }
    }

    /// Returns the device's side.
    pub(super) fn buffer(&self) -> &Buffer {
        self.device.as_ref().expect("invariant: something was sent")
    }

    /// Queues a copy of `len` bytes, which `fill` writes.
    pub(super) fn send(
        &mut self,
        slab: &Slab,
        stream: &Stream,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DeviceError> {
        let sent = self.try_send(slab, stream, len, fill);
        if sent.is_err() {
            // A slot may lack its event, so all slots are recreated, once no copy reads them.
            let _ = stream.quiesce();
            self.slots.clear();
            self.next = 0;
        }
        sent
    }

    fn try_send(
        &mut self,
        slab: &Slab,
        stream: &Stream,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DeviceError> {
        if self.device.as_ref().is_none_or(|device| device.len() < len) {
            self.grow(slab, stream, len.next_power_of_two().max(256))?;
        }
        let slot = self.next % SLOTS;
        let context = &slab.context;
        // All slots are created at once and marked as used. So each step makes the same calls, whatever was sent before.
        while self.slots.len() < SLOTS {
            let pinned = Pinned::new(context, self.buffer().len())?;
            let event = Event::new(context)?;
            event.record(stream)?;
            self.slots.push((pinned, event));
        }
        self.slots[slot].1.synchronize()?;
        let (pinned, event) = &self.slots[slot];
        assert!(len <= pinned.len, "invariant: slots are as long as the device's side");
        // SAFETY: ours, of that length, and the copy that last read it is done.
        fill(unsafe { std::slice::from_raw_parts_mut(pinned.start.cast::<u8>(), len) });
        // SAFETY: the slot is written again only after its event.
        unsafe { stream.copy(self.buffer().at(0), pinned.start, len, ACL_MEMCPY_HOST_TO_DEVICE) }?;
        event.record(stream)?;
        self.next += 1;
        Ok(())
    }

    /// Queues a copy of 32-bit words.
    pub(super) fn send_words(
        &mut self,
        slab: &Slab,
        stream: &Stream,
        words: &[i32],
    ) -> Result<(), DeviceError> {
        self.send(slab, stream, words.len() * 4, |bytes| bytes.copy_from_slice(bytemuck::cast_slice(words)))
    }

    fn grow(&mut self, slab: &Slab, stream: &Stream, len: usize) -> Result<(), DeviceError> {
        // Queued work may still use the old buffer.
        stream.synchronize()?;
        self.slots.clear();
        self.next = 0;
        self.device = Some(slab.take(len, self.what)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_keep_the_documented_distance() {
        for (len, bytes) in [(1, 64), (32, 64), (33, 128), (64, 128), (96, 128), (97, 192), (4096, 4160)] {
            assert_eq!(piece_bytes(len), bytes, "{len}");
            assert!(piece_bytes(len) >= len.next_multiple_of(32) + 32);
        }
    }
}
