//! An emulator of the AscendCL, aclnn, HCCL and DCMI libraries.
//!
//! It exports the same C symbols and computes on the CPU. It keeps a virtual clock from a chip profile, enforces each
//! chip's documented restrictions, and injects faults on request. It is written from our own declarations of documented
//! signatures and contains no CANN text. The C ABI is its only connection to the program that loads it.
//!
//! ## Contract of every exported function
//!
//! - A handle is null or was made by this library. A handle used after its destruction is detected.
//! - Other pointers are valid for what the documented signature says.
//! - One thread at a time uses a handle.
//! - The host memory of an asynchronous copy lives until the stream is synchronised.
//! - Nothing unwinds into the caller.
//!
//! ## Functions that only the emulator has
//!
//! ```c
//! int         ascend_emulator_configure(const char *settings);  // `key = value` lines, before aclInit; nonzero: see aclGetRecentErrMsg
//! const char *ascend_emulator_info(void);                       // "ascend-emulator 0.1.0 Ascend310P3 compute"
//! uint64_t    ascend_emulator_now_ns(void);                     // virtual host time of the calling thread's device
//! void        ascend_emulator_host_work(uint64_t ns);           // host time that passes besides: idle, or work to charge
//! int         ascend_emulator_counts(uint64_t *out, uint64_t n);// what is alive; returns how many counts there are
//! int         ascend_emulator_take_work(double *out, uint64_t n); // work of device 0 since the last call
//! int         ascend_emulator_price_work(const char *settings, const double *work, uint64_t n, double *ns); // by a profile
//! int         ascend_emulator_reset(void);                      // back to a library just loaded
//! ```
//!
//! Their presence identifies the emulator.
//!
//! ## Files
//!
//! - Configuration and state: `registry` (global state), `settings`, `faults`, `status` (codes), `pool` (handles).
//! - Runtime: `stream`, `event`, `graph`, `memory`, `copy`, `runtime`, `group` and `hccl`.
//! - Operators: `tensor`, `executor` (the two stages), `ops`, `half` (number types), `nz` (block layout).
//! - `clock`: the virtual time. `dcmi`: made-up telemetry.

#![allow(non_snake_case, reason = "exported functions have the names of the C API")]
#![allow(clippy::too_many_arguments, reason = "the C API sets the arguments")]
#![allow(
    clippy::cast_ptr_alignment,
    reason = "pointers come from C; their alignment is checked where it matters"
)]
#![allow(clippy::unused_self, reason = "methods of plans and operators are called alike")]
#![allow(clippy::wrong_self_convention, reason = "`from_device` says which side a copy reads")]
#![allow(
    clippy::single_match_else,
    clippy::manual_let_else,
    reason = "both outcomes of a search stand side by side"
)]

mod clock;
mod copy;
mod dcmi;
mod emulator;
mod event;
mod executor;
mod faults;
mod graph;
mod group;
mod half;
mod hccl;
mod memory;
mod nz;
mod ops;
mod pool;
mod registry;
mod runtime;
mod settings;
mod status;
mod stream;
mod tensor;

#[cfg(test)]
mod tests;
