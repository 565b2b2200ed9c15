//! MindIE Service: `/v1/completions` with ids, its own `/infer`, and the old `/generate` with NUL bytes.

use serde_json::{Value, json};

use super::{
    About, Answer, Call, Candidates, Chats, Ending, PromptTokens, Protocol, Unary, Unsupported, Update,
    Wrong, completions, lacks, openai, set, tgi,
};
use crate::json::Json;
use crate::response::ServerTimes;
use crate::{Finish, Generation, Prompt, Route};

/// The deepest candidates of `/v1/completions`.
const DEPTH: u32 = 5;

pub(super) struct Mindie;

impl Protocol for Mindie {
    fn word(&self) -> &'static str {
        "mindie"
    }

    fn about(&self) -> &'static [About] {
        &[tgi::INFO, openai::MODELS]
    }

    /// Without the old `/generate`.
    #[cfg(feature = "testing")]
    fn stub(&self) -> crate::wire::Stub {
        crate::wire::Stub {
            generates: &[
                (completions::ROUTE, &completions::stub::Completions { ids: false }),
                (super::chat::ROUTE, &super::chat::stub::Chat),
                ("/infer", &stub::Infer { prompt: "/inputs" }),
                ("/infer_token", &stub::Infer { prompt: "/input_id" }),
            ],
            states: &[
                crate::wire::MODELS,
                (
                    "/info",
                    r#"{"version":"2.2.RC1","max_input_length":2048,"max_batch_total_tokens":8192,"max_concurrent_requests":200,"models":[{"model_id":"stub","max_total_tokens":2560}]}"#,
                ),
            ],
        }
    }

    fn names_model(&self, route: Route, prompt: Option<&Prompt>) -> bool {
        route == Route::Default || matches!(prompt, Some(Prompt::Chat(_)))
    }

    fn allow(&self, route: Route, generation: &Generation) -> Result<(), Unsupported> {
        match (route, &generation.prompt) {
            (Route::Infer | Route::Generate, Prompt::Chat(_)) => {
                Err("only MindIE's default route has chats".into())
            }
            _ => Ok(()),
        }
    }

    /// Counts come without being asked for.
    fn chats(&self) -> Result<Chats, Unsupported> {
        Ok(Chats { usage: false, ..Chats::PLAIN })
    }

    fn stream(
        &self,
        route: Route,
        model: Option<&str>,
        generation: &Generation,
    ) -> Result<Call, Unsupported> {
        let prompt = super::prompt_json(&generation.prompt);
        match (route, &generation.prompt) {
            (Route::Default, _) => completions_call(model, generation),
            (Route::Infer, Prompt::Ids(_)) => infer(generation, "/infer_token", "input_id", &prompt),
            (Route::Infer, _) => infer(generation, "/infer", "inputs", &prompt),
            (Route::Generate, Prompt::Ids(_)) => {
                Err("MindIE's /generate takes text only: use the route default or infer for token ids".into())
            }
            (Route::Generate, _) => old_generate(generation, &prompt),
        }
    }

    fn next_token(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
        depth: u32,
    ) -> Result<Unary<Candidates>, Unsupported> {
        Ok(completions::candidates(model, prompt, depth.min(DEPTH)))
    }

    fn own_depths(&self) -> &'static [u32] {
        &[DEPTH]
    }

    fn own_prompt_logprobs(&self, _: Option<&str>, _: &Prompt) -> Result<Unary<PromptTokens>, Unsupported> {
        Err("MindIE has no log-probabilities of the prompt: score choices by the next token instead".into())
    }
}

fn completions_call(model: Option<&str>, generation: &Generation) -> Result<Call, Unsupported> {
    if generation.top_logprobs > DEPTH {
        return Err(format!(
            "MindIE reveals at most {DEPTH} candidates a token on /v1/completions: use a chat for 20"
        ));
    }
    Ok(completions::call(completions::body(model, generation), generation))
}

fn infer(
    generation: &Generation,
    route: &'static str,
    name: &str,
    prompt: &Value,
) -> Result<Call, Unsupported> {
    if generation.ignore_end {
        return Err("MindIE's /infer cannot ignore the end token: use the route default".into());
    }
    if !generation.stop.is_empty() || generation.top_logprobs > 0 {
        return Err(
            "MindIE's /infer has no stop texts and no log-probabilities: use the route default".into()
        );
    }
    let body = json!({ name: prompt, "stream": true, "parameters": tgi::parameters(generation) });
    Ok(Call { route, body, ending: Ending::Event, read: read_infer, no_stop_texts: true })
}

/// Reads an event of `/infer`: TGI's shape, and times of the server.
fn read_infer(json: &Json, answer: &mut Answer) -> Result<Update, Wrong> {
    let update = tgi::read(json, answer)?;
    let server = answer.server.get_or_insert_with(ServerTimes::default);
    if let Some(prefill) = json.get("prefill_time").number() {
        server.prefill_ms = Some(prefill);
    }
    if let Some(decode) = json.get("decode_time").number() {
        server.decode_ms.push(decode);
    }
    Ok(update)
}

fn old_generate(generation: &Generation, text: &Value) -> Result<Call, Unsupported> {
    if generation.top_logprobs > 0 {
        return Err("MindIE's /generate has no log-probabilities: use the route default".into());
    }
    let mut body = json!({ "prompt": text, "max_tokens": generation.max_tokens, "stream": true });
    super::set_sampling(&mut body, &generation.sampling);
    if generation.ignore_end {
        body["ignore_eos"] = json!(true);
    }
    set(&mut body, "stop", (!generation.stop.is_empty()).then(|| json!(generation.stop)));
    Ok(Call {
        route: "/generate",
        body,
        ending: Ending::Body,
        read: read_old_generate,
        no_stop_texts: generation.stop.is_empty(),
    })
}

/// Reads `{"text": ["…"]}`. The route has neither a reason nor a marker: an answer of it ends with its body.
fn read_old_generate(json: &Json, answer: &mut Answer) -> Result<Update, Wrong> {
    let Some(text) = json.get("text").at(0).text() else { return Err(lacks("text", json)) };
    answer.finish = Some(Finish::Other("unstated".into()));
    Ok(Update { text: text.to_owned(), is_token: !text.is_empty(), ..Update::default() })
}

/// The server's side, for tests.
#[cfg(feature = "testing")]
mod stub {
    use super::tgi::stub::{NO_END, end, members, whole};
    use crate::wire::{Reply, Wire};

    /// TGI's shape with lists of ids, times of the server, and an event of its own at the end.
    pub(super) struct Infer {
        /// Where the request has its prompt.
        pub(super) prompt: &'static str,
    }

    impl Wire for Infer {
        fn prompt(&self) -> &'static str {
            self.prompt
        }

        fn limit(&self) -> &'static str {
            "/parameters/max_new_tokens"
        }

        fn event(&self, _: &Reply, from: u32, count: u32) -> String {
            let times = match from {
                0 => r#""prefill_time":12.5,"decode_time":null"#,
                _ => r#""prefill_time":null,"decode_time":3.5"#,
            };
            let ids = format!("{:?}", Reply::ids(from, count));
            format!("{{{times},{}", members(&ids, from, count, NO_END))
        }

        fn tail(&self, reply: &Reply) -> Vec<String> {
            vec![format!(
                r#"{{"prefill_time":null,"decode_time":null,"token":{{"id":[2],"text":null}},{}}}"#,
                end(reply)
            )]
        }

        fn whole(&self, reply: &Reply) -> String {
            whole(reply)
        }
    }
}
