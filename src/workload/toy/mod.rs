//! Toy: single requests, one after another, each timed from its submission to its end. An example of a workload, in test
//! builds only. [`docs/ADDING.md`](../../../docs/ADDING.md) names its files.

pub mod record;
pub mod report;
pub mod run;
pub mod schema;

pub use record::{Toss as Line, ToyCase as Case};
pub(crate) use report::ToyReport as Report;
pub use run::ToyRun as Run;
pub use schema::ToyTable as Table;
