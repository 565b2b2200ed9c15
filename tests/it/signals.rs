//! The effect of SIGTERM, SIGINT and SIGHUP, from the first moment of a command to its last.

#![cfg(unix)]
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{Answer, answer, glmbench, heard, signal_number, wait};

const SIGNALS: [&str; 3] = ["TERM", "INT", "HUP"];

fn send(child: &Child, signal: &str) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

/// Waits until the program handles a signal. To handle them, one after the other, is the first thing it does.
fn ready(child: &mut Child, signal: &str) {
    let begin = Instant::now();
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        if mask >> (signal_number(signal) - 1) & 1 == 1 {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it handled signals");
        assert!(begin.elapsed() < Duration::from_secs(30), "it does not handle signals");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn ends_within(child: Child, time: Duration) -> Answer {
    let begin = Instant::now();
    let answer = wait(child);
    assert!(begin.elapsed() < time, "it took {:?}", begin.elapsed());
    answer
}

/// A named pipe without a writer: a reader blocks on opening it.
fn pipe(folder: &TempDir) -> String {
    let path = folder.path().join("pipe");
    if !path.exists() {
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    }
    path.to_str().unwrap().to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn every_command_is_stopped_before_it_has_read_anything() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = pipe(&folder);
    let out = folder.path().join("out");
    let out = out.to_str().unwrap();
    let commands: [&[&str]; 8] = [
        &["run", &pipe, "--out", out],
        &["run", &pipe, "--dry-run"],
        &["check", &pipe],
        &["report", "suites", "--gate", &pipe],
        &["compare", "a", "b", "--gate", &pipe],
        &["logits", "--model", "demo", "--prompts", &pipe, "--out", out],
        &["parity", "--model", "demo", "--against", "cpu", "--prompts", &pipe],
        &["chat", "--model", "demo", "--texts", &pipe],
    ];
    for (command, signal) in commands.into_iter().zip(SIGNALS.map(heard).into_iter().cycle()) {
        let mut child = glmbench(command).spawn().unwrap();
        ready(&mut child, signal);
        send(&child, signal);
        ends_within(child, Duration::from_secs(20)).expect(3, &[&format!("SIG{signal}: stopped")]);
    }
    assert!(!Path::new(out).exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_command_that_waits_for_a_person_is_stopped() {
    for (command, signal) in [("tokenize", "TERM"), ("chat", heard("INT")), ("tokenize", heard("HUP"))] {
        let mut child = glmbench(&[command, "--model", "demo"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        // Once the command has answered, it is in its main loop.
        input.write_all(if command == "chat" { b"What is it?\n" } else { b"\"a\"\n" }).unwrap();
        let mut answered = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut answered).unwrap();
        send(&child, signal);
        ends_within(child, Duration::from_secs(20)).expect(3, &[&format!("SIG{signal}: ")]);
        drop(input);
    }
}

/// Signals that `nohup` and batch systems set to be ignored stay ignored.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_is_to_be_ignored_is_ignored() {
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$0\" tokenize --model demo", env!("CARGO_BIN_EXE_glmbench")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    ready(&mut child, "TERM");
    send(&child, "HUP");
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"\"a\"\n").unwrap();
    let mut answered = [0];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut answered).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    send(&child, "TERM");
    wait(child).expect(3, &["SIGTERM: stopped"]);
    drop(input);
}

/// A suite that takes a second to measure the machine, and then some seconds to run.
const SUITE: &str = r#"schema = 1
name = "s"
[model]
path = "demo"
[[accuracy]]
task = "boolq"
dataset = "DATASETS/boolq-sample"
protocol = "modeltest"
batch = 2
[[performance]]
batch = [1]
lengths = [[512, 64]]
repetitions = 40
max_warmups = 1
"#;

fn suite(folder: &TempDir) -> String {
    let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    let path = folder.path().join("s.toml");
    fs::write(&path, SUITE.replace("DATASETS", sets.to_str().unwrap())).unwrap();
    path.to_str().unwrap().to_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_is_stopped_at_any_moment_is_incomplete_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let suite = suite(&folder);
    let signals = SIGNALS.map(heard).into_iter().cycle();
    for (wait_ms, signal) in [0, 3, 30, 150, 400, 900, 1500].into_iter().zip(signals) {
        let out = folder.path().join(format!("runs-{wait_ms}"));
        let args = ["run", &suite, "--threads", "1", "--out", out.to_str().unwrap()];
        let mut child = glmbench(&args).spawn().unwrap();
        ready(&mut child, signal);
        std::thread::sleep(Duration::from_millis(wait_ms));
        send(&child, signal);
        let stopped = ends_within(child, Duration::from_secs(30));
        let words = stopped.words.clone();
        stopped.expect(3, &[&format!("SIG{signal}: stop")]);
        let recording = words.contains("glmbench: recording in ");
        assert_eq!(recording, fs::read_dir(&out).is_ok_and(|mut runs| runs.next().is_some()), "{words}");
    }
    let out = folder.path().join("runs-1500");
    let small = ["--set", "performance.0.repetitions=40", "--resume", "--threads", "1", "--out"];
    let args: Vec<&str> = ["run", &suite].into_iter().chain(small).chain([out.to_str().unwrap()]).collect();
    let done = answer(&args);
    assert!(matches!(done.code, Some(0 | 4)), "{done:?}");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_second_signal_ends_a_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (suite, out) = (suite(&folder), folder.path().join("runs"));
    // The reference device with a long prompt: one step takes minutes.
    let mut child = glmbench(&["run", &suite, "--device", "reference", "--out", out.to_str().unwrap()])
        .args(["--set", "performance.0.lengths=[[1900, 100]]", "--limit", "1"])
        .spawn()
        .unwrap();
    ready(&mut child, "TERM");
    let begin = Instant::now();
    let timed = || {
        let runs = fs::read_dir(&out).into_iter().flatten();
        let samples = runs.map(|run| run.unwrap().path().join("samples.jsonl"));
        samples.filter_map(|path| fs::read(path).ok()).any(|bytes| bytes.ends_with(b"\n"))
    };
    while !timed() {
        assert!(child.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_mins(2));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(100));
    let first = heard("INT");
    send(&child, first);
    std::thread::sleep(Duration::from_millis(100));
    send(&child, "TERM");
    ends_within(child, Duration::from_secs(10))
        .expect(3, &[&format!("SIG{first}: stopping after this step"), "SIGTERM: stopped"]);
}

/// Standard output and standard error go into pipes. The readers close at once.
#[test]
fn a_reader_that_goes_away_is_no_panic_in_any_command() {
    for command in [
        &["list", "protocols"][..],
        &["list", "datasets", "--json"],
        &["check", "suites/quickstart.toml"],
        &["run", "suites/quickstart.toml", "--dry-run"],
        &["doctor", "--environment"],
        &["completions", "bash"],
        &["help"],
        &["run", "--help"],
        &["nothing-known"],
        &["tokenize", "--model", "demo"],
    ] {
        let mut child = glmbench(command).stdin(Stdio::null()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        let code = child.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 2)), "{command:?} ends with {code:?}");
    }
}
