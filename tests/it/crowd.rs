//! Back-pressure: a crowd of bad clients against `glmbench serve`, with a good one among them.
//!
//! The law in CI has 120 connections. `cargo test --release --test it -- --ignored --nocapture a_thousand_connections` has 1,000, takes
//! about a minute, and needs 2,500 open files.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::serve::{Served, head};

/// A stream of about 3 MB, more than the buffers of a connection hold.
const STREAM: &str =
    r#"{"prompt":"a","max_tokens":1900,"ignore_eos":true,"stream":true,"logprobs":20,"temperature":0}"#;
/// What the good client asks for.
const SHORT: &str = r#"{"prompt":"a","max_tokens":4,"ignore_eos":true,"temperature":0}"#;

/// A bad client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    /// Asks for a long stream and reads none of it.
    SlowReader,
    /// Sends a byte of its head a second.
    SlowHead,
    /// Sends a body of 10 MB.
    LargeBody,
    /// Sends a prompt of a million tokens.
    LongPrompt,
    /// Reads the beginning of a long stream and goes.
    Leaver,
}

const GUESTS: [Guest; 5] =
    [Guest::SlowReader, Guest::SlowHead, Guest::LargeBody, Guest::LongPrompt, Guest::Leaver];

/// What a crowd of guests did to a server.
#[derive(Debug)]
struct Seen {
    /// Most connections at a time.
    connections: f64,
    /// The server's memory at its highest, beyond what it was after one request, in MiB.
    grown_mib: u64,
    /// Longest wait of the good client for `/health`, and for an answer of the model or a word that the queue is full.
    health: Duration,
    answer: Duration,
    /// Answers of the model to the good client, and words that the queue is full.
    served: usize,
    full: usize,
    /// Large bodies and long prompts that got an error's status, of how many.
    told: (usize, usize),
}

/// Memory of a process in MiB, at its highest.
fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Sends a request with a body, and returns the connection.
fn post(mut stream: TcpStream, body: &str) -> TcpStream {
    // The server may refuse and close before it has read everything.
    let _ = stream.write_all(head("POST", "/v1/completions", body, "close").as_bytes());
    let _ = stream.write_all(body.as_bytes());
    stream
}

/// Does what a guest does. Returns a connection that stays open.
fn behave(
    guest: Guest,
    mut stream: TcpStream,
    bodies: &[String; 2],
    told: &AtomicUsize,
) -> Option<TcpStream> {
    match guest {
        Guest::SlowReader => Some(post(stream, STREAM)),
        Guest::SlowHead => Some(stream),
        Guest::LargeBody | Guest::LongPrompt => {
            let mut stream = post(stream, &bodies[usize::from(guest == Guest::LongPrompt)]);
            let mut reply = String::new();
            let _ = stream.read_to_string(&mut reply);
            let errors = ["HTTP/1.1 400", "HTTP/1.1 408", "HTTP/1.1 413", "HTTP/1.1 429"];
            let is_told = errors.iter().any(|error| reply.starts_with(error));
            assert!(is_told || reply.is_empty(), "{guest:?}: {reply}");
            told.fetch_add(usize::from(is_told), Ordering::SeqCst);
            None
        }
        Guest::Leaver => {
            stream = post(stream, STREAM);
            let _ = stream.read_exact(&mut [0; 300]);
            None
        }
    }
}

