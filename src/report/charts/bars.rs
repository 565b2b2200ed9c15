//! Bars of multiples around 1 ×: how many times as fast, group by group. Groups stand side by side.

use super::axis::{Axis, Division, tick_name};
use super::head::Head;
use super::ink::{AXIS, Anchor, GRID, Ink, Lettering, MUTED, TEXT, colour};
use super::panels::Look;
use crate::report::format::times_number;
use crate::stats::Interval;
use plotters::coord::Shift;
use plotters::prelude::*;

/// A chart of multiples.
pub(in crate::report) struct BarChart {
    pub(in crate::report) title: String,
    pub(in crate::report) subtitle: String,
    /// What a multiple says, below each group's axis.
    pub(in crate::report) x_name: String,
    pub(in crate::report) groups: Vec<BarGroup>,
}

/// One group, with a heading.
pub(in crate::report) struct BarGroup {
    pub(in crate::report) title: String,
    pub(in crate::report) bars: Vec<Bar>,
}

/// A multiple with its interval.
pub(in crate::report) struct Bar {
    pub(in crate::report) label: String,
    pub(in crate::report) look: Look,
    pub(in crate::report) value: f64,
    pub(in crate::report) interval: Option<Interval>,
    /// Whether the bar sums up the others of its group.
    pub(in crate::report) strong: bool,
}

const WIDTH: i32 = 1140;
const TOP: i32 = 56;
const GROUP_HEAD: i32 = 24;
const ROW: i32 = 22;
const BOTTOM: i32 = 42;
const LABELS: i32 = 92;
const FIGURES: i32 = 62;
const GAP: i32 = 18;

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

impl BarChart {
    fn head(&self) -> Head {
        Head::of(&self.title, &self.subtitle, WIDTH)
    }

    fn rows(&self) -> i32 {
        self.groups.iter().map(|group| group.bars.len() as i32).max().unwrap_or(0)
    }

    fn top(&self) -> i32 {
        TOP + self.head().more() + GROUP_HEAD
    }

    /// Width and height. The height depends on the number of bars.
    pub(super) fn size(&self) -> (u32, u32) {
        (WIDTH as u32, (self.top() + ROW * self.rows() + 6 + BOTTOM) as u32)
    }

    /// Left and right end of the bars of a group.
    fn span(&self, index: usize) -> (i32, i32) {
        let count = self.groups.len().max(1) as i32;
        let width = (WIDTH - 24 - GAP * (count - 1)) / count;
        let left = 12 + index as i32 * (width + GAP);
        (left + LABELS, left + width - FIGURES)
    }

    fn axis(&self) -> Axis {
        let bars = self.groups.iter().flat_map(|group| &group.bars);
        let ends = bars.flat_map(|bar| [Some(bar.value), bar.interval.map(|of| of.high)]).flatten();
        Axis::of(Division::FromZero, ends.chain([1.0]))
    }
}

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &BarChart,
    ink: &Ink,
) -> Drawn<DB> {
    chart.head().write(area, ink)?;
    let axis = chart.axis();
    let top = chart.top();
    for (index, group) in chart.groups.iter().enumerate() {
        let (left, right) = chart.span(index);
        let bottom = top + ROW * group.bars.len() as i32 + 4;
        let x = |value: f64| {
            ink.dots(left) + (axis.place(value) * f64::from(ink.dots(right - left))).round() as i32
        };
        let at = (ink.dots(left - LABELS + 4), ink.dots(top - 13));
        ink.write(area, &group.title, at, Lettering::bold(12, TEXT), Anchor::Left)?;
        for &tick in &axis.ticks {
            let line = vec![(x(tick), ink.dots(top)), (x(tick), ink.dots(bottom))];
            area.draw(&PathElement::new(line, ink.pen(GRID, 1)))?;
            let below = (x(tick), ink.dots(bottom + 11));
            let name = format!("{} ×", tick_name(tick));
            ink.write(area, &name, below, Lettering::plain(11, MUTED), Anchor::Centre)?;
        }
        let below = (ink.dots(i32::midpoint(left, right)), ink.dots(bottom + 28));
        ink.write(area, &chart.x_name, below, Lettering::plain(11, MUTED), Anchor::Centre)?;
        for (row, bar) in group.bars.iter().enumerate() {
            let y = ink.dots(top + ROW * row as i32 + ROW / 2 + 1);
            draw_bar(area, bar, y, (&x, ink.dots(left), ink.dots(right)), ink)?;
        }
        let one = vec![(x(1.0), ink.dots(top)), (x(1.0), ink.dots(bottom))];
        area.draw(&PathElement::new(one, ink.pen(TEXT, 1)))?;
    }
    Ok(())
}

fn draw_bar<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    bar: &Bar,
    y: i32,
    (x, left, right): (&dyn Fn(f64) -> i32, i32, i32),
    ink: &Ink,
) -> Drawn<DB> {
    let shade = colour(bar.look.series);
    let half = ink.dots(if bar.strong { 7 } else { 5 });
    let corners = [(x(0.0), y - half), (x(bar.value), y + half)];
    let fill = if bar.look.modelled { shade.mix(0.28) } else { shade.mix(0.75) };
    area.draw(&Rectangle::new(corners, fill.filled()))?;
    area.draw(&Rectangle::new(corners, ink.pen(shade, 1)))?;
    if let Some(Interval { low, high }) = bar.interval {
        let cap = ink.dots(3);
        area.draw(&PathElement::new(vec![(x(low), y), (x(high), y)], ink.pen(AXIS_DARK, 2)))?;
        for at in [x(low), x(high)] {
            area.draw(&PathElement::new(vec![(at, y - cap), (at, y + cap)], ink.pen(AXIS_DARK, 1)))?;
        }
    }
    let lettering = Lettering { size: 11, colour: TEXT, bold: bar.strong };
    ink.write(area, &bar.label, (left - ink.dots(8), y), lettering, Anchor::Right)?;
    let figure = format!("{} ×", times_number(bar.value));
    ink.write(area, &figure, (right + ink.dots(FIGURES - 6), y), lettering, Anchor::Right)?;
    area.draw(&PathElement::new(vec![(left, y - half), (left, y + half)], ink.pen(AXIS, 1)))
}

/// Whiskers, visible on a filled bar.
const AXIS_DARK: RGBColor = RGBColor(0x22, 0x28, 0x31);
