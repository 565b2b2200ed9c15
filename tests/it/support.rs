//! Helpers of several test modules.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use glmbench_engine::weights::dummy::Dummy;
use glmbench_engine::weights::{RawTensor, StorageType, StoredTensor, TensorView, WeightError, WeightSource};

pub(crate) use crate::skip::skipped;

/// Returns a path in the material beside the checkout, or `None` with a message on stderr if it is missing.
pub(crate) fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(path);
    if full.exists() {
        return Some(full);
    }
    skipped(&format!("../shared/{path} is not beside the checkout"));
    None
}

/// Returns a signal that programs started here receive: `signal`, or else SIGTERM with a message on stderr. The second
/// applies where this process ignores `signal`, as under `nohup` or behind a shell's `&`.
#[cfg(unix)]
pub(crate) fn heard(signal: &'static str) -> &'static str {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if mask >> (signal_number(signal) - 1) & 1 == 0 {
        return signal;
    }
    eprintln!("SIG{signal} is ignored here: SIGTERM instead");
    "TERM"
}

/// Returns the number of SIGHUP, SIGINT or SIGTERM.
#[cfg(unix)]
pub(crate) fn signal_number(signal: &str) -> u32 {
    match signal {
        "HUP" => 1,
        "INT" => 2,
        _ => 15,
    }
}

/// The result of running the program.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub words: String,
}

impl Answer {
    /// The result of a finished program.
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let answer =
            Self { code: output.status.code(), out: text(output.stdout), words: text(output.stderr) };
        assert!(!answer.words.contains("panicked"), "{}", answer.words);
        answer
    }

    /// Checks the exit code and that standard error contains all of `says`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32, says: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        for word in says {
            assert!(self.words.contains(word), "{word:?} is not in: {}", self.words);
        }
        self
    }
}

/// The program in the checkout, without a terminal or standard input.
pub(crate) fn glmbench<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_glmbench"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) fn answer<S: AsRef<OsStr>>(args: &[S]) -> Answer {
    Answer::of(glmbench(args).output().unwrap())
}

/// Waits for a started program.
pub(crate) fn wait(child: Child) -> Answer {
    Answer::of(child.wait_with_output().unwrap())
}

/// Runs the program with `input` on standard input.
pub(crate) fn answer_to<S: AsRef<OsStr>>(args: &[S], input: &[u8]) -> Answer {
    let mut child = glmbench(args).stdin(Stdio::piped()).spawn().unwrap();
    // The program may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    wait(child)
}

/// Weights that `change` may change, by the tensor's name. It returns whether it did. A changed tensor is fp32, and bytes as
/// stored are not changed.
pub(crate) struct Changed<F> {
    pub source: Arc<dyn WeightSource>,
    pub change: F,
}

impl<F: Fn(&str, &mut [f32]) -> bool + Send + Sync> WeightSource for Changed<F> {
    fn place(&self) -> String {
        self.source.place()
    }

    fn stored(&self) -> Vec<StoredTensor> {
        self.source.stored()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        let view = self.source.tensor(name, shape)?;
        let mut numbers = view.to_f32();
        if !(self.change)(name, &mut numbers) {
            return Ok(view);
        }
        let data = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        Ok(TensorView { data: Cow::Owned(data), dtype: StorageType::F32, ..view })
    }

    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        self.source.raw(name)
    }

    fn release(&self, name: &str) {
        self.source.release(name);
    }

    fn dtype(&self) -> StorageType {
        self.source.dtype()
    }

    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        self.source.fingerprint(hashed)
    }
}

/// [`Dummy`] with everything but the norms scaled by a factor. At its own 0.02, attention is nearly uniform.
pub(crate) fn loud(dummy: Dummy, gain: f32) -> impl WeightSource + 'static {
    let change = move |name: &str, numbers: &mut [f32]| {
        let is_scaled = !name.contains("layernorm");
        numbers.iter_mut().filter(|_| is_scaled).for_each(|x| *x *= gain);
        is_scaled
    };
    Changed { source: Arc::new(dummy), change }
}
