//! Bodies and heads that nobody means well with: never a panic, never a 500.

use crate::http::Client;
use crate::server::Server;

const PATHS: [&str; 7] = [
    "/",
    "/generate",
    "/generate_stream",
    "/v1/completions",
    "/v1/chat/completions",
    "/tokenize",
    "/detokenize",
];

fn deep(open: &str, close: &str) -> String {
    open.repeat(20_000) + &close.repeat(20_000)
}

#[test]
fn bad_bodies_are_the_clients_errors() {
    let server = Server::start();
    let mut bodies: Vec<Vec<u8>> = [
        "",
        "null",
        "[]",
        "5",
        "\"a\"",
        "{",
        "{}",
        "{\"prompt\":{}}",
        "{\"prompt\":[]}",
        "{\"prompt\":[[]]}",
        "{\"prompt\":[\"a\",5]}",
        "{\"prompt\":[5,\"a\"]}",
        "{\"prompt\":[-1]}",
        "{\"prompt\":[1e99]}",
        "{\"prompt\":[4294967296]}",
        "{\"prompt\":[4294967295]}",
        "{\"prompt\":\"\\ud800\"}",
        "{\"prompt\":\"a\",\"max_tokens\":18446744073709551615}",
        "{\"prompt\":\"a\",\"min_tokens\":18446744073709551615,\"max_tokens\":3,\"stop_token_ids\":[]}",
        "{\"prompt\":\"a\",\"temperature\":1e39}",
        "{\"prompt\":\"a\",\"temperature\":1e-45}",
        "{\"prompt\":\"a\",\"temperature\":NaN}",
        "{\"prompt\":\"a\",\"repetition_penalty\":1e38}",
        "{\"prompt\":\"a\",\"logprobs\":true}",
        "{\"prompt\":\"a\",\"stop\":[\"\"]}",
        "{\"prompt\":\"a\",\"stream_options\":5}",
        "{\"prompt\":\"a\",\"prompt\":5}",
        "{\"inputs\":\"\"}",
        "{\"inputs\":\"a\",\"parameters\":[]}",
        "{\"inputs\":\"a\",\"parameters\":{\"max_new_tokens\":0}}",
        "{\"messages\":5}",
        "{\"messages\":[5]}",
        "{\"messages\":[{\"role\":5}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[[]]}]}",
        "{\"tokens\":[999999]}",
        "{\"tokens\":\"a\"}",
        "{\"prompt\":\"a\",\"inputs\":\"a\"}",
        "{\"\\u0001max_tokens\\u0001\":5}",
    ]
    .iter()
    .map(|body| body.as_bytes().to_vec())
    .collect();
    bodies.push(deep("[", "]").into());
    bodies.push(format!("{{\"prompt\":{}}}", deep("[", "]")).into());
    bodies.push(format!("{{\"odd\":{}}}", deep("{\"a\":[", "]}")).into());
    bodies.push(b"{\"prompt\":\"\xff\xfe\"}".to_vec());
    bodies.push(format!("{{\"max_tokens\":\"{}\"}}", "x".repeat(1 << 20)).into());
    bodies.push(
        format!("{{{}}}", (0..5000).map(|n| format!("\"k{n}\":1,")).collect::<String>() + "\"z\":1").into(),
    );
    for body in &bodies {
        for path in PATHS {
            let mut client = Client::to(server.address);
            client.send("POST", path, &[], body);
            let reply = client.reply();
            assert!(reply.status < 500, "{path}: {} {}", reply.status, reply.text());
            assert!(
                reply.body.len() < 4 << 20 && (reply.status == 200 || reply.body.len() < 2000),
                "{path}: {}",
                reply.body.len()
            );
        }
    }
    server.wait_for("glmbench_kv_blocks_used", 0.0);
}

/// Valid bodies with bytes changed at random places.
#[test]
fn mutated_bodies_are_no_errors_of_the_server() {
    let server = Server::start();
    let seeds = [
        (
            "/v1/completions",
            r#"{"prompt":["a","b"],"max_tokens":2,"temperature":0.5,"top_k":5,"stop":["x"],"logprobs":2,"echo":true,"seed":-1}"#,
        ),
        (
            "/v1/chat/completions",
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"max_tokens":2,"stream":true,"top_logprobs":1,"logprobs":true}"#,
        ),
        (
            "/generate",
            r#"{"inputs":"a","parameters":{"max_new_tokens":2,"details":true,"seed":5,"top_p":0.5,"stop":["b"]}}"#,
        ),
    ];
    let mut random = 7u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let mut client = Client::to(server.address);
    for (path, seed) in seeds {
        for _ in 0..150 {
            let mut body = seed.as_bytes().to_vec();
            for _ in 0..=next(3) {
                let at = next(body.len());
                match next(3) {
                    0 => body[at] = b"0129-.e\"[]{},:nulltrue\\ \xff"[next(25)],
                    1 => drop(body.remove(at)),
                    _ => body.insert(at, b"0129\"[]{},:"[next(11)]),
                }
            }
            client.send("POST", path, &[], &body);
            let reply = client.reply();
            assert!(reply.status < 500, "{path} {}: {}", String::from_utf8_lossy(&body), reply.text());
        }
    }
}

#[test]
fn bad_heads_end_their_connection_alone() {
    let server = Server::start();
    let long = format!("GET /health HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET /health HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    for head in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET /health HTTP/9.9\r\n\r\n",
        &long,
        &many,
    ] {
        let mut client = Client::to(server.address);
        let _ = std::io::Write::write_all(client.stream.get_mut(), head.as_bytes());
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert_eq!(server.get("/health").status, 200);
    }
    for (headers, status) in [
        ("content-type: text/plain\r\ncontent-length: 2", 415),
        ("content-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2", 415),
        ("content-length: 99999999999", 413),
    ] {
        let mut client = Client::to(server.address);
        client.raw(
            format!("POST /generate HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n{headers}\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(client.reply().status, status, "{headers}");
    }
}
