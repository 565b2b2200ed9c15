//! `gates.toml`: the limits that a run must meet. Gate files are read and checked like suites.
//!
//! ```toml
//! schema = 1
//! undecided = "fail"           # or "pass"; default: an undecided gate gives exit code 4
//!
//! [[accuracy]]
//! task = "ceval"               # default: every task
//! min = "50%"                  # accuracy
//! max_drop = "1%"              # points below the base run; needs `compare`
//! max_failed = "0.5%"          # share of items without an answer
//!
//! [[speed]]
//! case = "b1-*"                # default: every case; * matches anything
//! metric = "decode"            # ttft, tpot, prefill, decode, e2e
//! clock = "measured"           # or "modelled": a limit applies to one clock
//! max = "250 ms"               # ns, us, ms, s
//! max_ratio = 1.05             # time relative to the base run
//! min_throughput = "100 tokens/s"        # prefill, decode, e2e
//! max_throughput_drop = "5%"             # below the base run
//! untimed = "ratio"            # judge runs by the ratio alone if they were not interleaved
//!
//! [[memory]]
//! case = "b16-*"
//! max = "14 GiB"               # B, KiB, MiB, GiB, kB, MB, GB
//! max_ratio = 1.02
//!
//! [[parity]]
//! file = "parity.json"         # output of `glmbench parity --json`, relative to this file
//! max_kl = 1e-3                # nats
//! max_share = "0.5%"           # of positions with a KL above kl_threshold
//! kl_threshold = 1e-4
//! ```

mod quantity;

use std::path::{Path, PathBuf};

use self::quantity::{bytes, duration_ns, number, rate, share};
use super::table::{self, Table, string, tables, word};
use super::{SuiteError, text_of};
use crate::document::tree::{self, Node};

/// Schema version of the gate files that this program reads.
const SCHEMA: u64 = 1;

/// A gate file, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Gates {
    /// The file.
    pub path: PathBuf,
    /// Treatment of a gate that is undecided: its limit lies within an interval, or there is no evidence.
    pub undecided: Undecided,
    /// Limits on accuracy.
    pub accuracy: Vec<AccuracyGate>,
    /// Limits on times and rates.
    pub speed: Vec<SpeedGate>,
    /// Limits on peak memory.
    pub memory: Vec<MemoryGate>,
    /// Limits on the distance of logits from a reference.
    pub parity: Vec<ParityGate>,
}

/// How to count an undecided gate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Undecided {
    /// As not measured: exit code 4.
    #[default]
    Open,
    /// As met.
    Passes,
    /// As violated.
    Fails,
}

/// An `[[accuracy]]` table. Shares are 0 to 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccuracyGate {
    /// The task, or every task if `None`.
    pub task: Option<String>,
    /// Minimum accuracy.
    pub min: Option<f64>,
    /// Maximum drop relative to the base run, in accuracy points (0 to 1).
    pub max_drop: Option<f64>,
    /// Maximum share of items without an answer.
    pub max_failed: Option<f64>,
}

/// The quantity that a speed gate limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateMetric {
    /// Time to first token.
    Ttft,
    /// Time per token after the first.
    Tpot,
    /// The prefill phase.
    Prefill,
    /// The decode phase, after the first token.
    Decode,
    /// Both phases, end to end.
    E2e,
}

impl GateMetric {
    /// The names used in gate files.
    pub const NAMES: [&'static str; 5] = ["ttft", "tpot", "prefill", "decode", "e2e"];
    const ALL: [Self; 5] = [Self::Ttft, Self::Tpot, Self::Prefill, Self::Decode, Self::E2e];

    /// Returns the name used in gate files.
    pub fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.as_str() == name)
    }
}

