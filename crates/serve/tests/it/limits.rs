//! Limits: what one client can take, and that the others go on meanwhile.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::http::{Client, ask};
use crate::server::Server;

/// A request that others must be able to make at any time.
fn others_go_on(server: &Server) {
    let begin = Instant::now();
    server.ok("/v1/completions", &json!({"prompt": "a", "max_tokens": 1, "temperature": 0}));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn bodies_are_bounded() {
    let server = Server::start();
    let body = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(10 << 20));
    let reply = server.post("/v1/completions", &body);
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (413, &json!("request_too_large")));
    // Without a length, in chunks.
    let mut client = Client::to(server.address);
    client.raw(b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n".as_slice(), &vec![b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..80 {
        if client.stream.get_mut().write_all(&chunk).is_err() {
            break;
        }
    }
    let _ = client.stream.get_mut().write_all(b"0\r\n\r\n");
    assert_eq!(client.reply().status, 413);
    others_go_on(&server);
}

#[test]
fn a_prompt_of_a_million_tokens_is_refused_and_stalls_nobody() {
    let server = Server::with(2, |settings| settings.limits.body_bytes = 8 << 20);
    let ids = format!(r#"{{"prompt":[{}5],"max_tokens":1}}"#, "5,".repeat(1_000_000));
    let text = format!(r#"{{"prompt":"{}","max_tokens":1}}"#, "中a ".repeat(1_000_000));
    std::thread::scope(|scope| {
        let asked: Vec<_> =
            [&ids, &text, &text].map(|body| scope.spawn(|| server.post("/v1/completions", body))).into();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(300) {
            others_go_on(&server);
        }
        for asked in asked {
            let reply = asked.join().unwrap();
            let body = reply.json();
            assert_eq!((reply.status, &body["error"]["param"]), (400, &json!("prompt")), "{body}");
            assert!(body["error"]["message"].as_str().unwrap().contains("context holds 2048"), "{body}");
        }
    });
    let many = json!({"prompt": vec!["a"; 129]});
    assert_eq!(server.post("/v1/completions", &many.to_string()).status, 400);
    server.wait_for("glmbench_kv_blocks_used", 0.0);
}

#[test]
fn a_full_queue_answers_429() {
    let server = Server::with(1, |settings| settings.limits.queue = 1);
    let long = br#"{"prompt":"a","max_tokens":1900,"ignore_eos":true}"#;
    let mut clients: Vec<_> = (0..2).map(|_| Client::to(server.address)).collect();
    clients.iter_mut().for_each(|client| client.send("POST", "/v1/completions", &[], long));
    server.wait_for("vllm:num_requests_waiting", 1.0);
    let refused = server.post("/v1/completions", r#"{"prompt":"a"}"#);
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    let refused = server.post("/generate", r#"{"inputs":"a"}"#);
    assert_eq!((refused.status, &refused.json()["error_type"]), (429, &json!("overloaded")));
    drop(clients);
    server.wait_for("vllm:num_requests_running", 0.0);
    others_go_on(&server);
}

#[test]
fn slow_heads_idle_connections_and_slow_bodies_end() {
    let server = Server::with(1, |settings| {
        settings.limits.header = Duration::from_millis(300);
        settings.limits.idle = Duration::from_secs(2);
        settings.limits.body = Duration::from_millis(300);
    });
    // A byte of the head now and then.
    let mut slow = Client::to(server.address);
    let begin = Instant::now();
    for byte in b"GET /health HTTP/1.1\r\nx: yyyyyyyyyyyyyyyyyyyyyy".chunks(1) {
        if slow.stream.get_mut().write_all(byte).is_err() || begin.elapsed() > Duration::from_secs(3) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(slow.is_closed() && begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    // Nothing behind a first request.
    let mut idle = Client::to(server.address);
    idle.send("GET", "/health", &[], b"");
    assert_eq!(idle.reply().status, 200);
    std::thread::sleep(Duration::from_millis(700));
    idle.send("GET", "/health", &[], b"");
    assert_eq!(idle.reply().status, 200);
    let begin = Instant::now();
    assert!(idle.is_closed());
    assert!(begin.elapsed() < Duration::from_secs(3));
    // A head whose body never comes.
    let mut body = Client::to(server.address);
    body.raw(b"POST /generate HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{");
    assert_eq!(body.reply().status, 408);
    others_go_on(&server);
}

#[test]
fn connections_are_bounded() {
    let server = Server::with(1, |settings| settings.limits.connections = 4);
    let mut clients: Vec<_> = (0..4).map(|_| Client::to(server.address)).collect();
    for client in &mut clients {
        client.send("GET", "/health", &[], b"");
        assert_eq!(client.reply().status, 200);
    }
    let mut refused = Client::to(server.address);
    assert_eq!(refused.reply().status, 503);
    // One that sends a body at the same time gets its answer, too.
    let body = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(1 << 20));
    assert_eq!(server.post("/v1/completions", &body).status, 503);
    drop(clients);
    let begin = Instant::now();
    while ask(server.address, "GET", "/health", "").status != 200 {
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_slow_reader_is_cancelled_and_stalls_nobody() {
    let server = Server::with(8, |settings| settings.limits.slow_reader = Duration::from_millis(300));
    let mut slow = Client::to(server.address);
    // Many sequences, and many log-probabilities that make events large, so that the system's buffers fill.
    let prompts: Vec<String> = (0..8).map(|n| format!("{n}")).collect();
    let ids: Vec<u32> = (300..320).collect();
    let body = json!({"prompt": prompts, "max_tokens": 1900, "ignore_eos": true, "temperature": 2.0, "logprobs": 1, "stream": true,
        "logprob_token_ids": ids, "return_tokens_as_token_ids": true});
    slow.send("POST", "/v1/completions", &[("connection", "close")], body.to_string().as_bytes());
    assert_eq!(slow.head().status, 200);
    server.wait_for("vllm:num_requests_running", 8.0);
    let begin = Instant::now();
    while server.metric("vllm:num_requests_running") > 0.0 {
        assert!(begin.elapsed() < Duration::from_mins(1));
        std::thread::sleep(Duration::from_millis(20));
    }
    others_go_on(&server);
    server.wait_for("glmbench_kv_blocks_used", 0.0);
    // What it did not read ends without the end of a stream, or with an error in it.
    let mut text = Vec::new();
    let cut = std::io::copy(&mut slow.stream, &mut text).is_err()
        || !String::from_utf8_lossy(&text).contains("\"finish_reason\":\"length\"");
    assert!(cut);
}

#[test]
fn a_request_has_a_longest_time() {
    let server = Server::with(1, |settings| settings.limits.request = Duration::from_millis(100));
    let body = r#"{"prompt":"a","max_tokens":1900,"ignore_eos":true}"#;
    let reply = server.post("/v1/completions", body);
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (504, &json!("timeout")));
    server.wait_for("glmbench_kv_blocks_used", 0.0);
}

/// A reply's place is free for whoever has read the reply.
#[test]
fn requests_one_after_another_need_one_place() {
    let server = Server::with(1, |settings| settings.limits.queue = 0);
    let body = json!({"prompt": "a", "max_tokens": 1, "temperature": 0});
    for _ in 0..50 {
        server.ok("/v1/completions", &body);
        server.ok("/generate", &json!({"inputs": "a", "parameters": {"max_new_tokens": 1}}));
    }
}

/// Repeated ids are one; each step of the engine looks through few.
#[test]
fn stop_tokens_are_bounded_without_their_repetitions() {
    let server = Server::start();
    let body = json!({"prompt": vec!["a"; 64], "max_tokens": 1, "stop_token_ids": vec![5; 100_000]});
    server.ok("/v1/completions", &body);
}

#[test]
fn a_body_in_small_chunks_takes_the_room_of_its_bytes() {
    let server = Server::with(1, |settings| {
        settings.limits.body_bytes = 8 << 10;
        settings.limits.all_bodies_bytes = 8 << 10;
    });
    let mut client = Client::to(server.address);
    client.raw(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n");
    for byte in br#"{"prompt":"a","max_tokens":1}"# {
        client.raw(&[b"1\r\n", [*byte].as_slice(), b"\r\n"].concat());
        std::thread::sleep(Duration::from_millis(2));
    }
    client.raw(b"0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
}

#[test]
fn the_largest_body_fits_among_all_bodies() {
    let server = Server::with(1, |settings| {
        settings.limits.body_bytes = 64 << 10;
        settings.limits.all_bodies_bytes = 8 << 10;
    });
    let body = format!(r#"{{"prompt":"a","max_tokens":1{}}}"#, " ".repeat(60 << 10));
    assert_eq!(server.post("/v1/completions", &body).status, 200);
}

/// Trying again would not help, so it is no 429.
#[test]
fn more_prompts_than_places_are_the_clients_error() {
    let server = Server::with(1, |settings| settings.limits.queue = 1);
    let reply = server.post("/v1/completions", &json!({"prompt": ["a", "a", "a"]}).to_string());
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("prompt")));
    server.ok("/v1/completions", &json!({"prompt": ["a", "a"], "max_tokens": 1}));
}

/// Every byte that a client takes starts the clock of the next one, but not that of the whole reply.
#[test]
fn a_reply_has_a_longest_time() {
    let server = Server::with(1, |settings| {
        settings.limits.request = Duration::from_millis(500);
        settings.limits.pieces = usize::MAX;
    });
    let usual = Server::with(1, |_| {});
    let reply = usual.post("/tokenize", &json!({"inputs": "ab ".repeat(20_000)}).to_string());
    assert_eq!(reply.status, 400, "by default, this many pieces are refused");
    let mut slow = Client::to(server.address);
    let body = json!({"inputs": "ab ".repeat(300_000)}).to_string();
    slow.send("POST", "/tokenize", &[], body.as_bytes());
    let head = slow.head();
    assert_eq!(head.status, 200);
    let whole: usize = head.header("content-length").unwrap().parse().unwrap();
    assert!(whole > 12 << 20, "{whole}");
    let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
    while let Ok(count @ 1..) = slow.stream.read(&mut buffer) {
        read += count;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(read < whole, "{read}");
    others_go_on(&server);
}
