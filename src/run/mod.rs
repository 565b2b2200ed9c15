//! The life of a run: from a suite to a sealed record.
//!
//! [`RunRequest::run`] does everything. It finds the models of all configurations in a suite, checks memory, measures the
//! machine and starts the backends. It records, resumes, times configurations in turns, reports and compares. It prints
//! nothing. An [`Observer`] receives progress, messages and results. [`setup`] makes the plan of each configuration,
//! [`turns`] leads configurations that are timed alternately.
//!
//! ```
//! use std::path::Path;
//! use std::sync::atomic::AtomicBool;
//!
//! use glmbench::report::Verdict;
//! use glmbench::run::setup::Answering;
//! use glmbench::run::turns::InThisProcess;
//! use glmbench::run::{RunRequest, Silent};
//! use glmbench::suite::Suite;
//!
//! let text = r#"
//!     schema = 1
//!     name = "example"
//!     [[performance]]
//!     batch = [1, 2]
//!     lengths = [[32, 8]]
//! "#;
//! let out = std::env::temp_dir().join(format!("glmbench-example-{}", std::process::id()));
//! let suite = Suite::parse(Path::new("example.toml"), text, &[])?;
//! let mut request = RunRequest::new(suite, &out);
//! // Without this line, the demo model answers.
//! request.choice.answering = Answering::Scripted(Box::default());
//! let end = request.run(&mut InThisProcess(&request), &mut Silent, &AtomicBool::new(false))?;
//! assert_eq!((end.verdict, end.runs.len()), (Verdict::Valid, 1));
//! assert!(end.runs[0].join("report.html").is_file());
//! # std::fs::remove_dir_all(out)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`plan::Plan`] holds everything that can be known and checked before a model is loaded. [`execute()`] loads nothing
//! and prints nothing: it drives a loaded engine through the plan and writes lines into the run directory. Lines are in
//! the plan's order, so a killed run is a prefix of an undisturbed one, and resuming it gives the same files.

mod accuracy;
mod ahead;
mod budget;
pub(crate) mod case_probe;
pub(crate) mod cases;
mod compared;
mod directory;
pub mod duration;
pub mod endpoint;
pub mod environment;
mod error;
mod execute;
pub mod found;
pub mod huge_pages;
pub mod interleave;
mod lifecycle;
pub mod machine;
pub(crate) mod memory;
pub mod model;
pub mod noise;
pub mod observer;
pub mod plan;
pub mod prompts;
pub mod provenance;
mod published;
pub(crate) mod questions;
mod request;
pub mod requests;
mod resume;
pub mod roofline;
mod runner;
pub mod score;
mod session;
pub mod setup;
pub mod shard;
pub mod shard_choice;
mod shard_dir;
pub mod shard_status;
pub mod sharing;
pub mod telemetry;
pub mod turns;
pub mod verify;
mod weights_hash;

pub(crate) use self::session::Session;

pub use self::accuracy::AccuracyRun;
pub use self::directory::{Resume, open_dir};
pub use self::error::RunError;
pub use self::execute::{Reload, conclude, execute};
pub use self::observer::{Ahead, Observer, Progress, Silent};
pub use self::request::{RunRequest, RunsEnd};
pub use self::resume::{
    Found, NOT_COMPARED, Unreadable, Wanted, comparison_folder, find, find_group, finished, finished_shard,
    group_id, unreadable,
};
pub use self::session::{Ending, clock_of};
