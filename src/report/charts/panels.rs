//! Small multiples: panels side by side with the same axes, under one legend.

use super::axis::{Axis, tick_name};
use super::head::Head;
use super::ink::{AXIS, Anchor, GRID, Ink, Lettering, MUTED, TEXT, colour};
use super::letters::{Frame, Obstacles, Spot};
use crate::language::{Text, columns, text};
use crate::report::format::times_number;
use crate::stats::Interval;
use plotters::coord::Shift;
use plotters::prelude::*;

/// A chart of panels.
pub(in crate::report) struct PanelChart {
    pub(in crate::report) title: String,
    pub(in crate::report) subtitle: String,
    pub(in crate::report) x: Axis,
    pub(in crate::report) x_name: String,
    pub(in crate::report) y: Axis,
    pub(in crate::report) panels: Vec<Panel>,
    pub(in crate::report) keys: Vec<Key>,
    /// A level to draw across every panel, with its name.
    pub(in crate::report) level: Option<(f64, String)>,
}

/// One panel.
pub(in crate::report) struct Panel {
    pub(in crate::report) title: String,
    pub(in crate::report) lines: Vec<Line>,
}

/// Look of a series: its number gives colour, marker and dash. Hollow and dotted if modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) struct Look {
    pub(in crate::report) series: usize,
    pub(in crate::report) modelled: bool,
}

/// A line of points.
pub(in crate::report) struct Line {
    pub(in crate::report) look: Look,
    pub(in crate::report) points: Vec<Mark>,
    /// Whether a line joins the points.
    pub(in crate::report) joined: bool,
    /// Whether each point has a marker.
    pub(in crate::report) marked: bool,
}

/// A point with an interval in y and a short label beside it.
#[derive(Default)]
pub(in crate::report) struct Mark {
    pub(in crate::report) x: f64,
    pub(in crate::report) y: f64,
    pub(in crate::report) interval: Option<Interval>,
    pub(in crate::report) letters: String,
}

/// A legend entry.
pub(in crate::report) struct Key {
    pub(in crate::report) label: String,
    pub(in crate::report) look: Look,
}

/// Width of a picture with one panel, and with several.
const NARROW: i32 = 560;
const WIDE: i32 = 1140;
const LEFT: i32 = 62;
const RIGHT: i32 = 16;
const HEAD: i32 = 52;
const KEY: i32 = 20;
const PANEL_HEAD: i32 = 26;
const PANEL_GAP: i32 = 24;
/// Height below a panel for its tick names and the axis's name.
const PANEL_FOOT: i32 = 40;
const BOTTOM: i32 = 4;
/// Size of the letters beside points, and the width of one.
const LETTERS: i32 = 10;
const LETTER: i32 = 7;

/// What follows a subtitle if panels were left out.
pub(in crate::report) fn left_out(lone: usize) -> Text {
    match lone {
        0 => Text::EMPTY,
        1 => text!("; one shape with a single point is in the tables"),
        several => text!("; {several} shapes with a single point are in the tables", several),
    }
}

/// `3.9 to 4.3 ×`, or one multiple if both look alike.
pub(in crate::report) fn between(multiples: Interval) -> Text {
    let [first, last] = multiples.ends().map(times_number);
    if first == last { text!("{times} ×", times = last) } else { text!("{first} to {last} ×", first, last) }
}

/// Leaves out the panels in which every line is a single point, if there are others. Returns their number: their values stand in
/// the tables.
pub(in crate::report) fn without_lone_points(panels: Vec<Panel>) -> (Vec<Panel>, usize) {
    let lone = |panel: &Panel| panel.lines.iter().all(|line| line.points.len() < 2);
    let count = panels.iter().filter(|panel| lone(panel)).count();
    if count == panels.len() {
        return (panels, 0);
    }
    (panels.into_iter().filter(|panel| !lone(panel)).collect(), count)
}

impl PanelChart {
    fn head(&self) -> Head {
        Head::of(&self.title, &self.subtitle, self.width())
    }

