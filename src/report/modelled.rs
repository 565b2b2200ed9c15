//! The error of modelled times, and the published speeds behind it.

use glmbench_calibrate::modelled::{Of, Residual, Shape, Stated, residuals, stated};
use glmbench_calibrate::residuals::summaries;

use super::format::{NONE, bytes, fixed, or_none};
use super::tables::Table;
use crate::record::{Clock, PerfRow, Phase, RunRecord};

/// Returns the profile of a run with modelled times.
pub(super) fn profile_of(run: &RunRecord) -> Option<&str> {
    run.provenance.clock_profile.as_deref().filter(|_| run.provenance.clock == Clock::Modelled)
}

/// Returns the error of a row's time by a profile.
fn error_of(profile: &str, row: &PerfRow, phase: Phase) -> Result<Stated, &'static str> {
    let of = match phase {
        Phase::Prefill => Of::Prefill,
        Phase::Decode => Of::Decode,
        Phase::E2e => Of::Both,
    };
    let shape = Shape {
        chips: row.tp as usize,
        batch: row.batch as usize,
        input_tokens: row.input_tokens as usize,
        output_tokens: row.output_tokens as usize,
    };
    stated(Some(profile), of, shape)
}

/// Returns the error of a row's time in the words of a cell.
pub(super) fn cell(profile: &str, row: &PerfRow, phase: Phase) -> String {
    error_of(profile, row, phase).map_or_else(|_| NONE.to_owned(), |stated| stated.short())
}

/// Returns what follows a modelled time in a sentence: ` ± 12 % (19 rows; worst 34 %)`. Empty for measured times.
pub(super) fn after(run: &RunRecord, row: &PerfRow, phase: Phase) -> String {
    match profile_of(run).map(|profile| error_of(profile, row, phase)) {
        None => String::new(),
        Some(Ok(stated)) => format!(" {}", stated.words()),
        Some(Err(why)) => format!(" ({why})"),
    }
}

/// Returns what follows a chart's clock: the least and the largest error of its rows. Empty for measured times.
pub(super) fn span<'a>(run: &RunRecord, rows: impl Iterator<Item = &'a PerfRow>, phase: Phase) -> String {
    let Some(profile) = profile_of(run) else { return String::new() };
    let errors: Vec<Stated> =
        rows.filter(|row| row.phase == phase).filter_map(|row| error_of(profile, row, phase).ok()).collect();
    let percents = errors.iter().map(|stated| (100.0 * stated.error).round());
    let (least, most) = percents.fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
    let beyond =
        if errors.iter().any(|stated| !stated.beyond.is_empty()) { ", partly extrapolated" } else { "" };
    if errors.is_empty() {
        String::new()
    } else if least >= most {
        format!(" ± {most:.0} %{beyond}")
    } else {
        format!(" ± {least:.0} to {most:.0} %{beyond}")
    }
}

/// Returns a sentence on the errors of a run's modelled times, by phase, without regard to shapes.
pub(super) fn sentence(run: &RunRecord) -> Option<String> {
    let profile = profile_of(run)?;
    let shape = |chips| Shape { chips, batch: 1, input_tokens: 256, output_tokens: 256 };
    let chips: Vec<usize> = {
        let mut chips: Vec<usize> = run.plan.performance.iter().map(|case| case.tp as usize).collect();
        chips.push(run.provenance.tp as usize);
        chips.sort_unstable();
        chips.dedup();
        chips
    };
    let of = |chips: usize| {
        let words = |of| stated(Some(profile), of, shape(chips)).map(|stated| stated.words());
        Some(format!("TP {chips}: prefill {}, decode {}", words(Of::Prefill).ok()?, words(Of::Decode).ok()?))
    };
    let known: Vec<String> = chips.into_iter().filter_map(of).collect();
    if known.is_empty() {
        let words = "Times are modelled by a profile that was not held against published speeds: their error is unknown.";
        return Some(words.to_owned());
    }
    Some(format!(
        "Times are modelled. Their error against published speeds of models left out of the fit: {}.",
        known.join("; ")
    ))
}

