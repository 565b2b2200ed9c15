//! Compares max-batch searches and loads in two runs. One answer of a search, and one pass at each rate, have no
//! interval. They are shown without a verdict.

use super::files::ComparisonRow;
use super::{Comparison, Pair, Side};
use crate::record::{LoadCase, LoadRow, SearchCase};
use crate::report::format::{NONE, fixed, or_none, percent, significant};
use crate::report::load::{Sustained, sustained};
use crate::report::search::{SearchOutcome, outcome};
use crate::report::tables::Table;

/// A search in both runs with the same lengths, ranks, range and limits.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchComparison {
    /// The search.
    pub case: SearchCase,
    /// Its result in the base.
    pub a: SearchOutcome,
    /// Its result in the other run.
    pub b: SearchOutcome,
}

/// A load in both runs with the same arrivals, prompts, objectives, ranks and largest batch.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadComparison {
    /// The load.
    pub case: LoadCase,
    /// For each of the two, the highest sustained rate and the lowest saturated rate.
    pub sustained: [Sustained; 2],
    /// Every rate offered to either, ascending, all at once first, with its rows.
    pub rates: Vec<[Option<LoadRow>; 2]>,
}

/// Compares searches of both runs. `notes` names those that only one has, or with other limits.
pub(super) fn compare_searches(a: &Side, b: &Side, notes: &mut Vec<String>) -> Vec<SearchComparison> {
    let (ours, theirs) = (&a.run().plan.searches, &b.run().plan.searches);
    let same = |x: &SearchCase, y: &SearchCase| {
        let of = |case: &SearchCase| (case.low, case.high, case.limit_tpot_ns, case.limit_ttft_ns);
        x.search_id == y.search_id && of(x) == of(y)
    };
    alone(ours, theirs, same, |case| &case.search_id, (a, b), notes);
    let both = ours.iter().filter(|case| theirs.iter().any(|other| same(case, other)));
    let of_side = |side: &Side, case: &SearchCase| outcome(case, side.workloads.probes());
    both.map(|case| SearchComparison { case: case.clone(), a: of_side(a, case), b: of_side(b, case) })
        .filter(|search| search.a.batch.is_some() && search.b.batch.is_some())
        .collect()
}

/// Compares loads of both runs. `notes` names those that only one has, or with other objectives.
pub(super) fn compare_loads(a: &Side, b: &Side, notes: &mut Vec<String>) -> Vec<LoadComparison> {
    let (ours, theirs) = (&a.run().plan.loads, &b.run().plan.loads);
    // A search for saturation chooses its rates by its findings, so rates may differ.
    let same = |x: &LoadCase, y: &LoadCase| LoadCase { rates: y.rates.clone(), ..x.clone() } == *y;
    alone(ours, theirs, same, |case| &case.load_id, (a, b), notes);
    let both = ours.iter().filter(|case| theirs.iter().any(|other| same(case, other)));
    both.map(|case| load(case, a, b))
        .filter(|load| load.rates.iter().flatten().flatten().count() > 0)
        .collect()
}

fn load(case: &LoadCase, a: &Side, b: &Side) -> LoadComparison {
    let own = |side: &Side| -> Vec<LoadRow> {
        side.workloads.load_rows().iter().filter(|row| row.load_id == case.load_id).cloned().collect()
    };
    let rows = [own(a), own(b)];
    let level = |row: &LoadRow| (row.concurrency, row.rate_per_s);
    let mut levels: Vec<_> = rows.iter().flatten().collect();
    levels.sort_by(|x, y| x.place().total_cmp(&y.place()));
    let mut rates: Vec<_> = levels.into_iter().map(level).collect();
    rates.dedup();
    let at = |wanted: (Option<u32>, Option<f64>)| {
        [0, 1].map(|side: usize| rows[side].iter().find(|row| level(row) == wanted).cloned())
    };
    LoadComparison {
        case: case.clone(),
        sustained: [sustained(rows[0].iter()), sustained(rows[1].iter())],
        rates: rates.into_iter().map(at).collect(),
    }
}

/// Adds notes on the cases of one kind that only one run has.
fn alone<C>(
    ours: &[C],
    theirs: &[C],
    same: impl Fn(&C, &C) -> bool,
    name: impl Fn(&C) -> &String,
    (a, b): (&Side, &Side),
    notes: &mut Vec<String>,
) {
    let mut tell = |of: &[C], than: &[C], side: &Side, other: &Side| {
        for case in of.iter().filter(|case| !than.iter().any(|twin| same(case, twin))) {
            let asked_otherwise = than.iter().any(|twin| name(twin) == name(case));
            let (name, here, there) = (name(case), side.letter, other.letter);
            notes.push(if asked_otherwise {
                format!("{name} is asked otherwise in {here} than in {there}, left out.")
            } else {
                format!("Only {here} has {name}.")
            });
        }
    };
    tell(ours, theirs, a, b);
    tell(theirs, ours, b, a);
}

fn ms(ns: u64) -> String {
    significant(ns as f64 / 1e6, 3)
}

fn against(comparison: &Comparison, pair: &Pair) -> String {
    format!("{} against {}", comparison.other(pair).label(), comparison.base().label())
}

