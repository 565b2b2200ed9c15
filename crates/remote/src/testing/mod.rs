//! A scripted server of known faults and delays, for tests only.
//!
//! [`Server`] answers every request with a [`Script`]: bytes, waits, and an end. [`faults`] has one behaviour a path,
//! [`stub`] answers in each protocol at stated times. Only the standard library is used, so that nothing of the client
//! is in its own test.

pub mod faults;
mod script;
mod server;
pub mod stub;

pub use script::{Script, Step};
pub use server::{Answered, Request, Server};
