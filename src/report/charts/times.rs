//! The time charts of a run: throughput and latency against batch, prefill against length.
//!
//! Few lines share one chart, with their names at their ends. More lines stand in panels with the same axes. Each
//! pair of lengths, or each batch, has a panel, with a line for each number of ranks.

use super::Chart;
use super::axis::{Axis, Division};
use super::cases::{label, subtitle};
use super::lines::{LineChart, Point, Scale, Series};
use super::panels::{Key, Line, Look, Mark, Panel, PanelChart, between, left_out, without_lone_points};
use crate::language::{Language, Text, text};
use crate::record::{PerfRow, Phase, RunRecord};
use crate::report::format::milliseconds;
use crate::report::modelled;
use crate::report::performance::per_token_ns;
use crate::stats::{Estimate, Interval};
use std::collections::BTreeMap;

/// Name of the axis of batches.
pub(in crate::report) const BATCH: Text = text!("batch");

/// Most lines that one chart tells apart.
const MOST_LINES: usize = 4;

/// Returns the charts of the times for which the rows have data, by file name without extension.
pub(in crate::report) fn of_times(
    run: &RunRecord,
    rows: &[PerfRow],
    language: Language,
) -> Vec<(String, Chart)> {
    let usable: Vec<&PerfRow> = rows.iter().filter(|row| row.valid == Some(true)).collect();
    let modelled = run.provenance.clock == crate::record::Clock::Modelled;
    let of = Times { run, language, modelled, rows: usable };
    let charts = [
        ("throughput-e2e", of.against_batch(Phase::E2e, &text!("output tokens/s"), throughput, end_to_end)),
        (
            "throughput-decode",
            of.against_batch(Phase::Decode, &text!("tokens/s after the first"), throughput, decode),
        ),
        (
            "latency-decode",
            of.against_batch(Phase::Decode, &text!("ms per token"), token_latency, token_time),
        ),
        ("latency-prefill", of.prefill()),
    ];
    charts.into_iter().filter_map(|(name, chart)| Some((name.to_owned(), chart?))).collect()
}

/// A line before it is drawn: its panel, its name in a chart of one panel, its ranks, its points.
struct Curve {
    panel: Text,
    name: Text,
    tp: u32,
    points: Vec<Point>,
}

/// The usable rows of a run.
struct Times<'a> {
    run: &'a RunRecord,
    language: Language,
    modelled: bool,
    rows: Vec<&'a PerfRow>,
}

