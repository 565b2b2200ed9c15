//! The cores near a chip: those on the NUMA node of its PCI device. An emulated chip has no place, so emulated ranks
//! share all cores.

use std::path::Path;

use glmbench_device::affinity::{
    BOUND, NOT_BOUND, bind_current_thread, core_groups, core_list, cores_of_numa_node,
};

use super::api::Api;
use super::telemetry::pci_address;

/// Binds the calling thread, and the threads it starts, to the cores near the `ordinal`-th visible chip. The driver
/// reports the chip's address. Returns the name and text of the entry in the record.
pub(super) fn bind(api: &Api, ordinal: usize) -> (String, String) {
    let address = pci_address(api, ordinal);
    let cores = address.as_ref().map_err(Clone::clone);
    let cores = cores.and_then(|address| cores_near(Path::new("/sys/bus/pci/devices"), address));
    let (name, said) = bind_to(cores);
    match (logic_id(ordinal, std::env::var(VISIBLE_DEVICES).ok().as_deref()), address) {
        (Ok(id), Ok(address)) => (name, format!("{said}; device id {id} at {address}")),
        _ => (name, said),
    }
}

/// Binds rank `rank` of `tp` emulated ranks to its share of all cores. Returns the same as [`bind`].
pub(super) fn bind_emulated(rank: usize, tp: usize) -> (String, String) {
    bind_to(core_groups(tp).map(|mut groups| groups.swap_remove(rank)))
}

fn bind_to(cores: Result<Vec<usize>, String>) -> (String, String) {
    match cores.and_then(|cores| bind_current_thread(&cores).map(|()| core_list(&cores))) {
        Ok(list) => (BOUND.to_owned(), list),
        Err(reason) => (NOT_BOUND.to_owned(), reason),
    }
}

/// The environment variable with the chips that a process sees.
pub(super) const VISIBLE_DEVICES: &str = "ASCEND_RT_VISIBLE_DEVICES";

/// Parses the ids of a [`VISIBLE_DEVICES`] list as the runtime does: up to the first space or word that is no id.
///
/// # Errors
/// Fails on ids that descend or repeat, which the runtime refuses.
pub(super) fn visible_ids(list: &str) -> Result<Vec<usize>, String> {
    let mut ids: Vec<usize> = Vec::new();
    let read = list.split(' ').next().unwrap_or_default();
    for id in read.split(',').map_while(|word| word.parse().ok()) {
        if let Some(last) = ids.last().filter(|last| **last >= id) {
            return Err(format!(
                "{VISIBLE_DEVICES}={list}: found {id} behind {last}; expected ids that ascend"
            ));
        }
        ids.push(id);
    }
    Ok(ids)
}

/// Returns the machine-wide id of AscendCL's `ordinal`-th device. `visible` is the value of [`VISIBLE_DEVICES`].
///
/// # Errors
/// Fails if the list has no such entry, or is invalid.
pub(super) fn logic_id(ordinal: usize, visible: Option<&str>) -> Result<usize, String> {
    let Some(list) = visible.filter(|list| !list.is_empty()) else { return Ok(ordinal) };
    visible_ids(list)?.get(ordinal).copied().ok_or_else(|| {
        let space = if list.contains(' ') { ", which ends at its first space" } else { "" };
        format!("{VISIBLE_DEVICES}={list} has no entry {ordinal}{space}")
    })
}

/// Returns the cores of the NUMA node of the PCI device at `address`.
fn cores_near(devices: &Path, address: &str) -> Result<Vec<usize>, String> {
    let path = devices.join(address).join("numa_node");
    let node = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let node = node.trim();
    // The system reports -1 if the firmware does not tell.
    let node = node.parse().map_err(|_| format!("{address} belongs to no NUMA node ({node})"))?;
    cores_of_numa_node(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_s_cores_are_those_of_its_own_address() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("0000:c1:00.0");
        std::fs::create_dir(&device).unwrap();
        std::fs::write(device.join("numa_node"), "-1\n").unwrap();
        let told = cores_near(folder.path(), "0000:c1:00.0").unwrap_err();
        assert!(told.contains("0000:c1:00.0 belongs to no NUMA node (-1)"), "{told}");
        assert!(cores_near(folder.path(), "0000:01:00.0").unwrap_err().contains("0000:01:00.0"));
        // If the node does not exist, as in many containers, that is the reason.
        std::fs::write(device.join("numa_node"), "9999\n").unwrap();
        assert!(cores_near(folder.path(), "0000:c1:00.0").is_err());
    }

    #[test]
    fn visible_devices_are_renumbered() {
        assert_eq!(logic_id(1, None), Ok(1));
        assert_eq!(logic_id(1, Some("")), Ok(1));
        assert_eq!(logic_id(1, Some("4,6")), Ok(6));
        assert!(logic_id(2, Some("4,6")).unwrap_err().contains("no entry 2"));
        assert!(logic_id(1, Some("4, 6")).unwrap_err().contains("ends at its first space"));
        assert_eq!(visible_ids("0,1,x,3"), Ok(vec![0, 1]));
        for (list, found) in [("6,4", "4 behind 6"), ("1,1", "1 behind 1")] {
            assert!(visible_ids(list).unwrap_err().contains(found), "{list}");
        }
    }
}