/// Returns the memory of the card's chips: peak of every case, and the largest batch of its lengths that fits. `None` off a card.
pub(super) fn memory(run: &RunRecord, rows: &[PerfRow]) -> Option<Table> {
    let numbers = ["Batch", "In", "Out", "TP", "Peak memory of a chip", "Largest batch that fits"];
    let mut table = Table::new("Memory of a card".into(), &[], &numbers);
    for case in &run.plan.performance {
        let Some(largest) = case.largest_batch else { continue };
        let row = rows.iter().find(|row| row.case_id == case.case_id && row.phase == Phase::E2e);
        let peak = row.and_then(|row| row.device_memory_bytes);
        let shape = [case.batch, case.input_tokens, case.output_tokens, case.tp].map(|n| n.to_string());
        let cells = shape.into_iter().chain([or_none(peak, bytes), largest.to_string()]);
        table.push(false, cells.collect());
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Name of the suite whose report lists every published row.
const SUITE: &str = "calibration";

/// Returns the published speeds beside the modelled ones, for runs with modelled times: a summary by chip, and every row of the
/// chips in the suite `calibration`.
pub(super) fn evidence(run: &RunRecord) -> Vec<Table> {
    if profile_of(run).is_none() {
        return Vec::new();
    }
    let rows = residuals();
    let mut tables = vec![summary(&rows)];
    if run.provenance.suite == SUITE {
        tables.push(every(&rows));
    }
    tables
}

fn summary(rows: &[Residual]) -> Table {
    let numbers = ["Rows", "Before: mean", "range", "Shipped: mean", "range", "Left out: rms", "worst"];
    let mut table =
        Table::new("Modelled against published time, by ratio".into(), &["Chip and phase"], &numbers);
    let range = |(_, least, most): (f64, f64, f64)| format!("{least:.2} to {most:.2}");
    let percent =
        |share: Option<f64>| share.map_or_else(|| NONE.to_owned(), |s| format!("{:.0} %", 100.0 * s));
    for group in summaries(rows) {
        table.push(
            false,
            vec![
                group.of,
                group.rows.to_string(),
                fixed(Some(group.before.0), 2),
                range(group.before),
                fixed(Some(group.after.0), 2),
                range(group.after),
                percent(group.left_out.map(|(rms, _)| rms)),
                percent(group.left_out.map(|(_, worst)| worst)),
            ],
        );
    }
    table
}

fn every(rows: &[Residual]) -> Table {
    let text = ["Model", "Chip", "Type", "Launches", "Phase", "Use", "Why not timed, or only reported"];
    let numbers = ["Chips", "Batch", "In", "Out", "Published ms", "Before", "Shipped", "Left out"];
    let mut table = Table::new("Every published row: modelled over published time".into(), &text, &numbers);
    for row in rows {
        let ratio = |ratio: Option<f64>| fixed(ratio, 2);
        table.push(
            false,
            vec![
                row.model.clone(),
                row.chip.clone(),
                row.dtype.clone(),
                row.mode.clone(),
                row.phase.clone(),
                row.purpose.clone(),
                row.reason.clone(),
                row.chips.to_string(),
                row.batch.to_string(),
                row.input_tokens.clone(),
                row.output_tokens.clone(),
                fixed(Some(row.published_ms), 1),
                ratio(row.before),
                ratio(row.ratio),
                ratio(row.left_out),
            ],
        );
    }
    table
}

/// A card of a shipped profile: chips, power limit, memory.
struct Card {
    /// Name of the profile.
    profile: &'static str,
    /// Name in tables.
    name: &'static str,
    chips: u32,
    /// Published power limit of the card, W.
    watts: f64,
    /// Memory of the card, GB.
    gigabytes: f64,
}

const CARDS: [Card; 4] = [
    Card { profile: "300i-duo", name: "300I DUO 96 GB", chips: 2, watts: 150.0, gigabytes: 96.0 },
    Card { profile: "300i-duo-48g", name: "300I DUO 48 GB", chips: 2, watts: 150.0, gigabytes: 48.0 },
    Card { profile: "800i-a2", name: "800I A2 card 32 GB", chips: 1, watts: 400.0, gigabytes: 32.0 },
    Card { profile: "800i-a2-64g", name: "800I A2 card 64 GB", chips: 1, watts: 400.0, gigabytes: 64.0 },
];

/// A modelled run of a comparison.
pub(super) type Side<'a> = (&'a RunRecord, &'a [PerfRow]);

/// Two modelled times of one shape on two cards.
struct Beside<'a> {
    /// Whether whole cards are compared, or single chips.
    cards: bool,
    a: &'a PerfRow,
    b: &'a PerfRow,
    /// Time of A over time of B.
    ratio: f64,
}

fn card_of(run: &RunRecord) -> Option<&'static Card> {
    let name = profile_of(run)?.split(' ').next()?;
    CARDS.iter().find(|card| card.profile == name)
}

