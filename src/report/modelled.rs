//! The error of modelled times, and the published speeds behind it.

use glmbench_calibrate::modelled::{Of, Residual, Shape, Stated, is_shipped, residuals, stated};
use glmbench_calibrate::residuals::summaries;

use super::format::{NONE, bytes, fixed, or_none};
use super::tables::Table;
use crate::record::{Clock, PerfRow, Phase, RunRecord};

/// Returns the profile of a run with modelled times.
pub(super) fn profile_of(run: &RunRecord) -> Option<&str> {
    run.provenance.clock_profile.as_deref().filter(|_| run.provenance.clock == Clock::Modelled)
}

/// What the error of a run's modelled times depends on, besides their shapes.
#[derive(Clone, Copy)]
pub struct Basis<'a> {
    /// The profile, as in records.
    pub profile: &'a str,
    /// Parameters of the model; `None` if the record has no shape that says so.
    pub parameters: Option<f64>,
    /// Whether launches were captured as graphs; `None` if the record does not say.
    pub graphs: Option<bool>,
}

impl Basis<'_> {
    fn shape(&self, chips: usize, [batch, input_tokens, output_tokens]: [usize; 3]) -> Shape {
        let Self { parameters, graphs, .. } = *self;
        Shape { chips, batch, input_tokens, output_tokens, parameters, graphs }
    }
}

/// Returns the basis of a run with modelled times.
pub(super) fn basis_of(run: &RunRecord) -> Option<Basis<'_>> {
    let of = &run.provenance;
    let parameters = of.model_details.get("shape").and_then(|shape| parameters(shape));
    let graphs = of.device_details.get("graph").map(|word| word != "off");
    Some(Basis { profile: profile_of(run)?, parameters, graphs })
}

/// Returns the parameters of a model by its shape in records: `28 layers, hidden 4096, ffn 13696, 32 heads of 128, 2 KV heads,
/// vocabulary 65024`. `None` for other words.
fn parameters(shape: &str) -> Option<f64> {
    let numbers: Vec<f64> = shape.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    let &[layers, hidden, ffn, heads, channels, kv_heads, vocabulary] = numbers.as_slice() else {
        return None;
    };
    let attention = 2.0 * hidden * channels * (heads + kv_heads);
    Some(layers * (attention + 3.0 * hidden * ffn) + 2.0 * vocabulary * hidden)
}

