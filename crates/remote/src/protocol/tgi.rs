//! Text Generation Inference: `/generate_stream` and `/generate`.

use serde_json::{Value, json};

use super::{
    About, Answer, Base, Call, Candidates, Chats, Ending, PromptTokens, Protocol, Unary, Unsupported, Update,
    Wrong, lacks, set,
};
use crate::identity::{Identity, Limits, count, text};
use crate::json::Json;
use crate::response::TokenLogprob;
use crate::{FailureKind, Finish, Generation, Prompt, Route};

/// TGI's limit of `top_n_tokens`.
const DEPTH: u32 = 5;
/// TGI's limit of stop texts.
const MAX_STOP: usize = 4;
/// The model id of chats. TGI serves one model and accepts this name for it.
const MODEL: &str = "tgi";

/// `/info`, which MindIE has as well.
pub(super) const INFO: About =
    About { base: Base::Management, route: "/info", what: "information about the server", read: read_info };

pub(super) struct Tgi;

impl Protocol for Tgi {
    fn word(&self) -> &'static str {
        "tgi"
    }

    fn about(&self) -> &'static [About] {
        &[INFO]
    }

    #[cfg(feature = "testing")]
    fn stub(&self) -> crate::wire::Stub {
        crate::wire::Stub {
            generates: &[
                ("/generate_stream", &stub::Generate { streams: true }),
                ("/generate", &stub::Generate { streams: false }),
                (super::chat::ROUTE, &super::chat::stub::Chat),
            ],
            states: &[(
                "/info",
                r#"{"model_id":"stub","version":"3.3.4","max_input_tokens":1000,"max_total_tokens":2048,"max_concurrent_requests":128}"#,
            )],
        }
    }

    fn names_model(&self, _: Route, _: Option<&Prompt>) -> bool {
        false
    }

    fn allow(&self, route: Route, generation: &Generation) -> Result<(), Unsupported> {
        super::only_default(route)?;
        if generation.ignore_end {
            return Err(
                "TGI cannot ignore the end token: outputs of a fixed length need another protocol".into()
            );
        }
        if generation.stop.len() > MAX_STOP {
            return Err(format!("TGI takes at most {MAX_STOP} stop texts, not {}", generation.stop.len()));
        }
        Ok(())
    }

    fn chats(&self) -> Result<Chats, Unsupported> {
        Ok(Chats { model: Some(MODEL), ..Chats::PLAIN })
    }

    fn stream(&self, _: Route, _: Option<&str>, generation: &Generation) -> Result<Call, Unsupported> {
        if generation.top_logprobs > DEPTH {
            return Err(format!("TGI reveals at most {DEPTH} candidates a token"));
        }
        let mut parameters = parameters(generation);
        if generation.top_logprobs > 0 {
            parameters["top_n_tokens"] = json!(generation.top_logprobs);
        }
        if !generation.stop.is_empty() {
            parameters["stop"] = json!(generation.stop);
        }
        let body = json!({ "inputs": text_of(&generation.prompt)?, "parameters": parameters });
        let no_stop_texts = generation.stop.is_empty();
        Ok(Call { route: "/generate_stream", body, ending: Ending::Event, read, no_stop_texts })
    }

    fn next_token(
        &self,
        _: Option<&str>,
        prompt: &Prompt,
        depth: u32,
    ) -> Result<Unary<Candidates>, Unsupported> {
        let mut body = one_token(prompt)?;
        body["parameters"]["top_n_tokens"] = json!(depth.min(DEPTH));
        Ok(Unary { route: "/generate", body, read: read_candidates })
    }

    fn own_depths(&self) -> &'static [u32] {
        &[DEPTH]
    }

    /// By `decoder_input_details`, which needs `--enable-prefill-logprobs` at the server's start since version 3.
    fn own_prompt_logprobs(
        &self,
        _: Option<&str>,
        prompt: &Prompt,
    ) -> Result<Unary<PromptTokens>, Unsupported> {
        let mut body = one_token(prompt)?;
        body["parameters"]["decoder_input_details"] = json!(true);
        Ok(Unary { route: "/generate", body, read: read_prompt })
    }
}

