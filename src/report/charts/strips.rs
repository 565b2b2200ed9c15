//! Strip plot: raw samples of each case with the interval of their median, relative to the base's median.

use super::axis::{Axis, Division, tick_name};
use super::head::Head;
use super::ink::{AXIS, Anchor, GRID, Ink, Lettering, MUTED, TEXT, colour};
use super::panels::{Key, Look};
use crate::language::columns;
use crate::stats::Interval;
use plotters::coord::Shift;
use plotters::prelude::*;

/// A chart of samples.
pub(in crate::report) struct StripChart {
    pub(in crate::report) title: String,
    pub(in crate::report) subtitle: String,
    /// What a sample is, below the axis.
    pub(in crate::report) x_name: String,
    pub(in crate::report) keys: Vec<Key>,
    pub(in crate::report) rows: Vec<StripRow>,
    /// Share of the base median within which a change does not matter.
    pub(in crate::report) threshold: f64,
}

/// A case.
pub(in crate::report) struct StripRow {
    pub(in crate::report) label: String,
    pub(in crate::report) strips: Vec<Strip>,
}

/// The samples of a case in one run, as multiples of the base median.
pub(in crate::report) struct Strip {
    pub(in crate::report) look: Look,
    pub(in crate::report) samples: Vec<f64>,
    pub(in crate::report) median: f64,
    pub(in crate::report) interval: Option<Interval>,
}

const WIDTH: i32 = 1140;
const TOP: i32 = 76;
const STRIP: i32 = 15;
const GAP: i32 = 9;
const BOTTOM: i32 = 44;
const LEFT: i32 = 210;
const RIGHT: i32 = 24;
/// Most samples drawn per strip; thousands would merge into one bar.
const MOST_DOTS: usize = 200;

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

impl StripChart {
    fn head(&self) -> Head {
        Head::of(&self.title, &self.subtitle, WIDTH)
    }

    fn top(&self) -> i32 {
        TOP + self.head().more()
    }

    fn bottom(&self) -> i32 {
        self.top() + self.rows.iter().map(|row| STRIP * row.strips.len() as i32 + GAP).sum::<i32>()
    }

    /// Width and height. The height depends on the number of cases.
    pub(super) fn size(&self) -> (u32, u32) {
        (WIDTH as u32, (self.bottom() + BOTTOM) as u32)
    }

    fn axis(&self) -> Axis {
        let samples = self.rows.iter().flat_map(|row| row.strips.iter().flat_map(|strip| &strip.samples));
        let band = [1.0 / (1.0 + self.threshold), 1.0 + self.threshold];
        Axis::of(Division::Log, samples.copied().chain(band))
    }
}

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &StripChart,
    ink: &Ink,
) -> Drawn<DB> {
    chart.head().write(area, ink)?;
    let mut key_x = 12;
    let key_y = ink.dots(chart.top() - TOP + 58);
    for key in &chart.keys {
        ink.key(area, (ink.dots(key_x), key_y), key.look.series, key.look.modelled)?;
        ink.write(area, &key.label, (ink.dots(key_x + 44), key_y), Lettering::plain(11, TEXT), Anchor::Left)?;
        key_x += 64 + 7 * columns(&key.label) as i32;
    }
    let axis = chart.axis();
    let x = |value: f64| {
        ink.dots(LEFT) + (axis.place(value) * f64::from(ink.dots(WIDTH - LEFT - RIGHT))).round() as i32
    };
    let (top, bottom) = (ink.dots(chart.top()), ink.dots(chart.bottom()));
    let band = [(x(1.0 / (1.0 + chart.threshold)), top), (x(1.0 + chart.threshold), bottom)];
    area.draw(&Rectangle::new(band, GRID.mix(0.55).filled()))?;
    for &tick in &axis.ticks {
        area.draw(&PathElement::new(vec![(x(tick), top), (x(tick), bottom)], ink.pen(GRID, 1)))?;
        let below = (x(tick), bottom + ink.dots(11));
        ink.write(area, &tick_name(tick), below, Lettering::plain(11, MUTED), Anchor::Centre)?;
    }
    area.draw(&PathElement::new(vec![(x(1.0), top), (x(1.0), bottom)], ink.pen(AXIS, 1)))?;
    let mut y = chart.top();
    for row in &chart.rows {
        let middle = ink.dots(y + STRIP * row.strips.len() as i32 / 2);
        let before = (ink.dots(LEFT - 12), middle);
        ink.write(area, &row.label, before, Lettering::plain(11, TEXT), Anchor::Right)?;
        for strip in &row.strips {
            draw_strip(area, strip, y, &x, ink)?;
            y += STRIP;
        }
        y += GAP;
    }
    let below = (ink.dots(LEFT + (WIDTH - LEFT - RIGHT) / 2), bottom + ink.dots(30));
    ink.write(area, &chart.x_name, below, Lettering::plain(11, MUTED), Anchor::Centre)
}

fn draw_strip<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    strip: &Strip,
    top: i32,
    x: &dyn Fn(f64) -> i32,
    ink: &Ink,
) -> Drawn<DB> {
    let shade = colour(strip.look.series);
    let every = strip.samples.len().div_ceil(MOST_DOTS).max(1);
    for (index, &sample) in strip.samples.iter().step_by(every).enumerate() {
        // Alternate heights, so that equal samples do not hide one another.
        let y = ink.dots(top + 4) + (index as i32 * 5 % 9) * ink.dots(1);
        let dot = Circle::new((x(sample), y), ink.dots(2), shade.mix(0.35).filled());
        if strip.look.modelled {
            area.draw(&Circle::new((x(sample), y), ink.dots(2), ink.pen(shade, 1)))?;
        } else {
            area.draw(&dot)?;
        }
    }
    let middle = ink.dots(top + STRIP / 2);
    if let Some(Interval { low, high }) = strip.interval {
        area.draw(&PathElement::new(vec![(x(low), middle), (x(high), middle)], ink.pen(shade, 2)))?;
    }
    let mark = vec![(x(strip.median), ink.dots(top + 1)), (x(strip.median), ink.dots(top + STRIP - 2))];
    area.draw(&PathElement::new(mark, ink.pen(shade, 3)))
}
