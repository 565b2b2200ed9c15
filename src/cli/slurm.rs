//! `glmbench slurm`: prints the script that runs a suite's shards as a Slurm array and merges them.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;

use crate::record::MOST_SHARDS;
use crate::run::shard::Shard;

use super::{emit, run};

/// Print a script that submits a suite's shards as a Slurm array and their merge as a job after it; submits nothing
///
/// A task that is stopped before its end, by the time limit or by preemption, is requeued and goes on where it was. Flags of
/// `glmbench run` follow after `--`.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench slurm suites/ceval.toml --shards 16 --partition npu --time 04:00:00 \
    -- --model /data/chatglm2-6b > job.sh\n  bash job.sh            submits it\n  TASKS=3,7 bash job.sh  submits shards 3 and 7 again"
)]
pub struct Args {
    /// The suite file
    #[arg(value_name = "SUITE.toml")]
    suite: PathBuf,
    /// Number of shards, which are the tasks of the array
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_SHARDS)))]
    shards: u32,
    /// The partition
    #[arg(long, value_name = "NAME", value_parser = plain)]
    partition: Option<String>,
    /// Time limit of a task, as Slurm writes it
    #[arg(long, value_name = "TIME", default_value = "08:00:00", value_parser = plain)]
    time: String,
    /// Most tasks at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    at_once: Option<u32>,
    /// Another option of sbatch for the array, such as --sbatch=--gres=npu:1
    #[arg(long, value_name = "OPTION", value_parser = plain)]
    sbatch: Vec<String>,
    /// Most times that a stopped task is requeued
    #[arg(long, value_name = "N", default_value_t = 10)]
    requeues: u32,
    /// Seconds before the time limit at which a task is told to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(10..=65_535))]
    margin: u32,
    /// Folder for the shards' run directories, on a file system that all nodes see
    #[arg(long, value_name = "DIR", default_value = "reports/shards")]
    out: PathBuf,
    /// The directory of the merged run
    #[arg(long, value_name = "DIR", default_value = "reports/merged")]
    merged: PathBuf,
    /// Flags of `glmbench run`
    #[arg(last = true, value_name = "FLAG")]
    flags: Vec<String>,
}

/// Flags that the script sets itself.
const OWN: [&str; 4] = ["--shard", "--out", "--resume", "--dry-run"];

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let is_own = |flag: &&String| OWN.contains(&flag.split('=').next().unwrap_or_default());
    if let Some(flag) = args.flags.iter().find(is_own) {
        bail!("{flag} after `--`: the script sets it itself; leave it out");
    }
    // What one task refuses, every task would.
    let first = Shard::new(1, args.shards).map_err(anyhow::Error::msg)?;
    run::check_shard(&args.suite, &args.flags, first)?;
    emit(script(args)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a word that goes into a `#SBATCH` line.
fn plain(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-:/=,+@%[]()".contains(c);
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("expected letters, digits and ._-:/=,+@%[]() only".into());
    }
    Ok(text.to_owned())
}

/// Quotes a word for a POSIX shell.
fn quoted(word: &str) -> anyhow::Result<String> {
    if word.chars().any(char::is_control) {
        bail!(
            "{word:?} has a line break or another control character, which a job script cannot hold; expected one line"
        );
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/=,+@%:".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return Ok(word.to_owned());
    }
    Ok(format!("'{}'", word.replace('\'', r"'\''")))
}

fn quoted_path(path: &std::path::Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    // A path that begins with a dash would be taken for a flag.
    quoted(&if text.starts_with('-') { format!("./{text}") } else { text.to_owned() })
}

