//! Ascend NPUs, driven through AscendCL, aclnn and HCCL. The emulator is driven through exactly the same functions.
//!
//! A rank is one thread with one chip (`group`), because contexts belong to threads. Weights are laid out once, at load
//! (`layout`). Activations and cache are allocated once. An operator's first stage plans each launch. Plans with recurring
//! arguments are kept (`launch`). Start-up probes select the operators (`probe`, `choice`). Work is queued on one stream;
//! the host waits only when it needs results.
//!
//! This crate holds the device ([`Ascend`]), its group of ranks ([`AscendGroup`]) and the self-test ([`selftest()`]). It also
//! holds the chip profiles ([`profile`]) and the image of the emulator, which `build.rs` compiles ([`emulated`]).
//! `NUMBERS.md` lists where the cards round. The crate may depend on [`glmbench_device`] and `ascend-sys`. It reaches the
//! emulator only through the C functions, and prints nothing.

mod adder;
mod api;
mod attention;
mod choice;
mod comm;
mod compare;
mod context;
mod core;
mod device;
pub mod emulated;
mod error;
mod graph;
mod group;
mod installation;
mod kv;
mod launch;
mod layout;
mod ledger;
mod linear;
mod memory;
mod numa;
mod ops;
mod probe;
pub mod profile;
mod rotate;
mod runtime;
mod second_stage;
mod selftest;
mod settings;
mod sizes;
mod store;
mod telemetry;
mod tensor;
mod trace;
mod visible;
mod widener;
mod work;

pub use self::choice::{
    Addition, Bias, Choices, Decode, FORCE_VARIABLE, Forced, Graph, KvWrite, Prefill, Reuse, Rotation,
    WeightFormat,
};
pub use self::device::{Ascend, RankHandle};
pub use self::group::AscendGroup;
pub use self::installation::Installation;
pub use self::kv::KvCache;
pub use self::linear::Linear;
pub use self::probe::Alternative;
pub use self::rotate::Rotary;
pub use self::selftest::{
    OperatorTime, Scope, Selftest, SelftestRow, SizeTime, Status, Timings, Widths, selftest,
};
pub use self::settings::{Chip, Emulation, GroupSettings};
pub use self::sizes::AscendMemory;
pub use self::store::{Activation, Table, Vector};
pub use self::telemetry::{Memory, Telemetry, TelemetrySource};
pub use self::trace::{Call, take_failed_calls};
pub use self::work::{Pricer, Work, WorkCounter};
