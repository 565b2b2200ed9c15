//! CPU affinity of threads.
//!
//! A new thread inherits the affinity of its creator. Binding a rank's thread before it starts its workers therefore
//! binds them all.

#![allow(unsafe_code, reason = "the system call that binds a thread")]

use std::path::Path;

use super::DeviceInfo;

/// Key in [`DeviceInfo::details`] for the cores of a bound rank.
pub const BOUND: &str = "bound to cores";
/// Key in [`DeviceInfo::details`] for the reason why a rank could not be bound.
pub const NOT_BOUND: &str = "not bound to cores";

/// Binds the calling thread, and the threads that it starts later, to these cores.
///
/// # Errors
/// `cores` is empty, or the operating system refused or cannot bind threads.
pub fn bind_current_thread(cores: &[usize]) -> Result<(), String> {
    let Some(&last) = cores.iter().max() else { return Err("no cores were named".into()) };
    let mut mask = vec![0u64; last / 64 + 1];
    cores.iter().for_each(|core| mask[core / 64] |= 1 << (core % 64));
    set_affinity(&mask).map_err(|error| format!("cores {}: {error}", core_list(cores)))
}

#[cfg(target_os = "linux")]
fn set_affinity(mask: &[u64]) -> Result<(), std::io::Error> {
    // SAFETY: the kernel reads exactly the `size_of_val(mask)` bytes behind the pointer; pid 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(mask), mask.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(not(target_os = "linux"))]
fn set_affinity(_mask: &[u64]) -> Result<(), std::io::Error> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "threads can be bound on Linux only"))
}

/// Returns the cores that the process may use, ascending. If the system does not list them, counts up from 0 to the
/// number it reports.
pub fn allowed_cores() -> Vec<usize> {
    // This file describes the main thread, which is never bound here.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.and_then(parse_core_list).unwrap_or_else(|| {
        (0..std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)).collect()
    })
}

/// Returns the cores of a NUMA node, ascending.
///
/// # Errors
/// The system has no such node.
pub fn cores_of_numa_node(node: usize) -> Result<Vec<usize>, String> {
    let path = format!("/sys/devices/system/node/node{node}/cpulist");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    parse_core_list(&text).ok_or_else(|| format!("{path}: \"{}\" is no list of cores", text.trim()))
}

/// Splits [`allowed_cores`] into `groups` groups of neighbours. Hardware threads of one core, and cores of one NUMA
/// node, stay together as far as possible.
///
/// # Errors
/// There are fewer cores than groups.
pub fn core_groups(groups: usize) -> Result<Vec<Vec<usize>>, String> {
    let mut cores = allowed_cores();
    if cores.len() < groups {
        return Err(format!("{groups} ranks cannot have a core each, this process may use {}", cores.len()));
    }
    cores.sort_by_key(|&core| (place(Path::new("/sys/devices/system/cpu"), core), core));
    Ok((0..groups)
        .map(|i| cores[cores.len() * i / groups..cores.len() * (i + 1) / groups].to_vec())
        .collect())
}

/// Returns NUMA node, package and physical core of a logical core. Each is 0 if the system does not report it.
fn place(cpus: &Path, core: usize) -> (usize, usize, usize) {
    let folder = cpus.join(format!("cpu{core}"));
    let number = |file: &str| {
        let text = std::fs::read_to_string(folder.join("topology").join(file)).ok()?;
        text.trim().parse().ok()
    };
    let node = std::fs::read_dir(&folder).ok().and_then(|entries| {
        entries.flatten().find_map(|e| e.file_name().to_str()?.strip_prefix("node")?.parse().ok())
    });
    (node.unwrap_or(0), number("physical_package_id").unwrap_or(0), number("core_id").unwrap_or(0))
}

/// Parses the kernel's list format: `0-3,8,10-11`.
fn parse_core_list(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        // No machine has this many cores, so the text is not a core list.
        if last < first || last >= 1 << 16 {
            return None;
        }
        cores.extend(first..=last);
    }
    (!cores.is_empty()).then_some(cores)
}

/// Formats cores in the kernel's list format.
pub fn core_list(cores: &[usize]) -> String {
    let mut sorted = cores.to_vec();
    sorted.sort_unstable();
    sorted
        .chunk_by(|a, b| a + 1 == *b)
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            run => run.iter().map(usize::to_string).collect(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// Returns why the threads could not be bound to cores; `None` if they are bound, or need not be.
pub fn why_not_bound(info: &DeviceInfo) -> Option<&str> {
    info.details.iter().find(|(name, _)| name == NOT_BOUND).map(|(_, reason)| reason.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_the_kernels() {
        for (text, cores) in
            [("0-3,8,10-11\n", vec![0, 1, 2, 3, 8, 10, 11]), ("5", vec![5]), ("\t0-1", vec![0, 1])]
        {
            assert_eq!(parse_core_list(text), Some(cores.clone()));
            assert_eq!(core_list(&cores), text.trim());
        }
        for text in ["", "a", "3-1", "1-", "0-99999999999", "0-4000000000", "-"] {
            assert_eq!(parse_core_list(text), None, "{text}");
        }
        assert_eq!(core_list(&[3, 1, 2]), "1-3");
    }

    #[test]
    fn groups_share_out_all_cores() {
        let all = allowed_cores();
        assert!(!all.is_empty());
        for groups in 1..=all.len() {
            let mut shared: Vec<usize> = core_groups(groups).unwrap().concat();
            shared.sort_unstable();
            assert_eq!(shared, all);
        }
        assert!(core_groups(all.len() + 1).unwrap_err().contains("cannot have a core each"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_bound_thread_and_its_children_run_there_and_others_do_not_care() {
        let core = allowed_cores()[0];
        let list = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            parse_core_list(line.unwrap()).unwrap()
        };
        std::thread::spawn(move || {
            bind_current_thread(&[core]).unwrap();
            assert_eq!(list(), [core]);
            assert_eq!(std::thread::spawn(list).join().unwrap(), [core]);
        })
        .join()
        .unwrap();
        assert_eq!(list(), allowed_cores());
        assert!(bind_current_thread(&[]).is_err());
        assert!(bind_current_thread(&[60000]).unwrap_err().contains("cores 60000"));
    }
}
