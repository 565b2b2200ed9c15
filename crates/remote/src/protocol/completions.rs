//! `/v1/completions`, as OpenAI published it and as vLLM and MindIE extend it.

use serde_json::{Value, json};

use super::{
    Answer, Call, Candidates, Ending, PromptTokens, Unary, Update, Wrong, lacks, prompt_json, set_sampling,
};
use crate::json::Json;
use crate::response::TokenLogprob;
use crate::{FailureKind, Finish, Generation, Prompt};

pub(super) const ROUTE: &str = "/v1/completions";

/// Returns the body of a stream, without what only some servers know.
pub(super) fn body(model: Option<&str>, generation: &Generation) -> Value {
    let mut body = json!({
        "prompt": prompt_json(&generation.prompt),
        "max_tokens": generation.max_tokens,
        "stream": true,
    });
    super::set(&mut body, "model", model);
    set_sampling(&mut body, &generation.sampling);
    if !generation.stop.is_empty() {
        body["stop"] = json!(generation.stop);
    }
    if generation.ignore_end {
        body["ignore_eos"] = json!(true);
    }
    if generation.top_logprobs > 0 {
        body["logprobs"] = json!(generation.top_logprobs);
    }
    body
}

/// Returns the body of a request for one greedy token and its candidates.
fn one_token(model: Option<&str>, prompt: &Prompt, depth: u32) -> Value {
    let mut body = json!({
        "prompt": prompt_json(prompt),
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": depth,
        "stream": false,
    });
    super::set(&mut body, "model", model);
    body
}

/// Returns the stream of a body.
pub(super) fn call(body: Value, generation: &Generation) -> Call {
    let no_stop_texts = generation.stop.is_empty();
    Call { route: ROUTE, body, ending: Ending::Marker, read, no_stop_texts }
}

/// Returns the request for one token and its candidates.
pub(super) fn candidates(model: Option<&str>, prompt: &Prompt, depth: u32) -> Unary<Candidates> {
    Unary { route: ROUTE, body: one_token(model, prompt, depth), read: read_candidates }
}

/// Reads usage, model, finish reason: what events of completions and chats share. Returns the tokens that the event added by
/// a server's running count.
pub(super) fn read_common(json: &Json, answer: &mut Answer) -> Option<u32> {
    if let Some(model) = json.get("model").text().filter(|model| !model.is_empty()) {
        answer.model = Some(model.to_owned());
    }
    // Some servers say "" until the end.
    if let Some(word) = json.get("choices").at(0).get("finish_reason").text().filter(|word| !word.is_empty())
    {
        answer.finish = Some(Finish::from_word(word));
    }
    let usage = json.get("usage");
    if let Some(count) = usage.get("prompt_tokens").count() {
        answer.prompt_tokens = Some(count);
    }
    let count = usage.get("completion_tokens").count()?;
    match answer.output_tokens.replace(count) {
        Some(before) => Some(count.saturating_sub(before)),
        // A first count after text covers many events: this server counts once, at the end.
        None => answer.text.is_empty().then_some(count),
    }
}

/// Reads one event.
fn read(json: &Json, answer: &mut Answer) -> Result<Update, Wrong> {
    let counted = read_common(json, answer);
    let choice = json.get("choices").at(0);
    if !matches!(json.get("choices"), Json::List(_)) {
        return Err(lacks("choices", json));
    }
    // One answer was asked for. Another one's text must not become part of it.
    if json.get("choices").list().len() > 1 || choice.get("index").count().is_some_and(|index| index != 0) {
        return Err(lacks("a single choice of index 0", json));
    }
    let text = choice.get("text").text().unwrap_or_default().to_owned();
    let ids = choice.get("token_ids").ids();
    let top = read_top(choice.get("logprobs"));
    Ok(answer.add(!choice.is_null(), text, ids, counted, top))
}

/// Reads the log-probabilities of generated tokens: the chosen token and its alternatives, for each position.
fn read_top(logprobs: &Json) -> Vec<Vec<TokenLogprob>> {
    let positions = logprobs.get("tokens").list().len();
    (0..positions).map(|i| candidates_at(logprobs, i)).collect()
}

