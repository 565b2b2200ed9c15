//! `/v1/completions` and `/v1/chat/completions`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};

use glmbench_engine::{Report, Stop};

use super::openai_reply::{Form, Streamed};
use super::{Routed, json_response, ticket_of, warn_ignored};
use crate::app::{App, unix_seconds};
use crate::body::{Received, receive};
use crate::chat;
use crate::error::{ApiError, Family};
use crate::generation::{Ask, Draw, Plan, collect, refuse, stop_ids, stop_texts};
use crate::sse;
use crate::ticket::Ticket;
use crate::wire;
use crate::wire::fields::{Logprobs, Plain, Prompt};
use crate::wire::openai::Body as Wire;

/// Most new tokens of a completion that does not say how many, as OpenAI's own.
const COMPLETION_TOKENS: usize = 16;

/// `POST /v1/completions`.
pub(crate) async fn completions(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let ticket = ticket_of(&request);
    answer(&app, &ticket, request, false).await.or_error(&ticket, Family::OpenAi)
}

/// `POST /v1/chat/completions`.
pub(crate) async fn chat(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let ticket = ticket_of(&request);
    answer(&app, &ticket, request, true).await.or_error(&ticket, Family::OpenAi)
}

async fn answer(
    app: &Arc<App>,
    ticket: &Arc<Ticket>,
    request: Request<Body>,
    is_chat: bool,
) -> Result<Response<Body>, ApiError> {
    app.metrics.request();
    let Received { bytes, room: body_room } = receive(app, request).await?;
    let wire: Wire = wire::read(&bytes)?;
    drop(bytes);
    app.check_model(wire.model.as_deref())?;
    check_unsupported(&wire, is_chat)?;
    let stream = wire.stream == Some(true);
    let ignored = wire.unknown.clone();
    let (ask, form) = asked(app, wire, is_chat)?;
    let Plan { requests, prompts, room, .. } = ask.plan(app, ticket).await?;
    drop(body_room);
    ticket.facts().ignored.clone_from(&ignored);
    let form = Form { prompts, ..form };
    let events = app.submit(requests, ticket.arrived)?;
    let mut response = if stream {
        let render = Streamed::new(Arc::clone(app), Arc::clone(ticket), form);
        sse::response(events, Box::new(render), Arc::clone(ticket), room)
    } else {
        let outputs = collect(events, form.prompts.len(), ticket).await?;
        json_response(&form.whole(app, &outputs))
    };
    warn_ignored(&mut response, &ignored);
    Ok(response)
}

/// Refuses what the server knows but does not do.
fn check_unsupported(wire: &Wire, is_chat: bool) -> Result<(), ApiError> {
    let one = || Some(Plain::Number(1.0));
    let on = || Some(Plain::Bool(true));
    let text = || Some(Plain::Typed("text".into()));
    refuse(&[
        ("n", &wire.n, one()),
        ("best_of", &wire.best_of, one()),
        ("suffix", &wire.suffix, None),
        ("presence_penalty", &wire.presence_penalty, None),
        ("frequency_penalty", &wire.frequency_penalty, None),
        ("logit_bias", &wire.logit_bias, None),
        ("response_format", &wire.response_format, text()),
        ("tools", &wire.tools, None),
        ("tool_choice", &wire.tool_choice, None),
        ("functions", &wire.functions, None),
        ("function_call", &wire.function_call, None),
        ("audio", &wire.audio, None),
        ("prediction", &wire.prediction, None),
        ("reasoning_effort", &wire.reasoning_effort, None),
        ("min_p", &wire.min_p, None),
        ("typical_p", &wire.typical_p, one()),
        ("use_beam_search", &wire.use_beam_search, None),
        ("length_penalty", &wire.length_penalty, one()),
        ("skip_special_tokens", &wire.skip_special_tokens, on()),
        ("truncate_prompt_tokens", &wire.truncate_prompt_tokens, None),
        ("allowed_token_ids", &wire.allowed_token_ids, None),
        ("bad_words", &wire.bad_words, None),
        ("guided_json", &wire.guided_json, None),
        ("guided_regex", &wire.guided_regex, None),
        ("guided_choice", &wire.guided_choice, None),
        ("guided_grammar", &wire.guided_grammar, None),
        ("structured_outputs", &wire.structured_outputs, None),
        ("chat_template", &wire.chat_template, None),
        ("chat_template_kwargs", &wire.chat_template_kwargs, None),
        ("add_generation_prompt", &wire.add_generation_prompt, on()),
        ("continue_final_message", &wire.continue_final_message, None),
        ("prompt_embeds", &wire.prompt_embeds, None),
    ])?;
    let stray = |name: &str, there: bool, route: &str| {
        if there { Err(ApiError::invalid(name, format!("{name} belongs to {route}"))) } else { Ok(()) }
    };
    if is_chat {
        let route = "/v1/completions";
        stray("prompt", wire.prompt.is_some(), route)?;
        stray("echo", wire.echo == Some(true), route)
    } else {
        let route = "/v1/chat/completions";
        stray("messages", wire.messages.is_some(), route)?;
        stray("top_logprobs", wire.top_logprobs.is_some(), route)
    }
}

