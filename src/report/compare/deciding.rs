//! The command that would decide what a comparison leaves open.

use super::evidence::Basis;
use super::speed::SpeedVerdict;
use super::{Comparison, Pair, Side};
use crate::language::{Text, text};
use crate::record::{PerformanceCase, Provenance, RunRecord};
use crate::report::format::command_line;
use crate::stats::{blocks_needed, runs_needed};
use glmbench_device::KvForm;

/// Flags of `run` with a value that a configuration or the timing mode replaces.
const REPLACED: [&str; 10] = [
    "--configuration",
    "--only",
    "--device",
    "--dtype",
    "--kv",
    "--rope",
    "--threads",
    "--blocks",
    "--out",
    "--language",
];
/// The same for flags without a value.
const REPLACED_ALONE: [&str; 4] = ["--interleave", "--resume", "--retry-failed", "--dry-run"];

/// Says what would decide the phases of a pair without a verdict, with the command. `None` if all have one, or none
/// can ever have one.
pub(super) fn advice(comparison: &Comparison, pair: &Pair) -> Option<Text> {
    let phases = || pair.cases.iter().flat_map(|case| &case.phases);
    let count = |verdict: SpeedVerdict| phases().filter(|phase| phase.verdict == verdict).count();
    if let Some(few) = super::speed::too_few(pair, comparison.phases()) {
        return Some(text!("{few}: {command}", few, command = command(comparison, pair)));
    }
    if count(SpeedVerdict::NotInTurn) > 0 {
        let several =
            [comparison.base(), comparison.other(pair)].iter().any(|side| !side.further_runs.is_empty());
        let why = if several {
            text!(
                "Runs of one side that all come before those of the other are samples of two hours of the machine"
            )
        } else {
            text!("Two runs that were not timed in turn are two samples of the machine's hour")
        };
        return Some(text!("{why}; what decides: {command}", why, command = command(comparison, pair)));
    }
    let open = count(SpeedVerdict::CannotTell) + count(SpeedVerdict::Unstable);
    (open > 0).then(|| text!("What may decide the rest: {command}", command = command(comparison, pair)))
}

/// Returns the command that decides a pair: both in turn if one command can run both, else several runs of each.
/// Doubles the blocks if there were enough but they did not decide.
pub fn command(comparison: &Comparison, pair: &Pair) -> Text {
    let (a, b) = (comparison.base(), comparison.other(pair));
    let phases = comparison.phases();
    let blocks = pair.cases.iter().flat_map(|case| &case.phases).find_map(|phase| match phase.basis {
        Some(Basis::Blocks(n)) => Some(n),
        _ => None,
    });
    match in_turn(a, b) {
        Some(mut words) => {
            if let Some(had) = blocks {
                let needed = blocks_needed(phases);
                let more = if had < needed { needed } else { 2 * had };
                words.extend(["--blocks".to_owned(), more.to_string()]);
            }
            words.extend(out_folder(&a.run().provenance.command_line));
            format!("`{}`", command_line(&words)).into()
        }
        None => by_turns(a, b, runs_needed(phases)),
    }
}

/// Returns the command that times both in turn. `None` if no single command can: they differ in something no
/// configuration names, or in nothing recorded, such as two builds of the program.
fn in_turn(a: &Side, b: &Side) -> Option<Vec<String>> {
    let (run_a, run_b) = (a.run(), b.run());
    let same = |of: fn(&Provenance) -> &String| of(&run_a.provenance) == of(&run_b.provenance);
    let of_one_program = same(|p| &p.engine)
        && same(|p| &p.host)
        && run_a.provenance.git_commit == run_b.provenance.git_commit;
    let (mut words, other) = (stripped(&run_a.provenance)?, stripped(&run_b.provenance)?);
    if !of_one_program || words != other {
        return None;
    }
    words.push("--interleave".to_owned());
    let names = [run_a, run_b].map(suites_own_name);
    if let [Some(one), Some(two)] = &names {
        if one == two {
            return None;
        }
        words.extend(["--only", one, "--only", two].map(str::to_owned));
        return Some(words);
    }
    if super::evidence::interleaved(a, b) {
        // Keep the configurations as typed, because one may name a model.
        let mut words = without(&run_a.provenance.command_line, &["--blocks", "--out"], &REPLACED_ALONE);
        words.push("--interleave".to_owned());
        return Some(words);
    }
    let configurations = [run_a, run_b].map(configuration);
    if configurations[0] == configurations[1] {
        return None;
    }
    words.extend(configurations.into_iter().flat_map(|c| ["--configuration".to_owned(), c]));
    Some(words)
}

