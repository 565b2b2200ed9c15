//! `noise.json`: how much a machine's times differ between two runs of the same program.

use std::path::Path;

use glmbench_device::{DeviceName, Precision};
use serde::{Deserialize, Serialize};

use super::summary::Phase;
use super::word::Word;
use super::{RecordError, wire, write_whole};
use crate::bounded;

/// Maximum size of the file in bytes. It has a few lines per shape.
const MAX_BYTES: u64 = 16 << 20;

/// The result of `glmbench doctor --noise`: one workload timed by several processes at different times on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Program and version.
    pub engine: String,
    /// Host name.
    pub host: String,
    /// CPU model.
    pub cpu_model: String,
    /// The device.
    pub device: Word<DeviceName>,
    /// The device's kernels.
    pub kernel: String,
    /// The compute type.
    pub dtype: Word<Precision>,
    /// Threads of the engine.
    pub threads: u32,
    /// The model as requested.
    pub model: String,
    /// When the file was made: RFC 3339, UTC.
    pub made: String,
    /// The noise floor of each shape and phase.
    pub floors: Vec<NoiseFloor>,
}

/// The noise floor of one phase of one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NoiseFloor {
    /// The shape.
    pub case_id: String,
    /// The phase.
    pub phase: Phase,
    /// Number of processes that timed the phase. 0 in older files, which only measured within one process and say
    /// nothing about differences between runs.
    #[serde(default)]
    pub runs: u32,
    /// Standard deviation of the log medians of the processes.
    #[serde(default)]
    pub spread: Option<f64>,
    /// Median of the process medians.
    #[serde(default)]
    pub median_ns: Option<u64>,
    /// The relative difference in this phase that one in twenty comparisons of two such runs exceeds (0.02 = 2 %).
    pub floor: f64,
}

impl Noise {
    /// Reads a noise file.
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let bytes = bounded::file(path, MAX_BYTES).map_err(RecordError::io("read", path))?;
        let malformed = |message| RecordError::Malformed { path: path.to_owned(), line: 1, message };
        wire::parse(&bytes).map_err(malformed)
    }

    /// Writes a noise file, replacing an existing one.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        let mut bytes = serde_json::to_vec_pretty(&wire::Wire::new(self))
            .map_err(|e| RecordError::io("encode", path)(e.into()))?;
        bytes.push(b'\n');
        write_whole(path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let floor = |case_id: &str, floor| NoiseFloor {
            case_id: case_id.into(),
            phase: Phase::Decode,
            runs: 10,
            spread: Some(0.004),
            median_ns: Some(1_500_000),
            floor,
        };
        let noise = Noise {
            engine: "glmbench 0.1.0".into(),
            host: "bench-1".into(),
            cpu_model: "Some CPU".into(),
            device: "cpu".into(),
            kernel: "avx2".into(),
            dtype: "fp16".into(),
            threads: 2,
            model: "demo".into(),
            made: "2026-01-01T00:00:00Z".into(),
            floors: vec![floor("b1-i64-o16", 0.01), floor("b8-i64-o16", 0.03)],
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("noise.json");
        noise.write(&path).unwrap();
        assert_eq!(Noise::read(&path).unwrap(), noise);
        insta::assert_snapshot!("noise.json", std::fs::read_to_string(&path).unwrap());
        // A file from before floors were measured between runs.
        let old = r#"{"schema":2,"engine":"","host":"","cpu_model":"","device":"cpu","kernel":"","dtype":"fp16","threads":1,
            "model":"demo","made":"","floors":[{"case_id":"b1-i8-o8","phase":"decode","blocks":20,"ratio":1.0,"floor":0.01}]}"#;
        std::fs::write(&path, old).unwrap();
        let old = Noise::read(&path).unwrap();
        assert_eq!((old.floors[0].runs, old.floors[0].spread, old.floors[0].floor), (0, None, 0.01));
        std::fs::write(&path, "{}").unwrap();
        assert!(Noise::read(&path).unwrap_err().to_string().contains("noise.json:1: missing field `schema`"));
    }
}
