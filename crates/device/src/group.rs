//! Groups of devices that compute one model together, one rank per device.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::sensors::Sensors;
use super::{Device, DeviceError};

/// Creates the devices of a tensor-parallel group.
pub trait DeviceGroup: Send + Sync + 'static {
    /// The device of a rank.
    type Device: Device + 'static;

    /// Returns the name used on the command line.
    fn name(&self) -> &'static str;

    /// Returns the number of ranks.
    fn tp(&self) -> usize;

    /// Creates the device of one rank. Called once per rank, on the thread that will use and drop the device.
    ///
    /// # Errors
    /// The device is not available.
    fn device(&self, rank: usize) -> Result<Self::Device, DeviceError>;

    /// Reports that a rank has failed. Every current and later wait in [`Device::all_reduce`] returns an error.
    fn abort(&self);

    /// Returns a reader of the device sensors, which runs beside the ranks; `None` if no sensors are supported.
    fn sensors(&self) -> Option<Box<dyn Sensors>> {
        None
    }
}

/// Spin iterations before a waiting rank sleeps, if every rank has a core: some tens of microseconds.
const SPINS: u32 = 4000;

/// All-reduce over ranks that share this process's memory.
///
/// Every rank copies its numbers to its own slot, waits for the others, and adds up all slots. There are two sets of
/// slots, used in turn. A rank that is ahead writes to one set while others still read the other. It cannot get further
/// ahead before they have finished reading, so one barrier per sum is enough.
#[derive(Debug)]
pub struct HostSum {
    device: &'static str,
    places: [Vec<RwLock<Vec<f32>>>; 2],
    barrier: Barrier,
}

impl HostSum {
    /// Creates the slots of `tp` ranks. `device` names the device in errors.
    pub fn new(device: &'static str, tp: usize) -> Arc<Self> {
        let places = || (0..tp).map(|_| RwLock::default()).collect();
        Arc::new(Self { device, places: [places(), places()], barrier: Barrier::new(tp) })
    }

    /// Returns the handle of one rank.
    pub fn communicator(self: &Arc<Self>, rank: usize) -> Communicator {
        Communicator { sum: Arc::clone(self), rank, turn: 0 }
    }

    /// Makes every current and later wait fail with an error.
    pub fn abort(&self) {
        self.barrier.abort();
    }
}

/// The handle of one rank to a [`HostSum`].
#[derive(Debug)]
pub struct Communicator {
    sum: Arc<HostSum>,
    rank: usize,
    turn: usize,
}

impl Communicator {
    /// Publishes this rank's numbers, waits for the other ranks, and returns the numbers of all ranks.
    ///
    /// # Errors
    /// Another rank has failed.
    pub fn exchange(&mut self, mine: &[f32]) -> Result<Parts<'_>, DeviceError> {
        let places = &self.sum.places[self.turn % 2];
        let mut place = places[self.rank].write().unwrap_or_else(PoisonError::into_inner);
        place.clear();
        place.extend_from_slice(mine);
        drop(place);
        self.turn += 1;
        if !self.sum.barrier.wait() {
            return Err(DeviceError::Lost {
                device: self.sum.device,
                message: "another of its ranks has failed".into(),
            });
        }
        Ok(Parts(places.iter().map(|p| p.read().unwrap_or_else(PoisonError::into_inner)).collect()))
    }
}

/// The numbers of all ranks.
#[derive(Debug)]
pub struct Parts<'a>(Vec<RwLockReadGuard<'a, Vec<f32>>>);

impl Parts<'_> {
    /// Returns the number of ranks.
    pub fn tp(&self) -> usize {
        self.0.len()
    }

    /// Returns the numbers of one rank.
    pub fn of(&self, rank: usize) -> &[f32] {
        &self.0[rank]
    }
}

/// A barrier. Unlike [`std::sync::Barrier`], it spins before it sleeps and can be aborted.
#[derive(Debug)]
struct Barrier {
    tp: usize,
    spins: u32,
    here: AtomicUsize,
    round: AtomicUsize,
    aborted: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Barrier {
    fn new(tp: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self {
            tp,
            // With more ranks than cores, spinning would only keep other ranks off their cores.
            spins: if tp <= cores { SPINS } else { 0 },
            here: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            aborted: AtomicBool::new(false),
            lock: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Waits until all ranks have arrived. Returns `false` if the barrier was aborted.
    fn wait(&self) -> bool {
        // The round cannot end before this rank arrives, so this is the current round.
        let round = self.round.load(Ordering::Acquire);
        if self.here.fetch_add(1, Ordering::AcqRel) + 1 == self.tp {
            self.here.store(0, Ordering::Relaxed);
            self.change(|| {
                self.round.fetch_add(1, Ordering::Release);
            });
        } else {
            self.sleep_while(|| self.round.load(Ordering::Acquire) == round && !self.is_aborted());
        }
        !self.is_aborted()
    }

    fn abort(&self) {
        self.change(|| self.aborted.store(true, Ordering::Release));
    }

    fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::Acquire)
    }

    fn guard(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change under the lock, so that no rank about to sleep misses it, and wakes all ranks.
    fn change(&self, change: impl FnOnce()) {
        let guard = self.guard();
        change();
        drop(guard);
        self.wake.notify_all();
    }

    fn sleep_while(&self, waiting: impl Fn() -> bool) {
        for _ in 0..self.spins {
            if !waiting() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut guard = self.guard();
        while waiting() {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_sees_the_numbers_of_all_in_order_round_after_round() {
        for tp in [1, 2, 3, 5] {
            let sum = HostSum::new("test", tp);
            std::thread::scope(|scope| {
                for rank in 0..tp {
                    let mut communicator = sum.communicator(rank);
                    scope.spawn(move || {
                        for round in 0..200 {
                            let parts = communicator.exchange(&[(round * tp + rank) as f32; 3]).unwrap();
                            for of in 0..parts.tp() {
                                assert_eq!(parts.of(of), [(round * tp + of) as f32; 3]);
                            }
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn an_abort_wakes_who_sleeps_and_refuses_who_comes() {
        let sum = HostSum::new("test", 3);
        std::thread::scope(|scope| {
            let waiting: Vec<_> = (0..2)
                .map(|rank| {
                    let mut communicator = sum.communicator(rank);
                    scope.spawn(move || communicator.exchange(&[1.0]).map(drop))
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(20));
            sum.abort();
            for rank in waiting {
                let error = rank.join().unwrap().unwrap_err();
                assert!(matches!(error, DeviceError::Lost { device: "test", .. }), "{error}");
            }
        });
        assert!(sum.communicator(2).exchange(&[1.0]).is_err());
    }
}
