//! Every route's reply, as golden files. Ids and times are cut out.

use glmbench_serve::Key;
use serde_json::{Value, json};

use crate::http::{Client, Reply, ask};
use crate::server::Server;

/// Replaces what differs between runs.
fn calm(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match key.as_str() {
                    "created" => *value = json!(0),
                    "id" if value.as_str().is_some_and(|id| id.contains("cmpl-")) => *value = json!("ID"),
                    _ => calm(value),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(calm),
        _ => {}
    }
}

/// Returns a reply as text: status, headers without those of the moment, body.
fn shown(reply: &Reply) -> String {
    let mut text = format!("{}\n", reply.status);
    let skipped = |name: &str| {
        ["date", "x-request-id", "content-length"].contains(&name)
            || name.ends_with("-time")
            || name == "x-time-per-token"
    };
    for (key, value) in reply.headers.iter().filter(|(key, _)| !skipped(key)) {
        text += &format!("{key}: {value}\n");
    }
    let calmed = |json: &str| {
        let mut value: Value = serde_json::from_str(json).unwrap();
        calm(&mut value);
        value
    };
    if reply.header("content-type") == Some("text/event-stream") {
        for event in reply.events() {
            let event = if event == "[DONE]" { event } else { calmed(&event).to_string() };
            text += &format!("\ndata: {event}\n");
        }
    } else if !reply.body.is_empty() {
        text += &format!("\n{}\n", serde_json::to_string_pretty(&calmed(reply.text())).unwrap());
    }
    text
}

#[test]
fn every_route_answers_as_its_golden_file_says() {
    let server = Server::portable();
    let get = |path: &str| shown(&ask(server.address, "GET", path, ""));
    let post = |path: &str, body: Value| shown(&ask(server.address, "POST", path, &body.to_string()));
    let chat = json!([{"role": "user", "content": "你好"}]);
    insta::assert_snapshot!("info", get("/info"));
    insta::assert_snapshot!("health", get("/health"));
    insta::assert_snapshot!("version", get("/version"));
    insta::assert_snapshot!("models", get("/v1/models"));
    insta::assert_snapshot!("model", get("/v1/models/demo"));
    insta::assert_snapshot!("tokenizer_info", get("/tokenizer_info"));
    insta::assert_snapshot!(
        "tokenize",
        post("/tokenize", json!({"prompt": "你好 a", "return_token_strs": true}))
    );
    insta::assert_snapshot!("tokenize_tgi", post("/tokenize", json!({"inputs": "你好 a"})));
    insta::assert_snapshot!("detokenize", post("/detokenize", json!({"tokens": [1590, 271, 1679]})));
    insta::assert_snapshot!(
        "completion",
        post(
            "/v1/completions",
            json!({"prompt": "你好", "max_tokens": 3, "temperature": 0, "logprobs": 2, "echo": true,
            "return_token_ids": true, "prompt_logprobs": 1, "odd": 1})
        )
    );
    insta::assert_snapshot!(
        "completion_stream",
        post(
            "/v1/completions",
            json!({"prompt": ["你好", [64, 65]], "max_tokens": 1, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true}})
        )
    );
    insta::assert_snapshot!(
        "chat",
        post(
            "/v1/chat/completions",
            json!({"messages": chat, "temperature": 0, "logprobs": true, "top_logprobs": 1,
            "max_tokens": 2})
        )
    );
    insta::assert_snapshot!(
        "chat_stream",
        post(
            "/v1/chat/completions",
            json!({"messages": chat, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true, "continuous_usage_stats": true}})
        )
    );
    insta::assert_snapshot!(
        "generate",
        post(
            "/generate",
            json!({"inputs": "你好", "parameters": {"max_new_tokens": 2, "details": true,
            "decoder_input_details": true, "top_n_tokens": 2, "return_full_text": true}})
        )
    );
    insta::assert_snapshot!(
        "generate_stream",
        post("/generate_stream", json!({"inputs": "你好", "parameters": {"max_new_tokens": 3}}))
    );
    insta::assert_snapshot!(
        "compatible",
        post("/", json!({"inputs": "你好", "parameters": {"max_new_tokens": 2}}))
    );
    insta::assert_snapshot!("no_route", get("/nowhere"));
    insta::assert_snapshot!("wrong_method", get("/generate"));
    insta::assert_snapshot!(
        "unknown_model",
        post("/v1/completions", json!({"prompt": "a", "model": "gpt-4"}))
    );
    insta::assert_snapshot!("unsupported", post("/v1/completions", json!({"prompt": "a", "best_of": 2})));
    insta::assert_snapshot!("invalid_tgi", post("/generate", json!({"inputs": 5})));
}

