//! Timed operators: the rows of `operators.csv`, and their table.

use super::format::{NONE, fixed, or_none, percent};
use super::performance::{case_roofline, good_repetitions};
use super::table::Table;
use crate::language::{Text, ToText, cells, text, texts};
use crate::record::{OperatorRecord, OperatorRow, PerformanceCase, Phase, RequestRecord, RunRecord, SCHEMA};
use crate::stats::median;

/// Returns a row for every operator in every phase of every case, in the order of the plan and the forward pass.
/// Empty if operators were not timed.
pub fn operator_rows(run: &RunRecord, requests: &[RequestRecord]) -> Vec<OperatorRow> {
    run.plan.performance.iter().flat_map(|case| case_rows(run, case, requests)).collect()
}

fn case_rows(run: &RunRecord, case: &PerformanceCase, requests: &[RequestRecord]) -> Vec<OperatorRow> {
    let good = good_repetitions(case, requests);
    let Some(first) = good.first() else { return Vec::new() };
    let roofline = case_roofline(run, case, &good);
    let row = |of: &OperatorRecord| {
        let same = |o: &&OperatorRecord| o.phase == of.phase && o.operator == of.operator;
        let times: Vec<f64> =
            good.iter().filter_map(|r| r.operators.iter().find(same)).map(|o| o.time_ns as f64).collect();
        let time_ns = median(&times).unwrap_or(0.0).round() as u64;
        // Bytes per nanosecond are 10⁹ bytes per second.
        let rate = |count: u64| (count > 0 && time_ns > 0).then(|| count as f64 / time_ns as f64);
        let least_ns = roofline.as_ref().map(|limit| {
            let memory = of.bytes as f64 / limit.bandwidth_bytes_per_s;
            1e9 * memory.max(of.flops as f64 / limit.peak_flops_per_s)
        });
        let counted = of.bytes > 0 || of.flops > 0;
        OperatorRow {
            schema: SCHEMA,
            run_id: run.run_id.clone(),
            case_id: case.case_id.clone(),
            clock: run.provenance.clock,
            phase: of.phase,
            operator: of.operator.clone(),
            reps: times.len() as u64,
            calls: of.calls,
            time_ns,
            bytes: of.bytes,
            flops: of.flops,
            share: None,
            achieved_gb_s: rate(of.bytes),
            achieved_gflop_s: rate(of.flops),
            roofline_pct: least_ns
                .filter(|_| counted && time_ns > 0)
                .map(|least| 100.0 * least / time_ns as f64),
        }
    };
    let mut rows: Vec<OperatorRow> = first.operators.iter().map(row).collect();
    for phase in [Phase::Prefill, Phase::Decode] {
        let of_phase = rows.iter().filter(|row| row.phase == phase);
        let all = of_phase.map(|row| row.time_ns).fold(0, u64::saturating_add);
        for row in rows.iter_mut().filter(|row| row.phase == phase && all > 0) {
            row.share = Some(row.time_ns as f64 / all as f64);
        }
    }
    rows
}

/// One row per operator, phase and case.
pub(super) fn table(run: &RunRecord, rows: &[OperatorRow]) -> Table {
    let numbers = texts!["Calls", "ms", "Share %", "GB/s", "GFLOP/s", "Roofline %"];
    let title = text!("Operators, {clock}", clock = run.provenance.clock);
    let mut table = Table::new(title, &texts!["Case", "Phase", "Operator"], &numbers);
    let mut before: Option<(&String, Phase)> = None;
    for row in rows {
        let here = Some((&row.case_id, row.phase));
        let is_new_case = before.is_none_or(|(case, _)| *case != row.case_id);
        let case = if is_new_case { row.case_id.to_text() } else { Text::EMPTY };
        let phase = if here == before { Text::EMPTY } else { row.phase.to_text() };
        before = here;
        table.push(
            false,
            cells![
                case,
                phase,
                row.operator,
                row.calls,
                format!("{:.3}", row.time_ns as f64 / 1e6),
                or_none(row.share, percent),
                fixed(row.achieved_gb_s, 2),
                fixed(row.achieved_gflop_s, 1),
                row.roofline_pct.map_or_else(|| NONE.to_owned(), |share| format!("{share:.1}")),
            ],
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Roofline;
    use crate::report::fixture;

    fn record(phase: Phase, operator: &str, time_ns: u64, bytes: u64, flops: u64) -> OperatorRecord {
        OperatorRecord { phase, operator: operator.to_owned(), calls: 28, time_ns, bytes, flops }
    }

    #[test]
    fn shares_are_of_the_phase_and_rates_of_the_median() {
        let fixture::Records { mut run, mut requests, .. } = fixture::quiet();
        run.provenance.roofline =
            Some(Roofline { bandwidth_bytes_per_s: 2e9, peak_flops_per_s: 1e9, measured: None });
        for (index, request) in requests.iter_mut().enumerate() {
            let slow = if index == 0 { 5 } else { 1 };
            request.operators = vec![
                record(Phase::Prefill, "qkv", 30, 10, 15),
                record(Phase::Decode, "qkv", 60 * slow, 90, 30),
                record(Phase::Decode, "rest", 20, 0, 0),
            ];
        }
        let rows = operator_rows(&run, &requests);
        let first: Vec<&OperatorRow> = rows.iter().filter(|r| r.case_id == rows[0].case_id).collect();
        let shares: Vec<Option<f64>> = first.iter().map(|row| row.share).collect();
        assert_eq!(shares, [Some(1.0), Some(0.75), Some(0.25)]);
        assert_eq!((first[1].time_ns, first[1].achieved_gb_s), (60, Some(1.5)));
        // 90 bytes at 2 bytes/ns take 45 ns; 15 operations at 1 per ns take 15 ns.
        let near = |of: Option<f64>, wanted: f64| of.is_some_and(|of| (of - wanted).abs() < 1e-9);
        assert!(near(first[0].roofline_pct, 50.0) && near(first[1].roofline_pct, 75.0));
        assert_eq!((first[2].achieved_gb_s, first[2].roofline_pct), (None, None));
        let table = table(&run, &rows);
        assert_eq!(table.rows.len(), rows.len());
        assert!(operator_rows(&run, &[]).is_empty());
    }
}
