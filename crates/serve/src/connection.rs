//! Connections: their number, their timeouts, and their end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, timeout};

use crate::app::{App, Phase};
use crate::error::{ApiError, Family, Kind};
use crate::ticket::Ticket;

/// Largest buffer of a connection, in bytes, and so the largest head.
const BUFFER: usize = 64 << 10;
/// How often the server looks whether it has to end.
const TICK: Duration = Duration::from_millis(50);
/// Connections beyond the limit that are read until their clients have the answer.
const REFUSED: usize = 64;
/// Longest time for that.
const REFUSING: Duration = Duration::from_secs(1);
/// Longest request id that is taken over.
const MAX_ID: usize = 128;

/// Open connections, and the word to close them.
pub(crate) struct Connections {
    app: Arc<App>,
    router: Router,
    open: Arc<AtomicUsize>,
    /// Rooms for connections that were turned away and are still read.
    refused: Arc<Semaphore>,
    close: watch::Sender<bool>,
}

impl Connections {
    pub(crate) fn new(app: Arc<App>, router: Router) -> Self {
        let refused = Arc::new(Semaphore::new(REFUSED));
        Self { app, router, open: Arc::default(), refused, close: watch::Sender::new(false) }
    }

    /// Accepts connections until `done` says that it is time to end.
    pub(crate) async fn accept(&self, listener: &TcpListener, done: impl Fn() -> bool) {
        while !done() {
            match timeout(TICK, listener.accept()).await {
                Err(_) => {}
                Ok(Ok((stream, _))) => self.begin(stream),
                // Out of file descriptors, or a connection that is gone: others can end meanwhile.
                Ok(Err(_)) => tokio::time::sleep(TICK).await,
            }
        }
    }

    fn begin(&self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        if self.open.load(Ordering::SeqCst) >= self.app.settings.limits.connections {
            tokio::spawn(timeout(REFUSING, refuse(stream, Arc::clone(&self.refused))));
            return;
        }
        let counted = Counted::new(Arc::clone(&self.open), &self.app);
        let (app, router, close) = (Arc::clone(&self.app), self.router.clone(), self.close.subscribe());
        tokio::spawn(async move {
            serve(stream, app, router, close).await;
            drop(counted);
        });
    }

