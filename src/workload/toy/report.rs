//! Toy cases: one table, and one CSV file.

use super::record::{Toss, ToyCase};
use crate::language::Text;
use crate::record::RunRecord;
use crate::report::compare::common::Comparable;
use crate::report::csv_file::Csv;
use crate::report::format::fixed;
use crate::report::table::Table;
use crate::report::workloads::{Part, Reported};
use crate::stats::median;
use serde::Serialize;

/// The tosses of a run.
#[derive(Debug)]
pub(crate) struct ToyReport {
    tosses: Vec<Toss>,
}

/// A row of `toy.csv`.
#[derive(Serialize)]
struct Row<'a> {
    toy_id: &'a str,
    number: u32,
    total_ns: u64,
}

impl Part for ToyReport {
    fn tables(&self, run: &RunRecord) -> Vec<Table> {
        let title = format!("Toy, {}", run.provenance.clock).into();
        let mut table = Table::new(title, &["Case".into()], &["Tosses".into(), "Median ms".into()]);
        for case in &run.plan.toys {
            let own = self.tosses.iter().filter(|toss| toss.toy_id == case.toy_id);
            let times: Vec<f64> = own.map(|toss| (toss.end_ns - toss.start_ns) as f64 / 1e6).collect();
            table.push(false, vec![case.toy_id.clone(), times.len().to_string(), fixed(median(&times), 3)]);
        }
        vec![table]
    }

    fn sentences(&self, run: &RunRecord) -> Vec<Text> {
        let planned: u32 = run.plan.toys.iter().map(|case| case.tosses).sum();
        vec![format!("{} of {planned} tosses were made.", self.tosses.len()).into()]
    }

    fn csv(&self) -> Result<Option<Csv>, csv::Error> {
        let rows: Vec<Row<'_>> = self
            .tosses
            .iter()
            .map(|toss| Row {
                toy_id: &toss.toy_id,
                number: toss.number,
                total_ns: toss.end_ns - toss.start_ns,
            })
            .collect();
        Csv::of("toy.csv", "toy_id,number,total_ns", &rows).map(Some)
    }
}

impl Reported for ToyReport {
    type Case = ToyCase;
    const NAMES: [&'static str; 2] = ["toy", "toys"];

    fn of(_: &RunRecord, tosses: &[Toss]) -> Self {
        Self { tosses: tosses.to_vec() }
    }
}

impl Comparable for ToyReport {}
