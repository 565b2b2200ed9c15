//! Small multiples: panels side by side with the same axes, under one legend.

use super::axis::{Axis, tick_name};
use super::ink::{AXIS, Anchor, GRID, Ink, MUTED, TEXT, colour};
use plotters::coord::Shift;
use plotters::prelude::*;

/// A chart of panels.
pub(in crate::report) struct PanelChart {
    pub(super) title: String,
    pub(super) subtitle: String,
    pub(super) x: Axis,
    pub(super) x_name: &'static str,
    pub(super) y: Axis,
    pub(super) panels: Vec<Panel>,
    pub(super) keys: Vec<Key>,
}

/// One panel.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) lines: Vec<Line>,
}

/// Look of a series: its number gives colour, marker and dash. Hollow and dotted if modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) series: usize,
    pub(super) modelled: bool,
}

/// A line of points.
pub(super) struct Line {
    pub(super) look: Look,
    pub(super) points: Vec<Mark>,
    /// Whether a line joins the points.
    pub(super) joined: bool,
    /// Whether each point has a marker.
    pub(super) marked: bool,
}

/// A point with an interval in y and a short label beside it.
#[derive(Default)]
pub(super) struct Mark {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) interval: Option<(f64, f64)>,
    pub(super) letters: String,
}

/// A legend entry.
pub(super) struct Key {
    pub(super) label: String,
    pub(super) look: Look,
}

/// Width of a picture with one panel, and with several.
const NARROW: i32 = 560;
const WIDE: i32 = 1140;
const LEFT: i32 = 62;
const RIGHT: i32 = 16;
const HEAD: i32 = 52;
const KEY: i32 = 20;
const PANEL_HEAD: i32 = 24;
const PANEL_GAP: i32 = 14;
const BOTTOM: i32 = 34;

impl PanelChart {
    fn columns(&self) -> i32 {
        (self.panels.len() as i32).clamp(1, 3)
    }

    fn rows(&self) -> i32 {
        (self.panels.len() as i32 + self.columns() - 1) / self.columns()
    }

    fn width(&self) -> i32 {
        if self.columns() > 1 { WIDE } else { NARROW }
    }

    fn panel_height(&self) -> i32 {
        if self.columns() > 1 { 190 } else { 250 }
    }

    fn keys_in_a_row(&self) -> i32 {
        let longest = self.keys.iter().map(|key| key.label.chars().count()).max().unwrap_or(0) as i32;
        ((self.width() - 24) / (58 + 7 * longest)).max(1)
    }

    fn top(&self) -> i32 {
        let rows = (self.keys.len() as i32 + self.keys_in_a_row() - 1) / self.keys_in_a_row();
        HEAD + KEY * rows + 4
    }

    /// Width and height.
    pub(super) fn size(&self) -> (u32, u32) {
        let height = self.top() + self.rows() * (self.panel_height() + PANEL_HEAD + PANEL_GAP) + BOTTOM;
        (self.width() as u32, height as u32)
    }

    /// Left, top, right and bottom of a panel's plot area.
    fn frame(&self, index: usize) -> (i32, i32, i32, i32) {
        let (column, row) = (index as i32 % self.columns(), index as i32 / self.columns());
        let width = (self.width() - LEFT - RIGHT - PANEL_GAP * (self.columns() - 1)) / self.columns();
        let left = LEFT + column * (width + PANEL_GAP);
        let top = self.top() + PANEL_HEAD + row * (self.panel_height() + PANEL_HEAD + PANEL_GAP);
        (left, top, left + width, top + self.panel_height())
    }
}

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &PanelChart,
    ink: &Ink,
) -> Drawn<DB> {
    ink.write_head(area, &chart.title, &chart.subtitle)?;
    draw_keys(area, chart, ink)?;
    for (index, panel) in chart.panels.iter().enumerate() {
        draw_scale(area, chart, index, ink)?;
        for line in &panel.lines {
            draw_line(area, chart, index, line, ink)?;
        }
    }
    let (width, height) = chart.size();
    let below = (ink.dots(width as i32 / 2), ink.dots(height as i32 - 14));
    ink.write(area, chart.x_name, below, (11, MUTED, false), Anchor::Centre)
}

