//! The replies of OpenAI's routes, whole and as streams.

use std::borrow::Cow;
use std::sync::Arc;

use glmbench_engine::FinishReason;
use glmbench_engine::logprobs::TokenLogprobs;
use serde::Serialize;

use crate::app::App;
use crate::error::Family;
use crate::generation::{Output, PromptInfo, note_end, openai_reason};
use crate::job::{End, Event, Token};
use crate::names::TokenNames;
use crate::sse::{Render, append, push};
use crate::ticket::Ticket;
use crate::wire::replies::{
    ChatLogprobs, ChatToken, Choice, CompletionLogprobs, Delta, Logprobs, Pairs, PromptLogprob,
    PromptLogprobs, Reply, StopReason, Usage,
};

/// How a request wants its reply.
#[expect(clippy::struct_excessive_bools, reason = "each is a field of the request of its own")]
pub(crate) struct Form {
    pub(crate) is_chat: bool,
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) echo: bool,
    /// Number of likeliest tokens beside each token.
    pub(crate) logprobs: Option<usize>,
    pub(crate) prompt_logprobs: Option<usize>,
    /// Ids whose log-probabilities are asked for at each position.
    pub(crate) named: Vec<u32>,
    /// Whether tokens are written as `token_id:N`.
    pub(crate) as_ids: bool,
    pub(crate) return_ids: bool,
    pub(crate) include_usage: bool,
    pub(crate) usage_each: bool,
    pub(crate) stops: Vec<String>,
    pub(crate) prompts: Vec<PromptInfo>,
}