/// The `--out` flag and value of a command, if it had one.
fn out_folder(command_line: &[String]) -> Vec<String> {
    let at = command_line.iter().position(|word| word == "--out" || word.starts_with("--out="));
    let Some(at) = at else { return Vec::new() };
    let words = if command_line[at] == "--out" { 2 } else { 1 };
    command_line[at..].iter().take(words).cloned().collect()
}

/// A run's command line without the replaced flags. `None` if the command is not `run`.
fn stripped(from: &Provenance) -> Option<Vec<String>> {
    let is_run = from.command_line.get(1).is_some_and(|verb| verb == "run");
    is_run.then(|| without(&from.command_line, &REPLACED, &REPLACED_ALONE))
}

/// A command line of this program without some flags: `with_value` ones with their values, and `alone` ones.
fn without(command_line: &[String], with_value: &[&str], alone: &[&str]) -> Vec<String> {
    let mut words = vec!["glmbench".to_owned()];
    let mut given = command_line.iter().skip(1);
    while let Some(word) = given.next() {
        let flag = word.split_once('=').map_or(word.as_str(), |(flag, _)| flag);
        if with_value.contains(&flag) {
            if flag == word {
                given.next();
            }
        } else if !alone.contains(&flag) {
            words.push(word.clone());
        }
    }
    words
}

/// The run's command again, without some flags and their values.
pub fn same_command(run: &RunRecord, without_flags: &[&str]) -> String {
    let words = without(&run.provenance.command_line, without_flags, &["--resume", "--retry-failed"]);
    format!("`{}`", command_line(&words))
}

/// The name of a configuration defined in the suite.
fn suites_own_name(run: &RunRecord) -> Option<String> {
    let typed = run.provenance.command_line.iter().any(|word| word.starts_with("--configuration"));
    let group = run.provenance.group.as_ref().filter(|_| !typed)?;
    Some(group.configuration.clone())
}

/// The configuration of a run with a group, as typed. It may name a model, which no field of the run has.
fn as_typed(run: &RunRecord) -> Option<String> {
    let group = run.provenance.group.as_ref()?;
    let at = group.configurations.iter().position(|name| *name == group.configuration)?;
    let words = &run.provenance.command_line;
    let typed = words.iter().enumerate().filter_map(|(index, word)| match word.as_str() {
        "--configuration" => words.get(index + 1).cloned(),
        word => word.strip_prefix("--configuration=").map(str::to_owned),
    });
    typed.into_iter().nth(at)
}

/// A run's configuration in the syntax of the command line.
fn configuration(run: &RunRecord) -> String {
    let from = &run.provenance;
    let device = from.device.known();
    let mut words = match device {
        Some(device) => vec![format!("device={}", device.kind)],
        None => vec![format!("device={}", from.device)],
    };
    if device.is_some_and(|device| device.emulated) {
        words.push("emulate=true".to_owned());
    }
    match from.dtype.known() {
        Some(types) if types.kv != KvForm::Auto => {
            words.extend([format!("dtype={}", types.type_name()), format!("kv={}", types.kv.name())]);
        }
        _ => words.push(format!("dtype={}", from.dtype)),
    }
    if let Some(rope) = run.identity.fields().get("rope").filter(|rope| *rope != "model") {
        words.push(format!("rope={rope}"));
    }
    let ranks: Vec<u32> = run.plan.performance.iter().map(|case: &PerformanceCase| case.tp).collect();
    if let Some(&tp) = ranks.first().filter(|tp| **tp > 1 && ranks.iter().all(|other| other == *tp)) {
        words.push(format!("tp={tp}"));
    }
    if device.is_some_and(|device| device.kind.has_threads()) {
        words.push(format!("threads={}", from.threads));
    }
    words.join(",")
}

