//! Injected faults: what to break, and when.

use std::sync::atomic::{AtomicU64, Ordering};

/// Faults to inject. `oom:N`, `lost:N`, `timeout:N`, `wrong:OP:N` and `hccl-timeout:N` count from one.
///
/// - `broken:OP`: the first stage of the operator accepts, and every result is wrong.
/// - `single-use:OP`: none of its executors can be made repeatable.
/// - `refused:OP`: its first stage finds no kernel.
/// - `refused:OP:FORM`: likewise, for one form of its arguments (`TND`, `BNSD`, `broadcast`, `D64`, `unbanded`, `int8`).
/// - `strict:doc`: the pages apply to the letter.
/// - `set-up:FUNCTION:CODE`: aclInit or aclrtSetDevice fails with this code.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    oom: Vec<u64>,
    lost: Option<u64>,
    timeout: Option<u64>,
    wrong: Vec<(String, u64)>,
    hccl_timeout: Vec<u64>,
    single_use: Vec<String>,
    broken: Vec<String>,
    refused: Vec<(String, Option<String>)>,
    /// The operators' pages apply to the letter, as with the setting `strict = doc`.
    pub strict: bool,
    set_up: Vec<(String, i32)>,
}

impl Faults {
    /// Adds one fault. `missing:SYMBOL` is accepted and left to the program that loads the library.
    pub(crate) fn add(&mut self, words: &str) -> Result<(), String> {
        let mistake = || {
            format!(
                "fault \"{words}\" is unknown, expected oom:N, lost:N, timeout:N, wrong:OPERATOR:N, hccl-timeout:N, \
                 single-use:OPERATOR, broken:OPERATOR, refused:OPERATOR, refused:OPERATOR:FORM with one of TND, BNSD, \
                 broadcast, D64, unbanded, int8, strict:doc, \
                 set-up:FUNCTION:CODE or missing:SYMBOL, N from 1"
            )
        };
        let count = |text: &str| text.parse().ok().filter(|n| *n > 0).ok_or_else(mistake);
        match *words.split(':').collect::<Vec<_>>().as_slice() {
            ["oom", n] => self.oom.push(count(n)?),
            ["lost", n] => self.lost = Some(count(n)?),
            ["timeout", n] => self.timeout = Some(count(n)?),
            ["wrong", operator, n] => {
                self.wrong.push((operator.trim_start_matches("aclnn").to_owned(), count(n)?));
            }
            ["hccl-timeout", n] => self.hccl_timeout.push(count(n)?),
            ["single-use", operator] if !operator.is_empty() => {
                self.single_use.push(operator.trim_start_matches("aclnn").to_owned());
            }
            ["broken", operator] if !operator.is_empty() => {
                self.broken.push(operator.trim_start_matches("aclnn").to_owned());
            }
            ["refused", operator]
                if operator == "aclmdlRICaptureBegin"
                    || (!operator.is_empty()
                        && (operator.starts_with("aclnn") || !operator.starts_with("acl"))) =>
            {
                self.refused.push((operator.trim_start_matches("aclnn").to_owned(), None));
            }
            ["refused", operator, form] if has_form(operator, form) => {
                self.refused.push((operator.trim_start_matches("aclnn").to_owned(), Some(form.to_owned())));
            }
            ["strict", "doc"] => self.strict = true,
            ["set-up", function @ ("aclInit" | "aclrtSetDevice" | "HcclCommInitRootInfo"), code] => {
                let code = code.parse().ok().filter(|code| *code > 0).ok_or_else(mistake)?;
                self.set_up.push((function.to_owned(), code));
            }
            ["missing", symbol] if !symbol.is_empty() => {}
            _ => return Err(mistake()),
        }
        Ok(())
    }

    /// Code with which a setup function must fail, if any.
    pub(crate) fn set_up(&self, function: &str) -> Option<i32> {
        self.set_up.iter().find(|(name, _)| name == function).map(|(_, code)| *code)
    }

