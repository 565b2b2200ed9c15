//! Selects the items of a data set to put to the model, and their demonstrations.

use std::collections::{BTreeMap, VecDeque};

use glmbench_engine::sampler::RandomSampling;

use super::{Protocol, TaskError};
use crate::dataset::{Dataset, Item, Source, Subject, sha256_hex};
use crate::stats::Rng;

/// Answers that are drawn at random instead of the likeliest one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draws {
    /// Number of answers to each item.
    pub samples: usize,
    /// Divisor of the logits; above 0.
    pub temperature: f32,
    /// Keeps the most likely tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Seed from which each answer has its own.
    pub seed: u64,
}

impl Draws {
    /// Returns how answer number `sample` to an item is drawn. Its seed depends on the item's name and the number alone, so that
    /// batches and shards do not change it.
    pub(super) fn sampling(self, doc_id: &str, sample: usize) -> RandomSampling {
        let name = sha256_hex(format!("{}/{doc_id}/{sample}", self.seed).as_bytes());
        let seed = u64::from_str_radix(&name[..16], 16).expect("invariant: a hash is hexadecimal");
        RandomSampling {
            temperature: self.temperature,
            top_k: 0,
            top_p: self.top_p,
            repetition_penalty: 1.0,
            seed,
        }
    }
}

/// The settings of an accuracy case that determine prompts and scores.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Settings {
    /// The split.
    pub split: String,
    /// Restricts the plan to these subjects; all if empty.
    pub subjects: Vec<String>,
    /// Number of demonstrations. `None` is the protocol's default.
    pub shots: Option<usize>,
    /// Generation limit in tokens. `None` is the protocol's default.
    pub max_new_tokens: Option<usize>,
    /// Maximum number of items, taken in turn from each subject; all if `None`.
    pub limit: Option<usize>,
    /// How answers are drawn; `None` for the likeliest.
    pub draws: Option<Draws>,
}

/// The selected items with their demonstrations. Needs no tokenizer and no model.
pub struct Plan {
    /// The protocol.
    pub protocol: &'static dyn Protocol,
    /// The data set, with all items of the split and subjects.
    pub dataset: Dataset,
    /// Indices of the selected items in the data set, in order.
    pub chosen: Vec<usize>,
    /// Number of demonstrations shown with each item.
    pub shots: usize,
    /// Maximum number of tokens generated in an item's first stage.
    pub max_new_tokens: usize,
    /// How answers are drawn; `None` for the likeliest.
    pub draws: Option<Draws>,
    /// Demonstrations by subject.
    pub(super) demonstrations: BTreeMap<String, Vec<Item>>,
}

impl Plan {
    /// Reads the data set and selects its items.
    ///
    /// # Errors
    /// When rows cannot be read, or when answers, demonstrations or names of subjects are missing.
    pub fn new(
        protocol: &'static dyn Protocol,
        source: &Source,
        settings: &Settings,
    ) -> Result<Self, TaskError> {
        let definition = protocol.definition();
        let lacking = |message: String| TaskError::Data { protocol: definition.name, message };
        let root = source.root.display();
        let dataset = source.read(&settings.split, &settings.subjects)?;
        if dataset.items.is_empty() {
            return Err(lacking(format!(
                "the {} split in {root} has no items; expected some",
                settings.split
            )));
        }
        if let Some(item) = dataset.items.iter().find(|item| protocol.gold(item).is_none()) {
            let split = definition.benchmark.default_split;
            let message = format!(
                "the {} split in {root} has no answers ({} is the first without); nothing could be scored, take `{split}`",
                settings.split, item.doc_id
            );
            return Err(lacking(message));
        }
        dataset.subjects.values().try_for_each(|subject| protocol.accepts(subject)).map_err(lacking)?;

        let shots = settings.shots.unwrap_or(definition.shots);
        let demonstrations = if shots == 0 {
            BTreeMap::new()
        } else {
            demonstrations(source, &dataset, &protocol.demonstrations(), shots).map_err(|e| match e {
                Lacking::Dataset(error) => error.into(),
                Lacking::Shots(message) => lacking(message),
            })?
        };
        let chosen = choose(&dataset, settings.limit);
        let max_new_tokens = match definition.max_new_tokens {
            0 => 0,
            default => settings.max_new_tokens.unwrap_or(default),
        };
        let draws = settings.draws;
        Ok(Self { protocol, dataset, chosen, shots, max_new_tokens, draws, demonstrations })
    }

