//! Compares max-batch searches in two runs. One answer of a search has no interval. It is shown without a verdict.

use super::report::{SearchOutcome, SearchReport, outcome};
use crate::language::{Text, cells, text, texts};
use crate::record::{Phase, SearchCase};
use crate::report::compare::common::{Comparable, Compared, against, alone, blank, model_errors, short_ms};
use crate::report::compare::{Comparison, ComparisonRow, Pair, Side};
use crate::report::format::or_none;
use crate::report::modelled;
use crate::report::table::Table;

/// A search in both runs with the same lengths, ranks, range and limits.
#[derive(Debug, Clone, PartialEq)]
struct SearchComparison {
    /// The search.
    case: SearchCase,
    /// Its result in the base.
    a: SearchOutcome,
    /// Its result in the other run.
    b: SearchOutcome,
}

/// The common searches, in the base's order.
#[derive(Debug)]
struct Searches(Vec<SearchComparison>);

impl Comparable for SearchReport {
    fn compare(a: &Side, b: &Side, notes: &mut Vec<Text>) -> Option<Box<dyn Compared>> {
        Some(compare(a, b, notes))
    }
}

/// Compares searches of both runs. `notes` names those that only one has, or with other limits.
fn compare(a: &Side, b: &Side, notes: &mut Vec<Text>) -> Box<dyn Compared> {
    let (ours, theirs) = (&a.run().plan.searches, &b.run().plan.searches);
    let same = |x: &SearchCase, y: &SearchCase| {
        let of = |case: &SearchCase| (case.low, case.high, case.limit_tpot, case.limit_ttft);
        x.search_id == y.search_id && of(x) == of(y)
    };
    alone(ours, theirs, same, |case| &case.search_id, (a, b), notes);
    let both = ours.iter().filter(|case| theirs.iter().any(|other| same(case, other)));
    let of_side = |side: &Side, case: &SearchCase| outcome(case, side.workloads.searches.probes());
    let found = both
        .map(|case| SearchComparison { case: case.clone(), a: of_side(a, case), b: of_side(b, case) })
        .filter(|search| search.a.batch.is_some() && search.b.batch.is_some());
    Box::new(Searches(found.collect()))
}

impl SearchComparison {
    /// The errors of the modelled times per token, by run.
    fn errors(&self, comparison: &Comparison, pair: &Pair) -> Option<Text> {
        model_errors(comparison, pair, |side, run| {
            let SearchCase { input_tokens, output_tokens, tp, .. } = self.case;
            let batch = [&self.a, &self.b][side].batch.unwrap_or_default();
            [modelled::error_at(run, Phase::Decode, tp, [batch, input_tokens, output_tokens])]
        })
    }
}

impl Compared for Searches {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One row per search.
    fn table(&self, comparison: &Comparison, pair: &Pair) -> Table {
        let (a, b) = (comparison.base().letter, comparison.other(pair).letter);
        let batches = [a, b].map(|letter| text!("{letter} largest", letter));
        let tpots = [a, b].map(|letter| text!("{letter} TPOT ms", letter));
        let stops = [a, b].map(|letter| text!("{letter} stopped by", letter));
        let searches = texts!["Search", "Range", "Limits"];
        let mut table = Table::new(
            text!(
                "Largest batch within limits, {against}; no verdict, a search has no interval",
                against = against(comparison, pair)
            ),
            &searches.into_iter().chain(stops).collect::<Vec<_>>(),
            &[batches, tpots].concat(),
        );
        for SearchComparison { case, a, b } in &self.0 {
            let ttft = case.limit_ttft.map_or_else(String::new, |most| format!(", TTFT {} ms", most.ms()));
            let batch = |found: &SearchOutcome| or_none(found.batch, |batch| batch.to_string());
            let tpot = |side: &Side, found: &SearchOutcome| {
                let batch = found.batch.unwrap_or_default();
                let lengths = [batch, case.input_tokens, case.output_tokens];
                let error = modelled::error_at(side.run(), Phase::Decode, case.tp, lengths);
                let error = error
                    .and_then(Result::ok)
                    .map_or_else(String::new, |error| format!(" {}", error.short()));
                or_none(found.tpot_ns, |ns| short_ms(ns) + &error)
            };
            table.push(
                false,
                cells![
                    case.search_id,
                    text!("{low} to {high}", low = case.low, high = case.high),
                    format!("TPOT {} ms{ttft}", case.limit_tpot.ms()),
                    a.stopped,
                    b.stopped,
                    batch(a),
                    batch(b),
                    tpot(comparison.base(), a),
                    tpot(comparison.other(pair), b),
                ],
            );
        }
        table
    }

    fn rows(&self, comparison: &Comparison, pair: &Pair) -> Vec<ComparisonRow> {
        let row = |search: &SearchComparison| {
            let SearchComparison { case, a, b } = search;
            let errors = search.errors(comparison, pair);
            let errors = errors.map_or(Text::EMPTY, |errors| text!("; TPOT {errors}", errors));
            ComparisonRow {
                part: "all".into(),
                figure: "largest",
                unit: "sequences",
                n_a: a.probes,
                n_b: b.probes,
                a: a.batch.map(f64::from),
                b: b.batch.map(f64::from),
                note: text!("A stopped by {a}; B by {b}{errors}", a = a.stopped, b = b.stopped, errors)
                    .to_string(),
                ..blank((comparison, pair), "max_batch", &case.search_id, case.tp)
            }
        };
        self.0.iter().map(row).collect()
    }

    fn headline(&self, comparison: &Comparison, pair: &Pair) -> Vec<Text> {
        let batch = |found: Option<u32>| found.unwrap_or_default();
        let words = |search: &SearchComparison| {
            let SearchComparison { case, a, b } = search;
            let errors = search.errors(comparison, pair);
            let errors = errors.map_or(Text::EMPTY, |errors| text!(" (TPOT {errors})", errors));
            text!(
                "{search}: {b} against {a}{errors}",
                search = case.search_id,
                b = batch(b.batch),
                a = batch(a.batch),
                errors
            )
        };
        self.0.iter().map(words).collect()
    }
}
