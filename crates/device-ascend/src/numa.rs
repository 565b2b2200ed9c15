//! The cores near a chip: those on the NUMA node of its PCI device. An emulated chip has no place, so emulated ranks
//! share all cores.

use std::path::Path;

use glmbench_device::affinity::{
    BOUND, NOT_BOUND, bind_current_thread, core_groups, core_list, cores_of_numa_node,
};

use super::api::Api;
use super::telemetry::pci_address;
use super::visible::{VISIBLE_DEVICES, logic_id};

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
}