    /// Whether executors of `operator` (with its `aclnn`) cannot be made repeatable.
    pub(crate) fn is_single_use(&self, operator: &str) -> bool {
        self.single_use.iter().any(|name| name == operator.trim_start_matches("aclnn"))
    }

    /// Whether the first stage of `operator` (with its `aclnn`) finds no kernel.
    pub(crate) fn is_refused(&self, operator: &str) -> bool {
        self.refused.iter().any(|(name, form)| form.is_none() && name == operator.trim_start_matches("aclnn"))
    }

    /// Whether the first stage of `operator` (with its `aclnn`) finds no kernel for one form of its arguments.
    pub(crate) fn is_form_refused(&self, operator: &str, form: &str) -> bool {
        let operator = operator.trim_start_matches("aclnn");
        self.refused.iter().any(|(name, refused)| name == operator && refused.as_deref() == Some(form))
    }

    fn any_launch(&self) -> bool {
        self.lost.is_some() || self.timeout.is_some() || !self.wrong.is_empty() || !self.broken.is_empty()
    }
}

/// Whether an operator checks for this form of its arguments.
fn has_form(operator: &str, form: &str) -> bool {
    let operators: &[&str] = match form {
        "TND" => &["FusedInferAttentionScoreV2"],
        "BNSD" => &["FusedInferAttentionScoreV2", "IncreFlashAttentionV4", "PromptFlashAttentionV3"],
        "broadcast" => &["Add", "InplaceAdd", "Mul"],
        "D64" => &["ApplyRotaryPosEmb", "ApplyRotaryPosEmbV2"],
        "unbanded" => &["PromptFlashAttentionV3"],
        "int8" => &["FusedInferAttentionScoreV2", "IncreFlashAttentionV4"],
        _ => &[],
    };
    operators.contains(&operator.trim_start_matches("aclnn"))
}

/// The fault that hits a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaunchFault {
    /// No fault.
    None,
    /// The device is lost with this launch.
    Lost,
    /// The operator never ends.
    Timeout,
    /// The result is wrong.
    Wrong,
}

/// Counts allocations, launches and collectives since the settings were applied.
#[derive(Debug, Default)]
pub(crate) struct FaultCounters {
    allocations: AtomicU64,
    launches: AtomicU64,
    collectives: AtomicU64,
    wrong: Vec<AtomicU64>,
}

impl FaultCounters {
    /// Creates the counters for these faults.
    pub(crate) fn new(faults: &Faults) -> Self {
        Self { wrong: faults.wrong.iter().map(|_| AtomicU64::new(0)).collect(), ..Self::default() }
    }

    /// Counts an allocation, and returns whether it must fail.
    pub(crate) fn allocation(&self, faults: &Faults) -> bool {
        !faults.oom.is_empty() && faults.oom.contains(&(self.allocations.fetch_add(1, Ordering::Relaxed) + 1))
    }

    /// Counts a collective, and returns whether it must time out.
    pub(crate) fn collective(&self, faults: &Faults) -> bool {
        !faults.hccl_timeout.is_empty()
            && faults.hccl_timeout.contains(&(self.collectives.fetch_add(1, Ordering::Relaxed) + 1))
    }

    /// Counts a launch of `operator` (with its `aclnn`), and returns the fault that hits it.
    pub(crate) fn launch(&self, faults: &Faults, operator: &str) -> LaunchFault {
        if !faults.any_launch() {
            return LaunchFault::None;
        }
        let launch = self.launches.fetch_add(1, Ordering::Relaxed) + 1;
        if faults.lost.is_some_and(|n| launch >= n) {
            return LaunchFault::Lost;
        }
        if faults.timeout == Some(launch) {
            return LaunchFault::Timeout;
        }
        if faults.broken.iter().any(|name| name == operator.trim_start_matches("aclnn")) {
            return LaunchFault::Wrong;
        }
        for ((name, n), seen) in faults.wrong.iter().zip(&self.wrong) {
            if operator.trim_start_matches("aclnn") == name && seen.fetch_add(1, Ordering::Relaxed) + 1 == *n
            {
                return LaunchFault::Wrong;
            }
        }
        LaunchFault::None
    }
}
