//! `glmbench npu-selftest`: runs every operator of an Ascend card once and prints a table to paste into an issue. It packs
//! the results into one file to send, and runs the calls of such a file again on the emulator.

mod replay;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args as ClapArgs;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use glmbench_ascend::{
    AscendGroup, Chip, Emulation, Forced, GroupSettings, Scope, Selftest, SelftestRow, Status, Widths,
    selftest, take_failed_calls,
};
use glmbench_device::{DType, DeviceError, DeviceInfo, DeviceKind, KvForm, WeightForm};

use glmbench_engine::load::ModelPath;

use crate::bundle::collect::{FailedStart, Tested, memory};
use crate::bundle::privacy::Private;
use crate::bundle::{Bundle, Call, Profile};
use crate::compute::{Compute, ComputeSpec};

use super::engine::EmulationFlags;
use super::{emit, emit_json, gate_exit, say};

/// Check every operator of an Ascend card against plain loops, and print a table for an issue
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The card
    #[arg(long, help = format!("The card: {} [default: {}]", DeviceKind::words(true), DeviceKind::Duo300i))]
    device: Option<DeviceKind>,
    /// On the emulated card
    #[command(flatten)]
    emulation: EmulationFlags,
    /// Number of chips. With two, the collective is checked as well
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    tp: u16,
    /// Use small shapes instead of those of ChatGLM2-6B
    #[arg(long)]
    small: bool,
    /// Also write one file to send: versions, choices, and times over shapes. It has every operator with its time and its
    /// difference, and every call with its arguments and status. It has no weights, prompts, host names, user names or home
    /// folders. If the card does
    /// not start, it has the failing call, versions and environment
    #[arg(long, value_name = "FILE.zip")]
    bundle: Option<PathBuf>,
    /// Run the calls of a bundle again on the emulator of its card, and print where the recorded rules differ from the
    /// emulator's. Exit code 1 if they do
    #[arg(long, value_name = "FILE.zip", conflicts_with_all = ["bundle", "tp", "small"])]
    replay: Option<PathBuf>,
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

