//! Operator timing: a device that times every operator of another device.
//!
//! [`Timed`] is a [`Hooked`] device. A model loaded without it has no overhead. Besides the time, it counts the minimum work of
//! each operator ([`cost`](super::cost)).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::cost::Work;
use super::group::DeviceGroup;
use super::hooked::{Hooked, Hooks};
use super::operator::Operator;
use super::sensors::Sensors;
use super::{Device, DeviceError, LinearWeight, Role};

/// Time and minimum work of one operator.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OperatorTotals {
    /// Number of calls.
    pub calls: u64,
    /// Total time in nanoseconds.
    pub time_ns: u64,
    /// Bytes of weights, embedding rows and KV cache.
    pub bytes: u64,
    /// Multiplications and additions of matrix products and attention.
    pub flops: u64,
}

impl std::ops::AddAssign for OperatorTotals {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.time_ns += other.time_ns;
        self.bytes += other.bytes;
        self.flops += other.flops;
    }
}

/// The totals of a [`Timed`] device. The driver of the model shares it, and empties it after each step.
#[derive(Debug, Default)]
pub struct OperatorClock(Mutex<[OperatorTotals; Operator::ALL.len()]>);

impl OperatorClock {
    fn add(&self, operator: Operator, one: OperatorTotals) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[operator as usize] += one;
    }

    /// Returns the totals since the last call and resets them. Operators without calls are left out.
    pub fn take(&self) -> Vec<(Operator, OperatorTotals)> {
        let totals = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Operator::ALL.into_iter().zip(totals).filter(|(_, totals)| totals.calls > 0).collect()
    }
}

/// The hooks that time operators.
#[derive(Debug)]
pub struct Timing {
    /// `None` for ranks that are not timed.
    clock: Option<Arc<OperatorClock>>,
}

/// A device whose operators are timed.
pub type Timed<D> = Hooked<D, Timing>;

impl Timing {
    /// Times with `clock`. Without one, every call is only forwarded.
    pub fn new(clock: Option<Arc<OperatorClock>>) -> Self {
        Self { clock }
    }
}

impl<D: Device> Hooks<D> for Timing {
    type Mark = ();

    fn mark(&self, _: Role, _: &LinearWeight<'_>) {}

    fn run<T>(
        &mut self,
        device: &mut D,
        operator: Operator,
        Work { bytes, flops }: Work,
        call: impl FnOnce(&mut D) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let Some(clock) = &self.clock else { return call(device) };
        let start = Instant::now();
        let result = call(device);
        let time_ns = start.elapsed().as_nanos() as u64;
        clock.add(operator, OperatorTotals { calls: 1, time_ns, bytes, flops });
        result
    }
}

/// A group whose first rank is timed. All ranks do the same work, so one is representative.
#[derive(Debug)]
pub struct TimedGroup<G> {
    group: G,
    clock: Arc<OperatorClock>,
}

impl<G> TimedGroup<G> {
    /// Times the first rank of `group`.
    pub fn new(group: G, clock: Arc<OperatorClock>) -> Self {
        Self { group, clock }
    }
}

impl<G: DeviceGroup> DeviceGroup for TimedGroup<G> {
    type Device = Timed<G::Device>;

    fn name(&self) -> &'static str {
        self.group.name()
    }

    fn tp(&self) -> usize {
        self.group.tp()
    }

    fn device(&self, rank: usize) -> Result<Self::Device, DeviceError> {
        let clock = (rank == 0).then(|| Arc::clone(&self.clock));
        Ok(Timed::new(self.group.device(rank)?, Timing::new(clock)))
    }

    fn abort(&self) {
        self.group.abort();
    }

    fn sensors(&self) -> Option<Box<dyn Sensors>> {
        self.group.sensors()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_empty_once_it_was_read() {
        let clock = OperatorClock::default();
        let one = OperatorTotals { calls: 1, time_ns: 5, bytes: 7, flops: 9 };
        clock.add(Operator::Norm, one);
        clock.add(Operator::Norm, one);
        let two = OperatorTotals { calls: 2, time_ns: 10, bytes: 14, flops: 18 };
        assert_eq!(clock.take(), [(Operator::Norm, two)]);
        assert_eq!(clock.take(), []);
    }
}
