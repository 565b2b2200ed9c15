//! # glmbench: the house from above
//!
//! One binary for the people who bring up, accept and tune ChatGLM2-6B: precision suites under named protocols, performance
//! sweeps with statistics, and reports. It carries its own ChatGLM2 engine, so the clock, the numerics and the tokenizer are
//! inside the instrument, and nothing is fetched at run time.
//!
//! ## The way of a run
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
//! A person types words that [`cli`] understands. [`suite`] turns a TOML file into a checked [`suite::Suite`]; [`dataset`] reads
//! official layouts into items; [`task`] knows the protocols: what to ask the model about an item, and what its answer means.
//! [`run`] plans all this before any weight is loaded ([`run::model`]: what was read of the model's folder; [`run::duration`]: how
//! long cases take), then drives the engine and writes a line for every item and repetition as it is done ([`record`]). [`report`] makes tables, charts and pages from those lines and nothing else, so it can be repeated.
//! [`mod@bench`] times shapes and serves requests that arrive by a schedule; [`stats`] has the statistics.
//! [`report::compare`] holds runs against each other; [`gate`] decides whether they keep the limits of a `gates.toml`. Two
//! configurations are timed in turn by blocks ([`run::interleave`]): the program starts itself once for each, since what differs
//! between two runs is less their noise than where each process was put.
//!
//! What comes after a run needs no model either: [`run::score`] judges stored answers again, by the very function that judged
//! them first; `show` opens items from the prompts that the run kept; [`report::export`] writes the records in the formats of
//! other tools. Records of every schema from 1 on are read. [`record::Contents`] reads a run and says what of it is not as its
//! plan, sums and seal say; every verb stands on that. [`run::verify`] alone needs the model: it puts items to it again.
//!
//! ## The crates
//!
//! | crate | holds | may use |
//! | --- | --- | --- |
//! | `glmbench`, this one | suites, data sets, tasks, runs, records, reports, the command line | all of them |
//! | [`glmbench_engine`] | configuration, tokenizer, weights, sampler, forward pass, paged KV cache, continuous batching | the devices |
//! | [`glmbench_cpu`] | the CPU device, the machine's limits | [`glmbench_device`] |
//! | [`glmbench_ascend`] | the device for 300I DUO and 800I A2, self-test, chip profiles | [`glmbench_device`], `ascend-sys` |
//! | [`glmbench_device`] | the operators as a trait, precision, rotary table, groups of ranks, the fp32 oracle | none |
//! | `ascend-sys` | bindings to AscendCL, aclnn, HCCL and DCMI | none |
//! | `ascend-emulator` | a stand-in for those libraries, inside this binary | none |
//!
//! The forward pass ([`glmbench_engine::model`]) is written once over [`glmbench_device::Device`]. A device supplies the
//! operators. [`mod@glmbench_device::reference`] is the oracle: plain loops in fp32. [`glmbench_ascend`] drives the cards through
//! `ascend-sys`. With `--emulate` the same functions come from `ascend-emulator`: real numbers, modelled times. `ascend-sys` and
//! `ascend-emulator` share the C functions and no Rust type.
//!
//! [`glmbench_engine::parallel`] cuts a model among tensor-parallel ranks. A rank is an ordinary, smaller model on its own
//! thread and device. A [`glmbench_device::group::DeviceGroup`] makes the devices. Ranks share numbers through
//! [`glmbench_device::Device::all_reduce`], twice a layer. On the CPU, ranks are groups of cores, and can be bound to them
//! ([`glmbench_device::affinity`]).
//!
//! [`glmbench_cpu::measure_limits`] measures the machine's bandwidth and arithmetic peaks, and suites state targets against
//! them. A run with targets measures them again around each repetition ([`glmbench_cpu::Gauge`]), and holds each repetition
//! against its own limits. [`glmbench_device::timed`] wraps a device and times every operator, if that is asked for.
//! [`glmbench_engine::profile`] sums these times by the kind of step.
//!
//! Texts of data sets, suites, models and records are a stranger's: what people are shown of them goes through [`mod@text`], on a
//! terminal by [`cli`]'s two functions that print, in reports by the templates. What is read has a bound ([`bounded`]).
//!
//! ## Invariants
//!
//! Cargo holds the directions among the crates. Tests hold the rest of the first six: `tests/it/architecture.rs` reads the
//! sources, `tests/it/invariance.rs` and `goldens.rs` check the numbers.
//!
//! 1. The engine and the devices know nothing of suites, data sets, records or reports. The devices know nothing of the engine,
//!    and a device knows nothing of another.
//! 2. `stats` and `record` do no arithmetic on devices and print nothing. Only `cli` prints: data to stdout, words to stderr.
//! 3. The forward pass exists once. A device supplies operators; a fused operator earns its place by a measured gain.
//! 4. `unsafe` lives in `glmbench-cpu`, in `glmbench-ascend` and the two crates behind it, where threads are bound
//!    (`affinity.rs` of `glmbench-device`), and in the weight map (`weights/map.rs` of `glmbench-engine`), nowhere else. Each
//!    block says why it is sound.
//! 5. A token's numbers do not depend, to the last bit, on what else is in the batch, on how its prompt is cut into chunks, on
//!    the number of threads, or on the instruction set within a kernel family (the vector kernels; AMX's tiles, which sum in
//!    another order, [`glmbench_cpu`]). Every sum is one chain in one order; threads share outputs, never a sum, but for attention
//!    over a long context, whose parts are cut at fixed places and added in order; integer sums are exact.
//!    Tensor-parallel ranks do share sums: their number, which is recorded, is one of the things that numbers depend on.
//!    So it is on the CPU and the reference. On Ascend the operators' sums are theirs: a row does not depend on the batch in the
//!    emulator, but a 300I DUO does chunks that go on past 4,096 tokens by another operator, and chunks of one token by that of
//!    decoding, so chunks change the last bits there, within the KL gate, unless the choices are forced
//!    (`prefill=matmul,decode=matmul`).
//! 6. Files on disk carry a schema number, and each format is held by a golden file.
//! 7. Lines are written in the plan's order, appended and flushed; everything else is replaced by rename. So a killed run is a
//!    prefix of an undisturbed one, and going on with it gives the same files, times aside. A journal that is no such prefix is
//!    cut to one, and what is good behind the cut waits in a file beside it for its place.
//! 8. Measured and modelled times never mix: every timed line says which clock it came from.
//! 9. A value that cannot be had is empty with a reason. An item is scored, unscorable or failed, and the three are never mixed.
//!
//! ## Numbers
//!
//! Activations are rounded to the model's type at every operator's boundary, sums are fp32, as on NPU and GPU; softmax weights
//! are rounded, too, before they meet the values. Weights and KV cache are stored in the type. The rotary table's rounding is a
//! mode ([`glmbench_device::rotary`]). KV cache blocks hold 128 tokens. Quantised forms ([`glmbench_device::Precision`]; the CPU
//! has them) keep all this but for linear layers within the model, whose weights and inputs are int8, and for the cache.
//!
//! ## What is not here yet
//!
//! W8A8 checkpoints. The speed of the AMX and NEON kernels is unmeasured; their bits were held against their twins on emulated
//! processors.

pub mod backend;
pub mod bench;
pub mod bounded;
pub mod cli;
pub mod dataset;
pub mod gate;
pub mod record;
pub mod report;
pub mod run;
pub mod stats;
pub mod suite;
pub mod task;
pub mod text;