fn draw_keys<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, chart: &PanelChart, ink: &Ink) -> Drawn<DB> {
    let in_a_row = chart.keys_in_a_row();
    let longest = chart.keys.iter().map(|key| key.label.chars().count()).max().unwrap_or(0) as i32;
    for (index, key) in chart.keys.iter().enumerate() {
        let (column, row) = (index as i32 % in_a_row, index as i32 / in_a_row);
        let (x, y) = (12 + column * (58 + 7 * longest), HEAD + 6 + row * KEY);
        ink.key(area, (ink.dots(x), ink.dots(y)), key.look.series, key.look.modelled)?;
        let after = (ink.dots(x + 44), ink.dots(y));
        ink.write(area, &key.label, after, (11, TEXT, false), Anchor::Left)?;
    }
    Ok(())
}

fn draw_scale<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &PanelChart,
    index: usize,
    ink: &Ink,
) -> Drawn<DB> {
    let (left, top, right, bottom) = chart.frame(index);
    let dots = |(x, y): (i32, i32)| (ink.dots(x), ink.dots(y));
    for &tick in &chart.y.ticks {
        let y = bottom - (chart.y.place(tick) * f64::from(bottom - top)).round() as i32;
        area.draw(&PathElement::new(vec![dots((left, y)), dots((right, y))], ink.pen(GRID, 1)))?;
        if left == LEFT {
            ink.write(area, &tick_name(tick), dots((left - 7, y)), (11, MUTED, false), Anchor::Right)?;
        }
    }
    let last_row = index as i32 + chart.columns() >= chart.panels.len() as i32;
    for &tick in &chart.x.ticks {
        let x = inside(left, right, chart.x.place(tick));
        area.draw(&PathElement::new(vec![dots((x, bottom)), dots((x, bottom + 4))], ink.pen(AXIS, 1)))?;
        if last_row {
            ink.write(area, &tick_name(tick), dots((x, bottom + 14)), (11, MUTED, false), Anchor::Centre)?;
        }
    }
    let corner = vec![dots((left, top)), dots((left, bottom)), dots((right, bottom))];
    area.draw(&PathElement::new(corner, ink.pen(AXIS, 1)))?;
    let title = &chart.panels[index].title;
    ink.write(area, title, dots((left + 2, top - 11)), (11, TEXT, true), Anchor::Left)
}

/// Leaves a margin at both ends, so that no marker is on the frame.
fn inside(left: i32, right: i32, share: f64) -> i32 {
    left + ((0.04 + 0.92 * share) * f64::from(right - left)).round() as i32
}

fn draw_line<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &PanelChart,
    index: usize,
    line: &Line,
    ink: &Ink,
) -> Drawn<DB> {
    let (left, top, right, bottom) = chart.frame(index);
    let height =
        |y: f64| ink.dots(bottom) - (chart.y.place(y) * f64::from(ink.dots(bottom - top))).round() as i32;
    let spot = |mark: &Mark| (ink.dots(inside(left, right, chart.x.place(mark.x))), height(mark.y));
    for mark in &line.points {
        if let Some((low, high)) = mark.interval {
            let x = spot(mark).0;
            let whisker = vec![(x, height(low)), (x, height(high))];
            area.draw(&PathElement::new(whisker, ink.pen(colour(line.look.series), 1)))?;
        }
    }
    let path: Vec<(i32, i32)> = line.points.iter().map(spot).collect();
    if line.joined && path.len() > 1 {
        ink.line(area, path.clone(), line.look.series, line.look.modelled)?;
    }
    for (mark, at) in line.points.iter().zip(path) {
        if line.marked {
            ink.marker(area, at, line.look.series, line.look.modelled)?;
        }
        // Above the point, except near the panel's title, where it goes below.
        let aside = if at.1 < ink.dots(top + 14) { ink.dots(8) } else { -ink.dots(7) };
        let beside = (at.0 + ink.dots(6), at.1 + aside);
        ink.write(area, &mark.letters, beside, (9, MUTED, false), Anchor::Left)?;
    }
    Ok(())
}
