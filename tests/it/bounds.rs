//! Endless or unreasonably large inputs are rejected by a limit.

#![cfg(target_os = "linux")]
use std::fs;
use std::time::{Duration, Instant};

use crate::support::{answer, answer_to};

#[test]
fn a_file_without_end_is_refused_by_its_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (gates, out) = (path("g.toml"), path("out"));
    fs::write(&gates, "schema = 1\n[[parity]]\nfile = \"/dev/zero\"\n").unwrap();
    let suite = path("s.toml");
    fs::write(
        &suite,
        "schema = 1\nname = \"b\"\n[[performance]]\nbatch = [1]\nlengths = [[8, 4]]\njsonl = \"/dev/zero\"\n",
    )
    .unwrap();
    let zero = "/dev/zero";
    let logits = ["logits", "--model", "demo", "--prompts", zero, "--out", &out];
    for (command, says) in [
        (&["run", zero][..], "/dev/zero: found more than 1048576 bytes; expected 1048576 at most"),
        (&["check", zero], "/dev/zero: found more than"),
        (&["report", "nowhere", "--gate", zero], "/dev/zero: found more than"),
        (&["check", &suite, "--model", "demo"], "/dev/zero: found more than"),
        (&logits, "--prompts /dev/zero: found more than"),
        (&["chat", "--model", "demo", "--texts", zero], "--texts /dev/zero: found more than"),
        (
            &[
                "run",
                "suites/quickstart.toml",
                "--device",
                "300i-duo",
                "--emulate",
                "--profile",
                zero,
                "--dry-run",
            ],
            "/dev/zero",
        ),
    ] {
        let begin = Instant::now();
        let answer = answer(command);
        assert!(matches!(answer.code, Some(2)), "{command:?}: {answer:?}");
        assert!(answer.words.contains(says), "{command:?}: {answer:?}");
        assert!(begin.elapsed() < Duration::from_mins(1), "{command:?} took {:?}", begin.elapsed());
    }
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_line_without_end_is_refused_by_its_bound() {
    let long = vec![b'x'; (16 << 20) + 1];
    answer_to(&["tokenize", "--model", "demo"], &[b"\"a\"\n", long.as_slice()].concat()).expect(
        2,
        &["standard input, line 2: found a line of more than 16777216 bytes; expected 16777216 at most"],
    );
    answer_to(&["chat", "--model", "demo", "--max-new-tokens", "1"], &long).expect(
        2,
        &["standard input, line 1: found a line of more than 1048576 bytes; expected 1048576 at most"],
    );
}

/// A virtual clock needs no waiting: three weeks without a request pass at once.
#[test]
fn an_emulated_load_does_not_wait_for_its_requests() {
    let folder = tempfile::tempdir().unwrap();
    let suite = folder.path().join("s.toml");
    let load = "[[load]]\narrival = \"fixed\"\nrates = [1e-5]\nrequests = 200\nlengths = [[8, 4]]\n";
    fs::write(&suite, format!("schema = 1\nname = \"idle\"\n[model]\npath = \"demo\"\n{load}")).unwrap();
    let out = folder.path().join("runs");
    let begin = Instant::now();
    let flags = ["--device", "300i-duo", "--emulate=timing", "--out", out.to_str().unwrap()];
    let run = answer(&[&["run", suite.to_str().unwrap()][..], &flags].concat());
    assert!(matches!(run.code, Some(0 | 4)), "{run:?}");
    assert!(begin.elapsed() < Duration::from_mins(1), "{:?}", begin.elapsed());
}