/// Returns the error of a row's time.
pub(super) fn error_of(basis: Basis<'_>, row: &PerfRow, phase: Phase) -> Result<Stated, &'static str> {
    let of = match phase {
        Phase::Prefill => Of::Prefill,
        Phase::Decode => Of::Decode,
        Phase::E2e => Of::Both,
    };
    let lengths = [row.batch, row.input_tokens, row.output_tokens].map(|n| n as usize);
    stated(Some(basis.profile), of, basis.shape(row.tp as usize, lengths))
}

/// Returns the error of a row's time in the words of a cell.
pub(super) fn cell(basis: Basis<'_>, row: &PerfRow, phase: Phase) -> String {
    error_of(basis, row, phase).map_or_else(|_| NONE.to_owned(), |stated| stated.short())
}

/// Returns what follows a modelled time in a sentence: ` ± 12 % (19 rows of 3 models; worst 34 %)`. Empty for measured times.
pub(super) fn after(run: &RunRecord, row: &PerfRow, phase: Phase) -> String {
    match basis_of(run).map(|basis| error_of(basis, row, phase)) {
        None => String::new(),
        Some(Ok(stated)) => format!(" {}", stated.words()),
        Some(Err(why)) => format!(" ({why})"),
    }
}

/// Returns what follows a chart's clock: the least and the largest error of its rows. Empty for measured times.
pub(super) fn span<'a>(run: &RunRecord, rows: impl Iterator<Item = &'a PerfRow>, phase: Phase) -> String {
    let Some(basis) = basis_of(run) else { return String::new() };
    let errors: Vec<Stated> =
        rows.filter(|row| row.phase == phase).filter_map(|row| error_of(basis, row, phase).ok()).collect();
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
    let basis = basis_of(run)?;
    let chips: Vec<usize> = {
        let mut chips: Vec<usize> = run.plan.performance.iter().map(|case| case.tp as usize).collect();
        chips.push(run.provenance.tp as usize);
        chips.sort_unstable();
        chips.dedup();
        chips
    };
    let of = |chips: usize| {
        let words = |of| {
            let stated = stated(Some(basis.profile), of, basis.shape(chips, [1, 256, 256]));
            stated.map_or_else(str::to_owned, |stated| stated.words())
        };
        format!("TP {chips}: prefill {}, decode {}", words(Of::Prefill), words(Of::Decode))
    };
    let known: Vec<String> = chips.into_iter().map(of).collect();
    if !is_shipped(basis.profile) {
        // The record has no more of a profile than its name and hash.
        let words = "Times are modelled by a profile that is not a shipped one of this version: their error is unknown here. If \
                     the profile is calibrated, its file states its own error.";
        return Some(words.to_owned());
    }
    Some(format!(
        "Times are modelled. Their error against published speeds of models the fit has not seen: {}.",
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
pub(super) struct Card {
    /// Name of the profile.
    profile: &'static str,
    /// Name in tables.
    pub(super) name: &'static str,
    pub(super) chips: u32,
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
pub(super) struct Beside<'a> {
    /// Whether whole cards are compared, or single chips.
    pub(super) cards: bool,
    pub(super) a: &'a PerfRow,
    pub(super) b: &'a PerfRow,
    /// Time of A over time of B.
    pub(super) ratio: f64,
}

/// Returns the card of a run with modelled times by a shipped profile.
pub(super) fn card_of(run: &RunRecord) -> Option<&'static Card> {
    let profile = profile_of(run).filter(|profile| is_shipped(profile))?;
    let name = profile.split(' ').next()?;
    CARDS.iter().find(|card| card.profile == name)
}

/// Returns the times of equal shapes: those of whole cards first. `None` unless both runs are of shipped cards with different
/// numbers of chips.
pub(super) fn beside<'a>(
    a: Side<'a>,
    b: Side<'a>,
) -> Option<(&'static Card, &'static Card, Vec<Beside<'a>>)> {
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

fn power(card: &Card) -> String {
    // The data sheet of the A2 is that of the card with 64 GB.
    let of = if card.profile == "800i-a2" { " for the 64 GB card" } else { "" };
    format!("{:.0} W, published{of}", card.watts)
}

/// A row with its run.
type Timed<'a> = (&'a RunRecord, &'a PerfRow);

/// Returns the error of a ratio of modelled times, or of a mean of such ratios, to stand after it: ` ± 25 %`, with an asterisk if a
/// time is extrapolated. The relative errors of both sides are combined as the root of the sum of their squares; of several ratios
/// it is the root mean square, since the error of a model is common to all shapes. Empty if an error is not known.
fn ratio_error(pairs: &[[Timed<'_>; 2]]) -> String {
    let of = |(run, row): Timed<'_>| error_of(basis_of(run)?, row, row.phase).ok();
    let (mut squares, mut beyond) = (0.0, false);
    for &[a, b] in pairs {
        let Some((a, b)) = of(a).zip(of(b)) else { return String::new() };
        squares += a.error * a.error + b.error * b.error;
        beyond |= !a.beyond.is_empty() || !b.beyond.is_empty();
    }
    let mark = if beyond { " *" } else { "" };
    format!(" ± {:.0} %{mark}", 100.0 * (squares / pairs.len().max(1) as f64).sqrt())
}

/// Returns a table that compares two modelled runs card with card (every chip of a card) and chip with chip.
pub(super) fn cards(a: Side<'_>, b: Side<'_>) -> Option<Table> {
    let (one, other, found) = beside(a, b)?;
    let numbers = [
        "Batch", "In", "Out", "A ms", "A error", "B ms", "B error", "A ÷ B", "A per W", "B per W",
        "A per GB", "B per GB",
    ];
    let title = format!(
        "Card with card and chip with chip, modelled (A: {}; B: {}; per W and per GB of a card: tokens/s; power of a card: A {}, \
         B {}; A ÷ B ± the root of the sum of the squares of both errors; * extrapolated)",
        chips(one),
        chips(other),
        power(one),
        power(other)
    );
    let mut table = Table::new(title, &["Compared", "Phase"], &numbers);
    for Beside { cards, a: row, b: beside, ratio } in &found {
        let ms = |row: &PerfRow| fixed(row.median_ns.map(|ns| ns as f64 / 1e6), 1);
        let error = |run: &RunRecord, row: &PerfRow| {
            basis_of(run).map_or_else(String::new, |basis| cell(basis, row, row.phase))
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
                format!("{ratio:.2}{}", ratio_error(&[[(a.0, row), (b.0, beside)]])),
                share(row, one.watts),
                share(beside, other.watts),
                share(row, one.gigabytes),
                share(beside, other.gigabytes),
            ],
        );
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Returns the geometric means of [`cards`] in a sentence, each with its error, and the least and the largest error of its times.
pub(super) fn cards_sentence(a: Side<'_>, b: Side<'_>) -> Option<String> {
    let (one, other, found) = beside(a, b)?;
    let of = |cards: bool, phase: Phase| {
        let own: Vec<&Beside<'_>> =
            found.iter().filter(|pair| pair.cards == cards && pair.a.phase == phase).collect();
        let logs: f64 = own.iter().map(|pair| pair.ratio.ln()).sum();
        let pairs: Vec<_> = own.iter().map(|pair| [(a.0, pair.a), (b.0, pair.b)]).collect();
        let errors = [
            span(a.0, own.iter().map(|pair| pair.a), phase),
            span(b.0, own.iter().map(|pair| pair.b), phase),
        ];
        (!own.is_empty()).then(|| {
            format!(
                "{phase} {:.2}{} (A{}, B{}; {} shape{})",
                (logs / own.len() as f64).exp(),
                ratio_error(&pairs),
                errors[0],
                errors[1],
                own.len(),
                if own.len() == 1 { "" } else { "s" }
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
    fn the_parameters_are_read_from_the_shape() {
        let shape = "28 layers, hidden 4096, ffn 13696, 32 heads of 128, 2 KV heads, vocabulary 65024";
        assert!((parameters(shape).unwrap() / 6.24e9 - 1.0).abs() < 0.01);
        assert_eq!(parameters("unknown"), None);
    }

    #[test]
    fn measured_times_carry_no_model_error_and_unknown_profiles_say_so() {
        let (mut run, _, requests) = fixture::realistic();
        let rows = perf_rows(&run, &requests);
        assert_eq!((after(&run, &rows[0], Phase::Prefill), sentence(&run)), (String::new(), None));
        assert!(evidence(&run).is_empty());
        run.provenance.clock = Clock::Modelled;
        run.provenance.clock_profile = Some("mine sha256:00".into());
        assert!(after(&run, &rows[0], Phase::Prefill).contains("error unknown"));
        let says = sentence(&run).unwrap();
        assert!(says.contains("error is unknown") && says.contains("its file states its own error"));
        assert!(card_of(&run).is_none());
        // A shipped name alone is no shipped profile.
        run.provenance.clock_profile = Some("300i-duo sha256:00".into());
        assert!(card_of(&run).is_none());
        assert_eq!(evidence(&run).len(), 1);
        run.provenance.suite = SUITE.into();
        assert!(evidence(&run)[1].rows.len() > 200);
    }
}
