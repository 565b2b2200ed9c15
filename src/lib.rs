//! glmbench: benchmark and accuracy harness with its own ChatGLM2 engine.

pub mod bench;
pub mod cli;
pub mod dataset;
pub mod device;
pub mod engine;
pub mod record;
pub mod report;
pub mod run;
pub mod stats;
pub mod suite;
pub mod task;
