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
//! ([`run::endpoint`]). An [`run::Observer`] receives progress, messages and results. [`run`] plans all this before any
//! weight is loaded: [`run::model`] holds what was read of the model's folder, [`run::duration`] how long cases take.
//! Then it drives a [`backend`], normally the engine, and writes a line for every item and repetition as it finishes
//! ([`record`]). [`report`] makes tables, charts and pages from those lines and nothing else, so it can be repeated. A
//! report is a list of sections, and pages have a list of formats. What they say are [`language::Text`]s, put into a language where
//! they are written.
//!
//! The program carries the repository's suites, sample data sets and demo model (`src/shipped.rs`). It writes them to the user's cache
//! when a command names one of them and no file is there.
//!
//! What is timed is a [`workload`]: shapes, max batch, load. Each has a folder with one file for each layer, and the layers know
//! them by one list. So is parity, which times nothing: it compares logits with those of a reference. Accuracy goes its own way,
//! because its items are scored.
//!
//! [`mod@bench`] times shapes, serves requests that arrive by a schedule, and feeds two engines the same tokens. [`stats`] has the statistics.
//! [`report::compare`] compares runs, and [`report::history`] follows all runs of a folder. [`gate`] decides whether they keep the
//! limits of a `gates.toml`.
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
//! Each table lists files in the order in which data passes through them. A file stands once, and no step goes back. The return to
//! a caller that waits is no step.
//!
//! An accuracy item:
//!
//! | | file | what happens there |
//! | --- | --- | --- |
//! | 1 | `src/suite/schema.rs` | A table `[[accuracy]]` becomes a case. |
//! | 2 | `src/dataset/file/mod.rs`, `src/dataset/boolq.rs`, `src/dataset/ceval/mod.rs` | A row of the data set becomes an item. |
//! | 3 | `src/task/plan.rs` | The item is chosen, and the demonstrations before it. |
//! | 4 | `src/run/plan.rs` | The items of a case become a run's case, ready to run. |
//! | 5 | `src/run/accuracy.rs` | The item starts as soon as the batch has a place. |
//! | 6 | `src/task/evaluation.rs` | The item's next stage becomes a request, or ends in a judgement. |
//! | 7 | `src/task/file/mod.rs`, `src/task/boolq.rs`, `src/task/ceval.rs` | The protocol says what to ask, and what the answer means. |
//! | 8 | `src/backend/embedded.rs` | The request goes to the engine, and its completion comes back. |
//! | 9 | `src/task/extract.rs` | The answer is read from a generated text. |
//! | 10 | `src/task/outcome.rs` | The item has an outcome: scored, unscorable or failed. |
//! | 11 | `src/record/sample.rs`, `src/record/journal.rs` | The outcome becomes a line, in the plan's order. |
//! | 12 | `src/report/accuracy.rs` | Lines are counted: scores with their intervals. |
//! | 13 | `src/report/sections/accuracy.rs` | Scores become tables, charts and a CSV file. |
//! | 14 | `src/report/page.rs`, `src/report/formats/mod.rs` | The tables become pages. |
//!
//! A performance case. A search for the largest batch or a load takes the same way through its own folder:
//!
//! | | file | what happens there |
//! | --- | --- | --- |
//! | 1 | `src/workload/shapes/schema.rs` | A table `[[performance]]` becomes batches, lengths and ranks. |
//! | 2 | `src/workload/shapes/plan.rs` | Each combination becomes a case with its shape. |
//! | 3 | `src/workload/shapes/run.rs` | The case warms up, repeats, and records each repetition. |
//! | 4 | `src/bench/prompts.rs` | The prompts are drawn, from the seed. |
//! | 5 | `src/bench/warmup.rs` | Warm-ups end when two times agree. |
//! | 6 | `src/bench/mod.rs` | One repetition: a batch from its first step to its last token. |
//! | 7 | `src/backend/embedded.rs` | The engine runs the steps and tells the time of each. |
//! | 8 | `src/workload/shapes/record.rs`, `src/record/journal.rs` | The repetition becomes a line. |
//! | 9 | `src/workload/shapes/report.rs` | Lines become rows for each phase. |
//! | 10 | `src/stats/describe.rs`, `src/stats/bootstrap.rs` | Medians and their intervals. |
//! | 11 | `src/report/sections/performance.rs` | Rows become tables, charts and a CSV file. |
//! | 12 | `src/report/page.rs`, `src/report/formats/mod.rs` | The tables become pages. |
//!
//! A token:
//!
//! | | file | what happens there |
//! | --- | --- | --- |
//! | 1 | `crates/engine/src/scheduler/admit.rs` | The request gets its blocks of the KV cache. |
//! | 2 | `crates/engine/src/scheduler/plan.rs` | Its tokens become rows of a step. |
//! | 3 | `crates/engine/src/scheduler.rs` | The step is run; each sequence gets its logits. |
//! | 4 | `crates/engine/src/model.rs` | The forward pass: embedding, layers, output. |
//! | 5 | `crates/device-cpu/src/lib.rs` | The operators of the CPU; another device has its own. |
//! | 6 | `crates/device-cpu/src/product/vector.rs` | Linear products, by the kernel of the weight's form. |
//! | 7 | `crates/device-cpu/src/attention/kv.rs`, `crates/device-cpu/src/attention/mod.rs` | Keys and values are stored; attention reads them. |
//! | 8 | `crates/engine/src/sequence.rs` | The sequence takes its logits, and ends if the token says so. |
//! | 9 | `crates/engine/src/sampler.rs` | The next token is chosen. |
//! | 10 | `crates/engine/src/output.rs` | Tokens become text. |
//!
//! ## The crates
//!
//! | crate | holds | may use |
//! | --- | --- | --- |
//! | `glmbench`, this one | suites, data sets, tasks, runs, records, reports, the command line | all of them |
//! | [`glmbench_engine`] | configuration, tokenizer, weights, sampler, forward pass, KV cache, batching | the devices |
//! | [`glmbench_calibrate`] | published speeds, fits of profiles to them | [`glmbench_engine`], [`glmbench_ascend`] |
//! | [`glmbench_serve`] | HTTP routes of TGI and OpenAI around an engine | [`glmbench_engine`], [`glmbench_device`] |
//! | [`glmbench_remote`] | the client of inference servers: protocols, streams, their times, what a server can do | none |
//! | `glmbench-metrics` | scores of answers, each equal to its Python original | none |
//! | [`glmbench_sandbox`] | generated programs in namespaces, behind a system call filter, within limits | none |
//! | [`glmbench_cpu`] | the CPU device, the machine's limits | [`glmbench_device`] |
//! | [`glmbench_ascend`] | the device for 300I DUO and 800I A2, self-test, chip profiles | [`glmbench_device`], `ascend-sys` |
//! | [`glmbench_device`] | devices' words, the operators as a trait, weights, costs, groups of ranks, the fp32 oracle | none |
//! | `ascend-sys` | bindings to AscendCL, aclnn, HCCL and DCMI | none |
//! | `ascend-emulator` | a stand-in for those libraries, inside this binary | none |
//! | `include-flate-compress` | a stand-in for the published crate of this name, without C | none |
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
//! beginning of its prompt from the KV cache ([`glmbench_engine::cache`]). Blocks are found by their tokens, which are compared
//! one by one. So no request has to say with which others it shares a prefix. The demonstrations of a subject, the stages of an
//! item, and a prompt repeated by another task are found alike. Protocols stay pure functions that know of no engine.
//! Guesses of the next tokens come from the sequence itself and are verified in one step. The engine guesses as long as that
//! pays by the measured durations of steps. Both rest on invariant 5: a row has the same numbers whatever is fed with it. Timed
//! cases, `parity` and `logits` allow neither, and their first request empties the cache.
//!
//! [`glmbench_cpu::measure_limits`] measures the machine's bandwidth and arithmetic peaks, and suites state targets against
//! them. A run with targets measures them again around each repetition ([`glmbench_cpu::LimitsProbe`]), and compares each
//! repetition with its own limits. [`glmbench_device::timed`] wraps a device and times every operator on request.
//! [`glmbench_engine::profile`] sums these times by the kind of step. [`glmbench_device::observed`] wraps a device and shows what it
//! computes. [`glmbench_engine::quantise`] calibrates with it, and writes quantised checkpoints without a forward pass of its own.
//!
//! Programs that a model writes run only in [`glmbench_sandbox`], which the kernel makes ([`task::program`]). For that the program starts itself
//! again, and `main` asks [`glmbench_sandbox::child_main`] first. Where the kernel refuses a part, no such program runs.
//!
//! Texts of data sets, suites, models and records are untrusted. Anything shown to people goes through [`mod@text`]: on a
//! terminal in [`cli`]'s two functions that print, in reports in the templates. All input is bounded in size ([`bounded`]).
//!
//! ## Invariants
//!
//! Cargo enforces the directions among the crates. Tests enforce the rest of the first six. `tests/it/architecture.rs` reads
//! the sources; a workload's file counts as part of its layer. `tests/it/invariance.rs` and `goldens.rs` check the numbers.
//!
//! 1. The engine and the devices know nothing of suites, data sets, records or reports. The devices know nothing of the engine,
//!    and a device knows nothing of another.
//! 2. `stats` and `record` do no arithmetic on devices and print nothing. Only `cli` prints: data to stdout, messages to stderr.
//! 3. The forward pass exists once. A device supplies operators. A fused operator must justify itself by a measured gain.
//! 4. `unsafe` exists in `glmbench-cpu`, in `glmbench-ascend` and the two crates behind it, and in three files. These are
//!    thread binding (`affinity.rs` of `glmbench-device`), the weight map (`weights/map.rs` of `glmbench-engine`), and
//!    forks of the sandbox (`linux/process.rs` of `glmbench-sandbox`). Each block says why it is sound. Crates without
//!    `unsafe` forbid it.
//! 5. A token's numbers do not depend, to the last bit, on the rest of the batch or on how its prompt is cut into chunks. They do
//!    not depend on the number of threads or on the instruction set within a kernel family, either. The families are the vector
//!    kernels, the bf16 pairs of AVX-512 BF16, and AMX's tiles. Each sums in an order of its own ([`glmbench_cpu`]).
//!    - Every sum is one chain in one order. Threads share outputs, never a sum. The exception is attention over a long
//!      context: its parts are cut at fixed places and added in order. Integer sums are exact.
//!    - Tensor-parallel ranks do share sums. Numbers therefore depend on the number of ranks, which is recorded.
//!    - This holds on the CPU and the reference. On Ascend the operators determine their sums. In the emulator a row does
//!      not depend on the batch.
//!    - On a 300I DUO, chunks change the last bits, within the KL gate. It uses another operator for few rows at the end of
//!      more than 4,096 tokens, and the decoding operator for chunks of one token. Forced choices
//!      (`prefill=matmul,decode=matmul`) avoid that.
//!    - Shared prefixes, guessed tokens and steps that both prefill and decode follow from this. A real card does none of them. No
//!      one has shown that its numbers do not depend on chunks, and it verifies with another operator than it decodes with.
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
//! `w8a8-dynamic` and its like the loader quantises dense weights row by row, while the device packs them
//! ([`glmbench_device::Precision`]). A quantised checkpoint brings its own forms
//! ([`glmbench_engine::weights::quantised`]): `config.json` decides on them, and the tensors must confirm it. Quantised forms differ
//! in two places: linear layers have integer weights, and integer inputs in some forms, and the cache may be quantised. The
//! reference device computes every form by its formula. The CPU has all of them; cards have int8 weights with float inputs or
//! with inputs quantised by a stored scale. An 800I A2 has an int8 cache by stored scales.
//!
//! The minimum work of an operator is defined once ([`glmbench_device::cost`]). The timing device counts a step with it,
//! [`glmbench_engine::cost`] a pass, and [`mod@bench`] the passes of a case.
//!
//! ## Limitations
//!
//! ModelSlim's compressed `w8a8sc` weights are not read. The speed of the NEON kernels is unmeasured. Their bits were
//! compared with those of the reference kernels on an emulated processor.
#![forbid(unsafe_code)]

pub mod backend;
pub mod bench;
pub mod bounded;
pub mod bundle;
pub mod cli;
pub mod compute;
pub mod dataset;
pub mod document;
pub mod gate;
pub mod language;
pub mod record;
pub mod report;
pub mod run;
mod shipped;
pub mod stats;
pub mod suite;
pub mod task;
pub mod text;
#[cfg(test)]
mod toy_walk;
pub mod workload;
