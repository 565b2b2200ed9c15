//! `glmbench compare`: compares runs, with verdicts, gates and a report.

use crate::language::{Language, Text, text};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use serde::Serialize;

use crate::gate;
use crate::record::Noise;
use crate::report::compare::{ComparisonRow, GateOutcome, Judgement, NoiseFloors, Options, compare};
use crate::report::{ComparisonSummary, folder_name, write_comparison};
use crate::suite::gates::Gates;
use crate::text::one_line;

use super::gates::{deciding, exit, gate_sentence, write_junit};
use super::runs::{ROOT, find_run};
use super::settings::LanguageArgs;
use super::tables::titled;
use super::{emit, json_text, say};

/// Compare runs: paired accuracy, speed verdicts, gates, and a report
///
/// The first run is the base. Every other run is compared with it. Runs with different identities (weights, data, protocol, type)
/// are refused without --allow-mismatch.
///
/// A case is called faster or slower on one of three grounds. The two runs were timed in turn (`run --interleave`). Or there
/// are several runs on each side of `--`. Or the difference exceeds a noise floor between runs.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  glmbench compare 20261123T02 20261124T02\n  \
    glmbench compare A1 A2 A3 A4 -- B1 B2 B3 B4                      between-run variance\n  \
    glmbench compare reports/A reports/B --gate gates.toml --junit gates.xml\n\n\
    Exit codes: 0 done and every gate passed, 1 a gate failed, 2 usage or input error, 3 a run is incomplete,\n            \
    4 a run is invalid, or a gate is undecided")]
pub struct Args {
    /// Run directories, or the beginnings of their names in reports/. The first is the base
    #[arg(value_name = "RUN", num_args = 1.., required = true)]
    runs: Vec<PathBuf>,
    /// Runs of the other side. All runs before `--` then belong to the base. Tables show the first run of each side, tests use all
    #[arg(value_name = "RUN", last = true)]
    other: Vec<PathBuf>,
    /// File of limits that the runs must meet. `suites/gates/example.toml` shows every kind
    #[arg(long, value_name = "GATES.toml")]
    gate: Option<PathBuf>,
    /// Write the gates' outcomes as JUnit XML
    #[arg(long, value_name = "FILE", requires = "gate")]
    junit: Option<PathBuf>,
    /// Compare runs with different identities. The report begins with the fields that differ
    #[arg(long)]
    allow_mismatch: bool,
    /// Smallest change of a time that is reported as a change [default: 3%]
    #[arg(long, value_name = "SHARE", value_parser = percentage)]
    threshold: Option<f64>,
    /// Noise floor, the difference between equal runs on this machine: a file of `glmbench doctor --noise --out`, or a share such
    /// as 5%. Runs that were not timed in turn get a verdict if their difference exceeds it
    #[arg(long, value_name = "SHARE|FILE")]
    noise_floor: Option<OsString>,
    /// Difference of accuracies below which runs may be called the same
    #[arg(long, value_name = "SHARE", value_parser = percentage, default_value = "1%")]
    accuracy_margin: f64,
    /// Folder for the comparison's files [default: reports/NOW-compare-A-B]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The language
    #[command(flatten)]
    language: LanguageArgs,
}

/// Parses `3%` or `0.03`.
fn percentage(word: &str) -> Result<f64, String> {
    let (digits, scale) = match word.trim().strip_suffix('%') {
        Some(digits) => (digits.trim_end(), 0.01),
        None => (word.trim(), 1.0),
    };
    let value = digits.parse::<f64>().ok().map(|value| value * scale);
    value
        .filter(|value| *value > 0.0 && *value < 1.0)
        .ok_or_else(|| format!("found \"{word}\"; expected a share between 0 and 100 %, such as 3%"))
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(flag) = args.other.iter().find(|word| word.as_os_str().as_encoded_bytes().starts_with(b"--"))
    {
        bail!(
            "found the flag {} after `--`; expected runs of the other side. Put flags before `--`",
            flag.display()
        );
    }
    let gates = args.gate.as_deref().map(Gates::load).transpose()?;
    let options = Options {
        allow_mismatch: args.allow_mismatch,
        threshold: args.threshold,
        noise: args.noise_floor.as_deref().map(noise_floors).transpose()?.unwrap_or_default(),
        accuracy_margin: args.accuracy_margin,
        out: args.out.clone(),
        language: args.language.language,
        ..Options::default()
    };
    let find =
        |words: &[PathBuf]| words.iter().map(|word| find_run(word)).collect::<anyhow::Result<Vec<_>>>();
    let (runs, other) = (find(&args.runs)?, find(&args.other)?);
    let (paths, options) = match (runs.split_first(), other.split_first()) {
        (Some((a, more_a)), Some((b, more_b))) => {
            let further_runs = vec![more_a.to_vec(), more_b.to_vec()];
            (vec![a.clone(), b.clone()], Options { further_runs, ..options })
        }
        _ => (runs, options),
    };
    let comparison = compare(&paths, &options)?;
    for side in &comparison.sides {
        if let Some(faults) = side.summary.record_faults() {
            say(&format!("glmbench: run {} is {faults}", side.summary.run.run_id));
        }
    }
    let judgements = match &gates {
        Some(gates) => gate::judge(gates, &comparison)?,
        None => Vec::new(),
    };
    let folder =
        args.out.clone().unwrap_or_else(|| Path::new(ROOT).join(folder_name(SystemTime::now(), &comparison)));
    let summary = write_comparison(&comparison, &judgements, &folder)?;
    if let (Some(path), Some(gates)) = (&args.junit, &gates) {
        write_junit(path, gates, &judgements)?;
    }
    let decision = gates.as_ref().map_or(GateOutcome::Pass, |gates| gate::decision(gates, &judgements));
    let text = if args.json {
        json(&summary, &judgements, decision)?
    } else {
        words(&summary, &judgements, args.language.language)
    };
    show(&summary, &text)?;
    Ok(exit(decision, summary.verdict).into())
}

