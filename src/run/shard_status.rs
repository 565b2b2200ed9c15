//! How far the shards of a plan are: read from their run directories, also while they are written.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::record::{Clock, FoundWriter, RecordError, RunDir, RunRecord, Status, numbers, runs_in};

use super::duration::in_words;
use super::resume::maker;

/// How a shard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// All of it is done.
    Done,
    /// A process beats.
    Running,
    /// Begun, and nobody writes.
    Stopped,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

/// How many of a kind are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Those that are done.
    pub done: u64,
    /// All of the plan.
    pub planned: u64,
}

/// A shard that has begun.
#[derive(Debug, Clone)]
pub struct ShardStatus {
    /// Its number.
    pub index: u32,
    /// Its run directory.
    pub path: PathBuf,
    /// How it stands.
    pub standing: Standing,
    /// Who writes or wrote it.
    pub who: String,
    /// Its items.
    pub items: Done,
    /// Its timed cases.
    pub cases: Done,
    /// Share of its work that is done, from 0 to 1.
    pub share: f64,
    /// How long the rest takes at the speed so far. `None` if items or timed cases are left and none of them is done, and on
    /// a virtual clock, by which nobody waits.
    pub left: Option<Duration>,
}

impl ShardStatus {
    fn read(path: &Path, record: &RunRecord, index: u32) -> Result<Self, RecordError> {
        let dir = RunDir::open(path)?;
        let writer = FoundWriter::read(path)?;
        let standing = match (&record.status, &writer) {
            (Status::Complete, _) => Standing::Done,
            (_, Some(found)) if !found.stale => Standing::Running,
            _ => Standing::Stopped,
        };
        let done = dir.progress(&record.plan)?;
        let planned_items: u64 =
            record.plan.accuracy.iter().fold(0, |sum, case| sum.saturating_add(case.items));
        let planned_cases = record.plan.timed_ids();
        let works: BTreeMap<&str, u64> = record
            .shards
            .iter()
            .flat_map(|shards| &shards.parts)
            .flat_map(|part| &part.cases)
            .map(|case| (case.id.as_str(), case.work))
            .collect();
        let work = |id: &str| works.get(id).copied().unwrap_or(0).max(1) as f64;
        let of_items = ratio(done.items as f64, planned_items as f64);
        let of_cases =
            ratio(done.cases.iter().map(|id| work(id)).sum(), planned_cases.iter().map(|id| work(id)).sum());
        let share = match (planned_items > 0, !planned_cases.is_empty()) {
            // Items run first; how long cases take beside them is not known.
            (true, true) => f64::midpoint(of_items, of_cases),
            (true, false) => of_items,
            (false, true) => of_cases,
            (false, false) => 1.0,
        };
        // Items by their number, timed cases by their work, each at the speed of its like.
        let open: f64 =
            planned_cases.iter().filter(|id| !done.cases.iter().any(|of| of == *id)).map(|id| work(id)).sum();
        let timed: f64 = done.timed.iter().map(|id| work(id)).sum();
        let items = Pace {
            open: planned_items.saturating_sub(done.items) as f64,
            done: done.items as f64,
            took_ns: done.items_ns,
        };
        let cases = Pace { open, done: timed, took_ns: done.cases_ns };
        let left = match standing {
            Standing::Done => Some(Duration::ZERO),
            _ => left(record.provenance.clock, items, cases),
        };
        let share = if standing == Standing::Done { 1.0 } else { share };
        let who = match &writer {
            Some(found) => found.words(),
            None => format!("host {}", record.provenance.host),
        };
        Ok(Self {
            index,
            path: path.to_owned(),
            standing,
            who,
            items: Done { done: done.items, planned: planned_items },
            cases: Done { done: done.cases.len() as u64, planned: planned_cases.len() as u64 },
            share,
            left,
        })
    }

    /// Describes it in one line.
    pub fn words(&self, count: u32) -> String {
        let mut words = format!("shard {} of {count}: {}", self.index, self.standing);
        for (Done { done, planned }, unit) in [(self.items, "items"), (self.cases, "timed cases")] {
            if planned > 0 {
                words += &format!(", {done} of {planned} {unit}");
            }
        }
        match (self.standing, self.left) {
            (Standing::Done, _) => {}
            (_, Some(left)) => words += &format!(", about {} to go", in_words(left.as_secs_f64())),
            (_, None) => words += ", time to go unknown",
        }
        format!("{words}; {}", self.who)
    }
}

/// How fast a kind of work goes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// What is left of it.
    open: f64,
    /// What is done of it.
    done: f64,
    /// The nanoseconds that this took.
    took_ns: u64,
}

/// Returns how long the rest takes; `None` if it cannot be known: nothing of a kind is done, or the clock is virtual.
fn left(clock: Clock, items: Pace, cases: Pace) -> Option<Duration> {
    let rest = |Pace { open, done, took_ns }: Pace| match (open > 0.0, done > 0.0) {
        (false, _) => Some(0.0),
        (true, true) => Some(took_ns as f64 * open / done),
        (true, false) => None,
    };
    let seconds = (rest(items)? + rest(cases)?) / 1e9;
    if clock == Clock::Measured { Duration::try_from_secs_f64(seconds).ok() } else { None }
}

fn ratio(done: f64, planned: f64) -> f64 {
    if planned > 0.0 { (done / planned).min(1.0) } else { 1.0 }
}

/// The shards of one plan.
#[derive(Debug, Clone)]
pub struct PlanStatus {
    /// Name of the suite, and the first digits of the identity.
    pub name: String,
    /// Number of shards.
    pub count: u32,
    /// The shards that have begun, by number; of several runs of a shard the one that is furthest.
    pub shards: Vec<ShardStatus>,
}

