//! Integration tests: the product from the user's view.

#![cfg(test)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers outside the test functions panic and print as tests do"
)]

mod adding;
mod afterwards;
mod architecture;
mod ascend;
mod ascend_graphs;
mod bad_input;
mod bounds;
mod calibrate;
mod check;
mod checkpoints;
mod compare;
mod configurations;
mod convert;
mod crowd;
mod dataset;
mod dry_run;
mod emulated_runs;
mod endpoint;
mod endpoint_parity;
mod faults;
mod goldens;
mod hostile;
mod in_process;
mod index;
mod invariance;
mod library_sets;
mod npu_bundle;
mod operators;
mod pack_cache;
mod parity_cases;
mod paths;
mod quantise;
mod rank_failures;
mod readme;
mod remote_faults;
mod resume;
mod savings;
mod scripted;
mod serve;
mod shapes;
mod shards;
mod shown;
mod signals;
mod skip;
mod suite;
mod support;
mod tamper;
mod task;
mod task_programs;
mod tasks;
mod tensor_parallel;
mod tokenizer;
mod toy_device;
mod validity;
mod verify;
mod weight_forms;
mod weights;
mod workloads;
