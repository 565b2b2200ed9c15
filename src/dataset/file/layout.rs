//! The data of a task file as a layout.

use std::path::Path;
use std::sync::OnceLock;

use super::data::Data;
use super::files::fits;
use crate::dataset::{Benchmark, Dataset, DatasetError, Layout};

/// The data layout of a task file.
#[derive(Debug)]
pub(super) struct FileLayout {
    name: &'static str,
    benchmark: OnceLock<&'static Benchmark>,
    data: Data,
}

impl FileLayout {
    pub(super) fn new(name: &'static str, data: Data) -> Self {
        Self { name, benchmark: OnceLock::new(), data }
    }

    /// Says which benchmark the layout's data is of. Known after both are made.
    pub(super) fn belongs_to(&self, benchmark: &'static Benchmark) {
        let _ = self.benchmark.set(benchmark);
    }
}

impl Layout for FileLayout {
    fn name(&self) -> &'static str {
        self.name
    }

    fn files(&self) -> String {
        let all: Vec<String> =
            self.data.files.values().flatten().map(|pattern| format!("`{pattern}`")).collect();
        format!("one of {}", all.join(", "))
    }

    fn is_at(&self, root: &Path) -> Result<bool, DatasetError> {
        for split in &self.data.splits {
            if !self.data.files_of(root, split)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn has_split(&self, root: &Path, split: &str) -> bool {
        self.data.files_of(root, split).is_ok_and(|files| !files.is_empty())
    }

    fn read(&self, root: &Path, split: &str, subjects: &[String]) -> Result<Dataset, DatasetError> {
        let benchmark = self.benchmark.get().expect("invariant: a layout in use belongs to a benchmark");
        self.data.read(benchmark, root, split, subjects)
    }

    fn split_of<'p>(&'p self, path: &'p str) -> &'p str {
        let is_of =
            |(_, patterns): &(&String, &Vec<String>)| patterns.iter().any(|pattern| fits(pattern, path));
        self.data.files.iter().find(is_of).map_or(path, |(split, _)| split.as_str())
    }
}
