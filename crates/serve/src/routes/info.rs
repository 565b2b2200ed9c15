//! Routes that ask nothing of the engine: what is served, whether it lives, what it counted.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{Routed, json_response, ticket_of};
use crate::app::{App, Phase};
use crate::error::{ApiError, Family, Kind};

/// `GET /health`: 200 with an empty body, or 503 while the server ends.
pub(crate) async fn health(State(app): State<Arc<App>>) -> Response<Body> {
    let (status, body) = match app.phase() {
        Phase::Ready => (StatusCode::OK, Body::empty()),
        Phase::Leaving | Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, unhealthy("the server ends")),
        Phase::Failed => (StatusCode::SERVICE_UNAVAILABLE, unhealthy("the model has failed")),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn unhealthy(why: &str) -> Body {
    Body::from(json!({"error": why, "error_type": "healthcheck"}).to_string())
}

/// `GET /metrics`: Prometheus text.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response<Body> {
    let mut response = Response::new(Body::from(app.metrics.text(&app.settings.model)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// `GET /version`: vLLM's route.
pub(crate) async fn version(State(app): State<Arc<App>>) -> Response<Body> {
    json_response(&json!({"version": app.settings.described.version}))
}

/// `GET /info`: TGI's description of the server.
pub(crate) async fn info(State(app): State<Arc<App>>) -> Response<Body> {
    let (settings, model) = (&app.settings, &app.model);
    json_response(&json!({
        "model_id": settings.model,
        "model_sha": null,
        "model_pipeline_tag": "text-generation",
        "model_dtype": settings.described.dtype.to_string(),
        "model_device_type": settings.described.device.name(),
        "max_concurrent_requests": settings.limits.queue + model.max_batch,
        "max_best_of": 1,
        "max_stop_sequences": settings.limits.stops,
        "max_input_length": model.context.saturating_sub(1),
        "max_input_tokens": model.context.saturating_sub(1),
        "max_total_tokens": model.context,
        "max_batch_size": model.max_batch,
        "max_client_batch_size": settings.limits.prompts,
        "validation_workers": 1,
        "router": "glmbench",
        "version": settings.described.version,
        "sha": null,
        "docker_label": null,
    }))
}

/// `GET /v1/models`.
pub(crate) async fn models(State(app): State<Arc<App>>) -> Response<Body> {
    json_response(&json!({"object": "list", "data": [described(&app)]}))
}

/// `GET /v1/models/{id}`.
pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let found = if id == app.settings.model {
        Ok(json_response(&described(&app)))
    } else {
        let id: String = id.chars().take(100).collect();
        let message = format!("model \"{id}\" is not here, expected \"{}\"", app.settings.model);
        Err(ApiError { param: Some("model".into()), ..ApiError::new(Kind::UnknownModel, message) })
    };
    found.or_error(&ticket_of(&request), Family::OpenAi)
}

fn described(app: &App) -> Value {
    json!({
        "id": app.settings.model,
        "object": "model",
        "created": app.started,
        "owned_by": "glmbench",
        "root": app.settings.model,
        "parent": null,
        "max_model_len": app.model.context,
        "permission": [],
    })
}