/// Runs the verb. Exits with 0 if nothing failed, and with 1 if something failed (or differs, in a replay). It exits
/// with 5 if the device is missing or is lost during the test.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.replay {
        if let Some(device) = args.device {
            bail!(
                "--device {device}: leave it out, because the bundle of --replay says which card is emulated"
            );
        }
        return replay::run(path, &args.emulation, args.json);
    }
    let device = args.device.unwrap_or(DeviceKind::Duo300i);
    let Some(chip) = Chip::of(device) else {
        bail!("--device {device}: expected {}", DeviceKind::words(true));
    };
    let widths = if args.small { small() } else { Widths::chatglm2_6b() };
    let tp = usize::from(args.tp);
    let machine = machine(device, &args.emulation, tp)?;
    let test = Test {
        chip,
        widths,
        tp: machine.1,
        dtype: DType::Fp16,
        forced: Forced::from_environment(chip.name())?,
        emulation: machine.0,
    };
    let (bundle, done) = if let Some(path) = &args.bundle {
        match test.bundle() {
            Ok((bundle, done)) => (Some(bundle), done),
            Err(failed) => return Err(test.pack_failure(failed, path)),
        }
    } else {
        (None, test.run(Scope::Table)?.0)
    };
    let Selftest { info, rows, lost, .. } = done;
    if args.json {
        emit_json(&report(&info, &rows))?;
    } else {
        emit(words(&info, &rows).trim_end())?;
    }
    if let (Some(bundle), Some(path)) = (bundle, &args.bundle) {
        write(&bundle, path)?;
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

fn write(bundle: &Bundle, path: &Path) -> anyhow::Result<()> {
    bundle.write(path, &Private::of_this_machine())?;
    say(&format!(
        "wrote {}: versions, choices, operators, calls, times. It has no weights, prompts, host names, user names or home \
         folders; look into it before you send it",
        path.display()
    ));
    Ok(())
}

/// Returns the emulated machine that the flags ask for, if any, and the number of ranks.
pub(super) fn machine(
    device: DeviceKind,
    flags: &EmulationFlags,
    tp: usize,
) -> anyhow::Result<(Option<Emulation>, usize)> {
    let compute = Compute::merged(
        &ComputeSpec {
            device: Some(device),
            emulation: flags.emulate,
            profile: flags.profile.clone(),
            ranks: Some(tp),
            ..ComputeSpec::default()
        },
        &ComputeSpec::default(),
    )?;
    // As for a real model, `auto` computes.
    let emulate = compute.emulate(&ModelPath::Folder("selftest".into()));
    let Some(chip) = Chip::of(device) else { return Ok((None, compute.ranks)) };
    let emulation = emulate.map(|emulate| emulate.machine(chip)).transpose()?;
    if emulation.as_ref().is_some_and(|emulation| emulation.timing_only) {
        bail!("--emulate=timing computes nothing that could be tested");
    }
    Ok((emulation, compute.ranks))
}

/// A card that did not start: why, and the first stages before that.
pub(super) struct NotStarted {
    pub(super) error: DeviceError,
    calls: Vec<glmbench_ascend::Call>,
}

/// A self-test that is ready to run.
pub(super) struct Test {
    pub(super) chip: Chip,
    pub(super) widths: Widths,
    pub(super) tp: usize,
    pub(super) dtype: DType,
    pub(super) forced: Forced,
    pub(super) emulation: Option<Emulation>,
}

impl Test {
    /// Runs the test. Also returns the group, which keeps the libraries.
    pub(super) fn run(&self, scope: Scope) -> anyhow::Result<(Selftest, AscendGroup)> {
        let group = self.group(self.emulation.clone())?;
        Ok((selftest(&group, self.widths, scope)?, group))
    }

    fn group(&self, emulation: Option<Emulation>) -> Result<AscendGroup, DeviceError> {
        AscendGroup::new(GroupSettings {
            chip: self.chip,
            tp: self.tp,
            dtype: self.dtype,
            weights: WeightForm::Plain,
            kv: KvForm::Auto,
            attention: self.widths.heads,
            bind: false,
            forced: self.forced,
            emulation,
        })
    }

    /// Writes the bundle of a card that did not start, and returns the error. A mistake in the settings leaves none.
    fn pack_failure(&self, failed: NotStarted, path: &Path) -> anyhow::Error {
        let NotStarted { error, calls } = failed;
        if matches!(error, DeviceError::Setting { .. }) {
            return error.into();
        }
        let profile = self.emulation.as_ref().map(|emulation| &emulation.clock);
        let start = FailedStart {
            card: self.chip.device(),
            widths: self.widths,
            tp: self.tp,
            dtype: self.dtype,
            profile: profile.map(|by| Profile { name: by.name.clone(), sha256: by.sha256.clone() }),
            error: &error,
            calls,
            failed: take_failed_calls(),
        };
        match write(&start.bundle(), path) {
            Ok(()) => error.into(),
            Err(problem) => problem.context(error),
        }
    }

    /// Returns the first stages of a start on one emulated chip.
    pub(super) fn start_calls(&self) -> anyhow::Result<Vec<Call>> {
        let alone = Self { tp: 1, emulation: self.emulation.clone(), ..*self };
        let group = alone.group(alone.emulation.clone())?;
        group.record_start();
        drop(group.rank(0)?);
        Ok(group.recorded().into_iter().map(Call::from).collect())
    }

    /// Runs everything, and returns the bundle and the test. An emulated card's times over shapes come from its clock alone:
    /// computing thousands of rows would take minutes, and would not change a time.
    pub(super) fn bundle(&self) -> Result<(Bundle, Selftest), NotStarted> {
        let not_started = |error| NotStarted { error, calls: Vec::new() };
        let group = self.group(self.emulation.clone()).map_err(not_started)?;
        let chips = memory(&group.telemetry(), self.tp);
        let scope = if self.emulation.is_some() { Scope::Survey } else { Scope::All };
        let done = selftest(&group, self.widths, scope)
            .map_err(|error| NotStarted { error, calls: group.recorded() })?;
        let clock = match &self.emulation {
            Some(emulation) if done.lost.is_none() => {
                let emulation = Emulation { timing_only: true, ..emulation.clone().with("mode = timing") };
                let group = self.group(Some(emulation)).map_err(not_started)?;
                Some(selftest(&group, self.widths, Scope::Times).map_err(not_started)?.timings)
            }
            _ => None,
        };
        let tested = Tested {
            card: self.chip.device(),
            widths: self.widths,
            memory: chips,
            selftest: &done,
            timings: clock.as_ref().unwrap_or(&done.timings),
        };
        Ok((tested.bundle(), done))
    }
}

fn small() -> Widths {
    let heads = glmbench_device::AttentionShape { heads: 8, kv_heads: 2, channels: 64 };
    Widths { hidden: 256, ffn: 320, heads, vocab: 128 }
}

/// What is known of the error of modelled times of single operators.
pub(super) const OPERATORS: &str =
    "the error of single operators is not known, that of whole steps is in docs/CALIBRATION.md";

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
    let mut notes = Notes::default();
    let mut machine = markdown();
    machine.set_header(["device", &info.name]);
    if let Some(profile) = &info.modelled_by {
        let by = format!("modelled by profile {}, {:.12}; {OPERATORS}", profile.name, profile.sha256);
        machine.add_row(["times", &by]);
    }
    for (name, value) in &info.details {
        machine.add_row([name.clone(), notes.cell(value)]);
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
            notes.cell(&row.note),
        ]);
    }
    format!("{machine}\n\n{table}\n{}", notes.words())
}

/// Texts that are too long for cells. They stand below the tables.
#[derive(Default)]
pub(super) struct Notes(Vec<String>);

impl Notes {
    /// Most characters of a cell.
    const MOST: usize = 80;

    /// Returns the cell of a text: the text, or the number of its note.
    pub(super) fn cell(&mut self, text: &str) -> String {
        if text.chars().count() <= Self::MOST {
            return cell(text);
        }
        let at = self.0.iter().position(|known| known == text).unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        });
        format!("note {}", at + 1)
    }

    /// Lists the notes: `note 1: aclnnSwiGlu refuses …`.
    pub(super) fn words(&self) -> String {
        let line = |(at, text): (usize, &String)| {
            format!("note {}: {}\n", at + 1, text.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let lines: String = self.0.iter().enumerate().map(line).collect();
        if lines.is_empty() { lines } else { format!("\n{lines}") }
    }
}

/// Formats a library's message as a cell of a Markdown table: on one line, without cell separators.
pub(super) fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

pub(super) fn markdown() -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}
