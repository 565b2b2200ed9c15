//! `glmbench index DIR`: one page over all runs of a folder.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::runs::ROOT;
use super::settings::LanguageArgs;
use super::tables::drawn;
use super::{emit, say};
use crate::report::history::{History, Reads, index};
use crate::text::one_line;

/// Make a page of all runs of a folder: how accuracy and speed went over time, and how the last run stands
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder of runs. Gets index.html, and tables and a cache in index/
    #[arg(value_name = "DIR", default_value = ROOT)]
    folder: PathBuf,
    #[command(flatten)]
    language: LanguageArgs,
}

/// Most broken folders to name; the page has all.
const NAMED: usize = 8;

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let begin = Instant::now();
    let LanguageArgs { language } = args.language;
    let History { page, headline, lines, reads, broken } = index(&args.folder, language)?;
    let news =
        crate::report::Table { rows: lines.rows.into_iter().filter(|row| row.strong).collect(), ..lines };
    let mut words = String::new();
    if !news.rows.is_empty() {
        words += &format!("{}\n{}\n\n", one_line(&news.title.in_language(language)), drawn(&news, language));
    }
    words += &headline.iter().map(|sentence| one_line(sentence).into_owned()).collect::<Vec<_>>().join("\n");
    emit(&words)?;
    for (folder, why) in broken.iter().take(NAMED) {
        say(&format!("glmbench: {folder} is left out: {why}"));
    }
    if broken.len() > NAMED {
        say(&format!(
            "glmbench: {} more folders cannot be read; index/runs.csv says why",
            broken.len() - NAMED
        ));
    }
    let Reads { cached, figures, records, broken } = reads;
    say(&format!(
        "glmbench: {} runs in {:.1} s: {cached} from the cache, {figures} by their history.json, {records} from their records, {broken} \
         not readable",
        cached + figures + records + broken,
        begin.elapsed().as_secs_f64()
    ));
    say(&format!("history: {}", page.display()));
    Ok(ExitCode::SUCCESS)
}
