//! `/v1/chat/completions` with one message of a user.

use serde_json::{Value, json};

use super::completions::read_common;
use super::{Answer, Call, Candidates, Ending, Unary, Update, Wrong, lacks, set, set_sampling};
use crate::json::Json;
use crate::response::TokenLogprob;
use crate::{FailureKind, Generation};

pub(super) const ROUTE: &str = "/v1/chat/completions";

/// The deepest candidates that chats reveal.
pub(super) const DEPTH: u32 = 20;

/// Returns the stream of a chat.
pub(super) fn call(model: Option<&str>, text: &str, generation: &Generation, usage: bool) -> Call {
    let mut body = messages(model, text);
    body["max_tokens"] = json!(generation.max_tokens);
    body["stream"] = json!(true);
    if usage {
        body["stream_options"] = json!({ "include_usage": true });
    }
    set_sampling(&mut body, &generation.sampling);
    if !generation.stop.is_empty() {
        body["stop"] = json!(generation.stop);
    }
    if generation.ignore_end {
        body["ignore_eos"] = json!(true);
    }
    if generation.top_logprobs > 0 {
        body["logprobs"] = json!(true);
        body["top_logprobs"] = json!(generation.top_logprobs.min(DEPTH));
    }
    Call { route: ROUTE, body, ending: Ending::Marker, read, no_stop_texts: generation.stop.is_empty() }
}

/// Returns the request for one token and its candidates.
pub(super) fn candidates(model: Option<&str>, text: &str) -> Unary<Candidates> {
    let mut body = messages(model, text);
    body["max_tokens"] = json!(1);
    body["temperature"] = json!(0);
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(DEPTH);
    body["stream"] = json!(false);
    Unary { route: ROUTE, body, read: read_candidates }
}

fn messages(model: Option<&str>, text: &str) -> Value {
    let mut body = json!({ "messages": [{ "role": "user", "content": text }] });
    set(&mut body, "model", model);
    body
}

fn read(json: &Json, answer: &mut Answer) -> Result<Update, Wrong> {
    let counted = read_common(json, answer);
    if !matches!(json.get("choices"), Json::List(_)) {
        return Err(lacks("choices", json));
    }
    let choice = json.get("choices").at(0);
    let delta = choice.get("delta");
    let mut text = delta.get("content").text().unwrap_or_default().to_owned();
    // Reasoning is generated text as well: it takes time, and it counts as tokens.
    if text.is_empty() {
        let reasoning = delta.get("reasoning_content").text().or_else(|| delta.get("reasoning").text());
        reasoning.unwrap_or_default().clone_into(&mut text);
    }
    let ids = choice.get("token_ids").ids();
    let top: Vec<Vec<TokenLogprob>> =
        choice.get("logprobs").get("content").list().iter().map(candidates_of).collect();
    Ok(answer.add(!choice.is_null(), text, ids, counted, top))
}

fn candidates_of(position: &Json) -> Vec<TokenLogprob> {
    let mut list: Vec<TokenLogprob> =
        position.get("top_logprobs").list().iter().filter_map(token_logprob).collect();
    super::add_chosen(&mut list, token_logprob(position));
    list
}

/// Reads a token with its bytes, if they are there: the text alone may have U+FFFD in the place of a part of a character.
fn token_logprob(json: &Json) -> Option<TokenLogprob> {
    let logprob = json.get("logprob").number()?;
    let bytes: Option<Vec<u8>> =
        json.get("bytes").list().iter().map(|byte| byte.count().and_then(|b| u8::try_from(b).ok())).collect();
    let bytes = bytes.filter(|bytes| !bytes.is_empty()).and_then(|bytes| String::from_utf8(bytes).ok());
    let text = bytes.or_else(|| json.get("token").text().map(str::to_owned))?;
    let id = json.get("id").count().or_else(|| json.get("token_id").count()).or_else(|| {
        json.get("token")
            .text()
            .and_then(|token| token.strip_prefix("token_id:"))
            .and_then(|id| id.parse().ok())
    });
    Some(TokenLogprob { id, text, logprob })
}

fn read_candidates(json: &Json) -> Result<Candidates, Wrong> {
    if !matches!(json.get("choices"), Json::List(list) if !list.is_empty()) {
        return Err(lacks("choices", json));
    }
    let list = candidates_of(json.get("choices").at(0).get("logprobs").get("content").at(0));
    if list.is_empty() {
        return Err((FailureKind::NotRevealed, "no log-probabilities of the generated token".into()));
    }
    Ok(Candidates {
        list,
        prompt_tokens: json.get("usage").get("prompt_tokens").count(),
        model: json.get("model").text().map(str::to_owned),
    })
}

/// The server's side, for tests.
#[cfg(feature = "testing")]
pub(super) mod stub {
    use crate::wire::{MODEL, Reply, Wire};

    /// The same in every protocol.
    pub(in crate::protocol) struct Chat;

    impl Wire for Chat {
        fn prompt(&self) -> &'static str {
            "/messages/0/content"
        }

        fn limit(&self) -> &'static str {
            "/max_tokens"
        }

        fn head(&self) -> Option<String> {
            Some(format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}"#
            ))
        }

        fn event(&self, _: &Reply, from: u32, count: u32) -> String {
            let text = Reply::text(from, count);
            format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
            )
        }

        fn tail(&self, reply: &Reply) -> Vec<String> {
            let reason = format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"delta":{{}},"finish_reason":"{}"}}]}}"#,
                reply.reason("length", "stop")
            );
            let usage =
                format!(r#"{{"model":"{MODEL}","choices":[],"usage":{}}}"#, reply.usage(reply.tokens));
            vec![reason, usage, "[DONE]".into()]
        }

        fn whole(&self, reply: &Reply) -> String {
            format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{}"}},"logprobs":{{"content":[{{"token":"A","logprob":-1.0,"top_logprobs":[{}]}}]}},"finish_reason":"length"}}],"usage":{}}}"#,
                Reply::text(0, reply.tokens),
                Reply::candidate_objects(),
                reply.usage(reply.tokens)
            )
        }
    }
}
