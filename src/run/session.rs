//! What the cases of one engine share: the engine, the run directory, the clock and the observer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use glmbench_device::{DeviceInfo, DeviceName};

use crate::backend::{Backend, MetricSample};
use crate::record::{Clock, RecordError, RunDir, ServerMetricRow, TaskWork, TelemetryRow};

use super::case_probe::CaseProbe;
use super::error::RunError;
use super::observer::Observer;
use super::{machine, telemetry};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every case has its lines.
    Complete,
    /// Stopped by the user; can be resumed.
    Interrupted,
}

/// The parts of a run that outlive an engine.
pub(super) struct Shared<'a> {
    pub(super) dir: &'a mut RunDir,
    pub(super) observer: &'a mut dyn Observer,
    pub(super) stop: &'a AtomicBool,
    pub(super) probe: Option<CaseProbe>,
    pub(super) work: &'a mut BTreeMap<String, TaskWork>,
}

/// State shared by the cases of one engine.
pub(crate) struct Session<'a> {
    pub(crate) engine: &'a mut dyn Backend,
    pub(crate) dir: &'a mut RunDir,
    pub(crate) observer: &'a mut dyn Observer,
    pub(crate) stop: &'a AtomicBool,
    /// Measures the machine's limits around repetitions, if targets need them.
    pub(crate) probe: Option<&'a CaseProbe>,
    /// Offset from the engine's clock to the run's clock, modulo 2⁶⁴. The run's clock continues where the recorded
    /// lines ended, whatever the engine's clock shows.
    pub(crate) offset_ns: u64,
    /// The engine ended with an error that has its line. A new engine continues.
    pub(crate) spent: bool,
    /// What the engine computed for each accuracy task.
    pub(crate) work: &'a mut BTreeMap<String, TaskWork>,
}

impl<'a> Session<'a> {
    pub(super) fn new(engine: &'a mut dyn Backend, shared: &'a mut Shared<'_>) -> Result<Self, RunError> {
        let offset_ns = shared.dir.recorded_until_ns()?.wrapping_sub(engine.now_ns());
        Ok(Self {
            engine,
            dir: shared.dir,
            observer: shared.observer,
            stop: shared.stop,
            probe: shared.probe.as_ref(),
            offset_ns,
            spent: false,
            work: shared.work,
        })
    }
}

impl Session<'_> {
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Converts a time on the engine clock to the run clock.
    pub(crate) fn run_ns(&self, engine_ns: u64) -> u64 {
        self.offset_ns.wrapping_add(engine_ns)
    }

    /// Returns the process's peak memory if the engine uses host memory; a card's memory is not the host's.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let device: Option<DeviceName> = self.engine.device_info().name.parse().ok();
        let on_host = device.is_some_and(DeviceName::is_in_process_memory);
        on_host.then(machine::peak_rss_bytes).flatten()
    }

    /// Returns the kind of the engine clock.
    pub(crate) fn clock(&self) -> Clock {
        clock_of(&self.engine.device_info())
    }

    /// Returns the current use of resources by the process and the devices.
    pub(crate) fn telemetry(&self) -> Vec<TelemetryRow> {
        telemetry::rows(self.engine, self.run_ns(self.engine.now_ns()))
    }

    /// Begins a span of time for [`Session::peak_device_memory`].
    pub(crate) fn forget_peak(&self) {
        if let Some(sensors) = self.engine.sensors() {
            sensors.forget_peak();
        }
    }

    /// Returns the most memory in use on one card since [`Session::forget_peak`]. `None` off a card.
    pub(crate) fn peak_device_memory(&self) -> Option<u64> {
        self.engine.sensors().and_then(glmbench_device::sensors::Sensors::peak_memory)
    }

    /// Appends rows of telemetry.
    pub(crate) fn append_telemetry(&mut self, rows: &[TelemetryRow]) -> Result<(), RecordError> {
        rows.iter().try_for_each(|row| self.dir.append_telemetry(row))
    }

    /// Sets a modelled run's clock to the end of its last line. Excludes warm-up time, which depends on what the
    /// process did before.
    pub(crate) fn go_on_from_lines(&mut self) -> Result<(), RecordError> {
        self.offset_ns = self.dir.recorded_until_ns()?.wrapping_sub(self.engine.now_ns());
        Ok(())
    }

    /// Before a case, probe or level of a modelled run, resets the engine to the state of a new process. A measured run
    /// keeps its plans, as its users' runs would.
    pub(crate) fn start_afresh(&mut self) -> Result<(), RunError> {
        if self.clock() == Clock::Modelled {
            self.engine.start_afresh()?;
            self.go_on_from_lines()?;
        }
        Ok(())
    }

    /// Appends the current use of resources.
    pub(crate) fn sample(&mut self) -> Result<(), RecordError> {
        let rows = self.telemetry();
        self.sample_server()?;
        self.append_telemetry(&rows)
    }

    /// Appends what a server said of itself.
    pub(crate) fn sample_server(&mut self) -> Result<(), RecordError> {
        let begin_ns = self.offset_ns.wrapping_neg();
        for MetricSample { t_ns, series, value } in self.engine.take_server_metrics() {
            // A sample from before the run's clock began has no time on it.
            if self.offset_ns < u64::MAX / 2 || t_ns >= begin_ns {
                let row = ServerMetricRow { t_ns: self.run_ns(t_ns), series, value };
                self.dir.append_server_metric(&row)?;
            }
        }
        Ok(())
    }
}

/// Returns the kind of clock behind a device's times.
pub fn clock_of(device: &DeviceInfo) -> Clock {
    if device.modelled_by.is_some() { Clock::Modelled } else { Clock::Measured }
}
