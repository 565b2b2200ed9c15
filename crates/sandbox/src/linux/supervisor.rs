//! The process that makes a sandbox, keeps its clock and collects its output.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::utsname::uname;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, close, getegid, geteuid, pipe2, setsid};

use super::init::{self, Start};
use super::{NOBODY, Refused, Step, filter, process};
use crate::Output;
use crate::wire::{Answer, Request, Status};

/// Each namespace of a sandbox, with its name.
const NAMESPACES: [(&str, CloneFlags); 7] = [
    ("user namespaces", CloneFlags::CLONE_NEWUSER),
    ("mount namespaces", CloneFlags::CLONE_NEWNS),
    ("process namespaces", CloneFlags::CLONE_NEWPID),
    ("network namespaces", CloneFlags::CLONE_NEWNET),
    ("IPC namespaces", CloneFlags::CLONE_NEWIPC),
    ("UTS namespaces", CloneFlags::CLONE_NEWUTS),
    ("cgroup namespaces", CloneFlags::CLONE_NEWCGROUP),
];

/// Bytes of a report of [`init`].
const MAX_STATUS: usize = 64 << 10;

/// Answers one request: from standard input, to standard output.
pub(crate) fn supervise() -> ExitCode {
    let Ok(request) = Request::read(&mut io::stdin().lock()) else { return ExitCode::FAILURE };
    let mut answer = answer(request).unwrap_or_else(|refused| Answer {
        status: refused.status(),
        stdout: Output::default(),
        stderr: Output::default(),
        wall: Duration::ZERO,
    });
    if let Status::Refused { hint, error, .. } = &mut answer.status
        && NOT_PERMITTED.iter().any(|code| error.starts_with(code))
    {
        hint.push_str(hint_of_the_machine());
    }
    let output = OpenOptions::new().write(true).open("/proc/self/fd/1");
    match output.and_then(|mut output| answer.write(&mut output)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(request: Request) -> Result<Answer, Refused> {
    // Signals of the terminal go to the harness. The harness also decides what to do with a running program.
    setsid().step(|| "a session of its own".into())?;
    set_pdeathsig(Signal::SIGKILL).step(|| "to die with the harness".into())?;
    close_others().step(|| "to close files".into())?;
    let limits = request.limits;
    let filters = filter::build()?;
    let input = sealed(request.program.as_ref().map_or(&[][..], |program| &program.input))?;
    let pipe = || pipe2(OFlag::O_CLOEXEC).step(|| "a pipe".into());
    let ((out, out_end), (err, err_end), (status, status_end)) = (pipe()?, pipe()?, pipe()?);
    let (go, go_end) = pipe()?;
    let tasks = tasks_that_count();
    let start = Instant::now();
    let all = NAMESPACES.iter().fold(CloneFlags::empty(), |all, (_, flag)| all | *flag);
    let Some(first) = process::fork(all).map_err(refused_namespace)? else {
        drop((out, err, status, go_end));
        init::start(&Start {
            request,
            filters,
            input,
            go,
            status: status_end,
            out: out_end,
            err: err_end,
            tasks,
        });
    };
    drop((request, go, status_end, out_end, err_end, input));
    let mapped = map_users(first).and_then(|users| {
        File::from(go_end).write_all(&[users]).step(|| "to start the first process".into())
    });
    if let Err(refused) = mapped {
        let _ = (kill(first, Signal::SIGKILL), waitpid(first, None));
        return Err(refused);
    }
    let mut streams =
        [Stream::new(out, limits.output), Stream::new(err, limits.output), Stream::new(status, MAX_STATUS)];
    let timed_out = collect(&mut streams, start.checked_add(limits.wall), first)?;
    let _ = waitpid(first, None);
    let wall = start.elapsed();
    let [out, err, status] = streams.map(|stream| stream.output);
    let first_line = status.kept.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let status = match serde_json::from_slice(first_line) {
        Ok(status) => status,
        Err(_) if timed_out => Status::Ended(crate::End::TimedOut),
        Err(_) => return Err(Refused::new("the sandbox's first process", "it ended without a report")),
    };
    Ok(Answer { status, stdout: out, stderr: err, wall })
}

/// Closes all files but the first three: the harness may have inherited some that stay open over `exec`.
fn close_others() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for file in open.into_iter().filter(|file| *file > 2) {
        // The list of files itself is closed by now.
        let _ = close(file);
    }
    Ok(())
}

/// Returns a file in memory with the program's input, which no one can change.
fn sealed(input: &[u8]) -> Result<OwnedFd, Refused> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create("input", flags).step(|| "a file in memory (memfd)".into())?;
    let mut file = File::from(file);
    file.write_all(input).and_then(|()| io::Seek::rewind(&mut file)).step(|| "the program's input".into())?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).step(|| "to seal the program's input".into())?;
    Ok(file.into())
}

