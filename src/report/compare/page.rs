//! What the pages of a comparison say.

use super::speed::SpeedVerdict;
use super::tables::{self, FLIPS_SHOWN};
use super::{Comparison, GateOutcome, Judgement, Pair, answer, fits, headline};
use crate::report::Summary;
use crate::report::definitions::DEFINITIONS;
use crate::report::format::command_line;
use crate::report::modelled::{evidence, memory};
use crate::report::page::{check, table};
use crate::report::published;
use crate::report::tables::Table;
use crate::stats::LEAST_DISCORDANT;
use minijinja::{Value, context};

/// What the table of what fits says.
const FITS_NOTE: &str = "Fits: beside the weights, by the planner's estimate for the whole model on these ranks. At 50 ms: of the timed batches, by \
     median time per token; ≥ where the largest timed one keeps it. Memory: the peak of one chip, or of the process, at the largest \
     batch that both timed.";

/// Context of the templates of comparisons.
pub(in crate::report) fn words(comparison: &Comparison, judgements: &[Judgement]) -> Value {
    let names: Vec<String> = comparison.sides.iter().map(|side| side.label()).collect();
    context! {
        title => names.join(" · "),
        facts => answer::facts(comparison).into_iter().map(|(name, text)| context! { name, text }).collect::<Vec<_>>(),
        headline => headline::sentences(comparison),
        runs => table(&tables::runs(comparison)),
        gates => judgements.iter().map(light).collect::<Vec<_>>(),
        gate_table => table(&tables::gates(judgements)),
        gate_note => gate_note(judgements),
        mismatches => mismatches(comparison).iter().map(table).collect::<Vec<_>>(),
        pairs => comparison.pairs.iter().map(|pair| pair_words(comparison, pair)).collect::<Vec<_>>(),
        references => references(comparison).iter().map(table).collect::<Vec<_>>(),
        validity => comparison.sides.iter().map(|side| context! {
            name => side.label(),
            verdict => side.summary.verdict_sentence(),
            checks => side.summary.checks.iter().map(check).collect::<Vec<_>>(),
        }).collect::<Vec<_>>(),
        commands => comparison.sides.iter().map(|side| context! {
            letter => side.letter.to_string(),
            command => command_line(&side.run().provenance.command_line),
        }).collect::<Vec<_>>(),
        beside => comparison.beside.iter().map(beside_words).collect::<Vec<_>>(),
        definitions => definitions(comparison),
    }
}

/// A gate as a traffic light: a sign, a word and a colour.
fn light(judgement: &Judgement) -> Value {
    let (class, sign) = match judgement.outcome {
        GateOutcome::Pass => ("pass", "✓"),
        GateOutcome::Fail => ("fail", "✗"),
        GateOutcome::Undecided => ("undecided", "?"),
    };
    context! {
        class, sign,
        word => judgement.outcome.to_string(),
        gate => judgement.gate.as_str(),
        run => judgement.run.as_str(),
        limit => judgement.limit.as_str(),
        found => judgement.found.as_str(),
        decide => judgement.decide.clone().unwrap_or_default(),
    }
}

/// A run that is shown but not compared.
fn beside_words(summary: &Summary) -> Value {
    let from = &summary.run.provenance;
    context! {
        title => format!("Beside it: {} on {} in {}, {}", from.model, from.device, from.dtype, from.clock),
        headline => summary.headline.clone(),
        tables => summary.tables.iter().map(table).collect::<Vec<_>>(),
        report => format!("{}/report.html", summary.run.run_id),
    }
}

/// Tables of the identity differences. With any of these, the scores are not of the same thing.
fn mismatches(comparison: &Comparison) -> Vec<Table> {
    let of_pair = |pair: &Pair| {
        let sides = (comparison.base(), comparison.other(pair));
        let title = format!("Identity differs between {} and {}", sides.0.letter, sides.1.letter);
        tables::fields(title, sides, &pair.differences.identity)
    };
    let tables = comparison.pairs.iter().map(of_pair);
    tables.filter(|table| !table.rows.is_empty()).collect()
}

