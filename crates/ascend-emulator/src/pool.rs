//! Handles: slots that are never returned to the allocator, so that stale pointers can be detected.
//!
//! A slot carries a magic word (its kind and whether it is alive) and the epoch in which it was created. Freed slots
//! wait in a per-thread queue before they are reused. A handle used after its destruction is therefore seen as dead,
//! not as another handle.

use std::cell::{RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::LocalKey;

use crate::registry::lock;

/// Freed slots that a thread holds back before it reuses one.
const QUARANTINE: usize = 64;
/// Slots allocated at once.
const CHUNK: usize = 32;

/// Current epoch. Every reset increments it, which kills all earlier handles.
pub(crate) static EPOCH: AtomicU64 = AtomicU64::new(1);

/// A type that lives in slots.
pub(crate) trait Pooled: Default + 'static {
    /// Magic word of the kind. Its lowest bit is zero, because that bit means "alive".
    const MAGIC: u32;
    /// Name of the kind in messages.
    const WORD: &'static str;
    /// The thread's freed slots.
    fn free_list() -> &'static LocalKey<FreeList<Self>>;
    /// All chunks, and the slots of threads that have ended.
    fn arena() -> &'static Mutex<Arena>;
    /// Number of live handles.
    fn live() -> &'static Counter;
    /// Drops the contents. Memory may be kept for the next use.
    fn clear(&mut self);
}

/// Slots that belong to no thread, by address.
#[derive(Default)]
pub(crate) struct Arena {
    /// First slot of every chunk ever allocated.
    chunks: Vec<usize>,
    /// Slots available for reuse.
    orphans: Vec<usize>,
}

impl Arena {
    /// Creates an empty arena.
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), orphans: Vec::new() }
    }
}

/// One handle.
#[repr(C)]
pub(crate) struct Slot<T> {
    magic: AtomicU32,
    uses: AtomicU32,
    epoch: AtomicU64,
    value: UnsafeCell<T>,
}

/// Freed slots of one thread. When the thread ends, other threads may use them.
pub(crate) struct FreeList<T: Pooled>(RefCell<Free<T>>);

struct Free<T> {
    /// Previously used slots, the longest free first.
    used: VecDeque<*mut Slot<T>>,
    /// Never used.
    fresh: Vec<*mut Slot<T>>,
}

impl<T: Pooled> Default for FreeList<T> {
    fn default() -> Self {
        Self(RefCell::new(Free { used: VecDeque::new(), fresh: Vec::new() }))
    }
}

impl<T: Pooled> Drop for FreeList<T> {
    fn drop(&mut self) {
        let free = self.0.borrow();
        lock(T::arena()).orphans.extend(free.used.iter().chain(&free.fresh).map(|slot| *slot as usize));
    }
}

impl<T: Pooled> Free<T> {
    fn take(&mut self) -> *mut Slot<T> {
        if self.used.len() > QUARANTINE
            && let Some(slot) = self.used.pop_front()
        {
            return slot;
        }
        if self.fresh.is_empty() {
            self.fresh = chunk();
        }
        self.fresh.pop().unwrap_or(std::ptr::null_mut())
    }
}

/// Returns slots for a thread: left by ended threads if there are enough, otherwise a new chunk.
fn chunk<T: Pooled>() -> Vec<*mut Slot<T>> {
    let mut arena = lock(T::arena());
    if arena.orphans.len() > QUARANTINE {
        return arena.orphans.drain(..CHUNK).map(|slot| slot as *mut Slot<T>).collect();
    }
    let slots: Box<[Slot<T>]> = std::iter::repeat_with(Slot::default).take(CHUNK).collect();
    let first = Box::into_raw(slots).cast::<Slot<T>>();
    arena.chunks.push(first as usize);
    (0..CHUNK).map(|i| first.wrapping_add(i)).collect()
}

/// After a reset, drops the contents of handles from earlier epochs and makes their slots reusable.
pub(crate) fn reclaim<T: Pooled>() {
    let epoch = EPOCH.load(Ordering::Acquire);
    let mut arena = lock(T::arena());
    let slots: Vec<usize> = arena
        .chunks
        .iter()
        .flat_map(|first| (0..CHUNK).map(|i| (*first as *mut Slot<T>).wrapping_add(i) as usize))
        .collect();
    for address in slots {
        // SAFETY: slots of the arena stay; a dead epoch's handle is used by nobody.
        let slot = unsafe { &*(address as *const Slot<T>) };
        let old = slot.epoch.load(Ordering::Relaxed) != epoch;
        if old && slot.magic.swap(T::MAGIC, Ordering::AcqRel) == T::MAGIC | 1 {
            // SAFETY: as above, and this is the only place that saw it alive.
            unsafe { (*slot.value.get()).clear() };
            arena.orphans.push(address);
        }
    }
    T::live().reset();
}

/// Counter that avoids a shared cache line: threads are spread over 16 padded cells.
pub(crate) struct Counter([Padded; 16]);

#[repr(align(128))]
struct Padded(AtomicI64);

static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SHARD: usize = NEXT_SHARD.fetch_add(1, Ordering::Relaxed) % 16;
}

impl Counter {
    /// Creates a counter at zero.
    pub(crate) const fn new() -> Self {
        Self([const { Padded(AtomicI64::new(0)) }; 16])
    }

