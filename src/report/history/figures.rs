//! What a history needs of one run: its standing and its figures, as `history.json` in the run directory.
//!
//! A report writes the file, because it has just read and judged every line. A history of ten thousand runs then reads a few
//! kilobytes of each. The file says which `run.json` and which sizes of journals it is of. Where they differ, or the file is
//! missing, the history reads the records themselves.

use super::super::accuracy::ALL;
use super::super::followed::{Figure, Kind, Marks};
use super::super::measures::perplexity;
use super::super::{Summary, Verdict};
use crate::record::{AccuracyCase, AccuracyRow, Clock, JOURNALS, PerfRow, Phase, RunDir, SampleRecord};
use glmbench_device::{DeviceName, Precision, Word};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of [`RunFigures`]. A file of another version is not read.
pub(super) const VERSION: u32 = 1;

/// Name of the file.
pub(super) const FILE: &str = "history.json";

/// Whether a run's figures may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    /// Complete and valid.
    Valid,
    /// A required condition does not hold.
    Invalid,
    /// The plan is not finished.
    Incomplete,
    /// A shard, or a merge that lacks some.
    Part,
}

impl Standing {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "INVALID",
            Self::Incomplete => "incomplete",
            Self::Part => "part of a plan",
        }
    }
}

/// The content of `history.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunFigures {
    /// [`VERSION`].
    pub(super) version: u32,
    /// Program that made it.
    pub(super) program: String,
    /// SHA-256 (hex) of `run.json`.
    pub(super) run_json: String,
    /// Size of each journal in bytes. Missing ones are left out.
    pub(super) journals: BTreeMap<String, u64>,
    /// The run.
    pub(super) run_id: String,
    /// Whether the figures may be used.
    pub(super) standing: Standing,
    /// The verdict in a sentence.
    pub(super) verdict: String,
    /// The suite.
    pub(super) suite: String,
    /// The model.
    pub(super) model: String,
    /// Types of weights, activations and KV cache.
    pub(super) form: Word<Precision>,
    /// The device.
    pub(super) device: Word<DeviceName>,
    /// Whether a stand-in computed for a card.
    pub(super) emulated: bool,
    /// The clock of the times.
    pub(super) clock: Clock,
    /// The profile of a modelled clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<String>,
    /// Processor and threads, where they are the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) processor: Option<String>,
    /// When the run began: RFC 3339, UTC.
    pub(super) started: String,
    /// What may explain a change: program, kernels, versions, weights.
    pub(super) facts: BTreeMap<String, String>,
    /// The figures. Empty unless the run is valid.
    pub(super) figures: Vec<Figure>,
}

impl RunFigures {
    /// Returns the figures of a run that was read and judged.
    ///
    /// `timed` are those of workloads with parts of their own.
    pub(in crate::report) fn of(
        dir: &RunDir,
        run_json: &[u8],
        summary: &Summary,
        samples: &[SampleRecord],
        timed: Vec<Figure>,
    ) -> Self {
        let (run, of) = (&summary.run, &summary.run.provenance);
        let standing = match summary.verdict() {
            Verdict::Invalid => Standing::Invalid,
            Verdict::Incomplete => Standing::Incomplete,
            Verdict::Valid if run.is_part() => Standing::Part,
            Verdict::Valid => Standing::Valid,
        };
        let mut figures = Vec::new();
        if standing == Standing::Valid {
            figures.extend(run.plan.accuracy.iter().filter_map(|case| score(case, summary, samples)));
            figures.extend(summary.performance.iter().filter_map(speed));
            figures.extend(timed);
            figures.retain(|figure| figure.value.is_finite());
        }
        let known: Option<DeviceName> = of.device.known();
        let is_host = known.is_some_and(|device| device.kind.has_threads() && !device.emulated);
        Self {
            version: VERSION,
            program: program(),
            run_json: hash(run_json),
            journals: journal_sizes(dir.path()),
            run_id: run.run_id.clone(),
            standing,
            verdict: summary.verdict_sentence().to_string(),
            suite: of.suite.clone(),
            model: of.model.clone(),
            form: of.dtype.clone(),
            device: of.device.clone(),
            emulated: known.is_some_and(|device| device.emulated),
            clock: of.clock,
            profile: of.clock_profile.clone().filter(|_| of.clock == Clock::Modelled),
            processor: is_host.then(|| format!("{}, {} threads", of.cpu_model, of.threads)),
            started: of.started.clone(),
            facts: facts(summary),
            figures,
        }
    }

