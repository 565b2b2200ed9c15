//! The system call filter of programs.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::Refused;

/// Calls that fail with `EPERM`. The namespaces allow most of them nothing, but each has had holes in the kernel.
const FORBIDDEN: &[c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_fanotify_init,
    // Ways around this filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_personality,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
];

/// On x86-64 every call has a second number, for programs with 32-bit pointers, and some have a third.
#[cfg(target_arch = "x86_64")]
const X32: c_long = 0x4000_0000;

/// Flags of `clone` that make namespaces.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Families of sockets that a program may have. Its network namespace keeps them from everything.
const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// Builds the filters. A processor that they do not know is an error.
pub(super) fn build() -> Result<[BpfProgram; 2], Refused> {
    let refused =
        |error: &dyn std::fmt::Display| Refused::new("a system call filter for this processor", error);
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| refused(&error))?;
    let filter = |rules, errno: i32| -> Result<BpfProgram, seccompiler::BackendError> {
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch)?.try_into()
    };
    // The flags of clone3 lie in memory, where a filter cannot look. Libraries fall back to clone.
    let calls = [
        libc::SYS_clone3,
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_clone3 | X32),
    ];
    let unknown = calls.into_iter().map(|call| (call, vec![])).collect();
    let forbidden = forbidden().map_err(|error| refused(&error))?;
    Ok([
        filter(forbidden, libc::EPERM).map_err(|error| refused(&error))?,
        filter(unknown, libc::ENOSYS).map_err(|error| refused(&error))?,
    ])
}

fn forbidden() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        FORBIDDEN.iter().map(|call| (*call, vec![])).collect();
    let condition = |op, value: i32| SeccompCondition::new(0, SeccompCmpArgLen::Dword, op, value as u64);
    let mut clones = Vec::new();
    for flag in NAMESPACES {
        clones.push(SeccompRule::new(vec![condition(SeccompCmpOp::MaskedEq(flag as u64), flag)?])?);
    }
    rules.insert(libc::SYS_clone, clones);
    let other = FAMILIES
        .map(|family| condition(SeccompCmpOp::Ne, family))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(other)?]);
    #[cfg(target_arch = "x86_64")]
    {
        let second: Vec<c_long> =
            rules.keys().map(|call| call | X32).chain((512..548).map(|call| call | X32)).collect();
        rules.extend(second.into_iter().map(|call| (call, vec![])));
    }
    Ok(rules)
}

/// Applies the filters to this process, for good. It also gives up new privileges.
pub(super) fn apply(filters: &[BpfProgram]) -> Result<(), Refused> {
    filters.iter().try_for_each(|filter| {
        seccompiler::apply_filter(filter)
            .map_err(|error| Refused::new("a system call filter (seccomp)", error))
    })
}
