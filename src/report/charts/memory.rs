//! The memory charts of a card.

use super::Chart;
use super::axis::{Axis, Division};
use super::panels::{Key, Line, Look, Mark, Panel, PanelChart};
use crate::language::{Language, text};
use crate::record::RunRecord;
use std::collections::BTreeMap;

/// CardLines by input length, output length and number of chips, each with its points.
pub(in crate::report) type CardLines = BTreeMap<(u32, u32, u32), Vec<(f64, f64)>>;

/// Returns the memory charts of a card. One has the memory of a case alone in GiB against its batch, by lengths and number of
/// chips. The other has the largest batch that fits against a sequence's tokens, by number of chips.
pub(in crate::report) fn cards_memory(
    (run, language): (&RunRecord, Language),
    alone: &CardLines,
    largest: &CardLines,
) -> Vec<(String, Chart)> {
    let from = &run.provenance;
    let on = text!("{device} {dtype}, by estimate", device = from.device, dtype = from.dtype);
    let batch = memory_chart(
        [
            text!("Memory of a chip against batch"),
            text!("GiB of the case alone by input + output length, {on}", on),
            text!("batch"),
        ]
        .map(|words| words.in_language(language)),
        alone,
        |(input, output, tp)| format!("{input} + {output}, tp {tp}"),
    );
    let fits = memory_chart(
        [
            text!("Largest batch that fits"),
            text!("sequences by number of chips, {on}", on),
            text!("input and output tokens of each sequence"),
        ]
        .map(|words| words.in_language(language)),
        largest,
        |(_, _, tp)| format!("tp {tp}"),
    );
    let named = [("memory-batch", batch), ("memory-largest-batch", fits)];
    named.into_iter().filter_map(|(name, chart)| Some((name.to_owned(), Chart::Panels(chart?)))).collect()
}

/// A chart with its title, its subtitle and the name of its x axis.
fn memory_chart(
    [title, subtitle, x_name]: [String; 3],
    lines: &CardLines,
    label: impl Fn((u32, u32, u32)) -> String,
) -> Option<PanelChart> {
    let points = || lines.values().flatten();
    let across: Vec<f64> = points().map(|(x, _)| *x).collect();
    let look = |series| Look { series, modelled: false };
    let mark = |&(x, y): &(f64, f64)| Mark { x, y, ..Mark::default() };
    (!across.is_empty()).then(|| PanelChart {
        title,
        subtitle,
        x: Axis::of(Division::Log, across.clone()).naming(across.clone()),
        x_name,
        level: None,
        y: Axis::of(Division::Log, points().map(|(_, y)| *y)),
        keys: lines.keys().enumerate().map(|(i, key)| Key { label: label(*key), look: look(i) }).collect(),
        panels: vec![Panel {
            title: String::new(),
            lines: lines
                .values()
                .enumerate()
                .map(|(i, points)| Line {
                    look: look(i),
                    points: points.iter().map(mark).collect(),
                    joined: true,
                    marked: true,
                })
                .collect(),
        }],
    })
}
