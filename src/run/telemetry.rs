//! State of the machine and its devices during a run: the rows of `telemetry.csv`, and the method of each column.

use std::collections::BTreeMap;

use glmbench_device::sensors::{Methods, Reading, Readings, Sensors};

use crate::backend::Backend;
use crate::record::TelemetryRow;

use super::machine::rss_bytes;

/// Returns the method and unit of each column of `telemetry.csv` on this engine; `absent: …` if the column stays empty.
pub fn methods(engine: &dyn Backend) -> BTreeMap<String, String> {
    let mut columns = of_devices(engine.sensors());
    let unread = |what: &str| Err::<(), _>(what.to_owned());
    let host = rss_bytes().map_or_else(|| unread("the system does not tell"), |_| Ok(()));
    columns.insert("rss_bytes".into(), column(&[host], "VmRSS of /proc/self/status, bytes"));
    columns.insert("freq_khz".into(), column(&[unread(UNREAD)], ""));
    columns
}

/// Reason shown for a device without sensors that this program reads.
const UNREAD: &str = "not read on this device";

fn of_devices(sensors: Option<&dyn Sensors>) -> BTreeMap<String, String> {
    let names = ["power_w", "npu_util", "temp_c", "device_memory_bytes"];
    let columns = match sensors {
        None => names.map(|_| format!("absent: {UNREAD}")),
        Some(sensors) => {
            let (told, how) = (sensors.read(), sensors.methods());
            let Methods { power, utilisation, temperature, memory } = &how;
            [
                of_column(&told, |r| seen(&r.power_w), power),
                of_column(&told, |r| seen(&r.utilisation), utilisation),
                of_column(&told, |r| seen(&r.temp_c), temperature),
                of_column(&told, |r| seen(&r.memory_bytes), memory),
            ]
        }
    };
    names.into_iter().map(str::to_owned).zip(columns).collect()
}

fn seen<T>(reading: &Reading<T>) -> Reading<()> {
    reading.as_ref().map(drop).map_err(Clone::clone)
}

fn of_column(told: &[Readings], of: impl Fn(&Readings) -> Reading<()>, how: &str) -> String {
    column(&told.iter().map(of).collect::<Vec<_>>(), how)
}

/// Describes the method and the devices that lack the value; only the reason if all of them lack it.
fn column(told: &[Reading<()>], how: &str) -> String {
    let absent: Vec<(usize, &String)> =
        told.iter().enumerate().filter_map(|(device, r)| Some((device, r.as_ref().err()?))).collect();
    match absent.first() {
        Some((_, reason)) if absent.len() == told.len() => format!("absent: {reason}"),
        _ => absent
            .iter()
            .fold(how.to_owned(), |text, (device, why)| format!("{text}; absent on device {device}: {why}")),
    }
}

/// Returns the host's row, and one for every device with any reading.
pub(super) fn rows(engine: &dyn Backend, t_ns: u64) -> Vec<TelemetryRow> {
    let host = TelemetryRow { t_ns, rss_bytes: rss_bytes(), ..TelemetryRow::default() };
    let told = engine.sensors().map(Sensors::read).unwrap_or_default();
    let devices = told.into_iter().enumerate().filter_map(|(device, told)| of_device(t_ns, device, told));
    std::iter::once(host).chain(devices).collect()
}

fn of_device(t_ns: u64, device: usize, told: Readings) -> Option<TelemetryRow> {
    let row = TelemetryRow {
        t_ns,
        power_w: told.power_w.ok(),
        npu_util: told.utilisation.ok(),
        temp_c: told.temp_c.ok(),
        device_memory_bytes: told.memory_bytes.ok(),
        ..TelemetryRow::default()
    };
    (row != TelemetryRow { t_ns, ..TelemetryRow::default() })
        .then_some(TelemetryRow { device: Some(device as u32), ..row })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings(power_w: Reading<f64>) -> Readings {
        let absent = || Err("no such sensor".to_owned());
        Readings {
            power_w,
            utilisation: Err("no such sensor".into()),
            temp_c: absent(),
            memory_bytes: Err("no".into()),
        }
    }

    #[test]
    fn a_column_has_its_method_or_the_reason_why_it_is_empty() {
        let (good, bad) = (readings(Ok(3.5)), readings(Err("broken".into())));
        let power = |told: &[Readings]| of_column(told, |r| seen(&r.power_w), "a meter, W");
        assert_eq!(power(&[good.clone(), good.clone()]), "a meter, W");
        assert_eq!(power(&[good.clone(), bad.clone()]), "a meter, W; absent on device 1: broken");
        assert_eq!(power(&[bad.clone(), bad.clone()]), "absent: broken");
        assert!(of_devices(None).values().all(|text| text == "absent: not read on this device"));
    }

    #[test]
    fn a_device_that_tells_nothing_has_no_row() {
        assert_eq!(of_device(7, 1, readings(Err("broken".into()))), None);
        let row = of_device(7, 1, readings(Ok(3.5))).unwrap();
        assert_eq!((row.t_ns, row.device, row.power_w, row.rss_bytes), (7, Some(1), Some(3.5), None));
    }
}