    /// Whether this is of the `run.json` and the journals that are in the folder.
    pub(super) fn is_of(&self, folder: &Path, run_json: &[u8]) -> bool {
        self.version == VERSION
            && self.program == program()
            && self.run_json == hash(run_json)
            && self.journals == journal_sizes(folder)
    }
}

/// The program that makes and reads the file. Another version may judge otherwise.
pub(super) fn program() -> String {
    format!("glmbench {}", env!("CARGO_PKG_VERSION"))
}

/// Returns the SHA-256 in hex.
pub(super) fn hash(bytes: &[u8]) -> String {
    crate::record::hex(&Sha256::digest(bytes))
}

/// Returns the size of each journal of a folder.
fn journal_sizes(folder: &Path) -> BTreeMap<String, u64> {
    let size = |name: &&str| Some(((*name).to_owned(), folder.join(name).metadata().ok()?.len()));
    JOURNALS.iter().filter_map(size).collect()
}

fn facts(summary: &Summary) -> BTreeMap<String, String> {
    let (run, of) = (&summary.run, &summary.run.provenance);
    let commit = of.git_commit.as_ref().map(|commit| format!(" ({commit})")).unwrap_or_default();
    let mut facts = BTreeMap::from([
        ("program".to_owned(), format!("{}{commit}", of.engine)),
        ("kernels".to_owned(), of.kernel.clone()),
        ("host".to_owned(), of.host.clone()),
        ("system".to_owned(), of.os.clone()),
    ]);
    // Hashes are told apart by their first digits.
    let short = |text: &str| text.chars().take(19).collect::<String>();
    for field in ["weights", "tokenizer"] {
        facts.extend(run.identity.get(field).map(|value| (field.to_owned(), short(value))));
    }
    facts.extend(of.versions.iter().map(|(name, version)| (name.clone(), version.clone())));
    facts
}

/// The accuracy of a task, or the perplexity of its texts.
fn score(case: &AccuracyCase, summary: &Summary, samples: &[SampleRecord]) -> Option<Figure> {
    let of_case = || samples.iter().filter(|sample| sample.task == case.task);
    let items = case.items_hash.as_deref().unwrap_or("items not told");
    let basis = format!("{} {} {}", case.version_hash, case.items, &items[..items.len().min(16)]);
    let shots = if case.shots > 0 { format!(", {} shots", case.shots) } else { String::new() };
    let shown = format!("{}, {}{shots}, {} items", case.task, case.protocol, case.items);
    if case.keyless {
        let (name, estimate, texts) = perplexity(of_case())?;
        return Some(Figure {
            kind: Kind::Perplexity,
            case: format!("{shown}, {name}"),
            basis,
            tp: case.tp,
            value: estimate.value,
            low: estimate.interval.map(|ends| ends.low),
            high: estimate.interval.map(|ends| ends.high),
            n: texts as u64,
            marks: None,
        });
    }
    let is_whole = |row: &&AccuracyRow| row.task == case.task && row.subject == ALL && row.category == ALL;
    let row = summary.accuracy.iter().find(is_whole)?;
    Some(Figure {
        kind: Kind::Accuracy,
        case: shown,
        basis,
        tp: case.tp,
        value: row.acc?,
        low: row.ci95_lo,
        high: row.ci95_hi,
        n: row.scored + row.unscorable,
        marks: Some(Marks::of(of_case())),
    })
}

/// The rate of a phase: tokens over the median time. The interval is the median's.
fn speed(row: &PerfRow) -> Option<Figure> {
    let kind = match row.phase {
        Phase::Prefill => Kind::Prefill,
        Phase::Decode => Kind::Decode,
        Phase::E2e => return None,
    };
    let value = row.tokens_per_s_median.filter(|_| row.valid == Some(true))?;
    let median = row.median_ns.filter(|ns| *ns > 0)? as f64;
    // Scaled from the median: of real prompts, the value is the median of rates.
    let end = |ns: Option<u64>| ns.filter(|ns| *ns > 0).map(|ns| value * median / ns as f64);
    let shape = format!("batch {}, {} in, {} out", row.batch, row.input_tokens, row.output_tokens);
    let plain = format!("b{}-i{}-o{}", row.batch, row.input_tokens, row.output_tokens);
    let own = row.case_id != plain && !row.case_id.starts_with(&format!("{plain}-tp"));
    Some(Figure {
        kind,
        case: if own { format!("{}: {shape}", row.case_id) } else { shape },
        basis: String::new(),
        tp: row.tp,
        value,
        low: end(row.ci95_hi_ns),
        high: end(row.ci95_lo_ns),
        n: row.reps,
        marks: None,
    })
}
