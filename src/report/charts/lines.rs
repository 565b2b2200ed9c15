//! Line charts: throughput or latency against batch or length, with intervals. Lines are labelled at their right
//! ends.

use super::axis::tick_name;
use super::head::Head;
use super::ink::{AXIS, Anchor, GRID, Ink, Lettering, MUTED, TEXT};
use crate::stats::Interval;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use std::ops::Range;

/// Width, and height below a short head.
pub(super) const SIZE: (u32, u32) = (560, 340);

/// Width at the right for the names of the series.
const NAMES: i32 = 172;
/// Widths left of the vertical axis: a margin, and its labels.
const LEFT: i32 = 6;
const Y_LABELS: i32 = 52;
/// Least distance between two names.
const NAME_STEP: i32 = 17;

/// A chart of lines.
pub(crate) struct LineChart {
    pub(crate) title: String,
    /// The unit of the vertical axis, and what else holds for all series.
    pub(crate) subtitle: String,
    pub(crate) x_name: String,
    pub(crate) x_scale: Scale,
    pub(crate) series: Vec<Series>,
}

/// Division of the horizontal axis.
#[derive(Clone, Copy)]
pub(crate) enum Scale {
    Linear,
    /// Doublings are equally far apart.
    Log2,
}

impl Scale {
    fn place(self, x: f64) -> f64 {
        match self {
            Self::Linear => x,
            Self::Log2 => x.max(1.0).log2(),
        }
    }
}

/// A line.
pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) modelled: bool,
    /// In ascending x.
    pub(crate) points: Vec<Point>,
}

/// A point with its interval.
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) interval: Option<Interval>,
}

impl LineChart {
    fn head(&self) -> Head {
        Head::of(&self.title, &self.subtitle, SIZE.0 as i32)
    }

    /// Width and height.
    pub(super) fn size(&self) -> (u32, u32) {
        (SIZE.0, SIZE.1 + self.head().more() as u32)
    }
}

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &LineChart,
    ink: &Ink,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    let head = chart.head();
    head.write(area, ink)?;
    let own_name = ink.needs_runs(&chart.x_name);
    let mut axes = ChartBuilder::on(area)
        .margin_top(ink.dots(58 + head.more()))
        .margin_right(ink.dots(NAMES))
        .margin_bottom(ink.dots(6))
        .margin_left(ink.dots(LEFT))
        .x_label_area_size(ink.dots(42))
        .y_label_area_size(ink.dots(Y_LABELS))
        .build_cartesian_2d(XAxis::of(chart), 0.0..y_end(chart))?;
    axes.configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(ink.pen(GRID, 1))
        .axis_style(ink.pen(AXIS, 1))
        .set_all_tick_mark_size(ink.dots(4))
        .label_style(ink.lettering(11, MUTED))
        .axis_desc_style(ink.lettering(11, MUTED))
        .y_label_offset(ink.sag(11))
        .x_desc(if own_name { "" } else { chart.x_name.as_str() })
        .x_label_formatter(&|x: &f64| format!("{x}"))
        .y_labels(6)
        .y_label_formatter(&|y: &f64| tick_name(*y))
        .draw()?;
    let mut ends = Vec::new();
    for (index, series) in chart.series.iter().enumerate() {
        let dot = |x: f64, y: f64| axes.backend_coord(&(x, y));
        for point in &series.points {
            if let Some(Interval { low, high }) = point.interval {
                let whisker = vec![dot(point.x, low), dot(point.x, high)];
                area.draw(&PathElement::new(whisker, ink.pen(super::ink::colour(index), 1)))?;
            }
        }
        let path: Vec<_> = series.points.iter().map(|p| dot(p.x, p.y)).collect();
        ends.extend(path.last().map(|&(_, y)| (index, y)));
        ink.line(area, path.clone(), index, series.modelled)?;
        for at in path {
            ink.marker(area, at, index, series.modelled)?;
        }
    }
    if own_name {
        let (left, right) = (LEFT + Y_LABELS, SIZE.0 as i32 - NAMES);
        let at = (ink.dots(i32::midpoint(left, right)), ink.dots(chart.size().1 as i32 - 14));
        ink.write(area, &chart.x_name, at, Lettering::plain(11, MUTED), Anchor::Centre)?;
    }
    write_names(area, chart, ink, ends)
}

