//! Max batch: searches for the largest batch that fits into memory and keeps limits.

mod charts;
mod compare;
mod plan;
pub mod record;
pub mod report;
pub mod run;
pub mod schema;

pub use record::{ProbeRecord as Line, SearchCase as Case};
pub(crate) use report::SearchReport as Report;
pub use run::SearchRun as Run;
pub use schema::MaxBatchCase as Table;
