//! One behaviour of real servers a path: `/NAME/v1/completions` behaves as [`FAULTS`] says of `NAME`.
//!
//! Routes that generate nothing answer as the [`stub`] does, so that a client can begin.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::stub::{self, MODEL, Schedule};
use super::{Request, Script, Server, Step};
use crate::Api;

/// The behaviours, and what each does.
pub const FAULTS: [(&str, &str); 54] = [
    ("normal", "answers as the protocol says"),
    ("role_never", "a chat without its role event"),
    ("many_tokens", "four tokens an event"),
    ("full_text", "each event repeats the text before it, as MindIE's fullTextEnabled does"),
    ("empty_tokens", "tokens without text, with ids"),
    ("held_back", "a character in three tokens, with text in the last"),
    ("split_bytes", "each byte of the stream is a chunk"),
    ("joined", "all events in one write"),
    ("crlf", "lines end with CR LF"),
    ("cr", "lines end with CR"),
    ("no_space", "`data:` without a space"),
    ("comments", "comment lines between the events"),
    ("usage_in_choice", "the counts are in the last choice event, as in MindIE"),
    ("usage_never", "no counts"),
    ("usage_null", "null counts in every event"),
    ("finish_empty", "an empty finish reason until the end, as in TGI"),
    ("no_done", "the stream ends without its marker"),
    ("no_finish", "the marker comes without a reason"),
    ("cut", "the connection closes within the third event"),
    ("cut_between", "the connection closes after the third event"),
    ("error_object", "an error object after two events, then the marker"),
    ("error_string", "an error text after two events, as in TGI and MindIE"),
    ("error_name", "an event named error"),
    ("raw_text", "MindIE's timeout: bare text after two events"),
    ("raw_json", "an error object in place of the stream"),
    ("overloaded", "429 with Retry-After"),
    ("overloaded_once", "429 with Retry-After 0, then a good answer"),
    ("overloaded_long", "429 with Retry-After of an hour"),
    ("unavailable", "503 with an empty body"),
    ("invalid", "422 with an error text"),
    ("unauthorized", "401 with an empty body"),
    ("echo_key", "401 with the request's headers in its body"),
    ("echo_key_text", "the request's key as generated text, cut between tokens, and as the model's reason"),
    ("html_502", "an HTML page of a proxy"),
    ("html_200", "an HTML page with status 200"),
    ("short_length", "a Content-Length below the body's"),
    ("long_length", "a Content-Length beyond the body's, then the end of the connection"),
    ("wrong_model", "another model answers"),
    ("length_early", "ended by the token limit after four tokens of more"),
    ("counts_fewer", "a count below the tokens of the stream"),
    ("counts_none", "a count of 0 after text"),
    ("counts_more", "a count beyond the limit of the request"),
    ("close_each", "Connection: close after every answer"),
    ("silent", "reads the request and never answers"),
    ("silent_body", "a head, and no event"),
    ("silent_between", "two events, then silence"),
    ("drip", "a byte every 20 ms, without end"),
    ("keep_alive_comments", "a comment every 20 ms, and no event"),
    ("gzip", "compressed without being asked"),
    ("redirect", "307 to another path"),
    ("long_line", "a line of 10 MB"),
    ("not_http", "bytes that are no HTTP"),
    ("huge_head", "a head of 1 MB"),
    ("nul_stream", "MindIE's old stream: objects, each with a NUL byte"),
];

/// Behaviours of answers in one piece, for log-probabilities.
pub const LOGPROB_FAULTS: [(&str, &str); 8] = [
    ("prefill_empty", "TGI without --enable-prefill-logprobs"),
    ("echo_ignored", "llama.cpp: only the generated token, although asked to echo"),
    ("logprobs_null", "null log-probabilities"),
    ("duplicate_keys", "two tokens under one text"),
    ("python_numbers", "NaN and -Infinity"),
    ("list_reply", "a list of one object, as on TGI's /"),
    ("count_plus_two", "two special tokens in the count of the prompt"),
    ("echo", "a right echo of four prompt tokens"),
];

