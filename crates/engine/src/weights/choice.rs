//! Selection of the checkpoint files in a folder.
//!
//! A folder must hold exactly one set of weights, or it is rejected. Loading one of two sets would be a guess that the
//! results of a run would not reveal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::safetensors::{INDEX_FILE, IndexWire, SINGLE_FILE};
use super::{WeightError, quantised};
use crate::config::{ModelConfig, Scheme};

/// File names of one checkpoint format.
pub(super) struct Names<'a> {
    /// The file that holds a whole checkpoint.
    pub(super) single: &'a str,
    /// The index, which maps tensors to shards.
    pub(super) index: &'a str,
    /// Beginning of the shard names, before the number; `None` for any.
    pub(super) stem: Option<&'a str>,
    /// File extension of the shards.
    pub(super) extension: &'static str,
}

/// File names of safetensors checkpoints.
const SAFETENSORS: Names<'static> =
    Names { single: SINGLE_FILE, index: INDEX_FILE, stem: None, extension: "safetensors" };

/// The checkpoint of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// One file.
    Single(PathBuf),
    /// The shards named by this index.
    Index(PathBuf),
    /// Shards numbered from 1, without an index.
    Numbered(Vec<PathBuf>),
}

impl Choice {
    /// Searches a folder.
    ///
    /// # Errors
    /// The folder holds no checkpoint, two of them, an incomplete set of shards, or pickled weights only.
    pub fn of(dir: &Path) -> Result<Self, WeightError> {
        let found = Found::read(dir, &SAFETENSORS)?;
        match found.choose(dir, &SAFETENSORS)? {
            Some(choice) => Ok(choice),
            None => Err(found.nothing(dir)),
        }
    }

    /// Searches a folder for the weights that `config` names. Those of ModelSlim have names of their own, and may lie beside
    /// the float weights. Without such a file, the usual names count.
    ///
    /// # Errors
    /// As for [`of`](Self::of).
    pub fn of_model(dir: &Path, config: &ModelConfig) -> Result<Self, WeightError> {
        let scheme = config.quantised.as_ref().and_then(|quantised| quantised.scheme);
        let Some(scheme) = scheme.filter(|scheme| scheme.description_word().is_some()) else {
            return Self::of(dir).map_err(|error| match (error, &config.quantised) {
                (WeightError::NotFound { dir, others }, Some(said)) if said.scheme.is_none() => {
                    WeightError::Quantised {
                        place: dir.display().to_string(),
                        problem: format!(
                            "no weights here, and config.json says {}, expected {}{}",
                            said.said,
                            Scheme::expected(),
                            super::beside(&others)
                        ),
                    }
                }
                (error, _) => error,
            });
        };
        let stem = quantised::names::weight_stem(scheme);
        let (single, index) = (format!("{stem}.safetensors"), format!("{stem}.safetensors.index.json"));
        let names = Names { single: &single, index: &index, stem: Some(&stem), extension: "safetensors" };
        if let Some(choice) = Self::among(dir, &names)? {
            return Ok(choice);
        }
        Self::of(dir).map_err(|error| match error {
            WeightError::NotFound { dir, others } => WeightError::Quantised {
                place: dir.display().to_string(),
                problem: format!(
                    "no weights here, expected {single}: config.json says {}{}",
                    Scheme::said(scheme),
                    super::beside(&others)
                ),
            },
            error => error,
        })
    }

    /// Searches for other file names; returns `None` if there is no such checkpoint.
    ///
    /// # Errors
    /// The folder holds two checkpoints, or an incomplete one.
    pub(super) fn among(dir: &Path, names: &Names<'_>) -> Result<Option<Self>, WeightError> {
        Found::read(dir, names)?.choose(dir, names)
    }

    /// Describes the choice without the folder: `model.safetensors`, `the shards of model.safetensors.index.json`.
    pub fn words(&self) -> String {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match self {
            Self::Single(path) => name(path),
            Self::Index(path) => format!("the shards of {}", name(path)),
            Self::Numbered(paths) => {
                let first = paths.first().map(|path| name(path)).unwrap_or_default();
                format!("{first} to number {}, without an index", paths.len())
            }
        }
    }
}

/// File extension of pickled weights.
const PICKLED: &str = "bin";

/// The weight files of a folder.
#[derive(Default)]
struct Found {
    single: bool,
    index: bool,
    /// Sets of shards by stem, number of shards, and digits per number: `("model", 7, 5)`.
    sets: BTreeMap<(String, u32, usize), Set>,
    /// Safetensors files with other names.
    others: BTreeSet<String>,
    /// Pickled weights.
    pickled: BTreeSet<String>,
}

