//! An engine on a virtual clock that stands still while it is idle.

#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "helpers outside the test functions panic as tests do")]

use glmbench_device::{DType, DeviceInfo};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, Forward, StepInput};
use glmbench_engine::{Engine, EngineError};

/// A model without weights. Its clock moves while idle only if asked to.
struct Clock {
    config: ModelConfig,
    now_ns: u64,
    idles: bool,
}

impl Forward for Clock {
    fn forward(&mut self, _: &StepInput<'_>, _: &mut Vec<f32>) -> Result<(), EngineError> {
        Ok(())
    }

    fn write_prefix(&mut self, _: &[u32]) -> Result<(), EngineError> {
        Ok(())
    }

    fn copy_block(&mut self, _: u32, _: u32, _: usize) -> Result<(), EngineError> {
        Ok(())
    }

    fn device_info(&self) -> DeviceInfo {
        DeviceInfo::plain("fake", "none", 1, DType::Fp16)
    }

    fn modelled_ns(&self) -> Option<u64> {
        Some(self.now_ns)
    }

    fn idle(&mut self, duration_ns: u64) {
        if self.idles {
            self.now_ns += duration_ns;
        }
    }

    fn capacity(&self) -> Capacity {
        Capacity::for_batch(&self.config, 1, 16)
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }
}

fn engine(idles: bool) -> Engine {
    Engine::new(Box::new(Clock { config: ModelConfig::chatglm2_6b(), now_ns: 5, idles }))
}

#[test]
fn waiting_on_a_clock_that_stands_still_is_an_error_and_no_hang() {
    let mut moving = engine(true);
    moving.wait_until(100).unwrap();
    assert_eq!(moving.now_ns(), 100);
    let mut still = engine(false);
    still.wait_until(5).unwrap();
    let message = still.wait_until(100).unwrap_err().to_string();
    assert!(
        message.contains("device fake keeps a virtual clock that does not move while it is idle"),
        "{message}"
    );
}
