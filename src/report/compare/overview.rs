//! All runs of a comparison in one table: what each costs and gains against the base.

use super::speedup::Speedups;
use super::tables::{points, probability};
use super::{Comparison, Pair, Side, TaskComparison, TextFigure, answer};
use crate::language::{Text, cells, joined, text, texts};
use crate::record::{ParityCase, Phase};
use crate::report::format::{NONE, bytes, milliseconds, or_none, percent, times};
use crate::report::table::Table;

/// Returns a row for each run. It has the type, the size of the weights and the time to load them. Each common task has its
/// accuracy, the change, and the p-value of the paired test, or its perplexity. Each parity case of the base has the KL and the top-1
/// agreement. Speeds are multiples of the base. The table is empty for two runs, because the tables of the pair say all.
pub(super) fn table(comparison: &Comparison) -> Table {
    let pairs = &comparison.pairs;
    let first = pairs.first().filter(|_| pairs.len() > 1);
    let tasks: Vec<&str> = first.map_or(Vec::new(), |pair| pair.tasks.iter().map(|of| &*of.task).collect());
    let texts: Vec<&TextFigure> = first.map_or(Vec::new(), |pair| pair.text_figures.iter().collect());
    let of_tasks =
        tasks.iter().flat_map(|task| [Text::from(format!("{task} %")), text!("Change"), text!("p (Holm)")]);
    let of_texts = texts.iter().map(|of| joined([Text::from(&*of.task), of.name.clone()], " "));
    let parities = comparison.parities();
    let of_parities = parities.iter().flat_map(|case| parity_columns(case, parities.len() == 1));
    let of_phases = answer::PHASES.map(|phase| text!("{phase}, × as fast", phase));
    let mut table = Table::new(
        text!("All runs against {a}", a = comparison.base().label()),
        &[&[Text::EMPTY][..], &texts!["Name", "Type"]].concat(),
        &texts!["Weights", "Load time"]
            .into_iter()
            .chain(of_tasks)
            .chain(of_texts)
            .chain(of_parities)
            .chain(of_phases)
            .collect::<Vec<_>>(),
    );
    let Some(first) = first else { return table };
    for side in &comparison.sides {
        let pair = pairs.iter().find(|pair| comparison.other(pair).letter == side.letter);
        let mut row = facts(side);
        row.extend(tasks.iter().flat_map(|task| match pair {
            Some(pair) => of_task(pair.tasks.iter().find(|of| of.task == *task), false),
            None => of_task(first.tasks.iter().find(|of| of.task == *task), true),
        }));
        row.extend(texts.iter().map(|of| {
            let own = pair.unwrap_or(first).text_figures.iter().find(|own| own.task == of.task);
            or_none(own, |own| Text::from(if pair.is_some() { own.of_other() } else { own.of_base() }))
        }));
        row.extend(parities.iter().flat_map(|case| of_parity(comparison, side, case)));
        row.extend(answer::PHASES.map(|phase| match pair {
            Some(pair) => multiple(comparison, pair, phase),
            None => times(1.0),
        }));
        table.push(false, row);
    }
    table
}

/// What the run is, and what its weights take.
fn facts(side: &Side) -> Vec<Text> {
    let from = &side.run().provenance;
    let load = from.load.as_ref();
    let (weights, time) =
        (load.map(|load| bytes(load.weight_bytes)), load.map(|load| load.load_ns as f64 / 1e6));
    cells![side.letter, side.name, from.dtype, or_none(weights, |of| of), or_none(time, milliseconds)]
}

/// The columns of a parity case, which names itself unless it is alone.
fn parity_columns(case: &ParityCase, is_alone: bool) -> [Text; 3] {
    let name = |column: Text| if is_alone { column } else { joined([case.name().into(), column], " ") };
    texts!["KL mean", "KL 99 %", "Top-1 %"].map(name)
}

/// KL and top-1 agreement of a run in a parity case: dashes if its reference is not the base's.
fn of_parity(comparison: &Comparison, side: &Side, case: &ParityCase) -> [Text; 3] {
    let found = comparison.parity(side, case);
    found.map_or_else(
        || [NONE.into(), NONE.into(), NONE.into()],
        |found| {
            let [mean, p99, _, top1] = found.figures();
            [mean, p99, top1]
        },
    )
}

/// Accuracy, change and p-value of a task. The base has no change.
fn of_task(task: Option<&TaskComparison>, is_base: bool) -> [Text; 3] {
    let Some(task) = task else { return [NONE.into(), NONE.into(), NONE.into()] };
    let whole = task.whole();
    if is_base {
        return [percent(whole.a.value).into(), NONE.into(), NONE.into()];
    }
    [percent(whole.b.value).into(), points(whole.difference.value).into(), probability(task.p_holm).into()]
}

/// How many times as fast as the base a run is in a phase.
fn multiple(comparison: &Comparison, pair: &Pair, phase: Phase) -> Text {
    let mean = Speedups::of(comparison, pair).and_then(|speedups| speedups.mean(phase, None));
    or_none(mean, |mean| times(mean.times))
}
