//! vLLM's OpenAI server, with its own fields.

use serde_json::{Value, json};

use super::{
    About, Base, Call, Candidates, Chats, PromptTokens, Protocol, Unary, Unsupported, Wrong, completions,
    lacks, openai, set,
};
use crate::identity::text;
use crate::json::Json;
use crate::{FailureKind, Generation, Prompt, Route};

/// vLLM's default of `--max-logprobs`.
const DEPTH: u32 = 20;

pub(super) struct Vllm;

impl Protocol for Vllm {
    fn word(&self) -> &'static str {
        "vllm"
    }

    fn about(&self) -> &'static [About] {
        const VERSION: About = About {
            base: Base::Inference,
            route: "/version",
            what: "information about the server",
            read: |json, identity| identity.version = text(json, "version"),
        };
        &[VERSION, openai::MODELS]
    }

    fn names_logprob_ids(&self) -> bool {
        true
    }

    #[cfg(feature = "testing")]
    fn stub(&self) -> crate::wire::Stub {
        crate::wire::Stub {
            generates: &[
                (completions::ROUTE, &completions::stub::Completions { ids: true }),
                (super::chat::ROUTE, &super::chat::stub::Chat),
            ],
            states: &[crate::wire::MODELS, ("/version", r#"{"version":"0.33.0"}"#)],
        }
    }

    fn names_model(&self, _: Route, _: Option<&Prompt>) -> bool {
        true
    }

    fn chats(&self) -> Result<Chats, Unsupported> {
        Ok(Chats { add: set_own, ..Chats::PLAIN })
    }

    fn stream(&self, _: Route, model: Option<&str>, generation: &Generation) -> Result<Call, Unsupported> {
        let mut body = completions::body(model, generation);
        set_own(&mut body, generation);
        Ok(completions::call(body, generation))
    }

    fn next_token(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
        depth: u32,
    ) -> Result<Unary<Candidates>, Unsupported> {
        Ok(completions::candidates(model, prompt, depth))
    }

    /// A server that does not know the field gives its most probable tokens.
    fn name_ids(&self, body: &mut Value, ids: &[u32]) {
        body["logprob_token_ids"] = json!(ids);
        body["return_tokens_as_token_ids"] = json!(true);
    }

    fn own_depths(&self) -> &'static [u32] {
        &[DEPTH]
    }

    fn own_prompt_logprobs(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
    ) -> Result<Unary<PromptTokens>, Unsupported> {
        let mut body = json!({
            "prompt": super::prompt_json(prompt),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 0,
            "return_token_ids": true,
            "stream": false,
        });
        set(&mut body, "model", model);
        Ok(Unary { route: completions::ROUTE, body, read: read_prompt })
    }
}

/// Sets every sampling field: what is absent comes from the model's `generation_config.json`.
fn set_own(body: &mut Value, generation: &Generation) {
    body["top_p"] = json!(generation.sampling.top_p.unwrap_or(1.0));
    body["top_k"] = json!(generation.sampling.top_k.map_or(-1, i64::from));
    body["min_p"] = json!(0.0);
    body["repetition_penalty"] = json!(1.0);
    body["return_token_ids"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true, "continuous_usage_stats": true });
    if generation.top_logprobs > 0 {
        body["return_tokens_as_token_ids"] = json!(true);
    }
}

/// Reads `prompt_logprobs`: null, then an object a token. It holds the real token, and with 0 alternatives at most the most
/// probable one beside it. The real token has its id in `prompt_token_ids`, or is the only entry.
fn read_prompt(json: &Json) -> Result<PromptTokens, Wrong> {
    let choice = json.get("choices").at(0);
    let Json::List(positions) = choice.get("prompt_logprobs") else {
        return Err(if choice.is_null() {
            lacks("choices", json)
        } else {
            (FailureKind::NotRevealed, "no `prompt_logprobs` in the answer".into())
        });
    };
    let known: Vec<u32> = match choice.get("prompt_token_ids") {
        Json::Null => json.get("prompt_token_ids").ids(),
        ids => ids.ids(),
    };
    let mut tokens = PromptTokens {
        texts: Some(Vec::new()),
        ids: Some(Vec::new()),
        prompt_tokens: json.get("usage").get("prompt_tokens").count(),
        model: json.get("model").text().map(str::to_owned),
        ..PromptTokens::default()
    };
    for (i, position) in positions.iter().enumerate() {
        let members = position.members();
        let id = known.get(i).map(ToString::to_string);
        let entry = match &id {
            Some(id) => members.iter().find(|(key, _)| key == id),
            None => members.first().filter(|_| members.len() == 1),
        };
        tokens.logprobs.push(entry.and_then(|(_, value)| value.get("logprob").number()));
        let id = id.and_then(|id| id.parse().ok()).or_else(|| entry.and_then(|(key, _)| key.parse().ok()));
        let text = entry.and_then(|(_, value)| value.get("decoded_token").text());
        push_or_drop(&mut tokens.ids, id);
        // Nothing is said about the first token but, perhaps, its id.
        push_or_drop(&mut tokens.texts, text.map(str::to_owned).or((i == 0).then(String::new)));
    }
    Ok(tokens)
}

/// A list with a gap is no list.
fn push_or_drop<T>(list: &mut Option<Vec<T>>, value: Option<T>) {
    match (list.as_mut(), value) {
        (Some(list), Some(value)) => list.push(value),
        _ => *list = None,
    }
}