#[test]
fn head_is_answered_on_get_routes() {
    let server = Server::start();
    for path in
        ["/health", "/info", "/version", "/metrics", "/v1/models", "/v1/models/demo", "/tokenizer_info"]
    {
        assert_eq!(ask(server.address, "HEAD", path, "").status, 200, "{path}");
    }
}

/// text-generation sends all of its parameters, and lm_eval's and vLLM's clients send nulls.
#[test]
fn every_field_may_be_null() {
    let server = Server::start();
    let parameters = json!({"do_sample": false, "max_new_tokens": 2, "repetition_penalty": null, "frequency_penalty": null,
        "return_full_text": false, "stop": [], "seed": null, "temperature": null, "top_k": null, "top_p": null,
        "truncate": null, "typical_p": null, "best_of": null, "watermark": false, "details": true,
        "decoder_input_details": false, "top_n_tokens": null, "grammar": null, "adapter_id": null});
    let reply = server.ok("/", &json!({"inputs": "a", "parameters": parameters, "stream": false}));
    assert_eq!(reply.header("warning"), None);
    assert_eq!(reply.json()[0]["details"]["generated_tokens"], 2);
    let fields = [
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "echo",
        "logprobs",
        "n",
        "best_of",
        "suffix",
        "logit_bias",
        "user",
        "min_tokens",
        "model",
        "presence_penalty",
        "frequency_penalty",
        "stop_token_ids",
        "ignore_eos",
        "response_format",
        "min_p",
    ];
    let mut body = json!({"prompt": "a"});
    fields.iter().for_each(|field| body[field] = Value::Null);
    assert_eq!(server.ok("/v1/completions", &body).header("warning"), None);
}

#[test]
fn neutral_values_of_unsupported_fields_are_accepted_and_others_named() {
    let server = Server::start();
    let fine = json!({"prompt": "a", "n": 1, "best_of": 1, "presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {},
        "response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "min_p": 0, "use_beam_search": false,
        "skip_special_tokens": true, "length_penalty": 1.0, "suffix": ""});
    server.ok("/v1/completions", &fine);
    for (field, value) in [
        ("n", json!(2)),
        ("best_of", json!(3)),
        ("presence_penalty", json!(0.5)),
        ("logit_bias", json!({"5": 1})),
        ("response_format", json!({"type": "json_object"})),
        ("tools", json!([{}])),
        ("min_p", json!(0.1)),
        ("skip_special_tokens", json!(false)),
        ("suffix", json!("a")),
        ("guided_json", json!({"a": 1})),
        ("temperature", json!(-1)),
        ("top_p", json!(0)),
        ("top_k", json!(-2)),
        ("repetition_penalty", json!(0)),
        ("repetition_penalty", json!(1e-38)),
        ("repetition_penalty", json!(101)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(1e9)),
        ("seed", json!(1.5)),
        ("stop", json!([5])),
        ("logprobs", json!(21)),
        ("logprob_token_ids", json!([999_999])),
        ("stop_token_ids", json!([2432])),
        ("stop_token_ids", json!((0..257).collect::<Vec<u32>>())),
        ("messages", json!([])),
    ] {
        let mut body = json!({"prompt": "a"});
        body[field] = value;
        let reply = server.post("/v1/completions", &body.to_string());
        assert_eq!(
            (reply.status, &reply.json()["error"]["param"]),
            (400, &json!(field)),
            "{body}: {}",
            reply.text()
        );
    }
    for (field, value) in [
        ("best_of", json!(2)),
        ("typical_p", json!(0.5)),
        ("watermark", json!(true)),
        ("truncate", json!(4)),
        ("temperature", json!(0.0)),
        ("top_n_tokens", json!(6)),
        ("grammar", json!({"type": "json", "value": {}})),
    ] {
        let mut body = json!({"inputs": "a", "parameters": {}});
        body["parameters"][field] = value;
        let reply = server.post("/generate", &body.to_string());
        assert_eq!(
            (reply.status, &reply.json()["error_type"]),
            (422, &json!("validation")),
            "{body}: {}",
            reply.text()
        );
        assert!(reply.json()["error"].as_str().unwrap().contains(field), "{}", reply.text());
    }
}

