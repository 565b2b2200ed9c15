//! The routes. Handlers translate; the engine's thread works.

mod info;
mod openai;
mod openai_reply;
mod tgi;
mod tgi_reply;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, Response, header};
use axum::routing::{get, post};
use serde::Serialize;

use crate::app::App;
use crate::error::{ApiError, Family, Kind};
use crate::ticket::Ticket;

/// Returns the router of all routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", post(tgi::compatible))
        .route("/generate", post(tgi::generate))
        .route("/generate_stream", post(tgi::generate_stream))
        .route("/v1/completions", post(openai::completions))
        .route("/v1/chat/completions", post(openai::chat))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .route("/info", get(info::info))
        .route("/health", get(info::health))
        .route("/version", get(info::version))
        .route("/metrics", get(info::metrics))
        .route("/v1/models", get(info::models))
        .route("/v1/models/{id}", get(info::model))
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .with_state(app)
}

async fn not_found(State(_): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let path: String = request.uri().path().chars().take(100).collect();
    failed(&request, &ApiError::new(Kind::NotFound, format!("there is no route {path}")))
}

async fn wrong_method(State(_): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let (method, path) = (request.method(), request.uri().path());
    failed(&request, &ApiError::new(Kind::MethodNotAllowed, format!("{path} has no {method}")))
}

fn failed(request: &Request<Body>, error: &ApiError) -> Response<Body> {
    ticket_of(request).error(error);
    error.response(Family::of_path(request.uri().path()))
}

/// Returns the record that belongs to a request.
fn ticket_of(request: &Request<Body>) -> Arc<Ticket> {
    let ticket = request.extensions().get::<Arc<Ticket>>();
    Arc::clone(ticket.expect("invariant: every request that reaches a route has a ticket"))
}

/// A route's result as a response.
trait Routed {
    /// Turns an error into the family's response, and notes it.
    fn or_error(self, ticket: &Ticket, family: Family) -> Response<Body>;
}

impl Routed for Result<Response<Body>, ApiError> {
    fn or_error(self, ticket: &Ticket, family: Family) -> Response<Body> {
        self.unwrap_or_else(|error| {
            ticket.error(&error);
            error.response(family)
        })
    }
}

/// Returns a JSON response.
fn json_response(reply: &impl Serialize) -> Response<Body> {
    // Numbers and texts in memory always serialise.
    let mut response = Response::new(Body::from(serde_json::to_vec(reply).unwrap_or_default()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Names ignored fields in a `Warning` header.
fn warn_ignored(response: &mut Response<Body>, ignored: &[String]) {
    if ignored.is_empty() {
        return;
    }
    let plain = |c: char| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '?' };
    let names: String = ignored.join(", ").chars().map(|c| if c == ' ' { c } else { plain(c) }).collect();
    if let Ok(value) = HeaderValue::from_str(&format!("299 glmbench \"ignored fields: {names}\"")) {
        response.headers_mut().insert(header::WARNING, value);
    }
}
