//! Tensor parallelism: a model cut among ranks that compute one step together.
//!
//! [`cut`] says which part of every tensor a rank holds; what is left is a smaller model of the same family, so the forward
//! pass ([`super::model`]) stays written once, with two sums over the ranks a layer ([`crate::device::Device::all_reduce`]).
//! [`ranks`] runs the ranks, each on a thread of its own.

pub mod cut;
pub mod ranks;
mod source;

pub use self::cut::{Cut, check_world, worlds};
pub use self::ranks::Ranks;
