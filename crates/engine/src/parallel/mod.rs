//! Tensor parallelism: a model split over ranks that compute each step together.
//!
//! [`cut`] defines which part of every tensor a rank holds. The rest is a smaller model of the same family, so the
//! forward pass ([`super::model`]) is written once, with two all-reduces per layer
//! ([`glmbench_device::Device::all_reduce`]).
//! [`ranks`] runs each rank on its own thread.

pub mod ranks;
mod source;

pub use self::ranks::Ranks;
pub use crate::cut::{self, Cut, check_tp, possible_tp};
