//! `glmbench npu-selftest`: runs every operator of an Ascend card once and prints a table to paste into an issue.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args as ClapArgs;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use glmbench_ascend::{
    AscendGroup, Chip, Forced, GroupSettings, Selftest, SelftestRow, Status, Widths, selftest,
};
use glmbench_device::{DType, DeviceInfo, DeviceKind};

use glmbench_engine::load::ModelPath;

use crate::compute::{Compute, ComputeSpec};

use super::engine::EmulationFlags;
use super::{emit, emit_json, gate_exit, say};

/// Check every operator of an Ascend card against plain loops, and print a table for an issue
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The card
    #[arg(long, default_value_t = DeviceKind::Duo300i, help = format!("The card: {}", DeviceKind::words(true)))]
    device: DeviceKind,
    /// On the emulated card
    #[command(flatten)]
    emulation: EmulationFlags,
    /// Number of chips. With two, the collective is checked as well
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    tp: u16,
    /// Use small shapes instead of those of ChatGLM2-6B
    #[arg(long)]
    small: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    device: &'a str,
    details: &'a [(String, String)],
    rows: Vec<JsonRow<'a>>,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    operator: &'a str,
    variant: &'a str,
    shape: &'a str,
    status: &'static str,
    max_error: Option<f64>,
    bound: Option<f64>,
    time_ns: Option<u64>,
    clock: Option<&'static str>,
    note: &'a str,
}

/// Runs the verb. Exits with 0 if nothing failed, 1 if something failed, 5 if the device is missing or is lost during
/// the test.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let Some(chip) = Chip::of(args.device) else {
        bail!("--device {}: expected {}", args.device, DeviceKind::words(true));
    };
    let widths = if args.small { small() } else { Widths::chatglm2_6b() };
    let compute = Compute::merged(
        &ComputeSpec {
            device: Some(args.device),
            emulation: args.emulation.emulate,
            profile: args.emulation.profile.clone(),
            ranks: Some(usize::from(args.tp)),
            ..ComputeSpec::default()
        },
        &ComputeSpec::default(),
    )?;
    // As for a real model, `auto` computes.
    let emulate = compute.emulate(&ModelPath::Folder("selftest".into()));
    let settings = GroupSettings {
        chip,
        tp: compute.ranks,
        dtype: DType::Fp16,
        attention: widths.heads,
        bind: false,
        forced: Forced::from_environment(chip.name())?,
        emulation: emulate.map(|emulate| emulate.machine(chip)).transpose()?,
    };
    if settings.emulation.as_ref().is_some_and(|emulation| emulation.timing_only) {
        bail!("--emulate=timing computes nothing that could be tested");
    }
    let Selftest { info, rows, lost } = selftest(&AscendGroup::new(settings)?, widths)?;
    if args.json {
        emit_json(&report(&info, &rows))?;
    } else {
        emit(words(&info, &rows).trim_end())?;
    }
    if let Some(lost) = lost {
        return Err(lost.into());
    }
    let failed = rows.iter().filter(|row| row.status == Status::Fail).count();
    say(&match failed {
        0 => "all operators that this machine has pass".to_owned(),
        n => format!("{n} of {} rows fail", rows.len()),
    });
    Ok(gate_exit(failed == 0))
}

fn small() -> Widths {
    let heads = glmbench_device::AttentionShape { heads: 8, kv_heads: 2, channels: 64 };
    Widths { hidden: 256, ffn: 320, heads, vocab: 128 }
}

fn status(row: &SelftestRow) -> &'static str {
    match row.status {
        Status::Pass => "pass",
        Status::Fail => "FAIL",
        Status::Unsupported => "not here",
    }
}

fn clock(row: &SelftestRow) -> Option<&'static str> {
    row.time_ns.map(|_| if row.modelled { "modelled" } else { "measured" })
}

fn report<'a>(info: &'a DeviceInfo, rows: &'a [SelftestRow]) -> Report<'a> {
    let row = |row: &'a SelftestRow| JsonRow {
        operator: &row.operator,
        variant: &row.variant,
        shape: &row.shape,
        status: status(row),
        max_error: row.max_error.filter(|e| e.is_finite()),
        bound: row.bound,
        time_ns: row.time_ns,
        clock: clock(row),
        note: &row.note,
    };
    Report { device: &info.name, details: &info.details, rows: rows.iter().map(row).collect() }
}

fn words(info: &DeviceInfo, rows: &[SelftestRow]) -> String {
    let mut machine = markdown();
    machine.set_header(["device", &info.name]);
    if let Some(profile) = &info.modelled_by {
        machine.add_row(["times", &format!("modelled by profile {}, {:.12}", profile.name, profile.sha256)]);
    }
    for (name, value) in &info.details {
        machine.add_row([name, &cell(value)]);
    }
    let mut table = markdown();
    table.set_header(["operator", "by", "shape", "status", "largest error", "bound", "time", "note"]);
    for row in rows {
        let number = |value: Option<f64>| value.map_or(String::new(), |v| format!("{v:.2e}"));
        let time = row.time_ns.map(|ns| format!("{:.1} us {}", ns as f64 / 1e3, clock(row).unwrap_or("")));
        table.add_row([
            row.operator.clone(),
            row.variant.clone(),
            row.shape.clone(),
            status(row).to_owned(),
            number(row.max_error),
            number(row.bound),
            time.unwrap_or_default(),
            cell(&row.note),
        ]);
    }
    format!("{machine}\n\n{table}\n")
}

/// Formats a library's message as a cell of a Markdown table: on one line, without cell separators.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn markdown() -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}
