//! `glmbench merge`: puts the runs of shards together.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::record::{Status, merge};
use crate::report::render;
use crate::text::one_line;

use super::settings::LanguageArgs;
use super::{Exit, command_line, emit, report, say};

/// Items up to which the report is made at once. It holds all of them in memory, which merging does not.
const MOST_REPORTED: u64 = 200_000;

/// Merge the runs of shards into one run, as if one machine had run the whole plan
///
/// Refuses runs of another suite, data, weights, plan, program or device, and shards that are missing, incomplete or changed.
/// Two runs of a shard count as one if they have no difference. Exit code 3 if --partial left something out.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  glmbench merge reports/whole reports/shards\n  \
    glmbench merge reports/part --partial reports/shards/*-3of16 reports/shards/*-4of16")]
pub struct Args {
    /// The directory of the merged run, which is created
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Runs of `glmbench run --shard`, or folders of them
    #[arg(value_name = "SHARD", required = true)]
    shards: Vec<PathBuf>,
    /// Merge what is there, even if shards are missing or incomplete
    #[arg(long)]
    partial: bool,
    /// The language
    #[command(flatten)]
    language: LanguageArgs,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let merged = merge(&args.out, &args.shards, args.partial, command_line())?;
    for note in &merged.notes {
        say(&format!("glmbench: {}", one_line(note)));
    }
    let words = merged.record.part_words().unwrap_or_default();
    say(&format!("{words}: {} items in {}", merged.items, merged.path.display()));
    if merged.items > MOST_REPORTED {
        emit(&format!("{}: {words}", merged.record.run_id))?;
        say(&format!(
            "no report was made, because it needs memory for all items; `glmbench report {}` makes it",
            merged.path.display()
        ));
        let whole = merged.record.status == Status::Complete;
        return Ok(if whole { Exit::Done } else { Exit::Incomplete }.into());
    }
    let LanguageArgs { language } = args.language;
    let summary = render(&merged.path, language)?;
    report::show(&summary, &merged.path, language)?;
    Ok(report::exit_code(summary.verdict()).into())
}