fn pair_words(comparison: &Comparison, pair: &Pair) -> Value {
    let sides = (comparison.base(), comparison.other(pair));
    let title = format!("What differs between {} and {}", sides.0.letter, sides.1.letter);
    let accuracy = tables::accuracy(comparison, pair);
    let speed = tables::speed(comparison, pair);
    let fits = fits::table(comparison, pair);
    let accuracy_notes: Vec<String> = pair
        .tasks
        .iter()
        .map(|task| (&task.task, tables::task_notes(task)))
        .filter(|(_, notes)| !notes.is_empty())
        .map(|(task, notes)| format!("{task}: {}.", notes.join("; ")))
        .collect();
    context! {
        fits => (!fits.rows.is_empty()).then(|| table(&fits)),
        fits_note => FITS_NOTE,
        differs => table(&tables::fields(title, sides, &pair.differences.provenance)),
        same => pair.differences.same.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(" · "),
        notes => pair.notes.clone(),
        accuracy => (!accuracy.rows.is_empty()).then(|| table(&accuracy)),
        accuracy_notes,
        flips => pair.tasks.iter().filter(|task| !task.flips.is_empty()).map(|task| context! {
            table => table(&tables::flips(comparison, pair, task)),
            more => task.flips.len().saturating_sub(FLIPS_SHOWN),
        }).collect::<Vec<_>>(),
        speed => (!speed.rows.is_empty()).then(|| table(&speed)),
        workloads => pair
            .workloads
            .iter()
            .map(|common| common.table(comparison, pair))
            .chain(tables::cards(comparison, pair))
            .filter(|table| !table.rows.is_empty())
            .map(|shown| table(&shown))
            .collect::<Vec<_>>(),
        speed_notes => tables::speed_notes(comparison, pair),
        decided => pair.cases.iter().flat_map(|c| &c.phases).any(|p| !matches!(
            p.verdict,
            SpeedVerdict::ModelledRatio
                | SpeedVerdict::NotComparable
                | SpeedVerdict::Invalid
                | SpeedVerdict::NotInTurn
        )),
        threshold => comparison.options.threshold_words(),
        margin => format!("{:.1}", 100.0 * comparison.options.accuracy_margin),
    }
}

/// Every table of the page, in its order.
pub(in crate::report) fn tables(comparison: &Comparison, judgements: &[Judgement]) -> Vec<Table> {
    let of_pair = |pair: &Pair| {
        let flips = pair.tasks.iter().filter(|task| !task.flips.is_empty());
        let sides = (comparison.base(), comparison.other(pair));
        let differs = format!("What differs between {} and {}", sides.0.letter, sides.1.letter);
        let first = [
            fits::table(comparison, pair),
            tables::accuracy(comparison, pair),
            tables::speed(comparison, pair),
            tables::fields(differs, sides, &pair.differences.provenance),
        ];
        let workloads = pair.workloads.iter().map(|common| common.table(comparison, pair));
        first
            .into_iter()
            .chain(flips.map(|task| tables::flips(comparison, pair, task)))
            .chain(workloads)
            .chain(tables::cards(comparison, pair))
            .collect::<Vec<_>>()
    };
    let mut all = mismatches(comparison);
    all.extend([tables::runs(comparison), tables::gates(judgements)]);
    all.extend(comparison.pairs.iter().flat_map(of_pair));
    all.extend(references(comparison));
    all.extend(details(comparison));
    all.retain(|table| !table.rows.is_empty());
    all
}

/// The folded tables: memory, and each task by subject.
pub(in crate::report) fn details(comparison: &Comparison) -> Vec<Table> {
    let of_pair = |pair| {
        let by_subject = pair_tasks(comparison, pair);
        std::iter::once(tables::memory(comparison, pair)).chain(by_subject)
    };
    let evidence = evidence(comparison);
    comparison.pairs.iter().flat_map(of_pair).chain(evidence).filter(|table| !table.rows.is_empty()).collect()
}

