//! Server-sent events: a response body that turns a job's events into `data:` lines.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use bytes::Bytes;
use http_body::Frame;
use serde::Serialize;
use std::future::Future;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};

use crate::bell::Events;
use crate::error::{ApiError, Family, Kind};
use crate::job::Event;
use crate::ticket::Ticket;

/// Silence after which a comment line is sent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bytes after which a frame is closed though more events are there.
const FRAME: usize = 16 << 10;

/// Turns events into the events of a route.
pub(crate) trait Render: Send {
    /// Appends what a job's event becomes. Returns whether all sequences have ended.
    fn event(&mut self, event: Event, out: &mut Vec<u8>) -> bool;

    /// Appends what stands behind the last event of a whole stream.
    fn last(&mut self, out: &mut Vec<u8>);

    /// The family that errors are written in.
    fn family(&self) -> Family;
}

/// Appends one event.
pub(crate) fn push(out: &mut Vec<u8>, data: &impl Serialize) {
    out.extend_from_slice(b"data: ");
    append(out, data);
    out.extend_from_slice(b"\n\n");
}

/// Appends JSON.
pub(crate) fn append(out: &mut Vec<u8>, data: &impl Serialize) {
    // Numbers and texts in memory always serialise.
    let _ = serde_json::to_writer(out, data);
}

/// The body. Dropping it cancels the job.
struct Stream {
    events: Events,
    render: Box<dyn Render>,
    ticket: Arc<Ticket>,
    silence: Pin<Box<Sleep>>,
    _room: OwnedSemaphorePermit,
    done: bool,
}

/// Returns the response that streams a job.
pub(crate) fn response(
    events: Events,
    render: Box<dyn Render>,
    ticket: Arc<Ticket>,
    room: OwnedSemaphorePermit,
) -> Response<Body> {
    ticket.facts().stream = true;
    let silence = Box::pin(tokio::time::sleep(KEEP_ALIVE));
    let stream = Stream { events, render, ticket, silence, _room: room, done: false };
    let mut response = Response::new(Body::new(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl Stream {
    /// Writes an event, or an error and the end.
    fn take(&mut self, event: Option<Event>, out: &mut Vec<u8>) {
        let error = match event {
            Some(Event::Failed(error)) => error,
            Some(event) => {
                if self.render.event(event, out) {
                    self.render.last(out);
                    self.done = true;
                }
                return;
            }
            None => ApiError::new(Kind::Timeout, "the engine gave the request up"),
        };
        self.ticket.error(&error);
        push(out, &error.json(self.render.family()));
        if self.render.family() == Family::OpenAi {
            out.extend_from_slice(b"data: [DONE]\n\n");
        }
        self.done = true;
    }
}

impl http_body::Body for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        let mut out = Vec::with_capacity(512);
        while !this.done && out.len() < FRAME {
            match this.events.poll_next(context) {
                Poll::Ready(event) => this.take(event, &mut out),
                Poll::Pending => break,
            }
        }
        if out.is_empty() && !this.done {
            ready!(this.silence.as_mut().poll(context));
            out.extend_from_slice(b": still there\n\n");
        }
        let next = Instant::now() + KEEP_ALIVE;
        this.silence.as_mut().reset(next);
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}
