//! Programs that are made of model answers: who runs them, and what their verdicts mean (HumanEval, pass@k).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use glmbench_metrics::pass_at_k;
use glmbench_sandbox::{Language, Sandbox, Toolchain, Verdict};

use super::Judgement;
use crate::dataset::Answer;

/// The word of a program that passed its tests. It is the key of every item whose answers are run.
pub const PASSED: &str = "passed";

/// What becomes of the answers to an item: programs with its tests.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// What the programs are written in.
    pub language: Language,
    /// One for each answer.
    pub attempts: Vec<Attempt>,
    /// Time that each program has, on the clock.
    pub timeout: Duration,
    /// The k of pass@k.
    pub pass_at: Vec<u64>,
}

/// A program made of one answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// Code was found.
    Program {
        /// The code as it was read from the answer.
        code: String,
        /// The rule that found it.
        rule: String,
        /// The whole program, with the item's tests.
        text: String,
    },
    /// No code was found. Holds the reason.
    Unreadable(String),
}

/// An attempt after its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The code as it was read from the answer; empty if none was found.
    pub code: String,
    /// `passed`, `failed: …`, `timed out` or `unreadable: …`.
    pub verdict: String,
}

/// Runs programs that a model wrote.
pub trait Runner: Send + Sync {
    /// Runs a program to its verdict.
    ///
    /// # Errors
    /// Why it was not run, though others can be.
    fn run(&self, language: Language, program: &str, timeout: Duration) -> Result<Verdict, String>;

    /// Returns name and version of each compiler and interpreter, for records.
    fn interpreter(&self) -> String;
}

/// Compilers and interpreters in the sandbox of the kernel.
struct Sandboxed {
    sandbox: Sandbox,
    toolchains: Vec<Arc<Toolchain>>,
}

impl Runner for Sandboxed {
    fn run(&self, language: Language, program: &str, timeout: Duration) -> Result<Verdict, String> {
        let toolchain = self.toolchains.iter().find(|toolchain| toolchain.language() == language);
        let toolchain = toolchain.ok_or_else(|| format!("nothing was found that runs {language}"))?;
        toolchain.check(&self.sandbox, program, timeout).map_err(|error| error.to_string())
    }

    fn interpreter(&self) -> String {
        let versions: Vec<String> = self.toolchains.iter().map(|toolchain| toolchain.version()).collect();
        versions.join(", ")
    }
}

/// Tries the sandbox and what runs the languages, each once per process, and returns what runs programs.
///
/// # Errors
/// What the machine lacks. Then no program is run at all: there is no way around the sandbox.
pub fn sandboxed(languages: &BTreeSet<Language>) -> Result<Arc<dyn Runner>, String> {
    static PROBED: OnceLock<Result<Sandbox, String>> = OnceLock::new();
    let sandbox = PROBED.get_or_init(|| Sandbox::probe().map_err(|error| error.to_string())).clone()?;
    let toolchains = languages.iter().map(|language| toolchain(*language, &sandbox));
    let toolchains = toolchains.collect::<Result<_, _>>()?;
    Ok(Arc::new(Sandboxed { sandbox, toolchains }))
}

/// Returns what runs a language. It is looked for once per process.
fn toolchain(language: Language, sandbox: &Sandbox) -> Result<Arc<Toolchain>, String> {
    type Found = Result<Arc<Toolchain>, String>;
    static FOUND: Mutex<BTreeMap<Language, Found>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let find = || Toolchain::find(language, sandbox).map(Arc::new).map_err(|error| error.to_string());
    found.entry(language).or_insert_with(find).clone()
}

impl fmt::Debug for dyn Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runner({})", self.interpreter())
    }
}

/// What the programs of an item came to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ran {
    pub(super) judgement: Judgement,
    pub(super) measures: BTreeMap<String, f64>,
    pub(super) tried: Vec<Tried>,
}

