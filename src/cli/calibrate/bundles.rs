//! The times in a self-test bundle: single operators and collectives, each against the same call on the emulator.

use std::path::Path;

use anyhow::bail;
use sha2::{Digest, Sha256};

use glmbench_ascend::{Chip, Emulation, Forced, Pricer, Scope, Work};
use glmbench_calibrate::counted::Counted;
use glmbench_calibrate::fit::Case;
use glmbench_calibrate::published::Phase;
use glmbench_device::DeviceKind;

use crate::bundle::{Bundle, OperatorTime, SizeTime, replay};
use crate::cli::npu_selftest::Test;
use crate::record::{Clock, hex};
use crate::stats::median;

use super::card::{Held, Source, check_chip};

/// Rows up to which an operator counts as one of a decode step.
const DECODE_ROWS: u64 = 16;

/// Returns the timed operators and collectives of a bundle.
pub(super) fn read(path: &Path, of: &Source<'_>, pricer: &Pricer) -> anyhow::Result<(Vec<Held>, String)> {
    let card = Bundle::read(path)?;
    let shown = path.display();
    let invalid = |problem: String| anyhow::anyhow!("{shown}: {problem}");
    if card.summary.clock == Clock::Modelled && !of.rehearsal {
        bail!(
            "{shown}: its times are modelled; a fit needs a bundle of a card. --rehearsal takes modelled ones"
        );
    }
    if card.timings.operators.is_empty() {
        let lost = card.summary.lost.as_deref().unwrap_or("the self-test ended before them");
        bail!("{shown}: has no times: {lost}; expected a bundle of a card that works");
    }
    let widths = replay::check(&card).map_err(invalid)?;
    let device = card.summary.card.value().map_err(|e| invalid(format!("bundle.json: card: {e}")))?;
    let Some(chip) = Chip::of(device) else {
        let cards = DeviceKind::words(true);
        bail!("{shown}: bundle.json: card is \"{device}\", expected {cards}");
    };
    check_chip(of.profile, chip, &format!("the bundle {shown} is of {}", device.name()))?;
    let dtype = card.summary.dtype.value().map_err(|e| invalid(format!("bundle.json: dtype: {e}")))?;
    let emulation = Emulation::new(chip, Some(Path::new(of.base)), true)?.with("record = on");
    let test = Test {
        chip,
        widths,
        tp: card.summary.tp,
        dtype,
        forced: Forced::default(),
        emulation: Some(emulation),
    };
    // The emulator makes the card's choices, as far as it accepts them.
    let (asked, _group) = test.run(Scope::Survey)?;
    let accepted = |name: &str, word: &str| {
        asked.alternatives.iter().any(|a| (a.capability, a.word) == (name, word) && a.refused.is_none())
    };
    let forced = Forced::parse(&replay::forced(&card, accepted))
        .map_err(|e| invalid(format!("capabilities.json: choices: {e}")))?;
    let (here, _) = Test { forced, ..test }.run(Scope::Times)?;
    let tp = card.summary.tp;
    let graph = card.capabilities.choices.get("graph").is_some_and(|word| word != "off");
    let settings = glmbench_ascend::profile::Profile::builtin(of.base)?.settings_lines();
    let mut held = Vec::new();
    for ours in &here.timings.operators {
        let same = |theirs: &&OperatorTime| {
            theirs.operator == ours.operator
                && theirs.shape.len() == ours.shape.len()
                && ours.shape.iter().all(|(name, size)| theirs.shape.get(*name) == Some(size))
        };
        let Some(theirs) = card.timings.operators.iter().find(same) else { continue };
        let sizes: Vec<String> = ours.shape.iter().map(|(name, size)| format!("{name} {size}")).collect();
        let rows = ours.shape.iter().find(|(name, _)| *name == "rows").map_or(0, |(_, rows)| *rows);
        let phase = if rows > DECODE_ROWS { Phase::Prefill } else { Phase::Decode };
        let timed = Timed {
            operator: ours.operator,
            sizes: sizes.join(", "),
            phase,
            chips: 1,
            graph,
            card_ns: &theirs.time_ns,
            emulator_ns: &ours.time_ns,
            work: &ours.priced,
        };
        held.extend(timed.held(pricer, &settings)?);
    }
    for ours in &here.timings.collectives {
        let same = |theirs: &&SizeTime| theirs.what == ours.what && theirs.bytes == ours.bytes;
        let Some(theirs) = card.timings.collectives.iter().find(same) else { continue };
        let timed = Timed {
            operator: ours.what,
            sizes: format!("{} bytes", ours.bytes),
            phase: Phase::Decode,
            chips: tp,
            graph,
            card_ns: &theirs.time_ns,
            emulator_ns: &ours.time_ns,
            work: &ours.priced,
        };
        held.extend(timed.held(pricer, &settings)?);
    }
    if held.is_empty() {
        bail!(
            "{shown}: no timed operator of it was timed here; expected a bundle of this version's npu-selftest"
        );
    }
    let bytes = std::fs::read(path)?;
    Ok((held, format!("bundle {}", &hex(&Sha256::digest(&bytes))[..16])))
}

/// An operator or collective that was timed on the card and on the emulator.
struct Timed<'a> {
    /// Name of the operator or collective.
    operator: &'a str,
    /// Its sizes, for the table.
    sizes: String,
    /// The phase that its rows belong to.
    phase: Phase,
    /// Number of chips.
    chips: usize,
    /// Whether the card ran graphs.
    graph: bool,
    /// Times of the card.
    card_ns: &'a [u64],
    /// Times of the emulator.
    emulator_ns: &'a [u64],
    /// The emulator's work.
    work: &'a Work,
}

impl Timed<'_> {
    /// Returns the time of the card as a case: the emulator's work, with what its clock has besides.
    fn held(self, pricer: &Pricer, settings: &str) -> anyhow::Result<Option<Held>> {
        let Self { operator, sizes, phase, chips, graph, card_ns, emulator_ns, work } = self;
        let middle = |times: &[u64]| median(&times.iter().map(|ns| *ns as f64).collect::<Vec<_>>());
        let Some((measured_ns, here_ns)) =
            middle(card_ns).zip(middle(emulator_ns)).filter(|(card, _)| *card > 0.0)
        else {
            return Ok(None);
        };
        let rest_ns = (here_ns - pricer.price(settings, work)?).max(0.0);
        let counted = Counted { work: work.clone(), rest_ns };
        let model = operator.to_owned();
        let case = Case { base: 0, model, phase, chips, graph, counted, measured_ns };
        Ok(Some(Held { label: format!("{operator} ({sizes})"), case, step: None }))
    }
}
