//! Card with card: every chip of one card against every chip of another, and chip with chip.

use crate::language::{Text, cells, joined, text, texts};
use glmbench_calibrate::modelled::is_shipped;

use super::{RatioError, basis_of, cell, profile_of, span};
use crate::record::{PerfRow, Phase, RunRecord};
use crate::report::format::{bytes, fixed};
use crate::report::table::Table;

/// A card of a shipped profile: chips, power limit, memory.
pub(in crate::report) struct Card {
    /// Name of the profile.
    profile: &'static str,
    /// Name in tables.
    pub(in crate::report) name: &'static str,
    pub(in crate::report) chips: u32,
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
pub(in crate::report) type Side<'a> = (&'a RunRecord, &'a [PerfRow]);

/// Two modelled times of one shape on two cards.
pub(in crate::report) struct Beside<'a> {
    /// Whether whole cards are compared, or single chips.
    pub(in crate::report) cards: bool,
    pub(in crate::report) a: &'a PerfRow,
    pub(in crate::report) b: &'a PerfRow,
    /// Time of A over time of B.
    pub(in crate::report) ratio: f64,
}

/// Returns the card of a run with modelled times by a shipped profile.
pub(in crate::report) fn card_of(run: &RunRecord) -> Option<&'static Card> {
    let profile = profile_of(run).filter(|profile| is_shipped(profile))?;
    let name = profile.split(' ').next()?;
    CARDS.iter().find(|card| card.profile == name)
}

