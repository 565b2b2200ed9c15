//! Huge pages: how much of this process's weights they hold, and how much free memory could become such pages.

use std::fs;
use std::iter;

use glmbench_engine::weights::packed::EXTENSION;

use crate::record::HugePages;

use super::machine::{file, kibibytes};

/// Returns how much of the memory of this process that huge pages could hold lies on them. `None` if the system does not
/// tell, or nothing could.
pub fn of_process() -> Option<HugePages> {
    of_mappings(&mappings()?, page_bytes()?)
}

/// Size of a huge page.
pub fn page_bytes() -> Option<u64> {
    file("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")?.parse().ok()
}

/// Free memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeMemory {
    /// All of it, in bytes.
    pub bytes: u64,
    /// Bytes in pieces of at least a huge page.
    pub huge_bytes: u64,
}

/// Returns the free memory. `None` if the system does not tell.
pub fn free_memory() -> Option<FreeMemory> {
    // Ordinary mappings have the system's page size, and the first one is the program's.
    let mappings = mappings()?;
    let small = mappings.lines().find_map(|line| line.strip_prefix("KernelPageSize:")).and_then(kibibytes)?;
    of_pieces(&file("/proc/buddyinfo")?, small, page_bytes()?)
}

/// The text of the process's mappings. Names of files need not be UTF-8.
fn mappings() -> Option<String> {
    Some(String::from_utf8_lossy(&fs::read("/proc/self/smaps").ok()?).into_owned())
}

/// A mapping of `/proc/self/smaps`.
#[derive(Default)]
struct Mapping {
    /// Bytes of the huge pages that fit it.
    whole: u64,
    /// Whether its file is a cache of packed weights.
    is_packs: bool,
    resident: u64,
    anonymous: u64,
    /// Bytes on huge pages: anonymous, and of the file, which may be in shared memory.
    huge: [u64; 2],
}

impl Mapping {
    /// Parses `7f00-7f40 rw-p 00000000 00:00 0    /a/file`.
    fn of(line: &str, page_bytes: u64) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|at| u64::from_str_radix(at, 16).ok());
        let first = start?.checked_next_multiple_of(page_bytes)?;
        let whole = (end? / page_bytes * page_bytes).saturating_sub(first);
        // A file that another replaced keeps its name, with this remark.
        let path = rest.trim_end().trim_end_matches(" (deleted)");
        let is_packs = path.rsplit_once('.').is_some_and(|(_, extension)| extension == EXTENSION);
        Some(Self { whole, is_packs, ..Self::default() })
    }
}

/// Reads the text of `/proc/self/smaps`. `None` if it is not as expected, or no huge page fits anything.
///
/// `smaps_rollup` has the sums of all mappings alone, so heap and stacks would count as memory without huge pages.
fn of_mappings(text: &str, page_bytes: u64) -> Option<HugePages> {
    if page_bytes == 0 {
        return None;
    }
    let mut found = HugePages { possible_bytes: 0, huge_bytes: 0 };
    let mut at = Mapping::default();
    for line in text.lines() {
        let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match key {
            "Rss:" => at.resident = kibibytes(value)?,
            "Anonymous:" => at.anonymous = kibibytes(value)?,
            "AnonHugePages:" => at.huge[0] = kibibytes(value)?,
            "ShmemPmdMapped:" | "FilePmdMapped:" => at.huge[1] = at.huge[1].checked_add(kibibytes(value)?)?,
            // The last line of a mapping. `hg` is MADV_HUGEPAGE.
            "VmFlags:" => {
                let asked = value.split_whitespace().any(|flag| flag == "hg");
                let (bytes, huge) = match (asked, at.is_packs) {
                    (true, _) => (at.anonymous, at.huge[0]),
                    (false, true) => (at.resident, at.huge[1]),
                    (false, false) => (0, 0),
                };
                found.possible_bytes = found.possible_bytes.checked_add(bytes.min(at.whole))?;
                found.huge_bytes = found.huge_bytes.checked_add(huge)?;
            }
            _ if key.ends_with(':') => {}
            _ => at = Mapping::of(line, page_bytes)?,
        }
    }
    (found.possible_bytes > 0).then_some(found)
}

