//! From what a route asks for to requests of the engine, and back to whole outputs.

use std::ops::RangeInclusive;
use std::sync::Arc;

use glmbench_engine::logprobs::TokenLogprobs;
use glmbench_engine::sampler::{RandomSampling, Sampling};
use glmbench_engine::{FinishReason, Report, Request, Savings, Stop};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::bell::Events;
use crate::error::{ApiError, Kind};
use crate::job::{End, Event, Token};
use crate::ticket::Ticket;
use crate::wire::fields::{CountOrAll, Plain, Prompt};

/// Longest stop text, in bytes.
const MAX_STOP: usize = 256;
/// Repetition penalties that leave logits within their type.
const PENALTIES: RangeInclusive<f32> = 0.01..=100.0;
/// Most different stop tokens of a request. Every step looks through them.
const MAX_STOP_IDS: usize = 256;

/// What a route asks for, whatever its family.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) prompts: Vec<Prompt>,
    /// Whether texts get the model's prefix.
    pub(crate) with_prefix: bool,
    /// The field of the prompts, for errors.
    pub(crate) prompt_field: &'static str,
    /// Most new tokens, if the request says so, with the field's name.
    pub(crate) max_new_tokens: Option<(usize, &'static str)>,
    /// Most new tokens if it does not; fewer if the context ends before.
    pub(crate) default_new_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) seed: Option<u64>,
    pub(crate) ignore_eos: bool,
    pub(crate) stop: Stop,
    pub(crate) report: Report,
}

/// A request that can run.
pub(crate) struct Plan {
    pub(crate) requests: Vec<Request>,
    pub(crate) prompts: Vec<PromptInfo>,
    pub(crate) seed: Option<u64>,
    pub(crate) room: OwnedSemaphorePermit,
}

/// What a reply says of a prompt.
#[derive(Debug)]
pub(crate) struct PromptInfo {
    /// The ids as the client knows them: without a prefix that the server put before an id prompt.
    pub(crate) ids: Vec<u32>,
    /// Number of ids before those.
    pub(crate) hidden: usize,
    /// The text that the client sent.
    pub(crate) text: Option<String>,
}

/// Numbers of a draw, with their fields' names in the request.
#[derive(Debug, Default)]
pub(crate) struct Draw {
    /// Temperature 0 asks for the likeliest token.
    pub(crate) temperature: f32,
    pub(crate) top_k: Option<CountOrAll>,
    pub(crate) top_p: Option<f32>,
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) seed: Option<u64>,
}

impl Draw {
    /// Returns the sampling and the seed of its draws. Without a seed, each request gets another one.
    ///
    /// # Errors
    /// A number is out of its range; the error names its field.
    pub(crate) fn sampling(&self, app: &App) -> Result<(Sampling, Option<u64>), ApiError> {
        let out = |field, found: f32, expected| {
            Err(ApiError::invalid(field, format!("{field} is {found}, expected {expected}")))
        };
        let Self { temperature, .. } = *self;
        if !(temperature.is_finite() && temperature >= 0.0) {
            return out("temperature", temperature, "0 or a positive number");
        }
        let top_p = self.top_p.unwrap_or(1.0);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return out("top_p", top_p, "above 0 and at most 1");
        }
        let repetition_penalty = self.repetition_penalty.unwrap_or(1.0);
        if !PENALTIES.contains(&repetition_penalty) {
            return out("repetition_penalty", repetition_penalty, "0.01 to 100");
        }
        let greedy = temperature == 0.0;
        if greedy && repetition_penalty == 1.0 {
            return Ok((Sampling::Greedy, None));
        }
        let seed = self.seed.unwrap_or_else(|| app.fresh_number());
        let top_k = self.top_k.and_then(|count| count.0).unwrap_or(0);
        Ok((
            Sampling::Random(RandomSampling {
                temperature: if greedy { 1.0 } else { temperature },
                top_k: if greedy { 1 } else { top_k },
                top_p,
                repetition_penalty,
                seed,
            }),
            (!greedy).then_some(seed),
        ))
    }
}

/// Checks stop texts and drops empty ones.
pub(crate) fn stop_texts(app: &App, texts: Option<Vec<String>>) -> Result<Vec<String>, ApiError> {
    let mut texts = texts.unwrap_or_default();
    texts.retain(|text| !text.is_empty());
    let most = app.settings.limits.stops;
    if texts.len() > most {
        return Err(ApiError::invalid(
            "stop",
            format!("stop has {} texts, expected at most {most}", texts.len()),
        ));
    }
    if let Some(long) = texts.iter().find(|text| text.len() > MAX_STOP) {
        let message = format!("stop has a text of {} bytes, expected at most {MAX_STOP}", long.len());
        return Err(ApiError::invalid("stop", message));
    }
    Ok(texts)
}

/// Checks the number of stop tokens and drops repeated ones.
pub(crate) fn stop_ids(ids: Option<Vec<u32>>) -> Result<Arc<[u32]>, ApiError> {
    let mut ids = ids.unwrap_or_default();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > MAX_STOP_IDS {
        let message =
            format!("stop_token_ids has {} different ids, expected at most {MAX_STOP_IDS}", ids.len());
        return Err(ApiError::invalid("stop_token_ids", message));
    }
    Ok(ids.into())
}