/// What modelled times rest on: published speeds, once, and the figures of every profile. Memory of the cards.
fn evidence(comparison: &Comparison) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for side in &comparison.sides {
        let memory = memory::table(side.run(), &side.summary.performance).map(|table| {
            let title = format!("{}: {}", side.label(), table.title);
            Table { title, ..table }
        });
        for table in memory.into_iter().chain(evidence::tables(side.run())) {
            if tables.iter().all(|known| known.title != table.title) {
                tables.push(table);
            }
        }
    }
    tables
}

fn pair_tasks<'a>(comparison: &'a Comparison, pair: &'a Pair) -> impl Iterator<Item = Table> + 'a {
    pair.tasks.iter().map(move |task| tables::groups(comparison, pair, task))
}

/// The published figure beside each run that it applies to.
fn references(comparison: &Comparison) -> Vec<Table> {
    let of = |side: &super::Side| {
        let mut table = published::reference(side.run(), &side.summary.performance)?;
        table.title = format!("{}: {}", table.title, side.label());
        Some(table)
    };
    comparison.sides.iter().filter_map(of).collect()
}

fn gate_note(judgements: &[Judgement]) -> &'static str {
    if judgements.is_empty() {
        return "";
    }
    "A gate passes when the whole 95 % interval is within its limit. It fails when the whole interval is past it. In between it is \
     undecided. It is also undecided without an interval. So is a limit on two runs that were not timed in turn, unless a noise \
     floor is given or the gate says untimed = \"ratio\". A ratio of times fails only at a level which all phases of the \
     comparison share."
}

/// The statistics of the comparison, then the definitions of all figures.
fn definitions(comparison: &Comparison) -> Vec<Value> {
    let threshold = format!(
        "ratio of times, B ÷ A, below 1 where B takes less. The unit of evidence is what was placed anew: a block or a run. In a \
         block, a process of its own times both in turn (A B B A). Repetitions within a unit are one figure. A block's value is the median \
         log-ratio of its pairs of neighbours. The exact sign-flip test is over the blocks. p is adjusted by Holm for all \
         phases of the comparison. The 95 % interval is the inversion of the test. The two columns are geometric means of the \
         blocks' medians, so their ratio differs a little. Of several runs a side: the same with the medians of the runs and \
         the exact permutation test. Faster or slower: no difference is ruled out (adjusted p below 0.05) and the ratio is past the \
         threshold of {}. Same: the 90 % interval lies within the threshold (two one-sided tests at 5 %). Otherwise it cannot be \
         told. Two runs alone get a verdict only against a noise floor measured between runs. Their difference, with the bootstrap \
         interval within the runs, has to clear it. Without a floor, the ratio of their medians is shown as not timed in turn. A phase \
         with fewer than 5 repetitions, a median not known to ± 5 % or a drift of 5 % is unstable, and never called.",
        comparison.options.threshold_words()
    );
    let accuracy = format!(
        "items paired by content. Change: second less first. Its interval is a percentile bootstrap of 10,000 resamples, paired and \
         stratified by subject. Where fewer than {LEAST_DISCORDANT} items differ it is Tango's score interval, since resampling a few \
         hardly varies. Better or worse: exact McNemar, two-sided, adjusted by Holm for all tasks, below 0.05. Same: the 90 % score \
         interval within ± {:.1} points, so that equal answers to few items are not enough. Otherwise it cannot be told. n is then the \
         number of items that would decide with probability 0.8. Where no item differs, n would decide if none did.",
        100.0 * comparison.options.accuracy_margin
    );
    let own = [("Verdict on accuracy", accuracy), ("Verdict on speed", threshold)];
    let own = own.into_iter().map(|(name, text)| context! { name, text });
    let mut rest: Vec<_> = DEFINITIONS.into_iter().collect();
    for side in &comparison.sides {
        rest.extend(crate::report::workloads::definitions(side.run()));
    }
    let mut seen = std::collections::BTreeSet::new();
    rest.retain(|(name, _)| seen.insert(*name));
    own.chain(rest.into_iter().map(|(name, text)| context! { name, text })).collect()
}