/// Returns the times of equal shapes: those of whole cards first. `None` unless both runs are of shipped cards with different
/// numbers of chips.
fn beside<'a>(a: Side<'a>, b: Side<'a>) -> Option<(&'static Card, &'static Card, Vec<Beside<'a>>)> {
    let (one, other) = (card_of(a.0)?, card_of(b.0)?);
    if one.chips == other.chips {
        return None;
    }
    let mut found = Vec::new();
    for (cards, chips) in [(true, (one.chips, other.chips)), (false, (1, 1))] {
        for row in a.1.iter().filter(|row| row.phase != Phase::E2e && row.tp == chips.0) {
            let shape = |row: &PerfRow| (row.phase, row.batch, row.input_tokens, row.output_tokens);
            let Some(beside) = b.1.iter().find(|other| other.tp == chips.1 && shape(other) == shape(row))
            else {
                continue;
            };
            let times = row.median_ns.zip(beside.median_ns).filter(|(_, b)| *b > 0);
            if let Some((x, y)) = times {
                found.push(Beside { cards, a: row, b: beside, ratio: x as f64 / y as f64 });
            }
        }
    }
    Some((one, other, found))
}

fn chips(card: &Card) -> String {
    format!("{}, {} chip{}", card.name, card.chips, if card.chips == 1 { "" } else { "s" })
}

/// Returns a table that compares two modelled runs card with card (every chip of a card) and chip with chip.
pub(super) fn cards(a: Side<'_>, b: Side<'_>) -> Option<Table> {
    let (one, other, found) = beside(a, b)?;
    let numbers = [
        "Batch", "In", "Out", "A ms", "A error", "B ms", "B error", "A ÷ B", "A per W", "B per W",
        "A per GB", "B per GB",
    ];
    let title = format!(
        "Card with card and chip with chip, modelled (A: {}; B: {}; per W and per GB of a card: tokens/s)",
        chips(one),
        chips(other)
    );
    let mut table = Table::new(title, &["Compared", "Phase"], &numbers);
    for Beside { cards, a: row, b: beside, ratio } in &found {
        let ms = |row: &PerfRow| fixed(row.median_ns.map(|ns| ns as f64 / 1e6), 1);
        let error = |run: &RunRecord, row: &PerfRow| {
            profile_of(run).map_or_else(String::new, |p| cell(p, row, row.phase))
        };
        let share =
            |row: &PerfRow, of: f64| fixed(row.tokens_per_s.map(|rate| rate / of).filter(|_| *cards), 2);
        table.push(
            false,
            vec![
                if *cards { "card with card" } else { "chip with chip" }.to_owned(),
                row.phase.to_string(),
                row.batch.to_string(),
                row.input_tokens.to_string(),
                row.output_tokens.to_string(),
                ms(row),
                error(a.0, row),
                ms(beside),
                error(b.0, beside),
                fixed(Some(*ratio), 2),
                share(row, one.watts),
                share(beside, other.watts),
                share(row, one.gigabytes),
                share(beside, other.gigabytes),
            ],
        );
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Returns the geometric means of [`cards`] in a sentence, each with the least and the largest error of its times.
pub(super) fn cards_sentence(a: Side<'_>, b: Side<'_>) -> Option<String> {
    let (one, other, found) = beside(a, b)?;
    let of = |cards: bool, phase: Phase| {
        let own: Vec<&Beside<'_>> =
            found.iter().filter(|pair| pair.cards == cards && pair.a.phase == phase).collect();
        let logs: f64 = own.iter().map(|pair| pair.ratio.ln()).sum();
        let errors = [
            span(a.0, own.iter().map(|pair| pair.a), phase),
            span(b.0, own.iter().map(|pair| pair.b), phase),
        ];
        (!own.is_empty()).then(|| {
            format!(
                "{phase} {:.2} (A{}, B{}; {} shapes)",
                (logs / own.len() as f64).exp(),
                errors[0],
                errors[1],
                own.len()
            )
        })
    };
    let words = |cards| {
        let phases: Vec<String> =
            [Phase::Prefill, Phase::Decode].into_iter().filter_map(|p| of(cards, p)).collect();
        (!phases.is_empty()).then(|| phases.join(", "))
    };
    let parts = [
        words(true).map(|words| format!("card with card (A: {}; B: {}): {words}", chips(one), chips(other))),
        words(false).map(|words| format!("chip with chip: {words}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty())
        .then(|| format!("Time of A over time of B, geometric means, modelled. {}.", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{fixture, perf_rows};

    #[test]
    fn measured_times_carry_no_model_error_and_unknown_profiles_say_so() {
        let (mut run, _, requests) = fixture::realistic();
        let rows = perf_rows(&run, &requests);
        assert_eq!((after(&run, &rows[0], Phase::Prefill), sentence(&run)), (String::new(), None));
        assert!(evidence(&run).is_empty());
        run.provenance.clock = Clock::Modelled;
        run.provenance.clock_profile = Some("mine sha256:00".into());
        assert!(after(&run, &rows[0], Phase::Prefill).contains("error unknown"));
        assert!(sentence(&run).unwrap().contains("error is unknown"));
        assert_eq!(evidence(&run).len(), 1);
        run.provenance.suite = SUITE.into();
        assert!(evidence(&run)[1].rows.len() > 200);
    }
}
