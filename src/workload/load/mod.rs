//! Load: requests that arrive by a schedule, whether or not the engine keeps up.

mod charts;
mod compare;
mod plan;
pub mod record;
pub mod report;
pub mod run;
mod schema;
pub mod table;
pub(crate) mod trace;

pub use record::{LoadCase as Case, LoadLevelRecord as Line};
pub(crate) use report::LoadReport as Report;
pub use run::LoadRun as Run;
pub use table::LoadCase as Table;
