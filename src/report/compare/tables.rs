//! The tables of a comparison, as formatted text.

use super::accuracy::{AccuracyVerdict, GroupComparison, MacroMean, TaskComparison};
use super::speed::{CaseComparison, PhaseComparison, SpeedVerdict};
use super::{Basis, Comparison, Field, Judgement, Pair, Side, answer, overview};
use crate::language::{Text, ToText, cells, joined, text, texts};
use crate::record::{PerfRow, Phase, RunRecord};
use crate::report::accuracy::ALL;
use crate::report::format::{NONE, bytes, decimals, fixed, interval, or_none, percent, times};
use crate::report::modelled::{self, RatioError};
use crate::report::table::Table;
use crate::stats::{Estimate, Interval, LEAST_DISCORDANT};

/// Number of flips shown on the page. `flips.csv` has all of them.
pub(super) const FLIPS_SHOWN: usize = 50;

/// The tables for the terminal: runs, all runs against the base, gates, accuracy, speed, and the other workloads.
pub(in crate::report) fn main_tables(comparison: &Comparison, judgements: &[Judgement]) -> Vec<Table> {
    let mut tables = vec![runs(comparison), overview::table(comparison)];
    if !judgements.is_empty() {
        tables.push(gates(judgements));
    }
    for pair in &comparison.pairs {
        tables.extend([accuracy(comparison, pair), speed(comparison, pair)]);
        tables.extend(pair.workloads.iter().map(|common| common.table(comparison, pair)));
        tables.extend(cards(comparison, pair));
    }
    tables.retain(|table| !table.rows.is_empty());
    tables
}

/// The runs by letter.
pub(super) fn runs(comparison: &Comparison) -> Table {
    let mut table = Table::new(
        text!("Runs"),
        &[&[Text::EMPTY][..], &texts!["Name", "Model", "Run", "Device", "Type", "Clock", "Validity"]]
            .concat(),
        &[],
    );
    for side in &comparison.sides {
        let from = &side.run().provenance;
        table.push(
            false,
            cells![
                side.letter,
                side.name,
                from.model,
                side.run().run_id,
                from.device,
                from.dtype,
                from.clock,
                side.summary.short_verdict(),
            ],
        );
    }
    table
}

/// Differing fields, one row each.
pub(super) fn fields(title: Text, (a, b): (&Side, &Side), fields: &[Field]) -> Table {
    let mut table = Table::new(title, &[text!("Field"), a.letter.to_text(), b.letter.to_text()], &[]);
    for field in fields {
        let value = |value: &Option<Text>| or_none(value.clone(), |words| words);
        table.push(false, vec![field.name.clone(), value(&field.left), value(&field.right)]);
    }
    table
}

/// The outcomes of the gates.
pub fn gates(judgements: &[Judgement]) -> Table {
    let mut table = Table::new(text!("Gates"), &texts!["Gate", "Run", "Limit", "Found", "Outcome"], &[]);
    for judgement in judgements {
        table.push(
            false,
            cells![judgement.gate, judgement.run, judgement.limit, judgement.found, judgement.outcome],
        );
    }
    table
}

/// Marks the last column, the verdict, as text.
fn words_last(table: &mut Table) {
    if let Some(last) = table.columns.last_mut() {
        last.numeric = false;
    }
}

fn against(comparison: &Comparison, pair: &Pair) -> Text {
    text!("{b} against {a}", b = comparison.other(pair).label(), a = comparison.base().label())
}

