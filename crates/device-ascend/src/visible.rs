//! The chips that a process sees, by the environment variable of the runtime.

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

#[cfg(test)]
mod tests {
    use super::*;

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
