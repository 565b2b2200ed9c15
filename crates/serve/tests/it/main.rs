//! The server over real sockets on this machine, with the demo model.

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
