//! `glmbench dataset`: converts original archives to the layout that suites read.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};

use anyhow::bail;

use crate::dataset::{Benchmark, catalogue, parquet, prepare};

use super::signals::{self, Watch};
use super::{emit, say};

/// Prepare data sets from their original archives
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Prepare(PrepareArgs),
    Manifest(ManifestArgs),
}

/// Unpack an original archive into its layout and check counts and hashes
///
/// Nothing is downloaded. `glmbench list datasets` says where to get the original of each set.
///
/// `parquet` as NAME rewrites Parquet files as JSONL for task files: a file, or all below a folder. Shards are joined.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  glmbench dataset prepare ceval ceval-exam.zip\n  \
    glmbench dataset prepare boolq dev.jsonl --out ~/data/boolq\n  \
    glmbench dataset prepare parquet ai2_arc --out ~/data/arc")]
struct PrepareArgs {
    /// Name in the catalogue, or `parquet`
    #[arg(value_name = "NAME")]
    name: String,
    /// The original: a zip archive, or the file itself if the set is one file. For `parquet`, a file or a folder
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// Folder to create [default: datasets/NAME, none for `parquet`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Accept files that differ from those in the catalogue. Every row is still checked
    #[arg(long)]
    any_revision: bool,
}

/// Print the catalogue's `files` block for a folder
#[derive(Debug, ClapArgs)]
struct ManifestArgs {
    /// The benchmark that the folder's layout belongs to
    #[arg(value_name = "BENCHMARK", value_parser = benchmark)]
    benchmark: &'static Benchmark,
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

fn benchmark(word: &str) -> Result<&'static Benchmark, String> {
    Benchmark::from_name(word).ok_or_else(|| format!("expected one of {}", Benchmark::names().join(", ")))
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Prepare(args) => prepare(args),
        Verb::Manifest(args) => {
            emit(catalogue::files_block(args.benchmark, &args.folder)?.trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn prepare(args: &PrepareArgs) -> anyhow::Result<ExitCode> {
    if args.name == "parquet" {
        return rewrite(args);
    }
    let entry = catalogue::find(&args.name)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from("datasets").join(&args.name));
    let _watch = Watch::new();
    let prepared = prepare::prepare(entry, &args.archive, &out, args.any_revision, &signals::asked)?;
    let counts: Vec<String> =
        prepared.items.iter().map(|(split, items)| format!("{split} {items}")).collect();
    emit(&format!("{}: {} items in {}", entry.name, counts.join(", "), prepared.root.display()))?;
    for difference in &prepared.differences {
        say(&format!("differs: {difference}"));
    }
    if !prepared.left_out.is_empty() {
        say(&format!("not part of the set, left in the archive: {}", prepared.left_out.join(", ")));
    }
    say(&format!("licence: {}", entry.licence));
    Ok(ExitCode::SUCCESS)
}

fn rewrite(args: &PrepareArgs) -> anyhow::Result<ExitCode> {
    let Some(out) = &args.out else { bail!("parquet has no folder of its own; give --out DIR") };
    if args.any_revision {
        bail!("--any-revision is for the sets of the catalogue; parquet has no revisions");
    }
    let _watch = Watch::new();
    let rewritten = parquet::rewrite(&args.archive, out, &signals::asked)?;
    for (name, rows) in &rewritten.rows {
        emit(&format!("{}: {rows} rows", rewritten.root.join(name).display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