impl Times<'_> {
    fn of(&self, phase: Phase) -> impl Iterator<Item = &PerfRow> {
        self.rows.iter().copied().filter(move |row| row.phase == phase)
    }

    fn subtitle(&self, unit: &Text, phase: Phase) -> Text {
        let error = modelled::span(self.run, self.rows.iter().copied(), phase);
        subtitle(self.run, unit, &error)
    }

    fn say(&self, words: &Text) -> String {
        words.in_language(self.language)
    }

    /// The label of a line, marked if its times are modelled.
    fn label(&self, name: Text) -> String {
        self.say(&label(name, self.modelled))
    }

    /// A value against batch, by lengths and ranks.
    fn against_batch(
        &self,
        phase: Phase,
        unit: &Text,
        value: impl Fn(&PerfRow) -> Option<Estimate>,
        title: fn(&[Curve]) -> Text,
    ) -> Option<Chart> {
        let mut curves: BTreeMap<(u32, u32, u32), BTreeMap<u32, Point>> = BTreeMap::new();
        for row in self.of(phase) {
            let key = (row.input_tokens, row.output_tokens, row.tp);
            if let Some(Estimate { value: y, interval }) = value(row) {
                let point = Point { x: f64::from(row.batch), y, interval };
                curves.entry(key).or_default().insert(row.batch, point);
            }
        }
        let ranks = self.has_ranks();
        let curves: Vec<Curve> = curves
            .into_iter()
            .map(|((input, output, tp), points)| Curve {
                panel: text!("{input} in, {output} out", input, output),
                name: if ranks {
                    text!("{input} + {output}, TP {tp}", input, output, tp)
                } else {
                    text!("{input} + {output}", input, output)
                },
                tp,
                points: points.into_values().collect(),
            })
            .collect();
        let title = title(&curves);
        let subtitle = self.subtitle(unit, phase);
        if curves.is_empty() {
            return None;
        }
        if curves.len() <= MOST_LINES {
            let series = curves.into_iter().map(|curve| Series {
                label: self.label(curve.name),
                modelled: self.modelled,
                points: curve.points,
            });
            return Some(Chart::Lines(LineChart {
                title: self.say(&title),
                subtitle: self.say(&text!("{subtitle}; names: input + output tokens", subtitle)),
                x_name: self.say(&BATCH),
                x_scale: Scale::Log2,
                series: series.collect(),
            }));
        }
        // Values of very different size need a logarithmic scale to be visible together.
        let values = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.y);
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
        let division = if most > 30.0 * least { Division::Log } else { Division::FromZero };
        Some(Chart::Panels(self.panels(curves, title, subtitle, (BATCH, division))))
    }

    /// Prefill time against length on two logarithmic axes. Proportional growth is a straight line, and short prompts are
    /// visible. A shape's prefill does not depend on the output length, so the first row suffices.
    fn prefill(&self) -> Option<Chart> {
        let mut curves: BTreeMap<(u32, u32), BTreeMap<u32, Point>> = BTreeMap::new();
        for row in self.of(Phase::Prefill) {
            let of_curve = curves.entry((row.batch, row.tp)).or_default();
            if let Some(Estimate { value: y, interval }) =
                latency(row, row.median_ns.map(|ns| ns as f64), 1.0)
            {
                of_curve.entry(row.input_tokens).or_insert(Point {
                    x: f64::from(row.input_tokens),
                    y,
                    interval,
                });
            }
        }
        let ranks = self.has_ranks();
        let curves: Vec<Curve> = curves
            .into_iter()
            .map(|((batch, tp), points)| Curve {
                panel: text!("batch {batch}", batch),
                name: if ranks {
                    text!("batch {batch}, TP {tp}", batch, tp)
                } else {
                    text!("batch {batch}", batch)
                },
                tp,
                points: points.into_values().collect(),
            })
            .filter(|curve| !curve.points.is_empty())
            .collect();
        let (title, subtitle) =
            (prefill(&curves), self.subtitle(&text!("ms of the whole batch"), Phase::Prefill));
        if curves.is_empty() {
            return None;
        }
        let across = (text!("input tokens of each sequence"), Division::Log);
        Some(Chart::Panels(if curves.len() <= MOST_LINES {
            self.one_panel(curves, title, subtitle, across)
        } else {
            self.panels(curves, title, subtitle, across)
        }))
    }

    fn has_ranks(&self) -> bool {
        self.rows.iter().any(|row| row.tp != 1)
    }

    /// Every curve in one panel.
    fn one_panel(
        &self,
        curves: Vec<Curve>,
        title: Text,
        subtitle: Text,
        across: (Text, Division),
    ) -> PanelChart {
        let look = |series| Look { series, modelled: self.modelled };
        let key = |(series, curve): (usize, &Curve)| Key {
            label: self.label(curve.name.clone()),
            look: look(series),
        };
        let keys = curves.iter().enumerate().map(key).collect();
        let lines = curves.into_iter().enumerate().map(|(series, curve)| line(look(series), &curve.points));
        let panels = vec![Panel { title: String::new(), lines: lines.collect() }];
        self.chart(panels, keys, (title, subtitle), across)
    }

    /// A panel for each name, with a line for each number of ranks.
    fn panels(
        &self,
        curves: Vec<Curve>,
        title: Text,
        subtitle: Text,
        across: (Text, Division),
    ) -> PanelChart {
        let mut ranks: Vec<u32> = curves.iter().map(|curve| curve.tp).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let look = |tp: u32| Look {
            series: ranks.iter().position(|other| *other == tp).unwrap_or_default(),
            modelled: self.modelled,
        };
        let key = |tp: &u32| Key { label: self.label(format!("TP {tp}").into()), look: look(*tp) };
        let keys = ranks.iter().map(key).collect();
        let mut panels: Vec<Panel> = Vec::new();
        for curve in curves {
            let (own, title) = (line(look(curve.tp), &curve.points), self.say(&curve.panel));
            match panels.iter_mut().find(|panel| panel.title == title) {
                Some(panel) => panel.lines.push(own),
                None => panels.push(Panel { title, lines: vec![own] }),
            }
        }
        let (panels, lone) = without_lone_points(panels);
        self.chart(panels, keys, (title, subtitle + left_out(lone)), across)
    }

    fn chart(
        &self,
        panels: Vec<Panel>,
        keys: Vec<Key>,
        (title, subtitle): (Text, Text),
        (x_name, division): (Text, Division),
    ) -> PanelChart {
        let marks = || panels.iter().flat_map(|panel| panel.lines.iter().flat_map(|line| &line.points));
        let across: Vec<f64> = marks().map(|mark| mark.x).collect();
        let ends = marks()
            .flat_map(|mark| [Some(mark.y), mark.interval.map(|i| i.low), mark.interval.map(|i| i.high)]);
        let y = Axis::of(division, ends.flatten().collect::<Vec<f64>>());
        let has_whiskers = marks().any(|mark| mark.interval.is_some());
        let whiskers = if has_whiskers { text!("; whiskers: 95 % interval") } else { Text::EMPTY };
        PanelChart {
            title: self.say(&title),
            subtitle: self.say(&(subtitle + whiskers)),
            x: Axis::of(Division::Log, across.clone()).naming(across),
            x_name: self.say(&x_name),
            y,
            panels,
            keys,
            level: None,
        }
    }
}

