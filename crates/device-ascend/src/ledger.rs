//! How much device memory this process holds.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Device memory that this process holds, by the chip's ordinal.
#[derive(Default)]
pub(super) struct Ledger(Mutex<BTreeMap<i32, Held>>);

/// Memory held on a chip: bytes now, and the most since the peak was last forgotten.
#[derive(Default, Clone, Copy)]
struct Held {
    now: u64,
    peak: u64,
}

impl Ledger {
    fn with(&self, ordinal: i32, change: impl FnOnce(&mut Held)) {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(ordinal).or_default());
    }

    pub(super) fn take(&self, ordinal: i32, bytes: usize) {
        self.with(ordinal, |held| {
            held.now += bytes as u64;
            held.peak = held.peak.max(held.now);
        });
    }

    pub(super) fn give_back(&self, ordinal: i32, bytes: usize) {
        self.with(ordinal, |held| held.now = held.now.saturating_sub(bytes as u64));
    }

    /// Forgets the peak: what is held now is the most.
    pub(super) fn forget_peak(&self, ordinal: i32) {
        self.with(ordinal, |held| held.peak = held.now);
    }

    /// Returns how many bytes more than now were held at the peak.
    pub(super) fn above_now(&self, ordinal: i32) -> u64 {
        let mut above = 0;
        self.with(ordinal, |held| above = held.peak - held.now);
        above
    }
}
