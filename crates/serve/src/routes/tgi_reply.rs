//! The replies of TGI's routes, whole and as streams.

use std::sync::Arc;

use glmbench_engine::FinishReason;
use glmbench_engine::logprobs::TokenLogprobs;
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Family;
use crate::generation::{Output, PromptInfo, note_end};
use crate::job::{End, Event, Token};
use crate::sse::{Render, push};
use crate::ticket::Ticket;

/// How a request wants its reply.
pub(crate) struct Form {
    pub(crate) details: bool,
    /// Whether the prompt's tokens are listed.
    pub(crate) with_prompt: bool,
    /// Whether the prompt stands before the text.
    pub(crate) full_text: bool,
    /// Number of likeliest tokens beside each token.
    pub(crate) top: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) prompt: PromptInfo,
}

/// A token of a reply.
#[derive(Debug, Serialize)]
struct WireToken<'a> {
    id: u32,
    text: &'a str,
    logprob: Option<f64>,
    special: bool,
}

/// An event of a stream.
#[derive(Debug, Serialize)]
struct WireEvent<'a> {
    index: usize,
    token: WireToken<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_tokens: Option<Vec<WireToken<'a>>>,
    generated_text: Option<&'a str>,
    details: Option<Value>,
}

impl Form {
    /// Returns a whole reply.
    pub(crate) fn whole(&self, app: &App, output: &Output) -> Value {
        let text = self.with_head(output.text());
        let Some(end) = output.end.filter(|_| self.details) else {
            return json!({"generated_text": text});
        };
        let mut details = self.details(end, output.tokens.len());
        let tokens: Vec<WireToken<'_>> = output.tokens.iter().map(|token| Self::token(app, token)).collect();
        details["tokens"] = json!(tokens);
        details["prefill"] = if self.with_prompt { self.prefill(app, &output.prompt) } else { json!([]) };
        if self.top > 0 {
            let top: Vec<_> = output.tokens.iter().map(|token| self.top_tokens(app, token)).collect();
            details["top_tokens"] = json!(top);
        }
        json!({"generated_text": text, "details": details})
    }

    fn with_head(&self, text: String) -> String {
        match &self.prompt.text {
            Some(prompt) if self.full_text => format!("{prompt}{text}"),
            _ => text,
        }
    }

    fn details(&self, end: End, tokens: usize) -> Value {
        let reason = match end.reason {
            FinishReason::Length => "length",
            FinishReason::StopText(_) => "stop_sequence",
            _ => "eos_token",
        };
        json!({"finish_reason": reason, "generated_tokens": tokens, "seed": self.seed})
    }

    fn token<'a>(app: &App, token: &'a Token) -> WireToken<'a> {
        WireToken {
            id: token.id,
            text: &token.text,
            logprob: token.logprobs.as_ref().map(|logprobs| logprobs.token),
            special: app.model.names.is_special(token.id),
        }
    }

    fn top_tokens<'a>(&self, app: &'a App, token: &Token) -> Vec<WireToken<'a>> {
        let names = &app.model.names;
        let of = |&(id, logprob): &(u32, f64)| WireToken {
            id,
            text: names.name(id),
            logprob: Some(logprob),
            special: names.is_special(id),
        };
        token.logprobs.iter().flat_map(|logprobs| logprobs.top.iter().take(self.top)).map(of).collect()
    }

    /// Returns the prompt's tokens. The first has no log-probability.
    fn prefill(&self, app: &App, logprobs: &[Option<TokenLogprobs>]) -> Value {
        let of = |(&id, logprobs): (&u32, &Option<TokenLogprobs>)| json!({"id": id, "text": app.model.names.name(id), "logprob": logprobs.as_ref().map(|l| l.token)});
        self.prompt.ids.iter().zip(logprobs).map(of).collect()
    }
}

/// A reply as a stream.
pub(crate) struct Streamed {
    app: Arc<App>,
    ticket: Arc<Ticket>,
    form: Form,
    text: String,
    tokens: usize,
}

impl Streamed {
    pub(crate) fn new(app: Arc<App>, ticket: Arc<Ticket>, form: Form) -> Self {
        Self { app, ticket, form, text: String::new(), tokens: 0 }
    }

    fn last_details(&self, end: End) -> Value {
        let mut details = self.form.details(end, self.tokens);
        details["input_length"] = self.form.prompt.ids.len().into();
        details
    }
}

impl Render for Streamed {
    fn event(&mut self, event: Event, out: &mut Vec<u8>) -> bool {
        let (token, end) = match event {
            Event::Token { token, .. } => (token, None),
            Event::End { end, .. } => {
                let token = Token { id: 0, text: String::new(), logprobs: None, end: None };
                (token, Some(end))
            }
            Event::Prompt { .. } | Event::Failed(_) => return false,
        };
        let end = end.or(token.end);
        self.tokens += 1;
        self.ticket.facts().completion_tokens += 1;
        self.text += &token.text;
        let full = end.map(|_| self.form.with_head(self.text.clone()));
        push(
            out,
            &WireEvent {
                index: self.tokens,
                token: Form::token(&self.app, &token),
                top_tokens: (self.form.top > 0).then(|| self.form.top_tokens(&self.app, &token)),
                generated_text: full.as_deref(),
                details: end.map(|end| self.last_details(end)),
            },
        );
        if let Some(end) = end {
            note_end(&self.ticket, end);
        }
        end.is_some()
    }

    fn last(&mut self, _: &mut Vec<u8>) {}

    fn family(&self) -> Family {
        Family::Tgi
    }
}
