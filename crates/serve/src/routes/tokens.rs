//! Routes of the tokenizer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde_json::{Value, json};

use super::{Routed, json_response, ticket_of, warn_ignored};
use crate::app::App;
use crate::body::receive;
use crate::chat;
use crate::error::{ApiError, Family};
use crate::wire;
use crate::wire::tokens::{Detokenize, Tokenize};

/// `POST /tokenize`: vLLM's shape for `prompt` or `messages`, TGI's for `inputs`.
pub(crate) async fn tokenize(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let ticket = ticket_of(&request);
    tokenized(&app, request).await.or_error(&ticket, Family::OpenAi)
}

async fn tokenized(app: &App, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let received = receive(app, request).await?;
    let wire: Tokenize = wire::read(&received.bytes)?;
    app.check_model(wire.model.as_deref())?;
    let with_prefix = wire.add_special_tokens != Some(false);
    let text = match (wire.prompt, wire.messages, &wire.inputs) {
        (Some(prompt), None, None) => prompt,
        (None, Some(messages), None) => chat::prompt(app, messages)?,
        (None, None, Some(inputs)) => inputs.clone(),
        _ => return Err(ApiError::invalid("prompt", "expected exactly one of prompt, messages and inputs")),
    };
    let ids = app.encode(text, with_prefix).await?;
    // Pieces are made one by one beside the requests of others.
    let with_pieces = wire.inputs.is_some() || wire.return_token_strs == Some(true);
    let most = app.settings.limits.pieces;
    if with_pieces && ids.len() > most {
        let message = format!("the text has {} tokens, expected at most {most} with their pieces", ids.len());
        return Err(ApiError::invalid("inputs", message));
    }
    let reply = if wire.inputs.is_some() {
        pieces(app, &ids)
    } else {
        let names = || ids.iter().map(|&id| app.model.names.name(id)).collect::<Vec<_>>();
        json!({
            "count": ids.len(),
            "max_model_len": app.model.context,
            "tokens": ids,
            "token_strs": (wire.return_token_strs == Some(true)).then(names),
        })
    };
    let mut response = json_response(&reply);
    warn_ignored(&mut response, &wire.unknown);
    Ok(response)
}

/// Returns TGI's list: each token with its place, in characters of the decoded text.
fn pieces(app: &App, ids: &[u32]) -> Value {
    let mut decoder = app.model.tokenizer.stream();
    let mut start = 0;
    let piece = |&id: &u32| {
        let stop = start + decoder.push(id).chars().count();
        let piece = json!({"id": id, "text": app.model.names.name(id), "start": start, "stop": stop});
        start = stop;
        piece
    };
    ids.iter().map(piece).collect()
}

/// `POST /detokenize`.
pub(crate) async fn detokenize(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let ticket = ticket_of(&request);
    detokenized(&app, request).await.or_error(&ticket, Family::OpenAi)
}

async fn detokenized(app: &App, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let received = receive(app, request).await?;
    let wire: Detokenize = wire::read(&received.bytes)?;
    app.check_model(wire.model.as_deref())?;
    let ids = wire.tokens.ok_or_else(|| ApiError::invalid("tokens", "tokens is missing"))?;
    if let Some(id) = ids.iter().find(|&&id| id as usize >= app.model.vocab) {
        let message = format!("tokens has id {id}, expected ids below {}", app.model.vocab);
        return Err(ApiError::invalid("tokens", message));
    }
    let mut response = json_response(&json!({"prompt": app.model.tokenizer.decode(&ids)}));
    warn_ignored(&mut response, &wire.unknown);
    Ok(response)
}

/// `GET /tokenizer_info`: what lm_eval's remote tokenizer asks for.
pub(crate) async fn info(State(app): State<Arc<App>>) -> Response<Body> {
    let tokenizer = &app.model.tokenizer;
    let eos = tokenizer.eos_id().or(app.model.eos.first().copied()).and_then(|id| tokenizer.piece(id));
    let there = |piece: &str| tokenizer.token_id(piece).map(|_| piece.to_owned());
    json_response(&json!({
        "tokenizer_class": "glmbench",
        "eos_token": eos,
        "bos_token": there("<s>"),
        "pad_token": there("<unk>"),
        "chat_template": null,
        "prefix_token_ids": tokenizer.prefix_ids(),
        "sha256": tokenizer.sha256(),
    }))
}