    /// The number of columns that leaves the fewest places empty.
    fn columns(&self) -> i32 {
        match self.panels.len() as i32 {
            count @ ..=3 => count.max(1),
            count => {
                let empty = |columns: i32| (columns - count % columns) % columns;
                if empty(3) <= empty(4) { 3 } else { 4 }
            }
        }
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
        let longest = self.keys.iter().map(|key| columns(&key.label)).max().unwrap_or(0) as i32;
        ((self.width() - 24) / (58 + 7 * longest)).max(1)
    }

    fn key_top(&self) -> i32 {
        HEAD + self.head().more()
    }

    fn top(&self) -> i32 {
        let rows = (self.keys.len() as i32 + self.keys_in_a_row() - 1) / self.keys_in_a_row();
        self.key_top() + KEY * rows + 4
    }

    fn panel_step(&self) -> i32 {
        PANEL_HEAD + self.panel_height() + PANEL_FOOT
    }

    /// Width and height.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.width() as u32, (self.top() + self.rows() * self.panel_step() + BOTTOM) as u32)
    }

    /// The plot area in a panel.
    fn frame(&self, index: usize) -> Frame {
        let (column, row) = (index as i32 % self.columns(), index as i32 / self.columns());
        let width = (self.width() - LEFT - RIGHT - PANEL_GAP * (self.columns() - 1)) / self.columns();
        let left = LEFT + column * (width + PANEL_GAP);
        let top = self.top() + PANEL_HEAD + row * self.panel_step();
        Frame { left, top, right: left + width, bottom: top + self.panel_height() }
    }
}

type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &PanelChart,
    ink: &Ink,
) -> Drawn<DB> {
    chart.head().write(area, ink)?;
    draw_keys(area, chart, ink)?;
    for (index, panel) in chart.panels.iter().enumerate() {
        draw_scale(area, chart, index, ink)?;
        let place = Place::of(chart, index, ink);
        for line in &panel.lines {
            draw_line(area, line, &place, ink)?;
        }
        write_letters(area, panel, &place, ink)?;
    }
    Ok(())
}

fn draw_keys<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, chart: &PanelChart, ink: &Ink) -> Drawn<DB> {
    let in_a_row = chart.keys_in_a_row();
    let longest = chart.keys.iter().map(|key| columns(&key.label)).max().unwrap_or(0) as i32;
    for (index, key) in chart.keys.iter().enumerate() {
        let (column, row) = (index as i32 % in_a_row, index as i32 / in_a_row);
        let (x, y) = (12 + column * (58 + 7 * longest), chart.key_top() + 6 + row * KEY);
        ink.key(area, (ink.dots(x), ink.dots(y)), key.look.series, key.look.modelled)?;
        let after = (ink.dots(x + 44), ink.dots(y));
        ink.write(area, &key.label, after, Lettering::plain(11, TEXT), Anchor::Left)?;
    }
    Ok(())
}

fn draw_scale<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &PanelChart,
    index: usize,
    ink: &Ink,
) -> Drawn<DB> {
    let Frame { left, top, right, bottom } = chart.frame(index);
    let dots = |(x, y): (i32, i32)| (ink.dots(x), ink.dots(y));
    for &tick in &chart.y.ticks {
        let y = raised(top, bottom, chart.y.place(tick));
        area.draw(&PathElement::new(vec![dots((left, y)), dots((right, y))], ink.pen(GRID, 1)))?;
        if left == LEFT {
            let before = dots((left - 7, y));
            ink.write(area, &tick_name(tick), before, Lettering::plain(11, MUTED), Anchor::Right)?;
        }
    }
    if let Some((level, name)) = &chart.level {
        let y = raised(top, bottom, chart.y.place(*level));
        area.draw(&PathElement::new(vec![dots((left, y)), dots((right, y))], ink.pen(MUTED, 1)))?;
        ink.write(area, name, dots((right - 4, y - 8)), Lettering::plain(10, MUTED), Anchor::Right)?;
    }
    let mut free_from = left - 20;
    for &tick in &chart.x.ticks {
        let x = inside(left, right, chart.x.place(tick));
        area.draw(&PathElement::new(vec![dots((x, bottom)), dots((x, bottom + 4))], ink.pen(AXIS, 1)))?;
        let name = tick_name(tick);
        let half = 4 * name.chars().count() as i32;
        // A name that would touch the one before it is left out.
        if x - half >= free_from {
            ink.write(area, &name, dots((x, bottom + 13)), Lettering::plain(11, MUTED), Anchor::Centre)?;
            free_from = x + half + 3;
        }
    }
    let below = dots((i32::midpoint(left, right), bottom + 28));
    ink.write(area, &chart.x_name, below, Lettering::plain(10, MUTED), Anchor::Centre)?;
    let corner = vec![dots((left, top)), dots((left, bottom)), dots((right, bottom))];
    area.draw(&PathElement::new(corner, ink.pen(AXIS, 1)))?;
    let title = &chart.panels[index].title;
    ink.write(area, title, dots((left + 2, top - 11)), Lettering::bold(11, TEXT), Anchor::Left)
}

