//! Forest plot: differences with their intervals, one below the other, around the zero line.

use super::axis::{Axis, Division, tick_name};
use super::head::Head;
use super::ink::{AXIS, Anchor, GRID, Ink, Lettering, MUTED, TEXT, colour};
use crate::stats::Interval;
use plotters::coord::Shift;
use plotters::prelude::*;

/// A chart of differences.
pub(in crate::report) struct ForestChart {
    pub(in crate::report) title: String,
    pub(in crate::report) subtitle: String,
    /// What a difference is, below the axis.
    pub(in crate::report) x_name: String,
    pub(in crate::report) rows: Vec<Difference>,
    /// Half-width of the band in which a difference does not matter.
    pub(in crate::report) margin: f64,
}

/// A difference with its interval.
pub(in crate::report) struct Difference {
    pub(in crate::report) label: String,
    /// Whether the row sums up the rows below it.
    pub(in crate::report) strong: bool,
    pub(in crate::report) value: f64,
    pub(in crate::report) interval: Option<Interval>,
    /// The verdict, at the right end.
    pub(in crate::report) verdict: String,
    pub(in crate::report) series: usize,
}

const WIDTH: i32 = 1140;
const TOP: i32 = 58;
const ROW: i32 = 21;
const BOTTOM: i32 = 42;
const LEFT: i32 = 300;
const RIGHT: i32 = 350;

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

impl ForestChart {
    fn head(&self) -> Head {
        Head::of(&self.title, &self.subtitle, WIDTH)
    }

    fn top(&self) -> i32 {
        TOP + self.head().more()
    }

    /// Width and height. The height depends on the number of rows.
    pub(super) fn size(&self) -> (u32, u32) {
        (WIDTH as u32, (self.top() + ROW * self.rows.len() as i32 + 8 + BOTTOM) as u32)
    }

    fn axis(&self) -> Axis {
        let ends = self.rows.iter().flat_map(|row| {
            let ends = row.interval.unwrap_or_else(|| Interval::point(row.value)).ends();
            ends.into_iter().chain([row.value])
        });
        Axis::of(Division::Even, ends.chain([0.0, -self.margin, self.margin]))
    }
}

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &ForestChart,
    ink: &Ink,
) -> Drawn<DB> {
    chart.head().write(area, ink)?;
    let axis = chart.axis();
    let x = |value: f64| {
        ink.dots(LEFT) + (axis.place(value) * f64::from(ink.dots(WIDTH - LEFT - RIGHT))).round() as i32
    };
    let head = chart.top();
    let (top, bottom) = (ink.dots(head), ink.dots(head + ROW * chart.rows.len() as i32 + 8));
    area.draw(&Rectangle::new(
        [(x(-chart.margin), top), (x(chart.margin), bottom)],
        GRID.mix(0.55).filled(),
    ))?;
    for &tick in &axis.ticks {
        area.draw(&PathElement::new(vec![(x(tick), top), (x(tick), bottom)], ink.pen(GRID, 1)))?;
        let below = (x(tick), bottom + ink.dots(11));
        ink.write(area, &tick_name(tick), below, Lettering::plain(11, MUTED), Anchor::Centre)?;
    }
    let below = (ink.dots((LEFT + WIDTH - RIGHT) / 2), bottom + ink.dots(26));
    ink.write(area, &chart.x_name, below, Lettering::plain(11, MUTED), Anchor::Centre)?;
    area.draw(&PathElement::new(vec![(x(0.0), top), (x(0.0), bottom)], ink.pen(AXIS, 2)))?;
    for (index, row) in chart.rows.iter().enumerate() {
        let y = ink.dots(head + ROW / 2 + 4 + ROW * index as i32);
        draw_row(area, row, y, &x, ink)?;
    }
    Ok(())
}

fn draw_row<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    row: &Difference,
    y: i32,
    x: &dyn Fn(f64) -> i32,
    ink: &Ink,
) -> Drawn<DB> {
    let shade = if row.strong { colour(row.series) } else { MUTED };
    if let Some(Interval { low, high }) = row.interval {
        let pen = ink.pen(shade, if row.strong { 3 } else { 1 });
        area.draw(&PathElement::new(vec![(x(low), y), (x(high), y)], pen))?;
    }
    ink.disc(area, (x(row.value), y), if row.strong { 6 } else { 4 }, shade, !row.strong)?;
    let lettering = if row.strong { Lettering::bold(11, TEXT) } else { Lettering::plain(11, MUTED) };
    ink.write(area, &row.label, (ink.dots(LEFT - 12), y), lettering, Anchor::Right)?;
    let signed = |value: f64| format!("{value:+.2}").replace('-', "−");
    let figure = match row.interval {
        Some(Interval { low, high }) => format!("{} [{}, {}]", signed(row.value), signed(low), signed(high)),
        None => signed(row.value),
    };
    ink.write(area, &figure, (ink.dots(WIDTH - RIGHT + 14), y), lettering, Anchor::Left)?;
    ink.write(area, &row.verdict, (ink.dots(WIDTH - 186), y), lettering, Anchor::Left)
}
