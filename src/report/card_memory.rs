//! The memory of a card as a result: the peak of every case, what the case takes alone, and the largest batch that fits.

use crate::language::{Language, text, texts};

use crate::record::{PerfRow, PerformanceCase, Phase, RunRecord};
use crate::report::charts::{CardLines, Chart, cards_memory};
use crate::report::format::{bytes, or_none};
use crate::report::table::Table;

/// Returns the chip memory of the card, one row per case. `None` off a card.
pub(in crate::report) fn table(run: &RunRecord, rows: &[PerfRow]) -> Option<Table> {
    let numbers =
        texts!["Batch", "In", "Out", "TP", "Peak of a chip", "Of the case alone", "Largest batch that fits"];
    let title = text!(
        "Memory of a card: the peak has what the engine holds for the whole plan; the case alone and the largest batch are by \
                 estimate"
    );
    let mut table = Table::new(title, &[], &numbers);
    for case in &run.plan.performance {
        let Some(largest) = case.largest_batch else { continue };
        let row = rows.iter().find(|row| row.case_id == case.case_id && row.phase == Phase::E2e);
        let peak = row.and_then(|row| row.device_memory_bytes);
        let shape = [case.batch, case.input_tokens, case.output_tokens, case.tp].map(|n| n.to_string());
        let cells = shape.into_iter().chain([
            or_none(peak, bytes),
            or_none(case.alone_bytes, bytes),
            largest.to_string(),
        ]);
        table.push(false, cells.collect::<Vec<String>>());
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Returns the memory charts of a card: the memory of a case alone against the batch, and the largest batch against the
/// length.
pub(in crate::report) fn charts(run: &RunRecord, language: Language) -> Vec<(String, Chart)> {
    let cases = || run.plan.performance.iter().filter(|case| case.largest_batch.is_some());
    let mut alone = CardLines::new();
    let mut largest = CardLines::new();
    for case in cases() {
        let PerformanceCase { batch, input_tokens, output_tokens, tp, .. } = *case;
        if let Some(bytes) = case.alone_bytes {
            let gib = bytes as f64 / f64::from(1 << 30);
            alone.entry((input_tokens, output_tokens, tp)).or_default().push((f64::from(batch), gib));
        }
        let tokens = f64::from(input_tokens) + f64::from(output_tokens);
        let fits = f64::from(case.largest_batch.unwrap_or_default());
        largest.entry((0, 0, tp)).or_default().push((tokens, fits));
    }
    for points in alone.values_mut().chain(largest.values_mut()) {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup();
    }
    largest.values_mut().for_each(|points| points.retain(|(_, fits)| *fits > 0.0));
    cards_memory((run, language), &alone, &largest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{fixture, perf_rows};

    #[test]
    fn a_card_has_a_row_for_every_case_and_a_process_none() {
        let fixture::Records { mut run, requests, .. } = fixture::realistic();
        let rows = perf_rows(&run, &requests);
        assert!(table(&run, &rows).is_none() && charts(&run, Language::En).is_empty());
        for case in &mut run.plan.performance {
            (case.largest_batch, case.alone_bytes) = (Some(40), Some((13 << 30) + u64::from(case.batch)));
        }
        let found = table(&run, &rows).unwrap();
        assert_eq!(found.rows.len(), run.plan.performance.len());
        assert_eq!(&found.rows[0].cells[5..], ["13.0 GiB", "40"]);
        let names: Vec<String> = charts(&run, Language::En).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["memory-batch", "memory-largest-batch"]);
    }
}
