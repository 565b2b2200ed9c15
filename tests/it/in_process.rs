//! Runs inside the test process, without the command line.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use glmbench::backend::Backend;
use glmbench::run::model::ModelFacts;
use glmbench::run::provenance::Origin;
use glmbench::run::{Observer, telemetry};
use glmbench::suite::Suite;
use glmbench_device::rotary::RotaryMode;
use glmbench_engine::config::ModelConfig;

/// Stops the run after this number of units.
pub(crate) struct StopAfter<'a>(pub(crate) AtomicUsize, pub(crate) &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn begin(&mut self, _: &str, _: &str, _: u64, _: u64) {}
    fn advance(&mut self) {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    fn end(&mut self) {}
}

/// The origin of a run whose backend reads no weights.
pub(crate) fn origin<'a>(suite: &'a Suite, config: &ModelConfig, backend: &dyn Backend) -> Origin<'a> {
    Origin {
        suite,
        model: "planted".into(),
        facts: ModelFacts::new(config, None, "none".into(), false),
        weights: "none".into(),
        tokenizer: None,
        rotary: RotaryMode::Model,
        device: backend.device_info(),
        telemetry: telemetry::methods(backend),
        roofline: None,
        load: None,
        weight_faults: None,
        command_line: Vec::new(),
        group: None,
    }
}