/// Starts a server of all behaviours.
pub fn start() -> Server {
    let seen: Mutex<HashMap<String, usize>> = Mutex::new(HashMap::new());
    Server::start(move |request| {
        let name = request.path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
        let route = stub::route_of(&request.path);
        let generates = request.method == "POST" || name == "redirect";
        let api =
            if matches!(route, "/generate" | "/generate_stream" | "/info") { Api::Tgi } else { Api::OpenAi };
        if !generates && let Some(script) = stub::fixed(api, route) {
            return script;
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let times = seen.entry(name.clone()).or_default();
        *times += 1;
        behave(&name, request, *times)
    })
}

/// Returns the script of a behaviour. `times`: how often it was asked for, this time included.
pub fn behave(name: &str, request: &Request, times: usize) -> Script {
    stream_form(name)
        .or_else(|| stream_fault(name))
        .or_else(|| status(name, request, times))
        .or_else(|| connection(name))
        .or_else(|| logprobs(name))
        .or_else(|| contradiction(name))
        .unwrap_or_else(|| stub::answer(api_of(request), Schedule::default(), request))
}

/// Returns the protocol of the stub that generates on the request's route.
fn api_of(request: &Request) -> Api {
    let route = stub::route_of(&request.path);
    let generates = |api: &Api| api.protocol().stub().wire(route).is_some();
    // Several protocols have OpenAI's routes.
    [Api::OpenAi].into_iter().chain(Api::ALL).find(generates).unwrap_or(Api::OpenAi)
}

/// One event of a completion.
fn text(text: &str) -> String {
    format!(r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"{text}","finish_reason":null}}]}}"#)
}

/// The last choice event, with more members behind.
fn last(more: &str) -> String {
    format!(r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"","finish_reason":"stop"}}]{more}}}"#)
}

const USAGE: &str = r#","usage":{"prompt_tokens":3,"completion_tokens":4}"#;

/// A stream of four tokens, `  0 1 2 3`, complete.
fn four() -> Vec<String> {
    let mut payloads: Vec<String> = (0..4).map(|i| text(&format!(" {i}"))).collect();
    payloads.extend([last(USAGE), "[DONE]".into()]);
    payloads
}

fn events(payloads: &[String]) -> Script {
    payloads.iter().fold(Script::stream(), |script, payload| script.event(payload))
}

