//! Merges the items of accuracy cases in the plan's order, one line at a time.

use super::super::accuracy::{AccuracyCase, ItemsHasher};
use super::super::identity::hex;
use super::super::run::JournalSeal;
use super::super::sum::{LINE, Sum};
use super::super::{RecordError, RunDir};
use super::gather::Source;
use super::{MergeError, Output};
use crate::bounded;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;

/// Largest line.
const MAX_LINE_BYTES: u64 = 1 << 28;

/// What was merged.
pub(super) struct Read {
    /// Number of items.
    pub(super) items: u64,
    /// Numbers of the shards with damaged lines, or with lines that end early.
    pub(super) torn: BTreeSet<u32>,
}

/// The fields of a line that say which item it is of.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    task: Cow<'a, str>,
    #[serde(borrow)]
    doc_id: Cow<'a, str>,
    #[serde(borrow, default)]
    doc_hash: Cow<'a, str>,
    #[serde(borrow, default)]
    prompt_hash: Cow<'a, str>,
}

/// A journal of a shard, read line by line.
struct Lines {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// Hash of all bytes so far. `None` if the shard has no seal to compare with; then each line's own sum counts.
    digest: Option<Sha256>,
    count: u64,
    line: Vec<u8>,
}

impl Lines {
    fn open(source: &Source, name: &str) -> Result<Self, RecordError> {
        let path = source.file(name);
        let file = match bounded::open(&path) {
            Ok(file) => Some(BufReader::with_capacity(1 << 16, file)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(RecordError::io("read", &path)(e)),
        };
        let digest = source.is_complete().then(Sha256::new);
        Ok(Self { path, file, digest, count: 0, line: Vec::new() })
    }

    /// Reads the next whole line. Returns `false` at the end, and at a line that is torn or damaged.
    fn advance(&mut self) -> Result<bool, RecordError> {
        let Some(file) = &mut self.file else { return Ok(false) };
        bounded::line(file, &mut self.line, MAX_LINE_BYTES).map_err(RecordError::io("read", &self.path))?;
        if !self.line.ends_with(b"\n") {
            return Ok(false);
        }
        match &mut self.digest {
            Some(digest) => digest.update(&self.line),
            None if LINE.check(&self.line) != Sum::Right => return Ok(false),
            None => {}
        }
        self.count += 1;
        Ok(true)
    }

    fn head(&self) -> Result<Head<'_>, RecordError> {
        serde_json::from_slice(&self.line).map_err(|error| RecordError::Malformed {
            path: self.path.clone(),
            line: self.count as usize,
            message: error.to_string(),
        })
    }
}

/// The journals of a shard, and its place in them.
struct Reader<'a> {
    source: &'a Source,
    samples: Lines,
    prompts: Lines,
    ended: bool,
}

impl Reader<'_> {
    fn out_of_place(&self, task: &str, found: &str) -> MergeError {
        self.source.refused(&format!(
            "samples.jsonl:{}: {found} was found, an item of task {task} was expected; the same --shard with --resume mends it",
            self.samples.count
        ))
    }

    /// Copies the next item, with its prompts. Returns `false` if the shard has no more.
    fn copy(
        &mut self,
        task: &str,
        hasher: &mut ItemsHasher,
        to: &mut [Output; 2],
    ) -> Result<bool, MergeError> {
        if self.ended || !self.samples.advance()? {
            self.ended = true;
            return Ok(false);
        }
        let head = self.samples.head()?;
        if head.task != task {
            let found = format!("item {} of task {}", head.doc_id, head.task);
            return Err(self.out_of_place(task, &found));
        }
        // Prompts stand before their sample, so a sample without them is not whole.
        let was_asked = !head.prompt_hash.is_empty();
        if was_asked {
            let has_own = self.prompts.advance()? && {
                let prompts = self.prompts.head()?;
                prompts.task == head.task && prompts.doc_id == head.doc_id
            };
            if !has_own && self.source.is_complete() {
                return Err(self.source.refused(&format!(
                    "prompts.jsonl has no prompts of item {} of task {task} at its place; the same --shard with --resume mends it",
                    head.doc_id
                )));
            }
            if !has_own {
                self.ended = true;
                return Ok(false);
            }
        }
        hasher.add(&head.doc_id, &head.doc_hash);
        to[0].append(&self.samples.line)?;
        if was_asked {
            to[1].append(&self.prompts.line)?;
        }
        Ok(true)
    }

    /// Checks that nothing is left, and that the journals are as they were sealed.
    fn finish(mut self) -> Result<(), MergeError> {
        let taken = self.samples.count;
        let left = |reader: &Self| {
            reader.source.refused(&format!(
                "samples.jsonl:{}: found an item that no task of the plan asks for; a run.json is damaged",
                taken + 1
            ))
        };
        if !self.source.is_complete() {
            return if !self.ended && self.samples.advance()? { Err(left(&self)) } else { Ok(()) };
        }
        let mut count = 0;
        for (lines, name) in [(&mut self.samples, "samples.jsonl"), (&mut self.prompts, "prompts.jsonl")] {
            while lines.advance()? {}
            let digest = lines.digest.take().map(|digest| hex(&digest.finalize())).unwrap_or_default();
            let found = lines.file.as_ref().map(|_| (lines.count, digest.as_str()));
            self.source.check_seal(name, found)?;
            count = count.max(if name == "samples.jsonl" { lines.count } else { 0 });
        }
        if count > taken { Err(left(&self)) } else { Ok(()) }
    }
}

