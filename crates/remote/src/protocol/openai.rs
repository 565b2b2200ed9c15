//! The OpenAI API as published.

use serde_json::json;

use super::{
    About, Base, Call, Candidates, Ending, PromptTokens, Protocol, Unary, Unsupported, chat, completions, set,
};
use crate::json::Json;
use crate::probe::{Identity, count, text};
use crate::{Choice, Generation, Prompt, Route};

/// The deepest candidates that completions reveal by the published rules. Servers with more are asked for more.
const DEPTHS: [u32; 2] = [5, 20];

/// `/v1/models`, which all servers of this API have.
pub(super) const MODELS: About =
    About { base: Base::Inference, route: "/v1/models", what: "list of models", read: read_models };

pub(super) struct OpenAi;

impl Protocol for OpenAi {
    fn word(&self) -> &'static str {
        "openai"
    }

    fn about(&self) -> &'static [About] {
        &[MODELS]
    }

    #[cfg(feature = "testing")]
    fn stub(&self) -> crate::testing::stub::Stub {
        crate::testing::stub::Stub {
            generates: &[
                (completions::ROUTE, &completions::stub::Completions { ids: false }),
                (chat::ROUTE, &chat::stub::Chat),
            ],
            states: &[crate::testing::stub::MODELS],
        }
    }

    fn names_model(&self, _: Route, _: Option<&Prompt>) -> bool {
        true
    }

    /// `ignore_eos` is not OpenAI's, but many servers of this API have it: the probe checks whether it works.
    fn generate(
        &self,
        route: Route,
        model: Option<&str>,
        generation: &Generation,
    ) -> Result<Call, Unsupported> {
        super::only_default(route)?;
        if let Prompt::Chat(text) = &generation.prompt {
            return Ok(chat::call(model, text, generation, true));
        }
        let mut body = completions::body(model, generation);
        body["stream_options"] = json!({ "include_usage": true });
        Ok(Call {
            route: completions::ROUTE,
            body,
            ending: Ending::Marker,
            read: completions::read,
            no_stop_texts: generation.stop.is_empty(),
        })
    }

    fn candidates(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
        _: &[Choice],
        depth: u32,
    ) -> Result<Unary<Candidates>, Unsupported> {
        if let Prompt::Chat(text) = prompt {
            return Ok(chat::candidates(model, text));
        }
        Ok(Unary {
            route: completions::ROUTE,
            body: completions::one_token(model, prompt, depth),
            read: completions::read_candidates,
        })
    }

    fn depths(&self, prompt: &Prompt) -> &'static [u32] {
        if matches!(prompt, Prompt::Chat(_)) { &[chat::DEPTH] } else { &DEPTHS }
    }

    /// By `echo`. One token is generated and dropped: some servers refuse to generate none.
    fn prompt_logprobs(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
    ) -> Result<Unary<PromptTokens>, Unsupported> {
        if matches!(prompt, Prompt::Chat(_)) {
            return Err("chats have no log-probabilities of the prompt: use a text or token ids".into());
        }
        let mut body = json!({
            "prompt": super::prompt_json(prompt),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": 1,
            "echo": true,
            "stream": false,
        });
        set(&mut body, "model", model);
        Ok(Unary { route: completions::ROUTE, body, read: completions::read_echo })
    }
}

fn read_models(json: &Json, identity: &mut Identity) {
    let list = json.get("data").list();
    identity.models = list.iter().filter_map(|model| text(model, "id")).collect();
    let first = json.get("data").at(0);
    identity.limits.max_total = identity.limits.max_total.or_else(|| count(first, &["max_model_len"]));
    // The only name that a server of this API gives itself.
    if identity.server.is_none() {
        identity.server = text(first, "owned_by");
    }
}
