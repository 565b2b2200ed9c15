//! What fits: the largest batches by memory and by time per token, side by side.

use super::{Comparison, Pair, Side};
use crate::language::{Text, ToText, cells, joined, text, texts};
use crate::record::{PerfRow, PerformanceCase, Phase};
use crate::report::format::{NONE, bytes, or_none};
use crate::report::modelled;
use crate::report::performance::per_token_ns;
use crate::report::table::Table;
use std::collections::BTreeSet;

/// Time per token that users read along with, ms.
const READABLE_MS: f64 = 50.0;

/// Returns a row for each pair of lengths and ranks. It has the largest batch that fits each side's memory, the largest timed one
/// within [`READABLE_MS`], and the peak memory of the largest common batch. Columns without values are left out.
pub(super) fn table(comparison: &Comparison, pair: &Pair) -> Table {
    let sides = [comparison.base(), comparison.other(pair)];
    let ranks = ranks(comparison, pair);
    let shapes: BTreeSet<(u32, u32)> = cases(sides[0]).chain(cases(sides[1])).map(lengths).collect();
    let letters = sides.map(|side| side.letter);
    let mut rows: Vec<Vec<Text>> = Vec::new();
    for shape in shapes {
        for of_sides in &ranks {
            let own = [0, 1].map(|side: usize| of(sides[side], shape, of_sides[side]));
            if own.iter().any(Vec::is_empty) {
                continue;
            }
            let mut cells = cells![shape.0, shape.1];
            cells.push(if of_sides[0] == of_sides[1] {
                of_sides[0].to_text()
            } else {
                format!("{} / {}", of_sides[0], of_sides[1]).into()
            });
            cells.extend(own.each_ref().map(|cases| largest(cases).into()));
            cells.extend([0, 1].map(|side: usize| within(sides[side], &own[side])));
            cells.extend(memory(sides, [&own[0], &own[1]]));
            rows.push(cells);
        }
    }
    let at = format!("{READABLE_MS:.0}");
    let names: Vec<Text> = texts!["In", "Out", "Ranks"]
        .into_iter()
        .chain(letters.map(|letter| text!("{letter} fits", letter)))
        .chain(letters.map(|letter| text!("{letter} at {at} ms", letter, at)))
        .chain(letters.map(|letter| text!("{letter} memory", letter)))
        .collect();
    let told: Vec<usize> =
        (0..names.len()).filter(|&column| rows.iter().any(|row| row[column] != NONE)).collect();
    let kept = |cells: &[Text]| told.iter().map(|&column| cells[column].clone()).collect::<Vec<_>>();
    let mut table =
        Table::new(text!("What fits: the largest batch{errors}", errors = errors(sides)), &[], &kept(&names));
    // Lengths and ranks alone say nothing.
    if told.iter().any(|column| *column > 2) {
        rows.iter().for_each(|row| table.push(false, kept(row)));
    }
    table
}

/// What the title says of modelled times per token. Empty for measured ones.
fn errors(sides: [&Side; 2]) -> Text {
    let words = sides.iter().filter_map(|side| {
        let span = modelled::span(side.run(), side.summary.performance.iter(), Phase::Decode);
        (!span.is_empty()).then(|| side.letter.to_text() + span)
    });
    let words: Vec<Text> = words.collect();
    if words.is_empty() {
        Text::EMPTY
    } else {
        text!(" (times per token modelled: {errors})", errors = joined(&words, ", "))
    }
}

/// The ranks held side by side: all chips of both cards, or those of the common cases.
fn ranks(comparison: &Comparison, pair: &Pair) -> Vec<[u32; 2]> {
    let (a, b) = (&comparison.base().summary, &comparison.other(pair).summary);
    let cards = modelled::beside((&a.run, &a.performance), (&b.run, &b.performance))
        .filter(|(.., found)| found.iter().any(|beside| beside.cards));
    if let Some((one, other, _)) = cards {
        return vec![[one.chips, other.chips]];
    }
    let common: BTreeSet<[u32; 2]> = pair.cases.iter().map(|case| [case.a.tp, case.b.tp]).collect();
    common.into_iter().collect()
}

fn cases(side: &Side) -> impl Iterator<Item = &PerformanceCase> {
    side.run().plan.performance.iter()
}

fn lengths(case: &PerformanceCase) -> (u32, u32) {
    (case.input_tokens, case.output_tokens)
}

/// The cases of a side with these lengths and ranks.
fn of(side: &Side, shape: (u32, u32), tp: u32) -> Vec<&PerformanceCase> {
    cases(side).filter(|case| lengths(case) == shape && case.tp == tp).collect()
}

fn largest(cases: &[&PerformanceCase]) -> String {
    or_none(cases.iter().filter_map(|case| case.largest_batch).max(), |batch| batch.to_string())
}

fn row<'a>(side: &'a Side, case: &PerformanceCase, phase: Phase) -> Option<&'a PerfRow> {
    let rows = side.summary.performance.iter();
    rows.filter(|row| row.valid == Some(true)).find(|row| row.case_id == case.case_id && row.phase == phase)
}

/// The largest timed batch within the limit: `16`, `≥ 64` if it is the largest that was timed, `none`.
fn within(side: &Side, cases: &[&PerformanceCase]) -> Text {
    let timed: Vec<(u32, f64)> = cases
        .iter()
        .filter_map(|case| Some((case.batch, per_token_ns(row(side, case, Phase::Decode)?)? / 1e6)))
        .collect();
    let Some(most) = timed.iter().map(|(batch, _)| *batch).max() else { return NONE.into() };
    match timed.iter().filter(|(_, ms)| *ms <= READABLE_MS).map(|(batch, _)| *batch).max() {
        None => text!("none"),
        Some(batch) if batch == most => format!("≥ {batch}").into(),
        Some(batch) => batch.to_text(),
    }
}

/// Peak memory of both at the largest batch that both timed.
fn memory(sides: [&Side; 2], cases: [&[&PerformanceCase]; 2]) -> [Text; 2] {
    let peak = |side: usize, batch: u32| {
        let case = cases[side].iter().find(|case| case.batch == batch)?;
        row(sides[side], case, Phase::E2e)?.peak_memory_bytes()
    };
    let batches: BTreeSet<u32> = cases[0].iter().map(|case| case.batch).collect();
    let both = |batch: &u32| Some((*batch, peak(0, *batch)?, peak(1, *batch)?));
    match batches.iter().rev().find_map(both) {
        Some((batch, a, b)) => [a, b].map(|peak| text!("{peak} at {batch}", peak = bytes(peak), batch)),
        None => [NONE, NONE].map(Text::from),
    }
}
