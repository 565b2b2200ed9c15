//! The chart of a line as a small SVG: thousands of points in tens of kilobytes.
//!
//! All charts of a page share the axis of time. Its labels stand once in the page. The points are in a group of their own, which the
//! page's style stretches when a reader chooses a shorter period. This needs no script and no second copy of the points.
//! Coordinates are integers, and each is relative to the one before.

use super::lines::{Line, Source};
use crate::language::{Text, text};
use crate::record::rfc3339_utc;
use crate::report::charts::axis::{Axis, Division, tick_name};
use crate::report::followed::Kind;
use crate::stats::{Interval, median};
use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

/// Size of a chart, and the frame of its points.
const WIDTH: i64 = 520;
const HEIGHT: i64 = 150;
const LEFT: i64 = 56;
const RIGHT: i64 = 508;
const TOP: i64 = 8;
const BOTTOM: i64 = 124;
/// Room at both ends of the frame, so that no marker is cut.
const ROOM: i64 = 6;
/// The place in the picture that stays where it is when the points are stretched: the newest run's.
pub(super) const FIXED: i64 = RIGHT - ROOM;
/// Width and height of the frame of the points.
pub(super) const FRAME: (i64, i64) = (RIGHT - LEFT, HEIGHT);
/// Steps of the axis of time, enough for a week of a decade, and of the other.
const STEPS: f64 = 100_000.0;
const LEVELS: f64 = 1_000.0;

/// The time that a page shows, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// A period to choose: the days before the newest run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    /// Number of days; 0 for all time.
    pub(super) days: u64,
}

impl Period {
    /// What the filter calls it.
    pub(super) fn name(self) -> Text {
        match self.days {
            0 => text!("all"),
            365 => text!("last year"),
            days => text!("last {days} days", days),
        }
    }
}

/// The periods, the shortest first.
const PERIODS: [Period; 4] =
    [Period { days: 7 }, Period { days: 30 }, Period { days: 90 }, Period { days: 365 }];

const DAY: u64 = 86_400;

impl Span {
    /// Returns the span of runs. `None` without any.
    pub(super) fn of(times: impl Iterator<Item = u64> + Clone) -> Option<Self> {
        Some(Self { first: times.clone().min()?, last: times.max()? })
    }

    fn seconds(self) -> u64 {
        (self.last - self.first).max(60)
    }

    /// Returns the periods that leave something out, then all time.
    pub(super) fn periods(self) -> Vec<Period> {
        let shorter = PERIODS.into_iter().filter(|period| period.days * DAY < self.seconds());
        shorter.chain([Period { days: 0 }]).collect()
    }

    /// Returns how far a period stretches the points.
    pub(super) fn stretch(self, period: Period) -> f64 {
        match period.days {
            0 => 1.0,
            days => self.seconds() as f64 / (days * DAY) as f64,
        }
    }

    /// Whether a time is in a period.
    pub(super) fn holds(self, period: Period, at: u64) -> bool {
        period.days == 0 || at + period.days * DAY >= self.last
    }

    /// The place of a time on the axis, with a margin at both ends.
    fn place(self, at: u64) -> i64 {
        let share = (at - self.first) as f64 / self.seconds() as f64;
        // A single moment stands in the middle.
        let share = if self.first == self.last { 0.5 } else { share };
        (share * STEPS).round() as i64
    }

