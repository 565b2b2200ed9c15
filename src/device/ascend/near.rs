//! Which cores are near a chip: those of the NUMA node that its PCI device belongs to. An emulated chip is nowhere; the cores
//! that play it are the ranks' to share.

use std::path::Path;

use crate::device::affinity::{bind_current_thread, core_groups, core_list, cores_of_numa_node};
use crate::device::cpu::{BOUND, NOT_BOUND};

/// Binds the calling thread, and those that it will start, to the cores near the `ordinal`-th visible chip; what the record
/// says of it.
pub(super) fn bind(ordinal: usize) -> (String, String) {
    let visible = std::env::var("ASCEND_RT_VISIBLE_DEVICES").ok();
    bind_to(cores_near(Path::new("/sys/bus/pci/devices"), ordinal, visible.as_deref()))
}

/// The same for rank `rank` of `world` emulated ones: to its share of all cores.
pub(super) fn bind_emulated(rank: usize, world: usize) -> (String, String) {
    bind_to(core_groups(world).map(|mut groups| groups.swap_remove(rank)))
}

fn bind_to(cores: Result<Vec<usize>, String>) -> (String, String) {
    match cores.and_then(|cores| bind_current_thread(&cores).map(|()| core_list(&cores))) {
        Ok(list) => (BOUND.to_owned(), list),
        Err(reason) => (NOT_BOUND.to_owned(), reason),
    }
}

/// The id that AscendCL's `ordinal`-th device has among all of the machine; `visible` is `ASCEND_RT_VISIBLE_DEVICES`.
///
/// # Errors
/// In words: the list has no such entry.
pub(super) fn logic_id(ordinal: usize, visible: Option<&str>) -> Result<usize, String> {
    match visible.filter(|list| !list.trim().is_empty()) {
        None => Ok(ordinal),
        Some(list) => list
            .split(',')
            .nth(ordinal)
            .and_then(|id| id.trim().parse().ok())
            .ok_or_else(|| format!("ASCEND_RT_VISIBLE_DEVICES={list} has no entry {ordinal}")),
    }
}

/// Chips are counted by PCI address, as the driver counts them.
fn cores_near(devices: &Path, ordinal: usize, visible: Option<&str>) -> Result<Vec<usize>, String> {
    let chip = logic_id(ordinal, visible)?;
    let addresses = addresses(devices);
    let address = addresses
        .get(chip)
        .ok_or_else(|| format!("chip {chip} is none of {} Ascend chips on the PCI bus", addresses.len()))?;
    let path = devices.join(address).join("numa_node");
    let node = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let node = node.trim();
    // The system says -1 where the firmware does not tell.
    let node = node.parse().map_err(|_| format!("{address} belongs to no NUMA node ({node})"))?;
    cores_of_numa_node(node)
}

/// PCI addresses of Ascend chips, ascending: Huawei's vendor id, class "processing accelerator".
fn addresses(devices: &Path) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(node: &str) -> tempfile::TempDir {
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
            std::fs::write(device.join("numa_node"), node).unwrap();
        }
        folder
    }

    #[test]
    fn chips_are_found_by_vendor_and_class_and_counted_by_address() {
        let folder = machine("-1\n");
        assert_eq!(addresses(folder.path()), ["0000:01:00.0", "0000:82:00.0"]);
        let told = cores_near(folder.path(), 0, Some("1")).unwrap_err();
        assert!(told.contains("0000:82:00.0 belongs to no NUMA node (-1)"), "{told}");
        assert!(cores_near(folder.path(), 2, None).unwrap_err().contains("none of 2"));
    }

    #[test]
    fn visible_devices_are_renumbered() {
        assert_eq!(logic_id(1, None), Ok(1));
        assert_eq!(logic_id(1, Some(" ")), Ok(1));
        assert_eq!(logic_id(1, Some("4, 6")), Ok(6));
        assert!(logic_id(2, Some("4,6")).unwrap_err().contains("no entry 2"));
    }
}
