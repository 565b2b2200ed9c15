//! `glmbench bench` and `glmbench eval`: runs without a suite file. Both write the suite that they stand for, and run it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;

use crate::dataset::Benchmark;
use crate::suite::Suite;
use crate::task;

use super::run::{self, Flags};
use super::{command_line, emit};

/// Time prompts and generation without a suite file
///
/// The flags are those of llama-bench. Every batch is timed with every prompt length and every number of generated tokens.
#[derive(Debug, ClapArgs)]
#[command(
    mut_arg("tp", |arg| arg.long("every-tp").hide(true)),
    after_help = "Examples:\n  glmbench bench -b 1,8 -p 512 -n 128\n  \
        glmbench bench -b 1,8 -p 512 -n 128 --tp 1,2 --model dummy:chatglm2-6b --device 300i-duo --emulate\n  \
        glmbench bench -p 128,1024 --print-suite > mine.toml"
)]
pub struct BenchArgs {
    /// Batch sizes
    #[arg(short, long, value_name = "N,…", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Vec<u32>,
    /// Prompt tokens of each sequence
    #[arg(short = 'p', long = "prompt", value_name = "N,…", value_delimiter = ',', default_value = "512", value_parser = clap::value_parser!(u32).range(1..))]
    prompt: Vec<u32>,
    /// Tokens to generate for each sequence
    #[arg(short = 'n', long = "generate", value_name = "N,…", value_delimiter = ',', default_value = "128", value_parser = clap::value_parser!(u32).range(1..))]
    generate: Vec<u32>,
    /// Timed repetitions
    #[arg(short, long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Tensor-parallel ranks
    #[arg(id = "ranks", long = "tp", value_name = "N,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=64))]
    ranks: Vec<u32>,
    /// Print the suite that these flags stand for, and run nothing. Model, device and the like stay flags of `run`
    #[arg(long)]
    print_suite: bool,
    /// The flags of `run`
    #[command(flatten)]
    flags: Flags,
}

/// Score a model on a benchmark without a suite file
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:\n  glmbench eval ceval --model chatglm2-6b --data data/ceval\n  \
    glmbench eval boolq --protocol modeltest --limit 100\n  \
    glmbench eval ceval --print-suite > mine.toml")]
pub struct EvalArgs {
    /// The benchmark; `glmbench list tasks` shows all
    #[arg(value_name = "TASK", value_parser = benchmark)]
    task: &'static Benchmark,
    /// How to ask and to judge; `glmbench list protocols` shows all [default: the benchmark's first]
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// Folder of the data set [default: datasets/TASK]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Demonstrations in each prompt [default: the protocol's number]
    #[arg(long, value_name = "N")]
    shots: Option<u32>,
    /// Print the suite that these flags stand for, and run nothing. Model, device and the like stay flags of `run`
    #[arg(long)]
    print_suite: bool,
    /// The flags of `run`
    #[command(flatten)]
    flags: Flags,
}

/// Reads the name of a benchmark.
fn benchmark(word: &str) -> Result<&'static Benchmark, String> {
    let of_file = if Path::new(word).extension().is_some_and(|extension| extension == "toml") {
        ", or a suite that names this task file"
    } else {
        ""
    };
    let known = || format!("found \"{word}\"; expected one of {}{of_file}", Benchmark::names().join(", "));
    Benchmark::from_name(word).ok_or_else(known)
}

/// Runs `bench`.
pub fn run_bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    finish("bench", &args.suite(), args.print_suite, &args.flags)
}

/// Runs `eval`.
pub fn run_eval(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    finish("eval", &args.suite(), args.print_suite, &args.flags)
}

/// Prints the suite or runs it.
fn finish(verb: &str, suite: &str, print: bool, flags: &Flags) -> anyhow::Result<ExitCode> {
    if print {
        let words = command_line();
        let words = words.iter().skip(1).filter(|word| *word != "--print-suite").cloned().collect::<Vec<_>>();
        emit(&format!("# glmbench {}\n{}", crate::report::format::command_line(&words), suite.trim_end()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = format!("the suite of glmbench {verb}");
    run::run_suite(Suite::parse(Path::new(&path), suite, &flags.set)?, flags)
}

impl BenchArgs {
    /// The suite as text.
    fn suite(&self) -> String {
        let lengths =
            self.prompt.iter().flat_map(|p| self.generate.iter().map(move |n| format!("[{p}, {n}]")));
        let lengths = lengths.collect::<Vec<_>>().join(", ");
        let tp = if self.ranks.is_empty() { String::new() } else { format!("tp = {:?}\n", self.ranks) };
        format!(
            "schema = 1\nname = \"bench\"\nabout = \"Prefill and decode speed by batch and lengths.\"\n\n[[performance]]\n\
             batch = {:?}\nlengths = [{lengths}]\n{tp}repetitions = {}\n",
            self.batch, self.repetitions
        )
    }
}

impl EvalArgs {
    /// The suite as text.
    fn suite(&self) -> String {
        let name = self.task.name;
        let first =
            || task::protocols_of(self.task).next().map(|protocol| protocol.definition().name.to_owned());
        let protocol = self.protocol.clone().or_else(first).unwrap_or_default();
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let mut text = format!(
            "schema = 1\nname = \"eval-{name}\"\nabout = \"Accuracy on {}.\"\n\n[[accuracy]]\ntask = \"{name}\"\nprotocol = {}\n",
            self.task.title,
            quoted(&protocol)
        );
        if let Some(folder) = &self.data {
            text += &format!("dataset = {}\n", quoted(&folder.display().to_string()));
        }
        if let Some(shots) = self.shots {
            text += &format!("shots = {shots}\n");
        }
        if let Some(limit) = self.flags.limit {
            text += &format!("limit = {limit}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    enum Verbs {
        Bench(Box<BenchArgs>),
        Eval(Box<EvalArgs>),
    }

    fn suite(words: &str) -> String {
        match Verbs::try_parse_from(format!("glmbench {words}").split(' ')).unwrap() {
            Verbs::Bench(args) => args.suite(),
            Verbs::Eval(args) => args.suite(),
        }
    }

    #[test]
    fn flags_stand_for_a_suite() {
        let text = suite("bench -b 1,8 -p 512,1024 -n 128 --tp 1,2 -r 3");
        let read = Suite::parse(Path::new("s"), &text, &[]).unwrap();
        assert_eq!((read.name.as_str(), read.performance.len()), ("bench", 1));
        assert!(text.contains("lengths = [[512, 128], [1024, 128]]\ntp = [1, 2]\nrepetitions = 3"), "{text}");
        let text = suite("eval ceval --data a\"b --shots 0 --protocol modeltest-0shot");
        let read = Suite::parse(Path::new("s"), &text, &[]).unwrap();
        assert_eq!((read.name.as_str(), read.accuracy[0].protocol), ("eval-ceval", "modeltest-0shot"));
        assert_eq!(Suite::parse(Path::new("s"), &suite("eval boolq"), &[]).unwrap().accuracy.len(), 1);
        for wrong in ["bench -b 0", "bench -p x", "eval arithmetic", "bench --tp 65"] {
            assert!(Verbs::try_parse_from(format!("glmbench {wrong}").split(' ')).is_err(), "{wrong}");
        }
    }
}
