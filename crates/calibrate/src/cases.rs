//! Published rows as cases: each with the work of its shape.

use std::collections::{BTreeMap, BTreeSet};

use glmbench_ascend::Pricer;
use glmbench_engine::EngineError;

use super::counted::{Batch, Counted, Machine, Phases};
use super::fit::Case;
use super::published::{Mode, Phase, Row};

/// A published row, and its case or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The row.
    pub row: Row,
    /// The profile of its chip, if the chip is one of those emulated.
    pub profile: Option<&'static str>,
    /// The case, or why this program cannot time it.
    pub case: Result<Case, String>,
}

/// Returns the machine that a row was measured on.
fn machine_of(row: &Row) -> Result<Machine, String> {
    let config = row.config()?;
    let profile = row.profile().ok_or("the variant of the chip is not stated")?;
    let chip = row.card()?;
    let emulated = chip.emulated_chips();
    if row.chips > emulated {
        return Err(format!("{} chips; the emulated machine has {emulated}", row.chips));
    }
    Ok(Machine { config, precision: row.precision()?, chip, chips: row.chips, profile: profile.to_owned() })
}

/// Returns the batches behind a row's figure, each with its share.
pub fn batches_of(row: &Row) -> Vec<(Batch, f64)> {
    let input = row.input_tokens.all();
    let batch = |tokens| Batch { sequences: row.batch, tokens };
    match row.phase {
        Phase::Prefill => input.iter().map(|n| (batch(*n), 1.0 / input.len() as f64)).collect(),
        // The mean of the decode steps is the step in their middle.
        Phase::Decode => vec![(batch(row.input_tokens.mean() + row.output_tokens.mean() / 2), 1.0)],
    }
}

fn case_of(row: &Row, counted: &BTreeMap<Batch, Phases>) -> Case {
    let mut work = Counted::default();
    for (batch, share) in batches_of(row) {
        let phases = &counted[&batch];
        let phase = if row.phase == Phase::Prefill { &phases.prefill } else { &phases.decode };
        work = work.with(phase, share);
    }
    Case {
        base: 0,
        model: row.model.clone(),
        phase: row.phase,
        chips: row.chips,
        graph: row.mode == Mode::Graph,
        counted: work,
        measured_ns: row.value * 1e6,
    }
}

/// Counts the work of every row that the engine can express on an emulated chip.
///
/// # Errors
/// The emulator cannot be opened.
pub fn held(rows: Vec<Row>) -> Result<Vec<Held>, EngineError> {
    let pricer = Pricer::new()?;
    let mut machines: Vec<(Machine, BTreeSet<Batch>)> = Vec::new();
    for row in &rows {
        let Ok(machine) = machine_of(row) else { continue };
        let batches = batches_of(row).into_iter().map(|(batch, _)| batch);
        match machines.iter_mut().find(|(known, _)| *known == machine) {
            Some((_, known)) => known.extend(batches),
            None => machines.push((machine, batches.collect())),
        }
    }
    let counted: Vec<_> = machines.iter().map(|(machine, batches)| machine.count(&pricer, batches)).collect();
    let of_row = |row: Row| {
        let case = machine_of(&row).and_then(|machine| {
            let at = machines.iter().position(|(known, _)| *known == machine);
            match at.map(|at| &counted[at]) {
                Some(Ok(counted)) => Ok(case_of(&row, counted)),
                Some(Err(error)) => Err(error.to_string()),
                None => Err("no machine".into()),
            }
        });
        Held { profile: row.profile(), row, case }
    };
    Ok(rows.into_iter().map(of_row).collect())
}
