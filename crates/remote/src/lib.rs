//! The client side of "test what is deployed": HTTP endpoints of inference servers.
//!
//! [`Client`] sends prompts to an [`Endpoint`] and returns text, token ids, log-probabilities and times. It knows several
//! protocols ([`Api`]). The crate knows nothing of suites, records or the engine.
//!
//! - A response counts only with its end marker and its reason ([`Finish`]). Everything else is a [`Failure`], which keeps
//!   the server's text.
//! - What a server can do is asked and checked with a known prompt, never assumed ([`Client::probe`]).
//! - Calls block, one call a thread. A [`Client`] is shared by reference among threads and keeps connections alive.
//! - Times are [`std::time::Instant`]s, taken when the bytes arrived, not when they were parsed ([`Times`]).
//! - A redirect is refused. A proxy named by the environment is not used: both would change what is measured.
//! - Keys are never printed: not by [`Key`]'s `Debug`, and not in the text of a failure.
#![forbid(unsafe_code)]

mod client;
mod endpoint;
mod failure;
mod generate;
mod json;
pub mod metrics;
mod probe;
mod protocol;
mod request;
mod response;
pub mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;

pub use client::Client;
pub use endpoint::{Endpoint, Key, Retry, Route, Timeouts, Tls, Url};
pub use failure::{Failure, FailureKind, Phase, RemoteError};
pub use probe::{Capabilities, Capability, KnownPrompt, Limits, Probe, Standing};
pub use protocol::Api;
pub use request::{Choice, Generation, Prompt, Sampling};
pub use response::{
    Attempt, ChoiceLogprobs, Event, EventTime, Finish, PromptLogprobs, Response, ServerTimes, Times,
    TokenLogprob,
};
