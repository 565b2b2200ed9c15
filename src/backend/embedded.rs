//! This program's own engine as a backend.

use glmbench_device::DeviceInfo;
use glmbench_device::sensors::Sensors;
use glmbench_engine::Engine;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::Capacity;
use glmbench_engine::profile::OperatorTime;
use glmbench_engine::{EngineError, Request, RequestId, Scheduling, Step};

use super::{Backend, Capabilities};

impl Backend for Engine {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn device_info(&self) -> DeviceInfo {
        self.device_info()
    }

    fn submit(&mut self, request: Request) -> Result<RequestId, EngineError> {
        self.submit(request)
    }

    fn teacher_force(
        &mut self,
        tokens: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        self.teacher_force(tokens, each)
    }

    fn step(&mut self) -> Result<Step, EngineError> {
        self.step()
    }

    fn set_scheduling(&mut self, wanted: Scheduling) -> Option<Scheduling> {
        Some(self.set_scheduling(wanted))
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn clear(&mut self) {
        self.clear();
    }

    fn now_ns(&self) -> u64 {
        self.now_ns()
    }

    fn wait_until(&mut self, ns: u64) -> Result<(), EngineError> {
        self.wait_until(ns)
    }

    fn start_afresh(&mut self) -> Result<(), EngineError> {
        self.start_afresh()
    }

    fn has_failed(&self) -> bool {
        self.has_failed()
    }

    fn sensors(&self) -> Option<&dyn Sensors> {
        self.sensors()
    }

    fn take_profile(&mut self) -> Vec<OperatorTime> {
        self.take_profile()
    }

    fn model(&self) -> Option<(&ModelConfig, Capacity)> {
        Some((self.config(), self.capacity()))
    }
}
