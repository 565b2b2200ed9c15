//! The catalogue `datasets/MANIFEST.toml`: the known data sets, their files with item counts and hashes, their licence,
//! and where to find the original. The manifest is compiled in, so an installed binary has it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;

use super::{Benchmark, DataFile, Dataset, DatasetError, Layout, Source};

const MANIFEST: &str = include_str!("../../datasets/MANIFEST.toml");

/// Schema version of the manifest that this program reads.
const SCHEMA: u32 = 1;

/// One catalogued set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Name of the set on the command line.
    pub name: String,
    /// The benchmark that the set belongs to.
    pub benchmark: &'static Benchmark,
    /// Layout of the set on disk.
    pub layout: &'static dyn Layout,
    /// Licence of the data, in words.
    pub licence: String,
    /// Where to find the original, in words.
    pub original: String,
    /// Whether the set is in this repository, under `datasets/<name>`.
    pub shipped: bool,
    /// Its data files.
    pub files: Vec<DataFile>,
}

/// How a set on disk compares with its catalogue entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Items by split, as read.
    pub items: BTreeMap<String, usize>,
    /// Differences from the catalogue, one sentence each. Empty if there are none.
    pub differences: Vec<String>,
}

impl Entry {
    /// Returns the catalogued number of items of each split.
    pub fn items(&self) -> BTreeMap<String, usize> {
        let mut items = BTreeMap::new();
        for file in &self.files {
            *items.entry(self.layout.split_of(&file.path).to_owned()).or_default() += file.items;
        }
        items
    }

    /// Reads every catalogued split of the set in `root` and compares it file by file.
    ///
    /// # Errors
    /// When the set cannot be read. A difference is not an error here.
    pub fn compare(&self, root: &Path) -> Result<Comparison, DatasetError> {
        let source = Source::open(self.benchmark, root)?;
        let mut comparison = Comparison::default();
        for split in self.items().into_keys() {
            let dataset = source.read(&split, &[])?;
            comparison.items.insert(split, dataset.items.len());
            comparison.differences.extend(self.differences(&dataset));
        }
        Ok(comparison)
    }

    /// Compares one split with the catalogue; returns one sentence for each difference.
    pub fn differences(&self, dataset: &Dataset) -> Vec<String> {
        let mut differences = Vec::new();
        for file in &dataset.files {
            match self.files.iter().find(|listed| listed.path == file.path) {
                None => differences.push(format!("{} is not in the catalogue", file.path)),
                // Another task may cut the same file into other items.
                Some(listed) if self.benchmark == dataset.benchmark && listed.items != file.items => {
                    differences.push(format!(
                        "{} has {} items; the catalogue has {}",
                        file.path, file.items, listed.items
                    ));
                }
                Some(listed) if listed.sha256 != file.sha256 => differences.push(format!(
                    "{} has the sha256 {}; the catalogue has {}",
                    file.path, file.sha256, listed.sha256
                )),
                Some(_) => {}
            }
        }
        let of_split = self.files.iter().filter(|f| self.layout.split_of(&f.path) == dataset.split);
        for listed in of_split.filter(|f| !dataset.files.iter().any(|read| read.path == f.path)) {
            differences.push(format!("{} is missing", listed.path));
        }
        differences
    }
}

/// Returns every catalogued set.
pub fn entries() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| parse(MANIFEST).expect("invariant: the manifest compiled in is tested to parse"))
}

/// Returns the set called `name`.
pub fn find(name: &str) -> Result<&'static Entry, DatasetError> {
    entries().iter().find(|entry| entry.name == name).ok_or_else(|| DatasetError::Unknown {
        name: name.to_owned(),
        known: entries().iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", "),
    })
}

/// Returns the catalogued set that has exactly the files of `dataset` in this split.
pub fn identify(dataset: &Dataset) -> Option<&'static Entry> {
    entries()
        .iter()
        .filter(|entry| entry.benchmark == dataset.benchmark || entry.name == dataset.benchmark.set())
        .find(|entry| entry.differences(dataset).is_empty())
}

/// Returns the manifest's `files = [...]` block for the set in `root`, to paste into a new entry.
pub fn files_block(benchmark: &Benchmark, root: &Path) -> Result<String, DatasetError> {
    let source = Source::open(benchmark, root)?;
    let mut block = String::from("files = [\n");
    for split in benchmark.splits.iter().filter(|split| source.has_split(split)) {
        for DataFile { path, sha256, items } in source.read(split, &[])?.files {
            let _ = writeln!(block, "  {{ path = \"{path}\", items = {items}, sha256 = \"{sha256}\" }},");
        }
    }
    block.push_str("]\n");
    Ok(block)
}

/// The manifest as written in the file (wire types).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    schema: u32,
    set: Vec<ManifestSet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestSet {
    name: String,
    layout: String,
    licence: String,
    original: String,
    shipped: bool,
    files: Vec<ManifestFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestFile {
    path: String,
    items: usize,
    sha256: String,
}

fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let manifest: Manifest = toml::from_str(text).map_err(|e| e.to_string())?;
    if manifest.schema != SCHEMA {
        return Err(format!("found schema {}; expected {SCHEMA}", manifest.schema));
    }
    manifest.set.into_iter().map(entry).collect()
}

fn entry(set: ManifestSet) -> Result<Entry, String> {
    let mut layouts = Benchmark::all()
        .iter()
        .flat_map(|&benchmark| benchmark.layouts.iter().map(move |&layout| (benchmark, layout)));
    let (benchmark, layout) = layouts
        .find(|(_, layout)| layout.name() == set.layout)
        .ok_or_else(|| format!("{}: unknown layout {:?}", set.name, set.layout))?;
    let files = set
        .files
        .into_iter()
        .map(|ManifestFile { path, items, sha256 }| DataFile { path, sha256, items })
        .collect();
    let ManifestSet { name, licence, original, shipped, .. } = set;
    Ok(Entry { name, benchmark, layout, licence, original, shipped, files })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_parses_and_names_each_file_once() {
        for entry in parse(MANIFEST).unwrap() {
            let mut paths: Vec<_> = entry.files.iter().map(|f| &f.path).collect();
            let count = paths.len();
            paths.sort();
            paths.dedup();
            assert_eq!(paths.len(), count, "{}", entry.name);
            assert!(entry.files.iter().all(|f| f.sha256.len() == 64), "{}", entry.name);
        }
    }

    #[test]
    fn the_real_sets_have_their_published_counts() {
        let items = |name: &str, split: &str| find(name).unwrap().items()[split];
        assert_eq!(items("ceval", "dev"), 260);
        assert_eq!(items("ceval", "val"), 1346);
        assert_eq!(items("ceval", "test"), 12342);
        assert_eq!(items("boolq", "dev"), 3270);
    }

    /// The sets in the repository match the catalogue byte for byte. After an intended change of a sample, the failure
    /// message is the block to put into the manifest.
    #[test]
    fn shipped_sets_are_as_catalogued() {
        let datasets = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
        for entry in entries().iter().filter(|entry| entry.shipped) {
            let root = datasets.join(&entry.name);
            let differences = entry.compare(&root).unwrap().differences;
            let block = files_block(entry.benchmark, &root).unwrap();
            assert!(differences.is_empty(), "{}: {differences:?}; as it is now:\n{block}", entry.name);
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let message = find("cevall").unwrap_err().to_string();
        assert!(message.contains("`cevall`") && message.contains("ceval, boolq"), "{message}");
    }
}