/// Returns what is asked for, and the form of the reply, still without prompts.
fn asked(app: &App, wire: Wire, is_chat: bool) -> Result<(Ask, Form), ApiError> {
    let draw = Draw {
        temperature: wire.temperature.unwrap_or(1.0),
        top_k: wire.top_k,
        top_p: wire.top_p,
        repetition_penalty: wire.repetition_penalty,
        seed: wire.seed.map(|seed| seed.0),
    };
    let (sampling, seed) = draw.sampling(app)?;
    let ids = wire.logprob_token_ids.unwrap_or_default();
    let logprobs = wanted_logprobs(app, wire.logprobs, wire.top_logprobs, is_chat)?;
    let logprobs = logprobs.or((!ids.is_empty()).then_some(0));
    let prompt_logprobs = check_depth(app, "prompt_logprobs", wire.prompt_logprobs)?;
    check_depth(app, "logprob_token_ids", Some(ids.len()))?;
    let echo = wire.echo == Some(true);
    let of_prompt = prompt_logprobs.max(if echo { logprobs } else { None });
    let texts = stop_texts(app, wire.stop.map(|stop| stop.0))?;
    let max_new_tokens = (wire.max_completion_tokens.map(|n| (n, "max_completion_tokens")))
        .or(wire.max_tokens.map(|n| (n, "max_tokens")));
    let prompts = if is_chat {
        vec![Prompt::Text(chat::prompt(app, wire.messages.unwrap_or_default())?)]
    } else {
        let missing = || ApiError::invalid("prompt", "prompt is missing");
        wire.prompt.ok_or_else(missing)?.0
    };
    let options = wire.stream_options.unwrap_or_default();
    let form = Form {
        is_chat,
        id: format!("{}-{:016x}", if is_chat { "chatcmpl" } else { "cmpl" }, app.fresh_number()),
        created: unix_seconds(),
        model: app.settings.model.clone(),
        echo,
        logprobs,
        prompt_logprobs,
        named: ids.clone(),
        as_ids: wire.return_tokens_as_token_ids == Some(true),
        return_ids: wire.return_token_ids == Some(true),
        include_usage: options.include_usage == Some(true),
        usage_each: options.continuous_usage_stats == Some(true),
        stops: texts.clone(),
        prompts: Vec::new(),
    };
    let ask = Ask {
        prompts,
        with_prefix: wire.add_special_tokens != Some(false) || is_chat,
        prompt_field: if is_chat { "messages" } else { "prompt" },
        max_new_tokens,
        default_new_tokens: if is_chat { app.settings.limits.chat_tokens } else { COMPLETION_TOKENS },
        sampling,
        seed,
        ignore_eos: wire.ignore_eos == Some(true),
        stop: Stop {
            ids: stop_ids(wire.stop_token_ids)?,
            texts,
            keep: wire.include_stop_str_in_output == Some(true),
            min_new_tokens: wire.min_tokens.unwrap_or(0),
        },
        report: Report { tokens: true, top: logprobs, prompt: of_prompt, ids },
    };
    Ok((ask, form))
}

/// Returns the number of likeliest tokens to report, `None` for no log-probabilities.
fn wanted_logprobs(
    app: &App,
    logprobs: Option<Logprobs>,
    top: Option<usize>,
    is_chat: bool,
) -> Result<Option<usize>, ApiError> {
    match (logprobs, is_chat) {
        (None | Some(Logprobs::Wanted(false)), _) => Ok(None),
        (Some(Logprobs::Wanted(true)), true) => check_depth(app, "top_logprobs", Some(top.unwrap_or(0))),
        (Some(Logprobs::Count(count)), false) => check_depth(app, "logprobs", Some(count)),
        (Some(_), true) => Err(ApiError::invalid("logprobs", "logprobs is a number, expected true or false")),
        (Some(_), false) => Err(ApiError::invalid("logprobs", "logprobs is true, expected a number")),
    }
}

fn check_depth(app: &App, field: &str, count: Option<usize>) -> Result<Option<usize>, ApiError> {
    let most = app.settings.limits.logprobs;
    match count {
        Some(count) if count > most => {
            Err(ApiError::invalid(field, format!("{field} asks for {count}, expected at most {most}")))
        }
        count => Ok(count),
    }
}