/// Streams that are unusual, and right.
fn stream_form(name: &str) -> Option<Script> {
    let framed = |start: &str, end: &str| {
        let bytes: String = four().iter().map(|payload| format!("{start}{payload}{end}")).collect();
        Script::stream().chunk(bytes).end()
    };
    Some(match name {
        "role_never" => {
            let delta = |text: &str| {
                format!(
                    r#"{{"model":"{MODEL}","choices":[{{"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
                )
            };
            let end = format!(r#"{{"model":"{MODEL}","choices":[{{"delta":{{}},"finish_reason":"stop"}}]}}"#);
            events(&[delta("a"), delta("b"), end, "[DONE]".into()]).end()
        }
        "many_tokens" => {
            let mut payloads: Vec<String> = (1..=2)
                .map(|i| format!(r#"{{"choices":[{{"text":"abcd"}}],"usage":{{"prompt_tokens":3,"completion_tokens":{}}}}}"#, 4 * i))
                .collect();
            payloads.extend([last(""), "[DONE]".into()]);
            events(&payloads).end()
        }
        "full_text" => {
            let mut payloads = four();
            for (i, payload) in payloads.iter_mut().take(4).enumerate() {
                *payload = text(&(0..=i).map(|i| format!(" {i}")).collect::<String>());
            }
            events(&payloads).end()
        }
        "empty_tokens" => {
            let token =
                |text: &str, id: u32| format!(r#"{{"choices":[{{"text":"{text}","token_ids":[{id}]}}]}}"#);
            events(&[token("", 7), token("", 8), token("a", 9), last(""), "[DONE]".into()]).end()
        }
        "held_back" => {
            let tokens = [text(""), text(""), text("中"), text("😀"), last(USAGE), "[DONE]".into()];
            events(&tokens).end()
        }
        "split_bytes" => {
            let bytes: Vec<u8> = [text("中"), text("😀"), last(USAGE), "[DONE]".into()]
                .iter()
                .flat_map(|payload| format!("data: {payload}\n\n").into_bytes())
                .collect();
            bytes.iter().fold(Script::stream(), |script, byte| script.chunk([*byte])).end()
        }
        "joined" => framed("data: ", "\n\n"),
        "crlf" => framed("data: ", "\r\n\r\n"),
        "cr" => framed("data: ", "\r\r"),
        "no_space" => framed("data:", "\n\n"),
        "comments" => framed(": ping\n\n:\ndata: ", "\n\n: pong\n\n"),
        "usage_in_choice" => {
            let end =
                format!(r#"{{"model":"{MODEL}","choices":[{{"text":" 3","finish_reason":"stop"}}]{USAGE}}}"#);
            let mut payloads = four();
            payloads.splice(3..5, [end]);
            events(&payloads).end()
        }
        "usage_never" | "usage_null" => {
            let more = if name == "usage_null" { r#","usage":null"# } else { "" };
            let mut payloads = four();
            payloads[4] = last(more);
            events(&payloads).end()
        }
        "finish_empty" => {
            let payloads: Vec<String> = four()
                .iter()
                .map(|p| p.replace(r#""finish_reason":null"#, r#""finish_reason":"""#))
                .collect();
            events(&payloads).end()
        }
        "gzip" => {
            let body: String = four().iter().map(|payload| format!("data: {payload}\n\n")).collect();
            let packed = gzip(body.as_bytes());
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nContent-Length: ";
            Script::default().write(format!("{head}{}\r\n\r\n", packed.len()).as_bytes()).write(&packed)
        }
        "close_each" => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
            let body: String = four().iter().map(|payload| format!("data: {payload}\n\n")).collect();
            Script::default().write(head).write(body.as_bytes()).close()
        }
        "nul_stream" => {
            let body = (0..4).map(|i| format!("{{\"text\":[\" {i}\"]}}\0")).collect::<String>();
            Script::stream().chunk(&body[..20]).chunk(&body[20..]).end()
        }
        _ => return None,
    })
}

/// Streams that are wrong.
fn stream_fault(name: &str) -> Option<Script> {
    let payloads = four();
    let two = || events(&payloads[..2]);
    Some(match name {
        "no_done" => events(&payloads[..5]).end(),
        "no_finish" => events(&payloads[..4]).event("[DONE]").end(),
        "cut" => two().chunk("data: {\"choices\":[{\"te").close(),
        "cut_between" => events(&payloads[..3]).close(),
        "error_object" => {
            two().event(r#"{"error":{"message":"out of memory","code":500}}"#).event("[DONE]").end()
        }
        "error_string" => two().event(r#"{"error":"out of memory","error_type":"generation"}"#).end(),
        "error_name" => two().chunk("event: error\ndata: {\"message\":\"out of memory\"}\n\n").end(),
        "raw_text" => two().chunk("Engine callback timeout: server tokenTimeout").close(),
        "raw_json" => Script::json(r#"{"error":"streams are switched off","error_type":"validation"}"#),
        "html_200" => {
            Script::answer("200 OK", "text/html", "<html>\n<body>Welcome to the proxy</body>\n</html>\n")
        }
        "short_length" => {
            let body: String = payloads.iter().map(|payload| format!("data: {payload}\n\n")).collect();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100\r\n\r\n";
            Script::default().write(head.as_bytes()).write(body.as_bytes()).close()
        }
        "long_length" => {
            let body: String = payloads[..3].iter().map(|payload| format!("data: {payload}\n\n")).collect();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 100000\r\n\r\n";
            Script::default().write(head.as_bytes()).write(body.as_bytes()).close()
        }
        "wrong_model" => {
            events(&payloads.iter().map(|p| p.replace(MODEL, "another")).collect::<Vec<_>>()).end()
        }
        "silent_body" => Script::stream().step(Step::Stall),
        "silent_between" => two().step(Step::Stall),
        "drip" => two()
            .chunk("data: ")
            .steps_of(500, |script| script.step(Step::Wait(Duration::from_millis(20))).chunk(" ")),
        "keep_alive_comments" => Script::stream().steps_of(500, |script| {
            script.step(Step::Wait(Duration::from_millis(20))).chunk(": waiting\n\n")
        }),
        "long_line" => two().chunk(format!("data: {}", "x".repeat(10 << 20))).end(),
        _ => return None,
    })
}

fn status(name: &str, request: &Request, times: usize) -> Option<Script> {
    let overloaded = |after: &str| {
        let body = r#"{"error":"Model is overloaded","error_type":"overloaded"}"#;
        let head = format!(
            "HTTP/1.1 429 Too Many Requests\r\nRetry-After: {after}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Script::default().write(head.as_bytes()).write(body.as_bytes())
    };
    Some(match name {
        "overloaded" => overloaded("0"),
        "overloaded_once" if times == 1 => overloaded("0"),
        "overloaded_once" => events(&four()).end(),
        "overloaded_long" => overloaded("3600"),
        "unavailable" => Script::answer("503 Service Unavailable", "text/plain", ""),
        "invalid" => Script::answer(
            "422 Unprocessable Entity",
            "application/json",
            r#"{"error":"Input validation error: max_new_tokens","error_type":"Input Validation Error"}"#,
        ),
        "unauthorized" => Script::answer("401 Unauthorized", "text/plain", ""),
        "echo_key" => Script::answer("401 Unauthorized", "text/plain", format!("{:?}", request.headers)),
        "echo_key_text" => echo_key_text(request),
        "html_502" => Script::answer("502 Bad Gateway", "text/html", "<html><h1>502 Bad Gateway</h1>nginx</html>"),
        "redirect" => Script::default()
            .write(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /normal/v1/completions\r\nContent-Length: 0\r\n\r\n"),
        _ => return None,
    })
}

/// Streams of four tokens whose count or reason contradicts them.
fn contradiction(name: &str) -> Option<Script> {
    let (reason, count) = match name {
        "length_early" => ("length", 4),
        "counts_fewer" => ("stop", 2),
        "counts_none" => ("stop", 0),
        "counts_more" => ("stop", 400),
        _ => return None,
    };
    let mut payloads = four();
    payloads[4] = format!(
        r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"","finish_reason":"{reason}"}}],"usage":{{"prompt_tokens":3,"completion_tokens":{count}}}}}"#
    );
    Some(events(&payloads).end())
}

/// A stream whose text is the request's bearer key, in pieces of three characters.
fn echo_key_text(request: &Request) -> Script {
    let key =
        request.header("authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let pieces: Vec<String> =
        key.as_bytes().chunks(3).map(|piece| text(&String::from_utf8_lossy(piece))).collect();
    let reason =
        format!(r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"","finish_reason":"{key}"}}]}}"#);
    events(&pieces).event(&reason).event("[DONE]").end()
}

fn connection(name: &str) -> Option<Script> {
    Some(match name {
        "silent" => Script::default().step(Step::Stall),
        "not_http" => Script::default().write(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n").close(),
        "huge_head" => Script::default()
            .write(format!("HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20)).as_bytes())
            .close(),
        _ => return None,
    })
}

/// An answer of a completion in one piece.
fn completion(logprobs: &str, prompt_tokens: u32) -> Script {
    Script::json(format!(
        r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":" x","logprobs":{logprobs},"finish_reason":"length"}}],"usage":{{"prompt_tokens":{prompt_tokens},"completion_tokens":1}}}}"#
    ))
}

fn logprobs(name: &str) -> Option<Script> {
    let one = |map: &str| format!(r#"{{"tokens":["A"],"token_logprobs":[-1.5],"top_logprobs":[{map}]}}"#);
    Some(match name {
        "prefill_empty" => Script::json(
            r#"{"generated_text":"x","details":{"finish_reason":"length","generated_tokens":1,"prefill":[],"tokens":[{"id":1,"text":"x","logprob":-1.0,"special":false}]}}"#,
        ),
        "list_reply" => Script::json(
            r#"[{"generated_text":"x","details":{"finish_reason":"length","generated_tokens":1,"prefill":[{"id":64790,"text":"[gMASK]","logprob":null},{"id":5,"text":"a","logprob":-2.5}],"tokens":[{"id":65,"text":"A","logprob":-1.0,"special":false}],"top_tokens":[[{"id":65,"text":"A","logprob":-1.0},{"id":66,"text":"B","logprob":-2.0}]]}}]"#,
        ),
        "echo_ignored" => completion(&one(r#"{"A":-1.5}"#), 4),
        "logprobs_null" => completion("null", 4),
        "duplicate_keys" => completion(&one(r#"{"A":-1.5,"B":-2.0,"B":-3.0,"C":-4.0}"#), 4),
        "python_numbers" => completion(&one(r#"{"A":-1.5,"B":-Infinity,"C":NaN}"#), 4),
        "count_plus_two" => completion(&one(r#"{"A":-1.5,"B":-2.0}"#), 6),
        "echo" => completion(
            r#"{"tokens":["a"," b"," c"," d","A"],"token_logprobs":[null,-1.0,-2.0,-3.0,-1.5],"top_logprobs":[null,{},{},{},{}]}"#,
            4,
        ),
        _ => return None,
    })
}

impl Script {
    fn steps_of(self, count: usize, more: impl Fn(Self) -> Self) -> Self {
        (0..count).fold(self, |script, _| more(script))
    }
}

/// Packs bytes as RFC 1952 says, in stored blocks.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = bytes.chunks(u16::MAX as usize).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        packed.push(u8::from(blocks.peek().is_none()));
        packed.extend_from_slice(&length.to_le_bytes());
        packed.extend_from_slice(&(!length).to_le_bytes());
        packed.extend_from_slice(block);
    }
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    packed.extend_from_slice(&(!crc).to_le_bytes());
    packed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    packed
}
