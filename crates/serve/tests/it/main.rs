//! The server over real sockets on this machine, with the demo model.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod cancel;
mod determinism;
mod ending;
mod hostile;
mod http;
mod limits;
mod logprobs;
mod routes;
mod server;
mod streams;
