//! Reads one run of a comparison.

use crate::language::{Text, ToText, joined, text};
use crate::record::{Clock, RequestRecord, RunDir, RunRecord, SampleRecord};
use crate::report::reading::Reading;
use crate::report::workloads::{self, Workloads};
use crate::report::{ReportError, Summary};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A run of a comparison.
#[derive(Debug)]
pub struct Side {
    /// `A` for the base, then `B`, `C`…
    pub letter: char,
    /// The run directory.
    pub path: PathBuf,
    /// The run with its rows and checks.
    pub summary: Summary,
    /// The repetitions.
    pub requests: Vec<RequestRecord>,
    /// Its timed cases, by workload.
    pub(crate) workloads: Workloads,
    /// Name beside the letter: what distinguishes the run from the others.
    pub name: Text,
    /// Further runs of the same thing. They show how much equal runs differ.
    pub further_runs: Vec<FurtherRun>,
}

/// A further run of a side.
#[derive(Debug)]
pub struct FurtherRun {
    /// The run directory.
    pub path: PathBuf,
    /// The run with its rows and checks.
    pub summary: Summary,
    /// The repetitions.
    pub requests: Vec<RequestRecord>,
}

impl Side {
    /// The run's record.
    pub fn run(&self) -> &RunRecord {
        &self.summary.run
    }

    /// The clock of its times.
    pub fn clock(&self) -> Clock {
        self.run().provenance.clock
    }

    /// Whether its clock is virtual.
    pub fn is_modelled(&self) -> bool {
        self.clock() == Clock::Modelled
    }

    /// Letter and name, marked if its times are modelled.
    pub fn label(&self) -> Text {
        if self.is_modelled() {
            text!("{letter} {name}, modelled", letter = self.letter, name = self.name)
        } else {
            text!("{letter} {name}", letter = self.letter, name = self.name)
        }
    }

    /// What it has to compare, for messages.
    pub fn contents(&self) -> String {
        let plan = &self.run().plan;
        let tasks: Vec<&str> = plan.accuracy.iter().map(|case| case.task.as_str()).collect();
        let tasks = if tasks.is_empty() { "no task".to_owned() } else { tasks.join(", ") };
        // The first workload is named even if there is no such case.
        let timed = workloads::counts(self.run()).into_iter().enumerate();
        let timed = timed.filter(|(index, (count, _))| *index == 0 || *count > 0);
        let timed = timed.map(|(_, (count, [one, several]))| {
            format!("{count} {}", if count == 1 { one } else { several })
        });
        std::iter::once(tasks).chain(timed).collect::<Vec<_>>().join(" and ")
    }
}

/// Reads all runs, one thread each, because a hundred thousand lines take a while.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<(Vec<Side>, Vec<Vec<SampleRecord>>), ReportError> {
    let read: Vec<Result<_, ReportError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = paths.iter().map(|path| scope.spawn(|| read(path))).collect();
        threads.into_iter().map(|thread| thread.join().expect("invariant: reading does not panic")).collect()
    });
    let read: Vec<_> = read.into_iter().collect::<Result<_, _>>()?;
    let names = names(&read.iter().map(|read| &read.summary.run).collect::<Vec<_>>());
    let (mut sides, mut all_samples) = (Vec::new(), Vec::new());
    for ((Reading { summary, samples, requests, workloads }, path), (index, name)) in
        read.into_iter().zip(paths).zip(names.into_iter().enumerate())
    {
        let letter = char::from(b'A' + (index % 26) as u8);
        sides.push(Side {
            letter,
            path: path.clone(),
            summary,
            requests,
            workloads,
            name,
            further_runs: Vec::new(),
        });
        all_samples.push(samples);
    }
    Ok((sides, all_samples))
}

impl FurtherRun {
    /// Reads a further run of a side.
    pub(super) fn read(path: &Path) -> Result<Self, ReportError> {
        let Reading { summary, requests, .. } = read(path)?;
        Ok(Self { path: path.to_owned(), summary, requests })
    }
}

pub(super) fn read(path: &Path) -> Result<Reading, ReportError> {
    Reading::of(&RunDir::open(path)?)
}

/// Returns a name for each run. Runs of one command: their configurations, if these are distinct. Other runs: the
/// device, followed by whatever else distinguishes some of them.
fn names(runs: &[&RunRecord]) -> Vec<Text> {
    if let Some(names) = configuration_names(runs) {
        return names;
    }
    type Part = fn(&RunRecord) -> Text;
    const WHEN: Part = |run| run.provenance.started.to_text();
    let first: Part = |run| run.provenance.device.to_text();
    let more: [Part; 6] = [
        |run| run.provenance.dtype.to_text(),
        |run| run.provenance.model.to_text(),
        |run| format!("tp {}", run.provenance.tp).into(),
        |run| text!("{threads} threads", threads = run.provenance.threads),
        |run| run.provenance.engine.to_text(),
        |run| run.provenance.kernel.to_text(),
    ];
    let varies = |part: &Part| runs.windows(2).any(|pair| part(pair[0]) != part(pair[1]));
    let mut telling: Vec<&Part> = more.iter().filter(|part| varies(part)).collect();
    if telling.is_empty() && !varies(&first) {
        telling.push(&WHEN);
    }
    let name = |run: &&RunRecord| {
        let mut words = vec![first(run)];
        words.extend(telling.iter().map(|part| part(run)).filter(|word| !word.is_empty()));
        words.dedup();
        joined(words, " ")
    };
    runs.iter().map(name).collect()
}

/// Returns the configurations' names. A typed one (`device=cpu,dtype=fp16`) loses the words that all runs share.
/// `None` if a run has no configuration or two names are equal.
fn configuration_names(runs: &[&RunRecord]) -> Option<Vec<Text>> {
    let words: Vec<Vec<&str>> = runs
        .iter()
        .map(|run| Some(run.provenance.group.as_ref()?.configuration.split(',').collect()))
        .collect::<Option<_>>()?;
    let everywhere = |word: &&str| words.iter().all(|of_run| of_run.contains(word));
    let short = |word: &str| match word.split_once('=') {
        Some(("device" | "dtype", value)) => value.into(),
        Some(("threads", "1")) => text!("1 thread"),
        Some(("threads", value)) => text!("{threads} threads", threads = value),
        Some((key, value)) => format!("{key} {value}").into(),
        None => word.into(),
    };
    let name = |of_run: &Vec<&str>| {
        let own = of_run.iter().filter(|word| !everywhere(word));
        joined(own.map(|word| short(word)), " ")
    };
    let names: Vec<Text> = words.iter().map(name).collect();
    let distinct: BTreeSet<String> =
        names.iter().filter(|name| !name.is_empty()).map(ToString::to_string).collect();
    (distinct.len() == names.len()).then_some(names)
}