/// Merges `samples.jsonl` and `prompts.jsonl`. Sets the items of each case to those that are there, and removes cases
/// without items from an incomplete result. `order` has the numbers of ranks in the order in which they run.
pub(super) fn merge(
    dir: &RunDir,
    cases: &mut Vec<AccuracyCase>,
    order: &[u32],
    sources: &[Source],
    partial: bool,
    seal: &mut BTreeMap<String, JournalSeal>,
) -> Result<Read, MergeError> {
    let mut to = [Output::create(&dir.file("samples.jsonl"))?, Output::create(&dir.file("prompts.jsonl"))?];
    let mut readers = Vec::new();
    for source in sources {
        let (samples, prompts) =
            (Lines::open(source, "samples.jsonl")?, Lines::open(source, "prompts.jsonl")?);
        readers.push(Reader { source, samples, prompts, ended: false });
    }
    let (mut items, mut torn) = (0, BTreeSet::new());
    for tp in order {
        for case in cases.iter_mut().filter(|case| case.tp == *tp) {
            let owners = owners(case, sources, partial)?;
            let (mut hasher, mut there) = (ItemsHasher::default(), 0);
            for Owner { source, .. } in owners {
                let Some(reader) = readers.get_mut(usize::from(source)) else { continue };
                if reader.copy(&case.task, &mut hasher, &mut to)? {
                    there += 1;
                } else if reader.source.is_complete() {
                    return Err(reader
                        .source
                        .refused(&format!("it has too few items of task {}", case.task)));
                } else {
                    torn.insert(reader.source.index);
                }
            }
            let hash = hasher.finish();
            if there == case.items && case.items_hash.as_ref().is_some_and(|planned| *planned != hash) {
                return Err(MergeError::Refused(format!(
                    "the items of task {} are not those of the plan, or stand in another order",
                    case.task
                )));
            }
            items += there;
            (case.items, case.items_hash) = (there, Some(hash));
        }
    }
    if partial {
        cases.retain(|case| case.items > 0);
    }
    readers.into_iter().try_for_each(Reader::finish)?;
    for (output, name) in to.into_iter().zip(["samples.jsonl", "prompts.jsonl"]) {
        seal.insert(name.to_owned(), output.finish()?);
    }
    Ok(Read { items, torn })
}

/// Whose an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    /// The item's place in the plan's order.
    place: usize,
    /// The index in the sources of its shard.
    source: u16,
}

/// Returns the owners of items in the plan's order. Items of shards that are not there are left out. The list is no longer
/// than the shards' own lists, whatever number of items a plan claims.
fn owners(case: &AccuracyCase, sources: &[Source], partial: bool) -> Result<Vec<Owner>, MergeError> {
    let mut owners = Vec::new();
    for (shard, source) in sources.iter().zip(0_u16..) {
        let Some(places) = shard.part().items.get(&case.task) else { continue };
        let places = places.read(case.items).map_err(|why| shard.refused(&format!("run.json: {why}")))?;
        owners.extend(places.into_iter().map(|place| Owner { place, source }));
    }
    owners.sort_unstable();
    let twice = owners.windows(2).find(|pair| pair[0].place == pair[1].place);
    if let Some([first, second]) = twice {
        return Err(sources[usize::from(second.source)].refused(&format!(
            "run.json: item {} of task {} is of shard {}, too",
            first.place,
            case.task,
            sources[usize::from(first.source)].index
        )));
    }
    if !partial && owners.len() as u64 != case.items {
        let gap =
            owners.iter().zip(0..).find(|(owner, at)| owner.place != *at).map_or(owners.len(), |(_, at)| at);
        return Err(MergeError::Refused(format!(
            "item {gap} of task {} is of no shard; a run.json is damaged",
            case.task
        )));
    }
    Ok(owners)
}
