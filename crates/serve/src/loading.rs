//! Answers while the model is loaded: 503, so that health checks do not hang.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Wait between two looks for a connection.
const TICK: Duration = Duration::from_millis(20);
/// Longest wait for a request's first bytes.
const READ: Duration = Duration::from_millis(200);

/// Answers every connection with 503 until it is dropped.
pub struct Loading {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Loading {
    /// Starts to answer the connections of a listener that [`bind`](crate::bind) returned.
    ///
    /// # Errors
    /// The system refuses a thread or another handle of the listener.
    pub fn answer(listener: &TcpListener) -> std::io::Result<Self> {
        let (listener, stop) = (listener.try_clone()?, Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&stop);
        let answer = move || {
            while !flag.load(Ordering::SeqCst) {
                match listener.accept() {
                    // The client may be gone.
                    Ok((stream, _)) => drop(refuse(stream)),
                    Err(_) => std::thread::sleep(TICK),
                }
            }
        };
        let thread = std::thread::Builder::new().name("loading".into()).spawn(answer)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It has nothing to panic about.
            let _ = thread.join();
        }
    }
}

fn refuse(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(READ))?;
    stream.set_write_timeout(Some(READ))?;
    // What was not read when the connection closes would reset it before the client has read the answer.
    let _ = stream.read(&mut [0; 4096]);
    stream.write_all(
        super::connection::unavailable("the model is being loaded; try again", "unhealthy").as_bytes(),
    )?;
    stream.shutdown(Shutdown::Write)
}
