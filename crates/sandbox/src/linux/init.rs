//! The first process in the namespaces of a sandbox: it builds them, starts the program, and reaps.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl::{set_dumpable, set_no_new_privs, set_pdeathsig};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, execve, setgroups, sethostname, setresgid,
    setresuid, setsid,
};
use seccompiler::BpfProgram;

use super::{NOBODY, Refused, Step, WORK, filter, process, root};
use crate::wire::{Request, Status};
use crate::{End, Limits, Program};

/// Milliseconds between two looks at the memory of all processes.
const LOOK: u16 = 20;

/// What the first process is given.
pub(super) struct Start {
    pub(super) request: Request,
    pub(super) filters: [BpfProgram; 2],
    /// The program's standard input.
    pub(super) input: OwnedFd,
    /// A byte comes here when the users are mapped: how many.
    pub(super) go: OwnedFd,
    pub(super) status: OwnedFd,
    pub(super) out: OwnedFd,
    pub(super) err: OwnedFd,
    /// Processes of other programs that count against the program's limit.
    pub(super) tasks: u64,
}

/// Serves as first process to the program's end. All other processes end with this one.
pub(super) fn start(start: &Start) -> ! {
    let status = serve(start).unwrap_or_else(Refused::status);
    report(start, &status);
    process::leave(0);
}

fn report(start: &Start, status: &Status) {
    let line = serde_json::to_vec(status).unwrap_or_default();
    if let Ok(pipe) = start.status.try_clone() {
        let _ = File::from(pipe).write_all(&[&line[..], b"\n"].concat());
    }
}

fn serve(start: &Start) -> Result<Status, Refused> {
    set_pdeathsig(Signal::SIGKILL).step(|| "to die with the supervisor".into())?;
    let mut users = [0];
    let go = start.go.try_clone().step(|| "a pipe".into())?;
    File::from(go).read_exact(&mut users).step(|| "to wait for the supervisor".into())?;
    // No program of the same user may look into this process.
    set_dumpable(false).step(|| "to protect the first process".into())?;
    sethostname("sandbox").step(|| "a host name".into())?;
    let owner = (users == [2]).then_some(NOBODY);
    let (empty, limits) = (Program::default(), &start.request.limits);
    let program = start.request.program.as_ref().unwrap_or(&empty);
    root::build(&program.read_only, &program.files, limits, owner)?;
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block().step(|| "to block signals".into())?;
    let signals = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .step(|| "signals as a file".into())?;
    match process::fork(CloneFlags::empty()).step(|| "a process in the sandbox".into())? {
        Some(main) => reap(main, &signals, limits.memory, start.request.program.is_some()),
        None => execute(start, program, owner.is_some()),
    }
}

/// Becomes the program. Without one, leaves with success when all is ready.
fn execute(start: &Start, program: &Program, changes_user: bool) -> ! {
    let status = match prepare(start, changes_user).map(|()| become_program(program)) {
        Ok(None) => process::leave(0),
        Ok(Some(error)) => Status::NotExecuted(error.to_string()),
        Err(refused) => refused.status(),
    };
    report(start, &status);
    process::leave(127);
}

fn prepare(start: &Start, changes_user: bool) -> Result<(), Refused> {
    setsid().step(|| "a session of its own".into())?;
    for (resource, most) in resources(&start.request.limits, start.tasks) {
        let hard = getrlimit(resource).map_or(most, |(_, hard)| hard.min(most));
        let soft = if resource == Resource::RLIMIT_CPU { hard.saturating_sub(1).max(1) } else { hard };
        setrlimit(resource, soft, hard).step(|| format!("the limit {resource:?}"))?;
    }
    dup2_stdin(&start.input).step(|| "standard input".into())?;
    dup2_stdout(&start.out).step(|| "standard output".into())?;
    dup2_stderr(&start.err).step(|| "standard error".into())?;
    process::reset_signals();
    SigSet::empty().thread_set_mask().step(|| "to unblock signals".into())?;
    if changes_user {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[]).step(|| "to leave all groups".into())?;
        setresgid(group, group, group).step(|| "to change the group".into())?;
        setresuid(user, user, user).step(|| "to change the user".into())?;
    }
    set_no_new_privs().step(|| "to give up new privileges".into())?;
    filter::apply(&start.filters)
}