/// A `[[speed]]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeedGate {
    /// Pattern of case names, or every case if `None`.
    pub case: Option<String>,
    /// The limited quantity.
    pub metric: GateMetric,
    /// Whether the gate applies to modelled times instead of measured ones.
    pub modelled: bool,
    /// Maximum time in ns.
    pub max_ns: Option<f64>,
    /// Maximum ratio of the time to the time of the base run.
    pub max_ratio: Option<f64>,
    /// Minimum rate in tokens per second.
    pub min_tokens_per_s: Option<f64>,
    /// Maximum loss of rate, as a share of the rate of the base run.
    pub max_throughput_drop: Option<f64>,
    /// Whether to judge runs by the ratio alone if they were not interleaved.
    pub untimed_by_ratio: bool,
}

/// A `[[memory]]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryGate {
    /// Pattern of case names, or every case if `None`.
    pub case: Option<String>,
    /// Maximum peak memory in bytes.
    pub max_bytes: Option<f64>,
    /// Maximum ratio of the peak to the peak of the base run.
    pub max_ratio: Option<f64>,
}

/// A `[[parity]]` table.
#[derive(Debug, Clone, PartialEq)]
pub struct ParityGate {
    /// File with the output of `glmbench parity --json`, as a resolved path.
    pub file: PathBuf,
    /// Maximum KL divergence at any position, in nats.
    pub max_kl: f64,
    /// Maximum share of positions above `kl_threshold`.
    pub max_share: f64,
    /// Positions count if their KL divergence is above this, in nats.
    pub kl_threshold: f64,
}

impl Gates {
    /// Reads the gate file at `path`.
    ///
    /// # Errors
    /// The first fault, with its place in the file.
    pub fn load(path: &Path) -> Result<Self, SuiteError> {
        Self::parse(path, &text_of(path)?)
    }

    /// Like [`Gates::load`], for text that is already read. `path` is its location.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SuiteError> {
        let root = tree::parse(path, text)?;
        let origin = root.origin.clone();
        let mut root = Table::new(root)?;
        let schema = root.require("schema", &format!("schema = {SCHEMA}"))?;
        match table::count(&schema, 0)? {
            SCHEMA => {}
            n => {
                let expected = format!("{SCHEMA}, the one this program reads");
                return Err(SuiteError::found(&schema.origin, &format!("schema {n}"), &expected));
            }
        }
        let undecided = root.take("undecided").map(|node| choose(&node, "pass", "fail")).transpose()?;
        let undecided = match undecided {
            None => Undecided::Open,
            Some(false) => Undecided::Passes,
            Some(true) => Undecided::Fails,
        };
        let folder = path.parent().unwrap_or(Path::new(""));
        let gates = Self {
            path: path.to_path_buf(),
            undecided,
            accuracy: read_all(&mut root, "accuracy", accuracy)?,
            speed: read_all(&mut root, "speed", speed)?,
            memory: read_all(&mut root, "memory", memory)?,
            parity: read_all(&mut root, "parity", |table| parity(table, folder))?,
        };
        root.finish()?;
        let count = gates.accuracy.len() + gates.speed.len() + gates.memory.len() + gates.parity.len();
        if count == 0 {
            let expected = "at least one [[accuracy]], [[speed]], [[memory]] or [[parity]]";
            return Err(SuiteError::found(&origin, "no gate", expected));
        }
        Ok(gates)
    }
}

fn read_all<T>(
    root: &mut Table,
    key: &'static str,
    read: impl Fn(Table) -> Result<T, SuiteError>,
) -> Result<Vec<T>, SuiteError> {
    tables(root, key)?.into_iter().map(read).collect()
}

/// Accepts one of two words and returns whether it is `yes`.
fn choose(node: &Node, no: &'static str, yes: &'static str) -> Result<bool, SuiteError> {
    word(node, &[no, yes], |text| [no, yes].iter().position(|known| *known == text).map(|i| i == 1))
}

/// Accepts only the word `known`.
fn only(node: &Node, known: &'static str) -> Result<(), SuiteError> {
    word(node, &[known], |text| (text == known).then_some(()))
}

fn accuracy(mut table: Table) -> Result<AccuracyGate, SuiteError> {
    let gate = AccuracyGate {
        task: table.take("task").map(|node| string(&node)).transpose()?,
        min: optional(&mut table, "min", share)?,
        max_drop: optional(&mut table, "max_drop", share)?,
        max_failed: optional(&mut table, "max_failed", share)?,
    };
    let some = gate.min.or(gate.max_drop).or(gate.max_failed).is_some();
    finish(table, some, "min, max_drop or max_failed")?;
    Ok(gate)
}

