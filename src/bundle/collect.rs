//! Makes a bundle from a self-test.

use std::collections::BTreeMap;

use glmbench_ascend::{Installation, Selftest, SelftestRow, Status, TelemetrySource, Widths};
use glmbench_device::{DType, DeviceError, DeviceKind, Word};

use super::{
    Alternative, Bundle, Call, Calls, Capabilities, ChipMemory, Failure, KIND, Machine, OperatorTime,
    Operators, Profile, Row, RowStatus, SCHEMA, START, SizeTime, Summary, Timings, privacy,
};
use crate::record::{Clock, rfc3339_utc};

/// Details of a device that have a field of their own.
const CHOICES: [&str; 9] = ["weights", "bias", "kv", "rotary", "decode", "prefill", "add", "reuse", "graph"];

/// What a bundle needs besides the results.
pub struct Tested<'a> {
    /// The card.
    pub card: DeviceKind,
    /// The widths.
    pub widths: Widths,
    /// Memory of the chips before the test.
    pub memory: Vec<ChipMemory>,
    /// The self-test.
    pub selftest: &'a Selftest,
    /// Times over shapes, by this self-test or by one on the clock alone.
    pub timings: &'a glmbench_ascend::Timings,
}

impl Tested<'_> {
    /// Returns the bundle. Its files have no sums yet.
    pub fn bundle(&self) -> Bundle {
        let Selftest { info, rows, lost, .. } = self.selftest;
        let calls = self.calls();
        let is_choice = |name: &str| CHOICES.contains(&name);
        let detail = |wanted: &str| {
            info.details.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone())
        };
        let mut details: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in info.details.iter().filter(|(name, _)| {
            !is_choice(name) && !["chip", "runtime", "libraries"].contains(&name.as_str())
        }) {
            details.entry(name.clone()).or_default().push(value.clone());
        }
        let first_failure =
            rows.iter().find(|row| row.status == Status::Fail).map(|row| failure(row, &calls));
        Bundle {
            summary: Summary {
                schema: SCHEMA,
                kind: KIND.to_owned(),
                program: format!("glmbench {}", env!("CARGO_PKG_VERSION")),
                created: rfc3339_utc(std::time::SystemTime::now()),
                card: Word::of(self.card),
                clock: if info.modelled_by.is_some() { Clock::Modelled } else { Clock::Measured },
                profile: info
                    .modelled_by
                    .as_ref()
                    .map(|by| Profile { name: by.name.clone(), sha256: by.sha256.clone() }),
                dtype: Word::of(info.precision.dtype),
                tp: info.tp,
                widths: self.widths.into(),
                failed: rows.iter().filter(|row| row.status == Status::Fail).count(),
                lost: lost.as_ref().map(ToString::to_string),
                first_failure,
                files: BTreeMap::new(),
            },
            machine: Machine {
                system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
                chip: detail("chip"),
                runtime: detail("runtime"),
                driver: Installation::driver_version(),
                libraries: detail("libraries").map(|paths| file_names(&paths)).unwrap_or_default(),
                details,
                memory: self.memory.clone(),
                environment: privacy::environment(std::env::vars_os()),
            },
            capabilities: Capabilities {
                choices: info.details.iter().filter(|(name, _)| is_choice(name)).cloned().collect(),
                alternatives: self.alternatives(),
            },
            operators: Operators { rows: rows.iter().map(row).collect() },
            calls: Calls { calls },
            timings: self.timings(),
        }
    }

    fn calls(&self) -> Vec<Call> {
        self.selftest.calls.iter().cloned().map(Call::from).collect()
    }

    fn alternatives(&self) -> Vec<Alternative> {
        let alternative = |of: &glmbench_ascend::Alternative| Alternative {
            capability: of.capability.to_owned(),
            word: of.word.to_owned(),
            refused: of.refused.clone(),
        };
        self.selftest.alternatives.iter().map(alternative).collect()
    }

    fn timings(&self) -> Timings {
        let operator = |of: &glmbench_ascend::OperatorTime| OperatorTime {
            operator: of.operator.to_owned(),
            shape: of.shape.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect(),
            bytes: of.work.bytes,
            flops: of.work.flops,
            time_ns: of.time_ns.clone(),
        };
        let size = |of: &glmbench_ascend::SizeTime| SizeTime {
            what: of.what.to_owned(),
            bytes: of.bytes,
            time_ns: of.time_ns.clone(),
        };
        Timings {
            operators: self.timings.operators.iter().map(operator).collect(),
            copies: self.timings.copies.iter().map(size).collect(),
            collectives: self.timings.collectives.iter().map(size).collect(),
            host_launch_ns: self.timings.host_launch_ns,
        }
    }
}

/// A start that failed.
pub struct FailedStart<'a> {
    /// The card.
    pub card: DeviceKind,
    /// The widths.
    pub widths: Widths,
    /// Number of ranks.
    pub tp: usize,
    /// Type of weights and activations.
    pub dtype: DType,
    /// The profile of an emulated card.
    pub profile: Option<Profile>,
    /// The error.
    pub error: &'a DeviceError,
    /// First stages before it.
    pub calls: Vec<glmbench_ascend::Call>,
    /// Calls of any function that failed, the last one at the end.
    pub failed: Vec<glmbench_ascend::Call>,
}

