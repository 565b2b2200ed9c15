//! Description of the machine by its operating system, for provenance and `doctor`.

use std::collections::BTreeMap;
use std::path::Path;

/// Properties of the machine; `None` if the system does not report them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Host name.
    pub host: Option<String>,
    /// Operating system, release and architecture.
    pub os: String,
    /// CPU model.
    pub cpu_model: Option<String>,
    /// Logical cores available to this process.
    pub cores: usize,
    /// NUMA nodes.
    pub numa_nodes: Option<usize>,
    /// Frequency governor of the first core.
    pub governor: Option<String>,
    /// Installed memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Memory available without swapping, in bytes.
    pub available_bytes: Option<u64>,
    /// Active mode of transparent huge pages.
    pub huge_pages: Option<String>,
}

impl Machine {
    /// Queries the system.
    pub fn read() -> Self {
        let memory = meminfo();
        Self {
            host: file("/proc/sys/kernel/hostname"),
            os: os(),
            cpu_model: cpu_model(),
            cores: glmbench_cpu::available_threads(),
            numa_nodes: numa_nodes(),
            governor: file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_bytes: memory.get("MemTotal").copied(),
            available_bytes: memory.get("MemAvailable").copied(),
            huge_pages: huge_pages(),
        }
    }
}

/// Returns the peak resident memory of this process, in bytes.
pub fn peak_rss_bytes() -> Option<u64> {
    status_field("VmHWM:")
}

/// Restarts [`peak_rss_bytes`] from now. If the system does not allow that, the peak remains that of the whole process.
pub fn reset_peak_rss() {
    // Linux: 5 resets the high-water mark. A failure is harmless.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Returns the current resident memory of this process, in bytes.
pub fn rss_bytes() -> Option<u64> {
    status_field("VmRSS:")
}

pub(super) fn file(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn os() -> String {
    let release = file("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{} {release} {}", std::env::consts::OS, std::env::consts::ARCH)
}

fn cpu_model() -> Option<String> {
    let text = file("/proc/cpuinfo")?;
    // x86 has "model name"; aarch64 has implementer and part numbers instead.
    let field = |key: &str| {
        let line = text.lines().find(|l| l.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    field("model name")
        .or_else(|| Some(format!("implementer {} part {}", field("CPU implementer")?, field("CPU part")?)))
}

fn numa_nodes() -> Option<usize> {
    let entries = std::fs::read_dir(Path::new("/sys/devices/system/node")).ok()?;
    let is_node =
        |name: &str| name.strip_prefix("node").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    Some(entries.flatten().filter(|e| is_node(&e.file_name().to_string_lossy())).count())
}

fn meminfo() -> BTreeMap<String, u64> {
    let text = file("/proc/meminfo").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(':')?;
            Some((key.to_owned(), kibibytes(value)?))
        })
        .collect()
}

fn status_field(key: &str) -> Option<u64> {
    kibibytes(&status_words(key)?)
}

/// What follows a key in the status of this process.
fn status_words(key: &str) -> Option<String> {
    let text = file("/proc/self/status")?;
    text.lines().find_map(|line| line.strip_prefix(key)).map(|words| words.trim().to_owned())
}

/// Returns the active mode of transparent huge pages: `never` if this process must not have any (`PR_SET_THP_DISABLE`).
fn huge_pages() -> Option<String> {
    if status_words("THP_enabled:").as_deref() == Some("0") {
        return Some("never".to_owned());
    }
    let modes = file("/sys/kernel/mm/transparent_hugepage/enabled")?;
    Some(modes.split(['[', ']']).nth(1)?.to_owned())
}

/// Parses `  1234 kB` into bytes.
pub(super) fn kibibytes(text: &str) -> Option<u64> {
    text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
