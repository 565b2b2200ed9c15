//! `glmbench convert`: pickled weights into safetensors.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use indicatif::DecimalBytes;

use glmbench_engine::weights::convert::Plan;

use super::progress;
use super::signals::{self, Watch};

/// Convert a checkpoint's pickled .bin files to safetensors
///
/// Reads pytorch_model.bin, or the shards that pytorch_model.bin.index.json lists. The pickle in them is not executed. Writes
/// model.safetensors into the folder OUT, or the same number of shards with model.safetensors.index.json. Copies the
/// configuration and tokenizer files. OUT appears complete, by one rename, or stays as it was: absent or empty.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with the .bin files
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// New or empty folder for the safetensors files
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

/// Converts the checkpoint, shows progress, and prints a summary.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let plan = Plan::read(&args.dir)?;
    let (tensors, bytes) = (plan.tensor_count(), plan.bytes());
    let bar = progress::bar("convert", progress::BYTES);
    bar.set_length(bytes);
    let _watch = Watch::new();
    let written = plan.write_until(&args.out, &mut |copied| bar.inc(copied), &signals::asked);
    bar.finish_and_clear();
    let written = written?;
    super::say(&format!(
        "{}: {} files written; {tensors} tensors, {} in {:.1} s",
        args.out.display(),
        written.len(),
        DecimalBytes(bytes),
        start.elapsed().as_secs_f64(),
    ));
    Ok(ExitCode::SUCCESS)
}
