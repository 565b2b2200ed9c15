//! What runs the programs of a language: found on PATH, and tried in the sandbox.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::language::Language;
use crate::python::{NoPython, Python};
use crate::verdict::{Verdict, first_error, unexpected};
use crate::{End, InputFile, Limits, Program, RunError, Sandbox};

/// Exit status of a script if the compiler refused the program.
const NOT_COMPILED: i32 = 101;
/// Time of the program that is tried.
const TRIAL: Duration = Duration::from_mins(1);

/// A compiler or interpreter that runs in the sandbox.
#[derive(Debug, Clone)]
pub struct Toolchain {
    language: Language,
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    Python(Python),
    Script(Box<Script>),
}

/// A shell script that compiles and runs a file.
#[derive(Debug, Clone)]
struct Script {
    version: String,
    /// Name of the program file.
    file: &'static str,
    script: String,
    /// Files beside the program's.
    files: Vec<InputFile>,
    environment: Vec<(String, String)>,
    read_only: Vec<PathBuf>,
    /// Whether a program that prints anything has failed, as with HumanEval-X's JavaScript: `console.assert` only prints.
    is_silent: bool,
}

/// Why there is no compiler or interpreter.
#[derive(Debug, thiserror::Error)]
pub enum NoToolchain {
    /// Python's own reasons.
    #[error(transparent)]
    Python(#[from] NoPython),
    /// Nothing of this name starts.
    #[error(
        "found no `{tool}` that starts ({found}), which programs in {language} need: install it, or put it on PATH"
    )]
    Missing {
        /// The language.
        language: Language,
        /// What was started.
        tool: &'static str,
        /// What happened.
        found: String,
    },
    /// It starts outside, but not in the sandbox.
    #[error("`{tool}` for programs in {language} does not run in the sandbox: {found}")]
    NotInSandbox {
        /// The language.
        language: Language,
        /// What was started.
        tool: &'static str,
        /// What happened.
        found: String,
    },
}

impl Toolchain {
    /// Finds what runs the programs of a language, and runs a small one in the sandbox.
    ///
    /// # Errors
    /// Nothing is found on PATH, or the small program does not pass.
    pub fn find(language: Language, sandbox: &Sandbox) -> Result<Self, NoToolchain> {
        let finder = Finder { language };
        let (script, trial) = match language {
            Language::Python => return Ok(Self { language, how: How::Python(Python::find(sandbox)?) }),
            Language::Cpp => (finder.cpp()?, CPP),
            Language::Go => (finder.go()?, GO),
            Language::Java => (finder.java()?, JAVA),
            Language::JavaScript => (finder.javascript()?, JAVASCRIPT),
        };
        let tool = finder.tool();
        let toolchain = Self { language, how: How::Script(Box::new(script)) };
        let found = match toolchain.check(sandbox, trial, TRIAL) {
            Ok(Verdict::Passed) => return Ok(toolchain),
            Ok(Verdict::Failed(reason)) => reason,
            Ok(Verdict::TimedOut) => format!("it was not done after {} s", TRIAL.as_secs()),
            Err(error) => error.to_string(),
        };
        Err(NoToolchain::NotInSandbox { language, tool, found })
    }

    /// Returns the language.
    pub fn language(&self) -> Language {
        self.language
    }

    /// Returns name and version, for records.
    pub fn version(&self) -> String {
        match &self.how {
            How::Python(python) => format!("Python {}", python.version()),
            How::Script(script) => script.version.clone(),
        }
    }

    /// Compiles and runs a program to its verdict. It has passed if it ends with status 0 within `timeout`, compilation
    /// included. A program in JavaScript must also print nothing. Python's rules are those of [`Python::check`].
    ///
    /// # Errors
    /// Why it was not run.
    pub fn check(&self, sandbox: &Sandbox, text: &str, timeout: Duration) -> Result<Verdict, RunError> {
        match &self.how {
            How::Python(python) => python.check(sandbox, text, timeout),
            How::Script(script) => script.check(sandbox, text, timeout),
        }
    }
}

impl Script {
    fn check(&self, sandbox: &Sandbox, text: &str, timeout: Duration) -> Result<Verdict, RunError> {
        let own = [InputFile::new(self.file, text)];
        let program = Program {
            arguments: ["/bin/sh", "-c", &self.script].map(str::to_owned).to_vec(),
            files: self.files.iter().cloned().chain(own).collect(),
            environment: self.environment.clone(),
            read_only: self.read_only.clone(),
            ..Program::default()
        };
        // Compilers need more room than the programs, and virtual machines reserve address space that they never touch.
        let limits = Limits {
            wall: timeout,
            cpu: timeout + Duration::from_secs(1),
            memory: 2 << 30,
            address_space: u64::MAX,
            file_size: 128 << 20,
            disk: 512 << 20,
            processes: 256,
            open_files: 1024,
            output: 16 << 10,
        };
        let outcome = sandbox.run(&program, &limits)?;
        let said = if outcome.stderr.kept.is_empty() { &outcome.stdout } else { &outcome.stderr };
        Ok(match outcome.end {
            End::TimedOut | End::CpuTime => Verdict::TimedOut,
            End::Exited(0) if !self.is_silent || said.kept.is_empty() => Verdict::Passed,
            End::Exited(0) => Verdict::Failed(first_error(said)),
            End::Exited(NOT_COMPILED) => Verdict::Failed(format!("compilation error: {}", first_error(said))),
            End::Exited(code) => Verdict::Failed(format!("status {code}: {}", first_error(said))),
            end => Verdict::Failed(unexpected(end, said)),
        })
    }
}

