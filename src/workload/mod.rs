//! Workloads: what a suite can time besides accuracy, one folder each.
//!
//! A folder is a column through the program's layers. The name of a file says which layer it belongs to, and the file uses
//! only what that layer may use:
//!
//! | file | layer | holds |
//! | --- | --- | --- |
//! | `schema.rs` (`table.rs`) | [`suite`](crate::suite) | the suite table, read and checked: [`CaseTable`](crate::suite::CaseTable) |
//! | `run.rs` (`plan.rs`, `trace.rs`) | [`run`](crate::run) | cases that are ready to run: `run::Case` |
//! | `record.rs` | [`record`](crate::record) | the case in `run.json`, its journal's lines, and their order: `record::Course` |
//! | `report.rs` (`charts.rs`, `compare.rs`) | [`report`](crate::report) | rows, tables, conditions, charts: `report::Part` |
//! | `mod.rs` | | names the types of the layers: `Table`, `Run`, `Case` and `Line`, `Report` |
//!
//! The layers know the workloads by the list in this file. Each makes its own types from it: `suite/cases.rs` the fields of a
//! suite, `run/cases.rs` the fields of a plan, `record/cases.rs` the fields of `run.json` and the journals,
//! `report/workloads.rs` the parts of a report. Types rather than one trait object carry a workload through, because its lines on
//! disk have a fixed form.
//!
//! Accuracy is no workload in this sense. Its items have two journals, are scored, and can be scored again without a model.

pub mod load;
pub mod max_batch;
pub mod shapes;
#[cfg(test)]
pub mod toy;

/// Passes the list of workloads to a macro. A line is: folder, key of the suite's tables, field of the plan in `run.json`, field
/// of the lines in [`Contents`](crate::record::Contents). Cases run in this order.
macro_rules! each {
    ($then:ident) => {
        $then! {
            shapes: performance, performance, requests;
            max_batch: max_batch, searches, probes;
            load: load, loads, loads;
            #[cfg(test)]
            toy: toy, toys, tosses;
        }
    };
}
pub(crate) use each;

#[cfg(test)]
mod tests;