    /// Adds `n`. Any thread may call this.
    pub(crate) fn add(&self, n: i64) {
        let shard = SHARD.try_with(|s| *s).unwrap_or(0);
        self.0[shard].0.fetch_add(n, Ordering::Relaxed);
    }

    /// Returns the sum of the cells.
    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|p| p.0.load(Ordering::Relaxed)).sum::<i64>().max(0) as u64
    }

    /// Resets the counter to zero.
    pub(crate) fn reset(&self) {
        self.0.iter().for_each(|p| p.0.store(0, Ordering::Relaxed));
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self::new()
    }
}

/// Implements [`Pooled`] for a type, and declares the statics that it needs.
macro_rules! pooled {
    ($kind:ty, $magic:expr, $word:expr, |$value:ident| $clear:expr) => {
        const _: () = {
            use std::sync::Mutex;
            use $crate::pool::{Arena, Counter, FreeList, Pooled};
            thread_local! {
                static FREE: FreeList<$kind> = FreeList::default();
            }
            static ARENA: Mutex<Arena> = Mutex::new(Arena::new());
            static LIVE: Counter = Counter::new();
            impl Pooled for $kind {
                const MAGIC: u32 = u32::from_le_bytes(*$magic) & !1;
                const WORD: &'static str = $word;
                fn free_list() -> &'static std::thread::LocalKey<FreeList<Self>> {
                    &FREE
                }
                fn arena() -> &'static Mutex<Arena> {
                    &ARENA
                }
                fn live() -> &'static Counter {
                    &LIVE
                }
                fn clear(&mut self) {
                    let $value = self;
                    $clear
                }
            }
        };
    };
}
pub(crate) use pooled;

/// Creates a handle. `fill` sets the value, which is either new or cleared.
pub(crate) fn create<T: Pooled>(fill: impl FnOnce(&mut T)) -> *mut Slot<T> {
    let taken = T::free_list().try_with(|list| list.0.borrow_mut().take());
    let slot = taken.unwrap_or_else(|_| chunk().pop().unwrap_or(std::ptr::null_mut()));
    // SAFETY: slots are never freed, and this one is in no list: nobody else has it.
    unsafe {
        fill(&mut *(*slot).value.get());
        (*slot).uses.fetch_add(1, Ordering::Relaxed);
        (*slot).epoch.store(EPOCH.load(Ordering::Relaxed), Ordering::Relaxed);
        (*slot).magic.store(T::MAGIC | 1, Ordering::Release);
    }
    T::live().add(1);
    slot
}

/// Why a pointer is not a live handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dead {
    /// Null.
    Null,
    /// Not a handle of this kind.
    Foreign,
    /// A handle of this kind, already destroyed.
    Destroyed,
}

impl Dead {
    /// Text for the message.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Null => "is null",
            Self::Foreign => "is no handle of this kind",
            Self::Destroyed => "was destroyed before",
        }
    }
}

/// Returns the live handle behind a pointer from C.
///
/// # Safety
/// `pointer` is null, small, or points to at least 24 readable bytes: any handle this library ever made does.
pub(crate) unsafe fn get<'a, T: Pooled>(pointer: *const Slot<T>) -> Result<&'a Slot<T>, Dead> {
    if pointer.is_null() {
        return Err(Dead::Null);
    }
    if (pointer as usize) < 4096 || !pointer.is_aligned() {
        return Err(Dead::Foreign);
    }
    // SAFETY: the caller's promise; slots are never freed.
    let slot = unsafe { &*pointer };
    let magic = slot.magic.load(Ordering::Acquire);
    if magic & !1 != T::MAGIC {
        return Err(Dead::Foreign);
    }
    if magic & 1 == 0 || slot.epoch.load(Ordering::Relaxed) != EPOCH.load(Ordering::Relaxed) {
        return Err(Dead::Destroyed);
    }
    Ok(slot)
}

impl<T: Default> Default for Slot<T> {
    fn default() -> Self {
        Self {
            magic: AtomicU32::new(0),
            uses: AtomicU32::new(0),
            epoch: AtomicU64::new(0),
            value: UnsafeCell::new(T::default()),
        }
    }
}

impl<T: Pooled> Slot<T> {
    /// The value.
    pub(crate) fn value(&self) -> &T {
        // SAFETY: writers are `create`, before anybody has the handle, `update` and `destroy`. A caller that destroys a
        // handle on one thread while another uses it breaks the contract of the ABI.
        unsafe { &*self.value.get() }
    }

    /// Changes the value.
    ///
    /// # Safety
    /// Nobody else uses the handle now.
    pub(crate) unsafe fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: the caller's promise.
        change(unsafe { &mut *self.value.get() })
    }

    /// Number of times the slot was handed out. Distinguishes this handle from a later one at the same address.
    pub(crate) fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Destroys the handle.
    pub(crate) fn destroy(&self) {
        if self.magic.swap(T::MAGIC, Ordering::AcqRel) != T::MAGIC | 1 {
            return;
        }
        // SAFETY: the word above went from alive to dead exactly once, here.
        unsafe { (*self.value.get()).clear() };
        T::live().add(-1);
        let pointer = std::ptr::from_ref(self).cast_mut();
        let _ = T::free_list().try_with(|list| list.0.borrow_mut().used.push_back(pointer));
    }
}
