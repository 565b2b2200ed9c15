//! `glmbench serve` as a process: flags, signals, exit codes, and the limit of open files.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{Answer, answer, heard};

/// A server of its own process.
pub(crate) struct Served {
    process: Child,
    pub(crate) address: String,
}

impl Served {
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_glmbench"));
        command.args(["serve", "--model", "demo", "--port", "0"]).args(flags);
        Self::spawn(command)
    }

    /// Starts a server with its own limits of open files, the soft and the hard one.
    fn start_within(soft: u32, hard: u32, flags: &[&str]) -> Self {
        Self::spawn(within(soft, hard, &[&["serve", "--model", "demo", "--port", "0"], flags].concat()))
    }

    fn spawn(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").expect("an address").to_owned();
        Self { process, address }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        stream
    }

    /// Sends a request whose connection closes, and returns the whole reply.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(head(method, path, body, "close").as_bytes()).unwrap();
        let _ = stream.write_all(body.as_bytes());
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.ask("GET", "/metrics", "");
        let line = page.lines().find(|line| line.starts_with(&format!("{name}{{"))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    pub(crate) fn wait(mut self) -> (Option<i32>, String) {
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

pub(crate) fn head(method: &str, path: &str, body: &str, connection: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: {connection}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
}

/// The program with its own limits of open files, the soft and the hard one.
fn within(soft: u32, hard: u32, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_glmbench")]).args(arguments);
    command
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

/// Opens connections until one is turned away, at most `most`. Returns how many the server holds.
fn held(server: &Served, most: usize) -> usize {
    let mut open = Vec::new();
    for _ in 0..most {
        let mut stream = server.connect();
        stream.write_all(head("GET", "/health", "", "keep-alive").as_bytes()).unwrap();
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).unwrap();
        if &reply != b"HTTP/1.1 200" {
            assert_eq!(&reply, b"HTTP/1.1 503");
            break;
        }
        open.push(stream);
    }
    open.len()
}

#[test]
fn the_soft_limit_of_open_files_is_raised_for_the_connections() {
    let server = Served::start_within(64, 1000, &["--max-connections", "300"]);
    assert_eq!(held(&server, 310), 300);
    server.signal("TERM");
    let (code, errors) = server.wait();
    assert!(code == Some(0) && !errors.contains("warning"), "{code:?}: {errors}");
}

#[test]
fn a_hard_limit_that_is_too_low_is_told_with_what_is_needed() {
    let told = ["500 connections need 692 open files", "may have 300", "108 connections", "ulimit -Hn 692"];
    let asked = ["serve", "--model", "demo", "--port", "0", "--max-connections", "500"];
    let refused = within(64, 300, &asked).stdin(Stdio::null()).output().unwrap();
    Answer::of(refused).expect(2, &told).expect(2, &["--max-connections 500"]);
    // Nobody asked for the usual number, so the server starts with what there is.
    let server = Served::start_within(64, 300, &[]);
    assert_eq!(held(&server, 120), 108);
    server.signal("TERM");
    let (code, errors) = server.wait();
    assert!(
        code == Some(0) && errors.contains("1024 connections need 1216 open files"),
        "{code:?}: {errors}"
    );
}

#[test]
fn a_run_on_a_server_is_refused_if_its_requests_need_more_files_than_there_are() {
    let (server, folder) = (Served::start(&[]), tempfile::tempdir().unwrap());
    let suite = folder.path().join("s.toml");
    let load = |concurrency: usize| {
        let text = format!(
            "schema = 1\nname = \"s\"\n[model]\npath = \"demo\"\n[[load]]\nconcurrency = [{concurrency}]\nrequests = \
             {concurrency}\nlengths = [[8, 2]]\n"
        );
        std::fs::write(&suite, text).unwrap();
        let (url, out) = (format!("http://{}", server.address), folder.path().join("runs"));
        let words = [
            "run",
            suite.to_str().unwrap(),
            "--endpoint",
            &url,
            "--api",
            "vllm",
            "--out",
            out.to_str().unwrap(),
        ];
        let mut command = within(64, 300, &words);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        (Answer::of(command.output().unwrap()), out)
    };
    let (refused, out) = load(109);
    refused.expect(2, &["109 requests would be under way at once", "room for 108", "ulimit -Hn"]);
    assert!(!out.exists(), "nothing was recorded");
    let (done, _) = load(108);
    done.expect(0, &[]);
}
