//! A well-behaved server of known delays, in each protocol.
//!
//! The text of token `i` is ` i`. Every answer states its finish reason and its counts. The wire format is beside the reader
//! of each protocol ([`Wire`](crate::wire::Wire)), written by hand, so that nothing of the client is in its own test.

use std::time::Duration;

use serde_json::Value;

use super::{Request, Script, Server};
use crate::Api;
use crate::wire::Reply;

pub use crate::wire::MODEL;

/// When tokens come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From the request to the first token.
    pub first: Duration,
    /// From one token to the next.
    pub gap: Duration,
    /// Tokens, if the request sets no limit below.
    pub tokens: u32,
    /// Tokens in one event, at least 1.
    pub per_event: u32,
}

impl Default for Schedule {
    /// 16 tokens at once, one an event.
    fn default() -> Self {
        Self { first: Duration::ZERO, gap: Duration::ZERO, tokens: 16, per_event: 1 }
    }
}

/// Starts a server of one protocol.
pub fn start(api: Api, schedule: Schedule) -> Server {
    Server::start(move |request| answer(api, schedule, request))
}

/// Returns the script of one request: generation by the schedule, everything else in a fixed way.
pub fn answer(api: Api, schedule: Schedule, request: &Request) -> Script {
    let route = route_of(&request.path);
    let Some(wire) = api.protocol().stub().wire(route) else {
        return fixed(api, route).unwrap_or_else(no_such_route);
    };
    let body = request.json();
    let limit = body.pointer(wire.limit()).and_then(Value::as_u64);
    let tokens = schedule.tokens.min(limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(u32::MAX));
    let reply = Reply {
        prompt_tokens: prompt_tokens(body.pointer(wire.prompt())),
        tokens,
        is_cut: limit.is_none_or(|limit| limit <= u64::from(schedule.tokens)),
    };
    if !body["stream"].as_bool().unwrap_or_else(|| wire.streams()) {
        return Script::default().until(schedule.first).write(&first_write(&wire.whole(&reply)));
    }
    let mut script = Script::stream();
    if let Some(head) = wire.head() {
        script = script.event(&head);
    }
    let per_event = schedule.per_event.max(1);
    let mut done = 0;
    while done < tokens {
        let count = per_event.min(tokens - done);
        script = script.until(schedule.first + schedule.gap * done).event(&wire.event(&reply, done, count));
        done += count;
    }
    for payload in wire.tail(&reply) {
        script = script.event(&payload);
    }
    script.end()
}

fn first_write(body: &str) -> Vec<u8> {
    match Script::json(body).steps.into_iter().next() {
        Some(super::Step::Write(bytes)) => bytes,
        _ => Vec::new(),
    }
}

fn no_such_route() -> Script {
    Script::answer("404 Not Found", "application/json", r#"{"error":"no such route"}"#)
}

/// Returns the route at the end of a path with a prefix.
pub(super) fn route_of(path: &str) -> &str {
    let known = Api::ALL.into_iter().flat_map(|api| api.protocol().stub().routes());
    let known = known.chain(["/health", "/metrics"]).filter(|route| path.ends_with(route));
    known.max_by_key(|route| route.len()).unwrap_or(path)
}

/// Answers what is no generation. `None`: a generation.
pub(super) fn fixed(api: Api, route: &str) -> Option<Script> {
    let stub = api.protocol().stub();
    if stub.wire(route).is_some() {
        return None;
    }
    let stated = stub.states.iter().find(|(of, _)| *of == route);
    Some(match (stated, route) {
        (Some((_, body)), _) => Script::json(body),
        (None, "/health") => Script::json(""),
        (None, "/metrics") => {
            Script::answer("200 OK", "text/plain", "# TYPE running gauge\nrunning{model_name=\"stub\"} 0\n")
        }
        _ => no_such_route(),
    })
}

/// Counts words, and two special tokens in front of text: as ChatGLM2's tokenizer would.
fn prompt_tokens(prompt: Option<&Value>) -> usize {
    match prompt {
        Some(Value::Array(ids)) => ids.len(),
        prompt => prompt.and_then(Value::as_str).unwrap_or_default().split_whitespace().count() + 2,
    }
}
