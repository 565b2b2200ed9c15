//! A client that goes takes its request with it.

use serde_json::json;

use crate::http::Client;
use crate::server::Server;

const LONG: &str = r#""prompt":"a","max_tokens":1900,"ignore_eos":true,"temperature":2.0"#;

#[test]
fn a_closed_stream_frees_its_blocks() {
    let server = Server::with(2, |_| {});
    for _ in 0..3 {
        let mut client = Client::to(server.address);
        client.send("POST", "/v1/completions", &[], format!("{{{LONG},\"stream\":true}}").as_bytes());
        assert_eq!(client.head().status, 200);
        client.chunk().unwrap();
        assert_eq!(server.metric("vllm:num_requests_running"), 1.0);
        assert!(server.metric("glmbench_kv_blocks_used") > 0.0);
        drop(client);
        server.wait_for("vllm:num_requests_running", 0.0);
        server.wait_for("glmbench_kv_blocks_used", 0.0);
    }
    let log = server.end();
    let aborted = log.iter().filter(|line| line["finish"] == "abort").count();
    assert_eq!(aborted, 3, "{log:?}");
}

#[test]
fn a_client_that_waits_for_the_whole_and_goes_is_noticed() {
    let server = Server::with(1, |_| {});
    // The second waits for a place, and goes as well.
    let mut clients: Vec<_> = (0..2).map(|_| Client::to(server.address)).collect();
    for client in &mut clients {
        client.send("POST", "/v1/completions", &[], format!("{{{LONG}}}").as_bytes());
    }
    server.wait_for("vllm:num_requests_waiting", 1.0);
    drop(clients);
    server.wait_for("vllm:num_requests_running", 0.0);
    server.wait_for("vllm:num_requests_waiting", 0.0);
    server.wait_for("glmbench_kv_blocks_used", 0.0);
    // The place is free for others.
    server.ok("/v1/completions", &json!({"prompt": "a", "max_tokens": 2}));
}
