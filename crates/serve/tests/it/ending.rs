//! How the server ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use glmbench_serve::{Loading, bind};
use serde_json::Value;

use crate::http::{Client, ask};
use crate::server::Server;

fn stream(server: &Server, tokens: usize) -> Client {
    let mut client = Client::to(server.address);
    let body =
        format!(r#"{{"prompt":"a","max_tokens":{tokens},"ignore_eos":true,"temperature":0,"stream":true}}"#);
    client.send("POST", "/v1/completions", &[], body.as_bytes());
    assert_eq!(client.head().status, 200);
    client.chunk().unwrap();
    client
}

fn rest(client: &mut Client) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = client.chunk() {
        text.extend(chunk);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_server_that_ends_finishes_what_runs_and_takes_nothing_new() {
    let server = Server::with(2, |_| {});
    let mut running = stream(&server, 1900);
    server.stop();
    let begin = Instant::now();
    while server.get("/health").status != 503 {
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
    let refused = server.post("/v1/completions", r#"{"prompt":"a"}"#);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(server.post("/generate", r#"{"inputs":"a"}"#).json()["error_type"], "unhealthy");
    let text = rest(&mut running);
    assert!(text.ends_with("data: [DONE]\n\n") && text.contains("\"finish_reason\":\"length\""), "{text}");
    let address = server.address;
    let log = server.end();
    assert!(TcpStream::connect(address).is_err());
    let events: Vec<_> =
        log.iter().map(|line| line["event"].as_str().unwrap()).filter(|e| *e != "request").collect();
    assert_eq!(events, ["ready", "draining", "ended"]);
}

#[test]
fn what_does_not_end_in_time_is_told_so_in_its_stream() {
    let server = Server::with(1, |settings| settings.drain = Duration::from_millis(50));
    let mut running = stream(&server, 1900);
    let mut waiting = Client::to(server.address);
    waiting.send("POST", "/v1/completions", &[], br#"{"prompt":"a","max_tokens":1900,"ignore_eos":true}"#);
    server.wait_for("vllm:num_requests_waiting", 1.0);
    server.stop();
    let text = rest(&mut running);
    let events: Vec<_> = text.split_terminator("\n\n").collect();
    let [.., error, done] = events.as_slice() else { panic!("{text}") };
    assert_eq!(*done, "data: [DONE]");
    let error: Value = serde_json::from_str(error.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "unavailable", "{error}");
    assert_eq!(waiting.reply().status, 503);
    server.end();
}

#[test]
fn health_checks_see_503_while_the_model_is_loaded() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let loading = Loading::answer(&listener).unwrap();
    for path in ["/health", "/v1/models"] {
        let reply = ask(address, "GET", path, "");
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")), "{path}");
    }
    drop(loading);
}

/// Idle connections do not hold the server up.
#[test]
fn an_idle_connection_is_closed_at_the_end() {
    let server = Server::with(1, |_| {});
    let mut client = Client::to(server.address);
    client.send("GET", "/health", &[], b"");
    assert_eq!(client.reply().status, 200);
    let begin = Instant::now();
    server.end();
    assert!(begin.elapsed() < Duration::from_millis(1900), "{:?}", begin.elapsed());
    assert!(client.is_closed());
}

#[test]
fn a_request_whose_body_is_still_read_is_answered_at_the_end() {
    let server = Server::with(1, |_| {});
    let body = br#"{"prompt":"a","max_tokens":1}"#;
    let mut client = Client::to(server.address);
    client.raw(
        format!("POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len())
            .as_bytes(),
    );
    client.raw(&body[..5]);
    // The head has to be read before the server ends.
    std::thread::sleep(Duration::from_millis(200));
    server.stop();
    let address = server.address;
    let end = std::thread::spawn(move || server.end());
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(ask(address, "GET", "/health", "").status, 503);
    client.raw(&body[5..]);
    assert_eq!(client.reply().status, 200);
    end.join().unwrap();
}

/// A load balancer needs time to see that the server leaves; meanwhile it goes on sending requests.
#[test]
fn a_server_that_leaves_fails_its_health_check_first() {
    let server = Server::with(1, |settings| settings.drain_delay = Duration::from_secs(3));
    server.stop();
    let begin = Instant::now();
    while server.get("/health").status != 503 {
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
    let reply = server.post("/v1/completions", r#"{"prompt":"a","max_tokens":1}"#);
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    let log = server.end();
    assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
    let events: Vec<_> =
        log.iter().map(|line| line["event"].as_str().unwrap()).filter(|e| *e != "request").collect();
    assert_eq!(events, ["ready", "leaving", "draining", "ended"]);
}

/// Without running requests, too, a health check meets 503 before the port closes.
#[test]
fn an_idle_server_says_that_it_ends() {
    let server = Server::with(1, |_| {});
    assert_eq!(server.get("/health").status, 200);
    server.stop();
    let mut unhealthy = 0;
    while let Ok(mut stream) = TcpStream::connect(server.address) {
        let mut reply = String::new();
        let asked = stream.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        // A connection that the port's end cuts off has no answer.
        let _ = asked.and_then(|()| stream.read_to_string(&mut reply));
        unhealthy += usize::from(reply.starts_with("HTTP/1.1 503"));
    }
    assert!(unhealthy > 0);
    server.end();
}