impl FailedStart<'_> {
    /// Returns the bundle: the failing call with its arguments, versions, environment. Its files have no sums yet.
    pub fn bundle(self) -> Bundle {
        let note = self.error.to_string();
        let calls: Vec<Call> = self.calls.into_iter().map(Call::from).collect();
        // Other ranks fail after the first, and some failures are expected.
        let told = |call: &&glmbench_ascend::Call| {
            note.contains(&call.operator) && call.code.is_none_or(|code| note.contains(&code.to_string()))
        };
        let last = self.failed.iter().rfind(told).or_else(|| self.failed.last()).cloned().map(Call::from);
        // The record of first stages has the arguments of operators.
        let call = last.map(|last| {
            let same = |call: &&Call| call.operator == last.operator && call.code == last.code;
            calls.iter().rfind(same).cloned().unwrap_or(last)
        });
        let found = self.profile.is_none().then(Installation::look).unwrap_or_default();
        let row = Row {
            operator: START.to_owned(),
            variant: String::new(),
            shape: String::new(),
            status: RowStatus::Fail,
            max_error: None,
            bound: None,
            time_ns: None,
            note: note.clone(),
        };
        let no_memory = || ChipMemory {
            free_bytes: None,
            total_bytes: None,
            problem: Some("the card did not start".into()),
        };
        Bundle {
            summary: Summary {
                schema: SCHEMA,
                kind: KIND.to_owned(),
                program: format!("glmbench {}", env!("CARGO_PKG_VERSION")),
                created: rfc3339_utc(std::time::SystemTime::now()),
                card: Word::of(self.card),
                clock: if self.profile.is_some() { Clock::Modelled } else { Clock::Measured },
                profile: self.profile,
                dtype: Word::of(self.dtype),
                tp: self.tp,
                widths: self.widths.into(),
                failed: 1,
                lost: Some(note.clone()),
                first_failure: Some(Failure { operator: START.to_owned(), note, call }),
                files: BTreeMap::new(),
            },
            machine: started_on(&found, (0..self.tp).map(|_| no_memory()).collect()),
            capabilities: Capabilities::default(),
            operators: Operators { rows: vec![row] },
            calls: Calls {
                calls: calls.into_iter().chain(self.failed.into_iter().map(Call::from)).collect(),
            },
            timings: Timings::default(),
        }
    }
}

/// Returns what the machine tells if its card did not start.
fn started_on(found: &Installation, memory: Vec<ChipMemory>) -> Machine {
    let mut details: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut note = |name: &str, values: Vec<String>| {
        if !values.is_empty() {
            details.insert(name.to_owned(), values);
        }
    };
    note("libraries left out", found.left_out.clone());
    note("device nodes", found.nodes.clone());
    note("visible devices", found.devices.map(|n| n.to_string()).into_iter().collect());
    note("ASCEND_OPP_PATH", found.opp_path.clone().into_iter().collect());
    Machine {
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        chip: found.soc.clone(),
        runtime: None,
        driver: Installation::driver_version(),
        libraries: found.libraries.iter().flat_map(|(_, path)| file_names(path)).collect(),
        details,
        memory,
        environment: privacy::environment(std::env::vars_os()),
    }
}

impl From<glmbench_ascend::Call> for Call {
    fn from(call: glmbench_ascend::Call) -> Self {
        let glmbench_ascend::Call { phase, operator, arguments, code, message } = call;
        Self { phase, operator, arguments, code, message }
    }
}

/// Reads the memory of the chips.
pub fn memory(of: &TelemetrySource, chips: usize) -> Vec<ChipMemory> {
    let chip = |ordinal| match of.chip(ordinal).memory {
        Ok(memory) => ChipMemory {
            free_bytes: Some(memory.free_bytes),
            total_bytes: Some(memory.total_bytes),
            problem: None,
        },
        Err(problem) => ChipMemory { free_bytes: None, total_bytes: None, problem: Some(problem) },
    };
    (0..chips).map(chip).collect()
}

fn failure(row: &SelftestRow, calls: &[Call]) -> Failure {
    let mut own = calls.iter().filter(|call| call.phase == row.operator);
    let refused = own.clone().find(|call| call.code != Some(0));
    Failure {
        operator: row.operator.clone(),
        note: row.note.clone(),
        call: refused.or_else(|| own.next_back()).cloned(),
    }
}

fn row(of: &SelftestRow) -> Row {
    Row {
        operator: of.operator.clone(),
        variant: of.variant.clone(),
        shape: of.shape.clone(),
        status: match of.status {
            Status::Pass => RowStatus::Pass,
            Status::Fail => RowStatus::Fail,
            Status::Unsupported => RowStatus::NotHere,
        },
        max_error: of.max_error.filter(|error| error.is_finite()),
        bound: of.bound,
        time_ns: of.time_ns,
        note: of.note.clone(),
    }
}

/// Returns the last parts of paths.
fn file_names(paths: &str) -> Vec<String> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    paths.split_whitespace().map(name).filter(|name| !name.is_empty()).collect()
}
