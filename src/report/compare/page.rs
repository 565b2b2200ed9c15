//! What the pages of a comparison say.

use super::speed::SpeedVerdict;
use super::tables::{self, FLIPS_SHOWN};
use super::{Comparison, GateOutcome, Judgement, Pair, TaskComparison, answer, fits, headline, overview};
use crate::language::{Language, Text, ToText, joined, text};
use crate::report::Summary;
use crate::report::definitions::DEFINITIONS;
use crate::report::format::command_line;
use crate::report::page::{check, definition, table};
use crate::report::table::Table;
use crate::report::{card_memory, evidence, published};
use crate::stats::LEAST_DISCORDANT;
use minijinja::{Value, context};

/// What the table of what fits says.
const FITS_NOTE: Text = text!(
    "Fits: beside the weights, by the planner's estimate for the whole model on these ranks. At 50 ms: of the timed batches, by \
     median time per token; ≥ where the largest timed one keeps it. Memory: the peak of one chip, or of the process, at the largest \
     batch that both timed."
);

/// Context of the templates of comparisons.
pub(in crate::report) fn words(comparison: &Comparison, judgements: &[Judgement]) -> Value {
    let language = comparison.options.language;
    let say = |text: &Text| text.in_language(language);
    let names: Vec<String> = comparison.sides.iter().map(|side| say(&side.label())).collect();
    let table = |of: &Table| table(of, language);
    let some = |of: Table| (!of.rows.is_empty()).then(|| table(&of));
    context! {
        heading => say(&text!("Comparison: {runs}", runs = names.join(" · "))),
        title => names.join(" · "),
        facts => answer::facts(comparison).iter().map(|of| definition(of, language)).collect::<Vec<_>>(),
        headline => headline::sentences(comparison).iter().map(say).collect::<Vec<_>>(),
        runs => table(&tables::runs(comparison)),
        overview => some(overview::table(comparison)),
        gates => judgements.iter().map(|judgement| light(judgement, language)).collect::<Vec<_>>(),
        gate_table => table(&tables::gates(judgements)),
        gate_note => say(&gate_note(judgements)),
        mismatches => mismatches(comparison).iter().map(table).collect::<Vec<_>>(),
        pairs => comparison.pairs.iter().map(|pair| pair_words(comparison, pair)).collect::<Vec<_>>(),
        references => references(comparison).iter().map(table).collect::<Vec<_>>(),
        validity => comparison.sides.iter().map(|side| context! {
            title => say(&text!(
                "Validity of {run}: {verdict}",
                run = side.label(),
                verdict = side.summary.verdict_sentence()
            )),
            line => say(&text!("{run}: {verdict}", run = side.label(), verdict = side.summary.verdict_sentence())),
            checks => side.summary.checks.iter().map(|of| check(of, language)).collect::<Vec<_>>(),
        }).collect::<Vec<_>>(),
        commands => comparison.sides.iter().map(|side| context! {
            made_by => say(&text!("{letter} was made by", letter = side.letter)),
            command => command_line(&side.run().provenance.command_line),
        }).collect::<Vec<_>>(),
        beside => comparison.beside.iter().map(|run| beside_words(run, language)).collect::<Vec<_>>(),
        definitions => definitions(comparison).iter().map(|of| definition(of, language)).collect::<Vec<_>>(),
    }
}

/// A gate as a traffic light: a sign, a word and a colour.
fn light(judgement: &Judgement, language: Language) -> Value {
    let say = |text: &Text| text.in_language(language);
    let (class, sign) = match judgement.outcome {
        GateOutcome::Pass => ("pass", "✓"),
        GateOutcome::Fail => ("fail", "✗"),
        GateOutcome::Undecided => ("undecided", "?"),
    };
    context! {
        class, sign,
        word => say(&judgement.outcome.to_text()),
        gate => say(&judgement.gate),
        run => judgement.run.as_str(),
        limit => say(&judgement.limit),
        found => say(&judgement.found),
        decide => judgement.decide.as_ref().map(say).unwrap_or_default(),
    }
}

