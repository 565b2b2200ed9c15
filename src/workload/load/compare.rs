//! Compares loads in two runs. One pass at each rate has no interval. It is shown without a verdict.

use super::report::LoadReport;
use super::sentences::{Sustained, best_closed, sustained};
use crate::language::{Text, cells, joined, text};
use crate::record::{LoadCase, LoadRow};
use crate::report::compare::common::{Comparable, Compared, against, alone, blank, model_errors, short_ms};
use crate::report::compare::{Comparison, ComparisonRow, Pair, Side};
use crate::report::format::{NONE, fixed, or_none, percent};
use crate::report::modelled;
use crate::report::table::Table;

/// A load in both runs with the same arrivals, prompts, objectives, ranks and largest batch.
#[derive(Debug, Clone, PartialEq)]
struct LoadComparison {
    /// The load.
    case: LoadCase,
    /// For each of the two, the highest sustained rate and the lowest saturated rate. Empty in a closed loop.
    sustained: [Sustained; 2],
    /// For each of the two, the level of a closed loop with the highest throughput.
    best: [Option<LoadRow>; 2],
    /// Every rate or concurrency offered to either, ascending, all at once first, with its rows.
    rates: Vec<[Option<LoadRow>; 2]>,
}

/// The common loads, in the base's order.
#[derive(Debug)]
struct Loads(Vec<LoadComparison>);

impl Comparable for LoadReport {
    fn compare(a: &Side, b: &Side, notes: &mut Vec<Text>) -> Option<Box<dyn Compared>> {
        Some(compare(a, b, notes))
    }
}

/// Compares loads of both runs. `notes` names those that only one has, or with other objectives.
fn compare(a: &Side, b: &Side, notes: &mut Vec<Text>) -> Box<dyn Compared> {
    let (ours, theirs) = (&a.run().plan.loads, &b.run().plan.loads);
    // A search for saturation chooses its rates by its findings, so rates may differ.
    let same = |x: &LoadCase, y: &LoadCase| LoadCase { rates: y.rates.clone(), ..x.clone() } == *y;
    alone(ours, theirs, same, |case| &case.load_id, (a, b), notes);
    let both = ours.iter().filter(|case| theirs.iter().any(|other| same(case, other)));
    let found =
        both.map(|case| load(case, a, b)).filter(|load| load.rates.iter().flatten().flatten().count() > 0);
    Box::new(Loads(found.collect()))
}

fn load(case: &LoadCase, a: &Side, b: &Side) -> LoadComparison {
    let own = |side: &Side| -> Vec<LoadRow> {
        side.workloads.loads.rows().iter().filter(|row| row.load_id == case.load_id).cloned().collect()
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
        best: [best_closed(rows[0].iter()).cloned(), best_closed(rows[1].iter()).cloned()],
        rates: rates.into_iter().map(at).collect(),
    }
}

impl LoadComparison {
    fn is_closed(&self) -> bool {
        !self.case.concurrency.is_empty()
    }

    /// `12.3 at concurrency 16`: the requests per second of each side where its throughput is highest.
    fn best_words(&self) -> [Text; 2] {
        let of = |row: &LoadRow| {
            text!(
                "{rate} at concurrency {concurrency}",
                rate = fixed(row.achieved_per_s, 2),
                concurrency = row.rate_words()
            )
        };
        [0, 1].map(|side: usize| or_none(self.best[side].as_ref(), of))
    }

    /// What the load does best, by name, and each side's words.
    fn peak(&self) -> (Text, [Text; 2]) {
        if self.is_closed() {
            (text!("highest throughput"), self.best_words())
        } else {
            (text!("highest sustained"), [0, 1].map(|side: usize| self.sustained[side].words()))
        }
    }

    /// The errors of modelled levels, by run.
    fn errors(&self, comparison: &Comparison, pair: &Pair) -> Option<Text> {
        model_errors(comparison, pair, |side, run| {
            let rows = self.rates.iter().filter_map(move |rows| rows[side].as_ref());
            rows.map(|row| modelled::error_of_load(run, row)).collect::<Vec<_>>()
        })
    }

    /// The level of two rows: `20`, `all at once`, `concurrency 4`.
    fn level_words(&self, rows: &[Option<LoadRow>; 2]) -> Text {
        let words = rows.iter().flatten().next().map_or_else(|| NONE.into(), LoadRow::rate_words);
        if self.is_closed() { text!("concurrency {words}", words) } else { words }
    }
}