/// Sends a byte a second on each connection until `over`.
fn drip(streams: &mut [TcpStream], over: &AtomicBool) {
    let request = b"GET /health HTTP/1.1\r\nx: ";
    for byte in request.iter().chain(std::iter::repeat(&b'a')) {
        if over.load(Ordering::SeqCst) {
            return;
        }
        for stream in &mut *streams {
            let _ = stream.write_all(&[*byte]);
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// Puts `count` guests to a server at once, and asks as a good client beside them for `time`. All guests go then.
fn crowd(server: &Served, count: usize, time: Duration) -> Seen {
    assert!(server.ask("POST", "/v1/completions", SHORT).starts_with("HTTP/1.1 200"));
    let before = peak_mib(server.id());
    let large = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(10 << 20));
    let long = format!(r#"{{"prompt":[{}5]}}"#, "5,".repeat(999_999));
    let (bodies, told, over) = ([large, long], AtomicUsize::new(0), AtomicBool::new(false));
    // Nobody sends before all are connected.
    let streams: Vec<TcpStream> = (0..count).map(|_| server.connect()).collect();
    let (start, held) = (Barrier::new(count + 1), Mutex::new(Vec::new()));
    let mut seen = Seen {
        connections: 0.0,
        grown_mib: 0,
        health: Duration::ZERO,
        answer: Duration::ZERO,
        served: 0,
        full: 0,
        told: (0, count / GUESTS.len() * 2),
    };
    thread::scope(|scope| {
        for (number, stream) in streams.into_iter().enumerate() {
            let guest = GUESTS[number % GUESTS.len()];
            let (bodies, told, start, held) = (&bodies, &told, &start, &held);
            let run = move || {
                start.wait();
                let stays = behave(guest, stream, bodies, told);
                held.lock().unwrap().extend(stays.map(|stream| (guest, stream)));
            };
            thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, run).unwrap();
        }
        seen.connections = server.metric("glmbench_connections");
        start.wait();
        let begin = Instant::now();
        let mut dripping = false;
        let mut drops = Vec::new();
        while begin.elapsed() < time {
            if !dripping && held.lock().unwrap().len() == count / GUESTS.len() * 2 {
                // All are there who stay.
                dripping = true;
                let (slow, others): (Vec<_>, Vec<_>) =
                    held.lock().unwrap().drain(..).partition(|(guest, _)| *guest == Guest::SlowHead);
                drops = others;
                let over = &over;
                scope.spawn(move || {
                    let mut slow: Vec<TcpStream> = slow.into_iter().map(|(_, stream)| stream).collect();
                    drip(&mut slow, over);
                });
            }
            let asked = Instant::now();
            assert!(server.ask("GET", "/health", "").starts_with("HTTP/1.1 200"));
            seen.health = seen.health.max(asked.elapsed());
            let asked = Instant::now();
            let reply = server.ask("POST", "/v1/completions", SHORT);
            seen.answer = seen.answer.max(asked.elapsed());
            if reply.starts_with("HTTP/1.1 200") {
                seen.served += 1;
            } else {
                assert!(reply.starts_with("HTTP/1.1 429") && reply.contains("retry-after"), "{reply}");
                seen.full += 1;
            }
            thread::sleep(Duration::from_millis(100));
        }
        assert!(dripping, "the guests that stay had not begun after {time:?}");
        over.store(true, Ordering::SeqCst);
        drop(drops);
    });
    seen.grown_mib = peak_mib(server.id()) - before;
    seen.told.0 = told.into_inner();
    seen
}

/// Checks that nothing of a crowd is left: no block of the KV cache and no connection.
fn is_as_before(server: Served) {
    let begin = Instant::now();
    let left = || {
        // This question has a connection itself.
        [server.metric("glmbench_kv_blocks_used"), server.metric("glmbench_connections") - 1.0]
    };
    while left() != [0.0, 0.0] {
        assert!(
            begin.elapsed() < Duration::from_mins(1),
            "KV blocks and connections that are left: {:?}",
            left()
        );
        thread::sleep(Duration::from_millis(100));
    }
    assert!(server.ask("POST", "/v1/completions", SHORT).starts_with("HTTP/1.1 200"));
    server.signal("TERM");
    assert_eq!(server.wait().0, Some(0));
}

/// There is a place for each sequence of the crowd, so whoever is well-behaved never waits for one.
#[test]
fn a_hundred_and_twenty_bad_clients_stall_nobody() {
    let server = Served::start(&["--slow-reader", "3", "--max-batch", "32", "--log", "/dev/null"]);
    let seen = crowd(&server, 120, Duration::from_secs(12));
    println!("{seen:?}");
    assert!(seen.connections >= 121.0, "{seen:?}");
    assert!(seen.grown_mib < 150, "{seen:?}");
    assert!(seen.health < Duration::from_secs(3) && seen.answer < Duration::from_secs(5), "{seen:?}");
    assert!(seen.served > 10 && seen.full == 0, "{seen:?}");
    assert!(seen.told.0 * 2 >= seen.told.1, "{seen:?}");
    is_as_before(server);
}

/// The queue is full of slow readers at times. Then the good client is told so at once.
#[test]
#[ignore = "a minute of load; run by hand"]
fn a_thousand_connections() {
    let server = Served::start(&["--slow-reader", "3", "--log", "/dev/null"]);
    let seen = crowd(&server, 1000, Duration::from_secs(40));
    println!("{seen:?}");
    assert!(seen.connections >= 1001.0, "{seen:?}");
    assert!(seen.grown_mib <= 300, "{seen:?}");
    assert!(seen.health < Duration::from_secs(3), "{seen:?}");
    assert!(seen.served > 10, "{seen:?}");
    is_as_before(server);
}
