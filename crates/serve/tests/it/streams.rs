//! Streams against whole replies.

use serde_json::{Value, json};

use crate::server::Server;

const PROMPTS: [&str; 6] = ["a", "你好，世界", "😀 emoji 🎉", "tab\tand\nline", "мир", "   spaces   "];

/// Returns text, finish reason, number of token events and usage of a stream.
fn streamed(server: &Server, path: &str, mut body: Value) -> (String, Value, usize, Value) {
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let reply = server.ok(path, &body);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let mut events = reply.events();
    assert_eq!(events.pop().unwrap(), "[DONE]");
    let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let (last, rest) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    let (mut text, mut tokens, mut finish) = (String::new(), 0, Value::Null);
    for event in rest {
        let choice = &event["choices"][0];
        assert!(finish.is_null(), "an event behind the end: {event}");
        finish = choice["finish_reason"].clone();
        let piece = choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap();
        text += piece;
        tokens += usize::from(choice["delta"]["role"].is_null());
    }
    (text, finish, tokens, last["usage"].clone())
}

#[test]
fn a_stream_joined_is_the_whole_text() {
    let server = Server::start();
    for (number, prompt) in PROMPTS.iter().enumerate() {
        for extra in [
            json!({"temperature": 0}),
            json!({"temperature": 3.0, "seed": number, "ignore_eos": true}),
            json!({"temperature": 1.5, "seed": 100 + number, "stop": ["模型", "。", "AA"], "min_tokens": 3}),
            json!({"temperature": 4.0, "seed": number, "repetition_penalty": 1.2, "include_stop_str_in_output": true, "stop": "e"}),
        ] {
            let merged = |mut body: Value| {
                extra.as_object().unwrap().iter().for_each(|(key, value)| body[key] = value.clone());
                body["max_tokens"] = json!(40);
                body
            };
            for (path, body) in [
                ("/v1/completions", merged(json!({"prompt": prompt}))),
                ("/v1/chat/completions", merged(json!({"messages": [{"role": "user", "content": prompt}]}))),
            ] {
                let whole = server.ok(path, &body).json();
                let choice = &whole["choices"][0];
                let text = choice["text"].as_str().or(choice["message"]["content"].as_str()).unwrap();
                let (joined, finish, events, usage) = streamed(&server, path, body.clone());
                assert_eq!(joined, text, "{path} {body}");
                assert_eq!((&finish, &usage), (&choice["finish_reason"], &whole["usage"]), "{path} {body}");
                assert_eq!(json!(events), usage["completion_tokens"], "{path} {body}");
            }
        }
    }
}

#[test]
fn a_tgi_stream_ends_with_the_whole_text() {
    let server = Server::start();
    for prompt in PROMPTS {
        let body = json!({"inputs": prompt, "parameters": {"max_new_tokens": 20, "temperature": 2.0, "seed": 3, "details": true, "stop": ["演示"]}});
        let whole = server.ok("/generate", &body).json();
        let events = server.ok("/generate_stream", &body).events();
        let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let (last, before) = events.split_last().unwrap();
        assert!(before.iter().all(|event| event["generated_text"].is_null() && event["details"].is_null()));
        assert_eq!(last["generated_text"], whole["generated_text"]);
        let joined: String = events.iter().map(|event| event["token"]["text"].as_str().unwrap()).collect();
        assert_eq!(joined, whole["generated_text"]);
        let numbers: Vec<_> = events.iter().map(|event| event["index"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
        for field in ["finish_reason", "generated_tokens", "seed"] {
            assert_eq!(last["details"][field], whole["details"][field], "{field}");
        }
        let tokens: Vec<_> = events.iter().map(|event| event["token"].clone()).collect();
        assert_eq!(json!(tokens), whole["details"]["tokens"]);
    }
}

#[test]
fn characters_are_never_cut() {
    let server = Server::start();
    // The three bytes of 北 as byte pieces. The model repeats what it read often enough at this temperature, but the law
    // holds for any draw. Every event is valid UTF-8 (the reader insists), and the joined text is that of the ids.
    for seed in 0..20 {
        let body = json!({"prompt": [6, 232, 142, 154], "temperature": 50.0, "seed": seed, "max_tokens": 60, "ignore_eos": true,
            "return_token_ids": true});
        let whole = server.ok("/v1/completions", &body).json();
        let ids = whole["choices"][0]["token_ids"].clone();
        let text = server.ok("/detokenize", &json!({"tokens": ids})).json()["prompt"].clone();
        assert_eq!(whole["choices"][0]["text"], text);
        assert_eq!(json!(streamed(&server, "/v1/completions", body).0), text);
    }
}

#[test]
fn usage_on_every_chunk_counts_tokens() {
    let server = Server::start();
    let body = json!({"prompt": "你好", "temperature": 0, "max_tokens": 5, "ignore_eos": true, "stream": true,
        "stream_options": {"continuous_usage_stats": true}});
    let events = server.ok("/v1/completions", &body).events();
    let counts: Vec<_> = events[..events.len() - 1]
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap()["usage"]["completion_tokens"].clone())
        .collect();
    assert_eq!(json!(counts), json!([1, 2, 3, 4, 5]));
}

#[test]
fn an_echoed_prompt_comes_first() {
    let server = Server::start();
    let mut body = json!({"prompt": "你好", "temperature": 0, "max_tokens": 3, "echo": true, "logprobs": 1});
    let whole = server.ok("/v1/completions", &body).json()["choices"][0].clone();
    body["stream"] = json!(true);
    let events = server.ok("/v1/completions", &body).events();
    let (mut text, mut tokens, mut offsets) = (String::new(), Vec::new(), Vec::new());
    for event in &events[..events.len() - 1] {
        let event: Value = serde_json::from_str(event).unwrap();
        let choice = &event["choices"][0];
        text += choice["text"].as_str().unwrap();
        tokens.extend(choice["logprobs"]["token_logprobs"].as_array().unwrap().clone());
        offsets.extend(choice["logprobs"]["text_offset"].as_array().unwrap().clone());
    }
    assert_eq!(json!(text), whole["text"]);
    assert_eq!(json!(tokens), whole["logprobs"]["token_logprobs"]);
    assert_eq!(json!(offsets), whole["logprobs"]["text_offset"]);
}