/// Shards with the same numbering.
struct Set {
    stem: String,
    count: u32,
    /// Digits per number in the names.
    digits: usize,
    extension: &'static str,
    numbers: BTreeSet<u32>,
    files: BTreeSet<String>,
}

impl Found {
    fn read(dir: &Path, names: &Names<'_>) -> Result<Self, WeightError> {
        let failed = |source| WeightError::Read { path: dir.to_path_buf(), source };
        let mut found = Self::default();
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            found.add(name, names);
        }
        Ok(found)
    }

    fn add(&mut self, name: String, names: &Names<'_>) {
        if name == names.index {
            self.index = true;
        } else if name == names.single {
            self.single = true;
        } else if let Some((stem, number, count, digits)) = shard(&name, names.extension)
            && names.stem.is_none_or(|expected| expected == stem)
        {
            let key = (stem.to_owned(), count, digits);
            let (stem, numbers, files) = (stem.to_owned(), BTreeSet::new(), BTreeSet::new());
            let extension = names.extension;
            let set = self.sets.entry(key).or_insert(Set { stem, count, digits, extension, numbers, files });
            set.numbers.insert(number);
            set.files.insert(name);
        } else if is(&name, names.extension) && !name.starts_with('.') {
            self.others.insert(name);
        } else if is(&name, PICKLED) && name.starts_with("pytorch_model") {
            self.pickled.insert(name);
        }
    }

    /// Chooses the only set in the folder.
    fn choose(&self, dir: &Path, names: &Names<'_>) -> Result<Option<Choice>, WeightError> {
        let two = |first: &str, second: &str| {
            Err(WeightError::TwoSets { dir: dir.to_path_buf(), first: first.into(), second: second.into() })
        };
        if self.index {
            let path = dir.join(names.index);
            let index = IndexWire::read(&path)?;
            let named = index.files();
            let by_index = format!("{} with {}", names.index, shown(named.iter().copied()));
            if self.single && !named.contains(names.single) {
                return two(names.single, &by_index);
            }
            let is_stray = |set: &&Set| set.files.iter().all(|file| !named.contains(file.as_str()));
            if let Some(set) = self.sets.values().find(is_stray) {
                return two(&set.words(), &by_index);
            }
            return Ok(Some(Choice::Index(path)));
        }
        let mut sets = self.sets.values();
        match (self.single, sets.next(), sets.next()) {
            (_, Some(first), Some(second)) => two(&first.words(), &second.words()),
            (true, Some(set), None) => two(names.single, &set.words()),
            (true, None, _) => Ok(Some(Choice::Single(dir.join(names.single)))),
            (false, Some(set), None) => set.complete(dir).map(Some),
            (false, None, _) => Ok(None),
        }
    }

    /// Returns the error for a folder without a checkpoint.
    fn nothing(self, dir: &Path) -> WeightError {
        let dir = dir.to_path_buf();
        match self.pickled.into_iter().next() {
            Some(file) => WeightError::Pickled { dir, file },
            None => WeightError::NotFound { dir, others: self.others.into_iter().collect() },
        }
    }
}

impl Set {
    fn words(&self) -> String {
        shown(self.files.iter().map(String::as_str))
    }

    /// Returns the set's files in order, if the set is complete.
    fn complete(&self, dir: &Path) -> Result<Choice, WeightError> {
        let missing: Vec<String> =
            (1..=self.count).filter(|n| !self.numbers.contains(n)).map(|n| self.name(n)).collect();
        if !missing.is_empty() {
            return Err(WeightError::Incomplete {
                dir: dir.to_path_buf(),
                found: self.files.len(),
                count: self.count,
                missing: shown(missing.iter().map(String::as_str)),
            });
        }
        // All names have the same number of digits, so name order is numeric order.
        Ok(Choice::Numbered(self.files.iter().map(|file| dir.join(file)).collect()))
    }

    fn name(&self, number: u32) -> String {
        let Self { stem, count, digits, extension, .. } = self;
        format!("{stem}-{number:0digits$}-of-{count:0digits$}.{extension}")
    }
}

/// Largest accepted number of shards; the largest public checkpoints have a few hundred.
const MOST_SHARDS: u32 = 10_000;

