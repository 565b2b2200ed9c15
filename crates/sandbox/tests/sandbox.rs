//! Programs that try to get out, to stay, and to take everything. Where the kernel refuses the sandbox, the tests say so and pass.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use glmbench_sandbox::{
    End, InputFile, Language, Limits, NoToolchain, Outcome, Program, Python, RunError, Sandbox, Toolchain,
    Verdict, humaneval_program,
};
use libtest_mimic::{Arguments, Failed, Trial};

#[path = "../../../tests/it/skip.rs"]
mod skip;

/// A sandbox with what runs in it.
#[derive(Clone)]
struct Room {
    sandbox: Sandbox,
    python: Option<Python>,
}

type Test = fn(&Room);

const TESTS: [(&str, Test); 12] = [
    ("a_program_has_arguments_input_files_and_a_clean_environment", clean_start),
    ("statuses_and_signals_are_reported", statuses),
    ("programs_that_cannot_run_are_refused", refusals),
    ("output_is_kept_to_its_limit_and_counted", output),
    ("time_is_bounded_and_leftovers_die", time),
    ("the_root_is_read_only_and_hides_the_machine", root),
    ("files_of_the_harness_are_closed", files),
    ("programs_die_with_the_harness", harness),
    ("sandboxes_run_at_the_same_time", many),
    ("every_language_has_its_verdicts", languages),
    ("compiled_programs_are_bounded", compiled_bounds),
    ("memory_that_is_touched_counts_without_a_bound_of_addresses", touched),
];

/// Tests that need Python.
const WITH_PYTHON: [(&str, Test); 11] = [
    ("a_fork_bomb_is_bounded", fork_bomb),
    ("there_is_no_network", network),
    ("other_processes_cannot_be_reached", processes),
    ("mounts_and_namespaces_are_refused", mounts),
    ("links_lead_nowhere", links),
    ("memory_is_bounded", memory),
    ("files_are_bounded", disk),
    ("cpu_time_is_bounded", cpu),
    ("nothing_has_privileges", privileges),
    ("verdicts_are_those_of_humaneval", verdicts),
    ("canonical_solutions_of_humaneval_pass", humaneval),
];