/// Reads `/info` of TGI, and of MindIE, which has the fields of models in a list.
fn read_info(json: &Json, identity: &mut Identity) {
    identity.version = text(json, "version");
    identity.server = text(json, "router");
    let models = json.get("models").list();
    let named = |json: &Json| text(json, "model_id");
    identity.models = named(json).into_iter().chain(models.iter().filter_map(named)).collect();
    let first = json.get("models").at(0);
    identity.limits = Limits {
        max_input: count(json, &["max_input_tokens", "max_input_length"]),
        max_total: count(json, &["max_total_tokens"]).or_else(|| count(first, &["max_total_tokens"])),
        max_concurrent: count(json, &["max_concurrent_requests"]),
        max_batch_tokens: count(json, &["max_batch_total_tokens"]),
    };
}

fn text_of(prompt: &Prompt) -> Result<&str, Unsupported> {
    match prompt {
        Prompt::Text(text) | Prompt::Chat(text) => Ok(text),
        Prompt::Ids(_) => {
            Err("TGI takes text only, no token ids: its tokenizer must be the right one".into())
        }
    }
}

/// Returns the parameters of a generation. Without `do_sample` TGI samples, and it refuses a temperature of 0.
pub(super) fn parameters(generation: &Generation) -> Value {
    let sampling = &generation.sampling;
    let mut parameters = json!({
        "max_new_tokens": generation.max_tokens,
        "do_sample": sampling.temperature > 0.0,
        "details": true,
    });
    if sampling.temperature > 0.0 {
        parameters["temperature"] = json!(sampling.temperature);
        set(&mut parameters, "top_p", sampling.top_p.filter(|&p| p < 1.0));
        set(&mut parameters, "top_k", sampling.top_k);
    }
    set(&mut parameters, "seed", sampling.seed);
    parameters
}

fn one_token(prompt: &Prompt) -> Result<Value, Unsupported> {
    Ok(json!({
        "inputs": text_of(prompt)?,
        "parameters": { "max_new_tokens": 1, "do_sample": false, "details": true },
    }))
}

/// Reads one event. The last has the whole text, and a token of its own in TGI, none in MindIE.
pub(super) fn read(json: &Json, answer: &mut Answer) -> Result<Update, Wrong> {
    let token = json.get("token");
    let ended = json.get("generated_text").text();
    if token.is_null() && ended.is_none() {
        return Err(lacks("token", json));
    }
    let ids = token.get("id").ids();
    let special = token.get("special").is_true();
    let text = token.get("text").text().filter(|_| !special).unwrap_or_default().to_owned();
    // MindIE's last event repeats nothing: its token has no text.
    let is_token = !text.is_empty() || (!ids.is_empty() && !token.get("text").is_null());
    let top: Vec<TokenLogprob> = json.get("top_tokens").list().iter().filter_map(token_logprob).collect();
    if !top.is_empty() {
        answer.top.push(top);
    }
    if let Some(text) = ended {
        answer.whole = Some(text.to_owned());
        answer.complete = true;
        let details = json.get("details");
        answer.finish = details.get("finish_reason").text().map(Finish::from_word);
        answer.output_tokens = details.get("generated_tokens").count();
        answer.prompt_tokens = details.get("input_length").count();
    }
    let tokens = u32::try_from(ids.len()).ok().filter(|&count| count > 0);
    let ids = if is_token { ids } else { Vec::new() };
    Ok(Update { text, ids, tokens: tokens.filter(|_| is_token), is_token })
}

/// Some servers answer with a list of one object.
fn one(json: &Json) -> &Json {
    if matches!(json, Json::List(_)) { json.at(0) } else { json }
}

