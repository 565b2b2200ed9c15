//! `glmbench calibrate`: fits a chip profile to published speeds, or to runs on a card.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use comfy_table::{ContentArrangement, Table, presets};

use glmbench_ascend::profile::{Mark, Profile};
use glmbench_ascend::{Chip, Pricer};
use glmbench_calibrate::cases::held;
use glmbench_calibrate::counted::Machine;
use glmbench_calibrate::families::FAMILIES;
use glmbench_calibrate::fit::{Case, fit, leave_one_out};
use glmbench_calibrate::measured::{Timed, cases, free};
use glmbench_calibrate::published::{self, Phase};
use glmbench_calibrate::residuals::{fits, residuals, summaries, write};
use glmbench_calibrate::text::{Figure, calibrated, rounded};
use glmbench_device::DType;
use glmbench_engine::load::ModelPath;

use crate::record::{Clock, Contents, PerfRow, Phase as TimedPhase, RunDir, RunRecord, Status, write_whole};
use crate::report::perf_rows;

use super::runs::find_run;
use super::{emit, say};

/// Fit a chip profile of the virtual clock to runs on a card, or to published speeds
///
/// With --measured, the runs' prefill and decode times are held against the same shapes on the emulated card. The profile's free
/// figures are fitted to them, and marked as calibrated with the number of rows, the error on shapes left out of the fit, and the
/// hashes of the runs. suites/calibrate-card.toml has shapes that identify every free figure. With --published, the shipped
/// profiles are fitted to the published speeds in this program.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench run suites/calibrate-card.toml --model chatglm2-6b --device 300i-duo\n  \
        glmbench calibrate --profile 300i-duo --measured 20261123T02 --out mine.toml\n  \
        glmbench run suites/performance.toml --model dummy:chatglm2-6b --device 300i-duo --emulate --profile mine.toml\n  \
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
    /// Runs on a card: directories, or the beginnings of their names in reports/
    #[arg(long, value_name = "RUN", num_args = 1.., required_unless_present = "published")]
    measured: Vec<PathBuf>,
    /// Fit the shipped profiles to the published speeds
    #[arg(long, conflicts_with = "measured")]
    published: bool,
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
        from_published(args.out.as_deref())?;
    } else {
        from_runs(args)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn from_published(out: Option<&Path>) -> anyhow::Result<()> {
    let pricer = Pricer::new()?;
    let held = held(published::rows()?)?;
    let fits = fits(&pricer, &held)?;
    let rows = residuals(&pricer, &held, &fits)?;
    let mut figures = table(&["profile", "figure", "value", "rows", "error on models left out"]);
    for (family, fit) in FAMILIES.iter().zip(&fits) {
        for (base, name) in family.profiles.iter().enumerate() {
            for Figure { key, value, rows, error, .. } in fit.figures(base) {
                figures.add_row([
                    (*name).to_owned(),
                    key,
                    value.to_string(),
                    rows.to_string(),
                    percent(error),
                ]);
            }
        }
    }
    let heads = ["rows of", "n", "before: mean [range]", "after: mean [range]", "left out: rms", "worst"];
    let mut ratios = table(&heads);
    for group in summaries(&rows) {
        let spread = |(mean, least, most): (f64, f64, f64)| format!("{mean:.2} [{least:.2} to {most:.2}]");
        let (rms, worst) = group.left_out.unzip();
        ratios.add_row([
            group.of,
            group.rows.to_string(),
            spread(group.before),
            spread(group.after),
            rms.map(percent).unwrap_or_default(),
            worst.map(percent).unwrap_or_default(),
        ]);
    }
    emit(&format!("{figures}\n\nModelled over published time:\n\n{ratios}"))?;
    if let Some(folder) = out {
        write(folder, &rows, &fits)?;
        say(&format!("written: {0}/calibration/residuals.csv, {0}/profiles/", folder.display()));
    }
    Ok(())
}

/// A fitted value this close to an end of its range stands at it.
const AT_END: f64 = 1e-3;
/// Above this error, a profile does not describe the runs that it is fitted to.
const MOST_RMS: f64 = 0.5;

/// A run with its timed rows, and the beginning of the hash of its lines.
struct Measured {
    run: RunRecord,
    rows: Vec<PerfRow>,
    hash: String,
}

impl Measured {
    fn read(word: &Path) -> anyhow::Result<Self> {
        let path = find_run(word)?;
        let dir = RunDir::open(&path)?;
        let Contents { run, requests, audit, .. } = Contents::read(&dir)?;
        if let Some(faults) = audit.words() {
            bail!("{}: not what the plan says: {faults}; a fit needs an unchanged run", run.run_id);
        }
        if run.status != Status::Complete {
            bail!(
                "{}: incomplete; a fit needs a complete run; glmbench run --resume goes on with it",
                run.run_id
            );
        }
        if run.provenance.clock == Clock::Modelled {
            bail!(
                "{}: its times are modelled by {}; a fit needs measured runs: those on a card",
                run.run_id,
                run.provenance.clock_profile.as_deref().unwrap_or("a chip profile")
            );
        }
        let rows = perf_rows(&run, &requests);
        // A complete run without a seal is old.
        let seal = run.seal.clone().map_or_else(|| dir.seal(), Ok)?;
        let Some(lines) = seal.get("requests.jsonl") else {
            bail!("{}: expected a run with timed shapes; suites/calibrate-card.toml has them", run.run_id);
        };
        let hash = lines.sha256.chars().take(16).collect();
        Ok(Self { run, rows, hash })
    }

    /// Returns the machine that the run was made on.
    fn machine(&self, profile: &Profile, model: Option<&Path>) -> anyhow::Result<Machine> {
        let from = &self.run.provenance;
        let Some(chip) = from.device.known().and_then(|device| Chip::of(device.kind)) else {
            bail!("{}: run on {}; expected a run on 300i-duo or 800i-a2", self.run.run_id, from.device);
        };
        let prefix = if chip == Chip::Duo300i { "Ascend310P" } else { "Ascend910B" };
        if !profile.soc.starts_with(prefix) {
            bail!(
                "--profile {}: of {}; the run {} is of {}",
                profile.name,
                profile.soc,
                self.run.run_id,
                from.device
            );
        }
        let word = model.map_or_else(|| from.model.clone().into(), |path| path.as_os_str().to_owned());
        let path = ModelPath::parse(&word);
        let config = match path {
            ModelPath::Folder(_) if model.is_none() => ModelPath::DummyChatglm2.config(None)?,
            path => path.config(None)?,
        };
        let shape = config.shape();
        if let Some(own) = from.model_details.get("shape").filter(|own| **own != shape) {
            bail!("{}: its model has {own}, not {shape}; give it with --model", self.run.run_id);
        }
        let dtype = from.dtype.known().map_or(DType::Fp16, |precision| precision.dtype);
        Ok(Machine { config, dtype, chip, chips: 1, profile: profile.name.clone() })
    }

    fn timed(&self) -> Vec<Timed> {
        let of = |row: &PerfRow| {
            let median = row.median_ns.filter(|_| row.valid == Some(true))? as f64;
            let steps = f64::from(row.output_tokens.saturating_sub(1).max(1));
            let (phase, ns) = match row.phase {
                TimedPhase::Prefill => (Phase::Prefill, median),
                TimedPhase::Decode => (Phase::Decode, median / steps),
                TimedPhase::E2e => return None,
            };
            let (batch, chips) = (row.batch as usize, row.tp as usize);
            let (input_tokens, output_tokens) = (row.input_tokens as usize, row.output_tokens as usize);
            Some(Timed { phase, chips, batch, input_tokens, output_tokens, ns })
        };
        self.rows.iter().filter_map(of).collect()
    }

    /// Whether decode steps ran as graphs.
    fn ran_graphs(&self) -> bool {
        self.run.provenance.device_details.get("graph").is_some_and(|word| word != "off")
    }
}

fn from_runs(args: &Args) -> anyhow::Result<()> {
    if let Some(path) = args.out.as_deref().filter(|path| path.symlink_metadata().is_ok()) {
        bail!("--out {}: is there already; give another path", path.display());
    }
    let word = args.profile.as_deref().unwrap_or(Path::new("300i-duo"));
    let profile =
        if word.exists() { Profile::from_file(word)? } else { Profile::builtin(&word.to_string_lossy())? };
    let base = Profile::builtin(if profile.soc == "Ascend310P3" { "300i-duo" } else { "800i-a2" })?;
    let pricer = Pricer::new()?;
    let (mut all, mut hashes): (Vec<Case>, Vec<String>) = (Vec::new(), Vec::new());
    for word in &args.measured {
        let measured = Measured::read(word)?;
        // Work does not depend on the profile; the built-in one of the card is at hand by name.
        let machine = measured.machine(&profile, args.model.as_deref())?;
        let machine = Machine { profile: base.name.clone(), ..machine };
        all.extend(cases(&pricer, &machine, &measured.timed(), measured.ran_graphs())?);
        hashes.push(measured.hash);
    }
    let free = free(&all);
    if all.len() <= free.len() {
        bail!(
            "the runs have {} timed phases; expected more than the {} figures to fit; run suites/calibrate-card.toml",
            all.len(),
            free.len()
        );
    }
    let cases: Vec<&Case> = all.iter().collect();
    let bases = [profile.settings_lines()];
    let fitted = fit(&pricer, &bases, &free, &cases)?;
    let left_out = leave_one_out(&pricer, &bases, &free, &cases)?;
    let square = left_out.iter().map(|log| log * log).sum::<f64>() / left_out.len().max(1) as f64;
    let (error, rows) = (square.sqrt(), all.len());
    let source = format!("fitted by glmbench calibrate to {rows} times of runs {}", hashes.join(", "));
    let figures: Vec<Figure> = free
        .iter()
        .zip(&fitted.values)
        .map(|(free, value)| Figure {
            key: free.key.into(),
            value: *value,
            rows,
            error,
            source: source.clone(),
        })
        .collect();
    let mut shown = table(&["figure", "before", "fitted"]);
    for figure in &figures {
        let before = profile.value(&figure.key).unwrap_or_default();
        shown.add_row([figure.key.clone(), before.to_string(), rounded(figure.value).to_string()]);
    }
    let mut residuals = table(&["shape", "phase", "measured ms", "modelled ms", "ratio", "left out"]);
    for (case, left_out) in all.iter().zip(&left_out) {
        let ratio = case.residual(&pricer, &fitted.settings)?.exp();
        let ms = case.measured_ns / 1e6;
        residuals.add_row([
            case.model.clone(),
            case.phase.name().to_owned(),
            format!("{ms:.3}"),
            format!("{:.3}", ms * ratio),
            format!("{ratio:.3}"),
            format!("{:.3}", left_out.exp()),
        ]);
    }
    emit(&format!(
        "{shown}\n\nrms {}, {} on shapes left out of the fit\n\n{residuals}",
        percent(fitted.rms),
        percent(error)
    ))?;
    for (free, value) in free.iter().zip(&fitted.values) {
        let (least, most) = free.range;
        if *value <= least * (1.0 + AT_END) || *value >= most * (1.0 - AT_END) {
            say(&format!(
                "glmbench: warning: {} = {} stands at an end of its range, {least} to {most}: the runs do not tell it, or are not \
                 of this card",
                free.key,
                rounded(*value)
            ));
        }
    }
    if fitted.rms > MOST_RMS {
        say(&format!(
            "glmbench: warning: rms {} after the fit: the profile does not describe these runs",
            percent(fitted.rms)
        ));
    }
    if let Some(path) = &args.out {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let text = calibrated(&profile.text, name.as_deref(), &figures);
        let written = Profile::parse(&text, &path.display().to_string())
            .context("the fitted profile; nothing is written")?;
        // A fit takes long enough for another to write the file.
        if path.symlink_metadata().is_ok() {
            bail!("--out {}: is there by now; give another path", path.display());
        }
        write_whole(path, text.as_bytes())?;
        let marked = written.entries.iter().filter(|entry| entry.mark == Mark::Calibrated).count();
        say(&format!("written: {}, {marked} calibrated figures", path.display()));
    }
    Ok(())
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