/// Every common task: all items, and the mean over subjects.
pub(super) fn accuracy(comparison: &Comparison, pair: &Pair) -> Table {
    let (a, b) = (comparison.base().letter, comparison.other(pair).letter);
    let names = [a, b].map(|letter| Text::from(format!("{letter} %")));
    let tests = texts!["Change", "95 % interval", "Lost", "Gained", "p", "p (Holm)", "Verdict"].into_iter();
    let mut table = Table::new(
        text!("Accuracy in percent, {against}", against = against(comparison, pair)),
        &texts!["Task", "Over"],
        &[text!("Items")].into_iter().chain(names).chain(tests).collect::<Vec<_>>(),
    );
    words_last(&mut table);
    for task in &pair.tasks {
        let whole = task.whole();
        let named = task.task.ends_with(&task.protocol);
        let name = if named { task.task.clone() } else { format!("{} ({})", task.task, task.protocol) };
        let mut cells = cells![name, text!("items")];
        cells.extend(group_cells(whole));
        cells.extend(cells![probability(task.p), probability(task.p_holm), answer::shown(task)]);
        table.push(true, cells);
        if let Some(MacroMean { a, b, difference }) = task.macro_mean {
            let mut cells = cells![
                Text::EMPTY,
                text!("subjects"),
                Text::EMPTY,
                percent(a),
                percent(b),
                points(difference.value),
                points_interval(difference.interval),
            ];
            cells.extend((0..5).map(|_| Text::EMPTY));
            table.push(false, cells);
        }
    }
    table
}

/// One task by category and subject. Without tests, because there would be many.
pub(super) fn groups(comparison: &Comparison, pair: &Pair, task: &TaskComparison) -> Table {
    let (a, b) = (comparison.base().letter, comparison.other(pair).letter);
    let names = [a, b].map(|letter| Text::from(format!("{letter} %")));
    let rest = texts!["Change, points", "95 % interval", "Lost", "Gained"].into_iter();
    let mut table = Table::new(
        text!("{task} by subject, {against}", task = task.task, against = against(comparison, pair)),
        &texts!["Category", "Subject"],
        &[text!("Items")].into_iter().chain(names).chain(rest).collect::<Vec<_>>(),
    );
    for group in task.groups.iter().skip(1) {
        let mut cells = cells![
            crate::report::tables::group(&group.category),
            crate::report::tables::group(&group.subject)
        ];
        cells.extend(group_cells(group));
        table.push(group.subject == ALL, cells);
    }
    table
}

fn group_cells(group: &GroupComparison) -> Vec<Text> {
    cells![
        group.counts.n,
        share_with_interval(group.a),
        share_with_interval(group.b),
        points(group.difference.value),
        points_interval(group.difference.interval),
        group.counts.only_a,
        group.counts.only_b,
    ]
}

fn share_with_interval(share: Estimate) -> String {
    format!("{} {}", percent(share.value), interval(share.interval, percent))
}

pub(super) fn points(share: f64) -> String {
    format!("{:+.2}", 100.0 * share).replace('-', "−")
}

fn points_interval(ends: Option<Interval>) -> String {
    interval(ends, points)
}

/// Three decimals. A small p-value is never shown as zero.
pub(super) fn probability(p: f64) -> String {
    if p < 0.001 { "< 0.001".into() } else { format!("{p:.3}") }
}

/// Notes below a task's row.
pub(super) fn task_notes(task: &TaskComparison) -> Vec<Text> {
    let counts = task.whole().counts;
    let discordant = counts.only_a + counts.only_b;
    let mut notes = Vec::new();
    if task.is_identical() {
        notes.push(text!("every answer is identical"));
    } else if discordant < LEAST_DISCORDANT {
        notes.push(text!("{discordant} items flipped: with fewer than {fewest} the exact test cannot come below 0.05, whatever they say", discordant, fewest = LEAST_DISCORDANT));
    }
    if task.join.answers_differ > 0 {
        notes.push(text!(
            "{answers_differ} more answers changed, right or wrong as before",
            answers_differ = task.join.answers_differ
        ));
    }
    if let Some(least) = task.detectable.filter(|_| !task.is_identical()) {
        notes.push(text!(
            "{n} items with so many flips find a true difference of {least} points four times in five",
            n = counts.n,
            least = format!("{:.1}", 100.0 * least)
        ));
    }
    if matches!(task.verdict, AccuracyVerdict::Better | AccuracyVerdict::Worse)
        && task.whole().difference.value.abs() < 0.01
    {
        notes.push(text!("a real difference, of less than a point"));
    }
    notes
}