fn speed(mut table: Table) -> Result<SpeedGate, SuiteError> {
    let metric_node = table.require("metric", &format!("one of {}", GateMetric::NAMES.join(", ")))?;
    let metric = word(&metric_node, &GateMetric::NAMES, GateMetric::from_name)?;
    let clock = table.take("clock").map(|node| choose(&node, "measured", "modelled")).transpose()?;
    let gate = SpeedGate {
        case: table.take("case").map(|node| string(&node)).transpose()?,
        metric,
        modelled: clock.unwrap_or(false),
        max_ns: optional(&mut table, "max", duration_ns)?,
        max_ratio: optional(&mut table, "max_ratio", number)?,
        min_tokens_per_s: optional(&mut table, "min_throughput", rate)?,
        max_throughput_drop: optional(&mut table, "max_throughput_drop", share)?,
        untimed_by_ratio: table.take("untimed").map(|node| only(&node, "ratio")).transpose()?.is_some(),
    };
    let rates = gate.min_tokens_per_s.or(gate.max_throughput_drop).is_some();
    if rates && matches!(metric, GateMetric::Ttft | GateMetric::Tpot) {
        let found = format!("a throughput of {}", metric.as_str());
        return Err(SuiteError::found(&metric_node.origin, &found, "one of prefill, decode or e2e"));
    }
    let some = rates || gate.max_ns.or(gate.max_ratio).is_some();
    finish(table, some, "max, max_ratio, min_throughput or max_throughput_drop")?;
    Ok(gate)
}

fn memory(mut table: Table) -> Result<MemoryGate, SuiteError> {
    let gate = MemoryGate {
        case: table.take("case").map(|node| string(&node)).transpose()?,
        max_bytes: optional(&mut table, "max", bytes)?,
        max_ratio: optional(&mut table, "max_ratio", number)?,
    };
    finish(table, gate.max_bytes.or(gate.max_ratio).is_some(), "max or max_ratio")?;
    Ok(gate)
}

/// Defaults are ModelTest's limits.
fn parity(mut table: Table, folder: &Path) -> Result<ParityGate, SuiteError> {
    let file = table.require("file", "a file with the output of `glmbench parity --json`")?;
    let gate = ParityGate {
        file: table::path(&file, folder)?,
        max_kl: optional(&mut table, "max_kl", number)?.unwrap_or(1e-3),
        max_share: optional(&mut table, "max_share", share)?.unwrap_or(0.005),
        kl_threshold: optional(&mut table, "kl_threshold", number)?.unwrap_or(1e-4),
    };
    table.finish()?;
    Ok(gate)
}

/// Reports unknown keys first, as they are the likelier mistake, then a gate without any limit.
fn finish(table: Table, has_limit: bool, limits: &str) -> Result<(), SuiteError> {
    let origin = table.origin.clone();
    table.finish()?;
    if has_limit { Ok(()) } else { Err(SuiteError::found(&origin, "no limit", limits)) }
}

