//! `glmbench serve` as a process: flags, signals, exit codes, and a crowd of connections.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{answer, heard};

/// A server of its own process.
pub(crate) struct Served {
    process: Child,
    pub(crate) address: String,
}

impl Served {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_glmbench"))
            .args(["serve", "--model", "demo", "--port", "0"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").expect("an address").to_owned();
        Self { process, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream
    }

    /// Sends a request whose connection closes, and returns the whole reply.
    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(head(method, path, body, "close").as_bytes()).unwrap();
        let _ = stream.write_all(body.as_bytes());
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.ask("GET", "/metrics", "");
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    fn wait(mut self) -> (Option<i32>, String) {
        let mut errors = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.process.wait().unwrap().code(), errors)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn head(method: &str, path: &str, body: &str, connection: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: {connection}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
}

const LONG: &str = r#"{"prompt":"a","max_tokens":1900,"ignore_eos":true,"stream":true}"#;

#[test]
fn flags_that_cannot_be_used_are_refused() {
    answer(&["serve", "--model", "demo", "--host", "0.0.0.0", "--port", "0"])
        .expect(2, &["--host 0.0.0.0", "--no-auth"]);
    answer(&["serve", "--model", "demo", "--max-context", "4096"]).expect(2, &["--max-context 4096", "2048"]);
    answer(&["serve", "--model", "demo", "--key-file", "/nowhere"]).expect(2, &["--key-file /nowhere"]);
    answer(&["serve", "--model", "dummy:chatglm2-6b"]).expect(2, &["no tokenizer"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    answer(&["serve", "--model", "demo", "--port", &port]).expect(2, &["cannot be listened on"]);
}

#[test]
fn a_signal_ends_the_server_after_what_runs() {
    let server = Served::start(&[]);
    let mut running = server.connect();
    running.write_all((head("POST", "/v1/completions", LONG, "close") + LONG).as_bytes()).unwrap();
    running.read_exact(&mut [0; 300]).unwrap();
    server.signal("TERM");
    let mut rest = String::new();
    running.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("data: [DONE]"), "{rest}");
    let (code, errors) = server.wait();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("\"event\":\"ended\""), "{errors}");
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    let server = Served::start(&["--drain", "3600"]);
    let mut running = server.connect();
    let many = r#"{"prompt":["a","b","c","d","e","f","g","h"],"max_tokens":2000,"ignore_eos":true,"stream":true,"logprobs":20}"#;
    running.write_all((head("POST", "/v1/completions", many, "close") + many).as_bytes()).unwrap();
    running.read_exact(&mut [0; 300]).unwrap();
    server.signal(heard("INT"));
    std::thread::sleep(Duration::from_millis(100));
    server.signal(heard("INT"));
    assert_eq!(server.wait().0, Some(3));
}

/// Memory of a process in MiB, at its highest.
fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// 1,000 connections: slow readers, slow heads, large bodies, huge prompts. Takes about a minute and 2,500 file descriptors.
#[test]
#[ignore = "a minute of load; run by hand"]
fn a_thousand_connections() {
    let server = Served::start(&["--slow-reader", "3", "--log", "/dev/null"]);
    server.ask("POST", "/v1/completions", r#"{"prompt":"a","max_tokens":4}"#);
    let before = peak_mib(server.process.id());
    let mut held = Vec::new();
    let large = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(10 << 20));
    let ids = format!(r#"{{"prompt":[{}5]}}"#, "5,".repeat(1_000_000));
    let text = format!(r#"{{"prompt":"{}"}}"#, "中 ".repeat(450_000));
    let slow = r#"{"prompt":"a","max_tokens":1900,"ignore_eos":true,"stream":true,"logprobs":20}"#;
    std::thread::scope(|scope| {
        for _ in 0..10 {
            for body in [&large, &ids, &text] {
                scope.spawn(|| {
                    let mut stream = server.connect();
                    let _ = stream.write_all(head("POST", "/v1/completions", body, "close").as_bytes());
                    let _ = stream.write_all(body.as_bytes());
                    let mut reply = String::new();
                    let _ = stream.read_to_string(&mut reply);
                    assert!(
                        ["HTTP/1.1 400", "HTTP/1.1 413", "HTTP/1.1 429"].iter().any(|s| reply.starts_with(s)),
                        "{reply}"
                    );
                });
            }
        }
        for number in 0..960 {
            let mut stream = server.connect();
            match number % 4 {
                0 => {
                    drop(
                        stream.write_all((head("POST", "/v1/completions", slow, "close") + slow).as_bytes()),
                    );
                }
                1 => drop(stream.write_all(b"GET /health HT")),
                2 => drop(stream.write_all(head("POST", "/generate", "x", "close").as_bytes())),
                _ => {}
            }
            held.push(stream);
        }
        let end = Instant::now() + Duration::from_secs(20);
        let mut worst = Duration::ZERO;
        while Instant::now() < end {
            for (number, stream) in held.iter_mut().enumerate().filter(|(number, _)| number % 4 == 1) {
                let _ = stream.write_all(&[b"TP/1.1\r\nx: "[number % 10]]);
            }
            let begin = Instant::now();
            let reply = server.ask("GET", "/health", "");
            worst = worst.max(begin.elapsed());
            assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
            std::thread::sleep(Duration::from_millis(500));
        }
        assert!(worst < Duration::from_secs(3), "{worst:?}");
    });
    let grown = peak_mib(server.process.id()) - before;
    assert!(grown < 300, "{grown} MiB beyond the model");
    drop(held);
    let begin = Instant::now();
    while server.metric("glmbench_kv_blocks_used") > 0.0 {
        assert!(begin.elapsed() < Duration::from_mins(1));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(
        server.ask("POST", "/v1/completions", r#"{"prompt":"a","max_tokens":4}"#).starts_with("HTTP/1.1 200")
    );
    server.signal("TERM");
    assert_eq!(server.wait().0, Some(0));
}