impl Form {
    /// Returns a whole reply.
    pub(crate) fn whole(&self, app: &App, outputs: &[Output]) -> impl Serialize + use<'_> {
        let mut usage = (self.prompt_tokens(), 0);
        let mut choices = Vec::with_capacity(outputs.len());
        for (index, output) in outputs.iter().enumerate() {
            usage.1 += output.tokens.len();
            choices.push(self.choice(app, index, output));
        }
        let object = if self.is_chat { "chat.completion" } else { "text_completion" };
        let usage = Some(Usage::new(usage.0, usage.1));
        self.reply(object, choices, usage)
    }

    fn reply<'a>(&'a self, object: &'a str, choices: Vec<Choice<'a>>, usage: Option<Usage>) -> Reply<'a> {
        Reply {
            id: &self.id,
            object,
            created: self.created,
            model: &self.model,
            system_fingerprint: "glmbench",
            choices,
            usage,
        }
    }

    fn chunk_object(&self) -> &'static str {
        if self.is_chat { "chat.completion.chunk" } else { "text_completion" }
    }

    /// Returns an event up to its choice, which is the same in all events of a stream.
    fn head(&self) -> Vec<u8> {
        let mut head = b"data: ".to_vec();
        append(&mut head, &self.reply(self.chunk_object(), Vec::new(), None));
        // The end of a list without choices, and of the object.
        head.truncate(head.len() - b"]}".len());
        head
    }

    fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.hidden + prompt.ids.len()).sum()
    }

    fn choice(&self, app: &App, index: usize, output: &Output) -> Choice<'static> {
        let text = output.text();
        let mut logprobs = Offsets::default();
        let mut whole = self.logprobs.map(|_| self.empty_logprobs());
        if self.echo {
            self.add_prompt(app, index, &output.prompt, &mut logprobs, &mut whole);
        }
        for token in &output.tokens {
            self.add_token(app, token, &mut logprobs, &mut whole);
        }
        let end = output.end;
        Choice {
            index,
            logprobs: whole,
            finish_reason: end.map(|end| openai_reason(end.reason)),
            stop_reason: end.and_then(|end| self.stop_reason(end)),
            token_ids: self.return_ids.then(|| output.tokens.iter().map(|token| token.id).collect()),
            prompt_token_ids: self.return_ids.then(|| self.prompts[index].ids.clone()),
            prompt_logprobs: self.prompt_logprobs.map(|_| self.prompt_maps(app, index, &output.prompt)),
            ..self.said(if self.echo { self.prompt_text(app, index) + &text } else { text })
        }
    }

    /// Returns a whole choice's text in its place.
    fn said(&self, text: String) -> Choice<'static> {
        let text = Some(Cow::Owned(text));
        if self.is_chat {
            let message = Some(Delta { role: Some("assistant"), content: text });
            return Choice { message, ..Choice::default() };
        }
        Choice { text, ..Choice::default() }
    }

    fn stop_reason(&self, end: End) -> Option<StopReason> {
        match end.reason {
            FinishReason::StopToken(id) => Some(StopReason::Token(id)),
            FinishReason::StopText(index) => self.stops.get(index).cloned().map(StopReason::Text),
            _ => None,
        }
    }

    fn prompt_text(&self, app: &App, index: usize) -> String {
        let prompt = &self.prompts[index];
        prompt.text.clone().unwrap_or_else(|| app.model.tokenizer.decode(&prompt.ids))
    }

    fn empty_logprobs(&self) -> Logprobs {
        if self.is_chat {
            Logprobs::Chat(ChatLogprobs { content: Vec::new() })
        } else {
            Logprobs::Completion(CompletionLogprobs::default())
        }
    }

    fn name(&self, app: &App, id: u32) -> String {
        if self.as_ids { TokenNames::plain(id) } else { app.model.names.name(id).to_owned() }
    }

    /// Appends the prompt's tokens. The first has no log-probability, even if a hidden prefix stands before it.
    fn add_prompt(
        &self,
        app: &App,
        index: usize,
        logprobs: &[Option<TokenLogprobs>],
        at: &mut Offsets,
        to: &mut Option<Logprobs>,
    ) {
        let Some(Logprobs::Completion(to)) = to else { return };
        let prompt = &self.prompts[index];
        let mut decoder = app.model.tokenizer.stream();
        let known = logprobs.iter().skip(prompt.hidden);
        for ((place, &id), logprobs) in prompt.ids.iter().enumerate().zip(known) {
            to.text_offset.push(at.characters);
            to.tokens.push(self.name(app, id));
            let logprobs = logprobs.as_ref().filter(|_| place > 0);
            to.token_logprobs.push(logprobs.map(|logprobs| logprobs.token));
            to.top_logprobs.push(logprobs.map(|logprobs| Pairs(self.top(app, id, logprobs))));
            at.characters += decoder.push(id).chars().count();
        }
        at.characters = self.prompt_text(app, index).chars().count();
    }

    fn add_token(&self, app: &App, token: &Token, at: &mut Offsets, to: &mut Option<Logprobs>) {
        match (to, &token.logprobs) {
            (Some(Logprobs::Completion(to)), Some(logprobs)) => {
                to.text_offset.push(at.characters);
                to.tokens.push(self.name(app, token.id));
                to.token_logprobs.push(Some(logprobs.token));
                to.top_logprobs.push(Some(Pairs(self.top(app, token.id, logprobs))));
            }
            (Some(Logprobs::Chat(to)), Some(logprobs)) => {
                let entry = |id, logprob| ChatToken {
                    token: self.name(app, id),
                    logprob,
                    bytes: app.model.names.bytes(id),
                    top_logprobs: None,
                };
                let named = self.named.iter().copied().zip(logprobs.named.iter().copied());
                let mut top: Vec<ChatToken> = Vec::new();
                let mut seen = Vec::new();
                for (id, logprob) in logprobs.top.iter().copied().chain(named) {
                    if !seen.contains(&id) {
                        seen.push(id);
                        top.push(entry(id, logprob));
                    }
                }
                to.content.push(ChatToken { top_logprobs: Some(top), ..entry(token.id, logprobs.token) });
            }
            _ => {}
        }
        at.characters += token.text.chars().count();
    }

    /// Returns the likeliest tokens, the token itself and the named ones, each once.
    fn top(&self, app: &App, id: u32, of: &TokenLogprobs) -> Vec<(String, f64)> {
        let named = self.named.iter().copied().zip(of.named.iter().copied());
        let depth = self.logprobs.unwrap_or(0);
        let mut ids: Vec<(u32, f64)> = Vec::with_capacity(depth + 1);
        for (id, logprob) in of.top.iter().take(depth).copied().chain([(id, of.token)]).chain(named) {
            if !ids.iter().any(|(known, _)| *known == id) {
                ids.push((id, logprob));
            }
        }
        ids.into_iter().map(|(id, logprob)| (self.name(app, id), logprob)).collect()
    }

    /// Returns vLLM's `prompt_logprobs`.
    fn prompt_maps(&self, app: &App, index: usize, of: &[Option<TokenLogprobs>]) -> PromptLogprobs {
        let prompt = &self.prompts[index];
        let depth = self.prompt_logprobs.unwrap_or(0);
        let entry = |id: u32, logprob: f64, rank| {
            let decoded_token = app.model.names.name(id).to_owned();
            (id.to_string(), PromptLogprob { logprob, rank, decoded_token })
        };
        let of_token = |((place, &id), logprobs): ((usize, &u32), &Option<TokenLogprobs>)| {
            let of = logprobs.as_ref().filter(|_| place > 0)?;
            let mut map = vec![entry(id, of.token, Some(of.rank))];
            let ranked =
                (1..).zip(&of.top).take(depth).map(|(rank, (id, logprob))| (*id, *logprob, Some(rank)));
            let named = self.named.iter().zip(&of.named).map(|(id, logprob)| (*id, *logprob, None));
            for (id, logprob, rank) in ranked.chain(named) {
                if !map.iter().any(|(known, _)| *known == id.to_string()) {
                    map.push(entry(id, logprob, rank));
                }
            }
            Some(Pairs(map))
        };
        prompt.ids.iter().enumerate().zip(of.iter().skip(prompt.hidden)).map(of_token).collect()
    }
}