    /// Returns the labels of the axis for a period, as SVG.
    pub(super) fn labels(self, period: Period) -> String {
        const COUNT: u64 = 3;
        let seconds = if period.days == 0 { self.seconds() } else { period.days * DAY };
        let first = self.last.saturating_sub(if self.first == self.last { 0 } else { seconds });
        let short = seconds < 3 * DAY;
        let mut out = String::new();
        for tick in 0..=COUNT {
            let at = first + (self.last - first) * tick / COUNT;
            let text = rfc3339_utc(UNIX_EPOCH + Duration::from_secs(at));
            let text = if short { text[5..16].replace('T', " ") } else { text[..10].to_owned() };
            let (x, anchor) = match tick {
                _ if first == self.last => (i64::midpoint(LEFT, RIGHT), "middle"),
                0 => (LEFT + ROOM, "start"),
                COUNT => (RIGHT - ROOM, "end"),
                tick => (LEFT + ROOM + (RIGHT - LEFT - 2 * ROOM) * tick as i64 / COUNT as i64, "middle"),
            };
            let _ = write!(
                out,
                "<path d=\"M{x} {BOTTOM}v4\" stroke=\"#9aa3ad\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{text}</text>",
                BOTTOM + 17
            );
            if first == self.last {
                break;
            }
        }
        out
    }
}

/// A point as drawn: one value with its interval, or the median of several with the least interval that holds all of theirs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Drawn {
    at: u64,
    value: f64,
    ends: Option<(f64, f64)>,
}

/// Returns at most `most` points of a line. The newer half stays as it is. Older points are put together in groups.
pub(super) fn thinned(line: &Line<'_>, most: usize) -> Vec<Drawn> {
    let one = |point: &super::lines::Point<'_>| Drawn {
        at: point.at,
        value: point.figure.value,
        ends: point.figure.interval().map(|ends| (ends.low, ends.high)),
    };
    let count = line.points.len();
    if count <= most {
        return line.points.iter().map(one).collect();
    }
    let newer = most / 2;
    let (older, rest) = line.points.split_at(count - newer);
    let groups = older.chunks(older.len().div_ceil((most - newer).max(1)));
    let group = |points: &[super::lines::Point<'_>]| {
        let values: Vec<f64> = points.iter().map(|point| point.figure.value).collect();
        let whole = |point: &super::lines::Point<'_>| {
            point.figure.interval().unwrap_or_else(|| Interval::point(point.figure.value))
        };
        let joined = points.iter().map(whole).reduce(Interval::hull);
        Drawn {
            at: points[points.len() / 2].at,
            value: median(&values).unwrap_or(points[0].figure.value),
            ends: joined.map(|ends| (ends.low, ends.high)),
        }
    };
    groups.map(group).chain(rest.iter().map(one)).collect()
}

/// Draws a line. `id` is unique in the page.
pub(super) fn svg(line: &Line<'_>, points: &[Drawn], span: Span, id: &str) -> String {
    let shown = |value: f64| if line.key.kind == Kind::Accuracy { 100.0 * value } else { value };
    let ends = points.iter().flat_map(|point| point.ends.map_or([point.value; 2], |(low, high)| [low, high]));
    let all = ends
        .chain(points.iter().map(|point| point.value))
        .chain(line.levels.iter().map(|level| level.median));
    let axis = Axis::of(Division::Even, all.map(shown));
    let level = |value: f64| (LEVELS * (1.0 - axis.place(shown(value)))).round() as i64;
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" aria-hidden=\"true\">");
    for &tick in &axis.ticks {
        let y = TOP as f64 + (BOTTOM - TOP) as f64 * (1.0 - axis.place(tick));
        let _ = write!(
            out,
            "<path class=\"g\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6,
            y + 3.5,
            tick_name(tick)
        );
    }
    let (wide, tall) = ((RIGHT - LEFT - 2 * ROOM) as f64 / STEPS, (BOTTOM - TOP) as f64 / LEVELS);
    let modelled = if line.key.source == Source::Measured { "" } else { " m" };
    let _ = write!(
        out,
        "<svg x=\"{LEFT}\" y=\"0\" width=\"{}\" height=\"{HEIGHT}\" viewBox=\"{LEFT} 0 {} {HEIGHT}\"><g class=\"z{modelled}\"><g transform=\"matrix({wide:.6} 0 0 {tall:.6} {} {TOP})\">",
        RIGHT - LEFT,
        RIGHT - LEFT,
        LEFT + ROOM
    );
    let places: Vec<(i64, i64)> =
        points.iter().map(|point| (span.place(point.at), level(point.value))).collect();
    let whiskers = points.iter().zip(&places).filter_map(|(point, (x, _))| {
        let (low, high) = point.ends?;
        Some((*x, level(high), level(low)))
    });
    put(&mut out, "w", &moves(whiskers.map(|(x, top, bottom)| (x, top, format!("v{}", bottom - top)))));
    put(&mut out, "l", &path(&places));
    let dots = moves(places.iter().map(|(x, y)| (*x, *y, "h0".to_owned())));
    let _ = write!(out, "<path id=\"d{id}\" class=\"d\" d=\"{dots}\"/>");
    if !modelled.is_empty() {
        let _ = write!(out, "<g class=\"o\"><use href=\"#d{id}\"/></g>");
    }
    // Above the points, or it would be hidden by them.
    let held = line.levels.iter().filter(|_| line.levels.len() > 1).map(|held| {
        let (from, to) = (span.place(line.points[held.start].at), span.place(line.points[held.end - 1].at));
        (from, level(held.median), format!("h{}", to - from))
    });
    put(&mut out, "v", &moves(held));
    out += "</g></g></svg>";
    for Period { days, .. } in span.periods() {
        let _ = write!(out, "<use href=\"#x{days}\" class=\"x{days}\"/>");
    }
    out += "</svg>";
    out
}