/// Every common case and phase.
pub(super) fn speed(comparison: &Comparison, pair: &Pair) -> Table {
    let column = |side: &Side| text!("{letter}, {clock} ms", letter = side.letter, clock = side.clock());
    let times_of = [column(comparison.base()), column(comparison.other(pair))];
    let modelled = comparison.base().is_modelled() && comparison.other(pair).is_modelled();
    let title = text!("Speed, {against}", against = against(comparison, pair));
    let tested = !comparison.base().is_modelled() && !comparison.other(pair).is_modelled();
    let comparable = tested || modelled;
    let rest = match (tested, modelled) {
        (true, _) => texts!["× as fast", "Time", "95 % interval", "p (Holm)", "n", "Verdict"].to_vec(),
        (_, true) => texts!["× as fast", "Time, modelled", "n", "Verdict"].to_vec(),
        _ => texts!["n", "Verdict"].to_vec(),
    };
    let numbers: Vec<Text> = times_of.into_iter().chain(rest).collect();
    let mut table = Table::new(title, &texts!["Case", "Phase"], &numbers);
    words_last(&mut table);
    for case in &pair.cases {
        for (index, phase) in case.phases.iter().enumerate() {
            let name = if index == 0 { case.name() } else { String::new() };
            let mut cells = cells![name, phase.phase];
            let sides = [comparison.base().run(), comparison.other(pair).run()];
            let [a, b, ratio, ends, p, n, verdict] =
                phase_cells(sides, case, phase, comparison.options.threshold());
            cells.extend([a, b]);
            let speed = phase.ratio.filter(|ratio| *ratio > 0.0);
            let speed = or_none(speed, |ratio| times(1.0 / ratio));
            cells.extend(comparable.then_some([speed, ratio]).into_iter().flatten());
            cells.extend(if tested { vec![ends, p] } else { vec![] });
            cells.extend([n, verdict]);
            table.push(phase.phase == Phase::E2e, cells);
        }
    }
    table
}

fn phase_cells(
    sides: [&RunRecord; 2],
    case: &CaseComparison,
    phase: &PhaseComparison,
    threshold: f64,
) -> [Text; 7] {
    let (a, b) = (phase.a.reps, phase.b.reps);
    let n = match phase.basis {
        Some(Basis::Blocks(n)) => text!("{n} blocks", n),
        Some(Basis::Runs(a, b)) if a == b => text!("{a} runs", a),
        Some(Basis::Runs(a, b)) => text!("{a}+{b} runs", a, b),
        _ if a == b => a.to_text(),
        _ => format!("{a}+{b}").into(),
    };
    let leaning = match phase.leaning() {
        Some(word) => text!(
            " ({word}, by less than {threshold} %)",
            word,
            threshold = format!("{:.1}", 100.0 * threshold)
        ),
        None => Text::EMPTY,
    };
    let reason = match phase.unstable() {
        [] => Text::EMPTY,
        [reason] => text!(": {reason}", reason),
        [reason, ..] => text!(": {reason}; …", reason),
    };
    let differs = if case.same_output == Some(false) { text!("; outputs differ") } else { Text::EMPTY };
    [
        time(sides[0], &phase.a).into(),
        time(sides[1], &phase.b).into(),
        or_none(phase.ratio, |ratio| {
            let error = RatioError::between([(sides[0], &phase.a), (sides[1], &phase.b)]);
            error.map(|error| error.ends(ratio)).map_or_else(
                || change(ratio).into(),
                |of| {
                    text!(
                        "{ratio} ({low} to {high})",
                        ratio = change(ratio),
                        low = change(of.low),
                        high = change(of.high)
                    )
                },
            )
        }),
        interval(phase.interval, change).into(),
        or_none(phase.p_holm, probability).into(),
        n,
        phase.verdict.to_text() + reason + leaning + differs,
    ]
}

