//! Cores and NUMA nodes: binding the calling thread near a device's memory.
//!
//! Linux only: the topology is what `/sys` says, binding is `sched_setaffinity`.

use std::path::Path;

/// A list of cores as `/sys` writes it: `0-3,8,10-11`.
fn parse_cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MAX_CORES {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

/// Cores that a mask of the system can name.
const MAX_CORES: usize = 1024;

/// Cores of a NUMA node.
///
/// # Errors
/// In words: the system has no such node, or does not tell.
pub fn cores_of_node(node: usize) -> Result<Vec<usize>, String> {
    let path = format!("/sys/devices/system/node/node{node}/cpulist");
    let list = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    parse_cores(&list)
        .filter(|cores| !cores.is_empty())
        .ok_or_else(|| format!("{path}: \"{}\" is no list of cores", list.trim()))
}

/// NUMA node of PCI device `address`, e.g. `0000:c1:00.0`.
///
/// # Errors
/// In words: there is no such device, or it belongs to no node.
pub fn node_of_pci(address: &str) -> Result<usize, String> {
    let path = format!("/sys/bus/pci/devices/{address}/numa_node");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    // The system says -1 where the firmware does not tell.
    text.trim().parse().map_err(|_| format!("{path}: {}: the device belongs to no NUMA node", text.trim()))
}

/// PCI addresses of Ascend chips, in ascending order: Huawei's vendor id, class "processing accelerator".
pub fn ascend_pci_addresses() -> Vec<String> {
    addresses_under(Path::new("/sys/bus/pci/devices"))
}

fn addresses_under(devices: &Path) -> Vec<String> {
    let says = |device: &Path, file: &str, start: &str| {
        std::fs::read_to_string(device.join(file)).is_ok_and(|text| text.starts_with(start))
    };
    let mut found: Vec<String> = std::fs::read_dir(devices)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|device| says(device, "vendor", "0x19e5") && says(device, "class", "0x1200"))
        .filter_map(|device| Some(device.file_name()?.to_str()?.to_owned()))
        .collect();
    found.sort();
    found
}

/// Cores of the NUMA node of the `ordinal`-th visible Ascend chip. Chips are counted by PCI address, as the driver does;
/// `visible` are those that `ASCEND_RT_VISIBLE_DEVICES` leaves, all where `None`.
///
/// # Errors
/// In words: no such chip is there, or the system does not tell its node.
pub fn cores_near_ascend(ordinal: usize, visible: Option<&str>) -> Result<Vec<usize>, String> {
    let chip = match visible.filter(|list| !list.trim().is_empty()) {
        None => ordinal,
        Some(list) => list
            .split(',')
            .nth(ordinal)
            .and_then(|chip| chip.trim().parse().ok())
            .ok_or_else(|| format!("ASCEND_RT_VISIBLE_DEVICES={list} has no entry {ordinal}"))?,
    };
    let addresses = ascend_pci_addresses();
    let address = addresses
        .get(chip)
        .ok_or_else(|| format!("chip {chip} is none of {} Ascend chips on the PCI bus", addresses.len()))?;
    cores_of_node(node_of_pci(address)?)
}

/// Lets the calling thread, and those that it will start, run on `cores` only.
///
/// # Errors
/// In words: what the system refuses, e.g. cores that this process may not use.
pub fn bind(cores: &[usize]) -> Result<(), String> {
    if cores.is_empty() {
        return Err("no cores to bind to".into());
    }
    let mut mask = [0u64; MAX_CORES / 64];
    for &core in cores {
        let word = mask.get_mut(core / 64).ok_or_else(|| format!("core {core} does not exist"))?;
        *word |= 1 << (core % 64);
    }
    set_mask(&mask).map_err(|e| format!("cores {cores:?}: {e}"))
}

/// Cores that the calling thread may run on.
///
/// # Errors
/// In words: the system does not tell.
pub fn bound() -> Result<Vec<usize>, String> {
    let mask = get_mask().map_err(|e| format!("sched_getaffinity: {e}"))?;
    Ok((0..MAX_CORES).filter(|core| mask[core / 64] >> (core % 64) & 1 == 1).collect())
}

#[cfg(target_os = "linux")]
fn set_mask(mask: &[u64; MAX_CORES / 64]) -> std::io::Result<()> {
    // SAFETY: 0 is the calling thread; the mask is as long as said.
    let code = unsafe { libc::sched_setaffinity(0, size_of_val(mask), mask.as_ptr().cast()) };
    if code == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(target_os = "linux")]
fn get_mask() -> std::io::Result<[u64; MAX_CORES / 64]> {
    let mut mask = [0u64; MAX_CORES / 64];
    // SAFETY: 0 is the calling thread; the mask is as long as said.
    let code = unsafe { libc::sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr().cast()) };
    if code == 0 { Ok(mask) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn set_mask(_: &[u64; MAX_CORES / 64]) -> std::io::Result<()> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "binding to cores needs Linux"))
}

#[cfg(not(target_os = "linux"))]
fn get_mask() -> std::io::Result<[u64; MAX_CORES / 64]> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "binding to cores needs Linux"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse_cores("0-3,8,10-11\n"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(parse_cores("5"), Some(vec![5]));
        for wrong in ["3-1", "a", "0-99999999999", "0-5000"] {
            assert_eq!(parse_cores(wrong), None, "{wrong}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_is_bound_alone() {
        let before = bound().unwrap();
        let inside = std::thread::spawn({
            let last = *before.last().unwrap();
            move || {
                bind(&[last]).unwrap();
                (bound().unwrap(), vec![last])
            }
        });
        let (found, expected) = inside.join().unwrap();
        assert_eq!(found, expected);
        assert_eq!(bound().unwrap(), before);
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert!(bind(&[]).is_err());
        assert!(bind(&[usize::MAX]).is_err());
        assert!(cores_of_node(999_999).unwrap_err().contains("node999999"));
        assert!(node_of_pci("nowhere").is_err());
        assert!(cores_near_ascend(3, Some("0,1")).unwrap_err().contains("no entry 3"));
    }

    #[test]
    fn chips_are_found_by_vendor_and_class() {
        let folder = tempfile::tempdir().unwrap();
        for (address, vendor, class) in [
            ("0000:82:00.0", "0x19e5\n", "0x120000\n"),
            ("0000:01:00.0", "0x19e5\n", "0x120000\n"),
            ("0000:03:00.0", "0x19e5\n", "0x020000\n"),
            ("0000:04:00.0", "0x8086\n", "0x120000\n"),
        ] {
            let device = folder.path().join(address);
            std::fs::create_dir(&device).unwrap();
            std::fs::write(device.join("vendor"), vendor).unwrap();
            std::fs::write(device.join("class"), class).unwrap();
        }
        assert_eq!(addresses_under(folder.path()), ["0000:01:00.0", "0000:82:00.0"]);
    }
}
