//! Compares a card's bundle with one that was made on the emulator by the same calls.

use std::collections::{BTreeMap, BTreeSet};

use glmbench_ascend::Widths;

use super::{Bundle, Call, Calls, Failure, Operators, RowStatus, START, Shapes};
use crate::stats::median;

/// Limits of a bundle that is run again: it comes from elsewhere, and its sizes become allocations.
const MAX_RANKS: usize = 64;
/// Largest weight, in elements. Twice that of the 6B model.
const MAX_WEIGHT: usize = 1 << 28;
/// Largest hidden size, and number of tokens of the vocabulary.
const MAX_COUNT: usize = 1 << 16;
/// Largest number of heads.
const MAX_HEADS: usize = 256;
/// Largest number of channels of a head. All heads together then have at most 32,768.
const MAX_CHANNELS: usize = 128;

/// A rule that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// `alternative`, `call`, `row` or `start`.
    pub kind: &'static str,
    /// Which one.
    pub what: String,
    /// What the card does.
    pub card: String,
    /// What the emulator does.
    pub emulator: String,
}

/// An operator's time on the card and on the emulator.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeRatio {
    /// The operator and its sizes.
    pub what: String,
    /// Median time on the card, in nanoseconds.
    pub card_ns: f64,
    /// Median time on the emulator.
    pub emulator_ns: f64,
}

impl TimeRatio {
    /// Returns the card time, as a multiple of the emulator time.
    pub fn ratio(&self) -> f64 {
        self.card_ns / self.emulator_ns
    }
}

/// The result of a replay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replay {
    /// Calls that both made.
    pub calls: usize,
    /// Rules that differ.
    pub differences: Vec<Difference>,
    /// Calls that only the card's test made, because an earlier answer differed.
    pub only_card: Vec<String>,
    /// Calls that only the emulator's test made.
    pub only_emulator: Vec<String>,
    /// Times of all operators, copies and collectives that both have.
    pub times: Vec<TimeRatio>,
}

/// Checks that a bundle can be run again.
///
/// # Errors
/// A size is out of range; the message says which and what is expected.
pub fn check(bundle: &Bundle) -> Result<Widths, String> {
    let Shapes { hidden, ffn, heads, kv_heads, channels, vocab } = bundle.summary.widths;
    let tp = bundle.summary.tp;
    let within = |name: &str, found: usize, most: usize| {
        let fits = (1..=most).contains(&found);
        if fits { Ok(()) } else { Err(format!("bundle.json: {name} is {found}, expected 1 to {most}")) }
    };
    within("tp", tp, MAX_RANKS)?;
    for (name, found, most) in [
        ("heads", heads, MAX_HEADS),
        ("kv_heads", kv_heads, MAX_HEADS),
        ("hidden", hidden, MAX_COUNT),
        ("vocab", vocab, MAX_COUNT),
    ] {
        within(&format!("widths.{name}"), found, most)?;
    }
    within("widths.channels", channels, MAX_CHANNELS)?;
    within("widths.ffn", ffn, MAX_WEIGHT)?;
    for (name, found) in [
        ("hidden * 2 * ffn", hidden.saturating_mul(2 * ffn)),
        (
            "hidden * (heads + 2 * kv_heads) * channels",
            hidden.saturating_mul((heads + 2 * kv_heads) * channels),
        ),
        ("hidden * vocab", hidden.saturating_mul(vocab)),
    ] {
        within(&format!("widths: {name}"), found, MAX_WEIGHT)?;
    }
    if !heads.is_multiple_of(kv_heads) || !channels.is_multiple_of(4) {
        return Err(format!(
            "bundle.json: widths has {heads} heads over {kv_heads} KV heads of {channels} channels; expected a multiple, and \
             channels in fours"
        ));
    }
    Ok(bundle.summary.widths.into())
}

/// Returns the card's choices that the emulator accepts, as for `GLMBENCH_ASCEND`. Both then make the same calls.
pub fn forced(card: &Bundle, accepted: impl Fn(&str, &str) -> bool) -> String {
    let choices = card.capabilities.choices.iter().filter(|(name, word)| accepted(name, word));
    choices.map(|(name, word)| format!("{name}={word}")).collect::<Vec<_>>().join(",")
}

impl Replay {
    /// Compares a card's bundle with the emulator's.
    pub fn of(card: &Bundle, emulator: &Bundle) -> Self {
        let mut replay = Self { times: times(card, emulator), ..Self::default() };
        replay.alternatives(card, emulator);
        replay.compare_calls(card, emulator);
        replay.rows(card, emulator);
        replay
    }

