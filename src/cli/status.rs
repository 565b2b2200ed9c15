//! `glmbench status`: how far the shards of a plan are.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::run::shard_status::PlanStatus;
use crate::text::one_line;

use super::{Exit, emit};

/// Show which shards of a plan are done, running, stopped or not begun, and how long they have to go
///
/// Reads the run directories only, from any machine that sees them. Exit code 0 if all shards are done, 3 if not.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench status reports/shards\n  watch -n 30 glmbench status reports/shards"
)]
pub struct Args {
    /// The folder of the shards' run directories
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let plans = PlanStatus::read(&args.folder)?;
    if plans.is_empty() {
        anyhow::bail!(
            "found no run of a shard in {}; expected the --out of `glmbench run --shard K/N`",
            args.folder.display()
        );
    }
    for line in plans.iter().flat_map(PlanStatus::words) {
        emit(&one_line(&line))?;
    }
    Ok(if plans.iter().all(PlanStatus::is_done) { Exit::Done } else { Exit::Incomplete }.into())
}