fn token_logprob(json: &Json) -> Option<TokenLogprob> {
    let (logprob, text) = (json.get("logprob").number()?, json.get("text").text()?.to_owned());
    Some(TokenLogprob { id: json.get("id").count(), text, logprob })
}

fn read_candidates(json: &Json) -> Result<Candidates, Wrong> {
    let details = one(json).get("details");
    if details.is_null() {
        return Err(lacks("details", json));
    }
    let mut list: Vec<TokenLogprob> =
        details.get("top_tokens").at(0).list().iter().filter_map(token_logprob).collect();
    super::add_chosen(&mut list, token_logprob(details.get("tokens").at(0)));
    if list.is_empty() {
        let text = "the log-probability of the generated token is null, as MindIE's TGI route gives it";
        return Err((FailureKind::NotRevealed, text.into()));
    }
    Ok(Candidates { list, prompt_tokens: None, model: None })
}

fn read_prompt(json: &Json) -> Result<PromptTokens, Wrong> {
    let details = one(json).get("details");
    if details.is_null() {
        return Err(lacks("details", json));
    }
    let prefill = details.get("prefill").list();
    if prefill.is_empty() {
        let text = "`prefill` is empty: start the server with --enable-prefill-logprobs";
        return Err((FailureKind::NotRevealed, text.into()));
    }
    Ok(PromptTokens {
        logprobs: prefill.iter().map(|token| token.get("logprob").number()).collect(),
        ids: prefill.iter().map(|token| token.get("id").count()).collect(),
        texts: prefill.iter().map(|token| token.get("text").text().map(str::to_owned)).collect(),
        prompt_tokens: u32::try_from(prefill.len()).ok(),
        model: None,
    })
}

/// The server's side, for tests.
#[cfg(feature = "testing")]
pub(super) mod stub {
    use crate::wire::{Reply, Wire};

    /// `/generate_stream` and `/generate`.
    pub(super) struct Generate {
        pub(super) streams: bool,
    }

    impl Wire for Generate {
        fn prompt(&self) -> &'static str {
            "/inputs"
        }

        fn limit(&self) -> &'static str {
            "/parameters/max_new_tokens"
        }

        fn streams(&self) -> bool {
            self.streams
        }

        fn event(&self, reply: &Reply, from: u32, count: u32) -> String {
            let end = if from + count == reply.tokens { end(reply) } else { NO_END.to_owned() };
            format!("{{{}", members(&Reply::ids(from, count)[0].to_string(), from, count, &end))
        }

        fn tail(&self, _: &Reply) -> Vec<String> {
            Vec::new()
        }

        fn whole(&self, reply: &Reply) -> String {
            whole(reply)
        }
    }

    /// The end of an event that is not the last.
    pub(in crate::protocol) const NO_END: &str = r#""generated_text":null,"details":null"#;

    /// Returns an event of tokens without its first brace. `id` is the JSON of the id or ids.
    pub(in crate::protocol) fn members(id: &str, from: u32, count: u32, end: &str) -> String {
        let text = Reply::text(from, count);
        format!(r#""token":{{"id":{id},"text":"{text}","logprob":-0.5,"special":false}},{end}}}"#)
    }

    /// Returns the end of the last event.
    pub(in crate::protocol) fn end(reply: &Reply) -> String {
        format!(
            r#""generated_text":"{}","details":{{"finish_reason":"{}","generated_tokens":{},"input_length":{}}}"#,
            Reply::text(0, reply.tokens),
            reply.reason("length", "eos_token"),
            reply.tokens,
            reply.prompt_tokens
        )
    }

    /// Returns an answer in one piece.
    pub(in crate::protocol) fn whole(reply: &Reply) -> String {
        format!(
            r#"{{"generated_text":"{}","details":{{"finish_reason":"length","generated_tokens":{},"prefill":[],"tokens":[{{"id":65,"text":"A","logprob":-1.0,"special":false}}],"top_tokens":[[{}]]}}}}"#,
            Reply::text(0, reply.tokens),
            reply.tokens,
            Reply::candidate_objects()
        )
    }
}