/// `1.718 ± 1 %`: the median and the larger half of its interval. A modelled time has the error of the model instead.
fn time(run: &RunRecord, row: &PerfRow) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    let Some(median) = row.median_ns.map(ms) else { return NONE.into() };
    let shown = fixed(Some(median), decimals([median]));
    let ends = row.interval_ns().filter(|_| row.clock == crate::record::Clock::Measured);
    match ends {
        Some(of) if median > 0.0 => {
            let half = (median - of.low / 1e6).max(of.high / 1e6 - median) / median;
            format!("{shown} ± {:.0} %", 100.0 * half)
        }
        _ => {
            match modelled::error_at(run, row.phase, row.tp, [row.batch, row.input_tokens, row.output_tokens])
            {
                Some(Ok(error)) => format!("{shown} {}", error.short()),
                _ => shown,
            }
        }
    }
}

/// A ratio of times as a change: `−17.2 %`.
pub(super) fn change(ratio: f64) -> String {
    format!("{:+.1} %", 100.0 * (ratio - 1.0)).replace('-', "−")
}

/// Notes below the speed table: why there is no verdict, remarks on the samples, geometric means.
pub(super) fn speed_notes(comparison: &Comparison, pair: &Pair) -> Vec<Text> {
    let mut notes = Vec::new();
    for case in &pair.cases {
        for phase in case.phases.iter().filter(|phase| !phase.notes.is_empty()) {
            notes.push(text!(
                "{case} {phase}: {notes}.",
                case = case.name(),
                phase = phase.phase,
                notes = joined(&phase.notes, "; ")
            ));
        }
    }
    let verdicts = pair.cases.iter().flat_map(|case| &case.phases).map(|phase| phase.verdict);
    if verdicts.clone().any(|v| v == SpeedVerdict::NotComparable) {
        notes.push(text!(
            "A measured time and a modelled one are not comparable; they are shown side by side and given no verdict."
        ));
    }
    if verdicts.clone().any(|v| v == SpeedVerdict::ModelledRatio) {
        notes.push(text!(
            "Both clocks are modelled: the ratio is one of two profiles, exact and without noise, and says nothing of hardware \
             beyond what the profiles assume. After a time stands the error of its model (* extrapolated), after a ratio its range by \
             both errors."
        ));
        let sides = [comparison.base(), comparison.other(pair)];
        let errors = sides.map(|side| {
            let words = modelled::sentence(side.run())?;
            Some(text!("{letter}: {words}", letter = side.letter, words))
        });
        notes.extend(errors.into_iter().flatten());
        let (a, b) = (&comparison.base().summary, &comparison.other(pair).summary);
        notes.extend(modelled::cards_sentence((&a.run, &a.performance), (&b.run, &b.performance)));
    }
    notes.extend(geomeans(comparison, pair));
    notes
}

/// The geometric mean ratio of each phase, with a caveat.
fn geomeans(comparison: &Comparison, pair: &Pair) -> Option<Text> {
    let (a, b) = (comparison.base(), comparison.other(pair));
    if a.clock() != b.clock() {
        return None;
    }
    let of = |phase| super::speed::geomean(&pair.cases, phase, a.clock()).map(|(mean, n)| (phase, mean, n));
    let means: Vec<(Phase, f64, usize)> = [Phase::Prefill, Phase::Decode, Phase::E2e]
        .into_iter()
        .filter_map(of)
        .filter(|(.., n)| *n > 1)
        .collect();
    let error = |of: Phase| {
        let phases = pair.cases.iter().flat_map(|case| &case.phases);
        let own = phases.filter(|phase| phase.phase == of && phase.ratio.is_some());
        RatioError::mean(own.map(|phase| RatioError::between([(a.run(), &phase.a), (b.run(), &phase.b)])))
    };
    let words: Vec<Text> = means
        .iter()
        .map(|(phase, mean, n)| {
            let ends = error(*phase).map(|error| error.ends(*mean));
            let range =
                ends.map(|of| text!(" ({low} to {high})", low = change(of.low), high = change(of.high)));
            text!(
                "{phase} {mean}{range} over {n} cases",
                phase,
                mean = change(*mean),
                range = range.unwrap_or_default(),
                n
            )
        })
        .collect();
    let clock = if a.is_modelled() { text!(" modelled") } else { Text::EMPTY };
    (!words.is_empty()).then(|| {
        text!("Geometric mean of the{clock} time ratios: {words}. It weighs every case alike, however seldom it is met, and hides a case \
             that moved the other way; it is no verdict.", clock, words = joined(&words, ", "))
    })
}