/// A run that is shown but not compared.
fn beside_words(summary: &Summary, language: Language) -> Value {
    let say = |text: &Text| text.in_language(language);
    let from = &summary.run.provenance;
    let title = text!(
        "Beside it: {model} on {device} in {dtype}, {clock}",
        model = from.model,
        device = from.device,
        dtype = from.dtype,
        clock = from.clock
    );
    let report = format!("{}/report.html", summary.run.run_id);
    let note = text!(
        "A run of the same command that is not of the same thing: shown, not compared. Its own report is {report}.",
        report
    );
    context! {
        title => say(&title),
        headline => summary.headline.iter().map(say).collect::<Vec<_>>(),
        tables => summary.tables.iter().map(|of| table(of, language)).collect::<Vec<_>>(),
        note => say(&note),
    }
}

/// Tables of the identity differences. With any of these, the scores are not of the same thing.
fn mismatches(comparison: &Comparison) -> Vec<Table> {
    let of_pair = |pair: &Pair| {
        let sides = (comparison.base(), comparison.other(pair));
        let title = text!("Identity differs between {a} and {b}", a = sides.0.letter, b = sides.1.letter);
        tables::fields(title, sides, &pair.differences.identity)
    };
    let tables = comparison.pairs.iter().map(of_pair);
    tables.filter(|table| !table.rows.is_empty()).collect()
}

fn pair_words(comparison: &Comparison, pair: &Pair) -> Value {
    let language = comparison.options.language;
    let say = |text: &Text| text.in_language(language);
    let table = |of: &Table| table(of, language);
    let some = |of: Table| (!of.rows.is_empty()).then(|| table(&of));
    let flips = |task: &&TaskComparison| {
        let more = task.flips.len().saturating_sub(FLIPS_SHOWN);
        context! {
            table => table(&tables::flips(comparison, pair, task)),
            more => (more > 0).then(|| say(&text!("{more} more are in flips.csv.", more))),
        }
    };
    let is_decided = pair.cases.iter().flat_map(|c| &c.phases).any(|p| {
        !matches!(
            p.verdict,
            SpeedVerdict::ModelledRatio
                | SpeedVerdict::NotComparable
                | SpeedVerdict::Invalid
                | SpeedVerdict::NotInTurn
        )
    });
    let threshold = text!(
        "Threshold {threshold}: changes within it are called the same, once their interval is.",
        threshold = comparison.options.threshold_words()
    );
    let same = pair.differences.same.iter().map(|(name, value)| text!("{name} {value}", name, value));
    let others = pair.workloads.iter().map(|common| common.table(comparison, pair));
    context! {
        fits => some(fits::table(comparison, pair)),
        fits_note => say(&FITS_NOTE),
        differs => table(&differs(comparison, pair)),
        same => say(&text!("The same in both: {fields}", fields = joined(same, " · "))),
        notes => pair.notes.iter().map(say).collect::<Vec<_>>(),
        accuracy => some(tables::accuracy(comparison, pair)),
        accuracy_notes => pair.tasks.iter().filter_map(task_notes).map(|note| say(&note)).collect::<Vec<_>>(),
        flips => pair.tasks.iter().filter(|task| !task.flips.is_empty()).map(|task| flips(&task)).collect::<Vec<_>>(),
        speed => some(tables::speed(comparison, pair)),
        workloads => others.chain(tables::cards(comparison, pair)).filter_map(some).collect::<Vec<_>>(),
        speed_notes => tables::speed_notes(comparison, pair).iter().map(say).collect::<Vec<_>>(),
        threshold => is_decided.then(|| say(&threshold)),
    }
}

/// The notes below a task's row, in a sentence.
fn task_notes(task: &TaskComparison) -> Option<Text> {
    let notes = tables::task_notes(task);
    (!notes.is_empty()).then(|| text!("{task}: {notes}.", task = task.task, notes = joined(notes, "; ")))
}

/// What differs about the two runs.
fn differs(comparison: &Comparison, pair: &Pair) -> Table {
    let sides = (comparison.base(), comparison.other(pair));
    let title = text!("What differs between {a} and {b}", a = sides.0.letter, b = sides.1.letter);
    tables::fields(title, sides, &pair.differences.provenance)
}

