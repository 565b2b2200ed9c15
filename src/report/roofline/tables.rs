//! Tables of the targets, the work of the phases, and the machine's limits.

use crate::record::{Figure, LimitRow, MeasuredRate, MeasuredRoofline, PerfRow, Phase, RunRecord};
use crate::report::format::{NONE, fixed, significant};
use crate::report::modelled;
use crate::report::performance::phase_cost;
use crate::report::tables::{Column, Table};

fn words(figure: Figure) -> &'static str {
    match figure {
        Figure::DecodeBandwidth => "decode, bytes",
        Figure::AttentionBandwidth => "decode, KV bytes of attention",
        Figure::DecodeSpeedup => "decode, tokens",
        Figure::PrefillPeak | Figure::PrefillRate => "prefill, operations",
        Figure::LoadTime => "ready to generate",
        Figure::LoadMemory => "resident beyond weights and KV, at most",
    }
}

/// A value with its unit, formatted.
fn shown(value: Option<f64>, figure: Figure) -> String {
    let Some(value) = value else { return NONE.to_owned() };
    match figure {
        Figure::DecodeBandwidth | Figure::AttentionBandwidth => {
            format!("{} GB/s", significant(value / 1e9, 4))
        }
        Figure::PrefillPeak | Figure::PrefillRate => format!("{} GFLOP/s", significant(value / 1e9, 4)),
        Figure::DecodeSpeedup => format!("{} tokens/s", significant(value, 4)),
        Figure::LoadTime => format!("{} s", significant(value, 3)),
        Figure::LoadMemory => format!("{} GB", significant(value, 3)),
    }
}

/// One row per target.
pub(in crate::report) fn table(run: &RunRecord, rows: &[LimitRow]) -> Table {
    let title = format!("Against the machine's limits, {}", run.provenance.clock);
    let mut table = Table::new(
        title,
        &["Figure", "Case", "Held against"],
        &["Reached", "Limit", "Ratio", "Target", "Met"],
    );
    table.columns.push(Column { name: "Note".to_owned(), numeric: false });
    for row in rows {
        let target = match (row.at_least, row.at_most) {
            (Some(least), _) => format!("≥ {least}"),
            (None, Some(most)) => format!("≤ {most} {}", row.unit),
            (None, None) => NONE.to_owned(),
        };
        table.push(
            false,
            vec![
                words(row.figure).to_owned(),
                row.case_id.clone().unwrap_or_else(|| NONE.to_owned()),
                row.limit_of.clone().unwrap_or_else(|| NONE.to_owned()),
                shown(row.value, row.figure),
                shown(row.limit, row.figure),
                fixed(row.ratio, 3),
                target,
                row.met.map_or(NONE, |met| if met { "yes" } else { "NO" }).to_owned(),
                row.note.clone().unwrap_or_default(),
            ],
        );
    }
    table
}

/// Work of each phase of each case, and its rates.
pub(in crate::report) fn phases(run: &RunRecord, performance: &[PerfRow]) -> Table {
    let basis = modelled::basis_of(run);
    let mut numbers = vec!["Bytes", "Operations", "ms", "GB/s", "GFLOP/s", "Roofline %"];
    numbers.extend(basis.map(|_| "Model error"));
    let mut table =
        Table::new(format!("Work of the phases, {}", run.provenance.clock), &["Case", "Phase"], &numbers);
    for row in performance.iter().filter(|row| row.phase != Phase::E2e) {
        let case = run.plan.performance.iter().find(|case| case.case_id == row.case_id);
        let Some(cost) = case.and_then(|case| phase_cost(case, row.phase)) else { continue };
        let ns = row.median_ns.filter(|&ns| ns > 0).map(|ns| ns as f64);
        let mut cells = vec![
            row.case_id.clone(),
            row.phase.to_string(),
            format!("{} GB", significant(cost.bytes as f64 / 1e9, 4)),
            format!("{} GFLOP", significant(cost.flops as f64 / 1e9, 4)),
            fixed(ns.map(|ns| ns / 1e6), 1),
            fixed(row.achieved_gb_s, 2),
            fixed(ns.map(|ns| cost.flops as f64 / ns), 1),
            fixed(row.roofline_pct, 1),
        ];
        cells.extend(basis.map(|basis| modelled::cell(basis, row, row.phase)));
        table.push(false, cells);
    }
    table
}

/// Limits of the machine measured before the cases.
pub(in crate::report) fn machine(limits: &MeasuredRoofline) -> Table {
    let numbers = ["All threads", "Slowest round", "Fastest round", "One thread"];
    let title = format!("The machine's limits before the cases, measured with {} threads", limits.threads);
    let mut table = Table::new(title, &["Unit", "Rate"], &numbers);
    let mut push = |name: &str, unit: &str, all: &MeasuredRate, one: &MeasuredRate| {
        let shown = [all.median, all.low, all.high, one.median].map(|rate| significant(rate / 1e9, 4));
        table.push(false, [vec![name.to_owned(), unit.to_owned()], shown.to_vec()].concat());
    };
    push("memory, streamed reads", "GB/s", &limits.bandwidth, &limits.bandwidth_one_thread);
    for unit in &limits.units {
        push(&unit.unit, "10⁹ operations/s", &unit.all_threads, &unit.one_thread);
    }
    table
}
