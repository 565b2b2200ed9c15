//! The protocols, one file each: what is sent, what an answer means, what the server states of itself, and how a good
//! server answers.
//!
//! A protocol turns a request into a [`Call`]: route, body, framing and a function that reads one event. What all do alike
//! stands once, in the methods of `dyn` [`Protocol`]. What a protocol
//! cannot do is an [`Unsupported`] text, which names what would do. Nothing outside this folder matches on protocols.

mod chat;
mod completions;
mod llama_cpp;
mod mindie;
mod openai;
mod tgi;
#[cfg(test)]
mod toy;
mod vllm;

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::identity::Identity;
use crate::json::Json;
use crate::response::{ServerTimes, TokenLogprob};
use crate::{Choice, FailureKind, Finish, Generation, Prompt, RemoteError, Route, Sampling};

/// Declares [`Api`] and which implementation is behind each of its variants.
macro_rules! protocols {
    ($($(#[doc = $doc:literal])* $(#[cfg($cfg:meta)])? $variant:ident => $implementation:expr;)*) => {
        /// A protocol of inference servers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Api {
            $($(#[doc = $doc])* $(#[cfg($cfg)])? $variant,)*
        }

        impl Api {
            /// All protocols, in the order of the documentation.
            pub const ALL: [Self; [$($(#[cfg($cfg)])? stringify!($variant)),*].len()] =
                [$($(#[cfg($cfg)])? Self::$variant),*];

            /// Returns the implementation.
            pub(crate) fn protocol(self) -> &'static dyn Protocol {
                match self {
                    $($(#[cfg($cfg)])? Self::$variant => &$implementation,)*
                }
            }
        }
    };
}

// The list of protocols.
protocols! {
    /// MindIE Service: `/v1/completions` with token ids, `/infer` with times of the server.
    Mindie => mindie::Mindie;
    /// Text Generation Inference: `/generate` and `/generate_stream`.
    Tgi => tgi::Tgi;
    /// The OpenAI API as published: `/v1/completions`, `/v1/chat/completions`.
    OpenAi => openai::OpenAi;
    /// vLLM's OpenAI server with its own fields: token ids in and out, log-probabilities of the prompt.
    Vllm => vllm::Vllm;
    /// llama.cpp's own server: `/completion`.
    LlamaCpp => llama_cpp::LlamaCpp;
    /// The smallest example of a protocol, for tests.
    #[cfg(test)]
    Toy => toy::Toy;
}

impl Api {
    /// Returns the word of the command line and of records.
    pub fn word(self) -> &'static str {
        self.protocol().word()
    }

    /// Returns all words as a sentence lists them: `mindie, tgi or openai`.
    pub fn words() -> String {
        let [first @ .., last] = Self::ALL.map(Self::word);
        format!("{} or {last}", first.join(", "))
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Api {
    type Err = RemoteError;

    fn from_str(word: &str) -> Result<Self, RemoteError> {
        Self::ALL.into_iter().find(|api| api.word() == word).ok_or_else(|| {
            RemoteError::Option(format!("`{word}` is no protocol: expected {}", Self::words()))
        })
    }
}

/// What a protocol cannot do, and what would.
pub(crate) type Unsupported = String;

/// Why an event cannot be used.
pub(crate) type Wrong = (FailureKind, String);

/// How a stream is framed and how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Server-sent events, ended by `data: [DONE]`.
    Marker,
    /// Server-sent events, ended by an event that says so.
    Event,
    /// NUL-separated objects without any end marker: the end of the body.
    Body,
}

/// A request whose answer is a stream.
pub(crate) struct Call {
    pub(crate) route: &'static str,
    pub(crate) body: Value,
    pub(crate) ending: Ending,
    /// Reads one event.
    pub(crate) read: fn(&Json, &mut Answer) -> Result<Update, Wrong>,
    /// Whether `stop_sequence` can only be an internal error, because no stop text was sent.
    pub(crate) no_stop_texts: bool,
}

/// A request whose answer is one object.
pub(crate) struct Unary<T> {
    pub(crate) route: &'static str,
    pub(crate) body: Value,
    pub(crate) read: fn(&Json) -> Result<T, Wrong>,
}

/// What one event added.
#[derive(Debug, Default)]
pub(crate) struct Update {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) tokens: Option<u32>,
    /// Whether the event carries a token, even one without text.
    pub(crate) is_token: bool,
}

/// What the events said together.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The texts of the events so far.
    pub(crate) text: String,
    /// The whole text, where the last event repeats it.
    pub(crate) whole: Option<String>,
    pub(crate) ids: Vec<u32>,
    pub(crate) finish: Option<Finish>,
    pub(crate) prompt_tokens: Option<u32>,
    pub(crate) output_tokens: Option<u32>,
    pub(crate) top: Vec<Vec<TokenLogprob>>,
    pub(crate) server: Option<ServerTimes>,
    pub(crate) model: Option<String>,
    /// The end marker was there.
    pub(crate) complete: bool,
}

impl Answer {
    /// Returns what an event of completions or chats adds. `counted` is the increase of a running count.
    fn add(
        &mut self,
        has_choice: bool,
        text: String,
        ids: Vec<u32>,
        counted: Option<u32>,
        top: Vec<Vec<TokenLogprob>>,
    ) -> Update {
        let counted = counted.filter(|&count| has_choice && count > 0);
        let known = u32::try_from(ids.len().max(top.len())).ok().filter(|&count| count > 0);
        let is_token = has_choice && (!text.is_empty() || known.is_some() || counted.is_some());
        self.top.extend(top);
        Update { text, ids, tokens: known.or(counted).filter(|_| is_token), is_token }
    }
}

/// Candidates for one position.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    pub(crate) list: Vec<TokenLogprob>,
    pub(crate) prompt_tokens: Option<u32>,
    pub(crate) model: Option<String>,
}

/// Log-probabilities of a prompt.
#[derive(Debug, Default)]
pub(crate) struct PromptTokens {
    pub(crate) logprobs: Vec<Option<f64>>,
    pub(crate) ids: Option<Vec<u32>>,
    pub(crate) texts: Option<Vec<String>>,
    pub(crate) prompt_tokens: Option<u32>,
    pub(crate) model: Option<String>,
}

/// Which base URL of an endpoint has a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// That of inference.
    Inference,
    /// That of management: another port in MindIE.
    Management,
}

/// A route on which a server states what it is.
pub(crate) struct About {
    pub(crate) base: Base,
    pub(crate) route: &'static str,
    /// What the route has, for the note of a server that does not answer.
    pub(crate) what: &'static str,
    pub(crate) read: fn(&Json, &mut Identity),
}

/// What a protocol sends and reads.
pub(crate) trait Protocol: Sync {
    /// The word of the command line and of records.
    fn word(&self) -> &'static str;

    /// What the server is, where the protocol alone says it. Many servers speak the others, and may name themselves.
    fn server(&self) -> Option<&'static str> {
        None
    }

    /// Routes on which the server states name, version, models and limits, in the order of asking.
    fn about(&self) -> &'static [About];

    /// Whether requests may name the ids whose log-probabilities they want.
    fn names_logprob_ids(&self) -> bool {
        false
    }

    /// A well-behaved server of this protocol, for tests.
    #[cfg(feature = "testing")]
    fn stub(&self) -> crate::wire::Stub;

    /// Whether requests name a model, and answers must name the same.
    fn names_model(&self, route: Route, prompt: Option<&Prompt>) -> bool;

    /// Refuses what the protocol cannot do on a route, chats included.
    fn allow(&self, route: Route, _generation: &Generation) -> Result<(), Unsupported> {
        only_default(route)
    }

    /// How the protocol asks in chats, which are alike in all protocols that have them.
    fn chats(&self) -> Result<Chats, Unsupported>;

    /// A stream of tokens after a text or ids.
    fn stream(&self, route: Route, model: Option<&str>, generation: &Generation)
    -> Result<Call, Unsupported>;

    /// Candidates for the token after a text or ids. `depth` is how many are wanted: the protocol may ask for fewer.
    fn next_token(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
        depth: u32,
    ) -> Result<Unary<Candidates>, Unsupported>;

    /// Names the ids whose log-probabilities are wanted, where the protocol can ([`Protocol::names_logprob_ids`]).
    fn name_ids(&self, _body: &mut Value, _ids: &[u32]) {}

    /// Depths to ask for in turn after a text or ids, until all choices are revealed.
    fn own_depths(&self) -> &'static [u32];

    /// Log-probabilities of the own tokens of a text or ids.
    fn own_prompt_logprobs(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
    ) -> Result<Unary<PromptTokens>, Unsupported>;
}

/// How a protocol asks in chats.
pub(crate) struct Chats {
    /// The model to name if the endpoint chooses none.
    pub(crate) model: Option<&'static str>,
    /// Whether the counts must be asked for.
    pub(crate) usage: bool,
    /// Depths to ask for in turn.
    pub(crate) depths: &'static [u32],
    /// Adds what only this protocol has.
    pub(crate) add: fn(&mut Value, &Generation),
}

impl Chats {
    /// As OpenAI published them.
    const PLAIN: Self = Self { model: None, usage: true, depths: &[chat::DEPTH], add: |_, _| {} };
}

/// What is the same in all protocols: what is refused, and that a chat goes its own way.
impl dyn Protocol {
    /// A stream of generated tokens.
    pub(crate) fn generate(
        &self,
        route: Route,
        model: Option<&str>,
        generation: &Generation,
    ) -> Result<Call, Unsupported> {
        self.allow(route, generation)?;
        let Prompt::Chat(text) = &generation.prompt else { return self.stream(route, model, generation) };
        let chats = self.chats()?;
        let mut call = chat::call(model.or(chats.model), text, generation, chats.usage);
        (chats.add)(&mut call.body, generation);
        Ok(call)
    }

    /// Candidates for the token after the prompt.
    pub(crate) fn candidates(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
        choices: &[Choice],
        depth: u32,
    ) -> Result<Unary<Candidates>, Unsupported> {
        let mut unary = match prompt {
            Prompt::Chat(text) => chat::candidates(model.or(self.chats()?.model), text),
            Prompt::Text(_) | Prompt::Ids(_) => self.next_token(model, prompt, depth)?,
        };
        let ids: Option<Vec<u32>> = choices.iter().map(|choice| choice.id).collect();
        if let Some(ids) = ids.filter(|ids| !ids.is_empty()) {
            self.name_ids(&mut unary.body, &ids);
        }
        Ok(unary)
    }

    /// Depths to ask for in turn, until all choices are revealed.
    pub(crate) fn depths(&self, prompt: &Prompt) -> &'static [u32] {
        match prompt {
            Prompt::Chat(_) => match self.chats() {
                Ok(chats) => chats.depths,
                // The error comes from the request.
                Err(_) => &[chat::DEPTH],
            },
            Prompt::Text(_) | Prompt::Ids(_) => self.own_depths(),
        }
    }

    /// Log-probabilities of the prompt tokens.
    pub(crate) fn prompt_logprobs(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
    ) -> Result<Unary<PromptTokens>, Unsupported> {
        match prompt {
            Prompt::Chat(_) => {
                Err("chats have no log-probabilities of the prompt: use a text or token ids".into())
            }
            Prompt::Text(_) | Prompt::Ids(_) => self.own_prompt_logprobs(model, prompt),
        }
    }
}

/// Refuses the routes of MindIE.
fn only_default(route: Route) -> Result<(), Unsupported> {
    match route {
        Route::Default => Ok(()),
        other => Err(format!("only mindie has the route `{}`: leave it out", other.word())),
    }
}

/// Returns a completion's prompt as JSON.
fn prompt_json(prompt: &Prompt) -> Value {
    match prompt {
        Prompt::Text(text) | Prompt::Chat(text) => json!(text),
        Prompt::Ids(ids) => json!(ids),
    }
}

/// Sets the members that are there.
fn set<T: Into<Value>>(body: &mut Value, name: &str, value: Option<T>) {
    if let Some(value) = value {
        body[name] = value.into();
    }
}

/// Sets temperature, nucleus and seed as the OpenAI routes name them.
fn set_sampling(body: &mut Value, sampling: &Sampling) {
    body["temperature"] = json!(sampling.temperature);
    set(body, "top_p", sampling.top_p.filter(|&p| p < 1.0));
    set(body, "top_k", sampling.top_k);
    set(body, "seed", sampling.seed);
}

/// Adds the chosen token to the candidates, unless it is among them. Another value under the same text is another token.
fn add_chosen(list: &mut Vec<TokenLogprob>, chosen: Option<TokenLogprob>) {
    let Some(chosen) = chosen else { return };
    let same = |known: &TokenLogprob| {
        known.text == chosen.text && known.id == chosen.id && (known.logprob - chosen.logprob).abs() < 1e-6
    };
    if !list.iter().any(same) {
        list.push(chosen);
    }
}

/// Fails if the server reports an error.
pub(crate) fn check(json: &Json) -> Result<(), Wrong> {
    match json.error_text() {
        Some(text) => Err((FailureKind::ErrorEvent, text)),
        None => Ok(()),
    }
}

/// Returns the failure for an answer without a field.
fn lacks(what: &str, json: &Json) -> Wrong {
    let text: String = json.to_string().chars().take(400).collect();
    (FailureKind::Shape, format!("no `{what}` in {text}"))
}
