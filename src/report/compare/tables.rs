//! The tables of a comparison, as formatted text.

use super::accuracy::{AccuracyVerdict, GroupComparison, MacroMean, TaskComparison};
use super::speed::{CaseComparison, PhaseComparison, SpeedVerdict};
use super::{Basis, Comparison, Field, Judgement, Pair, Side, answer};
use crate::record::{PerfRow, Phase, RunRecord};
use crate::report::accuracy::ALL;
use crate::report::format::{NONE, bytes, decimals, fixed, interval, or_none, percent, times};
use crate::report::modelled::{self, RatioError};
use crate::report::tables::Table;
use crate::stats::{Estimate, Interval, LEAST_DISCORDANT};

/// Number of flips shown on the page. `flips.csv` has all of them.
pub(super) const FLIPS_SHOWN: usize = 50;

/// The tables for the terminal: runs, gates, accuracy, speed, and the other workloads.
pub(super) fn main_tables(comparison: &Comparison, judgements: &[Judgement]) -> Vec<Table> {
    let mut tables = vec![runs(comparison)];
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
    let mut table =
        Table::new("Runs".into(), &["", "Name", "Model", "Run", "Device", "Type", "Clock", "Validity"], &[]);
    for side in &comparison.sides {
        let from = &side.run().provenance;
        table.push(
            false,
            vec![
                side.letter.to_string(),
                side.name.clone(),
                from.model.clone(),
                side.run().run_id.clone(),
                from.device.to_string(),
                from.dtype.to_string(),
                from.clock.to_string(),
                side.summary.short_verdict().to_owned(),
            ],
        );
    }
    table
}

/// Differing fields, one row each.
pub(super) fn fields(title: String, (a, b): (&Side, &Side), fields: &[Field]) -> Table {
    let mut table = Table::new(title, &["Field", &a.letter.to_string(), &b.letter.to_string()], &[]);
    for field in fields {
        let value = |value: &Option<String>| or_none(value.clone(), |text| text);
        table.push(false, vec![field.name.clone(), value(&field.left), value(&field.right)]);
    }
    table
}

