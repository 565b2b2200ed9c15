//! Shapes: batches of equal length, timed phase by phase.

pub(crate) mod plan;
pub mod record;
pub mod report;
pub mod run;
pub mod schema;

pub use record::{PerformanceCase as Case, RequestRecord as Line};
pub(crate) use report::ShapesReport as Report;
pub use run::PerformanceRun as Run;
pub use schema::PerformanceCase as Table;
