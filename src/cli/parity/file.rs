//! Comparison with the arrays of a file, as `glmbench logits` writes them.

use std::path::Path;

use anyhow::{Context, bail};
use safetensors::SafeTensors;

use glmbench_engine::{EngineError, NotFinite};

use crate::bench::capacity_for;
use crate::cli::bars::Bars;
use crate::cli::prompts::{parse_prompts, read_prompts};
use crate::run::found::FoundModel;
use crate::stats::parity::PositionParity;

use super::{Args, Compared, Continued, engine_compute, named};

/// Compares with the arrays of a file.
pub(super) fn against_file(args: &Args, model: &FoundModel, path: &Path) -> anyhow::Result<Compared> {
    let name = || format!("--reference {}", path.display());
    let bytes = std::fs::read(path).with_context(name)?;
    let file = SafeTensors::deserialize(&bytes).with_context(name)?;
    let prompts = match &args.prompts {
        Some(path) => read_prompts(path, &model.config)?,
        None => recorded_prompts(&bytes, model).with_context(name)?,
    };
    let vocab = model.config.padded_vocab_size;
    let array = |kind: &str, i: usize| {
        let dtype = if kind == "greedy" { safetensors::Dtype::I32 } else { safetensors::Dtype::F32 };
        reference_array(&file, &format!("{}{kind}{i}", args.array_prefix), dtype)
    };
    let steps =
        (0..prompts.len()).filter_map(|i| array("greedy", i).ok()).map(|g| g.len()).max().unwrap_or(0);
    let mut engine = model.load(
        &engine_compute(args)?,
        capacity_for(&model.config, &prompts, steps),
        &mut Bars::default(),
    )?;
    let mut positions = Vec::new();
    let mut continued = Continued::default();
    for (i, prompt) in prompts.iter().enumerate() {
        let mut expected = array("prompt", i).with_context(name)?;
        check_rows(&expected, prompt.len(), vocab, &format!("prompt{i}")).with_context(name)?;
        let mut fed = prompt.clone();
        let mut free = None;
        let has = |kind: &str| file.tensor(&format!("{}{kind}{i}", args.array_prefix)).is_ok();
        if has("greedy") || has("decode") {
            let greedy = array("greedy", i).with_context(name)?;
            let decode = array("decode", i).with_context(name)?;
            let greedy: Vec<u32> = greedy.into_iter().map(f32::to_bits).collect();
            check_rows(&decode, greedy.len(), vocab, &format!("decode{i}")).with_context(name)?;
            free = Some(continued.generate(&mut engine, i, prompt, &greedy)?);
            fed.extend_from_slice(&greedy[..greedy.len().saturating_sub(1)]);
            expected.extend_from_slice(decode.get(vocab..).unwrap_or_default());
        }
        let (mut broken, mut reference_broken) = (None, None);
        engine.teacher_force(&fed, &mut |position, ours| {
            let theirs = &expected[position * vocab..(position + 1) * vocab];
            broken = broken.or_else(|| NotFinite::find(position, ours));
            reference_broken = reference_broken.or_else(|| NotFinite::find(position, theirs));
            positions.push(PositionParity::new(theirs, ours));
            free.iter().for_each(|free| continued.look(free, position, theirs, ours));
        })?;
        refuse_broken(i, reference_broken).with_context(name)?;
        refuse_broken(i, broken)?;
    }
    let reference = format!("{} {}", path.display(), args.array_prefix).trim_end().to_owned();
    let has_integers = engine.device_info().precision.quantises_activations();
    Ok(Compared { engine: named(&engine), reference, has_integers, positions, continued })
}

/// Returns the prompts that `glmbench logits` recorded in its file.
fn recorded_prompts(bytes: &[u8], model: &FoundModel) -> anyhow::Result<Vec<Vec<u32>>> {
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let prompts = metadata.metadata().as_ref().and_then(|m| m.get("prompts"));
    let text = prompts.context("the file does not record its prompts; give them with --prompts P.json")?;
    parse_prompts(text, &model.config)
}

/// Returns an array's 32-bit numbers. The array must have type `dtype`.
fn reference_array(
    file: &SafeTensors<'_>,
    name: &str,
    dtype: safetensors::Dtype,
) -> anyhow::Result<Vec<f32>> {
    let tensor = file.tensor(name).with_context(|| format!("array {name}"))?;
    if tensor.dtype() != dtype {
        bail!("array {name} has type {:?}, expected {dtype:?}", tensor.dtype());
    }
    let (numbers, _) = tensor.data().as_chunks::<4>();
    Ok(numbers.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

fn check_rows(values: &[f32], rows: usize, vocab: usize, name: &str) -> anyhow::Result<()> {
    if values.len() != rows * vocab {
        bail!("array {name} has {} numbers, expected {rows} positions x {vocab} of vocabulary", values.len());
    }
    Ok(())
}

/// Fails for logits that are not finite. They cannot be compared, and are not a parity failure.
fn refuse_broken(prompt: usize, broken: Option<NotFinite>) -> Result<(), EngineError> {
    broken.map_or(Ok(()), |place| Err(EngineError::NotFinite { of: format!("prompt {prompt}"), place }))
}