/// Looks for the tools of a language. What it starts are the tools themselves, never a model's program.
struct Finder {
    language: Language,
}

impl Finder {
    fn tool(&self) -> &'static str {
        match self.language {
            Language::Cpp => "g++",
            Language::Go => "go",
            Language::Java => "javac",
            Language::JavaScript => "node",
            Language::Python => "python3",
        }
    }

    /// HumanEval-X compiles as C++11 and links OpenSSL for the one item that needs it.
    fn cpp(&self) -> Result<Script, NoToolchain> {
        let (path, read_only) = self.installed("g++")?;
        let compiler = quoted(&path);
        let script = format!(
            "if grep -q openssl/ main.cpp; then more='-lcrypto -lssl'; fi\n\
             {compiler} -std=c++11 -o program main.cpp $more || exit {NOT_COMPILED}\nexec ./program"
        );
        let version = format!("g++ {}", self.answer(&path, &["-dumpfullversion"])?);
        Ok(Script { read_only, ..Script::new(version, "main.cpp", script) })
    }

    /// Programs are files of tests with the package `testify/assert`. A small version of our own is in `vendor`. Go's standard
    /// library is compiled once, outside, into a cache that programs cannot write.
    fn go(&self) -> Result<Script, NoToolchain> {
        let (path, mut read_only) = self.installed("go")?;
        let version = self.answer(&path, &["env", "GOVERSION"])?;
        let root = PathBuf::from(self.answer(&path, &["env", "GOROOT"])?);
        let cache = self.go_cache(&version)?;
        read_only.extend([root, cache.clone()].into_iter().filter(|path| !path.starts_with("/usr")));
        let files = vec![
            InputFile::new(
                "go.mod",
                "module humaneval\n\ngo 1.18\n\nrequire github.com/stretchr/testify v1.8.0\n",
            ),
            InputFile::new(
                "vendor/modules.txt",
                "# github.com/stretchr/testify v1.8.0\n## explicit\ngithub.com/stretchr/testify/assert\n",
            ),
            InputFile::new(
                "vendor/github.com/stretchr/testify/assert/assert.go",
                include_str!("go/assert.go"),
            ),
        ];
        let environment: Vec<(String, String)> = [
            ("GOCACHE", &*cache.display().to_string()),
            ("GOFLAGS", "-mod=vendor"),
            ("GOPROXY", "off"),
            ("GOTOOLCHAIN", "local"),
            ("GOTELEMETRY", "off"),
            ("CGO_ENABLED", "0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        self.warm(&path, &cache, &files, &environment)?;
        let script = format!("exec {} test main_test.go", quoted(&path));
        Ok(Script { files, environment, read_only, ..Script::new(version, "main_test.go", script) })
    }

    fn java(&self) -> Result<Script, NoToolchain> {
        let (compiler, mut read_only) = self.installed("javac")?;
        let (machine, _) = self.installed("java")?;
        let version = self.answer(&compiler, &["-version"])?;
        // Debian keeps the settings below /etc.
        if let Some(home) = compiler.parent().and_then(Path::parent)
            && let Ok(settings) = home.join("conf/security/java.security").canonicalize()
            && !settings.starts_with(home)
        {
            read_only.extend(settings.parent().and_then(Path::parent).map(Path::to_path_buf));
        }
        let (compiler, machine) = (quoted(&compiler), quoted(&machine));
        let script = format!(
            "{compiler} -J-XX:+UseSerialGC -J-Xmx512m -J-XX:-UsePerfData -encoding UTF-8 Main.java || exit {NOT_COMPILED}\n\
             exec {machine} -XX:+UseSerialGC -Xmx1g -XX:-UsePerfData Main"
        );
        Ok(Script { read_only, ..Script::new(version, "Main.java", script) })
    }

    fn javascript(&self) -> Result<Script, NoToolchain> {
        let (path, read_only) = self.installed("node")?;
        let version = format!("Node {}", self.answer(&path, &["--version"])?);
        let script = format!("exec {} main.js", quoted(&path));
        Ok(Script { read_only, is_silent: true, ..Script::new(version, "main.js", script) })
    }

    /// Returns a tool's path without links, and the folders that it needs besides `/usr`.
    fn installed(&self, tool: &'static str) -> Result<(PathBuf, Vec<PathBuf>), NoToolchain> {
        let missing = |found: String| NoToolchain::Missing { language: self.language, tool, found };
        let all = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::split_paths(&all).map(|folder| folder.join(tool)).find(|path| path.is_file());
        let path = path.ok_or_else(|| missing("it is not on PATH".into()))?;
        let path = path.canonicalize().map_err(|error| missing(format!("{}: {error}", path.display())))?;
        if path.starts_with("/usr") {
            return Ok((path, Vec::new()));
        }
        let home = std::env::home_dir();
        let prefix = path.parent().and_then(Path::parent).filter(|prefix| {
            // A whole root or home folder is never shown.
            prefix.parent().is_some() && !home.as_ref().is_some_and(|home| home.starts_with(prefix))
        });
        match prefix.map(Path::to_path_buf) {
            Some(prefix) => Ok((path, vec![prefix])),
            None => Err(missing(format!("{} is in no folder of its own", path.display()))),
        }
    }

    /// Returns the first line that a tool prints.
    fn answer(&self, path: &Path, arguments: &[&str]) -> Result<String, NoToolchain> {
        let missing =
            |found: String| NoToolchain::Missing { language: self.language, tool: self.tool(), found };
        let asked = Command::new(path).args(arguments).stdin(Stdio::null()).output();
        let asked = asked.map_err(|error| missing(error.to_string()))?;
        let text = String::from_utf8_lossy(&asked.stdout);
        let line = text.lines().next().filter(|_| asked.status.success());
        line.map(|line| line.trim().to_owned())
            .ok_or_else(|| missing(format!("`{}` ends with {}", arguments.join(" "), asked.status)))
    }

    /// Returns the folder of the compiled standard library, below the user's folder of caches.
    fn go_cache(&self, version: &str) -> Result<PathBuf, NoToolchain> {
        let caches = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(std::env::home_dir()?.join(".cache")))
            .filter(|folder| folder.is_absolute());
        let cache = caches.map(|caches| caches.join("glmbench").join(version));
        cache.ok_or_else(|| NoToolchain::Missing {
            language: self.language,
            tool: self.tool(),
            found: "found no folder for its cache; set HOME or XDG_CACHE_HOME".into(),
        })
    }

    /// Compiles what programs may import, outside the sandbox and into the cache. The program is ours. It stands beside the cache:
    /// another user could have made its folder in a place that all may write.
    fn warm(
        &self,
        go: &Path,
        cache: &Path,
        files: &[InputFile],
        environment: &[(String, String)],
    ) -> Result<(), NoToolchain> {
        let wrong =
            |found: String| NoToolchain::Missing { language: self.language, tool: self.tool(), found };
        let folder = cache.with_file_name(format!("warming-{}", std::process::id()));
        let main = InputFile::new("main_test.go", GO);
        let made = files.iter().chain([&main]).try_for_each(|file| {
            let path = folder.join(&file.path);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, &file.bytes)
        });
        let ran = made.and_then(|()| {
            let mut command = Command::new(go);
            command.args(["test", "main_test.go"]).current_dir(&folder).stdin(Stdio::null());
            command.envs(environment.iter().map(|(name, value)| (name, value))).output()
        });
        let removed = std::fs::remove_dir_all(&folder);
        let ran = ran.and_then(|ran| removed.map(|()| ran)).map_err(|error| wrong(error.to_string()))?;
        if ran.status.success() {
            return Ok(());
        }
        let text = [ran.stderr, ran.stdout].concat();
        let text = String::from_utf8_lossy(&text);
        Err(wrong(text.trim().lines().last().unwrap_or_default().chars().take(200).collect()))
    }
}