#[test]
fn prompts_contents_and_stops_come_in_their_shapes() {
    let server = Server::start();
    for (prompt, choices) in
        [(json!("a"), 1), (json!(["a", "b"]), 2), (json!([64, 65]), 1), (json!([[64], [65, 66]]), 2)]
    {
        let reply = server
            .ok("/v1/completions", &json!({"prompt": prompt, "temperature": 0, "max_tokens": 1}))
            .json();
        let indices: Vec<_> =
            reply["choices"].as_array().unwrap().iter().map(|choice| choice["index"].clone()).collect();
        assert_eq!(indices, (0..choices).map(Value::from).collect::<Vec<_>>(), "{prompt}");
    }
    let answer = |content: Value, stop: Value| {
        let body =
            json!({"messages": [{"role": "user", "content": content}], "temperature": 0, "stop": stop});
        server.ok("/v1/chat/completions", &body).json()["choices"][0].clone()
    };
    let whole = answer(json!("你好"), Value::Null);
    assert_eq!(whole["message"]["content"], "你好，我是一个很小的演示模型。");
    assert_eq!(
        answer(json!([{"type": "text", "text": "你"}, {"type": "text", "text": "好"}]), json!([])),
        whole
    );
    let stopped = answer(json!("你好"), json!("很小"));
    assert_eq!(
        (&stopped["message"]["content"], &stopped["stop_reason"]),
        (&json!("你好，我是一个"), &json!("很小"))
    );
    assert_eq!(answer(json!("你好"), json!(["x", "很小"])), stopped);
}

#[test]
fn a_key_guards_everything_but_health() {
    let server = Server::with(2, |settings| settings.key = Some(Key::new("secret")));
    assert_eq!(server.get("/health").status, 200);
    for path in ["/metrics", "/info", "/v1/models", "/nowhere", "/tokenizer_info"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    let refused = server.post("/v1/completions", r#"{"prompt":"a"}"#);
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    for (key, status) in [
        ("Bearer secret", 200),
        ("bearer secret", 200),
        ("Bearer secre", 401),
        ("Bearer secretx", 401),
        ("secret", 401),
        ("Bearer ", 401),
    ] {
        let mut client = Client::to(server.address);
        client.send("GET", "/v1/models", &[("authorization", key)], b"");
        assert_eq!(client.reply().status, status, "{key}");
    }
}

#[test]
fn request_ids_are_taken_over_and_logged() {
    let server = Server::start();
    let mut client = Client::to(server.address);
    client.send(
        "POST",
        "/v1/completions",
        &[("x-request-id", "abc-1")],
        br#"{"prompt":"a","max_tokens":2,"seed":7,"odd":1}"#,
    );
    let reply = client.reply();
    assert_eq!(reply.header("x-request-id"), Some("abc-1"));
    assert_eq!(reply.header("warning"), Some("299 glmbench \"ignored fields: odd\""));
    client.send("GET", "/health", &[("x-request-id", &"x".repeat(500))], b"");
    assert_eq!(client.reply().header("x-request-id").unwrap().len(), 16);
    drop(client);
    let log = server.end();
    let line = log.iter().find(|line| line["id"] == "abc-1").unwrap();
    let facts = json!([
        line["status"],
        line["prompt_tokens"],
        line["completion_tokens"],
        line["seed"],
        line["finish"],
        line["ignored"]
    ]);
    assert_eq!(facts, json!([200, 3, 2, 7, "length", ["odd"]]));
}

#[test]
fn a_served_prefix_stands_before_bare_ids_and_stays_hidden() {
    let server = Server::with(2, |settings| settings.prefix_ids = true);
    let plain = Server::start();
    let ids =
        server.ok("/tokenize", &json!({"prompt": "北京", "add_special_tokens": false})).json()["tokens"]
            .clone();
    let body = |prompt: &Value| json!({"prompt": prompt, "temperature": 0, "max_tokens": 4, "logprobs": 1, "echo": true});
    let hidden = server.ok("/v1/completions", &body(&ids)).json();
    let text = plain.ok("/v1/completions", &body(&json!("北京"))).json();
    let list = |reply: &Value| reply["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
    let (hidden_list, text_list) = (list(&hidden), list(&text));
    assert_eq!(hidden_list.len() + 2, text_list.len());
    assert_eq!((&hidden_list[0], &hidden_list[1..]), (&Value::Null, &text_list[3..]));
    assert_eq!(hidden["usage"], text["usage"]);
}