fn main() -> ExitCode {
    if let Some(code) = glmbench_sandbox::child_main() {
        return code;
    }
    if let (Some("--harness"), Some(mark)) = (std::env::args().nth(1).as_deref(), std::env::args().nth(2)) {
        let room = Room { sandbox: Sandbox::probe().unwrap(), python: None };
        room.shell(&format!("sleep {mark}"), &limits(1000));
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::from_args();
    let sandbox = match Sandbox::probe() {
        Ok(sandbox) => sandbox,
        Err(error) => {
            skip::skipped(&format!("all tests of the sandbox: {error}"));
            return ExitCode::SUCCESS;
        }
    };
    let no_python = |error| skip::skipped(&format!("tests that need Python: {error}"));
    let python = Python::find(&sandbox).map_err(no_python).ok();
    let with_python = WITH_PYTHON.into_iter().filter(|_| python.is_some());
    let room = Room { sandbox, python: python.clone() };
    let trial = |(name, test): (&'static str, Test)| {
        let room = room.clone();
        Trial::test(name, move || {
            test(&room);
            Ok::<(), Failed>(())
        })
    };
    libtest_mimic::run(&arguments, TESTS.into_iter().chain(with_python).map(trial).collect()).exit_code()
}

impl Room {
    /// Runs lines of a shell.
    fn shell(&self, script: &str, limits: &Limits) -> Outcome {
        let arguments = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        self.sandbox.run(&Program { arguments, ..Program::default() }, limits).unwrap()
    }

    /// Runs a Python program with os, sys and ctypes imported.
    fn python(&self, script: &str, limits: &Limits) -> Outcome {
        let script = format!("import os, sys, ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n{script}");
        let program = self.python.as_ref().unwrap().program(&["-c", &script]);
        self.sandbox.run(&program, limits).unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn assert_says(outcome: &Outcome, expected: &str) {
    assert_eq!((text(&outcome.stdout.kept).trim(), outcome.end), (expected, End::Exited(0)), "{outcome:?}");
}

fn limits(wall: u64) -> Limits {
    Limits { wall: Duration::from_secs(wall), ..Limits::default() }
}

fn clean_start(room: &Room) {
    let program = Program {
        arguments: [
            "/bin/sh",
            "-c",
            "cat; cat data/x.txt; pwd; echo $0 $1; env | sort; id -u; hostname",
            "zero",
            "one",
        ]
        .map(str::to_owned)
        .to_vec(),
        input: b"input\n".to_vec(),
        files: vec![InputFile::new("data/x.txt", "file\n")],
        environment: vec![("OWN".into(), "a b".into())],
        ..Program::default()
    };
    let outcome = room.sandbox.run(&program, &Limits::default()).unwrap();
    let said = text(&outcome.stdout.kept);
    let lines: Vec<&str> = said.lines().filter(|line| !line.starts_with("_=")).collect();
    let expected = [
        "input",
        "file",
        "/tmp/work",
        "zero one",
        "HOME=/tmp/work",
        "LANG=C.UTF-8",
        "OWN=a b",
        "PATH=/usr/local/bin:/usr/bin:/bin",
        "PWD=/tmp/work",
        "TMPDIR=/tmp",
        "65534",
        "sandbox",
    ];
    assert_eq!(lines, expected, "{}", text(&outcome.stderr.kept));
}

fn statuses(room: &Room) {
    let limits = limits(10);
    assert_eq!(room.shell("exit 7", &limits).end, End::Exited(7));
    assert_eq!(room.shell("kill -KILL $$", &limits).end, End::Signalled(9));
    assert_eq!(room.shell("kill -SEGV $$", &limits).end, End::Signalled(11));
    // The harness ignores SIGPIPE, as all Rust programs do. The program does not.
    assert_eq!(room.shell("kill -PIPE $$", &limits).end, End::Signalled(13));
    let outcome = room.shell("echo out; echo err >&2", &limits);
    assert_eq!((&outcome.stdout.kept[..], &outcome.stderr.kept[..]), (&b"out\n"[..], &b"err\n"[..]));
}

fn refusals(room: &Room) {
    let run = |arguments: &[&str], files: &[&str]| {
        let program = Program {
            arguments: arguments.iter().map(|&a| a.to_owned()).collect(),
            files: files.iter().map(|&path| InputFile::new(path, "")).collect(),
            ..Program::default()
        };
        room.sandbox.run(&program, &Limits::default()).unwrap_err().to_string()
    };
    assert!(run(&[], &[]).contains("expected an absolute path"));
    assert!(run(&["sh"], &[]).contains("expected an absolute path"));
    assert!(run(&["/no/such/program"], &[]).contains("cannot be executed in the sandbox: ENOENT"));
    assert!(run(&["/bin/sh", "a\0b"], &[]).contains("NUL"));
    for path in ["../x", "/etc/x", "a//b", "", "a/../../b", "./a", "a\0"] {
        assert!(run(&["/bin/sh"], &[path]).contains("expected a relative path"), "{path:?}");
    }
    // Files that do not fit.
    let program = Program {
        arguments: vec!["/bin/sh".into()],
        files: vec![InputFile::new("x", vec![0_u8; 2 << 20])],
        ..Program::default()
    };
    let error = room.sandbox.run(&program, &Limits { disk: 1 << 20, ..Limits::default() }).unwrap_err();
    assert!(
        matches!(&error, RunError::Unavailable(_)) && error.to_string().contains("the file x, 2097152 bytes"),
        "{error}"
    );
}

fn output(room: &Room) {
    let small = Limits { output: 1000, ..limits(20) };
    let outcome = room.shell("head -c 50000000 /dev/zero; head -c 70000 /dev/zero >&2", &small);
    assert_eq!((outcome.stdout.kept.len(), outcome.stdout.dropped), (1000, 49_999_000));
    assert_eq!((outcome.stderr.kept.len(), outcome.stderr.dropped), (1000, 69_000));
    // Ten gigabytes, or what comes within a second.
    let start = Instant::now();
    let outcome = room.shell("head -c 10000000000 /dev/zero", &Limits { output: 1000, ..limits(1) });
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(outcome.stdout.kept.len(), 1000);
    assert!(outcome.stdout.dropped > 1_000_000, "{}", outcome.stdout.dropped);
    assert!(matches!(outcome.end, End::TimedOut | End::Exited(0)));
    let none = room.shell("echo x", &Limits { output: 0, ..limits(5) });
    assert_eq!((none.stdout.kept.len(), none.stdout.dropped), (0, 2));
}

fn time(room: &Room) {
    let start = Instant::now();
    let outcome = room.shell("trap '' TERM INT HUP; echo begun; sleep 1000 & sleep 1000", &limits(1));
    assert_eq!((outcome.end, &outcome.stdout.kept[..]), (End::TimedOut, &b"begun\n"[..]));
    assert!(
        start.elapsed() < Duration::from_secs(8) && outcome.wall >= Duration::from_secs(1),
        "{outcome:?}"
    );
    // A child that would go on for long, in a session of its own, holds no one up.
    let start = Instant::now();
    let mark = format!("1{}", std::process::id());
    assert_eq!(room.shell(&format!("setsid sleep {mark} & exit 3"), &limits(20)).end, End::Exited(3));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(sleepers(&mark), 0);
}

/// Returns the number of processes `sleep MARK` on this machine.
fn sleepers(mark: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap();
    let lines = processes.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| text(line) == format!("sleep\0{mark}\0")).count()
}

fn harness(_: &Room) {
    let mark = format!("2{}", std::process::id());
    let program = std::env::current_exe().unwrap();
    let mut harness = std::process::Command::new(program).args(["--harness", &mark]).spawn().unwrap();
    let wait_for = |count: usize| {
        let start = Instant::now();
        while sleepers(&mark) != count {
            assert!(start.elapsed() < Duration::from_secs(30), "waiting for {count} processes");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for(1);
    harness.kill().unwrap();
    harness.wait().unwrap();
    wait_for(0);
}

fn root(room: &Room) {
    let home = std::env::home_dir().unwrap_or_else(|| "/root".into());
    let secret = std::env::temp_dir().join(format!("glmbench-sandbox-secret-{}", std::process::id()));
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let paths = [
        home.join(".bashrc"),
        home.join(".ssh"),
        secret.clone(),
        "/etc/shadow".into(),
        "/etc/hostname".into(),
        "/sys/kernel".into(),
        "/old".into(),
        "/work".into(),
    ];
    for path in paths {
        let outcome =
            room.shell(&format!("cat '{0}' 2>/dev/null || ls '{0}' 2>/dev/null", path.display()), &limits(5));
        assert!(
            outcome.end != End::Exited(0) && outcome.stdout.kept.is_empty(),
            "{}: {outcome:?}",
            path.display()
        );
    }
    fs::remove_file(secret).unwrap();
    for path in
        ["/x", "/usr/x", "/usr/bin/x", "/etc/x", "/dev/x", "/proc/x", "/bin/x", "/proc/sys/kernel/hostname"]
    {
        let outcome = room.shell(&format!("echo x > {path}"), &limits(5));
        assert_ne!(outcome.end, End::Exited(0), "{path}");
    }
    let outcome = room.shell(
        "echo x > x && echo x > /tmp/y && echo x > /dev/null && echo x > /dev/shm/z && cat x; ls /",
        &limits(5),
    );
    assert!(outcome.stdout.kept.starts_with(b"x\n"), "{outcome:?}");
    assert!(
        !text(&outcome.stdout.kept).contains("root") && !text(&outcome.stdout.kept).contains("home"),
        "{outcome:?}"
    );
    // Nothing is left for the next one.
    assert_ne!(room.shell("cat x", &limits(5)).end, End::Exited(0));
}

fn files(room: &Room) {
    assert_says(&room.shell("ls /proc/self/fd | tr '\\n' ' '", &limits(5)), "0 1 2 3");
    // No one else is there: the first process, where it is seen, and this one.
    let outcome = room.shell(
        "ls /proc | grep -E '^[0-9]+$' | wc -l; cat /proc/1/environ; cat /proc/1/mem; ls -l /proc/1/fd",
        &limits(5),
    );
    let said = text(&outcome.stdout.kept);
    let mut lines = said.lines();
    assert!(lines.next().unwrap().trim().parse::<u32>().unwrap() <= 6, "{said}");
    assert!(lines.all(|line| line.starts_with("total 0")), "{said}");
}

fn many(room: &Room) {
    std::thread::scope(|scope| {
        for at in 0..8 {
            scope.spawn(move || {
                assert_says(&room.shell(&format!("sleep 0.2; echo {at}"), &limits(30)), &at.to_string());
            });
        }
    });
}

fn fork_bomb(room: &Room) {
    let bomb = "
most = 0
try:
    while True:
        if os.fork() == 0:
            import time; time.sleep(100)
        most += 1
except OSError as error:
    print(most < 40, type(error).__name__)
";
    let before = fs::read_dir("/proc").unwrap().count();
    assert_says(&room.python(bomb, &limits(20)), "True BlockingIOError");
    // One that never gives up.
    let outcome = room.shell("f() { f | f & }; f; sleep 100", &limits(2));
    assert!(matches!(outcome.end, End::TimedOut | End::Exited(_) | End::Signalled(_)), "{outcome:?}");
    let after = fs::read_dir("/proc").unwrap().count();
    assert!(after < before + 40, "{before} processes before, {after} after");
}

fn network(room: &Room) {
    let script = "
import socket
def can(*address, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    try:
        s = socket.socket(family, kind)
        s.settimeout(1)
        s.connect(*address)
        return 'yes'
    except OSError as error:
        return error.errno
print(can(('127.0.0.1', 22)), can(('8.8.8.8', 53)), can(('8.8.8.8', 53), kind=socket.SOCK_DGRAM),
      can((2, 22), family=40), can((0, 0), family=16, kind=socket.SOCK_RAW), can(b'\\0x', family=socket.AF_UNIX))
try:
    print(socket.gethostbyname('localhost.example.com'))
except OSError:
    print('no names')
";
    let outcome = room.python(script, &limits(20));
    // Unreachable thrice, then families that are refused, then no one there.
    assert_says(&outcome, "101 101 101 1 1 111\nno names");
}

fn processes(room: &Room) {
    let script = "
import errno, signal
name = lambda: errno.errorcode.get(ctypes.get_errno())
print(libc.ptrace(16, 1, 0, 0), name())
print(libc.ptrace(0, 0, 0, 0), name())
print(libc.process_vm_readv(1, 0, 0, 0, 0, 0), name())
for target in (1, os.getppid(), -1):
    try:
        os.kill(target, signal.SIGKILL); print('sent')
    except OSError as error:
        print(type(error).__name__)
print(os.getpid() < 10)
";
    let outcome = room.python(script, &limits(10));
    let said = text(&outcome.stdout.kept);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["-1 EPERM", "-1 EPERM", "-1 EPERM"], "{outcome:?}");
    // A signal to the first process is refused or has no effect; the program goes on either way.
    assert_eq!((lines.last().copied(), outcome.end), (Some("True"), End::Exited(0)), "{outcome:?}");
}

fn mounts(room: &Room) {
    let script = "
import errno
name = lambda: errno.errorcode.get(ctypes.get_errno())
print(libc.mount(b'x', b'/tmp', b'tmpfs', 0, 0), name())
print(libc.umount2(b'/usr', 2), name())
print(libc.unshare(0x10000000), name())
print(libc.unshare(0x00020000), name())
print(libc.setns(0, 0), name())
print(libc.chroot(b'/tmp'), name())
print(libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 0x10000011, 0, 0, 0, 0), name())
print(libc.syscall(435, 0, 0), name())
print(libc.syscall(425, 8, 0), name())
print(libc.syscall(321 if os.uname().machine == 'x86_64' else 280, 0, 0, 0), name())
";
    let outcome = room.python(script, &limits(10));
    let said = text(&outcome.stdout.kept);
    let expected =
        ["-1 EPERM"; 7].into_iter().chain(["-1 ENOSYS", "-1 EPERM", "-1 EPERM"]).collect::<Vec<_>>();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{outcome:?}");
}

fn links(room: &Room) {
    let script = "
os.symlink('/old/etc/shadow', 'a'); os.symlink(os.path.join('/proc/1/root', 'etc/shadow'), 'b'); os.symlink('../../../../etc/shadow', 'c')
os.symlink('/proc/1/cwd', 'd'); os.symlink('/usr/x', 'e')
found = []
for path in ('a', 'b', 'c', 'd/x', '/proc/1/root', '/proc/1/exe', os.path.join('/proc/self/root', 'etc/shadow')):
    try:
        found.append(open(path, 'rb').read(1))
    except OSError:
        pass
try:
    open('e', 'w'); found.append('e')
except OSError:
    pass
try:
    os.link('/usr/bin/env', 'f'); found.append('f')
except OSError:
    pass
print(found)
";
    assert_says(&room.python(script, &limits(10)), "[]");
}

fn memory(room: &Room) {
    let small = Limits { memory: 256 << 20, address_space: 256 << 20, ..limits(30) };
    let script = "
try:
    bytearray(300 << 20); print('got it')
except MemoryError:
    print('MemoryError')
";
    assert_says(&room.python(script, &small), "MemoryError");
    // Each process is within its own limit. All together are not.
    let script = "
import time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(os.urandom(1) * (100 << 20)); time.sleep(100)
time.sleep(100)
";
    assert_eq!(room.python(script, &small).end, End::OutOfMemory);
}

fn disk(room: &Room) {
    let small = Limits { disk: 8 << 20, file_size: 4 << 20, ..limits(20) };
    let script = "
def fill(path, size):
    try:
        with open(path, 'wb') as file:
            for _ in range(size >> 16):
                file.write(bytes(1 << 16))
        return 'written'
    except OSError as error:
        import errno
        return errno.errorcode[error.errno]
print(fill('small', 1 << 20), fill('large', 5 << 20))
print([fill(f'/tmp/{n}', 3 << 20) for n in range(4)][-1])
count = 0
try:
    for count in range(100000):
        os.mkdir(f'/tmp/d{count}')
except OSError:
    pass
print(count < 20000)
";
    assert_says(&room.python(script, &small), "written EFBIG\nENOSPC\nTrue");
}

fn cpu(room: &Room) {
    let one = Limits { cpu: Duration::from_secs(1), ..limits(60) };
    assert_eq!(room.python("while True: pass", &one).end, End::CpuTime);
    // A program may ignore the first signal, not the second.
    let script = "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass";
    assert_eq!(room.python(script, &one).end, End::Signalled(9));
}

fn privileges(room: &Room) {
    let script = "
wanted = ('Uid', 'Gid', 'Groups', 'CapEff', 'CapPrm', 'CapInh', 'CapAmb', 'NoNewPrivs', 'Seccomp')
for line in open('/proc/self/status'):
    name, value = line.split(':')
    if name in wanted:
        print(name, *value.split())
for call in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.nice(-5), lambda: os.chown('/tmp', 0, 0)):
    try:
        call(); print('allowed')
    except OSError:
        pass
";
    let outcome = room.python(script, &limits(10));
    let said = text(&outcome.stdout.kept);
    let zero = "0000000000000000";
    for line in ["Uid 65534 65534 65534 65534", "Gid 65534 65534 65534 65534", "NoNewPrivs 1", "Seccomp 2"] {
        assert!(said.lines().any(|said| said == line), "{line} in {said}");
    }
    for name in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert!(said.contains(&format!("{name} {zero}")), "{said}");
    }
    assert!(!said.contains("allowed"), "{said}");
}

fn verdicts(room: &Room) {
    let python = room.python.as_ref().unwrap();
    let check = |text: &str| python.check(&room.sandbox, text, Duration::from_secs(5)).unwrap();
    assert_eq!(check("assert 1 + 1 == 2\nprint('x' * 100000)"), Verdict::Passed);
    assert_eq!(check("import os\nos.write(1, b'x' * 5000)"), Verdict::Passed);
    assert_eq!(check("assert 1 == 2, 'not equal'"), Verdict::Failed("not equal".into()));
    assert_eq!(check("assert 1 == 2"), Verdict::Failed("AssertionError".into()));
    assert_eq!(check("if __name__ == '__main__': assert False"), Verdict::Passed);
    let cases = [
        ("def f(:\n", "invalid syntax"),
        ("raise KeyboardInterrupt('stop')", "stop"),
        ("input()", ""),
        ("import sys; sys.exit(0)", "0"),
        ("import os; os._exit(0)", "status 0"),
        ("print('passed'); import os; os.write(1, b'passed'); os._exit(0)", "status 0"),
        ("import os; os.lseek(0, 0, 0); os.write(1, os.read(0, 64) + b'passed'); os._exit(0)", "status 0"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11"),
        ("x = [0] * (1 << 40)", ""),
        ("class E(Exception):\n    def __str__(self): raise E\nraise E", "without a text"),
        ("def f(n): return f(n + 1)\nf(0)", "recursion"),
        ("a = 'null \0 byte'", "null bytes"),
    ];
    for (text, expected) in cases {
        let Verdict::Failed(reason) = check(text) else { panic!("{text}: {:?}", check(text)) };
        assert!(reason.contains(expected) && reason.chars().count() <= 500, "{text}: {reason}");
    }
    let start = Instant::now();
    for text in [
        "while True: pass",
        "import time; time.sleep(1000)",
        "try:\n    while True: pass\nexcept BaseException: pass",
    ] {
        assert_eq!(python.check(&room.sandbox, text, Duration::from_secs(1)).unwrap(), Verdict::TimedOut);
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let program = humaneval_program(
        "def f(x):\n",
        "    return x + 1\n",
        "def check(candidate):\n    assert candidate(1) == 2",
        "f",
    );
    assert_eq!(check(&program), Verdict::Passed);
}

/// HumanEval itself, where `GLMBENCH_HUMANEVAL` or the usual folder has it.
fn humaneval(room: &Room) {
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/datasets/humaneval/HumanEval.jsonl");
    let path = std::env::var("GLMBENCH_HUMANEVAL").unwrap_or_else(|_| usual.to_owned());
    let Ok(lines) = fs::read_to_string(&path) else {
        skip::skipped(&format!("HumanEval: {path} is not there"));
        return;
    };
    let python = room.python.as_ref().unwrap();
    let items: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(items.len(), 164);
    let check = |item: &serde_json::Value, completion: &str| {
        let field = |name: &str| item[name].as_str().unwrap();
        let program = humaneval_program(field("prompt"), completion, field("test"), field("entry_point"));
        python.check(&room.sandbox, &program, Duration::from_secs(20)).unwrap()
    };
    let solution = |item: &serde_json::Value| check(item, item["canonical_solution"].as_str().unwrap());
    let wrong: Vec<_> = items
        .iter()
        .map(|item| (&item["task_id"], solution(item)))
        .filter(|(_, v)| *v != Verdict::Passed)
        .collect();
    assert!(wrong.is_empty(), "{} of 164 failed: {wrong:?}", wrong.len());
    for item in items.iter().step_by(20) {
        assert!(matches!(check(item, "    return None\n"), Verdict::Failed(_)), "{}", item["task_id"]);
    }
}

/// What runs the programs of a language here. Says so where nothing does.
fn toolchain(room: &Room, language: Language) -> Option<Toolchain> {
    match Toolchain::find(language, &room.sandbox) {
        Ok(toolchain) => Some(toolchain),
        Err(error @ (NoToolchain::Missing { .. } | NoToolchain::Python(_))) => {
            skip::skipped(&format!("programs in {language}: {error}"));
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// In the order of `Language::ALL`: programs that pass, fail in their tests, do not compile, and never end.
const PROGRAMS: [[&str; 4]; 5] = [
    [
        "int main(){ return 0; }",
        "#include<assert.h>\nint main(){ assert(1 == 2); }",
        "int main(){ return nothing; }",
        "int main(){ for (volatile int i = 0;; i++); }",
    ],
    [
        "package main\nimport \"testing\"\nfunc TestA(t *testing.T) {}\n",
        "package main\nimport (\"testing\"; \"github.com/stretchr/testify/assert\")\nfunc TestA(t *testing.T) { assert.New(t).Equal([]int{1}, []int{2}) }\n",
        "package main\nimport \"testing\"\nfunc TestA(t *testing.T) { nothing() }\n",
        "package main\nimport \"testing\"\nfunc TestA(t *testing.T) { for { } }\n",
    ],
    [
        "public class Main { public static void main(String[] a) { } }",
        "public class Main { public static void main(String[] a) { throw new AssertionError(); } }",
        "public class Main { public static void main(String[] a) { nothing(); } }",
        "public class Main { public static void main(String[] a) { while (true) { } } }",
    ],
    ["let x = 1", "console.assert(1 === 2)", "let let = 1", "for (;;) { }"],
    ["x = 1", "assert 1 == 2", "def f(:", "while True: pass"],
];

fn languages(room: &Room) {
    for (language, [good, bad, wrong, endless]) in Language::ALL.into_iter().zip(PROGRAMS) {
        let Some(toolchain) = toolchain(room, language) else { continue };
        let check =
            |text, seconds| toolchain.check(&room.sandbox, text, Duration::from_secs(seconds)).unwrap();
        assert_eq!(check(good, 60), Verdict::Passed, "{language}");
        assert!(matches!(check(bad, 60), Verdict::Failed(_)), "{language}");
        let Verdict::Failed(reason) = check(wrong, 60) else { panic!("{language}: it compiles") };
        let is_compiled = matches!(language, Language::Cpp | Language::Java);
        assert_eq!(reason.starts_with("compilation error: "), is_compiled, "{reason}");
        assert_eq!(check(endless, 8), Verdict::TimedOut, "{language}");
    }
}

/// A compiled program is in the same room as an interpreted one.
fn compiled_bounds(room: &Room) {
    let Some(cpp) = toolchain(room, Language::Cpp) else { return };
    for program in [
        "#include<stdio.h>\nint main(){ return fopen(\"/etc/shadow\", \"r\") || fopen(\"/usr/x\", \"w\") || fopen(\"/opt/x\", \"w\"); }",
        "#include<sys/socket.h>\n#include<netinet/in.h>\n#include<arpa/inet.h>\nint main(){ sockaddr_in a = {}; a.sin_family = AF_INET; a.sin_port = htons(80); inet_pton(AF_INET, \"192.0.2.1\", &a.sin_addr); return !connect(socket(AF_INET, SOCK_STREAM, 0), (sockaddr*)&a, sizeof a); }",
        "#include<sys/ptrace.h>\nint main(){ return ptrace(PTRACE_TRACEME, 0, 0, 0) == 0; }",
        "#include<unistd.h>\nint main(){ return getuid() == 0 || geteuid() == 0; }",
    ] {
        let verdict = cpp.check(&room.sandbox, program, Duration::from_mins(1)).unwrap();
        assert_eq!(verdict, Verdict::Passed, "{program}");
    }
    let bomb = "#include<unistd.h>\nint main(){ while (true) fork(); }";
    let started = Instant::now();
    assert_ne!(cpp.check(&room.sandbox, bomb, Duration::from_secs(5)).unwrap(), Verdict::Passed);
    assert!(started.elapsed() < Duration::from_secs(30));
}

fn touched(room: &Room) {
    let Some(cpp) = toolchain(room, Language::Cpp) else { return };
    let program = "#include<stdlib.h>\n#include<string.h>\nint main(){ for (int i = 0; i < 64; i++) memset(malloc(1 << 28), 1, 1 << 28); }";
    let verdict = cpp.check(&room.sandbox, program, Duration::from_mins(1)).unwrap();
    assert_eq!(verdict, Verdict::Failed("out of memory".into()));
}
