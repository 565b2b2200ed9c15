//! A server of one thread a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Script, Step};

/// Stack of a thread, in bytes. Thousands of streams fit.
const STACK: usize = 128 << 10;

/// A request as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: String,
    /// Path with query.
    pub path: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The number of the connection, from 0.
    pub connection: usize,
    /// The number of the request among all, from 0.
    pub number: usize,
}

impl Request {
    /// Returns a header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON, null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A request with the times of its answer.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The request.
    pub request: Request,
    /// When its last byte had been read.
    pub received: Instant,
    /// When each [`Step::Write`] began.
    pub written: Vec<Instant>,
    /// When each of them had handed its bytes to the system. A server that is interrupted in between is late by itself.
    pub handed: Vec<Instant>,
    /// The client was there until the end of the script.
    pub complete: bool,
}

type Handler = dyn Fn(&Request) -> Script + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    log: Mutex<Vec<Answered>>,
    requests: AtomicUsize,
    open: AtomicUsize,
    stop: AtomicBool,
}

/// A server on a port of the loopback interface. It stops when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    /// Starts a server. `handler` chooses the script of each request.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn start(handler: impl Fn(&Request) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback interface");
        let address = listener.local_addr().expect("the port that was bound");
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            log: Mutex::new(Vec::new()),
            requests: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    /// Returns the base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the base URL with a path behind it.
    pub fn url_of(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Returns the address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the requests with a finished script, in the order of their ends.
    pub fn answered(&self) -> Vec<Answered> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` scripts have ended, at most 10 s, and returns them. A client may have its answer before its
    /// script ends.
    pub fn wait_for(&self, count: usize) -> Vec<Answered> {
        let begin = Instant::now();
        while self.answered().len() < count && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.answered()
    }

    /// Returns the number of requests received so far.
    pub fn received(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in listener.incoming().enumerate() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        let serve = move || {
            shared.open.fetch_add(1, Ordering::Relaxed);
            // A client that goes away ends its connection only.
            let _ = serve(&stream, number, &shared);
            shared.open.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().stack_size(STACK).spawn(serve).is_err() {
            return;
        }
    }
}

fn serve(stream: &TcpStream, connection: usize, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(4 << 10, stream);
    while let Some(mut request) = read_request(&mut reader, stream)? {
        let received = Instant::now();
        request.connection = connection;
        request.number = shared.requests.fetch_add(1, Ordering::Relaxed);
        let script = (shared.handler)(&request);
        let (mut written, mut closes) = ((Vec::new(), Vec::new()), false);
        let mut outcome = Ok(());
        for step in &script.steps {
            outcome = act(step, stream, received, &mut written, &mut closes, shared);
            if outcome.is_err() || closes {
                break;
            }
        }
        let (written, handed) = written;
        let answered = Answered { request, received, written, handed, complete: outcome.is_ok() };
        shared.log.lock().unwrap_or_else(PoisonError::into_inner).push(answered);
        outcome?;
        if closes || shared.stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}

fn act(
    step: &Step,
    mut stream: &TcpStream,
    received: Instant,
    (written, handed): &mut (Vec<Instant>, Vec<Instant>),
    closes: &mut bool,
    shared: &Shared,
) -> io::Result<()> {
    match step {
        Step::Write(bytes) => {
            written.push(Instant::now());
            stream.write_all(bytes)?;
            handed.push(Instant::now());
            Ok(())
        }
        Step::Wait(time) => {
            std::thread::sleep(*time);
            Ok(())
        }
        Step::Until(time) => {
            std::thread::sleep((received + *time).saturating_duration_since(Instant::now()));
            Ok(())
        }
        Step::Stall => {
            stream.set_read_timeout(Some(Duration::from_millis(50)))?;
            while !shared.stop.load(Ordering::Relaxed) {
                match stream.read(&mut [0]) {
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                    _ => break,
                }
            }
            *closes = true;
            Ok(())
        }
        Step::Close => {
            *closes = true;
            Ok(())
        }
    }
}

/// Reads one request. `None`: the client has closed the connection.
fn read_request(reader: &mut BufReader<&TcpStream>, mut stream: &TcpStream) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let header =
        |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length = header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Request { method, path, headers, body, connection: 0, number: 0 }))
}
