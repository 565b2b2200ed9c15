//! Ratio plot: modelled over published time, a line for each model, below a line for each chip and phase.

use super::axis::{Axis, Division, tick_name};
use super::head::Head;
use super::ink::{AXIS, Anchor, GRID, Ink, Lettering, MUTED, TEXT, colour};
use crate::language::{Text, columns, text};
use glmbench_calibrate::residuals::Spread;
use plotters::coord::Shift;
use plotters::prelude::*;

/// A chart of ratios.
pub(in crate::report) struct RatioChart {
    pub(in crate::report) title: String,
    pub(in crate::report) subtitle: String,
    /// What a ratio is, below the axis.
    pub(in crate::report) x_name: String,
    /// The kinds of dots with their names.
    pub(in crate::report) keys: [(Dot, String); 4],
    pub(in crate::report) rows: Vec<RatioRow>,
}

/// A line of the chart.
pub(in crate::report) struct RatioRow {
    pub(in crate::report) label: String,
    /// Whether the line sums up the lines below it.
    pub(in crate::report) strong: bool,
    pub(in crate::report) dots: Vec<Dot>,
    /// Geometric mean and range.
    pub(in crate::report) mean: Option<Spread>,
    /// Remarks at the right end.
    pub(in crate::report) words: String,
}

/// A ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::report) enum Dot {
    /// By the profile.
    Now(f64),
    /// By the profile, of a row that does not count.
    Aside(f64),
    /// With the model left out of the fit.
    LeftOut(f64),
    /// By the profile before calibration.
    Before(f64),
}

impl Dot {
    /// Every kind of dot with its name.
    pub(in crate::report) const NAMES: [(Self, Text); 4] = [
        (Self::Now(1.0), text!("by the profile")),
        (Self::LeftOut(1.0), text!("model left out of the fit")),
        (Self::Aside(1.0), text!("reported only")),
        (Self::Before(1.0), text!("before calibration")),
    ];

    fn ratio(self) -> f64 {
        match self {
            Self::Now(ratio) | Self::Aside(ratio) | Self::LeftOut(ratio) | Self::Before(ratio) => ratio,
        }
    }
}

const WIDTH: i32 = 1140;
const TOP: i32 = 78;
const ROW: i32 = 17;
const GAP: i32 = 7;
const BOTTOM: i32 = 40;
const LEFT: i32 = 220;
const RIGHT: i32 = 370;

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

impl RatioChart {
    fn bottom(&self) -> i32 {
        self.top() + self.rows.iter().map(RatioRow::height).sum::<i32>() + 4
    }

    fn head(&self) -> Head {
        Head::of(&self.title, &self.subtitle, WIDTH)
    }

    fn top(&self) -> i32 {
        TOP + self.head().more()
    }

    /// Width and height. The height depends on the number of lines.
    pub(super) fn size(&self) -> (u32, u32) {
        (WIDTH as u32, (self.bottom() + BOTTOM) as u32)
    }

    fn axis(&self) -> Axis {
        let dots = self.rows.iter().flat_map(|row| &row.dots).map(|dot| dot.ratio());
        Axis::of(Division::Log, dots.chain([0.5, 2.0]))
    }
}

impl RatioRow {
    fn height(&self) -> i32 {
        if self.strong { ROW + GAP } else { ROW }
    }
}

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &RatioChart,
    ink: &Ink,
) -> Drawn<DB> {
    chart.head().write(area, ink)?;
    draw_keys(area, chart, 60 + chart.head().more(), ink)?;
    let axis = chart.axis();
    let x = |value: f64| {
        ink.dots(LEFT) + (axis.place(value) * f64::from(ink.dots(WIDTH - LEFT - RIGHT))).round() as i32
    };
    let (top, bottom) = (ink.dots(chart.top()), ink.dots(chart.bottom()));
    for &tick in &axis.ticks {
        area.draw(&PathElement::new(vec![(x(tick), top), (x(tick), bottom)], ink.pen(GRID, 1)))?;
        let below = (x(tick), bottom + ink.dots(11));
        ink.write(area, &tick_name(tick), below, Lettering::plain(11, MUTED), Anchor::Centre)?;
    }
    area.draw(&PathElement::new(vec![(x(1.0), top), (x(1.0), bottom)], ink.pen(AXIS, 1)))?;
    let mut y = chart.top();
    for row in &chart.rows {
        y += row.height();
        draw_row(area, row, ink.dots(y - ROW / 2), &x, ink)?;
    }
    let below = (ink.dots(LEFT + (WIDTH - LEFT - RIGHT) / 2), bottom + ink.dots(28));
    ink.write(area, &chart.x_name, below, Lettering::plain(11, MUTED), Anchor::Centre)
}

fn draw_keys<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &RatioChart,
    y: i32,
    ink: &Ink,
) -> Drawn<DB> {
    let mut x = 18;
    for (dot, label) in &chart.keys {
        draw_dot(area, *dot, (ink.dots(x), ink.dots(y)), ink)?;
        ink.write(area, label, (ink.dots(x + 12), ink.dots(y)), Lettering::plain(11, TEXT), Anchor::Left)?;
        x += 40 + 7 * columns(label) as i32;
    }
    Ok(())
}

fn draw_row<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    row: &RatioRow,
    y: i32,
    x: &dyn Fn(f64) -> i32,
    ink: &Ink,
) -> Drawn<DB> {
    let lettering = Lettering { size: 11, colour: TEXT, bold: row.strong };
    ink.write(area, &row.label, (ink.dots(LEFT - 12), y), lettering, Anchor::Right)?;
    if let Some(Spread { mean, least, most }) = row.mean {
        area.draw(&PathElement::new(vec![(x(least), y), (x(most), y)], ink.pen(AXIS, 3)))?;
        let tick = vec![(x(mean), y - ink.dots(6)), (x(mean), y + ink.dots(6))];
        area.draw(&PathElement::new(tick, ink.pen(TEXT, 3)))?;
    }
    for &dot in &row.dots {
        draw_dot(area, dot, (x(dot.ratio()), y), ink)?;
    }
    let lettering = if row.strong { Lettering::plain(11, TEXT) } else { Lettering::plain(10, MUTED) };
    ink.write(area, &row.words, (ink.dots(WIDTH - RIGHT + 12), y), lettering, Anchor::Left)
}

fn draw_dot<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    dot: Dot,
    (x, y): (i32, i32),
    ink: &Ink,
) -> Drawn<DB> {
    match dot {
        Dot::Now(_) => ink.disc(area, (x, y), 3, colour(0), false),
        Dot::Aside(_) => ink.disc(area, (x, y), 3, MUTED, true),
        Dot::LeftOut(_) => {
            let line = vec![(x, y - ink.dots(5)), (x, y + ink.dots(5))];
            area.draw(&PathElement::new(line, ink.pen(colour(1), 1)))
        }
        Dot::Before(_) => {
            let d = ink.dots(3);
            let grey = ink.pen(AXIS, 1);
            area.draw(&PathElement::new(vec![(x - d, y - d), (x + d, y + d)], grey))?;
            area.draw(&PathElement::new(vec![(x - d, y + d), (x + d, y - d)], grey))
        }
    }
}