/// The outcomes of the gates.
pub fn gates(judgements: &[Judgement]) -> Table {
    let mut table = Table::new("Gates".into(), &["Gate", "Run", "Limit", "Found", "Outcome"], &[]);
    for judgement in judgements {
        table.push(
            false,
            vec![
                judgement.gate.clone(),
                judgement.run.clone(),
                judgement.limit.clone(),
                judgement.found.clone(),
                judgement.outcome.to_string(),
            ],
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

fn against(comparison: &Comparison, pair: &Pair) -> String {
    format!("{} against {}", comparison.other(pair).label(), comparison.base().label())
}

/// Every common task: all items, and the mean over subjects.
pub(super) fn accuracy(comparison: &Comparison, pair: &Pair) -> Table {
    let (a, b) = (comparison.base().letter, comparison.other(pair).letter);
    let (name_a, name_b) = (format!("{a} %"), format!("{b} %"));
    let mut table = Table::new(
        format!("Accuracy in percent, {}", against(comparison, pair)),
        &["Task", "Over"],
        &["Items", &name_a, &name_b, "Change", "95 % interval", "Lost", "Gained", "p", "p (Holm)", "Verdict"],
    );
    words_last(&mut table);
    for task in &pair.tasks {
        let whole = task.whole();
        let named = task.task.ends_with(&task.protocol);
        let name = if named { task.task.clone() } else { format!("{} ({})", task.task, task.protocol) };
        let mut cells = vec![name, "items".into()];
        cells.extend(group_cells(whole));
        cells.extend([probability(task.p), probability(task.p_holm), answer::shown(task)]);
        table.push(true, cells);
        if let Some(MacroMean { a, b, difference }) = task.macro_mean {
            let mut cells = vec![String::new(), "subjects".into(), String::new()];
            cells.extend([
                percent(a),
                percent(b),
                points(difference.value),
                points_interval(difference.interval),
            ]);
            cells.extend((0..5).map(|_| String::new()));
            table.push(false, cells);
        }
    }
    table
}

/// One task by category and subject. Without tests, because there would be many.
pub(super) fn groups(comparison: &Comparison, pair: &Pair, task: &TaskComparison) -> Table {
    let (a, b) = (comparison.base().letter, comparison.other(pair).letter);
    let (name_a, name_b) = (format!("{a} %"), format!("{b} %"));
    let mut table = Table::new(
        format!("{} by subject, {}", task.task, against(comparison, pair)),
        &["Category", "Subject"],
        &["Items", &name_a, &name_b, "Change, points", "95 % interval", "Lost", "Gained"],
    );
    for group in task.groups.iter().skip(1) {
        let mut cells = vec![group.category.clone(), group.subject.clone()];
        cells.extend(group_cells(group));
        table.push(group.subject == ALL, cells);
    }
    table
}

fn group_cells(group: &GroupComparison) -> Vec<String> {
    vec![
        group.counts.n.to_string(),
        share_with_interval(group.a),
        share_with_interval(group.b),
        points(group.difference.value),
        points_interval(group.difference.interval),
        group.counts.only_a.to_string(),
        group.counts.only_b.to_string(),
    ]
}

fn share_with_interval(share: Estimate) -> String {
    format!("{} {}", percent(share.value), interval(share.interval, percent))
}

fn points(share: f64) -> String {
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
pub(super) fn task_notes(task: &TaskComparison) -> Vec<String> {
    let counts = task.whole().counts;
    let discordant = counts.only_a + counts.only_b;
    let mut notes = Vec::new();
    if task.is_identical() {
        notes.push("every answer is identical".to_owned());
    } else if discordant < LEAST_DISCORDANT {
        notes.push(format!(
            "{discordant} items flipped: with fewer than {LEAST_DISCORDANT} the exact test cannot come below 0.05, whatever they say"
        ));
    }
    if task.join.answers_differ > 0 {
        notes.push(format!("{} more answers changed, right or wrong as before", task.join.answers_differ));
    }
    if let Some(least) = task.detectable.filter(|_| !task.is_identical()) {
        notes.push(format!(
            "{} items with so many flips find a true difference of {:.1} points four times in five",
            counts.n,
            100.0 * least
        ));
    }
    if matches!(task.verdict, AccuracyVerdict::Better | AccuracyVerdict::Worse)
        && task.whole().difference.value.abs() < 0.01
    {
        notes.push("a real difference, of less than a point".to_owned());
    }
    notes
}

/// Every common case and phase.
pub(super) fn speed(comparison: &Comparison, pair: &Pair) -> Table {
    let column = |side: &Side| format!("{}, {} ms", side.letter, side.clock());
    let (name_a, name_b) = (column(comparison.base()), column(comparison.other(pair)));
    let modelled = comparison.base().is_modelled() && comparison.other(pair).is_modelled();
    let change = if modelled { "Time, modelled" } else { "Time" };
    let title = format!("Speed, {}", against(comparison, pair));
    let tested = !comparison.base().is_modelled() && !comparison.other(pair).is_modelled();
    let comparable = tested || modelled;
    let numbers: &[&str] = match (tested, modelled) {
        (true, _) => &[&name_a, &name_b, "× as fast", change, "95 % interval", "p (Holm)", "n", "Verdict"],
        (_, true) => &[&name_a, &name_b, "× as fast", change, "n", "Verdict"],
        _ => &[&name_a, &name_b, "n", "Verdict"],
    };
    let mut table = Table::new(title, &["Case", "Phase"], numbers);
    words_last(&mut table);
    for case in &pair.cases {
        for (index, phase) in case.phases.iter().enumerate() {
            let name = if index == 0 { case.name() } else { String::new() };
            let mut cells = vec![name, phase.phase.to_string()];
            let sides = [comparison.base().run(), comparison.other(pair).run()];
            let [a, b, ratio, ends, p, n, verdict] =
                phase_cells(sides, case, phase, comparison.options.threshold());
            cells.extend([a, b]);
            let speed = phase.ratio.filter(|ratio| *ratio > 0.0).map(|ratio| times(1.0 / ratio));
            cells.extend(comparable.then(|| [or_none(speed, |speed| speed), ratio]).into_iter().flatten());
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
) -> [String; 7] {
    let (a, b) = (phase.a.reps, phase.b.reps);
    let n = match phase.basis {
        Some(Basis::Blocks(n)) => format!("{n} blocks"),
        Some(Basis::Runs(a, b)) if a == b => format!("{a} runs"),
        Some(Basis::Runs(a, b)) => format!("{a}+{b} runs"),
        _ if a == b => a.to_string(),
        _ => format!("{a}+{b}"),
    };
    let leaning = match phase.leaning() {
        Some(word) => format!(" ({word}, by less than {:.1} %)", 100.0 * threshold),
        None => String::new(),
    };
    let reason = match phase.unstable() {
        [] => String::new(),
        [reason] => format!(": {reason}"),
        [reason, ..] => format!(": {reason}; …"),
    };
    let differs = if case.same_output == Some(false) { "; outputs differ" } else { "" };
    [
        time(sides[0], &phase.a),
        time(sides[1], &phase.b),
        or_none(phase.ratio, |ratio| {
            let error = RatioError::between([(sides[0], &phase.a), (sides[1], &phase.b)]);
            error.map(|error| error.ends(ratio)).map_or_else(
                || change(ratio),
                |of| format!("{} ({} to {})", change(ratio), change(of.low), change(of.high)),
            )
        }),
        interval(phase.interval, change),
        or_none(phase.p_holm, probability),
        n,
        format!("{}{reason}{leaning}{differs}", phase.verdict),
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
pub(super) fn speed_notes(comparison: &Comparison, pair: &Pair) -> Vec<String> {
    let mut notes = Vec::new();
    for case in &pair.cases {
        for phase in case.phases.iter().filter(|phase| !phase.notes.is_empty()) {
            notes.push(format!("{} {}: {}.", case.name(), phase.phase, phase.notes.join("; ")));
        }
    }
    let verdicts = pair.cases.iter().flat_map(|case| &case.phases).map(|phase| phase.verdict);
    if verdicts.clone().any(|v| v == SpeedVerdict::NotComparable) {
        notes.push("A measured time and a modelled one are not comparable; they are shown side by side and given no verdict.".into());
    }
    if verdicts.clone().any(|v| v == SpeedVerdict::ModelledRatio) {
        notes.push(
            "Both clocks are modelled: the ratio is one of two profiles, exact and without noise, and says nothing of hardware \
             beyond what the profiles assume. After a time stands the error of its model (* extrapolated), after a ratio its range by \
             both errors."
                .into(),
        );
        let sides = [comparison.base(), comparison.other(pair)];
        let errors =
            sides.map(|side| modelled::sentence(side.run()).map(|words| format!("{}: {words}", side.letter)));
        notes.extend(errors.into_iter().flatten());
        let (a, b) = (&comparison.base().summary, &comparison.other(pair).summary);
        notes.extend(modelled::cards_sentence((&a.run, &a.performance), (&b.run, &b.performance)));
    }
    notes.extend(geomeans(comparison, pair));
    notes
}

/// The geometric mean of each phase's ratios, with a caveat.
fn geomeans(comparison: &Comparison, pair: &Pair) -> Option<String> {
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
    let words: Vec<String> = means
        .iter()
        .map(|(phase, mean, n)| {
            let ends = error(*phase).map(|error| error.ends(*mean));
            let range = ends.map(|of| format!(" ({} to {})", change(of.low), change(of.high)));
            format!("{phase} {}{} over {n} cases", change(*mean), range.unwrap_or_default())
        })
        .collect();
    let clock = if a.is_modelled() { " modelled" } else { "" };
    (!words.is_empty()).then(|| {
        format!(
            "Geometric mean of the{clock} time ratios: {}. It weighs every case alike, however seldom it is met, and hides a case \
             that moved the other way; it is no verdict.",
            words.join(", ")
        )
    })
}

/// Two modelled cards, card with card and chip with chip.
pub(super) fn cards(comparison: &Comparison, pair: &Pair) -> Option<Table> {
    let (a, b) = (&comparison.base().summary, &comparison.other(pair).summary);
    modelled::cards((&a.run, &a.performance), (&b.run, &b.performance))
}

/// Peak memory, one row per case.
pub(super) fn memory(comparison: &Comparison, pair: &Pair) -> Table {
    let (a, b) = (comparison.base().letter.to_string(), comparison.other(pair).letter.to_string());
    let title = format!("Peak memory, {}", against(comparison, pair));
    let mut table = Table::new(title, &["Case"], &[&a, &b, "Change"]);
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
    let title = format!(
        "{}: {} items that flipped, farthest moved first, {}",
        task.task,
        task.flips.len(),
        against(comparison, pair)
    );
    let (name_a, name_b) = (a.letter.to_string(), b.letter.to_string());
    let (margin_a, margin_b) = (format!("Margin {name_a}"), format!("Margin {name_b}"));
    let mut table = Table::new(
        title,
        &["", "Item", "Right", &name_a, &name_b],
        &[&margin_a, &margin_b, "Moved", "Look at it"],
    );
    words_last(&mut table);
    let answer = |pred: &Option<String>| pred.clone().unwrap_or_else(|| NONE.to_owned());
    let nats = |margin: Option<f32>| fixed(margin.map(f64::from), 3);
    for flip in task.flips.iter().take(FLIPS_SHOWN) {
        table.push(
            false,
            vec![
                if flip.lost { "lost" } else { "gained" }.into(),
                flip.doc_id.clone(),
                flip.gold.clone(),
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
