//! AMX, the tile unit of newer Intel server cores. Its instructions are written as `asm!`, because the intrinsics are
//! not stable.

use std::sync::OnceLock;

/// The available parts of AMX. A value of this type proves that the machine has the tile registers, and that the
/// operating system allows their use: only [`found`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amx {
    bf16: bool,
    int8: bool,
}

impl Amx {
    /// Returns whether `tdpbf16ps` is available.
    pub(crate) fn has_bf16(self) -> bool {
        self.bf16
    }

    /// Returns whether `tdpbssd` and its relatives are available.
    pub(crate) fn has_int8(self) -> bool {
        self.int8
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[expect(clippy::unused_self, reason = "a value proves that the registers are present")]
impl Amx {
    /// Configures the registers: 0 to 3 hold sums and 4 and 5 rows, each with `rows` rows, one to sixteen. 6 and 7
    /// hold weights.
    ///
    /// # Panics
    /// If `rows` is not one to sixteen: the processor would raise an exception.
    pub(crate) fn configure(self, rows: usize) {
        assert!((1..=16).contains(&rows), "invariant: a tile has one to sixteen rows");
        let rows = rows as u8;
        let mut config =
            TileConfig { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        config.row_bytes[..8].fill(64);
        config.rows[..6].fill(rows);
        config.rows[6..8].fill(16);
        // SAFETY: a valid configuration of palette 1; the registers are present, by `self`.
        unsafe {
            std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly, preserves_flags));
        }
    }

    /// Releases the registers.
    pub(crate) fn release(self) {
        // SAFETY: nothing is kept in the tiles between products; the registers are present, by `self`.
        unsafe { std::arch::asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// The memory operand of `LDTILECFG`.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Returns which parts of AMX this process may use. The first call asks for permission, which also covers threads
/// started later.
///
/// # Errors
/// The reason why AMX cannot be used.
pub(crate) fn found() -> Result<Amx, &'static str> {
    static FOUND: OnceLock<Result<Amx, &'static str>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let amx = in_the_processor()?;
        permission()?;
        Ok(amx)
    })
}

/// Checks the processor and the operating system. CPUID leaf 7 lists the instructions. XCR0 shows whether the system
/// saves the tiles when it switches threads (Intel SDM volume 1, 13.3 and 18.1).
#[cfg(target_arch = "x86_64")]
fn in_the_processor() -> Result<Amx, &'static str> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    const OSXSAVE: u32 = 1 << 27;
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    /// Tile configuration and tile data.
    const TILE_STATE: u32 = 0b11 << 17;

    if __cpuid(0).eax < 7 {
        return Err("the processor has no AMX");
    }
    let found = __cpuid_count(7, 0).edx;
    if found & TILE == 0 {
        return Err("the processor has no AMX");
    }
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return Err("the system does not keep AMX tiles");
    }
    let kept: u32;
    // SAFETY: OSXSAVE says that `xgetbv` is available, and register 0 always exists.
    unsafe {
        std::arch::asm!(
            "xgetbv", in("ecx") 0, out("eax") kept, out("edx") _,
            options(nomem, nostack, preserves_flags)
        );
    }
    if kept & TILE_STATE != TILE_STATE {
        return Err("the system does not keep AMX tiles");
    }
    Ok(Amx { bf16: found & BF16 != 0, int8: found & INT8 != 0 })
}

#[cfg(not(target_arch = "x86_64"))]
fn in_the_processor() -> Result<Amx, &'static str> {
    Err("AMX is of x86-64 processors")
}

/// Requests tile data, which Linux grants only on request: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn permission() -> Result<(), &'static str> {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the system call takes two numbers and no pointer.
    let result = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) };
    if result == 0 { Ok(()) } else { Err("the system refuses AMX tiles") }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn permission() -> Result<(), &'static str> {
    Err("AMX is asked for on Linux on x86-64 only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_always_the_same() {
        assert_eq!(found(), found());
        #[cfg(target_os = "linux")]
        if let Ok(cpu) = std::fs::read_to_string("/proc/cpuinfo") {
            assert!(found().is_err() || cpu.contains("amx_tile"), "{:?}", found());
        }
    }
}
