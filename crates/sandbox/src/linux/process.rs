//! The calls that Rust cannot check: forks and what goes with them.

#![allow(unsafe_code, reason = "forks, and the calls that only a child makes")]

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

/// Forks this process, into new namespaces if flags say so. Returns `None` in the child.
///
/// Fails with `EBUSY` if this process has several threads: a child would have copies of locks that no one opens.
pub(super) fn fork(flags: CloneFlags) -> Result<Option<Pid>, Errno> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|_| Errno::ENOENT)?.count();
    if threads != 1 {
        return Err(Errno::EBUSY);
    }
    let flags = libc::c_long::from(flags.bits() | libc::SIGCHLD);
    // SAFETY: The call has no stack and no pointers, so it is a fork: the child continues here on a copy of this memory. This is
    // the only thread, so the copy is whole.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    let pid = Errno::result(pid)?;
    Ok((pid != 0).then(|| Pid::from_raw(pid as libc::pid_t)))
}

/// Ends this process without destructors and buffers: a fork has copies from its parent.
pub(super) fn leave(code: i32) -> ! {
    // SAFETY: The call takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// Gives all signals their default action, as a program expects. Rust ignores SIGPIPE, and the harness may ignore others.
pub(super) fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: No handler is installed. Signals that cannot be changed are refused, which is as well.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