/// Parses `STEM-00001-of-00007.safetensors` into stem, number, count and digits.
fn shard<'a>(name: &'a str, extension: &str) -> Option<(&'a str, u32, u32, usize)> {
    let (rest, count) = name.strip_suffix(extension)?.strip_suffix('.')?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    if stem.is_empty() || stem.starts_with('.') || !is_number(number) || !is_number(count) {
        return None;
    }
    let (found, of) = (number.parse().ok()?, count.parse().ok()?);
    (1..=of).contains(&found).then_some(())?;
    (of <= MOST_SHARDS && number.len() == count.len()).then_some((stem, found, of, number.len()))
}

fn is(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// Lists a few names, and how many more there are.
fn shown<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const NAMED: usize = 3;
    let names: Vec<&str> = names.into_iter().collect();
    let first = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    const ONE: &str = "model-00001-of-00002.safetensors";
    const TWO: &str = "model-00002-of-00002.safetensors";

    fn choose(files: &[(&str, &str)]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Choice::of(dir.path()).map(|choice| choice.words()).map_err(|error| error.to_string())
    }

    fn chosen(names: &[&str]) -> String {
        choose(&names.iter().map(|name| (*name, "")).collect::<Vec<_>>()).unwrap()
    }

    fn refused(names: &[&str], says: &[&str]) {
        let message = choose(&names.iter().map(|name| (*name, INDEX)).collect::<Vec<_>>()).unwrap_err();
        for word in says {
            assert!(message.contains(word), "{names:?}: {message}");
        }
    }

    #[test]
    fn a_folder_with_one_set_is_that_set() {
        assert_eq!(chosen(&[SINGLE_FILE, "adapter_model.safetensors"]), "model.safetensors");
        assert_eq!(
            choose(&[(INDEX_FILE, INDEX), (ONE, ""), (TWO, "")]).unwrap(),
            "the shards of model.safetensors.index.json"
        );
        let index = r#"{"weight_map": {"a": "model.safetensors"}}"#;
        assert_eq!(
            choose(&[(INDEX_FILE, index), (SINGLE_FILE, "")]).unwrap(),
            "the shards of model.safetensors.index.json"
        );
        assert_eq!(chosen(&[TWO, ONE]), "model-00001-of-00002.safetensors to number 2, without an index");
        assert_eq!(chosen(&["x-1-of-1.safetensors"]), "x-1-of-1.safetensors to number 1, without an index");
    }

    #[test]
    fn two_sets_are_refused_with_both_names() {
        refused(&[SINGLE_FILE, INDEX_FILE, ONE, TWO], &["model.safetensors and ", INDEX_FILE, ONE, TWO]);
        refused(&[SINGLE_FILE, ONE, TWO], &["two sets of weights", "model.safetensors", ONE]);
        refused(&[ONE, TWO, "x-00001-of-00001.safetensors"], &[ONE, "x-00001-of-00001.safetensors"]);
        refused(&[ONE, TWO, "model-00001-of-00003.safetensors"], &["model-00001-of-00003.safetensors"]);
        refused(&[INDEX_FILE, ONE, TWO, "x-00001-of-00001.safetensors"], &["x-00001-of-00001.safetensors"]);
    }

    #[test]
    fn an_incomplete_set_names_what_is_missing() {
        refused(&["m-1-of-2.safetensors", "m-02-of-02.safetensors"], &["two sets of weights"]);
        refused(&[TWO], &["1 of 2 shards", "missing: model-00001-of-00002.safetensors"]);
        refused(
            &["m-1-of-9.safetensors"],
            &["missing: m-2-of-9.safetensors, m-3-of-9.safetensors", "and 5 more"],
        );
    }

    #[test]
    fn names_that_only_look_like_shards_are_none() {
        for name in [
            "model-00000-of-00002.safetensors",
            "model-00003-of-00002.safetensors",
            "model-1-of-00002.safetensors",
            "model-0001x-of-00002.safetensors",
            "-00001-of-00002.safetensors",
            "model-99999999999-of-99999999999.safetensors",
            "model-000000001-of-999999999.safetensors",
            "model-+1-of-2.safetensors",
        ] {
            assert_eq!(shard(name, "safetensors"), None, "{name}");
            refused(&[name], &["no weights here", name]);
        }
        assert_eq!(shard("a-b-03-of-11.safetensors", "safetensors"), Some(("a-b", 3, 11, 2)));
    }

    #[test]
    fn other_files_are_named_where_there_is_no_checkpoint() {
        refused(&["quant_model_weight_w8a8.safetensors"], &["quant_model_weight_w8a8.safetensors"]);
        refused(
            &["pytorch_model-2.bin", "pytorch_model-1.bin"],
            &["pytorch_model-1.bin", "glmbench convert"],
        );
    }
}