/// How many characters in the text of a choice are behind.
#[derive(Debug, Default, Clone, Copy)]
struct Offsets {
    characters: usize,
}

/// A reply as a stream.
pub(crate) struct Streamed {
    app: Arc<App>,
    ticket: Arc<Ticket>,
    form: Form,
    /// What every chunk begins with, up to its choice.
    head: Vec<u8>,
    choices: Vec<Progress>,
    open: usize,
    tokens: usize,
}

/// How far a choice is.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    begun: bool,
    at: Offsets,
    tokens: usize,
}

impl Streamed {
    pub(crate) fn new(app: Arc<App>, ticket: Arc<Ticket>, form: Form) -> Self {
        let open = form.prompts.len();
        let head = form.head();
        Self { app, ticket, form, head, choices: vec![Progress::default(); open], open, tokens: 0 }
    }

    fn chunk(&self, choice: &Choice<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        append(out, choice);
        out.push(b']');
        if self.form.usage_each {
            out.extend_from_slice(b",\"usage\":");
            append(out, &self.usage(choice.index));
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn usage(&self, index: usize) -> Usage {
        let prompt = &self.form.prompts[index];
        Usage::new(prompt.hidden + prompt.ids.len(), self.choices[index].tokens)
    }

    /// Sends what stands before the first token: the role of a chat, the prompt of an echo.
    fn begin(&mut self, index: usize, prompt: &[Option<TokenLogprobs>], out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.choices[index].begun, true) {
            return;
        }
        let (form, app) = (&self.form, &self.app);
        let maps = form.prompt_logprobs.map(|_| form.prompt_maps(app, index, prompt));
        if !form.is_chat && !form.echo && maps.is_none() {
            return;
        }
        let mut choice = Choice { index, prompt_logprobs: maps, ..Choice::default() };
        if form.is_chat {
            choice.delta = Some(Delta { role: Some("assistant"), content: Some(Cow::Borrowed("")) });
        } else {
            let mut at = self.choices[index].at;
            let mut logprobs = form.logprobs.filter(|_| form.echo).map(|_| form.empty_logprobs());
            if form.echo {
                form.add_prompt(app, index, prompt, &mut at, &mut logprobs);
            }
            choice.text =
                Some(Cow::Owned(if form.echo { form.prompt_text(app, index) } else { String::new() }));
            choice.logprobs = logprobs;
            self.choices[index].at = at;
        }
        self.chunk(&choice, out);
    }

    fn token(&mut self, index: usize, token: &Token, out: &mut Vec<u8>) {
        self.tokens += 1;
        self.ticket.facts().completion_tokens += 1;
        let (form, app) = (&self.form, &self.app);
        let progress = &mut self.choices[index];
        progress.tokens += 1;
        let first = progress.tokens == 1;
        let mut logprobs = form.logprobs.map(|_| form.empty_logprobs());
        form.add_token(app, token, &mut progress.at, &mut logprobs);
        let choice = Choice {
            index,
            logprobs,
            token_ids: form.return_ids.then(|| vec![token.id]),
            prompt_token_ids: (form.return_ids && first).then(|| form.prompts[index].ids.clone()),
            ..self.delta(&token.text, token.end)
        };
        self.chunk(&choice, out);
    }

    fn delta<'a>(&self, text: &'a str, end: Option<End>) -> Choice<'a> {
        let text = Some(Cow::Borrowed(text));
        let mut choice = Choice {
            finish_reason: end.map(|end| openai_reason(end.reason)),
            stop_reason: end.and_then(|end| self.form.stop_reason(end)),
            ..Choice::default()
        };
        if self.form.is_chat {
            choice.delta = Some(Delta { role: None, content: text });
        } else {
            choice.text = text;
        }
        choice
    }
}

impl Render for Streamed {
    fn event(&mut self, event: Event, out: &mut Vec<u8>) -> bool {
        let end = match event {
            Event::Prompt { index, logprobs } => {
                self.begin(index, &logprobs, out);
                None
            }
            Event::Token { index, token } => {
                self.begin(index, &[], out);
                self.token(index, &token, out);
                token.end
            }
            Event::End { index, end } => {
                self.begin(index, &[], out);
                let choice = Choice { index, ..self.delta("", Some(end)) };
                self.chunk(&choice, out);
                Some(end)
            }
            Event::Failed(_) => None,
        };
        if let Some(end) = end {
            self.open -= 1;
            note_end(&self.ticket, end);
        }
        self.open == 0
    }

    fn last(&mut self, out: &mut Vec<u8>) {
        if self.form.include_usage {
            let usage = Usage::new(self.form.prompt_tokens(), self.tokens);
            push(out, &self.form.reply(self.form.chunk_object(), Vec::new(), Some(usage)));
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn family(&self) -> Family {
        Family::OpenAi
    }
}
