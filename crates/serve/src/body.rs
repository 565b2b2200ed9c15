//! Reading a request's body within the limits.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::app::App;
use crate::error::{ApiError, Kind};

/// Bytes of a body that is too large, read and thrown away so that its sender gets to read the error.
const DISCARDED: usize = 32 << 20;
/// Longest time for that.
const DISCARDING: Duration = Duration::from_secs(5);

/// A body, and the room that it takes. The room is kept for as long as texts or ids of the body wait to be checked.
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

/// Reads the body of a JSON route.
///
/// # Errors
/// The body is not JSON by its header, is too large, does not come in time, or finds no room.
pub(crate) async fn receive(app: &App, request: Request<Body>) -> Result<Received, ApiError> {
    let (parts, mut body) = request.into_parts();
    check_type(&parts.headers)?;
    let limits = &app.settings.limits;
    let declared =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > limits.body_bytes as u64) {
        if !parts.headers.contains_key(header::EXPECT) {
            let _ = timeout(DISCARDING, discard(&mut body)).await;
        }
        return Err(too_large(limits.body_bytes));
    }
    let late = |_| {
        let seconds = limits.body.as_secs_f64();
        ApiError::new(Kind::RequestTimeout, format!("the body did not arrive within {seconds} s"))
    };
    timeout(limits.body, collect(app, &mut body)).await.map_err(late)?
}

async fn collect(app: &App, body: &mut Body) -> Result<Received, ApiError> {
    let most = app.settings.limits.body_bytes;
    let (mut bytes, mut room) = (Vec::new(), None::<OwnedSemaphorePermit>);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::malformed(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            let _ = timeout(DISCARDING, discard(body)).await;
            return Err(too_large(most));
        }
        // By the whole size so far: rounded up for each frame, small frames would take all the room.
        let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = app.room_for_body(bytes.len() + data.len(), held)?;
        match &mut room {
            Some(room) => room.merge(more),
            None => room = Some(more),
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Received { bytes, room })
}

async fn discard(body: &mut Body) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > DISCARDED {
            return;
        }
    }
}

fn too_large(most: usize) -> ApiError {
    ApiError::new(
        Kind::TooLarge,
        format!("the body has more than {most} bytes, the most that this server reads"),
    )
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let word = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").to_ascii_lowercase());
    let refuse = |message| Err(ApiError::new(Kind::UnsupportedMediaType, message));
    if let Some(encoding) = word(header::CONTENT_ENCODING).filter(|encoding| encoding != "identity") {
        return refuse(format!("Content-Encoding is {encoding}, expected none"));
    }
    let Some(kind) = word(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence == "application/json" || essence.ends_with("+json") {
        return Ok(());
    }
    refuse(format!("Content-Type is {essence}, expected application/json"))
}