/// Every table of the page, in its order.
pub(in crate::report) fn tables(comparison: &Comparison, judgements: &[Judgement]) -> Vec<Table> {
    let of_pair = |pair: &Pair| {
        let flips = pair.tasks.iter().filter(|task| !task.flips.is_empty());
        let first = [
            fits::table(comparison, pair),
            tables::accuracy(comparison, pair),
            tables::speed(comparison, pair),
            differs(comparison, pair),
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
    all.extend([tables::runs(comparison), overview::table(comparison), tables::gates(judgements)]);
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
        let memory = card_memory::table(side.run(), &side.summary.performance).map(|table| {
            let title = text!("{run}: {title}", run = side.label(), title = table.title);
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
        table.title = text!("{title}: {run}", title = table.title, run = side.label());
        Some(table)
    };
    comparison.sides.iter().filter_map(of).collect()
}

fn gate_note(judgements: &[Judgement]) -> Text {
    if judgements.is_empty() {
        return Text::EMPTY;
    }
    text!(
        "A gate passes when the whole 95 % interval is within its limit. It fails when the whole interval is past it. In between it \
         is undecided. It is also undecided without an interval. So is a limit on two runs that were not timed in turn, unless a \
         noise floor is given or the gate says untimed = \"ratio\". A ratio of times fails only at a level which all phases of the \
         comparison share."
    )
}

/// The statistics of the comparison, then the definitions of all figures.
fn definitions(comparison: &Comparison) -> Vec<(Text, Text)> {
    let threshold = text!(
        "ratio of times, B ÷ A, below 1 where B takes less. The unit of evidence is what was placed anew: a block or a run. In a \
         block, a process of its own times both in turn (A B B A). Repetitions within a unit are one figure. A block's value is the median \
         log-ratio of its pairs of neighbours. The exact sign-flip test is over the blocks. p is adjusted by Holm for all \
         phases of the comparison. The 95 % interval is the inversion of the test. The two columns are geometric means of the \
         blocks' medians, so their ratio differs a little. Of several runs a side: the same with the medians of the runs and \
         the exact permutation test. Faster or slower: no difference is ruled out (adjusted p below 0.05) and the ratio is past the \
         threshold of {threshold}. Same: the 90 % interval lies within the threshold (two one-sided tests at 5 %). Otherwise it cannot be \
         told. Two runs alone get a verdict only against a noise floor measured between runs. Their difference, with the bootstrap \
         interval within the runs, has to clear it. Without a floor, the ratio of their medians is shown as not timed in turn. A phase \
         with fewer than 5 repetitions, a median not known to ± 5 % or a drift of 5 % is unstable, and never called.",
        threshold = comparison.options.threshold_words()
    );
    let accuracy = text!(
        "items paired by content. Change: second less first. Its interval is a percentile bootstrap of 10,000 resamples, paired and \
         stratified by subject. Where fewer than {fewest} items differ it is Tango's score interval, since resampling a few \
         hardly varies. Better or worse: exact McNemar, two-sided, adjusted by Holm for all tasks, below 0.05. Same: the 90 % score \
         interval within ± {margin} points, so that equal answers to few items are not enough. Otherwise it cannot be told. n is then the \
         number of items that would decide with probability 0.8. Where no item differs, n would decide if none did.",
        fewest = LEAST_DISCORDANT,
        margin = format!("{:.1}", 100.0 * comparison.options.accuracy_margin)
    );
    let own = [(text!("Verdict on accuracy"), accuracy), (text!("Verdict on speed"), threshold)];
    let mut rest: Vec<_> = DEFINITIONS.into_iter().collect();
    for side in &comparison.sides {
        rest.extend(crate::report::workloads::definitions(side.run()));
    }
    let mut seen = std::collections::BTreeSet::new();
    rest.retain(|(name, _)| seen.insert(name.to_string()));
    own.into_iter().chain(rest).collect()
}
