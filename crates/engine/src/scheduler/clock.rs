//! The engine's clock: reading it, and waiting.

use std::time::Duration;

use super::Engine;
use crate::EngineError;

/// The last part of a wait, which spins instead of sleeping.
const SPIN: Duration = Duration::from_micros(200);

impl Engine {
    /// Returns the nanoseconds on the engine's clock: the device's virtual clock if it has one, else real time.
    pub fn now_ns(&self) -> u64 {
        self.model.modelled_ns().unwrap_or_else(|| self.clock.elapsed().as_nanos() as u64)
    }

    /// Idles until [`Engine::now_ns`] reaches `ns`: the thread sleeps, or the device advances its virtual clock.
    ///
    /// # Errors
    /// The device has a virtual clock that does not advance while idle.
    pub fn wait_until(&mut self, ns: u64) -> Result<(), EngineError> {
        let Some(now_ns) = self.model.modelled_ns() else {
            self.sleep_until(ns);
            return Ok(());
        };
        self.model.idle(ns.saturating_sub(now_ns));
        if self.now_ns() < ns {
            let device = self.model.device_info().name;
            return Err(EngineError::Option(format!(
                "device {device} keeps a virtual clock that does not move while it is idle; arrivals over time need one that does"
            )));
        }
        Ok(())
    }

    /// Sleeps most of the wait and spins for the rest, because a sleep ends some tens of microseconds late.
    fn sleep_until(&self, ns: u64) {
        let left = Duration::from_nanos(ns.saturating_sub(self.now_ns()));
        if let Some(sleep) = left.checked_sub(SPIN) {
            std::thread::sleep(sleep);
        }
        while self.now_ns() < ns {
            std::hint::spin_loop();
        }
    }
}
