//! `glmbench convert`: pickled weights into safetensors.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

use crate::engine::weights::convert::Plan;

/// Turn a checkpoint's pickled .bin files into safetensors.
///
/// Reads pytorch_model.bin, or the shards of pytorch_model.bin.index.json, without executing the pickle in them, and
/// makes the folder OUT with model.safetensors, or as many shards with model.safetensors.index.json. Config and tokenizer
/// files are copied. OUT appears whole, by one rename, or stays as it was: absent or empty.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder with the .bin files
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// New or empty folder for the safetensors files
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

/// Converts, with a progress bar on a terminal's stderr and the result in a sentence.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let plan = Plan::read(&args.dir)?;
    let (tensors, bytes) = (plan.tensor_count(), plan.bytes());
    let bar = progress_bar(bytes);
    let written = plan.write(&args.out, &mut |copied| bar.inc(copied));
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

fn progress_bar(bytes: u64) -> ProgressBar {
    let template =
        "{msg:<12} {bar:32} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec} (left {eta})";
    let style = ProgressStyle::with_template(template).expect("invariant: the template is well formed");
    ProgressBar::new(bytes).with_style(style.progress_chars("━━╌")).with_message("convert")
}
