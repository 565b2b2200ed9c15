//! The OpenAI API as published.

use serde_json::json;

use super::{
    About, Base, Call, Candidates, Chats, PromptTokens, Protocol, Unary, Unsupported, completions, set,
};
use crate::identity::{Identity, count, text};
use crate::json::Json;
use crate::{Generation, Prompt, Route};

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
    fn stub(&self) -> crate::wire::Stub {
        crate::wire::Stub {
            generates: &[
                (completions::ROUTE, &completions::stub::Completions { ids: false }),
                (super::chat::ROUTE, &super::chat::stub::Chat),
            ],
            states: &[crate::wire::MODELS],
        }
    }

    fn names_model(&self, _: Route, _: Option<&Prompt>) -> bool {
        true
    }

    fn chats(&self) -> Result<Chats, Unsupported> {
        Ok(Chats::PLAIN)
    }

    /// `ignore_eos` is not OpenAI's, but many servers of this API have it: the probe checks whether it works.
    fn stream(&self, _: Route, model: Option<&str>, generation: &Generation) -> Result<Call, Unsupported> {
        let mut body = completions::body(model, generation);
        body["stream_options"] = json!({ "include_usage": true });
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

    fn own_depths(&self) -> &'static [u32] {
        &DEPTHS
    }

    /// By `echo`. One token is generated and dropped: some servers refuse to generate none.
    fn own_prompt_logprobs(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
    ) -> Result<Unary<PromptTokens>, Unsupported> {
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
