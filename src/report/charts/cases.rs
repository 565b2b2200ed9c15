//! Parts of the charts of workloads.

use super::lines::{LineChart, Point};
use super::{Chart, Picture, draw};
use crate::language::{Text, text};
use crate::record::RunRecord;
use crate::report::ReportError;
use std::path::Path;

/// Draws the charts with data into `charts/` of a run directory. Each has a file name without extension.
pub(in crate::report) fn draw_lines(
    run_dir: &Path,
    charts: Vec<(String, LineChart)>,
) -> Result<Vec<Picture>, ReportError> {
    let has_data = |chart: &LineChart| chart.series.iter().any(|series| !series.points.is_empty());
    let drawn = charts.into_iter().filter(|(_, chart)| has_data(chart));
    let drawn: Vec<_> = drawn.map(|(name, chart)| (name, Chart::Lines(chart))).collect();
    draw(run_dir, &drawn)
}

/// Returns a point without an interval.
pub(crate) fn point(x: f64, y: f64) -> Point {
    Point { x, y, interval: None }
}

/// Returns the subtitle of a chart of a workload: unit, clock, device and type. `error` is that of modelled times, which follows the
/// clock.
pub(crate) fn subtitle(run: &RunRecord, unit: &Text, error: &Text) -> Text {
    let from = &run.provenance;
    text!(
        "{unit}, {clock}{error}, {device} {dtype}",
        unit,
        clock = from.clock,
        error,
        device = from.device,
        dtype = from.dtype
    )
}

/// Returns the label of a series, marked if its times are modelled.
pub(crate) fn label(name: Text, modelled: bool) -> Text {
    if modelled { text!("{name}, modelled", name) } else { name }
}