/// Maps the users of a sandbox, and returns how. `2` is for this user and nobody, which only root may. `1` is for nobody
/// alone, who is this user outside.
fn map_users(first: Pid) -> Result<u8, Refused> {
    let write = |name: &str, text: &str| fs::write(format!("/proc/{first}/{name}"), text);
    let both = format!("0 0 1\n{NOBODY} {NOBODY} 1\n");
    if geteuid().is_root() && write("uid_map", &both).is_ok() {
        write("gid_map", &both).step(|| "a mapping of groups".into())?;
        return Ok(2);
    }
    write("uid_map", &format!("{NOBODY} {} 1\n", geteuid())).step(|| "a mapping of users".into())?;
    // Kernels before 3.19 have no such file and need none.
    let _ = write("setgroups", "deny");
    write("gid_map", &format!("{NOBODY} {} 1\n", getegid())).step(|| "a mapping of groups".into())?;
    Ok(1)
}

/// Returns the number of processes and threads that the kernel counts for the program's user besides its own. Kernels from
/// 5.14 on count each user namespace for itself.
fn tasks_that_count() -> u64 {
    let release =
        uname().ok().and_then(|name| name.release().to_str().map(str::to_owned)).unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) >= (Some(5), Some(14)) {
        return 0;
    }
    let user = if geteuid().is_root() { NOBODY.to_string() } else { geteuid().to_string() };
    let threads = |status: &str| -> Option<u64> {
        let field =
            |name| status.lines().find_map(|line: &str| line.strip_prefix(name)?.split_whitespace().next());
        (field("Uid:")? == user).then(|| field("Threads:")?.parse().ok()).flatten()
    };
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let status = |entry: io::Result<fs::DirEntry>| fs::read_to_string(entry.ok()?.path().join("status")).ok();
    processes.filter_map(status).filter_map(|status| threads(&status)).sum()
}

/// Names the first namespace that cannot be made.
fn refused_namespace(error: Errno) -> Refused {
    let user = CloneFlags::CLONE_NEWUSER;
    for (name, flag) in NAMESPACES {
        match process::fork(user | flag) {
            Ok(None) => process::leave(0),
            Ok(Some(child)) => {
                let _ = waitpid(child, None);
            }
            Err(error) => return Refused::new(name, error),
        }
    }
    Refused::new("all namespaces together", error)
}

/// How errors begin that a setting of the machine explains.
const NOT_PERMITTED: [&str; 4] = ["EPERM", "EACCES", "ENOSPC", "EINVAL"];

/// Says which setting of the machine explains a refusal.
fn hint_of_the_machine() -> &'static str {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        "; allow user namespaces: sysctl user.max_user_namespaces=15000"
    } else if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "; allow user namespaces: sysctl kernel.unprivileged_userns_clone=1"
    } else if is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "; allow user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    } else {
        "; in a container, run it with `--security-opt seccomp=unconfined --security-opt systempaths=unconfined` or outside"
    }
}

/// One end of a pipe from the sandbox.
struct Stream {
    from: Option<File>,
    output: Output,
    limit: usize,
}

impl Stream {
    fn new(from: OwnedFd, limit: usize) -> Self {
        Self { from: Some(from.into()), output: Output::default(), limit }
    }

    /// Reads what is there, keeps its beginning and counts the rest.
    fn read(&mut self, buffer: &mut [u8]) {
        let length = self.from.as_mut().map_or(0, |from| from.read(buffer).unwrap_or(0));
        if length == 0 {
            self.from = None;
        }
        let kept = length.min(self.limit - self.output.kept.len());
        self.output.kept.extend_from_slice(&buffer[..kept]);
        self.output.dropped += (length - kept) as u64;
    }
}

/// Reads all streams to their ends, which come when the last process has gone. Kills the first one at the deadline, and with
/// it all. Returns whether that was so.
fn collect(streams: &mut [Stream], deadline: Option<Instant>, first: Pid) -> Result<bool, Refused> {
    let mut buffer = vec![0; 64 << 10];
    let mut timed_out = false;
    loop {
        let open: Vec<usize> = (0..streams.len()).filter(|at| streams[*at].from.is_some()).collect();
        if open.is_empty() {
            return Ok(timed_out);
        }
        let left = deadline.filter(|_| !timed_out).map_or(Duration::from_mins(1), |deadline| {
            deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        let left = PollTimeout::from(left.as_millis().min(60_000) as u16);
        let files = streams.iter().filter_map(|stream| stream.from.as_ref());
        let mut ready: Vec<PollFd<'_>> =
            files.map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN)).collect();
        match poll(&mut ready, left) {
            Err(Errno::EINTR) => continue,
            other => other.step(|| "to wait for the program".into())?,
        };
        let ready: Vec<bool> = ready.iter().map(|file| file.any().unwrap_or(true)).collect();
        for (at, _) in open.into_iter().zip(ready).filter(|(_, is_ready)| *is_ready) {
            streams[at].read(&mut buffer);
        }
        if !timed_out && deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            timed_out = true;
            let _ = kill(first, Signal::SIGKILL);
        }
    }
}
