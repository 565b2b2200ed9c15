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
mod files;
mod identity;
mod json;
mod kind;
pub mod metrics;
mod probe;
mod protocol;
mod request;
mod response;
mod route;
pub mod stream;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod toy_walk;
mod transport;
#[cfg(feature = "testing")]
mod wire;

pub use client::Client;
pub use endpoint::{Endpoint, Key, Retry, Timeouts, Tls, Url};
pub use failure::{Failure, RemoteError};
pub use identity::Limits;
pub use kind::{FailureKind, Phase};
pub use probe::{Capabilities, Capability, KnownPrompt, Probe, Standing};
pub use protocol::Api;
pub use request::{Choice, Generation, Prompt, Sampling};
pub use response::{
    Attempt, ChoiceLogprobs, Event, EventTime, Finish, PromptLogprobs, Response, ServerTimes, Times,
    TokenLogprob,
};
pub use route::Route;
