//! Heat maps: scores by two numbers, such as a text's length and a needle's depth. The darker, the better.

use crate::language::{Language, Text, ToText, text};
use std::collections::{BTreeMap, BTreeSet};

use super::head::Head;
use super::ink::{Anchor, Ink, Lettering, MUTED, TEXT};
use super::{Chart, plain_name};
use crate::dataset::recorded;
use crate::record::{AccuracyCase, RunRecord, SampleRecord};
use crate::report::format::fixed;
use plotters::coord::Shift;
use plotters::prelude::*;

const WIDTH: i32 = 560;
const LEFT: i32 = 62;
const RIGHT: i32 = 16;
const TOP: i32 = 62;
const ROW: i32 = 19;
const BOTTOM: i32 = 42;

/// The measure that a map shows.
const SCORE: &str = "score";

/// A map of one text.
pub(in crate::report) struct HeatChart {
    pub(super) title: String,
    pub(super) subtitle: String,
    /// What columns and rows are, below them.
    x_name: String,
    /// Lengths in tokens, depths in per cent.
    lengths: Vec<u64>,
    depths: Vec<u64>,
    /// Mean score by length and depth. A cell without an answer is missing.
    cells: BTreeMap<(u64, u64), f64>,
}

/// Returns the maps of the tasks whose subjects are `<text>_<length>_<depth>`, by file name without extension.
pub(in crate::report) fn of_grids(
    run: &RunRecord,
    samples: &[SampleRecord],
    language: Language,
) -> Vec<(String, Chart)> {
    let is_grid = |case: &&AccuracyCase| {
        let text = case.task_file.as_ref().map(|file| file.text.as_str());
        recorded(&case.benchmark, text).is_some_and(|benchmark| benchmark.is_grid)
    };
    let of_case = |case: &AccuracyCase| {
        let own = samples.iter().filter(|sample| sample.task == case.task);
        let mut texts: BTreeMap<&str, BTreeMap<(u64, u64), Vec<f64>>> = BTreeMap::new();
        for sample in own {
            let Some((text, place)) = place(&sample.subject) else { continue };
            let cell = texts.entry(text).or_default().entry(place).or_default();
            cell.extend(sample.measures.get(SCORE).copied());
        }
        let chart = |(text, cells): (&str, _)| {
            let name = format!("map-{}-{}", plain_name(&case.task), plain_name(text));
            (name, Chart::Heat(HeatChart::of((&case.task, text), &cells, language)))
        };
        texts.into_iter().map(chart).collect::<Vec<_>>()
    };
    run.plan.accuracy.iter().filter(is_grid).flat_map(of_case).collect()
}

/// Reads `<text>_<length>_<depth>`.
fn place(subject: &str) -> Option<(&str, (u64, u64))> {
    let (rest, depth) = subject.rsplit_once('_')?;
    let (text, length) = rest.rsplit_once('_')?;
    Some((text, (length.parse().ok()?, depth.parse().ok()?)))
}

impl HeatChart {
    fn of((task, text): (&str, &str), answers: &BTreeMap<(u64, u64), Vec<f64>>, language: Language) -> Self {
        let distinct = |of: fn(&(u64, u64)) -> u64| {
            answers.keys().map(of).collect::<BTreeSet<u64>>().into_iter().collect::<Vec<u64>>()
        };
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        let scored = answers.iter().filter(|(_, values)| !values.is_empty());
        let cells: BTreeMap<(u64, u64), f64> = scored.map(|(at, values)| (*at, mean(values))).collect();
        let all: Vec<f64> = answers.values().flatten().copied().collect();
        let least = cells.iter().min_by(|a, b| a.1.total_cmp(b.1));
        let title = match least {
            None => text!("{task}, {text}: no answer has a score", task, text),
            Some(((length, depth), least)) => text!(
                "{task}, {text}: score {mean} on average, least {least} at {length} tokens and {depth} % depth",
                task,
                text,
                mean = fixed(Some(mean(&all)), 2),
                least = fixed(Some(*least), 2),
                length,
                depth
            ),
        };
        let subtitle = text!(
            "mean score of {answers} answers in each cell, 0 to 100; down: depth of the needle in per cent; across: length in tokens",
            answers = spread(answers.values().map(Vec::len))
        );
        let [title, subtitle, x_name] = [title, subtitle, text!("tokens of the text; rows: depth in %")]
            .map(|text| text.in_language(language));
        Self { title, subtitle, x_name, lengths: distinct(|at| at.0), depths: distinct(|at| at.1), cells }
    }

    fn head(&self) -> Head {
        Head::of(&self.title, &self.subtitle, WIDTH)
    }

    fn top(&self) -> i32 {
        TOP + self.head().more()
    }

    pub(super) fn size(&self) -> (u32, u32) {
        (WIDTH as u32, (self.top() + ROW * self.depths.len() as i32 + BOTTOM) as u32)
    }
}

/// `10`, or `8 to 10`.
fn spread(counts: impl Iterator<Item = usize> + Clone) -> Text {
    match (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0)) {
        (least, most) if least == most => most.to_text(),
        (least, most) => text!("{least} to {most}", least, most),
    }
}