impl Trial {
    /// Runs all programs, one after another: an engine on the same cores would take their time from them.
    ///
    /// The first answer decides whether the item is right. Over several answers there is pass@k, in which one without code has
    /// failed.
    pub(super) fn run(&self, runner: &dyn Runner) -> Ran {
        let mut tried = Vec::with_capacity(self.attempts.len());
        for attempt in &self.attempts {
            tried.push(match attempt {
                Attempt::Unreadable(reason) => {
                    Tried { code: String::new(), verdict: format!("unreadable: {reason}") }
                }
                Attempt::Program { code, text, .. } => match runner.run(self.language, text, self.timeout) {
                    Ok(verdict) => Tried { code: code.clone(), verdict: words(&verdict) },
                    Err(reason) => {
                        let judgement = Judgement::Impossible(format!("the program was not run: {reason}"));
                        return Ran { judgement, measures: BTreeMap::new(), tried };
                    }
                },
            });
        }
        let samples = tried.len() as u64;
        let passed = tried.iter().filter(|one| one.verdict == PASSED).count() as u64;
        let of = |k: &u64| Some((format!("pass@{k}"), pass_at_k(samples, passed, *k)?));
        let several = if samples > 1 { self.pass_at.as_slice() } else { &[] };
        Ran { judgement: self.judge(&tried), measures: several.iter().filter_map(of).collect(), tried }
    }

    fn judge(&self, tried: &[Tried]) -> Judgement {
        let rule = self.attempts.iter().find_map(|attempt| match attempt {
            Attempt::Program { rule, .. } => Some(rule.clone()),
            Attempt::Unreadable(_) => None,
        });
        match (rule, self.attempts.first(), tried.first()) {
            (Some(rule), _, Some(first)) => {
                let verdict = first.verdict.split(':').next().unwrap_or_default();
                let pred = if verdict == "unreadable" { "failed" } else { verdict };
                let pred = Answer::Text(pred.to_owned());
                Judgement::Answer { pred, choice_logprobs: Vec::new(), rule }
            }
            (None, Some(Attempt::Unreadable(reason)), _) => Judgement::Unreadable(reason.clone()),
            _ => Judgement::Impossible("found no answer of the model; expected at least one".into()),
        }
    }
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Passed => PASSED.to_owned(),
        Verdict::Failed(reason) => format!("failed: {reason}"),
        Verdict::TimedOut => "timed out".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says of each program what it says itself.
    struct Echo;

    impl Runner for Echo {
        fn run(&self, _: Language, program: &str, _: Duration) -> Result<Verdict, String> {
            match program {
                "good" => Ok(Verdict::Passed),
                "slow" => Ok(Verdict::TimedOut),
                "none" => Err("the sandbox broke off".into()),
                other => Ok(Verdict::Failed(other.into())),
            }
        }

        fn interpreter(&self) -> String {
            "Echo 1".into()
        }
    }

    fn trial(programs: &[&str]) -> Trial {
        let attempt = |text: &&str| match *text {
            "" => Attempt::Unreadable("no code".into()),
            text => Attempt::Program { code: text.into(), rule: "whole".into(), text: text.into() },
        };
        let attempts = programs.iter().map(attempt).collect();
        Trial {
            language: Language::Python,
            attempts,
            timeout: Duration::from_secs(1),
            pass_at: vec![1, 2, 5],
        }
    }

    fn pred(programs: &[&str]) -> Result<String, String> {
        match trial(programs).run(&Echo).judgement {
            Judgement::Answer { pred, .. } => Ok(pred.to_string()),
            Judgement::Unreadable(reason) | Judgement::Impossible(reason) => Err(reason),
        }
    }

    #[test]
    fn the_first_answer_decides() {
        assert_eq!(pred(&["good"]).unwrap(), PASSED);
        assert_eq!(pred(&["name 'x: y' is not defined"]).unwrap(), "failed");
        assert_eq!(pred(&["slow", "good"]).unwrap(), "timed out");
        assert_eq!(pred(&["", "good"]).unwrap(), "failed");
        assert_eq!(pred(&[""]).unwrap_err(), "no code");
        assert_eq!(pred(&["", ""]).unwrap_err(), "no code");
        assert_eq!(pred(&["good", "none"]).unwrap_err(), "the program was not run: the sandbox broke off");
        assert!(pred(&[]).unwrap_err().starts_with("found no answer"));
    }

    #[test]
    fn pass_at_k_is_over_all_answers_and_needs_k_of_them() {
        let ran = trial(&["good", "bad", "", "slow"]).run(&Echo);
        // 1 − C(3, 2) / C(4, 2) = 1/2.
        assert_eq!(ran.measures, BTreeMap::from([("pass@1".into(), 0.25), ("pass@2".into(), 0.5)]));
        let verdicts: Vec<&str> = ran.tried.iter().map(|one| one.verdict.as_str()).collect();
        assert_eq!(verdicts, [PASSED, "failed: bad", "unreadable: no code", "timed out"]);
        assert!(trial(&["good"]).run(&Echo).measures.is_empty());
    }
}
