//! Score charts: shares with their intervals, one below the other: the whole, its groups, their subjects. Many shares stand in two
//! columns.

use super::head::Head;
use super::ink::{AXIS, Anchor, GRID, Ink, Lettering, MUTED, TEXT, colour};
use crate::language::columns;
use crate::report::format::percent;
use crate::stats::Interval;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

const WIDTH: i32 = 560;
const TOP: i32 = 62;
const ROW: i32 = 19;
const BOTTOM: i32 = 26;
/// Widths left of the scale for labels, and right of it for figures.
const LEFT: i32 = 236;
const RIGHT: i32 = 96;
/// Space before the first group and the first subject.
const GAP: i32 = 9;
/// Most shares of one column, and the space between two columns.
const MOST_ROWS: usize = 26;
const BETWEEN: i32 = 20;

/// A chart of shares.
pub(in crate::report) struct ScoreChart {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) scores: Vec<Score>,
}

/// Level of a share.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Whole,
    Group,
    Subject,
}

/// A share, 0 to 1, with its interval.
pub(super) struct Score {
    pub(super) label: String,
    pub(super) level: Level,
    pub(super) share: f64,
    pub(super) interval: Option<Interval>,
    /// Chance level.
    pub(super) chance: Option<f64>,
    pub(super) items: u64,
}

impl ScoreChart {
    fn columns(&self) -> usize {
        if self.scores.len() > MOST_ROWS { 2 } else { 1 }
    }

    fn width(&self) -> i32 {
        if self.columns() > 1 { 2 * WIDTH + BETWEEN } else { WIDTH }
    }

    fn head(&self) -> Head {
        Head::of(&self.title, &self.subtitle, self.width())
    }

    fn top(&self) -> i32 {
        TOP + self.head().more()
    }

    /// Width and height. The height depends on the number of rows.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.width() as u32, (self.bottom() + BOTTOM) as u32)
    }

    /// Lower end of the scale.
    fn bottom(&self) -> i32 {
        self.places().iter().map(|(_, y)| y + ROW / 2 + 4).max().unwrap_or(self.top())
    }

    /// For each row, the left end of its column and its middle, with a gap where the level changes.
    fn places(&self) -> Vec<(i32, i32)> {
        let begin = self.top() - ROW / 2 + 4;
        let in_column = self.scores.len().div_ceil(self.columns()).max(1);
        let (mut y, mut level) = (begin, Level::Whole);
        let place = |(index, score): (usize, &Score)| {
            if index % in_column == 0 {
                (y, level) = (begin, score.level);
            }
            y += ROW + if score.level == level { 0 } else { GAP };
            level = score.level;
            ((index / in_column) as i32 * (WIDTH + BETWEEN), y)
        };
        self.scores.iter().enumerate().map(place).collect()
    }
}

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &ScoreChart,
    ink: &Ink,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    chart.head().write(area, ink)?;
    for column in 0..chart.columns() as i32 {
        draw_scale(area, chart, column * (WIDTH + BETWEEN), ink)?;
    }
    for (score, (left, y)) in chart.scores.iter().zip(chart.places()) {
        draw_score(area, score, (left, ink.dots(y)), ink)?;
    }
    Ok(())
}

fn x(share: f64, left: i32, ink: &Ink) -> i32 {
    let width = f64::from(ink.dots(WIDTH - LEFT - RIGHT));
    ink.dots(left + LEFT) + (share.clamp(0.0, 1.0) * width).round() as i32
}

fn draw_scale<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &ScoreChart,
    left: i32,
    ink: &Ink,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    let (top, bottom) = (ink.dots(chart.top() - 6), ink.dots(chart.bottom()));
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let at = x(share, left, ink);
        area.draw(&PathElement::new(vec![(at, top), (at, bottom)], ink.pen(GRID, 1)))?;
        let below = (at, bottom + ink.dots(11));
        let name = format!("{:.0} %", share * 100.0);
        ink.write(area, &name, below, Lettering::plain(11, MUTED), Anchor::Centre)?;
    }
    area.draw(&PathElement::new(
        vec![(x(0.0, left, ink), bottom), (x(1.0, left, ink), bottom)],
        ink.pen(AXIS, 1),
    ))?;
    Ok(())
}

fn draw_score<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    score: &Score,
    (left, y): (i32, i32),
    ink: &Ink,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    if let Some(chance) = score.chance {
        let (at, half) = (x(chance, left, ink), ink.dots(ROW / 2 + 1));
        let line = vec![(at, y - half), (at, y + half)];
        area.draw(&DashedPathElement::new(line, ink.dots(4), ink.dots(3), ink.pen(MUTED, 1)))?;
    }
    let bold = score.level == Level::Whole;
    let (pen, radius) = match score.level {
        Level::Whole => (3, 6),
        Level::Group => (2, 5),
        Level::Subject => (1, 4),
    };
    let ink_colour = if score.level == Level::Subject { MUTED } else { colour(0) };
    if let Some(interval) = score.interval {
        let whisker = interval.ends().map(|end| (x(end, left, ink), y)).to_vec();
        area.draw(&PathElement::new(whisker, ink.pen(ink_colour, pen)))?;
    }
    let hollow = score.level == Level::Subject;
    ink.disc(area, (x(score.share, left, ink), y), radius, ink_colour, hollow)?;
    let lettering = Lettering { size: 11, colour: if hollow { MUTED } else { TEXT }, bold };
    ink.write(area, &shortened(&score.label), (ink.dots(left + LEFT - 12), y), lettering, Anchor::Right)?;
    let value = (ink.dots(left + WIDTH - RIGHT + 42), y);
    ink.write(area, &percent(score.share), value, lettering, Anchor::Right)?;
    let of = (ink.dots(left + WIDTH - 12), y);
    ink.write(area, &format!("n {}", score.items), of, Lettering::plain(10, MUTED), Anchor::Right)
}

/// Shortens a label to 36 columns.
fn shortened(label: &str) -> String {
    if columns(label) <= 36 {
        return label.to_owned();
    }
    let mut short = String::new();
    for letter in label.chars() {
        if columns(&short) >= 34 {
            break;
        }
        short.push(letter);
    }
    short + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_labels_are_cut_by_width() {
        assert_eq!(shortened("ideological_and_moral_cultivation"), "ideological_and_moral_cultivation");
        assert_eq!(shortened(&"a".repeat(40)), "a".repeat(34) + "…");
        assert_eq!(shortened(&"题".repeat(40)), "题".repeat(17) + "…");
    }
}