fn candidates_at(logprobs: &Json, position: usize) -> Vec<TokenLogprob> {
    let mut list: Vec<TokenLogprob> = logprobs
        .get("top_logprobs")
        .at(position)
        .members()
        .iter()
        .filter_map(|(token, value)| Some(token_logprob(token, value.number()?)))
        .collect();
    let chosen = logprobs.get("tokens").at(position).text();
    let value = logprobs.get("token_logprobs").at(position).number();
    if let (Some(token), Some(value)) = (chosen, value) {
        let chosen = token_logprob(token, value);
        super::add_chosen(&mut list, Some(chosen));
    }
    list
}

/// Reads `token_id:N`, which vLLM writes on request, or the token's text.
fn token_logprob(token: &str, logprob: f64) -> TokenLogprob {
    let id = token.strip_prefix("token_id:").and_then(|id| id.parse().ok());
    TokenLogprob { id, text: token.to_owned(), logprob }
}

/// Reads the candidates of the one generated token.
fn read_candidates(json: &Json) -> Result<Candidates, Wrong> {
    let logprobs = json.get("choices").at(0).get("logprobs");
    if !matches!(json.get("choices"), Json::List(list) if !list.is_empty()) {
        return Err(lacks("choices", json));
    }
    let list = candidates_at(logprobs, 0);
    if list.is_empty() {
        return Err((FailureKind::NotRevealed, "no log-probabilities of the generated token".into()));
    }
    Ok(Candidates {
        list,
        prompt_tokens: json.get("usage").get("prompt_tokens").count(),
        model: json.get("model").text().map(str::to_owned),
    })
}

/// Reads an echoed prompt: arrays over the prompt's tokens and the generated ones.
pub(super) fn read_echo(json: &Json) -> Result<PromptTokens, Wrong> {
    let logprobs = json.get("choices").at(0).get("logprobs");
    let prompt_tokens = json.get("usage").get("prompt_tokens").count();
    let generated = json.get("usage").get("completion_tokens").count().unwrap_or(0) as usize;
    let values = logprobs.get("token_logprobs").list();
    let count = prompt_tokens.map_or(values.len().saturating_sub(generated), |count| count as usize);
    if values.len() < count || (values.len() > count && values.len() != count + generated) {
        return Err((
            FailureKind::NotRevealed,
            format!("{} log-probabilities for {count} prompt tokens and {generated} generated", values.len()),
        ));
    }
    let texts = logprobs.get("tokens").list().iter().take(count);
    Ok(PromptTokens {
        logprobs: values[..count].iter().map(Json::number).collect(),
        ids: None,
        texts: texts.map(|token| token.text().map(str::to_owned)).collect(),
        prompt_tokens,
        model: json.get("model").text().map(str::to_owned),
    })
}

/// The server's side, for tests.
#[cfg(feature = "testing")]
pub(super) mod stub {
    use crate::wire::{MODEL, Reply, Wire};

    /// With or without what only vLLM has: token ids, and the counts in every event.
    pub(in crate::protocol) struct Completions {
        pub(in crate::protocol) ids: bool,
    }

    impl Wire for Completions {
        fn prompt(&self) -> &'static str {
            "/prompt"
        }

        fn limit(&self) -> &'static str {
            "/max_tokens"
        }

        fn event(&self, reply: &Reply, from: u32, count: u32) -> String {
            let text = Reply::text(from, count);
            if !self.ids {
                return format!(
                    r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"{text}","finish_reason":null}}]}}"#
                );
            }
            format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"{text}","token_ids":{:?},"finish_reason":null}}],"usage":{}}}"#,
                Reply::ids(from, count),
                reply.usage(from + count)
            )
        }

        fn tail(&self, reply: &Reply) -> Vec<String> {
            let reason = format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"","finish_reason":"{}"}}]}}"#,
                reply.reason("length", "stop")
            );
            let usage =
                format!(r#"{{"model":"{MODEL}","choices":[],"usage":{}}}"#, reply.usage(reply.tokens));
            vec![reason, usage, "[DONE]".into()]
        }

        fn whole(&self, reply: &Reply) -> String {
            format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"{}","finish_reason":"length","logprobs":{{"tokens":["A"],"token_logprobs":[-1.0],"top_logprobs":[{{{}}}],"text_offset":[0]}}}}],"usage":{}}}"#,
                Reply::text(0, reply.tokens),
                Reply::candidates(|token, _, value| format!(r#""{token}":{value}"#)),
                reply.usage(reply.tokens)
            )
        }
    }
}
