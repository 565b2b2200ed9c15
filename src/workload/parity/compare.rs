//! Compares parity cases of two runs: how far each is from the same reference. Positions of a prompt depend on one another, so there is
//! no verdict.

use super::record::ParityCase;
use super::report::{ParityFound, ParityReport};
use crate::language::{Text, cells, text, texts};
use crate::report::compare::common::{Comparable, Compared, against, alone, blank};
use crate::report::compare::{Comparison, ComparisonRow, Pair, Side};
use crate::report::format::{nats, or_none};
use crate::report::table::Table;

/// The common cases, in the base's order, with what was found in the base and in the other run.
#[derive(Debug)]
struct Parities(Vec<[ParityFound; 2]>);

impl Comparable for ParityReport {
    fn compare(a: &Side, b: &Side, notes: &mut Vec<Text>) -> Option<Box<dyn Compared>> {
        Some(compare(a, b, notes))
    }
}

/// Compares the parity cases of both runs. `notes` names those that only one has, or with another reference.
fn compare(a: &Side, b: &Side, notes: &mut Vec<Text>) -> Box<dyn Compared> {
    let (ours, theirs) = (&a.run().plan.parity, &b.run().plan.parity);
    let weights = |side: &Side, case: &ParityCase| side.workloads.parity.found(case)?.reference.clone();
    let same = |x: &ParityCase, y: &ParityCase| {
        let of = |case: &ParityCase| (case.reference.clone(), case.prompts, case.continuation, case.seed);
        let (own, other) = (weights(a, x), weights(b, y));
        let alike = own.is_none() || other.is_none() || own == other;
        x.name() == y.name() && of(x) == of(y) && alike
    };
    alone(ours, theirs, same, |case| &case.parity_id, (a, b), notes);
    let common = ours.iter().filter(|case| theirs.iter().any(|other| same(case, other)));
    let both = |case: &ParityCase| {
        let of = |side: &Side| side.workloads.parity.found(case).cloned();
        Some([of(a)?, of(b)?]).filter(|both| both.iter().all(|found| found.kl.is_some()))
    };
    Box::new(Parities(common.filter_map(both).collect()))
}

impl Compared for Parities {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One row per case.
    fn table(&self, comparison: &Comparison, pair: &Pair) -> Table {
        let letters = [comparison.base().letter, comparison.other(pair).letter];
        let of_side = |letter: char| {
            [
                text!("{letter} KL mean", letter),
                text!("{letter} KL 99 %", letter),
                text!("{letter} KL max", letter),
                text!("{letter} top-1 %", letter),
            ]
        };
        let mut table = Table::new(
            text!(
                "Logits against a reference (KL in nat), {against}; no verdict, positions are not independent",
                against = against(comparison, pair)
            ),
            &texts!["Case", "Reference"],
            &letters.map(of_side).concat(),
        );
        for both in &self.0 {
            let case = &both[0].case;
            let mut row = cells![case.name(), case.reference.words()];
            row.extend(both.iter().flat_map(ParityFound::figures));
            table.push(false, row);
        }
        table
    }

    fn rows(&self, comparison: &Comparison, pair: &Pair) -> Vec<ComparisonRow> {
        type Of = fn(&ParityFound) -> Option<f64>;
        const FIGURES: [(&str, &str, Of); 4] = [
            ("kl_mean", "nat", |found| Some(found.kl?.mean)),
            ("kl_p99", "nat", |found| Some(found.kl?.p99)),
            ("kl_max", "nat", |found| Some(found.kl?.max)),
            ("top1", "share", |found| found.top1),
        ];
        let of_case = |both: &[ParityFound; 2]| {
            let [a, b] = both;
            let (case, n) =
                (a.case.clone(), both.each_ref().map(|found| found.kl.map_or(0, |kl| kl.positions)));
            let values = FIGURES.map(|(figure, unit, of)| (figure, unit, of(a), of(b)));
            values.map(|(figure, unit, a, b)| ComparisonRow {
                part: "all".into(),
                figure,
                unit,
                n_a: n[0] as u64,
                n_b: n[1] as u64,
                a,
                b,
                note: format!("against {}", case.reference.words()),
                tp_b: Some(both[1].case.tp),
                ..blank((comparison, pair), "parity", case.name(), case.tp)
            })
        };
        self.0.iter().flat_map(of_case).collect()
    }

    fn headline(&self, _comparison: &Comparison, _pair: &Pair) -> Vec<Text> {
        let words = |[a, b]: &[ParityFound; 2]| {
            let mean = |found: &ParityFound| or_none(found.kl, |kl| nats(kl.mean));
            text!("{case}: mean KL {b} against {a} nat", case = a.case.name(), b = mean(b), a = mean(a))
        };
        self.0.iter().map(words).collect()
    }
}