fn put(out: &mut String, class: &str, path: &str) {
    if !path.is_empty() {
        let _ = write!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

/// A path through all places.
fn path(places: &[(i64, i64)]) -> String {
    let mut out = String::new();
    let mut before = (0, 0);
    for (index, &(x, y)) in places.iter().enumerate() {
        let letter = if index == 0 { 'M' } else { 'l' };
        step(&mut out, letter, (x - before.0, y - before.1));
        before = (x, y);
    }
    out
}

/// A path of separate strokes, each from its place.
fn moves(strokes: impl Iterator<Item = (i64, i64, String)>) -> String {
    let mut out = String::new();
    let mut before = (0, 0);
    for (x, y, stroke) in strokes {
        step(&mut out, 'm', (x - before.0, y - before.1));
        out += &stroke;
        // A stroke ends elsewhere: the next move is relative to that end.
        let length = stroke[1..].parse::<i64>().unwrap_or(0);
        before = if stroke.starts_with('v') { (x, y + length) } else { (x + length, y) };
    }
    out
}

/// A command with two numbers; a minus sign separates as well as a space.
fn step(out: &mut String, letter: char, (x, y): (i64, i64)) {
    let space = if y < 0 { "" } else { " " };
    let _ = write!(out, "{letter}{x}{space}{y}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strokes_begin_where_they_should() {
        let strokes = [(10, 20, "v5".to_owned()), (12, 20, "v-3".to_owned()), (11, 30, "h7".to_owned())];
        assert_eq!(moves(strokes.into_iter()), "m10 20v5m2-5v-3m-1 13h7");
        assert_eq!(path(&[(1, 2), (3, -4), (5, 6)]), "M1 2l2-6l2 10");
        assert_eq!(path(&[]), "");
    }

    #[test]
    fn a_period_is_offered_where_it_leaves_something_out() {
        let span = |days: u64| Span { first: 1_000_000, last: 1_000_000 + days * DAY };
        let names = |days| span(days).periods().iter().map(|period| period.days).collect::<Vec<_>>();
        assert_eq!(names(0), [0]);
        assert_eq!(names(20), [7, 0]);
        assert_eq!(names(1000), [7, 30, 90, 365, 0]);
        let week = span(20).periods()[0];
        assert!((span(20).stretch(week) - 20.0 / 7.0).abs() < 1e-12);
        assert!(span(20).holds(week, 1_000_000 + 13 * DAY) && !span(20).holds(week, 1_000_000 + 12 * DAY));
        for days in [0, 1, 20, 1000] {
            for period in span(days).periods() {
                let labels = span(days).labels(period);
                assert_eq!(labels.matches("<text").count(), if days == 0 { 1 } else { 4 }, "{labels}");
            }
        }
    }
}