/// Prints `text` and the path of the page. Files and exit code are the result, even if nobody reads the tables.
pub(super) fn show(summary: &ComparisonSummary, text: &str) -> io::Result<()> {
    match emit(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => {}
    }
    say(&format!("report: {}", summary.folder.join("report.html").display()));
    Ok(())
}

/// Parses a share for every phase, or reads a file of `doctor --noise --out` with a floor for each phase.
fn noise_floors(word: &OsStr) -> anyhow::Result<NoiseFloors> {
    if let Some(Ok(share)) = word.to_str().map(percentage) {
        return Ok(NoiseFloors::every(share));
    }
    let shown = word.display();
    let expected = || {
        format!(
            "--noise-floor {shown}: expected a file of `glmbench doctor --noise --out`, or a share such as 5%"
        )
    };
    let noise = Noise::read(Path::new(word)).with_context(expected)?;
    NoiseFloors::of_machine(noise).map_err(|why| anyhow::anyhow!("{shown} {why}; {}", expected()))
}

/// Formats the answer, the tables, the findings and the gates. The answer stands first and again last, where a terminal's reader
/// looks.
pub(super) fn words(summary: &ComparisonSummary, judgements: &[Judgement], language: Language) -> String {
    let say_line = |text: &Text| one_line(&text.in_language(language)).into_owned();
    let mut lines = Vec::new();
    if !summary.mismatches.is_empty() {
        lines.push(say_line(&text!("The runs have different identities. These fields differ:")));
        lines.extend(summary.mismatches.iter().map(|line| format!("  {}", say_line(line))));
        lines.push(String::new());
    }
    lines.extend(summary.headline.first().map(|answer| format!("{}\n", say_line(answer))));
    lines.extend(summary.tables.iter().map(|table| format!("{}\n", titled(table, language))));
    lines.extend(summary.headline.iter().map(say_line));
    lines.push(say_line(&text!(
        "A measured time counts as changed beyond {threshold}.",
        threshold = summary.threshold
    )));
    if !judgements.is_empty() {
        lines.push(gate_sentence(judgements).in_language(language));
        lines.extend(deciding(judgements, language));
    }
    lines.join("\n")
}

/// The output of `--json`.
#[derive(Serialize)]
struct Printed<'a> {
    schema: u32,
    folder: String,
    headline: &'a [Text],
    identity_differences: &'a [Text],
    rows: &'a [ComparisonRow],
    gates: &'a [Judgement],
    gates_pass: bool,
}

fn json(
    summary: &ComparisonSummary,
    judgements: &[Judgement],
    decision: GateOutcome,
) -> serde_json::Result<String> {
    json_text(&Printed {
        schema: 1,
        folder: summary.folder.display().to_string(),
        headline: &summary.headline,
        identity_differences: &summary.mismatches,
        rows: &summary.rows,
        gates: judgements,
        gates_pass: decision == GateOutcome::Pass,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{NoiseFloor, Phase};

    #[test]
    fn shares_are_read_with_and_without_their_sign() {
        for (word, share) in [("3%", 0.03), ("0.05", 0.05), (" 1.5 % ", 0.015)] {
            assert!((percentage(word).unwrap() - share).abs() < 1e-15);
        }
        for word in ["3", "0", "-1%", "nan", "100%", "x"] {
            assert!(percentage(word).is_err(), "{word}");
        }
    }

    #[test]
    fn a_noise_floor_is_a_share_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.json");
        let word = path.as_os_str();
        assert_eq!(noise_floors("2%".as_ref()).unwrap(), NoiseFloors::every(0.02));
        assert!(noise_floors(word).unwrap_err().to_string().contains("a share such as 5%"));
        let floor = |runs| NoiseFloor {
            case_id: "b1-i8-o8".into(),
            phase: Phase::Decode,
            runs,
            spread: (runs > 0).then_some(0.01),
            median_ns: Some(1),
            floor: 0.02,
        };
        let mut noise = Noise {
            engine: String::new(),
            host: String::new(),
            cpu_model: String::new(),
            device: "cpu".into(),
            kernel: String::new(),
            dtype: "fp16".into(),
            threads: 1,
            model: "demo".into(),
            made: String::new(),
            floors: vec![floor(8)],
        };
        noise.write(&path).unwrap();
        assert_eq!(noise_floors(word).unwrap(), NoiseFloors::of_machine(noise.clone()).unwrap());
        assert_eq!(Options::default().threshold_words(), "3.0 %");
        // A floor from within one process says nothing about two runs.
        noise.floors = vec![floor(0)];
        noise.write(&path).unwrap();
        assert!(noise_floors(word).unwrap_err().to_string().contains("no noise floor between runs"));
    }
}