/// Returns the valid times of equal shapes: those of whole cards first. `None` unless both runs are of shipped cards with different
/// numbers of chips.
pub(in crate::report) fn beside<'a>(
    a: Side<'a>,
    b: Side<'a>,
) -> Option<(&'static Card, &'static Card, Vec<Beside<'a>>)> {
    let (one, other) = (card_of(a.0)?, card_of(b.0)?);
    if one.chips == other.chips {
        return None;
    }
    let mut found = Vec::new();
    for (cards, chips) in [(true, (one.chips, other.chips)), (false, (1, 1))] {
        let own = |row: &&PerfRow, tp| row.phase != Phase::E2e && row.tp == tp && row.valid != Some(false);
        for row in a.1.iter().filter(|row| own(row, chips.0)) {
            let shape = |row: &PerfRow| (row.phase, row.batch, row.input_tokens, row.output_tokens);
            let Some(beside) = b.1.iter().find(|other| own(other, chips.1) && shape(other) == shape(row))
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

fn chips(card: &Card) -> Text {
    text!("{name}, {chips} chip{chips:s}", name = card.name, chips = card.chips)
}

fn power(card: &Card) -> Text {
    // The data sheet of the A2 is that of the card with 64 GB.
    let watts = format!("{:.0}", card.watts);
    if card.profile == "800i-a2" {
        text!("{watts} W, published for the 64 GB card", watts)
    } else {
        text!("{watts} W, published", watts)
    }
}

/// Returns what stands after a ratio, or after a mean of ratios: ` ± 25 %`. Empty if an error is not known.
fn after(error: Option<RatioError>) -> String {
    error.map_or_else(String::new, |error| format!(" {}", error.short()))
}

/// Returns a table that compares two modelled runs card with card (every chip of a card) and chip with chip.
pub(in crate::report) fn cards(a: Side<'_>, b: Side<'_>) -> Option<Table> {
    let (one, other, found) = beside(a, b)?;
    let numbers = texts![
        "Batch", "In", "Out", "A ms", "A error", "B ms", "B error", "A ÷ B", "A per W", "B per W",
        "A per GB", "B per GB",
    ];
    let title = text!(
        "Card with card and chip with chip, modelled (A: {a}; B: {b}; per W and per GB of a card: tokens/s; power of a card: A {power_a}, \
         B {power_b}; A ÷ B ± the root of the sum of the squares of both errors; * extrapolated)",
        a = chips(one),
        b = chips(other),
        power_a = power(one),
        power_b = power(other)
    );
    let mut table = Table::new(title, &texts!["Compared", "Phase"], &numbers);
    for Beside { cards, a: row, b: beside, ratio } in &found {
        let ms = |row: &PerfRow| fixed(row.median_ns.map(|ns| ns as f64 / 1e6), 1);
        let error = |run: &RunRecord, row: &PerfRow| {
            basis_of(run).map_or_else(String::new, |basis| cell(basis, row, row.phase))
        };
        let share =
            |row: &PerfRow, of: f64| fixed(row.tokens_per_s.map(|rate| rate / of).filter(|_| *cards), 2);
        table.push(
            false,
            cells![
                if *cards { text!("card with card") } else { text!("chip with chip") },
                row.phase,
                row.batch,
                row.input_tokens,
                row.output_tokens,
                ms(row),
                error(a.0, row),
                ms(beside),
                error(b.0, beside),
                format!("{ratio:.2}{}", after(RatioError::between([(a.0, row), (b.0, beside)]))),
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
pub(in crate::report) fn cards_sentence(a: Side<'_>, b: Side<'_>) -> Option<Text> {
    let (one, other, found) = beside(a, b)?;
    let of = |cards: bool, phase: Phase| {
        let own: Vec<&Beside<'_>> =
            found.iter().filter(|pair| pair.cards == cards && pair.a.phase == phase).collect();
        let logs: f64 = own.iter().map(|pair| pair.ratio.ln()).sum();
        let errors_of_ratios = own.iter().map(|pair| RatioError::between([(a.0, pair.a), (b.0, pair.b)]));
        let error = RatioError::mean(errors_of_ratios);
        let errors = [
            span(a.0, own.iter().map(|pair| pair.a), phase),
            span(b.0, own.iter().map(|pair| pair.b), phase),
        ];
        (!own.is_empty()).then(|| {
            text!(
                "{phase} {mean}{error} (A{error_a}, B{error_b}; {count} shape{count:s})",
                phase,
                mean = format!("{:.2}", (logs / own.len() as f64).exp()),
                error = after(error),
                error_a = errors[0],
                error_b = errors[1],
                count = own.len()
            )
        })
    };
    let words = |cards| {
        let phases: Vec<Text> =
            [Phase::Prefill, Phase::Decode].into_iter().filter_map(|p| of(cards, p)).collect();
        (!phases.is_empty()).then(|| joined(phases, ", "))
    };
    let parts = [
        words(true).map(|words| {
            text!("card with card (A: {a}; B: {b}): {words}", a = chips(one), b = chips(other), words)
        }),
        words(false).map(|words| text!("chip with chip: {words}", words)),
    ];
    let parts: Vec<Text> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| {
        text!("Time of A over time of B, geometric means, modelled. {parts}.", parts = joined(&parts, "; "))
    })
}

/// Names the card of a modelled run, its memory and the marks of its figures: `Atlas 300I DUO, 96 GB (2 x Ascend 310P3), 48.0 GiB a
/// chip (figures: 9 published, 5 derived, 2 calibrated, 11 assumed)`. `None` if the record does not say.
pub(super) fn card_words(run: &RunRecord) -> Option<Text> {
    let by = run.provenance.modelled_by.as_ref()?;
    let memory = by.figures.iter().find(|figure| figure.key == "memory_bytes");
    let memory = memory.map_or(Text::EMPTY, |of| text!(", {memory} a chip", memory = bytes(of.value as u64)));
    let of_mark = |mark: &str| by.figures.iter().filter(|figure| figure.mark == mark).count();
    let counts = text!(
        "{published} published, {derived} derived, {calibrated} calibrated, {assumed} assumed",
        published = of_mark("published"),
        derived = of_mark("derived"),
        calibrated = of_mark("calibrated"),
        assumed = of_mark("assumed")
    );
    Some(text!("{card}{memory} (figures: {counts})", card = by.title, memory, counts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Clock;
    use crate::report::fixture;

    #[test]
    fn a_shipped_name_alone_is_no_shipped_card() {
        let fixture::Records { mut run, .. } = fixture::realistic();
        run.provenance.clock = Clock::Modelled;
        for profile in ["mine sha256:00", "300i-duo sha256:00"] {
            run.provenance.clock_profile = Some(profile.into());
            assert!(card_of(&run).is_none());
        }
    }
}