fn optional(
    table: &mut Table,
    key: &'static str,
    read: fn(&Node) -> Result<f64, SuiteError>,
) -> Result<Option<f64>, SuiteError> {
    table.take(key).map(|node| read(&node)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Gates, SuiteError> {
        Gates::parse(Path::new("rules/gates.toml"), text)
    }

    #[test]
    fn every_key_is_read_with_its_unit() {
        let text = r#"schema = 1
undecided = "fail"
[[accuracy]]
task = "ceval"
min = "50 %"
max_drop = "1%"
max_failed = "0.5%"
[[speed]]
case = "b1-*"
metric = "decode"
clock = "modelled"
max = "1.5 s"
max_ratio = 1
min_throughput = "1e2 tokens/s"
max_throughput_drop = "5%"
untimed = "ratio"
[[memory]]
max = "14 GiB"
max_ratio = 1.02
[[parity]]
file = "p.json"
max_kl = 1e-4
"#;
        let gates = parse(text).unwrap();
        assert_eq!(gates.undecided, Undecided::Fails);
        let accuracy = AccuracyGate {
            task: Some("ceval".into()),
            min: Some(0.5),
            max_drop: Some(0.01),
            max_failed: Some(0.005),
        };
        assert_eq!(gates.accuracy, [accuracy]);
        assert_eq!(
            gates.speed,
            [SpeedGate {
                case: Some("b1-*".into()),
                metric: GateMetric::Decode,
                modelled: true,
                max_ns: Some(1.5e9),
                max_ratio: Some(1.0),
                min_tokens_per_s: Some(100.0),
                max_throughput_drop: Some(0.05),
                untimed_by_ratio: true,
            }]
        );
        assert_eq!(gates.memory[0].max_bytes, Some(14.0 * 1024f64.powi(3)));
        let parity = &gates.parity[0];
        assert_eq!((parity.file.as_path(), parity.max_kl), (Path::new("rules/p.json"), 1e-4));
        assert_eq!((parity.max_share, parity.kl_threshold), (0.005, 1e-4));
    }

    #[test]
    fn slips_are_answered_with_their_place_and_what_was_meant() {
        for (text, place, says) in [
            ("", "1:1", "found no `schema`"),
            ("schema = 2", "1:10", "found schema 2; expected 1"),
            ("schema = 1", "1:1", "found no gate"),
            ("schema = 1\nacuracy = 1", "2:1", "did you mean `accuracy`?"),
            ("schema = 1\n[[accuracy]]\nmin_drop = \"1%\"", "3:1", "did you mean `max_drop`?"),
            ("schema = 1\n[[accuracy]]\ntask = \"ceval\"", "2:1", "found no limit; expected min, max_drop"),
            (
                "schema = 1\n[[accuracy]]\nmin = 0.5",
                "3:7",
                "found a float; expected a percentage such as \"1%\"",
            ),
            ("schema = 1\n[[accuracy]]\nmin = \"0.5\"", "3:7", "found \"0.5\"; expected a percentage"),
            ("schema = 1\n[[accuracy]]\nmin = \"130%\"", "3:7", "at most 100 %"),
            ("schema = 1\n[[accuracy]]\nmin = \"-1%\"", "3:7", "expected a percentage"),
            ("schema = 1\n[[accuracy]]\nmin = \"nan%\"", "3:7", "expected a percentage"),
            ("schema = 1\n[[speed]]\nmax = \"1 ms\"", "2:1", "found no `metric`"),
            ("schema = 1\n[[speed]]\nmetric = \"deocde\"", "3:10", "did you mean `decode`?"),
            ("schema = 1\n[[speed]]\nmetric = \"ttft\"\nmax = \"5\"", "4:7", "expected a time such as"),
            ("schema = 1\n[[speed]]\nmetric = \"ttft\"\nmax_ratio = -1.0", "4:13", "a number above 0"),
            (
                "schema = 1\n[[speed]]\nmetric = \"ttft\"\nmin_throughput = \"5 tokens/s\"",
                "3:10",
                "a throughput of ttft",
            ),
            ("schema = 1\n[[memory]]\nmax = \"1 GIB\"", "3:7", "a size such as"),
            ("schema = 1\n[[parity]]\nmax_kl = 1", "2:1", "found no `file`"),
            (
                "schema = 1\n[[speed]]\nmetric = \"ttft\"\nmax_ratio = 1.1\nuntimed = \"guess\"",
                "5:11",
                "expected one of ratio",
            ),
            ("schema = 1\nundecided = \"maybe\"", "2:13", "expected one of pass, fail"),
            ("schema = ", "1:", ""),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.starts_with(&format!("rules/gates.toml:{place}")), "{text:?}: {message}");
            assert!(message.contains(says), "{text:?}: {message}");
        }
        let missing = Gates::load(Path::new("no/such.toml")).unwrap_err().to_string();
        assert!(missing.contains("no/such.toml"), "{missing}");
    }
}