/// White at 0, the first series' blue at 1.
fn shade(score: f64) -> RGBColor {
    let share = score.clamp(0.0, 1.0);
    let mix = |dark: u8| (255.0 + (f64::from(dark) - 255.0) * share).round() as u8;
    let RGBColor(r, g, b) = super::ink::colour(0);
    RGBColor(mix(r), mix(g), mix(b))
}

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &HeatChart,
    ink: &Ink,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    chart.head().write(area, ink)?;
    let width = (WIDTH - LEFT - RIGHT) / chart.lengths.len().max(1) as i32;
    let (left, top) =
        (|column: usize| LEFT + width * column as i32, |row: usize| chart.top() + ROW * row as i32);
    for (row, depth) in chart.depths.iter().enumerate() {
        let middle = top(row) + ROW / 2;
        let label = (ink.dots(LEFT - 8), ink.dots(middle));
        ink.write(area, &depth.to_string(), label, Lettering::plain(11, MUTED), Anchor::Right)?;
        for (column, length) in chart.lengths.iter().enumerate() {
            let score = chart.cells.get(&(*length, *depth)).copied();
            let corners = [
                (ink.dots(left(column) + 1), ink.dots(top(row) + 1)),
                (ink.dots(left(column) + width - 1), ink.dots(top(row) + ROW - 1)),
            ];
            area.draw(&Rectangle::new(corners, shade(score.unwrap_or(0.0)).filled()))?;
            let at = (ink.dots(left(column) + width / 2), ink.dots(middle));
            let figure = score.map_or_else(|| "–".to_owned(), |score| fixed(Some(100.0 * score), 0));
            let colour = if score.is_some_and(|score| score > 0.5) { WHITE } else { TEXT };
            ink.write(area, &figure, at, Lettering::plain(10, colour), Anchor::Centre)?;
        }
    }
    let below = top(chart.depths.len()) + 10;
    for (column, length) in chart.lengths.iter().enumerate() {
        let at = (ink.dots(left(column) + width / 2), ink.dots(below));
        ink.write(area, &length.to_string(), at, Lettering::plain(11, MUTED), Anchor::Centre)?;
    }
    let axis = (ink.dots(LEFT + (WIDTH - LEFT - RIGHT) / 2), ink.dots(below + 18));
    ink.write(area, &chart.x_name, axis, Lettering::plain(11, MUTED), Anchor::Centre)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_subject_says_its_text_length_and_depth() {
        assert_eq!(place("zh_finance_1000_5"), Some(("zh_finance", (1000, 5))));
        for wrong in ["law", "law_1", "law_x_1", "law_1_x", "_"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }

    /// `GLMBENCH_REPORT_SAMPLE=DIR` keeps the pictures.
    #[test]
    fn a_map_has_a_figure_in_each_cell() {
        let mut run = fixture::run();
        run.plan.accuracy.truncate(1);
        run.plan.accuracy[0].benchmark = "needlebench".into();
        let task = run.plan.accuracy[0].task.clone();
        let mut samples = Vec::new();
        for length in [1000_u32, 2000, 3000, 4000] {
            for depth in [0_u32, 5, 10, 15, 21, 26, 31, 36, 42, 47, 52, 57, 63, 68, 73, 78, 84, 89, 94, 100] {
                let score = 1.0 - f64::from(length * depth) / 500_000.0;
                samples.push(SampleRecord {
                    task: task.clone(),
                    subject: format!("PaulGrahamEssays_{length}_{depth}"),
                    measures: [("score".to_owned(), score)].into(),
                    ..fixture::sample()
                });
            }
        }
        samples[7].measures.clear();
        let charts = of_grids(&run, &samples, Language::En);
        let names: Vec<&str> = charts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [format!("map-{task}-PaulGrahamEssays")]);
        let folder = tempfile::tempdir().unwrap();
        let kept = std::env::var_os("GLMBENCH_REPORT_SAMPLE").map(std::path::PathBuf::from);
        let pictures =
            crate::report::charts::draw(kept.as_deref().unwrap_or(folder.path()), &charts).unwrap();
        let (svg, alt) = (&pictures[0].svg, &pictures[0].alt);
        assert!(alt.contains("least 0.20 at 4000 tokens and 100 % depth"), "{alt}");
        assert_eq!((svg.matches("\n20\n").count(), svg.matches("\n–\n").count()), (1, 1), "{svg}");
        // The other tasks have no map.
        run.plan.accuracy[0].benchmark = "ceval".into();
        assert!(of_grids(&run, &samples, Language::En).is_empty());
    }

    #[test]
    fn a_cell_is_the_mean_of_its_answers_and_one_without_is_missing() {
        let answers = BTreeMap::from([
            ((1000, 0), vec![1.0, 0.5]),
            ((1000, 50), vec![0.2]),
            ((2000, 0), vec![]),
            ((2000, 50), vec![1.0, 1.0]),
        ]);
        let chart = HeatChart::of(("needlebench", "essays"), &answers, Language::En);
        assert_eq!((chart.lengths.as_slice(), chart.depths.as_slice()), (&[1000, 2000][..], &[0, 50][..]));
        assert_eq!((chart.cells.get(&(1000, 0)), chart.cells.get(&(2000, 0))), (Some(&0.75), None));
        assert_eq!(
            chart.title,
            "needlebench, essays: score 0.74 on average, least 0.20 at 1000 tokens and 50 % depth"
        );
        assert!(chart.subtitle.starts_with("mean score of 0 to 2 answers"), "{}", chart.subtitle);
        let nothing = HeatChart::of(("t", "e"), &BTreeMap::from([((1, 0), vec![])]), Language::En);
        assert_eq!(nothing.title, "t, e: no answer has a score");
    }
}