impl Script {
    fn new(version: String, file: &'static str, script: String) -> Self {
        Self {
            version,
            file,
            script,
            files: Vec::new(),
            environment: Vec::new(),
            read_only: Vec::new(),
            is_silent: false,
        }
    }
}

/// Quotes a path for the shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

const CPP: &str = "#include<vector>\n#include<stdlib.h>\nint main(){ std::vector<int> all = {6, 7}; if (all[0] * all[1] != 42) abort(); }\n";

/// Imports what HumanEval-X adds to programs, so that all of it is compiled beforehand.
const GO: &str = r#"package main

import (
	"bytes"
	"crypto/md5"
	"fmt"
	"math"
	"math/rand"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestProduct(t *testing.T) {
	assert := assert.New(t)
	all := []string{strconv.Itoa(6 * 7), fmt.Sprint(math.Sqrt(4)), strings.ToLower("A")}
	sort.Strings(all)
	assert.Equal([]string{"2", "42", "a"}, all)
	assert.Equal(true, regexp.MustCompile("4.").MatchString(all[1]) && bytes.Equal(nil, nil))
	assert.Equal(16, len(md5.Sum(nil))+rand.Intn(1)+int(time.Duration(0)))
}
"#;

const JAVA: &str = "import java.util.*;\n\nclass Solution {\n    int product(List<Integer> all) { return all.get(0) * all.get(1); }\n}\n\npublic class Main {\n    public static void main(String[] arguments) {\n        if (new Solution().product(Arrays.asList(6, 7)) != 42) throw new AssertionError();\n    }\n}\n";

const JAVASCRIPT: &str = "console.assert([6, 7].reduce((a, b) => a * b) === 42)\n";