/// Writes the names at the right with marker and dash, each as near to its line's end as the others allow.
fn write_names<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &LineChart,
    ink: &Ink,
    mut ends: Vec<(usize, i32)>,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    ends.sort_by_key(|&(index, y)| (y, index));
    let bottom = ink.dots(chart.size().1 as i32 - 54);
    let left = ink.dots(SIZE.0 as i32 - NAMES + 10);
    for (at, (index, _)) in spread(&ends, ink.dots(NAME_STEP), bottom).into_iter().zip(&ends) {
        let series = &chart.series[*index];
        ink.key(area, (left, at), *index, series.modelled)?;
        ink.write(area, &series.label, (left + ink.dots(43), at), Lettering::plain(11, TEXT), Anchor::Left)?;
    }
    Ok(())
}

/// Returns heights at least `step` apart and not past `bottom`, as near to the `wanted` (ascending) ones as possible.
fn spread(wanted: &[(usize, i32)], step: i32, bottom: i32) -> Vec<i32> {
    let mut heights: Vec<i32> = wanted.iter().map(|(_, y)| *y).collect();
    let mut least = i32::MIN;
    for height in &mut heights {
        *height = (*height).max(least);
        least = *height + step;
    }
    let mut most = bottom;
    for height in heights.iter_mut().rev() {
        *height = (*height).min(most);
        most = *height - step;
    }
    heights
}

/// Least distance between two labelled x, as a share of the axis.
const TICK_SHARE: f64 = 0.07;

/// A horizontal axis that labels every x with a point and no other. Skips an x too near to the last labelled one.
struct XAxis {
    scale: Scale,
    ticks: Vec<f64>,
}

impl XAxis {
    fn of(chart: &LineChart) -> Self {
        let mut ticks: Vec<f64> = chart.series.iter().flat_map(|s| s.points.iter().map(|p| p.x)).collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        Self { scale: chart.x_scale, ticks }
    }
}

impl Ranged for XAxis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    /// Places the first and last tick slightly inside, so that no marker is on the vertical axis.
    fn map(&self, x: &f64, (left, right): (i32, i32)) -> i32 {
        let Range { start, end } = self.range();
        let (first, last) = (self.scale.place(start), self.scale.place(end));
        let share = if last > first { (self.scale.place(*x) - first) / (last - first) } else { 0.5 };
        left + ((0.06 + 0.88 * share) * f64::from(right - left)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        let Range { start, end } = self.range();
        let step = TICK_SHARE * (self.scale.place(end) - self.scale.place(start));
        let mut named: Vec<f64> = Vec::new();
        for &tick in &self.ticks {
            if named.last().is_none_or(|last| self.scale.place(tick) - self.scale.place(*last) >= step) {
                named.push(tick);
            }
        }
        named
    }

    fn range(&self) -> Range<f64> {
        self.ticks.first().copied().unwrap_or(0.0)..self.ticks.last().copied().unwrap_or(0.0)
    }
}

/// A round number at or above everything drawn.
fn y_end(chart: &LineChart) -> f64 {
    let points = chart.series.iter().flat_map(|s| &s.points);
    let most = points.map(|p| p.interval.map_or(p.y, |of| p.y.max(of.high))).fold(0.0, f64::max);
    if !(most.is_finite() && most > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(most.log10().floor());
    let steps = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|end| *end >= most * 1.02).unwrap_or(12.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_overlap_and_stay_above_the_bottom() {
        let wanted = [(0, 10), (1, 12), (2, 80), (3, 99), (4, 100)];
        let heights = spread(&wanted, 17, 100);
        assert!(heights.windows(2).all(|w| w[1] - w[0] >= 17), "{heights:?}");
        assert_eq!((heights[0], heights[1], heights[4]), (10, 27, 100));
    }

    #[test]
    fn the_axis_ends_at_a_round_number_above_the_data() {
        let chart = |y| LineChart {
            title: String::new(),
            subtitle: String::new(),
            x_name: String::new(),
            x_scale: Scale::Linear,
            series: vec![Series {
                label: String::new(),
                modelled: false,
                points: vec![Point { x: 1.0, y, interval: None }],
            }],
        };
        for (y, end) in [(97.0, 100.0), (99.9, 120.0), (0.031, 0.04), (0.0, 1.0), (f64::INFINITY, 1.0)] {
            assert!((y_end(&chart(y)) - end).abs() < 1e-12, "{y}");
        }
    }
}
