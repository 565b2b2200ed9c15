//! # glmbench: architecture
//!
//! One binary for the people who bring up, accept and tune ChatGLM2-6B: precision suites under named protocols, performance
//! sweeps with statistics, and reports. It has its own ChatGLM2 engine. The clock, the numerics and the tokenizer are
//! therefore inside the instrument, and nothing is fetched at run time.
//!
//! ## From suite to report
//!
//! ```text
//!   suite file ──suite──▶ Suite ─┐
//!   data set ──dataset──▶ Item  ─┼─▶ run::plan::Plan ──▶ run::execute ──▶ record: run directory ──▶ report
//!   model ──engine::load──▶ ─────┘        │                  │  ▲
//!                                         ▼                  ▼  │
//!                              task (what to ask,       engine::scheduler
//!                              what an answer means)    ─▶ engine::model ─▶ a device
//! ```
//!
//! [`cli`] parses the command line, prints, and turns errors into exit codes. [`suite`] turns a TOML file into a checked
//! [`suite::Suite`]. [`compute`] merges what suite, configuration, flags and environment say of device, types and ranks, once
//! for all verbs. [`dataset`] reads official layouts into items. [`task`] implements the protocols: what to ask the model about
//! an item, and what its answer means. A [`dataset::Benchmark`] is a value, and so is a [`task::Protocol`]. Each stands once in
//! a list, and records name both, so no other room matches on them. Most come from task files (`datasets/tasks/`, or a user's),
//! which the two rooms interpret: `dataset` the data, `task` the protocols. [`document`] reads the TOML of suites and task files
//! and knows the place of every value.
//!
//! [`run::RunRequest`] runs a suite from file to comparison, without the command line, on the engine or on a server
//! ([`run::endpoint`]): an [`run::Observer`] receives progress, messages and results. [`run`] plans all this before any
//! weight is loaded: [`run::model`] holds what was read of the model's folder, [`run::duration`] how long cases take.
//! Then it drives a [`backend`], normally the engine, and writes a line for every item and repetition as it finishes
//! ([`record`]). [`report`] makes tables, charts and pages from those lines and nothing else, so it can be repeated. A
//! report is a list of sections, and pages have a list of formats.
//!
//! What is timed is a [`workload`]: shapes, max batch, load. Each has a folder with one file for each layer, and the layers know
//! them by one list. Accuracy goes its own way, because its items are scored.
//!
//! [`mod@bench`] times shapes and serves requests that arrive by a schedule. [`stats`] has the statistics.
//! [`report::compare`] compares runs. [`gate`] decides whether they keep the limits of a `gates.toml`.
//! [`run::turns`] times two configurations alternately in blocks. The program starts itself once per block, because
//! two runs differ less by noise than by the placement of their processes.
//!
//! `glmbench serve` puts an engine behind HTTP ([`glmbench_serve`]). The engine stays on a thread of its own, without async; the
//! routes translate. That crate knows nothing of suites and records.
//!
//! A plan can be cut into shards for many machines ([`run::shard`]). A shard is a run of its part of the plan, with the
//! whole plan beside it in `run.json`. [`record::merge()`] copies the lines of all shards to one run. Machines share run
//! directories without locks: `writer.json` says who writes ([`record::Holder`]).
//!
//! Work after a run needs no model either. [`run::score`] judges stored answers again, with the function that judged
//! them first. `show` displays items from the prompts that the run stored. [`report::export`] writes the records in the
//! formats of other tools. Records of every schema from 1 on can be read. [`record::Contents`] reads a run and reports
//! where it deviates from its plan, checksums or seal; every verb builds on it. Only [`run::verify`] needs the model,
//! because it puts items to it again.
//!
//! ## Three walks
//!
//! Files in the order in which data passes through them. No step goes back to an earlier file, except that answers return to
//! their caller.
//!
//! - **An accuracy item**: `src/suite/schema.rs` (the case) → `src/dataset/file/`, `ceval/` or `boolq.rs` (the item) →
//!   `src/task/plan.rs`, `evaluation.rs`, with `ceval.rs` or `boolq.rs` (prompt and choices) → `src/run/plan.rs` →
//!   `src/run/accuracy.rs` (keeps the batch full) → `src/backend/embedded.rs` → the engine; its answer → `src/task/ceval.rs` or
//!   `boolq.rs`, with `extract.rs` (the judgement) → `outcome.rs` → `src/record/sample.rs`,
//!   `journal.rs` (a line) → `src/report/accuracy.rs` → `sections/` → `page.rs` → `formats/`.
//! - **A performance case**: `src/workload/shapes/schema.rs` (its table in the suite) → `plan.rs` beside it (the shape)
//!   → `run.rs`, with `src/bench/prompts.rs` (its prompts), `mod.rs` (a repetition) and `warmup.rs` →
//!   `src/backend/embedded.rs` → the engine; its times → `src/workload/shapes/record.rs`, `src/record/journal.rs` (a
//!   line) → `src/workload/shapes/report.rs` → `src/stats/` (medians, intervals) → `src/report/sections/` → `page.rs` →
//!   `formats/`. A search or a load takes the same way through its own folder.
//! - **A token**: `crates/engine/src/scheduler.rs` (a row of a step) → `model.rs` (embedding, layers, output) →
//!   `crates/device-cpu/src/product/vector.rs`, `attention/mod.rs`, `attention/kv.rs` (or another device) → `model.rs`
//!   (logits) → `sampler.rs` (the next token) → `scheduler.rs` (the next step, or the completion).
//!
//! ## The crates
//!
//! | crate | holds | may use |
//! | --- | --- | --- |
//! | `glmbench`, this one | suites, data sets, tasks, runs, records, reports, the command line | all of them |
//! | [`glmbench_engine`] | configuration, tokenizer, weights, sampler, forward pass, KV cache, batching | the devices |
//! | [`glmbench_calibrate`] | published speeds, fits of profiles to them | [`glmbench_engine`], [`glmbench_ascend`] |
//! | [`glmbench_serve`] | HTTP routes of TGI and OpenAI around an engine | [`glmbench_engine`] |
//! | [`glmbench_remote`] | the client of inference servers: protocols, streams, their times, what a server can do | none |
//! | [`glmbench_cpu`] | the CPU device, the machine's limits | [`glmbench_device`] |
//! | [`glmbench_ascend`] | the device for 300I DUO and 800I A2, self-test, chip profiles | [`glmbench_device`], `ascend-sys` |
//! | [`glmbench_device`] | devices' words, the operators as a trait, weights, costs, groups of ranks, the fp32 oracle | none |
//! | `ascend-sys` | bindings to AscendCL, aclnn, HCCL and DCMI | none |
//! | `ascend-emulator` | a stand-in for those libraries, inside this binary | none |
//!
//! The forward pass ([`glmbench_engine::model`]) is written once over [`glmbench_device::Device`]. A device supplies the
//! operators. [`mod@glmbench_device::reference`] is the oracle: plain loops in fp32. [`glmbench_ascend`] drives the cards through
//! `ascend-sys`. With `--emulate` the same functions come from `ascend-emulator`: real numbers, modelled times. `ascend-sys` and
//! `ascend-emulator` share the C functions and no Rust type.
//!
//! [`glmbench_engine::parallel`] shards a model among tensor-parallel ranks. A rank is an ordinary, smaller model on its own
//! thread and device. A [`glmbench_device::group::DeviceGroup`] makes the devices. Ranks share numbers through
//! [`glmbench_device::Device::all_reduce`], twice a layer. On the CPU, ranks are groups of cores, and can be bound to them
//! ([`glmbench_device::affinity`]).
//!
//! [`mod@bundle`] is the file of a card's self-test: written on one machine, run again on the emulator of another.
//!
//! An engine computes nothing twice for accuracy cases ([`glmbench_engine::Savings`]). A request that allows it takes the
//! beginning of its prompt from the KV cache ([`glmbench_engine::cache`]): blocks are found by their tokens, which are compared
//! one by one. So no request has to say with which others it shares a prefix. The demonstrations of a subject, the stages of an
//! item and a prompt repeated by another task are found alike, and protocols stay pure functions that know of no engine.
//! Guesses of the next tokens come from the sequence itself and are verified in one step, as long as that pays by the measured
//! durations of steps. Both rest on invariant 5: a row has the same numbers whatever is fed with it. Timed cases, `parity` and
//! `logits` allow neither, and their first request empties the cache.
//!
//! [`glmbench_cpu::measure_roofline`] measures the machine's bandwidth and arithmetic peaks, and suites state targets against
//! them. A run with targets measures them again around each repetition ([`glmbench_cpu::RooflineProbe`]), and compares each
//! repetition with its own limits. [`glmbench_device::timed`] wraps a device and times every operator on request.
//! [`glmbench_engine::profile`] sums these times by the kind of step.
//!
//! Texts of data sets, suites, models and records are untrusted. Anything shown to people goes through [`mod@text`]: on a
//! terminal in [`cli`]'s two functions that print, in reports in the templates. All input is bounded in size ([`bounded`]).
//!
//! ## Invariants
//!
//! Cargo enforces the directions among the crates. Tests enforce the rest of the first six: `tests/it/architecture.rs` reads
//! the sources (a workload's file counts as part of its layer), `tests/it/invariance.rs` and `goldens.rs` check the numbers.
//!
//! 1. The engine and the devices know nothing of suites, data sets, records or reports. The devices know nothing of the engine,
//!    and a device knows nothing of another.
//! 2. `stats` and `record` do no arithmetic on devices and print nothing. Only `cli` prints: data to stdout, messages to stderr.
//! 3. The forward pass exists once. A device supplies operators. A fused operator must justify itself by a measured gain.
//! 4. `unsafe` exists only in these places: `glmbench-cpu`; `glmbench-ascend` and the two crates behind it; thread binding
//!    (`affinity.rs` of `glmbench-device`); the weight map (`weights/map.rs` of `glmbench-engine`). Each block says why it
//!    is sound.
//! 5. A token's numbers do not depend, to the last bit, on four things: the rest of the batch; how its prompt is cut into
//!    chunks; the number of threads; the instruction set within a kernel family. The families are the vector kernels and
//!    AMX's tiles, which sum in another order ([`glmbench_cpu`]).
//!    - Every sum is one chain in one order. Threads share outputs, never a sum. The exception is attention over a long
//!      context: its parts are cut at fixed places and added in order. Integer sums are exact.
//!    - Tensor-parallel ranks do share sums. Numbers therefore depend on the number of ranks, which is recorded.
//!    - This holds on the CPU and the reference. On Ascend the operators determine their sums. In the emulator a row does
//!      not depend on the batch.
//!    - On a 300I DUO, chunks change the last bits, within the KL gate. It uses another operator for few rows at the end of
//!      more than 4,096 tokens, and the decoding operator for chunks of one token. Forced choices
//!      (`prefill=matmul,decode=matmul`) avoid that.
//!    - Shared prefixes and guessed tokens follow from this. A real card does neither: no one has shown that its numbers do
//!      not depend on chunks, and it verifies with another operator than it decodes with.
//! 6. Files on disk carry a schema number, and a golden file fixes each format.
//! 7. Lines are written in the plan's order, appended and flushed. Everything else is replaced by rename. A killed run is
//!    therefore a prefix of an undisturbed one, and resuming it gives the same files, times aside. A journal that is not
//!    such a prefix is cut to one. Good lines behind the cut wait in a file beside it until their place is reached.
//! 8. Measured and modelled times never mix: every timed line says which clock it came from.
//! 9. A value that cannot be determined is empty, with a reason. An item is scored, unscorable or failed, and the three never
//!    mix.
//!
//! ## Numbers
//!
//! Every operator rounds its results to the model's type. Sums are fp32, as on NPU and GPU. Softmax weights are also rounded
//! before they multiply the values. Weights and KV cache are stored in the model's type. The rotary table's rounding is a
//! mode ([`glmbench_device::rotary`]). KV cache blocks hold 128 tokens.
//!
//! The weight of a linear layer is a value with its own form ([`glmbench_device::LinearWeight`]), layer by layer. With
//! `w8a8-dynamic` the loader quantises dense weights row by row, while the device packs them. Quantised forms exist on the CPU
//! ([`glmbench_device::Precision`]). They differ in two places: linear layers within the model have int8 weights and inputs,
//! and the cache is quantised.
//!
//! The minimum work of an operator is defined once ([`glmbench_device::cost`]). The timing device counts a step with it,
//! [`glmbench_engine::cost`] a pass, and [`mod@bench`] the passes of a case.
//!
//! ## Limitations
//!
//! W8A8 checkpoints are not supported. The speed of the AMX and NEON kernels is unmeasured. Their bits were compared with
//! those of the reference kernels on emulated processors.

pub mod backend;
pub mod bench;
pub mod bounded;
pub mod bundle;
pub mod cli;
pub mod compute;
pub mod dataset;
pub mod document;
pub mod gate;
pub mod record;
pub mod report;
pub mod run;
pub mod stats;
pub mod suite;
pub mod task;
pub mod text;
#[cfg(test)]
mod toy_walk;
pub mod workload;
