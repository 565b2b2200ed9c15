//! A well-behaved server of known delays, in each protocol.
//!
//! The text of token `i` is ` i`. Every answer states its finish reason and its counts. The wire format is beside the reader
//! of each protocol ([`Wire`]), written by hand, so that nothing of the client is in its own test.

use std::time::Duration;

use serde_json::Value;

use super::{Request, Script, Server};
use crate::Api;

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

/// The model id that the stub names.
pub const MODEL: &str = "stub";

/// What a well-behaved server of a protocol answers.
#[derive(Clone, Copy)]
pub(crate) struct Stub {
    /// Routes that generate, with their wire format.
    pub(crate) generates: &'static [(&'static str, &'static dyn Wire)],
    /// Other routes, with the JSON that they answer. `/health` and `/metrics` need no entry.
    pub(crate) states: &'static [(&'static str, &'static str)],
}

impl Stub {
    /// Returns the wire format of a route that generates.
    pub(super) fn wire(self, route: &str) -> Option<&'static dyn Wire> {
        self.generates.iter().find(|(of, _)| *of == route).map(|(_, wire)| *wire)
    }

    fn routes(self) -> impl Iterator<Item = &'static str> {
        let generates = self.generates.iter().map(|(route, _)| *route);
        generates.chain(self.states.iter().map(|(route, _)| *route))
    }
}

/// The wire format of a route that generates.
pub(crate) trait Wire: Sync {
    /// Where the request has its prompt: a text or ids. A JSON pointer (RFC 6901).
    fn prompt(&self) -> &'static str;

    /// Where the request has the most tokens to generate. A JSON pointer.
    fn limit(&self) -> &'static str;

    /// Whether the answer is a stream if the request does not say it by `stream`.
    fn streams(&self) -> bool {
        false
    }

    /// Returns the event before the first token, if there is one.
    fn head(&self) -> Option<String> {
        None
    }

    /// Returns the event of `count` tokens from `from` on.
    fn event(&self, reply: &Reply, from: u32, count: u32) -> String;

    /// Returns what follows the last token: reason, counts, marker.
    fn tail(&self, reply: &Reply) -> Vec<String>;

    /// Returns an answer in one piece, with the candidates of a first token ([`Reply::candidates`]).
    fn whole(&self, reply: &Reply) -> String;
}

/// What an answer says, in any wire format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) prompt_tokens: usize,
    pub(crate) tokens: u32,
    /// The request's limit ends the answer, not the stub's own end.
    pub(crate) is_cut: bool,
}

impl Reply {
    /// Returns a protocol's word for why the answer ended: its word for the limit, or for the model's own end.
    pub(crate) fn reason(&self, limit: &'static str, end: &'static str) -> &'static str {
        if self.is_cut { limit } else { end }
    }

    /// Returns the text of some tokens.
    pub(crate) fn text(from: u32, count: u32) -> String {
        (from..from + count).map(|i| format!(" {i}")).collect()
    }

    /// Returns the ids of some tokens.
    pub(crate) fn ids(from: u32, count: u32) -> Vec<u32> {
        (from..from + count).map(|i| 100 + i).collect()
    }

    /// Returns OpenAI's `usage` after `done` tokens.
    pub(crate) fn usage(&self, done: u32) -> String {
        let prompt = self.prompt_tokens;
        let total = prompt + done as usize;
        format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{done},"total_tokens":{total}}}"#)
    }

    /// Returns the candidates of a first token, `A` to `E` at -1, -2, …, each as `show` writes text, id and
    /// log-probability.
    pub(crate) fn candidates(show: impl Fn(&str, u32, f64) -> String) -> String {
        let tops = [("A", 65, -1.0), ("B", 66, -2.0), ("C", 67, -3.0), ("D", 68, -4.0), ("E", 69, -5.0)];
        tops.map(|(token, id, value)| show(token, id, value)).join(",")
    }

    /// Returns the candidates as objects with all the names that protocols use.
    pub(crate) fn candidate_objects() -> String {
        Self::candidates(|token, id, value| {
            format!(r#"{{"token":"{token}","text":"{token}","id":{id},"logprob":{value}}}"#)
        })
    }
}

/// The list of models of OpenAI's servers.
pub(crate) const MODELS: (&str, &str) = (
    "/v1/models",
    r#"{"object":"list","data":[{"id":"stub","object":"model","root":"stub","max_model_len":2048}]}"#,
);

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
