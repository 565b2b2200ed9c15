//! The charts of a run ([`times`], [`tasks`]), and what draws those of several. [`lines`], [`scores`], [`panels`], [`bars`],
//! [`forest`], [`strips`], [`ratios`] and [`heat`] draw them, with the tools of [`ink`], [`head`] and [`letters`].
//!
//! A chart answers one question, and its title says the answer. Title and subtitle are its text alternative.
//!
//! Every chart is drawn twice from one description: as SVG, which the page embeds, and as PNG at twice the size.
//! Series differ in marker and dash as well as in colour, so that they can be distinguished in greyscale. Modelled
//! series have hollow markers, dotted lines, and "modelled" in their label.

pub(super) mod axis;
pub(super) mod bars;
pub(crate) mod cases;
pub(super) mod forest;
#[cfg(test)]
pub(super) mod gallery;
mod head;
mod heat;
mod ink;
mod letters;
pub(crate) mod lines;
mod memory;
pub(super) mod panels;
pub(super) mod ratios;
mod scores;
pub(super) mod strips;
mod tasks;
pub(super) mod times;
#[cfg(test)]
mod toy;

pub(super) use heat::of_grids;
pub(super) use memory::{CardLines, cards_memory};
pub(super) use tasks::of_scores;
pub(super) use times::of_times;
#[cfg(test)]
pub(super) use toy::ToyChart;

use super::error::ReportError;
use crate::record::{RecordError, write_whole};
use bars::BarChart;
use forest::ForestChart;
use heat::HeatChart;
use ink::Ink;
use lines::LineChart;
use panels::PanelChart;
use plotters::prelude::*;
use ratios::RatioChart;
use scores::ScoreChart;
use std::fs;
use std::path::Path;
use strips::StripChart;

/// A drawn chart for the page.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// File name in `charts/`, without extension.
    pub name: String,
    /// Text alternative.
    pub alt: String,
    /// The SVG.
    pub svg: String,
    /// Whether it takes the page's whole width.
    pub wide: bool,
}

/// A chart before it is drawn.
pub(super) enum Chart {
    Lines(LineChart),
    Scores(ScoreChart),
    Panels(PanelChart),
    Bars(BarChart),
    Forest(ForestChart),
    Strips(StripChart),
    Ratios(RatioChart),
    Heat(HeatChart),
    #[cfg(test)]
    Toy(ToyChart),
}

/// Draws the charts into `charts/` of a folder, which is created if there are any.
pub(super) fn draw(folder: &Path, described: &[(String, Chart)]) -> Result<Vec<Picture>, ReportError> {
    let folder = folder.join("charts");
    if !described.is_empty() {
        fs::create_dir_all(&folder).map_err(RecordError::io("create", &folder))?;
    }
    described.iter().map(|(name, chart)| draw_one(&folder, name, chart)).collect()
}

fn draw_one(folder: &Path, name: &str, chart: &Chart) -> Result<Picture, ReportError> {
    let path = folder.join(format!("{name}.svg"));
    let svg = chart.svg().map_err(|e| chart_error(&path, &e))?;
    write_whole(&path, svg.as_bytes())?;
    let path = folder.join(format!("{name}.png"));
    let png = chart.png().map_err(|e| chart_error(&path, &e))?;
    write_whole(&path, &png)?;
    Ok(Picture { name: name.to_owned(), alt: chart.title(), svg, wide: chart.size().0 > lines::SIZE.0 })
}

fn chart_error(path: &Path, message: &dyn ToString) -> ReportError {
    ReportError::Chart { path: path.to_owned(), message: message.to_string() }
}

/// Scale of a PNG relative to its SVG.
const PNG_SCALE: u32 = 2;