fn line(look: Look, points: &[Point]) -> Line {
    // The interval of a modelled time is that of its repetitions, which are equal.
    let interval = |p: &Point| p.interval.filter(|_| !look.modelled);
    let mark = |p: &Point| Mark { x: p.x, y: p.y, interval: interval(p), letters: String::new() };
    Line { look, points: points.iter().map(mark).collect(), joined: true, marked: true }
}

/// How values grow from the least x to the largest.
struct Growth {
    /// Multiples of the last value over the first.
    multiples: Interval,
    from: f64,
    to: f64,
}

/// Returns the growth over the curves that reach from the least x to the largest.
fn growth(curves: &[Curve]) -> Option<Growth> {
    let xs = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.x);
    let (from, to) = (xs().reduce(f64::min)?, xs().reduce(f64::max)?);
    let whole = |curve: &&Curve| {
        curve.points.first().is_some_and(|p| p.x == from) && curve.points.last().is_some_and(|p| p.x == to)
    };
    let growth = curves.iter().filter(whole).filter_map(|curve| {
        let (first, last) = (curve.points.first()?.y, curve.points.last()?.y);
        (first > 0.0 && to > from).then_some(last / first)
    });
    Some(Growth { multiples: Interval::spanning(growth)?, from, to })
}

fn end_to_end(curves: &[Curve]) -> Text {
    rises(&text!("End-to-end throughput"), curves)
}

fn decode(curves: &[Curve]) -> Text {
    rises(&text!("Decode throughput"), curves)
}

fn rises(what: &Text, curves: &[Curve]) -> Text {
    growth(curves).map_or_else(
        || text!("{what} against batch", what),
        |Growth { multiples, from, to }| {
            text!(
                "{what}: batch {to} gives {times} that of batch {from}",
                what,
                to,
                times = between(multiples),
                from
            )
        },
    )
}

fn token_time(curves: &[Curve]) -> Text {
    growth(curves).map_or_else(
        || text!("Decode latency against batch"),
        |Growth { multiples, from, to }| {
            text!(
                "Decode latency: a token at batch {to} takes {times} that of batch {from}",
                to,
                times = between(multiples),
                from
            )
        },
    )
}

fn prefill(curves: &[Curve]) -> Text {
    let ms = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.y);
    let Some((least, most)) = ms().reduce(f64::min).zip(ms().reduce(f64::max)) else {
        return text!("Prefill latency");
    };
    match growth(curves) {
        Some(Growth { multiples, from, to }) => text!(
            "Prefill takes {least} to {most}: {times} for {more} × the tokens",
            least = milliseconds(least),
            most = milliseconds(most),
            times = between(multiples),
            more = to / from
        ),
        None => {
            text!("Prefill takes {least} to {most}", least = milliseconds(least), most = milliseconds(most))
        }
    }
}

/// Tokens per second. The ends of the time interval swap.
fn throughput(row: &PerfRow) -> Option<Estimate> {
    let ns = row.interval_ns().filter(|ns| ns.low > 0.0);
    let interval = ns.map(|ns| ns.map_decreasing(|ns| row.tokens as f64 / (ns / 1e9)));
    row.tokens_per_s_median.map(|value| Estimate { value, interval })
}

/// Milliseconds per token after the first.
fn token_latency(row: &PerfRow) -> Option<Estimate> {
    let steps = f64::from(row.output_tokens.saturating_sub(1).max(1));
    latency(row, per_token_ns(row), steps)
}

/// `ns` in milliseconds, with the row's interval divided by `parts`, as `ns` already is.
fn latency(row: &PerfRow, ns: Option<f64>, parts: f64) -> Option<Estimate> {
    let interval = row.interval_ns().map(|of| of.map(|ns| ns / parts / 1e6));
    ns.map(|ns| Estimate { value: ns / 1e6, interval })
}
