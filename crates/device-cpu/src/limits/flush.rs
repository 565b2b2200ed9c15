//! Flushing memory from all caches, so that the next read comes from memory.
//!
//! Reading a buffer many times as large as the caches is no sure replacement: some caches keep what was read first.
//! Also, a two-core virtual machine may report its host's whole cache (260 MB). Filling eight times that size takes
//! longer than everything else.

use super::bandwidth::Line;

/// Whether this machine has instructions to flush caches.
pub(super) const FLUSHES: bool = cfg!(target_arch = "x86_64");

/// Writes back and evicts these lines. Does nothing on other machines: aarch64's `dc civac` ends where a system-level
/// cache may begin.
pub(super) fn flush(lines: &[Line]) {
    #[cfg(target_arch = "x86_64")]
    x86::flush(lines);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = lines;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _mm_clflush, _mm_mfence};

    use super::Line;

    pub(super) fn flush(lines: &[Line]) {
        if is_unordered() {
            for line in lines {
                // SAFETY: the instruction is available, and changes nothing that a program can see.
                unsafe {
                    asm!("clflushopt [{}]", in(reg) std::ptr::from_ref(line), options(nostack, preserves_flags));
                }
            }
        } else {
            for line in lines {
                // SAFETY: every x86-64 has the instruction, and it changes nothing that a program can see.
                unsafe { _mm_clflush(std::ptr::from_ref(line).cast()) };
            }
        }
        // SAFETY: every x86-64 has the instruction.
        unsafe { _mm_mfence() };
    }

    /// Returns whether `clflushopt` is available, which does not wait for the previous line: leaf 7, EBX bit 23.
    fn is_unordered() -> bool {
        __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx >> 23 & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytemuck::Zeroable;

    #[test]
    fn what_is_flushed_is_still_there() {
        let lines = vec![Line::zeroed(); 1000];
        flush(&lines);
        flush(&[]);
        assert!(lines.iter().all(|line| format!("{line:?}") == format!("{:?}", Line::zeroed())));
    }
}