    /// Returns the selected item at `index`.
    pub fn item(&self, index: usize) -> &Item {
        &self.dataset.items[self.chosen[index]]
    }

    /// Returns the subject of the selected item at `index`.
    pub fn subject(&self, index: usize) -> &Subject {
        &self.dataset.subjects[&self.item(index).subject]
    }
}

enum Lacking {
    Dataset(crate::dataset::DatasetError),
    Shots(String),
}

/// Which demonstrations a protocol shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demonstrations {
    /// Their split; the benchmark's if `None`.
    pub split: Option<String>,
    /// How they are picked from it.
    pub pick: Pick,
}

/// How demonstrations are picked from the items of a subject.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pick {
    /// The first.
    #[default]
    First,
    /// Drawn by a seed, all equally likely, and shown in the order in which they are drawn. Every item has the same.
    Seeded(u64),
}

impl Pick {
    /// Brings the picked items to the front.
    fn sort(self, items: &mut [Item], shots: usize) {
        let Self::Seeded(seed) = self else { return };
        let mut rng = Rng::new(seed);
        for index in 0..shots.min(items.len()) {
            let other = index + rng.below((items.len() - index) as u64) as usize;
            items.swap(index, other);
        }
    }
}

/// Returns `shots` items of the demonstration split for each subject.
fn demonstrations(
    source: &Source,
    dataset: &Dataset,
    which: &Demonstrations,
    shots: usize,
) -> Result<BTreeMap<String, Vec<Item>>, Lacking> {
    let split = which.split.as_deref().unwrap_or(dataset.benchmark.demonstration_split);
    if !source.has_split(split) {
        let layout = source.layout.name();
        return Err(Lacking::Shots(format!(
            "{} (layout {layout}) has no {split} split; expected one with {shots} demonstrations a subject",
            source.root.display()
        )));
    }
    let subjects: Vec<String> = dataset.subjects.keys().cloned().collect();
    let mut by_subject: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for item in source.read(split, &subjects).map_err(Lacking::Dataset)?.items {
        let items = by_subject.entry(item.subject.clone()).or_default();
        if which.pick != Pick::First || items.len() < shots {
            items.push(item);
        }
    }
    for items in by_subject.values_mut() {
        which.pick.sort(items, shots);
        items.truncate(shots);
    }
    for subject in subjects {
        let found = by_subject.get(&subject).map_or(0, Vec::len);
        if found < shots {
            let message =
                format!("the {split} split has {found} items of `{subject}`; expected {shots} to show");
            return Err(Lacking::Shots(message));
        }
    }
    Ok(by_subject)
}

/// Selects all items, or `limit` of them by taking one from each subject in turn, so that a short run covers every
/// category. The result is in data set order either way.
fn choose(dataset: &Dataset, limit: Option<usize>) -> Vec<usize> {
    let Some(limit) = limit else { return (0..dataset.items.len()).collect() };
    let mut queues: BTreeMap<&str, VecDeque<usize>> = BTreeMap::new();
    for (index, item) in dataset.items.iter().enumerate() {
        queues.entry(&item.subject).or_default().push_back(index);
    }
    let mut chosen = Vec::new();
    while chosen.len() < limit && !queues.is_empty() {
        for queue in queues.values_mut() {
            chosen.extend(queue.pop_front().filter(|_| chosen.len() < limit));
        }
        queues.retain(|_, queue| !queue.is_empty());
    }
    chosen.sort_unstable();
    chosen
}
