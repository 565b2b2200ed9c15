//! `glmbench logits`: writes the logits of every position to a safetensors file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use safetensors::tensor::{Dtype, TensorView};

use glmbench_engine::Engine;
use glmbench_engine::{EngineError, NotFinite};

use crate::bench::{capacity_for, continuation};

use super::bars::Bars;
use super::engine::EngineArgs;
use super::progress;
use super::prompts::read_prompts;
use super::signals::Watch;
use super::{Exit, say};

/// Write the logits of every position of token-id prompts
///
/// Writes `prompt<i>`, float32 of length x vocabulary. With --decode N, also writes a greedy continuation: `greedy<i>`, its
/// N ids in int32, and `decode<i>`, float32 of N x vocabulary. These are the logits that chose them. End-of-sequence tokens do
/// not end it.
///
/// NaN and infinite logits are written unchanged, and their prompt gets no continuation. A message names the first of each prompt,
/// and the exit code is 4.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// JSON file: a list of lists of token ids
    #[arg(long, value_name = "P.json")]
    prompts: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "F.safetensors")]
    out: PathBuf,
    /// Number of tokens to continue each prompt by
    #[arg(long, value_name = "N", default_value_t = 0)]
    decode: usize,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    check_out(&args.out)?;
    if args.out.canonicalize().ok().is_some_and(|out| args.prompts.canonicalize().ok() == Some(out)) {
        bail!("--out {}: this is the file of --prompts; choose another", args.out.display());
    }
    let model = args.engine.find()?;
    let prompts = read_prompts(&args.prompts, &model.config)?;
    let mut engine = model.load(
        &args.engine.compute()?,
        capacity_for(&model.config, &prompts, args.decode),
        &mut Bars::default(),
    )?;
    let bar = progress::bar("logits", "prompts");
    bar.set_length(prompts.len() as u64);
    let (mut arrays, mut broken) = (Vec::new(), Vec::new());
    for (i, prompt) in prompts.iter().enumerate() {
        let whole = trace(&mut engine, prompt, args.decode);
        let trace = match whole {
            Err(EngineError::NotFinite { .. }) => trace(&mut engine, prompt, 0),
            whole => whole,
        };
        let trace = trace.with_context(|| format!("prompt {i}"))?;
        broken.extend(trace.broken.map(|place| (i, place)));
        arrays.extend(trace.arrays(i));
        bar.inc(1);
    }
    bar.finish_and_clear();
    // Writing takes a moment and must not be interrupted halfway.
    let _watch = Watch::new();
    write(&args.out, &arrays, &prompts)?;
    for (i, place) in &broken {
        say(&format!("glmbench: prompt {i}: {place}"));
    }
    Ok(if broken.is_empty() { Exit::Done } else { Exit::Invalid }.into())
}

/// Rejects an unwritable path before the model is loaded. The file is written beside its place and renamed over it,
/// which must not happen to a device such as `/dev/null`.
fn check_out(path: &Path) -> anyhow::Result<()> {
    if path.exists() && !path.is_file() {
        bail!("--out {}: exists and is not a regular file", path.display());
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("--out {}: {} is not a folder", path.display(), folder.display());
    }
    Ok(())
}

/// Logits of a prompt and its greedy continuation.
pub struct Trace {
    vocab: usize,
    /// Logits of the prompt, `[length, vocab]`.
    pub prompt: Vec<f32>,
    /// Token ids of the continuation, `[N]`.
    pub greedy: Vec<u32>,
    /// Logits that chose the continuation, `[N, vocab]`.
    pub decode: Vec<f32>,
    /// The first logit that is NaN or infinite.
    pub broken: Option<NotFinite>,
}

/// Runs one prompt. The continuation is fed back to get its logits: the engine gives the same bits either way.
///
/// # Errors
/// Those of the engine. [`EngineError::NotFinite`] if no continuation can be generated.
pub fn trace(engine: &mut Engine, prompt: &[u32], decode: usize) -> Result<Trace, EngineError> {
    let vocab = engine.config().padded_vocab_size;
    let greedy = if decode > 0 { continuation(engine, prompt, decode)? } else { Vec::new() };
    let fed: Vec<u32> = prompt.iter().chain(&greedy[..greedy.len().saturating_sub(1)]).copied().collect();
    let mut trace = Trace { vocab, prompt: Vec::new(), greedy, decode: Vec::new(), broken: None };
    let wants_decode = !trace.greedy.is_empty();
    engine.teacher_force(&fed, &mut |position, logits| {
        trace.broken = trace.broken.or_else(|| NotFinite::find(position, logits));
        if position < prompt.len() {
            trace.prompt.extend_from_slice(logits);
        }
        if wants_decode && position + 1 >= prompt.len() {
            trace.decode.extend_from_slice(logits);
        }
    })?;
    Ok(trace)
}

/// A named array to write.
struct Array {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Trace {
    fn arrays(self, i: usize) -> Vec<Array> {
        let floats = |name: &str, values: Vec<f32>| Array {
            name: format!("{name}{i}"),
            dtype: Dtype::F32,
            shape: vec![values.len() / self.vocab, self.vocab],
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let mut arrays = vec![floats("prompt", self.prompt)];
        if !self.greedy.is_empty() {
            arrays.push(Array {
                name: format!("greedy{i}"),
                dtype: Dtype::I32,
                shape: vec![self.greedy.len()],
                bytes: self.greedy.iter().flat_map(|t| (*t as i32).to_le_bytes()).collect(),
            });
            arrays.push(floats("decode", self.decode));
        }
        arrays
    }
}

/// Writes all arrays, with the prompts in the metadata, so that `parity` can replay them.
fn write(path: &Path, arrays: &[Array], prompts: &[Vec<u32>]) -> anyhow::Result<()> {
    let views = arrays
        .iter()
        .map(|a| Ok((a.name.clone(), TensorView::new(a.dtype, a.shape.clone(), &a.bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    let metadata = HashMap::from([("prompts".to_owned(), serde_json::to_string(prompts)?)]);
    safetensors::serialize_to_file(views, Some(metadata), path)
        .with_context(|| format!("--out {}: cannot be written", path.display()))
}
