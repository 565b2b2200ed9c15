//! `telemetry.csv`: measurements of the machine during the run. Cells that were not sampled are empty. And
//! `server_metrics.csv`: what a server said of itself meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::RecordError;

/// A row of `telemetry.csv`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TelemetryRow {
    /// Time of the sample, in nanoseconds from run start.
    pub t_ns: u64,
    /// Resident memory of the process.
    pub rss_bytes: Option<u64>,
    /// Power, watts.
    pub power_w: Option<f64>,
    /// Utilisation of the device, 0 to 1.
    pub npu_util: Option<f64>,
    /// Temperature, degrees Celsius.
    pub temp_c: Option<f64>,
    /// Clock frequency, kilohertz.
    pub freq_khz: Option<u64>,
    /// Index of the device in the run, from 0. All cells but `rss_bytes` are of this device. Empty in a row of the
    /// host.
    pub device: Option<u32>,
    /// Device memory in use.
    pub device_memory_bytes: Option<u64>,
}

impl TelemetryRow {
    /// The header of `telemetry.csv`.
    pub const HEADER: &'static str =
        "t_ns,rss_bytes,power_w,npu_util,temp_c,freq_khz,device,device_memory_bytes";
}

/// A row of `server_metrics.csv`: one sample of `/metrics` of the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerMetricRow {
    /// Time of the sample, in nanoseconds from run start.
    pub t_ns: u64,
    /// Name and labels, as the server writes them.
    pub series: String,
    /// The value.
    pub value: f64,
}

impl ServerMetricRow {
    /// The header of `server_metrics.csv`.
    pub const HEADER: &'static str = "t_ns,series,value";
}

/// A CSV file open for appending. Each row is written at once, so that a killed run keeps its samples.
#[derive(Debug)]
pub(super) struct CsvLog {
    path: PathBuf,
    file: File,
}

impl CsvLog {
    /// Opens or creates the file and cuts off a torn last row.
    pub(super) fn open(path: &Path, header: &str) -> Result<Self, RecordError> {
        set_aside_older(path, header)?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(RecordError::io("open for appending", path))?;
        let bytes = fs::read(path).map_err(RecordError::io("read", path))?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(RecordError::io("cut the torn last row off", path))?;
        let mut log = Self { path: path.to_owned(), file };
        if whole == 0 {
            log.write(format!("{header}\n").as_bytes())?;
        }
        Ok(log)
    }

    /// Appends a row.
    pub(super) fn append(&mut self, row: &impl Serialize) -> Result<(), RecordError> {
        let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
        let encoded = writer.serialize(row).map_err(std::io::Error::from);
        let bytes = encoded.and_then(|()| writer.into_inner().map_err(csv::IntoInnerError::into_error));
        let bytes = bytes.map_err(RecordError::io("encode a row for", &self.path))?;
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        self.file.write_all(bytes).map_err(RecordError::io("append to", &self.path))
    }
}

/// Renames a file with other columns, written by an older program, so that its rows are kept.
fn set_aside_older(path: &Path, header: &str) -> Result<(), RecordError> {
    let text = fs::read(path).unwrap_or_default();
    let found = text.split(|&b| b == b'\n').next().unwrap_or_default();
    if !text.contains(&b'\n') || found == header.as_bytes() {
        return Ok(());
    }
    fs::rename(path, path.with_extension("older.csv")).map_err(RecordError::io("set aside", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stay_when_the_process_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("telemetry.csv");
        let open = |path: &Path| CsvLog::open(path, TelemetryRow::HEADER);
        let row = |t_ns| TelemetryRow { t_ns, rss_bytes: Some(7), ..TelemetryRow::default() };
        let mut log = open(&path).unwrap();
        log.append(&row(1)).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        assert_eq!(whole, format!("{}\n1,7,,,,,,\n", TelemetryRow::HEADER));
        // Killed within the second row, then resumed.
        fs::write(&path, format!("{whole}2,")).unwrap();
        open(&path).unwrap().append(&row(3)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{whole}3,7,,,,,,\n"));
        // A file with other columns is not appended to.
        fs::write(&path, "t_ns,rss_bytes\n1,7\n").unwrap();
        open(&path).unwrap().append(&row(4)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n4,7,,,,,,\n", TelemetryRow::HEADER));
        assert_eq!(fs::read_to_string(path.with_extension("older.csv")).unwrap(), "t_ns,rss_bytes\n1,7\n");
    }
}