/// Two modelled cards, card with card and chip with chip.
pub(super) fn cards(comparison: &Comparison, pair: &Pair) -> Option<Table> {
    let (a, b) = (&comparison.base().summary, &comparison.other(pair).summary);
    modelled::cards((&a.run, &a.performance), (&b.run, &b.performance))
}

/// Peak memory, one row per case.
pub(super) fn memory(comparison: &Comparison, pair: &Pair) -> Table {
    let (a, b) = (comparison.base().letter, comparison.other(pair).letter);
    let title = text!("Peak memory, {against}", against = against(comparison, pair));
    let mut table = Table::new(title, &texts!["Case"], &[a.to_text(), b.to_text(), text!("Change")]);
    for case in &pair.cases {
        let Some(phase) = case.phases.iter().find(|phase| phase.phase == Phase::E2e) else { continue };
        let (a, b) = (phase.a.peak_memory_bytes(), phase.b.peak_memory_bytes());
        if a.is_none() && b.is_none() {
            continue;
        }
        let alike = phase.a.peak_memories(&phase.b);
        let ratio = alike.filter(|(a, _)| *a > 0).map(|(a, b)| b as f64 / a as f64);
        table.push(false, vec![case.name(), or_none(a, bytes), or_none(b, bytes), or_none(ratio, change)]);
    }
    table
}

/// The run as the command line accepts it: its name if it is in `reports/`, else its path.
fn run_word(side: &Side) -> String {
    let name = side.path.file_name().map(|name| name.to_string_lossy().into_owned());
    match (side.path.parent(), name) {
        (Some(parent), Some(name)) if parent == std::path::Path::new("reports") => name,
        _ => side.path.display().to_string(),
    }
}

/// Flipped items, farthest moved first, each with the command that shows it.
pub(super) fn flips(comparison: &Comparison, pair: &Pair, task: &TaskComparison) -> Table {
    let (a, b) = (comparison.base(), comparison.other(pair));
    let title = text!(
        "{task}: {items} items that flipped, farthest moved first, {against}",
        task = task.task,
        items = task.flips.len(),
        against = against(comparison, pair)
    );
    let margins = [a, b].map(|side| text!("Margin {letter}", letter = side.letter));
    let [item, right] = texts!["Item", "Right"];
    let [moved, look] = texts!["Moved", "Look at it"];
    let mut table = Table::new(
        title,
        &[Text::EMPTY, item, right, a.letter.to_text(), b.letter.to_text()],
        &margins.into_iter().chain([moved, look]).collect::<Vec<_>>(),
    );
    words_last(&mut table);
    let answer = |pred: &Option<String>| pred.clone().unwrap_or_else(|| NONE.to_owned());
    let nats = |margin: Option<f32>| fixed(margin.map(f64::from), 3);
    for flip in task.flips.iter().take(FLIPS_SHOWN) {
        table.push(
            false,
            cells![
                if flip.lost { text!("lost") } else { text!("gained") },
                flip.doc_id,
                flip.gold,
                answer(&flip.pred_a),
                answer(&flip.pred_b),
                nats(flip.margin_a),
                nats(flip.margin_b),
                nats(flip.moved()),
                format!("glmbench show {} {} --with {}", run_word(b), flip.doc_id, run_word(a)),
            ],
        );
    }
    table
}