impl Chart {
    fn title(&self) -> String {
        match self {
            Self::Lines(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Scores(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Panels(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Bars(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Forest(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Strips(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Ratios(chart) => format!("{}, {}", chart.title, chart.subtitle),
            Self::Heat(chart) => format!("{}, {}", chart.title, chart.subtitle),
            #[cfg(test)]
            Self::Toy(chart) => chart.title(),
        }
    }

    fn size(&self) -> (u32, u32) {
        match self {
            Self::Lines(chart) => chart.size(),
            Self::Scores(chart) => chart.size(),
            Self::Panels(chart) => chart.size(),
            Self::Bars(chart) => chart.size(),
            Self::Forest(chart) => chart.size(),
            Self::Strips(chart) => chart.size(),
            Self::Ratios(chart) => chart.size(),
            Self::Heat(chart) => chart.size(),
            #[cfg(test)]
            Self::Toy(_) => toy::SIZE,
        }
    }

    fn draw_on<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, plotters::coord::Shift>,
        ink: &Ink,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        area.fill(&WHITE)?;
        match self {
            Self::Lines(chart) => lines::draw(area, chart, ink)?,
            Self::Scores(chart) => scores::draw(area, chart, ink)?,
            Self::Panels(chart) => panels::draw(area, chart, ink)?,
            Self::Bars(chart) => bars::draw(area, chart, ink)?,
            Self::Forest(chart) => forest::draw(area, chart, ink)?,
            Self::Strips(chart) => strips::draw(area, chart, ink)?,
            Self::Ratios(chart) => ratios::draw(area, chart, ink)?,
            Self::Heat(chart) => heat::draw(area, chart, ink)?,
            #[cfg(test)]
            Self::Toy(chart) => toy::draw(area, chart, ink)?,
        }
        area.present()
    }

    fn svg(&self) -> Result<String, String> {
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, self.size()).into_drawing_area();
        self.draw_on(&area, &Ink::vector()?).map_err(|e| e.to_string())?;
        drop(area);
        Ok(svg)
    }

    fn png(&self) -> Result<Vec<u8>, String> {
        let (width, height) = self.size();
        let (width, height) = (PNG_SCALE * width, PNG_SCALE * height);
        let mut pixels = vec![0; 3 * width as usize * height as usize];
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        self.draw_on(&area, &Ink::bitmap(PNG_SCALE)?).map_err(|e| e.to_string())?;
        drop(area);
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
        writer.write_image_data(&pixels).and_then(|()| writer.finish()).map_err(|e| e.to_string())?;
        Ok(file)
    }
}

/// A task's name, made safe as part of a file name.
pub(crate) fn plain_name(task: &str) -> String {
    task.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;
    use crate::record::{AccuracyRow, Clock, PerfRow, RunRecord};
    use crate::report::{accuracy::accuracy_rows, fixture, performance::perf_rows};

    fn draw_all(
        folder: &Path,
        run: &RunRecord,
        scores: &[AccuracyRow],
        times: &[PerfRow],
    ) -> Result<Vec<Picture>, ReportError> {
        let charts: Vec<_> = of_scores(run, scores, Language::En)
            .into_iter()
            .chain(of_times(run, times, Language::En))
            .collect();
        draw(folder, &charts)
    }

    #[test]
    fn charts_are_drawn_as_svg_and_png() {
        let folder = tempfile::tempdir().unwrap();
        let fixture::Records { run, samples, requests } = fixture::realistic();
        let (scores, times) = (accuracy_rows(&run, &samples), perf_rows(&run, &requests));
        let pictures = draw_all(folder.path(), &run, &scores, &times).unwrap();
        let names: Vec<_> = pictures.iter().map(|p| p.name.as_str()).collect();
        let wanted = [
            "accuracy",
            "accuracy-ceval",
            "throughput-e2e",
            "throughput-decode",
            "latency-decode",
            "latency-prefill",
        ];
        assert_eq!(names, wanted);
        for picture in &pictures {
            let png = fs::read(folder.path().join("charts").join(format!("{}.png", picture.name))).unwrap();
            assert!(png.starts_with(b"\x89PNG"));
            assert!(picture.svg.contains("<text"));
        }
    }

    #[test]
    fn a_modelled_clock_is_named_in_every_series() {
        let fixture::Records { mut run, requests, .. } = fixture::realistic();
        run.provenance.clock = Clock::Modelled;
        let charts = of_times(&run, &perf_rows(&run, &requests), Language::En);
        assert_eq!(charts.len(), 4);
        for (name, chart) in charts {
            assert!(chart.title().contains("modelled"), "{name}");
            match chart {
                Chart::Lines(chart) => {
                    assert!(chart.series.iter().all(|s| s.modelled && s.label.ends_with(", modelled")));
                }
                Chart::Panels(chart) => {
                    let is_told = |key: &panels::Key| key.look.modelled && key.label.ends_with(", modelled");
                    assert!(!chart.keys.is_empty() && chart.keys.iter().all(is_told));
                }
                _ => panic!("{name}"),
            }
        }
    }

    #[test]
    fn one_case_and_many_cases_are_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let fixture::Records { mut run, requests, .. } = fixture::realistic();
        run.plan.performance.truncate(1);
        assert_eq!(draw_all(folder.path(), &run, &[], &perf_rows(&run, &requests)).unwrap().len(), 4);
        let shape = &perf_rows(&run, &requests)[..3];
        let many: Vec<PerfRow> = (1..40)
            .flat_map(|n| {
                shape.iter().map(move |row| PerfRow { input_tokens: n, batch: n * n, ..row.clone() })
            })
            .collect();
        assert_eq!(draw_all(folder.path(), &run, &[], &many).unwrap().len(), 4);
    }

    #[test]
    fn nothing_to_show_draws_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let pictures = draw_all(folder.path(), &fixture::run(), &[], &[]).unwrap();
        assert!(pictures.is_empty() && !folder.path().join("charts").exists());
    }
}