/// The run's command again. For a run that was timed in turn with another, only its own side.
fn alone(run: &RunRecord) -> String {
    let in_turns = run.provenance.group.as_ref().is_some_and(|group| group.blocks.is_some());
    let Some(mut words) = stripped(&run.provenance).filter(|_| in_turns) else {
        return same_command(run, &[]);
    };
    match suites_own_name(run) {
        Some(name) => words.extend(["--only".to_owned(), name]),
        None => {
            words.extend(["--configuration".to_owned(), as_typed(run).unwrap_or_else(|| configuration(run))]);
        }
    }
    words.extend(out_folder(&run.provenance.command_line));
    format!("`{}`", command_line(&words))
}

/// Several runs of each, in turn.
fn by_turns(a: &Side, b: &Side, runs: usize) -> Text {
    let (first, second) = (alone(a.run()), alone(b.run()));
    let what = if first == second {
        text!("{first} with either program in turn, {runs} times each", first, runs)
    } else {
        text!("{first} and {second} in turn, {runs} times each", first, second, runs)
    };
    text!("{what}, then `glmbench compare A1 … A{runs} -- B1 … B{runs}`", what, runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn flags_that_a_configuration_stands_for_are_taken_out() {
        let mut run = fixture::run();
        run.provenance.command_line = words(
            "target/glmbench run s.toml --dtype=bf16 --limit 5 --threads 1 --resume --retry-failed --out here --set a=b --only x",
        );
        assert_eq!(stripped(&run.provenance).unwrap(), words("glmbench run s.toml --limit 5 --set a=b"));
        run.provenance.command_line = words("glmbench score r");
        assert_eq!(stripped(&run.provenance), None);
    }

    #[test]
    fn a_side_that_was_timed_in_turns_is_run_alone() {
        let mut run = fixture::run();
        run.provenance.command_line = words(
            "glmbench run s.toml --interleave --configuration rope=exact --configuration model=m,rope=model --blocks 8 --out=x",
        );
        assert_eq!(out_folder(&run.provenance.command_line), ["--out=x"]);
        run.provenance.group = Some(crate::record::Group {
            id: "g".into(),
            suite: "s".into(),
            configuration: "model=m,rope=model".into(),
            configurations: vec!["rope=exact".into(), "model=m,rope=model".into()],
            blocks: Some(8),
        });
        assert_eq!(alone(&run), "`glmbench run s.toml --configuration model=m,rope=model --out=x`");
        run.provenance.group = None;
        run.provenance.command_line = words("glmbench run s.toml --out x --resume");
        assert_eq!(alone(&run), "`glmbench run s.toml --out x`");
        assert_eq!(out_folder(&run.provenance.command_line), ["--out", "x"]);
    }

    #[test]
    fn a_configuration_is_written_as_it_is_typed() {
        let mut run = fixture::run();
        assert_eq!(configuration(&run), "device=cpu,dtype=fp16,threads=2");
        run.provenance.dtype = "w8a8-dynamic+kv-int8".into();
        run.provenance.device = "300i-duo (emulated)".into();
        run.plan.performance.iter_mut().for_each(|case| case.tp = 2);
        assert_eq!(configuration(&run), "device=300i-duo,emulate=true,dtype=w8a8-dynamic,kv=int8,tp=2");
    }
}