    /// Compares a card that did not start with an emulated one, which did: its calls, and where the card failed.
    pub fn of_start(card: &Bundle, failure: &Failure, calls: Vec<Call>) -> Self {
        let emulator = Bundle { calls: Calls { calls }, operators: Operators::default(), ..card.clone() };
        let mut replay = Self::default();
        replay.compare_calls(card, &emulator);
        // The emulator goes on where the card failed.
        replay.only_emulator.clear();
        let what = failure.call.as_ref().map_or_else(|| START.to_owned(), |call| call.operator.clone());
        replay.note(START, what, failure.note.clone(), "starts".to_owned());
        replay
    }

    /// Whether all rules agree, and calls were compared at all. Times do not count.
    pub fn agrees(&self) -> bool {
        self.calls > 0 && self.differences.is_empty()
    }

    fn note(&mut self, kind: &'static str, what: String, card: String, emulator: String) {
        if card != emulator {
            self.differences.push(Difference { kind, what, card, emulator });
        }
    }

    fn alternatives(&mut self, card: &Bundle, emulator: &Bundle) {
        let of = |bundle: &Bundle| -> BTreeMap<String, bool> {
            let all = bundle.capabilities.alternatives.iter();
            all.map(|a| (format!("{}={}", a.capability, a.word), a.refused.is_none())).collect()
        };
        let (theirs, ours) = (of(card), of(emulator));
        let words = |accepted: &bool| if *accepted { "accepted" } else { "refused" }.to_owned();
        for (what, accepted) in &theirs {
            if let Some(here) = ours.get(what) {
                self.note("alternative", what.clone(), words(accepted), words(here));
            }
        }
    }

    fn compare_calls(&mut self, card: &Bundle, emulator: &Bundle) {
        let (theirs, ours) = (by_arguments(&card.calls.calls), by_arguments(&emulator.calls.calls));
        for (what, codes) in &theirs {
            match ours.get(what) {
                None => self.only_card.push(what.clone()),
                Some(here) => {
                    self.calls += 1;
                    self.note("call", what.clone(), codes_words(codes), codes_words(here));
                }
            }
        }
        self.only_emulator = ours.into_keys().filter(|what| !theirs.contains_key(what)).collect();
    }

    fn rows(&mut self, card: &Bundle, emulator: &Bundle) {
        let words = |status: RowStatus| {
            match status {
                RowStatus::Pass => "pass",
                RowStatus::Fail => "FAIL",
                RowStatus::NotHere => "not here",
            }
            .to_owned()
        };
        for row in &card.operators.rows {
            // Sensors are the machine's, not a rule.
            let compared = row.bound.is_some() || row.status == RowStatus::Fail;
            let here = emulator.operators.rows.iter().find(|other| other.operator == row.operator);
            if let Some(here) = here.filter(|_| compared) {
                self.note("row", row.operator.clone(), words(row.status), words(here.status));
            }
        }
    }
}

/// Returns the statuses of each call, by phase, operator and arguments.
fn by_arguments(calls: &[Call]) -> BTreeMap<String, BTreeSet<Option<i32>>> {
    let mut found: BTreeMap<String, BTreeSet<Option<i32>>> = BTreeMap::new();
    for call in calls {
        let what = format!("{}: {}({})", call.phase, call.operator, call.arguments.join(", "));
        found.entry(what).or_default().insert(call.code);
    }
    found
}

fn codes_words(codes: &BTreeSet<Option<i32>>) -> String {
    let word = |code: &Option<i32>| match code {
        Some(0) => "accepted".to_owned(),
        Some(code) => code.to_string(),
        None => "not there".to_owned(),
    };
    codes.iter().map(word).collect::<Vec<_>>().join(" and ")
}

fn times(card: &Bundle, emulator: &Bundle) -> Vec<TimeRatio> {
    let ours: BTreeMap<String, f64> = medians(emulator).into_iter().collect();
    medians(card)
        .into_iter()
        .filter_map(|(what, card_ns)| {
            let emulator_ns = *ours.get(&what)?;
            Some(TimeRatio { what, card_ns, emulator_ns }).filter(|time| time.emulator_ns > 0.0)
        })
        .collect()
}

fn medians(bundle: &Bundle) -> Vec<(String, f64)> {
    let middle = |times: &[u64]| median(&times.iter().map(|ns| *ns as f64).collect::<Vec<_>>());
    let operators = bundle.timings.operators.iter().map(|of| {
        let sizes: Vec<String> = of.shape.iter().map(|(name, size)| format!("{name} {size}")).collect();
        (format!("{} ({})", of.operator, sizes.join(", ")), middle(&of.time_ns))
    });
    let sizes = bundle.timings.copies.iter().chain(&bundle.timings.collectives);
    let sizes = sizes.map(|of| (format!("{} ({} bytes)", of.what, of.bytes), middle(&of.time_ns)));
    operators.chain(sizes).filter_map(|(what, ns)| Some((what, ns?))).collect()
}