/// Reads the text of `/proc/buddyinfo`: for each zone the number of free pieces of 1, 2, 4, … pages.
fn of_pieces(text: &str, small: u64, huge: u64) -> Option<FreeMemory> {
    let mut free = FreeMemory { bytes: 0, huge_bytes: 0 };
    for line in text.lines() {
        let (_, zone) = line.split_once("zone")?;
        let sizes = iter::successors(Some(small), |size| size.checked_mul(2));
        for (count, size) in zone.split_whitespace().skip(1).zip(sizes) {
            let bytes = count.parse::<u64>().ok()?.checked_mul(size)?;
            free.bytes = free.bytes.checked_add(bytes)?;
            if size >= huge {
                // No more than all, which did not overflow.
                free.huge_bytes += bytes;
            }
        }
    }
    Some(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUGE: u64 = 2 << 20;

    /// A mapping as the kernel prints it, shortened.
    fn mapping(head: &str, kilobytes: [u64; 4], flags: &str) -> String {
        let [rss, anonymous, huge, of_file] = kilobytes;
        format!(
            "{head}\nSize:              65536 kB\nKernelPageSize:        4 kB\nRss:        {rss:8} kB\n\
             Anonymous:  {anonymous:8} kB\nKSM:                   0 kB\nAnonHugePages:     {huge} kB\n\
             FilePmdMapped: {of_file:8} kB\nTHPeligible:           1\nVmFlags: {flags} \n"
        )
    }

    #[test]
    fn only_what_asked_for_huge_pages_counts_and_mapped_packs() {
        let heap =
            mapping("55e0c3800000-55e0c4000000 rw-p 00000000 00:00 0    [heap]", [8192, 8192, 0, 0], "rd wr");
        assert_eq!(of_mappings(&heap, HUGE), None, "nothing asked");
        let weights =
            mapping("7f0000000000-7f0004000000 rw-p 00000000 00:00 0 ", [65536, 65536, 49152, 0], "rd wr hg");
        let found = of_mappings(&format!("{heap}{weights}"), HUGE).unwrap();
        assert_eq!((found.possible_bytes, found.share()), (64 << 20, Some(0.75)));
        // 1 MiB at either end of the mapping is no whole page, and memory that was not written is nowhere.
        let ends =
            mapping("7f0000100000-7f0000500000 rw-p 00000000 00:00 0 ", [4096, 4096, 2048, 0], "rd wr hg");
        assert_eq!(of_mappings(&ends, HUGE).unwrap().share(), Some(1.0));
        let untouched = mapping("7f0000000000-7f0004000000 rw-p 00000000 00:00 0 ", [0; 4], "rd wr hg");
        assert_eq!(of_mappings(&untouched, HUGE), None);

        let packs = |suffix: &str, of_file| {
            let head =
                format!("7f0000000000-7f0004000000 r--s 00000000 fe:00 7    /m/a b/glmbench-fp16.{suffix}");
            mapping(&head, [65536, 0, 0, of_file], "rd mr sh")
        };
        assert_eq!(of_mappings(&packs("safetensors", 0), HUGE), None);
        assert_eq!(of_mappings(&packs("packs", 0), HUGE).unwrap().share(), Some(0.0));
        assert_eq!(of_mappings(&packs("packs (deleted)", 32768), HUGE).unwrap().share(), Some(0.5));
        // On tmpfs.
        let shared = packs("packs", 32768).replace("FilePmdMapped", "ShmemPmdMapped");
        assert_eq!(of_mappings(&shared, HUGE).unwrap().share(), Some(0.5));
    }

    #[test]
    fn a_text_of_another_kind_has_no_figure() {
        let weights = mapping("7f0000000000-7f0004000000 rw-p 00000000 00:00 0 ", [65536, 65536, 0, 0], "hg");
        assert!(of_mappings(&weights, HUGE).is_some());
        assert_eq!(of_mappings(&weights, 0), None);
        for (from, to) in [("65536 kB\nKSM", "many kB\nKSM"), ("7f0000000000-", "7f "), ("rw-p", "")] {
            let told = of_mappings(&weights.replace(from, to), HUGE);
            assert_eq!(told.is_some(), to.is_empty(), "{from}");
        }
        assert_eq!(of_mappings("no mappings here", HUGE), None);
        // A sum over all mappings has no flags.
        let sums = "55e0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:  1764 kB\nAnonymous:  112 kB\n";
        assert_eq!(of_mappings(sums, HUGE), None);
    }

    #[test]
    fn free_pieces_count_from_a_huge_page_on() {
        let text = "Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 \n\
                    Node 0, zone   Normal    220    145    274    344    250    342    331    156     62      5   1671 ";
        let huge_bytes = (1 + 5) * HUGE + (3 + 1671) * 2 * HUGE;
        // Counts of pieces of 1, 2, 4, … small pages.
        let small = [220, 145, 274, 344, 250, 342, 331, 156, 62 + 1];
        let small: u64 = small.iter().zip(0..).map(|(count, order)| (count << order) * 4096).sum();
        assert_eq!(of_pieces(text, 4096, HUGE), Some(FreeMemory { bytes: small + huge_bytes, huge_bytes }));
        assert_eq!(of_pieces("Node 0, zone  DMA  1 2 x", 4096, HUGE), None);
        assert_eq!(of_pieces("another text", 4096, HUGE), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_an_answer_or_none() {
        if let Some(found) = of_process() {
            assert!(found.huge_bytes <= found.possible_bytes, "{found:?}");
        }
    }
}
