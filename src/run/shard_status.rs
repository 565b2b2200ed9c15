//! How far the shards of a plan are: read from their run directories, also while they are written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::record::{FoundWriter, RecordError, RunDir, RunRecord, Status, numbers, runs_in};

use super::duration::in_words;

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
    /// Items done and planned.
    pub items: (u64, u64),
    /// Timed cases done and planned.
    pub cases: (usize, usize),
    /// Share of its work that is done, from 0 to 1.
    pub share: f64,
    /// Time that its process has measured so far, on the run's clock.
    pub spent: Duration,
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
        let planned_items: u64 = record.plan.accuracy.iter().map(|case| case.items).sum();
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
            items: (done.items, planned_items),
            cases: (done.cases.len(), planned_cases.len()),
            share,
            spent: Duration::from_nanos(done.until_ns),
        })
    }

    /// Returns how long the rest takes at the speed so far; `None` before anything is done.
    pub fn to_go(&self) -> Option<Duration> {
        if self.standing == Standing::Done {
            return Some(Duration::ZERO);
        }
        (self.share > 0.0).then(|| self.spent.mul_f64((1.0 - self.share) / self.share))
    }

    /// Describes it in one line.
    pub fn words(&self, count: u32) -> String {
        let mut words = format!("shard {} of {count}: {}", self.index, self.standing);
        for ((done, planned), unit) in
            [(self.items, "items"), ((self.cases.0 as u64, self.cases.1 as u64), "timed cases")]
        {
            if planned > 0 {
                words += &format!(", {done} of {planned} {unit}");
            }
        }
        match (self.standing, self.to_go()) {
            (Standing::Done, _) => {}
            (_, Some(left)) => words += &format!(", about {} to go", in_words(left.as_secs_f64())),
            (_, None) => words += ", time to go unknown",
        }
        format!("{words}; {}", self.who)
    }
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

impl PlanStatus {
    /// Reads the plans with shards under a folder.
    ///
    /// # Errors
    /// The folder cannot be read. Runs that cannot be read are passed over.
    pub fn read(folder: &Path) -> Result<Vec<Self>, RecordError> {
        let mut plans: BTreeMap<(String, String, u32), BTreeMap<u32, ShardStatus>> = BTreeMap::new();
        let paths =
            if folder.join("run.json").is_file() { vec![folder.to_owned()] } else { runs_in(folder)? };
        for path in paths {
            let Ok(record) = RunDir::open(&path).and_then(|dir| dir.read_run()) else { continue };
            let Some(shards) = &record.shards else { continue };
            let Some(index) = shards.single().map(|part| part.index) else { continue };
            // A run that is just being created may not be readable yet.
            let Ok(status) = ShardStatus::read(&path, &record, index) else { continue };
            let key = (record.provenance.suite.clone(), record.identity.hash().to_owned(), shards.count);
            let place = plans.entry(key).or_default();
            let rank = |of: &ShardStatus| (of.standing, 1.0 - of.share);
            match place.get(&index) {
                Some(known) if rank(known) <= rank(&status) => {}
                _ => drop(place.insert(index, status)),
            }
        }
        let of = |((suite, hash, count), shards): ((String, String, u32), BTreeMap<u32, ShardStatus>)| Self {
            name: format!("{suite} ({})", &hash[..hash.len().min(6)]),
            count,
            shards: shards.into_values().collect(),
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
        let running = self.shards.iter().filter(|shard| shard.standing == Standing::Running);
        if let Some(longest) = running.filter_map(ShardStatus::to_go).max() {
            first += &format!("; the running ones have about {} to go", in_words(longest.as_secs_f64()));
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