/// What tells plans apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    suite: String,
    /// Hash of the identity.
    hash: String,
    /// Number of shards.
    count: u32,
    /// [`maker`].
    maker: Vec<String>,
}

impl PlanStatus {
    /// Reads the plans with shards under a folder.
    ///
    /// # Errors
    /// The folder cannot be read, or the run of a shard is damaged. Other runs that cannot be read are skipped.
    pub fn read(folder: &Path) -> Result<Vec<Self>, RecordError> {
        let mut plans: BTreeMap<Key, BTreeMap<u32, ShardStatus>> = BTreeMap::new();
        let paths =
            if folder.join("run.json").is_file() { vec![folder.to_owned()] } else { runs_in(folder)? };
        for path in paths {
            // A run that was removed meanwhile.
            let Ok(dir) = RunDir::open(&path) else { continue };
            let record = match dir.read_sound_run() {
                Ok(record) => record,
                Err(error @ RecordError::Malformed { .. }) if dir.names_shards() => return Err(error),
                Err(_) => continue,
            };
            let Some(shards) = &record.shards else { continue };
            let Some(index) = shards.single().map(|part| part.index) else { continue };
            let status = match ShardStatus::read(&path, &record, index) {
                Ok(status) => status,
                // A pipe or a folder in a journal's place.
                Err(RecordError::Io { path, cause, action }) if cause.kind() == ErrorKind::InvalidInput => {
                    return Err(RecordError::Io { path, cause, action });
                }
                // A run that is just being created may not be readable yet.
                Err(_) => continue,
            };
            let key = Key {
                suite: record.provenance.suite.clone(),
                hash: record.identity.hash().to_owned(),
                count: shards.count,
                maker: maker(&record.provenance),
            };
            let place = plans.entry(key).or_default();
            let rank = |of: &ShardStatus| (of.standing, 1.0 - of.share);
            match place.get(&index) {
                Some(known) if rank(known) <= rank(&status) => {}
                _ => drop(place.insert(index, status)),
            }
        }
        // What made them is told only where it tells plans apart.
        let mut alike: BTreeMap<(String, String, u32), usize> = BTreeMap::new();
        for Key { suite, hash, count, .. } in plans.keys() {
            *alike.entry((suite.clone(), hash.clone(), *count)).or_default() += 1;
        }
        let of = |(Key { suite, hash, count, maker }, shards): (Key, BTreeMap<u32, ShardStatus>)| {
            let mut name = format!("{suite} ({})", &hash[..hash.len().min(6)]);
            if alike.get(&(suite, hash, count)).is_some_and(|plans| *plans > 1) {
                let facts: Vec<String> = maker.into_iter().filter(|fact| !fact.is_empty()).collect();
                name += &format!(" by {}", facts.join(", "));
            }
            Self { name, count, shards: shards.into_values().collect() }
        };
        Ok(plans.into_iter().map(of).collect())
    }

    /// Returns the numbers of the shards that have not begun.
    pub fn missing(&self) -> Vec<u32> {
        (1..=self.count).filter(|index| self.shards.iter().all(|shard| shard.index != *index)).collect()
    }

    /// Whether every shard is done.
    pub fn is_done(&self) -> bool {
        self.of(Standing::Done) == self.count as usize
    }

    fn of(&self, standing: Standing) -> usize {
        self.shards.iter().filter(|shard| shard.standing == standing).count()
    }

    /// Describes the plan in one line, and each shard that is not done in one more.
    pub fn words(&self) -> Vec<String> {
        let missing = self.missing();
        let mut first = format!(
            "{}: {} of {} shards done, {} running, {} stopped, {} not begun",
            self.name,
            self.of(Standing::Done),
            self.count,
            self.of(Standing::Running),
            self.of(Standing::Stopped),
            missing.len()
        );
        let running = || self.shards.iter().filter(|shard| shard.standing == Standing::Running);
        if let Some(longest) = running().filter_map(|shard| shard.left).max() {
            // Of some it is not known yet.
            let least = if running().all(|shard| shard.left.is_some()) { "" } else { "at least " };
            first +=
                &format!("; the running ones have {least}about {} to go", in_words(longest.as_secs_f64()));
        }
        let open = self.shards.iter().filter(|shard| shard.standing != Standing::Done);
        let mut lines = vec![first];
        lines.extend(open.map(|shard| format!("  {}", shard.words(self.count))));
        if !missing.is_empty() {
            lines.push(format!("  not begun: {}", numbers(&missing)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_go_is_of_a_real_clock() {
        let pace = |open, done, took_ns| Pace { open, done, took_ns };
        let (items, cases) = (pace(1.0, 3.0, 3_000_000_000), pace(9.0, 1.0, 10_000_000_000));
        assert_eq!(left(Clock::Measured, items, cases), Some(Duration::from_secs(91)));
        assert_eq!(left(Clock::Modelled, items, cases), None);
        // Items that are done do not tell how long cases take.
        assert_eq!(left(Clock::Measured, items, pace(9.0, 0.0, 0)), None);
        assert_eq!(left(Clock::Measured, pace(1.0, 0.0, 0), cases), None);
        assert_eq!(left(Clock::Measured, pace(0.0, 3.0, 5), pace(0.0, 0.0, 0)), Some(Duration::ZERO));
        let shard = ShardStatus {
            index: 1,
            path: PathBuf::new(),
            standing: Standing::Running,
            who: "somebody".into(),
            items: Done { done: 0, planned: 0 },
            cases: Done { done: 1, planned: 4 },
            share: 0.25,
            left: None,
        };
        assert!(shard.words(2).contains("time to go unknown"), "{}", shard.words(2));
    }
}
