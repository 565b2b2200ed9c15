//! Devices that compute one model together: a rank each.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::sensors::Sensors;
use super::{Device, DeviceError};

/// Makes the devices of a tensor-parallel group.
pub trait DeviceGroup: Send + Sync + 'static {
    /// What a rank computes on.
    type Device: Device + 'static;

    /// The word of the command line.
    fn name(&self) -> &'static str;

    /// Ranks.
    fn world(&self) -> usize;

    /// The device of one rank. Called once for each, on the thread that will use it and drop it.
    ///
    /// # Errors
    /// The device cannot be had.
    fn device(&self, rank: usize) -> Result<Self::Device, DeviceError>;

    /// A rank has failed: wakes up, with an error, all that wait for it in [`Device::all_reduce`], now and later.
    fn abort(&self);

    /// What reads the devices' sensors beside the ranks; `None` where there are none that we read.
    fn sensors(&self) -> Option<Box<dyn Sensors>> {
        None
    }
}

/// Turns of the spin loop before a waiting rank sleeps, where each has a core: some tens of microseconds.
const SPINS: u32 = 4000;

/// Sums over ranks that share this process's memory.
///
/// Every rank copies its numbers into a place of its own, waits for the others, and adds up what lies in all places. There
/// are two sets of places, used in turn: a rank that is ahead writes into one while others still read the other, and gets no
/// further before they have read that, so one meeting a sum is enough.
#[derive(Debug)]
pub struct HostSum {
    device: &'static str,
    places: [Vec<RwLock<Vec<f32>>>; 2],
    meeting: Meeting,
}

impl HostSum {
    /// For `world` ranks on `device`.
    pub fn new(device: &'static str, world: usize) -> Arc<Self> {
        let places = || (0..world).map(|_| RwLock::default()).collect();
        Arc::new(Self { device, places: [places(), places()], meeting: Meeting::new(world) })
    }

    /// The seat of one rank.
    pub fn seat(self: &Arc<Self>, rank: usize) -> Seat {
        Seat { sum: Arc::clone(self), rank, turn: 0 }
    }

    /// Wakes up every rank that waits or will wait, with an error.
    pub fn abort(&self) {
        self.meeting.abort();
    }
}

/// One rank's access to a [`HostSum`].
#[derive(Debug)]
pub struct Seat {
    sum: Arc<HostSum>,
    rank: usize,
    turn: usize,
}

impl Seat {
    /// Lays this rank's numbers out for the others, waits for theirs, and gives all of them.
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
        if !self.sum.meeting.wait() {
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
    /// Ranks.
    pub fn world(&self) -> usize {
        self.0.len()
    }

    /// Those of one rank.
    pub fn of(&self, rank: usize) -> &[f32] {
        &self.0[rank]
    }
}

/// Where ranks wait for each other. Unlike [`std::sync::Barrier`] it spins before it sleeps, and it can be called off.
#[derive(Debug)]
struct Meeting {
    world: usize,
    spins: u32,
    here: AtomicUsize,
    round: AtomicUsize,
    aborted: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Meeting {
    fn new(world: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self {
            world,
            // A rank without a core would only keep the others from theirs.
            spins: if world <= cores { SPINS } else { 0 },
            here: AtomicUsize::new(0),
            round: AtomicUsize::new(0),
            aborted: AtomicBool::new(false),
            lock: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Returns when all ranks are here; `false` once the meeting is called off.
    fn wait(&self) -> bool {
        // The round cannot end before this rank has come.
        let round = self.round.load(Ordering::Acquire);
        if self.here.fetch_add(1, Ordering::AcqRel) + 1 == self.world {
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

    /// Makes a change under the lock, so that nobody about to sleep misses it, and wakes all.
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
        for world in [1, 2, 3, 5] {
            let sum = HostSum::new("test", world);
            std::thread::scope(|scope| {
                for rank in 0..world {
                    let mut seat = sum.seat(rank);
                    scope.spawn(move || {
                        for round in 0..200 {
                            let parts = seat.exchange(&[(round * world + rank) as f32; 3]).unwrap();
                            for of in 0..parts.world() {
                                assert_eq!(parts.of(of), [(round * world + of) as f32; 3]);
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
                    let mut seat = sum.seat(rank);
                    scope.spawn(move || seat.exchange(&[1.0]).map(drop))
                })
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(20));
            sum.abort();
            for rank in waiting {
                let error = rank.join().unwrap().unwrap_err();
                assert!(matches!(error, DeviceError::Lost { device: "test", .. }), "{error}");
            }
        });
        assert!(sum.seat(2).exchange(&[1.0]).is_err());
    }
}
