//! `glmbench npu-selftest --replay`: runs the calls in the bundle of a card on the emulator, and prints where the two
//! differ.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;

use glmbench_ascend::{Chip, Forced, Scope};

use crate::bundle::replay::{self, Difference, Replay};
use crate::bundle::{Bundle, Failure};
use crate::compute::Emulation;
use crate::record::Clock;

use super::super::engine::EmulationFlags;
use super::super::{emit, emit_json, gate_exit, say};
use super::{Notes, OPERATORS, Test, cell, machine, markdown};

/// Maximum number of calls of one side only that are printed.
const MAX_SHOWN: usize = 20;

#[derive(Serialize)]
struct Report {
    calls: usize,
    differences: Vec<JsonDifference>,
    only_card: Vec<String>,
    only_emulator: Vec<String>,
    times: Vec<JsonTime>,
}

#[derive(Serialize)]
struct JsonDifference {
    kind: &'static str,
    what: String,
    card: String,
    emulator: String,
}

#[derive(Serialize)]
struct JsonTime {
    what: String,
    card_ns: f64,
    emulator_ns: f64,
    ratio: f64,
}

/// Runs the calls of a bundle again. Exits with 1 if a rule differs, or nothing was compared.
pub(super) fn run(path: &Path, flags: &EmulationFlags, json: bool) -> anyhow::Result<ExitCode> {
    if flags.emulate == Some(Emulation::Off) {
        bail!("--emulate=off: leave it out, because --replay runs on the emulator");
    }
    let flags = &EmulationFlags { emulate: flags.emulate.or(Some(Emulation::Auto)), ..flags.clone() };
    let card = Bundle::read(path)?;
    let invalid = |problem: String| anyhow::anyhow!("{}: {problem}", path.display());
    let widths = replay::check(&card).map_err(invalid)?;
    let device = card.summary.card.value().map_err(|e| invalid(format!("bundle.json: card: {e}")))?;
    let Some(chip) = Chip::of(device) else {
        bail!("{}: bundle.json: card is \"{}\", expected 300i-duo or 800i-a2", path.display(), device.name());
    };
    let dtype = card.summary.dtype.value().map_err(|e| invalid(format!("bundle.json: dtype: {e}")))?;
    let (emulation, tp) = machine(device, flags, card.summary.tp)?;
    let test = Test { chip, widths, tp, dtype, forced: Forced::default(), emulation };
    if let Some(failure) = card.start_failure() {
        let found = Replay::of_start(&card, failure, test.start_calls()?);
        return shown(&card, found, json, &start_verdict(failure));
    }
    // What the emulator accepts is known only when it was asked. Then it makes the card's choices, as far as it can.
    let (asked, _group) = test.run(Scope::Survey)?;
    let accepted = |name: &str, word: &str| {
        let same = |a: &&glmbench_ascend::Alternative| (a.capability, a.word) == (name, word);
        asked.alternatives.iter().find(same).is_some_and(|a| a.refused.is_none())
    };
    let forced = Forced::parse(&replay::forced(&card, accepted))
        .map_err(|e| invalid(format!("capabilities.json: choices: {e}")))?;
    let (here, _) = Test { forced, ..test }.bundle().map_err(|failed| failed.error)?;
    let found = Replay::of(&card, &here);
    let last = verdict(&found);
    shown(&card, found, json, &last)
}

/// Prints the result, and `last` after it.
fn shown(card: &Bundle, found: Replay, json: bool, last: &str) -> anyhow::Result<ExitCode> {
    let agrees = found.agrees();
    if json {
        emit_json(&report(found))?;
    } else {
        emit(words(card, &found).trim_end())?;
    }
    say(last);
    Ok(gate_exit(agrees))
}

/// Says what a bundle of a card that did not start lacks.
fn start_verdict(failure: &Failure) -> String {
    let call = failure.call.as_ref().map_or_else(
        || "no call".to_owned(),
        |call| {
            let code = call.code.map_or_else(|| "not there".to_owned(), |code| code.to_string());
            format!("{}({}): {code}", call.operator, call.arguments.join(", "))
        },
    );
    format!(
        "the bundle is of a card that did not start: {} (last failing call: {call}). It has no operators, alternatives and times, so \
         only the calls of the start were compared; send a bundle again once the card starts",
        failure.note
    )
}

/// Returns the last line.
fn verdict(found: &Replay) -> String {
    let compared = match (found.calls, found.agrees()) {
        (0, _) if found.differences.is_empty() => {
            return "no call of the bundle was made here; nothing was compared".into();
        }
        (_, true) => "the emulator follows all rules of the bundle that were compared",
        (_, false) => "the emulator's rules differ from the bundle's",
    };
    let alone = found.only_card.len();
    if alone > found.calls {
        return format!(
            "{compared}, but {alone} calls of the card were not made here, and only {} were compared",
            found.calls
        );
    }
    compared.to_owned()
}

fn report(found: Replay) -> Report {
    let Replay { calls, differences, only_card, only_emulator, times } = found;
    let difference =
        |Difference { kind, what, card, emulator }| JsonDifference { kind, what, card, emulator };
    let time = |time: replay::TimeRatio| JsonTime {
        ratio: time.ratio(),
        what: time.what,
        card_ns: time.card_ns,
        emulator_ns: time.emulator_ns,
    };
    Report {
        calls,
        differences: differences.into_iter().map(difference).collect(),
        only_card,
        only_emulator,
        times: times.into_iter().map(time).collect(),
    }
}

fn words(card: &Bundle, found: &Replay) -> String {
    let mut out = format!(
        "bundle of {} ({}, {} ranks), {}: {} calls on both, {} differences\n",
        cell(&card.summary.card),
        cell(card.machine.chip.as_deref().unwrap_or("unknown chip")),
        card.summary.tp,
        match card.summary.clock {
            Clock::Measured => "recorded and measured on a card",
            Clock::Modelled => "recorded on an emulator, whose times are modelled",
        },
        found.calls,
        found.differences.len()
    );
    if !found.differences.is_empty() {
        let (mut table, mut notes) = (markdown(), Notes::default());
        table.set_header(["rule", "which", "recorded", "emulator"]);
        for Difference { kind, what, card, emulator } in &found.differences {
            table.add_row([(*kind).to_owned(), notes.cell(what), notes.cell(card), notes.cell(emulator)]);
        }
        out += &format!("\n{table}\n{}", notes.words());
    }
    for (side, calls) in [("bundle", &found.only_card), ("emulator", &found.only_emulator)] {
        if calls.is_empty() {
            continue;
        }
        out += &format!("\ncalls of the {side} alone, because an earlier answer differs: {}\n", calls.len());
        for call in calls.iter().take(MAX_SHOWN) {
            out += &format!("- {}\n", cell(call));
        }
    }
    if !found.times.is_empty() {
        let mut table = markdown();
        table.set_header(["operator", "recorded us", "emulator us, modelled", "recorded / emulator"]);
        for time in &found.times {
            let us = |ns: f64| format!("{:.1}", ns / 1e3);
            table.add_row([
                cell(&time.what),
                us(time.card_ns),
                us(time.emulator_ns),
                format!("{:.2}", time.ratio()),
            ]);
        }
        out += &format!("\n{table}\n\nThe emulator's times are modelled: {OPERATORS}.\n");
    }
    out
}
