//! The cases of workloads that two runs have in common: made from the list of workloads ([`crate::workload`]), whose types
//! differ.

use super::{Comparison, ComparisonRow, Pair, Side};
use crate::language::{Text, ToText, joined, text};
use crate::record::RunRecord;
use crate::report::format::significant;
use crate::report::modelled::{self, Known};
use crate::report::table::Table;
use crate::report::workloads::Reported;
use std::fmt::Debug;

/// A part of a report that can be compared.
pub(crate) trait Comparable: Reported {
    /// Compares two runs. `notes` gets a sentence for each case that only one run has. `None` if such cases are not compared
    /// here.
    fn compare(_a: &Side, _b: &Side, _notes: &mut Vec<Text>) -> Option<Box<dyn Compared>> {
        None
    }
}

/// The cases of one workload that two runs have in common.
pub(crate) trait Compared: Debug {
    /// Whether there are none.
    fn is_empty(&self) -> bool;
    /// The table for terminal and page.
    fn table(&self, comparison: &Comparison, pair: &Pair) -> Table;
    /// The rows of `comparison.csv`.
    fn rows(&self, comparison: &Comparison, pair: &Pair) -> Vec<ComparisonRow>;
    /// The parts of the headline sentence.
    fn headline(&self, comparison: &Comparison, pair: &Pair) -> Vec<Text>;
}

macro_rules! common {
    ($($(#[$only:meta])* $folder:ident: $table:ident, $plan:ident, $lines:ident;)*) => {
        /// Compares the cases of two runs, workload by workload.
        pub(super) fn compare(a: &Side, b: &Side, notes: &mut Vec<Text>) -> Vec<Box<dyn Compared>> {
            let mut all = Vec::new();
            $($(#[$only])* all.extend(<crate::workload::$folder::Report as Comparable>::compare(a, b, notes));)*
            all
        }
    };
}
crate::workload::each!(common);

/// Adds notes on the cases of one kind that only one run has.
pub(crate) fn alone<C>(
    ours: &[C],
    theirs: &[C],
    same: impl Fn(&C, &C) -> bool,
    name: impl Fn(&C) -> &String,
    (a, b): (&Side, &Side),
    notes: &mut Vec<Text>,
) {
    let mut tell = |of: &[C], than: &[C], side: &Side, other: &Side| {
        for case in of.iter().filter(|case| !than.iter().any(|other| same(case, other))) {
            let asked_otherwise = than.iter().any(|other| name(other) == name(case));
            let (name, here, there) = (name(case), side.letter, other.letter);
            notes.push(if asked_otherwise {
                text!("{name} is asked otherwise in {here} than in {there}, left out.", name, here, there)
            } else {
                text!("Only {here} has {name}.", here, name)
            });
        }
    };
    tell(ours, theirs, a, b);
    tell(theirs, ours, b, a);
}

/// Formats a time in ms with three significant digits.
pub(crate) fn short_ms(ns: u64) -> String {
    significant(ns as f64 / 1e6, 3)
}

/// `B (name) against A (name)`.
pub(crate) fn against(comparison: &Comparison, pair: &Pair) -> Text {
    text!("{b} against {a}", b = comparison.other(pair).label(), a = comparison.base().label())
}

/// Returns the time errors of a figure in both runs: `modelled: A ± 20 %, B ± 10 %`. `None` with measured clocks, and if no
/// error is known.
pub(crate) fn model_errors<I>(
    comparison: &Comparison,
    pair: &Pair,
    of: impl Fn(usize, &RunRecord) -> I,
) -> Option<Text>
where
    I: IntoIterator<Item = Option<Known>>,
{
    let sides = [comparison.base(), comparison.other(pair)];
    let words = sides.iter().enumerate().filter_map(|(index, side)| {
        let span = modelled::span_of(of(index, side.run()).into_iter());
        (!span.is_empty()).then(|| side.letter.to_text() + span)
    });
    let words: Vec<Text> = words.collect();
    (!words.is_empty()).then(|| text!("modelled: {errors}", errors = joined(&words, ", ")))
}

/// Returns a row of `comparison.csv` with the case and the clocks alone.
pub(crate) fn blank(
    (comparison, pair): (&Comparison, &Pair),
    kind: &'static str,
    case: &str,
    tp: u32,
) -> ComparisonRow {
    ComparisonRow {
        subject: case.to_owned(),
        clock_a: Some(comparison.base().clock()),
        clock_b: Some(comparison.other(pair).clock()),
        tp_a: Some(tp),
        tp_b: Some(tp),
        ..ComparisonRow::blank(comparison, pair, kind)
    }
}