/// One row per search.
pub(super) fn searches(comparison: &Comparison, pair: &Pair) -> Table {
    let (a, b) = (comparison.base().letter, comparison.other(pair).letter);
    let [batch_a, batch_b] = [a, b].map(|letter| format!("{letter} largest"));
    let [tpot_a, tpot_b] = [a, b].map(|letter| format!("{letter} TPOT ms"));
    let [stop_a, stop_b] = [a, b].map(|letter| format!("{letter} stopped by"));
    let mut table = Table::new(
        format!(
            "Largest batch within limits, {}; no verdict, a search has no interval",
            against(comparison, pair)
        ),
        &["Search", "Range", "Limits", &stop_a, &stop_b],
        &[&batch_a, &batch_b, &tpot_a, &tpot_b],
    );
    for SearchComparison { case, a, b } in &pair.searches {
        let ttft = case.limit_ttft_ns.map_or_else(String::new, |ns| format!(", TTFT {} ms", ns as f64 / 1e6));
        let batch = |found: &SearchOutcome| or_none(found.batch, |batch| batch.to_string());
        let tpot = |found: &SearchOutcome| or_none(found.tpot_ns, ms);
        table.push(
            false,
            vec![
                case.search_id.clone(),
                format!("{} to {}", case.low, case.high),
                format!("TPOT {} ms{ttft}", case.limit_tpot_ns as f64 / 1e6),
                a.stopped.clone(),
                b.stopped.clone(),
                batch(a),
                batch(b),
                tpot(a),
                tpot(b),
            ],
        );
    }
    table
}

/// One row per load with its sustained rate, followed by a row for each rate.
pub(super) fn loads(comparison: &Comparison, pair: &Pair) -> Table {
    let letters = [comparison.base().letter, comparison.other(pair).letter];
    let named = |what: &str| letters.map(|letter| format!("{letter} {what}"));
    let [served, good, ttft, full] = ["served /s", "goodput %", "TTFT p50 ms", "saturated"].map(named);
    let numbers = [&served[0], &served[1], &good[0], &good[1], &ttft[0], &ttft[1], &full[0], &full[1]];
    let mut table = Table::new(
        format!("Load, {}; no verdict, one pass at a rate has no interval", against(comparison, pair)),
        &["Load", "Rate /s"],
        &numbers.map(String::as_str),
    );
    for load in &pair.loads {
        let mut cells = vec![load.case.load_id.clone(), "highest sustained".to_owned()];
        cells.extend(load.sustained.iter().map(Sustained::words));
        cells.extend((0..6).map(|_| String::new()));
        table.push(true, cells);
        for rows in &load.rates {
            let each = |cell: fn(&LoadRow) -> String| {
                rows.iter().map(move |row| or_none(row.as_ref(), cell)).collect::<Vec<_>>()
            };
            let rate = rows.iter().flatten().next().map_or_else(|| NONE.to_owned(), LoadRow::rate_words);
            let mut cells = vec![String::new(), rate];
            cells.extend(each(|row| fixed(row.achieved_per_s, 2)));
            cells.extend(each(|row| or_none(row.goodput_share, percent)));
            cells.extend(each(|row| or_none(row.ttft_p50_ns, ms)));
            cells.extend(each(LoadRow::saturated_words));
            table.push(false, cells);
        }
    }
    table
}

/// The rows of `comparison.csv`.
pub(super) fn rows(comparison: &Comparison, pair: &Pair) -> Vec<ComparisonRow> {
    let clocks = (comparison.base().clock(), comparison.other(pair).clock());
    let blank = |kind: &'static str, subject: &str, tp: u32| ComparisonRow {
        subject: subject.to_owned(),
        clock_a: Some(clocks.0),
        clock_b: Some(clocks.1),
        tp_a: Some(tp),
        tp_b: Some(tp),
        ..ComparisonRow::blank(comparison, pair, kind)
    };
    let mut rows = Vec::new();
    for SearchComparison { case, a, b } in &pair.searches {
        rows.push(ComparisonRow {
            part: "all".into(),
            figure: "largest",
            unit: "sequences",
            n_a: a.probes,
            n_b: b.probes,
            a: a.batch.map(f64::from),
            b: b.batch.map(f64::from),
            note: format!("A stopped by {}; B by {}", a.stopped, b.stopped),
            ..blank("max_batch", &case.search_id, case.tp)
        });
    }
    for load in &pair.loads {
        let blank = || blank("load", &load.case.load_id, load.case.tp);
        rows.push(ComparisonRow {
            part: "all".into(),
            figure: "sustained",
            unit: "requests/s",
            a: load.sustained[0].good,
            b: load.sustained[1].good,
            note: format!("A {}; B {}", load.sustained[0].words(), load.sustained[1].words()),
            ..blank()
        });
        for [a, b] in &load.rates {
            let of =
                |value: fn(&LoadRow) -> Option<f64>| (a.as_ref().and_then(value), b.as_ref().and_then(value));
            let rate = a.as_ref().or(b.as_ref()).map(LoadRow::rate_words).unwrap_or_default();
            let saturated = |row: &Option<LoadRow>| or_none(row.as_ref(), LoadRow::saturated_words);
            let requests = |row: &Option<LoadRow>| row.as_ref().map_or(0, |row| row.requests);
            for (figure, unit, (value_a, value_b)) in [
                ("served", "requests/s", of(|row| row.achieved_per_s)),
                ("goodput", "share", of(|row| row.goodput_share)),
            ] {
                rows.push(ComparisonRow {
                    part: rate.clone(),
                    figure,
                    unit,
                    n_a: requests(a),
                    n_b: requests(b),
                    a: value_a,
                    b: value_b,
                    note: format!("saturated: A {}, B {}", saturated(a), saturated(b)),
                    ..blank()
                });
            }
        }
    }
    rows
}
