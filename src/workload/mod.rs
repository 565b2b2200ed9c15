//! Workloads: what a suite can measure besides accuracy, one folder each.
//!
//! A folder is a column through the program's layers. The name of a file says which layer it belongs to, and the file uses
//! only what that layer may use:
//!
//! | file | layer | holds |
//! | --- | --- | --- |
//! | `schema.rs` (`table.rs`) | [`suite`](crate::suite) | the suite table, read and checked: [`CaseTable`](crate::suite::CaseTable) |
//! | `run.rs` (`plan.rs`, `serve.rs`, `trace.rs`) | [`run`](crate::run) | cases that are ready to run: `run::Case` |
//! | `record.rs` (`level.rs`, `request.rs`, `row.rs`) | [`record`](crate::record) | the case in `run.json`, its journal's lines, and their order: `record::Course` |
//! | `report.rs` (`charts.rs`, `checks.rs`, `compare.rs`, `history.rs`, `rows.rs`, `sentences.rs`, `tables.rs`) | [`report`](crate::report) | rows, tables, conditions, charts: `report::Part` |
//!
//! This file names the types of a folder for the layers: `Table`, `Run`, `Case` and `Line`, `Report`. The layers know the workloads
//! by its list. Each makes its own types from it. `suite/cases.rs` makes the fields of a suite, and `run/cases.rs` those of a
//! plan. `record/plan.rs` makes the fields of `run.json`, `record/contents.rs` reads the journals, and `report/workloads.rs` the parts of a report.
//! Types rather than one trait object carry a workload through, because its lines on
//! disk have a fixed form.
//!
//! Accuracy is no workload in this sense. Its items have two journals, are scored, and can be scored again without a model.

/// Load: requests that arrive by a schedule, whether or not the engine keeps up.
pub mod load {
    mod charts;
    mod checks;
    mod compare;
    mod history;
    pub mod level;
    mod plan;
    pub mod record;
    pub mod report;
    pub mod request;
    pub mod row;
    pub mod rows;
    pub mod run;
    mod schema;
    pub mod sentences;
    mod serve;
    pub mod table;
    pub(crate) mod tables;
    pub(crate) mod trace;

    pub use record::{LoadCase as Case, LoadLevelRecord as Line};
    pub(crate) use report::LoadReport as Report;
    pub use run::LoadRun as Run;
    pub use table::LoadCase as Table;
}

/// Max batch: searches for the largest batch that fits into memory and keeps limits.
pub mod max_batch {
    mod charts;
    mod compare;
    mod history;
    mod plan;
    pub mod record;
    pub mod report;
    pub mod run;
    pub mod schema;

    pub use record::{ProbeRecord as Line, SearchCase as Case};
    pub(crate) use report::SearchReport as Report;
    pub use run::SearchRun as Run;
    pub use schema::MaxBatchCase as Table;
}

/// Shapes: batches of equal length, timed phase by phase.
pub mod shapes {
    pub(crate) mod plan;
    pub mod record;
    pub mod report;
    pub mod run;
    pub mod schema;

    pub use record::{PerformanceCase as Case, RequestRecord as Line};
    pub(crate) use report::ShapesReport as Report;
    pub use run::PerformanceRun as Run;
    pub use schema::PerformanceCase as Table;
}

/// Parity: logits compared with those of a reference, position by position.
pub mod parity {
    mod compare;
    mod plan;
    pub mod record;
    pub mod report;
    pub mod run;
    pub mod schema;

    pub use record::{ParityCase as Case, ParityRecord as Line};
    pub(crate) use report::ParityReport as Report;
    pub use run::ParityRun as Run;
    pub use schema::ParityTable as Table;
}

/// Toy: single requests, one after another, each timed from its submission to its end. An example of a workload, in test builds
/// only. `docs/ADDING.md` names its files.
#[cfg(test)]
pub mod toy {
    pub mod record;
    pub mod report;
    pub mod run;
    pub mod schema;

    pub use record::{Toss as Line, ToyCase as Case};
    pub(crate) use report::ToyReport as Report;
    pub use run::ToyRun as Run;
    pub use schema::ToyTable as Table;
}

/// Passes the list of workloads to a macro. A line is: folder, key of the suite tables, field of the plan in `run.json`, field
/// of the lines in [`Contents`](crate::record::Contents). Cases run in this order.
macro_rules! each {
    ($then:ident) => {
        $then! {
            shapes: performance, performance, requests;
            max_batch: max_batch, searches, probes;
            load: load, loads, loads;
            parity: parity, parity, parities;
            #[cfg(test)]
            toy: toy, toys, tosses;
        }
    };
}
pub(crate) use each;

#[cfg(test)]
mod tests;
