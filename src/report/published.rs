//! The one published speed of ChatGLM2-6B on this hardware, for reference.

use super::format::{NONE, fixed, or_none};
use super::modelled;
use super::performance::per_token_ns;
use super::table::Table;
use crate::language::{Text, cells, joined, text, texts};
use crate::record::{Clock, PerfRow, Phase, RunRecord};
use glmbench_device::DeviceKind;

/// Input length of the published figure.
const INPUT_TOKENS: u32 = 8192;
/// Shape of the published model in records: ChatGLM2-6B.
const SHAPE: &str = "28 layers, hidden 4096, ffn 13696, 32 heads of 128, 2 KV heads, vocabulary 65024";
/// Published decode time, ms per token.
const PUBLISHED_MS: f64 = 162.0;

/// Table of the decode time per token of a 300I DUO at 8,192 input tokens beside the published one. `None` for other
/// devices and shapes.
///
/// The figure is from the ChatGLM2-6B page of Ascend's model library ("for reference": 300I Duo, batch 1, 8192 in,
/// 1024 out, 162 ms a token). The page names neither the number of chips nor the versions. The figure is a reference,
/// and no run is judged by it.
pub fn reference(run: &RunRecord, rows: &[PerfRow]) -> Option<Table> {
    if run.provenance.device.known().is_none_or(|device| device.kind != DeviceKind::Duo300i) {
        return None;
    }
    let decode: Vec<&PerfRow> = rows
        .iter()
        .filter(|row| {
            // Another batch size is another measurement.
            row.phase == Phase::Decode
                && row.batch == 1
                && row.input_tokens == INPUT_TOKENS
                && row.median_ns.is_some()
        })
        .collect();
    if decode.is_empty() {
        return None;
    }
    let mut table = Table::new(
        text!(
            "Beside the published decode time. No profile is fitted to it. The same software of the same month ran Qwen-7B at 105 to \
         114 ms on one chip. Qwen-7B has more weights, and 18 times the cache a token. The excess looks like the long-context attention of an early \
         kernel"
        ),
        &texts!["Source", "Assumes", "Clock"],
        &texts!["Batch", "In", "Out", "ms/token", "÷ published", "They would agree"],
    );
    table.push(
        true,
        cells![
            text!("published, unknown conditions"),
            text!("one chip or two: not said"),
            NONE,
            1_u32,
            INPUT_TOKENS,
            1024_u32,
            fixed(Some(PUBLISHED_MS), 0),
            NONE,
            NONE,
        ],
    );
    for row in decode {
        let chips = match row.tp {
            1 => text!("one chip (tp 1)"),
            2 => text!("two chips (tp 2)"),
            n => format!("tp {n}").into(),
        };
        let ms = per_token_ns(row).map(|ns| ns / 1e6);
        table.push(
            false,
            cells![
                text!("this run"),
                chips,
                row.clock,
                row.batch,
                row.input_tokens,
                row.output_tokens,
                fixed(ms, 1) + &error(run, row),
                fixed(ms.map(|ms| ms / PUBLISHED_MS), 2),
                or_none(ms, |ms| agreement(ms / PUBLISHED_MS)),
            ],
        );
    }
    Some(table)
}

/// Returns a sentence that holds a modelled time per token of the published case against the published one. `None` for other cases,
/// and for models of another shape.
pub(super) fn sentence(run: &RunRecord, rows: &[PerfRow]) -> Option<Text> {
    let is_shape = run.provenance.model_details.get("shape").is_some_and(|shape| shape == SHAPE);
    if !is_shape || run.provenance.clock != Clock::Modelled {
        return None;
    }
    reference(run, rows)?;
    let is_case = |row: &&PerfRow| {
        let case = (row.phase, row.batch, row.input_tokens);
        case == (Phase::Decode, 1, INPUT_TOKENS) && row.clock == Clock::Modelled
    };
    let ratio = |row: &PerfRow| {
        per_token_ns(row).map(|ns| (row.tp, format!("{:.2}{}", ns / 1e6 / PUBLISHED_MS, error(run, row))))
    };
    let ratios: Vec<Text> = rows
        .iter()
        .filter(is_case)
        .filter_map(ratio)
        .map(|(tp, ratio)| text!("{ratio} of it on {tp} chip{tp:s}", ratio, tp))
        .collect();
    (!ratios.is_empty()).then(|| {
        text!("Published for batch 1 and {input_tokens} tokens in: {published_ms} ms a token; modelled is {ratios} (docs/CALIBRATION.md says \
             why the figure is doubted).", input_tokens = INPUT_TOKENS, published_ms = format!("{PUBLISHED_MS:.0}"), ratios = joined(&ratios, ", "))
    })
}

/// Returns the error of a modelled time as it follows the figure. Empty for measured times.
fn error(run: &RunRecord, row: &PerfRow) -> String {
    let error = modelled::error_at(run, row.phase, row.tp, [row.batch, row.input_tokens, row.output_tokens]);
    error.and_then(Result::ok).map_or_else(String::new, |error| format!(" {}", error.short()))
}

/// Says what would make a time equal the published one.
fn agreement(ratio: f64) -> Text {
    if (0.9..=1.1).contains(&ratio) {
        return text!("within 10 %");
    }
    text!("if everything ran at {ratio} of the speed here", ratio = format!("{ratio:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{fixture, perf_rows};

    #[test]
    fn stands_beside_long_prompts_of_that_card_only() {
        let fixture::Records { mut run, requests, .. } = fixture::realistic();
        let rows: Vec<PerfRow> = perf_rows(&run, &requests)
            .into_iter()
            .take(3)
            .map(|row| PerfRow { input_tokens: 8192, tp: 2, clock: Clock::Modelled, ..row })
            .collect();
        assert_eq!(reference(&run, &rows), None);
        run.provenance.device = "300i-duo (emulated)".into();
        let table = reference(&run, &rows).unwrap();
        assert_eq!(table.rows.len(), 2);
        assert!(table.rows[0].cells[0].contains("unknown conditions") && table.rows[0].cells[6] == "162");
        assert_eq!(&table.rows[1].cells[1..3], ["two chips (tp 2)", "modelled"]);
        assert_eq!(reference(&run, &perf_rows(&run, &requests)), None);
        assert_eq!(sentence(&run, &rows), None);
        run.provenance.clock = Clock::Modelled;
        run.provenance.model_details.insert("shape".into(), SHAPE.into());
        assert!(sentence(&run, &rows).unwrap().contains("162 ms a token; modelled is "));
    }
}