impl Compared for Loads {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One row per load with what it does best, followed by a row for each rate or concurrency.
    fn table(&self, comparison: &Comparison, pair: &Pair) -> Table {
        let letters = [comparison.base().letter, comparison.other(pair).letter];
        let served = letters.map(|letter| text!("{letter} served /s", letter));
        let good = letters.map(|letter| text!("{letter} goodput %", letter));
        let ttft = letters.map(|letter| text!("{letter} TTFT p50 ms", letter));
        let full = letters.map(|letter| text!("{letter} saturated", letter));
        let errors = self.0.iter().map(|load| load.errors(comparison, pair)).max_by_key(Option::is_some);
        let errors = errors.flatten().map_or(Text::EMPTY, |errors| text!("; {errors}", errors));
        let is_closed = self.0.iter().any(LoadComparison::is_closed);
        let mut table = Table::new(
            text!(
                "Load, {against}{errors}; no verdict, one pass at a rate has no interval",
                against = against(comparison, pair),
                errors
            ),
            &[text!("Load"), if is_closed { text!("Rate /s, concurrency") } else { text!("Rate /s") }],
            &[served, good, ttft, full].concat(),
        );
        for load in &self.0 {
            let (peak, words) = load.peak();
            let mut cells = cells![load.case.load_id, peak];
            cells.extend(words);
            cells.extend((0..6).map(|_| Text::EMPTY));
            table.push(true, cells);
            for rows in &load.rates {
                let each = |cell: fn(&LoadRow) -> Text| {
                    rows.iter().map(move |row| or_none(row.as_ref(), cell)).collect::<Vec<_>>()
                };
                let mut cells = cells![Text::EMPTY, load.level_words(rows)];
                cells.extend(each(|row| fixed(row.achieved_per_s, 2).into()));
                cells.extend(each(|row| or_none(row.goodput_share, percent).into()));
                let runs = [comparison.base().run(), comparison.other(pair).run()];
                cells.extend(rows.iter().zip(runs).map(|(row, run)| {
                    or_none(row.as_ref(), |row| {
                        let error = modelled::error_of_load(run, row).and_then(Result::ok);
                        let error = error.map_or_else(String::new, |error| format!(" {}", error.short()));
                        or_none(row.ttft_p50_ns, |ns| Text::from(short_ms(ns) + &error))
                    })
                }));
                cells.extend(each(LoadRow::saturated_words));
                table.push(false, cells);
            }
        }
        table
    }

    fn rows(&self, comparison: &Comparison, pair: &Pair) -> Vec<ComparisonRow> {
        let mut rows = Vec::new();
        for load in &self.0 {
            let blank = || blank((comparison, pair), "load", &load.case.load_id, load.case.tp);
            let (_, words) = load.peak();
            let best = |side: usize| match &load.best[side] {
                Some(row) => row.achieved_per_s,
                None => load.sustained[side].good,
            };
            rows.push(ComparisonRow {
                part: "all".into(),
                figure: if load.is_closed() { "highest throughput" } else { "sustained" },
                unit: "requests/s",
                a: best(0),
                b: best(1),
                note: joined(
                    [Some(text!("A {a}; B {b}", a = words[0], b = words[1])), load.errors(comparison, pair)]
                        .into_iter()
                        .flatten(),
                    "; ",
                )
                .to_string(),
                ..blank()
            });
            for [a, b] in &load.rates {
                let of = |value: fn(&LoadRow) -> Option<f64>| {
                    (a.as_ref().and_then(value), b.as_ref().and_then(value))
                };
                let rate = load.level_words(&[a.clone(), b.clone()]);
                let saturated = |row: &Option<LoadRow>| or_none(row.as_ref(), LoadRow::saturated_words);
                let requests = |row: &Option<LoadRow>| row.as_ref().map_or(0, |row| row.requests);
                let mut notes = vec![failures(a.as_ref(), b.as_ref())];
                if !load.is_closed() {
                    notes.insert(0, text!("saturated: A {a}, B {b}", a = saturated(a), b = saturated(b)));
                }
                notes.extend(model_errors(comparison, pair, |side, run| {
                    [a, b][side].iter().map(|row| modelled::error_of_load(run, row)).collect::<Vec<_>>()
                }));
                notes.retain(|words| !words.is_empty());
                for (figure, unit, (value_a, value_b)) in [
                    ("served", "requests/s", of(|row| row.achieved_per_s)),
                    ("goodput", "share", of(|row| row.goodput_share)),
                ] {
                    rows.push(ComparisonRow {
                        part: rate.to_string(),
                        figure,
                        unit,
                        n_a: requests(a),
                        n_b: requests(b),
                        a: value_a,
                        b: value_b,
                        note: joined(&notes, "; ").to_string(),
                        ..blank()
                    });
                }
            }
        }
        rows
    }

    fn headline(&self, comparison: &Comparison, pair: &Pair) -> Vec<Text> {
        let words = |load: &LoadComparison| {
            let untold = |sustained: &Sustained| sustained.good.or(sustained.bad).is_none();
            if !load.is_closed() && load.sustained.iter().all(untold) {
                return text!(
                    "{load_id}: sustained rates cannot be told: too few requests",
                    load_id = load.case.load_id
                );
            }
            let (_, [a, b]) = load.peak();
            let or_unknown = |side: usize, words: Text| match &load.sustained[side] {
                sustained if !load.is_closed() && untold(sustained) => {
                    text!("an unknown rate (too few requests)")
                }
                _ => words,
            };
            let (a, b) = (or_unknown(0, a), or_unknown(1, b));
            let errors = load.errors(comparison, pair);
            let errors = errors.map_or(Text::EMPTY, |errors| text!(" ({errors})", errors));
            let load_id = &load.case.load_id;
            if load.is_closed() {
                text!("{load} serves {b} against {a} requests/s{errors}", load = load_id, b, a, errors)
            } else {
                text!("{load} sustains {b} against {a} requests/s{errors}", load = load_id, b, a, errors)
            }
        };
        self.0.iter().map(words).collect()
    }
}

/// `failed: A 0 of 20, B 3 of 20`. Empty if no request failed.
fn failures(a: Option<&LoadRow>, b: Option<&LoadRow>) -> Text {
    let failed = |row: Option<&LoadRow>| row.map_or(0, |row| row.failed);
    if failed(a) + failed(b) == 0 {
        return Text::EMPTY;
    }
    let words = |row: &LoadRow| text!("{done} of {all}", done = row.failed, all = row.requests);
    text!("failed: A {a}, B {b}", a = or_none(a, words), b = or_none(b, words))
}
