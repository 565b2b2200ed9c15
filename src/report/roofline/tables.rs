//! Tables of the targets, the work of the phases, and the machine's limits.

use crate::language::{Text, ToText, cells, text, texts};
use crate::record::{Figure, LimitRow, MeasuredLimits, MeasuredRate, PerfRow, Phase, RunRecord};
use crate::report::format::{NONE, fixed, or_none, significant};
use crate::report::modelled;
use crate::report::performance::phase_cost;
use crate::report::table::{Column, Table};

use super::BANDWIDTH;

fn words(figure: Figure) -> Text {
    match figure {
        Figure::DecodeBandwidth => text!("decode, bytes"),
        Figure::AttentionBandwidth => text!("decode, KV bytes of attention"),
        Figure::DecodeSpeedup => text!("decode, tokens"),
        Figure::PrefillPeak | Figure::PrefillRate => text!("prefill, operations"),
        Figure::LoadTime => text!("ready to generate"),
        Figure::LoadMemory => text!("resident beyond weights and KV, at most"),
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

/// What a limit is of. A case and a unit keep their names.
fn limit_words(of: String) -> Text {
    if of == BANDWIDTH { text!("bandwidth") } else { of.into() }
}

/// One row per target.
pub(in crate::report) fn table(run: &RunRecord, rows: &[LimitRow]) -> Table {
    let title = text!("Against the machine's limits, {clock}", clock = run.provenance.clock);
    let mut table = Table::new(
        title,
        &texts!["Figure", "Case", "Held against"],
        &texts!["Reached", "Limit", "Ratio", "Target", "Met"],
    );
    table.columns.push(Column { name: text!("Note"), numeric: false });
    for row in rows {
        let target = match (row.at_least, row.at_most) {
            (Some(least), _) => format!("≥ {least}"),
            (None, Some(most)) => format!("≤ {most} {}", row.unit),
            (None, None) => NONE.to_owned(),
        };
        table.push(
            false,
            cells![
                words(row.figure),
                row.case_id.clone().unwrap_or_else(|| NONE.to_owned()),
                or_none(row.limit_of.clone(), limit_words),
                shown(row.value, row.figure),
                shown(row.limit, row.figure),
                fixed(row.ratio, 3),
                target,
                or_none(row.met, |met| if met { text!("yes") } else { text!("NO") }),
                row.note.clone().unwrap_or_default(),
            ],
        );
    }
    table
}

/// Work of each phase of each case, and its rates.
pub(in crate::report) fn phases(run: &RunRecord, performance: &[PerfRow]) -> Table {
    let basis = modelled::basis_of(run);
    let mut numbers = texts!["Bytes", "Operations", "ms", "GB/s", "GFLOP/s", "Roofline %"].to_vec();
    numbers.extend(basis.map(|_| text!("Model error")));
    let mut table = Table::new(
        text!("Work of the phases, {clock}", clock = run.provenance.clock),
        &texts!["Case", "Phase"],
        &numbers,
    );
    for row in performance.iter().filter(|row| row.phase != Phase::E2e) {
        let case = run.plan.performance.iter().find(|case| case.case_id == row.case_id);
        let Some(cost) = case.and_then(|case| phase_cost(case, row.phase)) else { continue };
        let ns = row.median_ns.filter(|&ns| ns > 0).map(|ns| ns as f64);
        let mut cells = cells![
            row.case_id,
            row.phase,
            format!("{} GB", significant(cost.bytes as f64 / 1e9, 4)),
            format!("{} GFLOP", significant(cost.flops as f64 / 1e9, 4)),
            fixed(ns.map(|ns| ns / 1e6), 1),
            fixed(row.achieved_gb_s, 2),
            fixed(ns.map(|ns| cost.flops as f64 / ns), 1),
            fixed(row.roofline_pct, 1),
        ];
        cells.extend(basis.map(|basis| modelled::cell(basis, row, row.phase).into()));
        table.push(false, cells);
    }
    table
}

/// Limits of the machine measured before the cases.
pub(in crate::report) fn machine(roofline: &MeasuredLimits) -> Table {
    let numbers = texts!["All threads", "Slowest round", "Fastest round", "One thread"];
    let title = text!(
        "The machine's limits before the cases, measured with {threads} threads",
        threads = roofline.threads
    );
    let mut table = Table::new(title, &texts!["Unit", "Rate"], &numbers);
    let mut push = |name: Text, unit: Text, all: &MeasuredRate, one: &MeasuredRate| {
        let shown = [all.median, all.low, all.high, one.median].map(|rate| significant(rate / 1e9, 4));
        table.push(false, [vec![name, unit], shown.map(Text::from).to_vec()].concat());
    };
    push(text!("memory, streamed reads"), "GB/s".into(), &roofline.bandwidth, &roofline.bandwidth_one_thread);
    for unit in &roofline.units {
        push(unit.unit.to_text(), text!("10⁹ operations/s"), &unit.all_threads, &unit.one_thread);
    }
    table
}
