//! The smallest example of a route, for tests only. `docs/ADDING.md` points here.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response};
use serde_json::json;

use super::{Routed, json_response, ticket_of, warn_ignored};
use crate::app::App;
use crate::body::receive;
use crate::error::{ApiError, Family};
use crate::wire::{read, wire};

wire!(
    /// The body of `/toy`.
    Toy {
        model: String,
        text: String,
    }
);

/// `POST /toy`: the tokens of a text, the last first.
pub(crate) async fn toy(State(app): State<Arc<App>>, request: Request<Body>) -> Response<Body> {
    let ticket = ticket_of(&request);
    backwards(&app, request).await.or_error(&ticket, Family::OpenAi)
}

async fn backwards(app: &App, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let received = receive(app, request).await?;
    let wire: Toy = read(&received.bytes)?;
    app.check_model(wire.model.as_deref())?;
    let text = wire.text.ok_or_else(|| ApiError::invalid("text", "text is missing"))?;
    let ids: Vec<u32> = app.encode(text, false).await?.into_iter().rev().collect();
    let mut response = json_response(&json!({"ids": ids}));
    warn_ignored(&mut response, &wire.unknown);
    Ok(response)
}

/// The walk of a route: through a socket, the limits, the wire format and the errors of its family.
mod tests {
    use serde_json::json;

    use crate::server::{Server, tokenizer};

    #[test]
    fn the_route_answers_over_a_socket() {
        let server = Server::start();
        let text = "seven small boats";
        let expected: Vec<u32> = tokenizer().encode(text).into_iter().rev().collect();
        let reply = server.ok("/toy", &json!({"text": text, "model": "demo", "colour": 1}));
        assert_eq!(reply.json(), json!({"ids": expected}));
        assert!(reply.header("warning").unwrap().contains("colour"), "{reply:?}");
    }

    #[test]
    fn its_errors_are_those_of_its_family() {
        let server = Server::start();
        let missing = server.post("/toy", "{}");
        assert_eq!(missing.status, 400);
        assert_eq!(missing.json()["error"]["param"], "text");
        let wrong = server.post("/toy", r#"{"text": 5}"#);
        assert_eq!((wrong.status, &wrong.json()["error"]["param"]), (400, &json!("text")));
        assert_eq!(server.get("/toy").status, 405);
        assert_eq!(server.post("/toy", r#"{"text": "a", "model": "other"}"#).status, 404);
    }
}