/// Leaves a margin at both ends, so that no marker is on the frame.
fn inside(left: i32, right: i32, share: f64) -> i32 {
    left + ((0.04 + 0.92 * share) * f64::from(right - left)).round() as i32
}

/// The height of a share, with a margin at the top, so that no marker is cut.
fn raised(top: i32, bottom: i32, share: f64) -> i32 {
    bottom - (0.96 * share * f64::from(bottom - top)).round() as i32
}

/// Where a panel's points are in the picture, in pixels.
struct Place<'a> {
    chart: &'a PanelChart,
    /// The panel's plot area.
    frame: Frame,
}

impl<'a> Place<'a> {
    fn of(chart: &'a PanelChart, index: usize, ink: &Ink) -> Self {
        Self { chart, frame: chart.frame(index).scaled(ink.dots(1)) }
    }

    fn x(&self, x: f64) -> i32 {
        inside(self.frame.left, self.frame.right, self.chart.x.place(x))
    }

    fn y(&self, y: f64) -> i32 {
        raised(self.frame.top, self.frame.bottom, self.chart.y.place(y))
    }

    fn spot(&self, mark: &Mark) -> (i32, i32) {
        (self.x(mark.x), self.y(mark.y))
    }
}

fn draw_line<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    line: &Line,
    place: &Place<'_>,
    ink: &Ink,
) -> Drawn<DB> {
    for mark in &line.points {
        if let Some(Interval { low, high }) = mark.interval {
            let whisker = vec![(place.x(mark.x), place.y(low)), (place.x(mark.x), place.y(high))];
            area.draw(&PathElement::new(whisker, ink.pen(colour(line.look.series), 1)))?;
        }
    }
    let path: Vec<(i32, i32)> = line.points.iter().map(|mark| place.spot(mark)).collect();
    if line.joined && path.len() > 1 {
        ink.line(area, path.clone(), line.look.series, line.look.modelled)?;
    }
    if line.marked {
        for at in path {
            ink.marker(area, at, line.look.series, line.look.modelled)?;
        }
    }
    Ok(())
}

/// Writes the letters beside points where they cover neither a marker nor a line nor one another. Letters without such a place
/// are left out.
fn write_letters<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    panel: &Panel,
    place: &Place<'_>,
    ink: &Ink,
) -> Drawn<DB> {
    let frame = place.frame;
    let mut taken = Obstacles::within(Frame { top: frame.top - ink.dots(4), ..frame }, ink.dots(1));
    for line in &panel.lines {
        let path: Vec<(i32, i32)> = line.points.iter().map(|mark| place.spot(mark)).collect();
        if line.joined {
            path.windows(2).for_each(|pair| taken.add_segment(pair[0], pair[1]));
        }
        if line.marked {
            path.iter().for_each(|at| taken.add_marker(*at));
        }
    }
    for line in &panel.lines {
        // The ends first: they say most.
        let count = line.points.len();
        let order = [0, count.saturating_sub(1)].into_iter().chain(1..count.saturating_sub(1));
        let mut written = Vec::new();
        for index in order.filter(|index| *index < count) {
            let mark = &line.points[index];
            if mark.letters.is_empty() || written.contains(&index) {
                continue;
            }
            written.push(index);
            let size = (LETTER * mark.letters.chars().count() as i32, LETTERS);
            if let Some(Spot { x, y }) = taken.place(place.spot(mark), size) {
                ink.write(area, &mark.letters, (x, y), Lettering::plain(LETTERS, MUTED), Anchor::Left)?;
            }
        }
    }
    Ok(())
}
