//! `glmbench calibrate`: fits a chip profile to published speeds, or to runs on a card.

mod bundles;
mod card;
mod published;
mod runs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use comfy_table::{ContentArrangement, Table, presets};

/// Fit a chip profile of the virtual clock to runs on a card, or to published speeds
///
/// With --measured, the runs' prefill and decode times are held against the same shapes on the emulated card. The profile's
/// free figures are fitted to them. They are marked as calibrated with the number of rows, the error on shapes left out of the
/// fit, and the hashes of the runs. The profile states that error, and reports of runs with it show it.
/// suites/calibrate-card.toml has shapes that
/// identify every free figure. A bundle of npu-selftest has times of single operators and collectives, which are held against the
/// emulator likewise. With --published, the shipped profiles are fitted to the published speeds in this program, and held against
/// them.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench run suites/calibrate-card.toml --model chatglm2-6b --device 300i-duo\n  \
        glmbench calibrate --profile 300i-duo --measured 20261123T02 --out mine.toml\n  \
        glmbench run suites/performance.toml --model dummy:chatglm2-6b --device 300i-duo --emulate --profile mine.toml\n  \
        glmbench calibrate --profile 800i-a2 --measured bundle.zip\n  \
        glmbench calibrate --published --rows\n  \
        glmbench calibrate --published --out crates/ascend-emulator"
)]
pub struct Args {
    /// The profile to start from: a built-in one by name, or a file
    #[arg(
        long,
        value_name = "NAME|FILE",
        required_unless_present = "published",
        conflicts_with = "published"
    )]
    profile: Option<PathBuf>,
    /// Runs on a card: directories, or the beginnings of their names in reports/. Bundles of npu-selftest: files that end in .zip
    #[arg(long, value_name = "RUN|FILE.zip", num_args = 1.., required_unless_present = "published")]
    measured: Vec<PathBuf>,
    /// Take modelled times as a card's, to try the fit without a card. The profile says so
    #[arg(long, requires = "measured")]
    rehearsal: bool,
    /// Fit the shipped profiles to the published speeds
    #[arg(long, conflicts_with = "measured")]
    published: bool,
    /// Also print the ratio of every published row, before and after, and why others are not timed
    #[arg(long, requires = "published")]
    rows: bool,
    /// The runs' model, for its shape: a folder, or `dummy:…` [default: the run's own word, else ChatGLM2-6B]
    #[arg(long, value_name = "DIR|dummy:…")]
    model: Option<PathBuf>,
    /// The file for the fitted profile; with --published, the folder for `profiles/` and `calibration/residuals.csv`
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.published {
        published::fit_published(args.out.as_deref(), args.rows)?;
    } else {
        card::fit_card(args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn table(heads: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heads);
    table
}
