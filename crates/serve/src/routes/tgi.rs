//! `/`, `/generate` and `/generate_stream`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Request, Response};

use glmbench_engine::{Report, Stop};

use super::tgi_reply::{Form, Streamed};
use super::{Routed, json_response, ticket_of, warn_ignored};
use crate::app::App;
use crate::body::{Received, receive};
use crate::error::{ApiError, Family};
use crate::generation::{Ask, Draw, Output, Plan, collect, refuse, stop_texts};
use crate::sse;
use crate::ticket::Ticket;
use crate::wire;
use crate::wire::fields::{Plain, Prompt};
use crate::wire::tgi::{Body as Wire, Parameters};

/// Most new tokens of a request that does not say how many.
const NEW_TOKENS: usize = 100;
/// Most likeliest tokens, as TGI's.
const TOP_TOKENS: usize = 5;

/// Which route it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// The body's `stream` decides; a whole reply is a list.
    Compatible,
    Whole,
    Stream,
}

/// `POST /`.
pub(crate) async fn compatible(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let ticket = ticket_of(&request);
    answer(&app, &ticket, request, Route::Compatible).await.or_error(&ticket, Family::Tgi)
}

/// `POST /generate`.
pub(crate) async fn generate(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let ticket = ticket_of(&request);
    answer(&app, &ticket, request, Route::Whole).await.or_error(&ticket, Family::Tgi)
}

/// `POST /generate_stream`.
pub(crate) async fn generate_stream(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let ticket = ticket_of(&request);
    answer(&app, &ticket, request, Route::Stream).await.or_error(&ticket, Family::Tgi)
}

async fn answer(
    app: &Arc<App>,
    ticket: &Arc<Ticket>,
    request: Request<Body>,
    route: Route,
) -> Result<Response<Body>, ApiError> {
    app.metrics.request();
    let Received { bytes, room: body_room } = receive(app, request).await?;
    let wire: Wire = wire::read(&bytes)?;
    drop(bytes);
    let stream = route == Route::Stream || (route == Route::Compatible && wire.stream == Some(true));
    let parameters = wire.parameters.unwrap_or_default();
    let mut ignored = wire.unknown;
    ignored.extend(parameters.unknown.iter().map(|name| format!("parameters.{name}")));
    check_unsupported(&parameters)?;
    let inputs = wire.inputs.ok_or_else(|| ApiError::invalid("inputs", "inputs is missing"))?;
    let (ask, form) = asked(app, inputs, parameters, stream)?;
    let Plan { requests, mut prompts, seed, room } = ask.plan(app, ticket).await?;
    drop(body_room);
    ticket.facts().ignored.clone_from(&ignored);
    let form = Form { prompt: prompts.remove(0), seed, ..form };
    let events = app.submit(requests, ticket.arrived)?;
    let mut response = if stream {
        let render = Streamed::new(Arc::clone(app), Arc::clone(ticket), form);
        sse::response(events, Box::new(render), Arc::clone(ticket), room)
    } else {
        let output = collect(events, 1, ticket).await?.remove(0);
        let reply = form.whole(app, &output);
        let mut response = match route {
            Route::Compatible => json_response(&[reply]),
            _ => json_response(&reply),
        };
        add_times(response.headers_mut(), &form, &output);
        response
    };
    warn_ignored(&mut response, &ignored);
    Ok(response)
}

fn check_unsupported(parameters: &Parameters) -> Result<(), ApiError> {
    let one = || Some(Plain::Number(1.0));
    refuse(&[
        ("best_of", &parameters.best_of, one()),
        ("frequency_penalty", &parameters.frequency_penalty, None),
        ("typical_p", &parameters.typical_p, one()),
        ("truncate", &parameters.truncate, None),
        ("watermark", &parameters.watermark, None),
        ("grammar", &parameters.grammar, None),
        ("adapter_id", &parameters.adapter_id, None),
    ])
}

fn asked(app: &App, inputs: String, of: Parameters, stream: bool) -> Result<(Ask, Form), ApiError> {
    // As TGI does, a parameter that only draws know asks for a draw.
    let draws = of.do_sample == Some(true)
        || of.temperature.is_some_and(|temperature| temperature != 1.0)
        || of.top_k.is_some_and(|count| count.0.is_some())
        || of.top_p.is_some_and(|top_p| top_p != 1.0);
    if of.temperature == Some(0.0) {
        return Err(ApiError::invalid(
            "temperature",
            "temperature is 0, expected a positive number, or no do_sample",
        ));
    }
    let draw = Draw {
        temperature: if draws { of.temperature.unwrap_or(1.0) } else { 0.0 },
        top_k: of.top_k,
        top_p: of.top_p,
        repetition_penalty: of.repetition_penalty,
        seed: of.seed.map(|seed| seed.0),
    };
    let (sampling, seed) = draw.sampling(app)?;
    let top = of.top_n_tokens.unwrap_or(0);
    if top > TOP_TOKENS {
        let message = format!("top_n_tokens is {top}, expected at most {TOP_TOKENS}");
        return Err(ApiError::invalid("top_n_tokens", message));
    }
    let with_prompt = of.decoder_input_details == Some(true);
    if with_prompt && stream {
        let message = "decoder_input_details is not possible in a stream";
        return Err(ApiError::invalid("decoder_input_details", message));
    }
    let form = Form {
        details: of.details == Some(true) || with_prompt,
        with_prompt,
        full_text: of.return_full_text == Some(true),
        top,
        seed: None,
        prompt: crate::generation::PromptInfo { ids: Vec::new(), hidden: 0, text: None },
    };
    let wants_logprobs = stream || form.details;
    let ask = Ask {
        prompts: vec![Prompt::Text(inputs)],
        with_prefix: true,
        prompt_field: "inputs",
        max_new_tokens: of.max_new_tokens.map(|n| (n, "max_new_tokens")),
        default_new_tokens: NEW_TOKENS,
        sampling,
        seed,
        ignore_eos: of.ignore_eos == Some(true) || of.ignore_eos_token == Some(true),
        stop: Stop {
            texts: stop_texts(app, of.stop.map(|stop| stop.0))?,
            // TGI's texts end with the stop text.
            keep: true,
            ..Stop::default()
        },
        report: Report {
            tokens: true,
            top: wants_logprobs.then_some(top),
            prompt: with_prompt.then_some(0),
            ids: Vec::new(),
        },
    };
    if ask.max_new_tokens.is_some_and(|(new, _)| new == 0) {
        return Err(ApiError::invalid("max_new_tokens", "max_new_tokens is 0, expected a positive number"));
    }
    Ok((ask, form))
}

/// Adds TGI's headers with the server's own times, in milliseconds, and counts.
fn add_times(headers: &mut HeaderMap, form: &Form, output: &Output) {
    let Some(times) = output.end.map(|end| end.times) else { return };
    let tokens = output.tokens.len();
    let inference = times.total.saturating_sub(times.queue);
    let ms = |time: std::time::Duration| format!("{:.3}", time.as_secs_f64() * 1e3);
    for (name, value) in [
        ("x-compute-type", "glmbench".to_owned()),
        ("x-total-time", ms(times.total)),
        ("x-queue-time", ms(times.queue)),
        ("x-inference-time", ms(inference)),
        ("x-time-per-token", ms(inference / tokens.max(1) as u32)),
        ("x-prompt-tokens", form.prompt.ids.len().to_string()),
        ("x-generated-tokens", tokens.to_string()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}
