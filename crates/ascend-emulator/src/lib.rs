//! A stand-in for the AscendCL, aclnn, HCCL and DCMI libraries.
//!
//! It exports the same C symbols, computes on the CPU, keeps a virtual clock from a chip profile, enforces each chip's documented
//! restrictions, and breaks on order. Written from our own declarations of documented signatures; no CANN text is in it, and
//! nothing but the C ABI joins it to whoever loads it.
//!
//! ## Contract of every exported function
//!
//! Handles are null or were made by this library (used after their end they are recognised); other pointers are valid for what
//! the documented signature says; a handle is used by one thread at a time; host memory of an asynchronous copy lives until the
//! stream was synchronised. Nothing unwinds into the caller.
//!
//! ## What only the emulator has
//!
//! ```c
//! int         ascend_emulator_configure(const char *settings);  // `key = value` lines, before aclInit; nonzero: see aclGetRecentErrMsg
//! const char *ascend_emulator_info(void);                       // "ascend-emulator 0.1.0 Ascend310P3 compute"
//! uint64_t    ascend_emulator_now_ns(void);                     // virtual host time of the calling thread's device
//! void        ascend_emulator_host_work(uint64_t ns);           // host time that passes besides: idle, or work to charge
//! int         ascend_emulator_counts(uint64_t *out, uint64_t n);// what is alive; returns how many counts there are
//! int         ascend_emulator_reset(void);                      // back to a library just loaded
//! ```
//!
//! Their presence says "this is the emulator".
//!
//! ## Files
//!
//! `registry` has the global state, `settings` and `faults` what was asked for, `status` the codes, `pool` the handles.
//! `stream`, `event`, `graph`, `memory`, `copy`, `runtime`, `group` and `hccl` are the runtime; `tensor` and `executor` the two stages;
//! `clock` the virtual time; `ops` the operators; `half` and `nz` numbers and layouts; `dcmi` made-up telemetry.

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
