//! Python programs in the sandbox, and HumanEval.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::verdict::{Verdict, unexpected};
use crate::{End, InputFile, Limits, Program, RunError, Sandbox};

/// What every program of HumanEval runs under.
const RUNNER: &str = include_str!("runner.py");

/// Asks an interpreter where it lives. The program is ours, so it runs outside the sandbox.
const ASK: &str = "import sys; print(sys.version.split()[0], getattr(sys, '_base_executable', sys.executable), sys.base_prefix, sys.base_exec_prefix, sep='\\n')";

/// A Python interpreter that runs in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    executable: PathBuf,
    version: String,
    read_only: Vec<PathBuf>,
}

/// Why there is no interpreter.
#[derive(Debug, thiserror::Error)]
pub enum NoPython {
    /// Nothing of this name starts.
    #[error("found no `{name}` that starts ({error}), expected Python 3: install it, or put it on PATH")]
    Missing {
        /// What was started.
        name: String,
        /// What happened.
        error: String,
    },
    /// It starts outside, but not in the sandbox.
    #[error(
        "{executable} does not run in the sandbox ({found}): use an interpreter whose files are readable for everyone"
    )]
    NotInSandbox {
        /// The interpreter.
        executable: String,
        /// What happened.
        found: String,
    },
}

impl Python {
    /// Finds `python3` on PATH, follows it to the installation behind wrappers and virtual environments, and runs a program of
    /// one line in the sandbox.
    pub fn find(sandbox: &Sandbox) -> Result<Self, NoPython> {
        Self::named("python3", sandbox)
    }

    /// Does what [`find`](Self::find) does, with another name or path.
    pub fn named(name: &str, sandbox: &Sandbox) -> Result<Self, NoPython> {
        let missing = |error: String| NoPython::Missing { name: name.to_owned(), error };
        let asked = Command::new(name).args(["-I", "-c", ASK]).stdin(Stdio::null()).output();
        let asked = asked.map_err(|error| missing(error.to_string()))?;
        let text = String::from_utf8_lossy(&asked.stdout).into_owned();
        let &[version, executable, prefix, exec_prefix] = text.lines().collect::<Vec<_>>().as_slice() else {
            return Err(missing(format!(
                "it answers `{}`, {}",
                text.trim().chars().take(80).collect::<String>(),
                asked.status
            )));
        };
        let real =
            |path: &str| Path::new(path).canonicalize().map_err(|error| missing(format!("{path}: {error}")));
        let (executable, mut read_only) = (real(executable)?, vec![real(prefix)?, real(exec_prefix)?]);
        read_only.dedup();
        // What is below /usr is there anyway. A whole root or home folder is never shown.
        read_only.retain(|path| !path.starts_with("/usr"));
        let home = std::env::home_dir();
        let holds_home = |path: &Path| home.as_ref().is_some_and(|home| home.starts_with(path));
        if let Some(path) = read_only.iter().find(|path| path.parent().is_none() || holds_home(path)) {
            return Err(missing(format!("its files are spread over {}", path.display())));
        }
        let python = Self { executable, version: version.to_owned(), read_only };
        match python.check(sandbox, "assert 6 * 7 == 42", Duration::from_secs(20)) {
            Ok(Verdict::Passed) => Ok(python),
            other => {
                let found = match other {
                    Ok(verdict) => format!("{verdict:?}"),
                    Err(error) => error.to_string(),
                };
                Err(NoPython::NotInSandbox { executable: python.executable.display().to_string(), found })
            }
        }
    }

    /// The interpreter's version, for records.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The program that runs arguments by this interpreter, isolated from its user's settings.
    pub fn program(&self, arguments: &[&str]) -> Program {
        let path = self.executable.display().to_string();
        let own = [path.as_str(), "-I", "-B"];
        Program {
            arguments: own.iter().chain(arguments).map(|&argument| argument.to_owned()).collect(),
            read_only: self.read_only.clone(),
            ..Program::default()
        }
    }

    /// Runs a program's text to its verdict, as OpenAI's human-eval does (`check_correctness`): by `exec` with empty globals,
    /// output dropped, any exception a failure. The original also takes functions like `os.remove` away; the sandbox lets
    /// them work on its own files. `timeout` begins before the sandbox is made, a few milliseconds.
    pub fn check(&self, sandbox: &Sandbox, text: &str, timeout: Duration) -> Result<Verdict, RunError> {
        // Random enough that no program says it by chance.
        let mark = format!("{:016x}", std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), text));
        let program = Program {
            input: mark.clone().into_bytes(),
            files: vec![InputFile::new("runner.py", RUNNER), InputFile::new("program.py", text)],
            ..self.program(&["runner.py"])
        };
        let limits = Limits {
            wall: timeout,
            cpu: timeout + Duration::from_secs(1),
            output: 4096,
            ..Limits::default()
        };
        let outcome = sandbox.run(&program, &limits)?;
        let said = String::from_utf8_lossy(&outcome.stdout.kept).into_owned();
        let verdict = said.rsplit_once(&mark).map(|(_, verdict)| verdict);
        Ok(match (outcome.end, verdict) {
            (End::TimedOut | End::CpuTime, _) => Verdict::TimedOut,
            (End::Exited(0), Some("passed")) => Verdict::Passed,
            (End::Exited(0), Some(other)) => {
                Verdict::Failed(other.strip_prefix("failed: ").unwrap_or(other).to_owned())
            }
            (end, _) => Verdict::Failed(unexpected(end, &outcome.stderr)),
        })
    }
}

/// Builds the program that HumanEval runs: prompt, completion, test, and the call of `check` with the entry point.
pub fn humaneval_program(prompt: &str, completion: &str, test: &str, entry_point: &str) -> String {
    format!("{prompt}{completion}\n{test}\ncheck({entry_point})")
}