/// Refuses fields that are known but not supported, unless they ask for nothing or for the one thing that there is.
pub(crate) fn refuse(fields: &[(&str, &Option<Plain>, Option<Plain>)]) -> Result<(), ApiError> {
    for (name, value, only) in fields {
        let Some(value) = value else { continue };
        // Where there is only `true`, `false` asks for something.
        let nothing = value.is_nothing() && *only != Some(Plain::Bool(true));
        if !nothing && Some(value) != only.as_ref() {
            return Err(ApiError::invalid(
                name,
                format!("{name} is not supported by this server; leave it out"),
            ));
        }
    }
    Ok(())
}

impl Ask {
    /// Encodes the prompts and checks everything against the model and the limits.
    ///
    /// # Errors
    /// The first thing that cannot be done, with its field.
    pub(crate) async fn plan(self, app: &App, ticket: &Ticket) -> Result<Plan, ApiError> {
        let model = &app.model;
        let most = app.most_prompts();
        let field = self.prompt_field;
        if self.prompts.is_empty() || self.prompts.len() > most {
            let message = format!("{field} has {} prompts, expected 1 to {most}", self.prompts.len());
            return Err(ApiError::invalid(field, message));
        }
        let ids_of = |name, ids: &[u32]| match ids.iter().find(|&&id| id as usize >= model.vocab) {
            Some(id) => {
                let message = format!("{name} has token id {id}, expected ids below {}", model.vocab);
                Err(ApiError::invalid(name, message))
            }
            None => Ok(()),
        };
        ids_of("stop_token_ids", &self.stop.ids)?;
        ids_of("logprob_token_ids", &self.report.ids)?;
        let mut plan: (Vec<Request>, Vec<PromptInfo>) = (Vec::new(), Vec::new());
        let mut logprobs = 0;
        for prompt in self.prompts {
            let info = match prompt {
                Prompt::Text(text) => {
                    let ids = app.encode(text.clone(), self.with_prefix).await?;
                    PromptInfo { ids, hidden: 0, text: Some(text) }
                }
                Prompt::Ids(ids) => {
                    ids_of(field, &ids)?;
                    let prefix = model.tokenizer.prefix_ids();
                    let add = app.settings.prefix_ids && !ids.starts_with(prefix);
                    PromptInfo { ids, hidden: if add { prefix.len() } else { 0 }, text: None }
                }
            };
            let prompt = [&model.tokenizer.prefix_ids()[..info.hidden], &info.ids].concat();
            let room = model.context.saturating_sub(prompt.len());
            let (new, new_field) = self.max_new_tokens.unwrap_or((self.default_new_tokens.min(room), field));
            if prompt.is_empty() {
                return Err(ApiError::invalid(
                    field,
                    format!("{field} is empty, expected at least one token"),
                ));
            }
            if new > room || (room == 0 && self.max_new_tokens.is_none()) {
                let message = format!(
                    "{field} has {} tokens and {new} new ones are asked for; this server's context holds {}",
                    prompt.len(),
                    model.context
                );
                return Err(ApiError::invalid(
                    if prompt.len() < model.context { new_field } else { field },
                    message,
                ));
            }
            let named = self.report.ids.len();
            logprobs += self.report.prompt.map_or(0, |top| prompt.len() * (top + 1 + named));
            logprobs += self.report.top.map_or(0, |top| new * (top + 1 + named));
            plan.0.push(Request {
                prompt,
                max_new_tokens: new,
                sampling: self.sampling,
                ignore_eos: self.ignore_eos,
                stop: self.stop.clone(),
                report: self.report.clone(),
                savings: Savings { shared_prefixes: app.settings.prefix_cache, ..Savings::NONE },
                ..Request::probe()
            });
            plan.1.push(info);
        }
        let (requests, prompts) = plan;
        let mut facts = ticket.facts();
        facts.inference = true;
        facts.prompts = requests.len();
        facts.prompt_tokens = requests.iter().map(|request| request.prompt.len()).sum();
        facts.seed = self.seed;
        drop(facts);
        Ok(Plan { requests, prompts, seed: self.seed, room: app.room_for_logprobs(logprobs)? })
    }
}

/// The whole output of one sequence.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) prompt: Vec<Option<TokenLogprobs>>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) end: Option<End>,
}

impl Output {
    pub(crate) fn text(&self) -> String {
        self.tokens.iter().map(|token| token.text.as_str()).collect()
    }
}

/// Waits for the whole outputs of a job.
///
/// # Errors
/// The job failed.
pub(crate) async fn collect(
    mut events: Events,
    count: usize,
    ticket: &Arc<Ticket>,
) -> Result<Vec<Output>, ApiError> {
    let mut outputs: Vec<Output> = (0..count).map(|_| Output::default()).collect();
    let mut open = count;
    while open > 0 {
        let gave_up = || ApiError::new(Kind::Timeout, "the engine gave the request up");
        let ended = match events.next().await.ok_or_else(gave_up)? {
            Event::Failed(error) => return Err(error),
            Event::Prompt { index, logprobs } => {
                outputs[index].prompt = logprobs;
                None
            }
            Event::Token { index, token } => {
                ticket.facts().completion_tokens += 1;
                outputs[index].end = token.end;
                outputs[index].tokens.push(token);
                outputs[index].end
            }
            Event::End { index, end } => {
                outputs[index].end = Some(end);
                Some(end)
            }
        };
        if let Some(end) = ended {
            open -= 1;
            note_end(ticket, end);
        }
    }
    Ok(outputs)
}

/// Notes how a sequence ended in the request's record.
pub(crate) fn note_end(ticket: &Ticket, end: End) {
    let mut facts = ticket.facts();
    facts.finish = Some(openai_reason(end.reason));
    facts.times = Some(end.times);
}

/// Returns OpenAI's word for an end.
pub(crate) fn openai_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        _ => "stop",
    }
}