fn resources(limits: &Limits, tasks: u64) -> [(Resource, u64); 8] {
    let seconds = limits.cpu.as_secs() + u64::from(limits.cpu.subsec_nanos() > 0);
    [
        // The kernel sends SIGXCPU at the soft limit and SIGKILL at the hard one, a second later.
        (Resource::RLIMIT_CPU, seconds.max(1).saturating_add(1)),
        (Resource::RLIMIT_AS, limits.address_space),
        (Resource::RLIMIT_FSIZE, limits.file_size),
        (Resource::RLIMIT_NPROC, limits.processes.saturating_add(tasks)),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_MEMLOCK, 64 << 10),
    ]
}

/// Executes the program. Returns why not, or `None` without a program.
fn become_program(program: &Program) -> Option<Errno> {
    let path = program.arguments.first()?;
    let text = |text: &String| CString::new(text.as_str()).unwrap_or_default();
    let arguments: Vec<CString> = program.arguments.iter().map(text).collect();
    let mut environment: Vec<CString> =
        ["HOME=/tmp/work", "LANG=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=/tmp"]
            .into_iter()
            .map(|variable| text(&variable.to_owned()))
            .collect();
    debug_assert_eq!(WORK, "/tmp/work");
    environment.extend(program.environment.iter().map(|(name, value)| text(&format!("{name}={value}"))));
    let executed: Result<Infallible, Errno> = execve(&text(path), &arguments, &environment);
    executed.err()
}

/// Waits for the program, reaps what others leave, and looks after the memory of all.
fn reap(main: Pid, signals: &SignalFd, memory: u64, has_program: bool) -> Result<Status, Refused> {
    loop {
        let mut ready = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(LOOK)) {
            Err(Errno::EINTR) => {}
            other => drop(other.step(|| "to wait for the program".into())?),
        }
        while let Ok(Some(_)) = signals.read_signal() {}
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            match status {
                WaitStatus::StillAlive => break,
                WaitStatus::Exited(process, 0) if process == main && !has_program => return Ok(Status::Made),
                WaitStatus::Exited(process, code) if process == main => {
                    return Ok(Status::Ended(End::Exited(code)));
                }
                WaitStatus::Signaled(process, Signal::SIGXCPU, _) if process == main => {
                    return Ok(Status::Ended(End::CpuTime));
                }
                WaitStatus::Signaled(process, signal, _) if process == main => {
                    return Ok(Status::Ended(End::Signalled(signal as i32)));
                }
                _ => {}
            }
        }
        if memory_of_all() > memory {
            return Ok(Status::Ended(End::OutOfMemory));
        }
    }
}

/// Returns the resident bytes of all processes but this one, without pages of files. Pages that a fork shares with its parent
/// count for both.
fn memory_of_all() -> u64 {
    let resident = |name: &str| -> Option<u64> {
        let process: u32 = name.parse().ok()?;
        let statm = fs::read_to_string(format!("/proc/{process}/statm")).ok().filter(|_| process != 1)?;
        let mut pages = statm.split(' ').skip(1).map_while(|pages| pages.parse::<u64>().ok());
        Some(pages.next()?.saturating_sub(pages.next()?))
    };
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let pages: u64 = processes.filter_map(|entry| resident(entry.ok()?.file_name().to_str()?)).sum();
    pages * page_size()
}

/// Returns the size of a page in bytes, 4,096 if the kernel does not say.
fn page_size() -> u64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().map_or(4096, |size| size as u64)
}