    /// Lets idle connections close, and waits until all are closed or the time is over.
    pub(crate) async fn end(&self, within: Duration) {
        self.close.send_replace(true);
        let end = Instant::now() + within;
        while self.open.load(Ordering::SeqCst) > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Counts an admitted request for work until its response is sent, so that the server's end waits for it.
struct Admitted(Arc<AtomicUsize>);

impl Admitted {
    fn new(requests: &Arc<AtomicUsize>) -> Self {
        requests.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(requests))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts a connection while it lives.
struct Counted {
    open: Arc<AtomicUsize>,
    app: Arc<App>,
}

impl Counted {
    fn new(open: Arc<AtomicUsize>, app: &Arc<App>) -> Self {
        app.metrics.connections(open.fetch_add(1, Ordering::SeqCst) as u64 + 1);
        Self { open, app: Arc::clone(app) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let open = self.open.fetch_sub(1, Ordering::SeqCst) - 1;
        self.app.metrics.connections(open as u64);
    }
}

/// Turns a connection away that is one too many. Where there is room, it is read until its client closes it.
async fn refuse(mut stream: TcpStream, rooms: Arc<Semaphore>) -> io::Result<()> {
    let reply = unavailable("there are too many connections; try again", "overloaded");
    stream.writable().await?;
    stream.try_write(reply.as_bytes())?;
    // What was not read when the connection closes would reset it before the client has read the answer.
    let Ok(_room) = rooms.try_acquire() else { return Ok(()) };
    poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await?;
    let mut unread = [0; 4096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut unread) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

/// Returns a whole reply for a connection before its request is read.
pub(crate) fn unavailable(error: &str, kind: &str) -> String {
    let body = format!(r#"{{"error":"{error}","error_type":"{kind}"}}"#);
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn serve(stream: TcpStream, app: Arc<App>, router: Router, mut close: watch::Receiver<bool>) {
    let busy = Arc::<Requests>::default();
    let io = TokioIo::new(Guarded::new(stream, &app, Arc::clone(&busy)));
    let service =
        service_fn(move |request| handle(Arc::clone(&app), router.clone(), Arc::clone(&busy), request));
    let mut builder = http1::Builder::new();
    // Events are short: to copy them behind their chunk's head costs less than a list of parts for the system.
    builder.max_buf_size(BUFFER).header_read_timeout(None).writev(false);
    let connection = builder.serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut closing = pin!(async move { close.wait_for(|closed| *closed).await.is_ok() });
    let mut closed = false;
    // An error here is the client's: it went away, or sent no HTTP. Its request's ticket says so in the log.
    let _ = poll_fn(|context| {
        if !closed && closing.as_mut().poll(context).is_ready() {
            closed = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(context)
    })
    .await;
}

/// Answers one request.
async fn handle(
    app: Arc<App>,
    mut router: Router,
    busy: Arc<Requests>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let busy = Busy::new(busy);
    let id = request_id(&app, request.headers());
    let (method, path) = (request.method().as_str(), request.uri().path());
    let family = Family::of_path(path);
    let ticket = Ticket::new(id, method, path, app.log.clone(), Arc::clone(&app.metrics));
    let mut admitted = None;
    let mut response = match admit(&app, &request) {
        Ok(()) => {
            admitted = (!request.method().is_safe()).then(|| Admitted::new(&app.requests));
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Arc::clone(&ticket));
            let answer = tower_call(&mut router, request).await;
            let Ok(response) = answer;
            response
        }
        Err(error) => {
            ticket.error(&error);
            error.response(family)
        }
    };
    ticket.facts().status = response.status().as_u16();
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&ticket.id) {
        headers.insert("x-request-id", id);
    }
    if app.phase() != Phase::Ready {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Body::new(Observed { body, _busy: busy, _admitted: admitted, _ticket: ticket })))
}

async fn tower_call(router: &mut Router, request: Request<Body>) -> Result<Response<Body>, Infallible> {
    use hyper::service::Service;
    hyper_util::service::TowerToHyperService::new(router.clone()).call(request).await
}

/// Checks the key, and whether the server takes work.
fn admit(app: &App, request: &Request<Incoming>) -> Result<(), ApiError> {
    let path = request.uri().path();
    if let Some(key) = app.settings.key.as_ref().filter(|_| path != "/health") {
        let offered = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = offered.and_then(|offered| {
            let (scheme, key) = offered.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        if !bearer.is_some_and(|bearer| key.is(bearer)) {
            return Err(ApiError::new(
                Kind::Unauthorized,
                "the key is missing or wrong, expected Authorization: Bearer KEY",
            ));
        }
    }
    let is_read = request.method().is_safe();
    match app.phase() {
        Phase::Draining if !is_read => {
            Err(ApiError::new(Kind::Unavailable, "the server ends and takes no new requests"))
        }
        Phase::Failed if !is_read => Err(ApiError::new(Kind::Unavailable, "the model has failed")),
        _ => Ok(()),
    }
}

/// Takes over the client's request id if it is short and printable, else makes one.
fn request_id(app: &App, headers: &HeaderMap) -> String {
    let theirs = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let usable = |id: &&str| !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_graphic());
    theirs.filter(usable).map_or_else(|| format!("{:016x}", app.fresh_number()), str::to_owned)
}

/// The requests of a connection.
#[derive(Default)]
struct Requests {
    /// Open requests: the response is not sent yet.
    open: AtomicUsize,
    /// All so far.
    begun: AtomicUsize,
}

/// Counts a request of a connection until its response is sent.
struct Busy(Arc<Requests>);

impl Busy {
    fn new(requests: Arc<Requests>) -> Self {
        requests.open.fetch_add(1, Ordering::SeqCst);
        requests.begun.fetch_add(1, Ordering::SeqCst);
        Self(requests)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A response's body, with what ends with it.
struct Observed {
    body: Body,
    _busy: Busy,
    _admitted: Option<Admitted>,
    _ticket: Arc<Ticket>,
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that ends with an error when its client lets it wait for too long.
struct Guarded {
    stream: TcpStream,
    /// While there is an open request, nothing has to be read.
    requests: Arc<Requests>,
    /// Requests that had begun when something was last read.
    begun: usize,
    header: Duration,
    idle: Duration,
    write: Duration,
    /// For a whole reply, from the first time that its client lets it wait.
    reply: Duration,
    /// Whether a head may have begun: at first, and after the first byte behind a request.
    in_head: bool,
    reading: Option<Pin<Box<Sleep>>>,
    writing: Option<Pin<Box<Sleep>>>,
    /// The clock of the reply that waits, and the number of its request.
    replying: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Guarded {
    fn new(stream: TcpStream, app: &App, requests: Arc<Requests>) -> Self {
        let limits = &app.settings.limits;
        Self {
            stream,
            requests,
            begun: 0,
            header: limits.header,
            idle: limits.idle,
            write: limits.write,
            reply: limits.request,
            in_head: true,
            reading: None,
            writing: None,
            replying: None,
        }
    }

    /// Starts the clocks of a write that waits, or ends the connection when one has run out.
    fn wait_write<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let (number, reply) = (self.requests.begun.load(Ordering::SeqCst), self.reply);
        self.replying.take_if(|(of, _)| *of != number);
        let (_, whole) = self.replying.get_or_insert_with(|| (number, Box::pin(tokio::time::sleep(reply))));
        if whole.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(late("the client takes too long for the reply")));
        }
        let write = self.write;
        let clock = self.writing.get_or_insert_with(|| Box::pin(tokio::time::sleep(write)));
        ready!(clock.as_mut().poll(context));
        Poll::Ready(Err(late("the client takes no byte")))
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        let begun = this.requests.begun.load(Ordering::SeqCst);
        if begun != this.begun {
            // A request was read whole, so what is read next is behind it.
            (this.begun, this.reading, this.in_head) = (begun, None, false);
        }
        if this.requests.open.load(Ordering::SeqCst) > 0 {
            this.reading = None;
            return polled;
        }
        if polled.is_ready() {
            // The first byte of a head starts its clock, and later ones do not start it again.
            if !this.in_head {
                (this.reading, this.in_head) = (None, true);
            }
            return polled;
        }
        let limit = if this.in_head { this.header } else { this.idle };
        let clock = this.reading.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(clock.as_mut().poll(context));
        Poll::Ready(Err(late("the client sends no request")))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if polled.is_pending() {
            return self.wait_write(context);
        }
        self.writing = None;
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        if polled.is_pending() {
            return self.wait_write(context);
        }
        self.writing = None;
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
