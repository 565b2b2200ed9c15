//! AMX, the tile unit of newer Intel server cores. Its instructions are written as `asm!`, because the intrinsics are
//! not stable.

pub(super) mod limits;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) mod products;

use std::sync::OnceLock;

/// The available parts of AMX. A value of this type implies the operating system's permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amx {
    /// Whether `tdpbf16ps` is available.
    pub bf16: bool,
    /// Whether `tdpbssd` and its relatives are available.
    pub int8: bool,
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