fn script(args: &Args) -> anyhow::Result<String> {
    let count = args.shards;
    let suite = quoted_path(&args.suite)?;
    let (out, merged) = (quoted_path(&args.out)?, quoted_path(&args.merged)?);
    let flags = args
        .flags
        .iter()
        .map(|flag| Ok(format!(" {}", quoted(flag)?)))
        .collect::<anyhow::Result<String>>()?;
    let partition =
        args.partition.iter().map(|name| format!("#SBATCH --partition={name}\n")).collect::<String>();
    let extra = args.sbatch.iter().map(|option| format!("#SBATCH {option}\n")).collect::<String>();
    let at_once = args.at_once.map_or_else(String::new, |most| format!("%{most}"));
    let (time, margin, requeues) = (&args.time, args.margin, args.requeues);
    Ok(format!(
        r#"#!/bin/bash
# Submits {count} shards of a suite as a Slurm array, and a job that merges them afterwards.
#   bash THIS            submits both        TASKS=3,7 bash THIS   submits these shards again
# GLMBENCH is the program; all nodes must see it, the suite and the folders under the same paths.
set -eu
out={out}
mkdir -p "$out"
# In --output, Slurm replaces what follows a %.
array=$(sbatch --parsable --array="${{TASKS:-1-{count}{at_once}}}" --output="${{out//%/%%}}/task-%A_%a.log" <<'ARRAY'
#!/bin/bash
#SBATCH --job-name=glmbench
{partition}#SBATCH --time={time}
#SBATCH --signal=B:TERM@{margin}
#SBATCH --requeue
#SBATCH --open-mode=append
{extra}# The shell gets the signal before the time limit and passes it on: the program stops after its step with exit code 3.
"${{GLMBENCH:-glmbench}}" run {suite} --shard "$SLURM_ARRAY_TASK_ID/{count}" --resume --out {out}{flags} &
pid=$!
trap 'kill -TERM "$pid" 2>/dev/null' TERM
wait "$pid"
code=$?
# A signal ends `wait` before the program ends.
while kill -0 "$pid" 2>/dev/null; do
  wait "$pid"
  code=$?
done
# 3: stopped; 143: told to stop before there was anything to keep.
if [ "$code" -eq 3 ] || [ "$code" -eq 143 ]; then
  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ]; then
    echo "stopped with exit code $code; requeued (${{SLURM_RESTART_COUNT:-0}} of {requeues} times so far)"
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID" && sleep 60
    exit "$code"
  fi
  echo "stopped with exit code $code and requeued {requeues} times already; TASKS=$SLURM_ARRAY_TASK_ID goes on with it"
  # Not 3: a RequeueExit=3 of the cluster knows no limit.
  exit 1
fi
exit "$code"
ARRAY
)
array=${{array%%;*}}
# afterany: a task that failed once and succeeded when requeued would end afterok for good. The merge checks for itself.
merge=$(sbatch --parsable --dependency="afterany:$array" --output="${{out//%/%%}}/merge-%j.log" <<'MERGE'
#!/bin/bash
#SBATCH --job-name=glmbench-merge
{partition}#SBATCH --time=01:00:00
#SBATCH --open-mode=append
exec "${{GLMBENCH:-glmbench}}" merge {merged} {out}
MERGE
)
echo "array $array, merge ${{merge%%;*}}; glmbench status $out shows how far they are"
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(words: &[&str]) -> Result<Args, clap::Error> {
        Line::try_parse_from([&["slurm"], words].concat()).map(|line| line.args)
    }

    #[test]
    fn the_script_is_as_reviewed() {
        let words = [
            "it's a suite.toml",
            "--shards",
            "16",
            "--partition",
            "npu",
            "--time",
            "04:00:00",
            "--at-once",
            "4",
            "--sbatch=--gres=npu:1",
            "--",
            "--model",
            "/data/chat glm",
            "--set",
            "accuracy.0.limit=10",
        ];
        insta::assert_snapshot!("job.sh", script(&parsed(&words).unwrap()).unwrap());
    }

    #[test]
    fn words_cannot_end_their_line_or_quote() {
        for bad in [
            &["s.toml", "--shards", "0"][..],
            &["s.toml", "--shards", "2", "--partition", "a\nb"],
            &["s.toml", "--shards", "2", "--time", "1; rm"],
            &["s.toml", "--shards", "2", "--sbatch", "$(x)"],
        ] {
            assert!(parsed(bad).is_err(), "{bad:?}");
        }
        let broken = parsed(&["s.toml", "--shards", "2", "--", "a\nARRAY\n"]).unwrap();
        assert!(script(&broken).unwrap_err().to_string().contains("line break"));
        for control in ["a\tb", "\u{1b}[2J", "a\u{7f}", "a\u{85}b"] {
            assert!(quoted(control).is_err(), "{control:?}");
        }
        assert_eq!(quoted("a'b $c").unwrap(), r"'a'\''b $c'");
        assert_eq!(quoted_path(std::path::Path::new("-x")).unwrap(), "./-x");
    }
}
