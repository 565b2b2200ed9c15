//! The files that the program carries: the suites of this repository, the sample data sets and the demo model.
//!
//! `run quickstart` therefore works anywhere. A suite's paths are relative to its file, and data sets and models are folders. So the
//! files are written once into the user's cache, and every later command finds them there.

use std::path::{Path, PathBuf};
use std::{fs, io, process};

use crate::dataset::sha256_hex;

/// Path in the repository, and content.
type File = (&'static str, &'static [u8]);

macro_rules! files {
    ($($path:literal,)*) => {
        &[$(($path, include_bytes!(concat!("../", $path)))),*]
    };
}

/// The files, in the order of their paths.
const FILES: &[File] = files![
    "datasets/boolq-sample/README.md",
    "datasets/boolq-sample/dev.jsonl",
    "datasets/ceval-sample/README.md",
    "datasets/ceval-sample/dev/antonym_pairs_dev.csv",
    "datasets/ceval-sample/dev/calendar_reckoning_dev.csv",
    "datasets/ceval-sample/dev/daily_routine_dev.csv",
    "datasets/ceval-sample/dev/kinds_of_things_dev.csv",
    "datasets/ceval-sample/dev/market_prices_dev.csv",
    "datasets/ceval-sample/dev/mental_arithmetic_dev.csv",
    "datasets/ceval-sample/dev/number_sense_dev.csv",
    "datasets/ceval-sample/dev/odd_one_out_dev.csv",
    "datasets/ceval-sample/dev/short_reading_dev.csv",
    "datasets/ceval-sample/dev/world_capitals_dev.csv",
    "datasets/ceval-sample/subject_mapping.json",
    "datasets/ceval-sample/val/antonym_pairs_val.csv",
    "datasets/ceval-sample/val/calendar_reckoning_val.csv",
    "datasets/ceval-sample/val/daily_routine_val.csv",
    "datasets/ceval-sample/val/kinds_of_things_val.csv",
    "datasets/ceval-sample/val/market_prices_val.csv",
    "datasets/ceval-sample/val/mental_arithmetic_val.csv",
    "datasets/ceval-sample/val/number_sense_val.csv",
    "datasets/ceval-sample/val/odd_one_out_val.csv",
    "datasets/ceval-sample/val/short_reading_val.csv",
    "datasets/ceval-sample/val/world_capitals_val.csv",
    "datasets/gsm8k-sample/README.md",
    "datasets/gsm8k-sample/test.jsonl",
    "datasets/gsm8k-sample/train.jsonl",
    "datasets/wikitext-2-sample/README.md",
    "datasets/wikitext-2-sample/wiki.test.tokens",
    "models/demo/README.md",
    "models/demo/config.json",
    "models/demo/model.safetensors",
    "models/demo/tokenizer.model",
    "models/demo/tokenizer_config.json",
    "suites/accept.toml",
    "suites/boolq.toml",
    "suites/calibrate-card.toml",
    "suites/calibration.toml",
    "suites/ceval.toml",
    "suites/cpu-limits.toml",
    "suites/duo-vs-a2-w8a8.toml",
    "suites/duo-vs-a2.toml",
    "suites/forms.toml",
    "suites/gates/example.toml",
    "suites/gates/modelled.toml",
    "suites/load.toml",
    "suites/max-batch.toml",
    "suites/modeltest.toml",
    "suites/performance-boolq.toml",
    "suites/performance-ceval.toml",
    "suites/performance.toml",
    "suites/quantisation.toml",
    "suites/quickstart.toml",
    "suites/serving.toml",
    "suites/shapes/alpaca2-7b.json",
    "suites/shapes/aquila-7b.json",
    "suites/shapes/baichuan-13b.json",
    "suites/shapes/baichuan2-13b.json",
    "suites/shapes/baichuan2-7b.json",
    "suites/shapes/glm-130b.json",
    "suites/shapes/internlm-20b.json",
    "suites/shapes/llama2-13b.json",
    "suites/shapes/llama2-70b.json",
    "suites/shapes/qwen-14b.json",
    "suites/shapes/qwen-72b.json",
    "suites/shapes/qwen-7b.json",
    "suites/shapes/qwen2-72b.json",
    "suites/shapes/qwen2.5-0.5b.json",
    "suites/smoke.toml",
    "suites/traces/serving.jsonl",
];

/// A suite that the program carries.
pub(crate) struct ShippedSuite {
    /// Name without folder and extension.
    pub(crate) name: &'static str,
    /// Path in the repository.
    pub(crate) path: &'static str,
    /// Content of the file.
    pub(crate) text: &'static str,
}

/// Returns the shipped suites.
pub(crate) fn suites() -> impl Iterator<Item = ShippedSuite> {
    FILES.iter().filter_map(|&(path, content)| {
        let name = path.strip_prefix("suites/")?.strip_suffix(".toml")?;
        let text = std::str::from_utf8(content).ok()?;
        // Folders below hold gates and traces.
        (!name.contains('/')).then_some(ShippedSuite { name, path, text })
    })
}

/// Returns the shipped demo model.
///
/// # Errors
/// The files cannot be written.
pub(crate) fn demo_model() -> io::Result<PathBuf> {
    Ok(unpacked()?.join("models/demo"))
}

/// Returns the shipped sample of C-Eval.
///
/// # Errors
/// The files cannot be written.
pub(crate) fn ceval_sample() -> io::Result<PathBuf> {
    Ok(unpacked()?.join("datasets/ceval-sample"))
}

/// Writes the files into the cache, unless they are there, and returns their folder.
pub(crate) fn unpacked() -> io::Result<PathBuf> {
    let folder = cache().join(format!("shipped-{}", &digest()[..12]));
    unpack(&folder).map_err(|error| {
        let folder = folder.display();
        let message = format!(
            "{folder}: cannot write the shipped files ({error}); set XDG_CACHE_HOME to a writable folder"
        );
        io::Error::new(error.kind(), message)
    })?;
    Ok(folder)
}

/// The user's cache, or the folder of temporary files.
fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("glmbench")
}

/// Hash of all files. Another version of the program has a folder of its own.
fn digest() -> String {
    let each: String =
        FILES.iter().map(|(path, content)| format!("{path} {}\n", sha256_hex(content))).collect();
    sha256_hex(each.as_bytes())
}

/// Writes every file that is missing or differs. Files are compared whole: a folder that others may write to is not trusted.
fn unpack(folder: &Path) -> io::Result<()> {
    for (path, content) in FILES {
        let path = folder.join(path);
        if fs::read(&path).is_ok_and(|found| found == *content) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // Several programs may begin at once, the tasks of a cluster above all: each has a temporary file of its own.
        let temporary = path.with_added_extension(format!("{}.tmp", process::id()));
        fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, &path)).inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file of the folders that the binary carries.
    fn in_repository() -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        let mut folders: Vec<PathBuf> =
            ["suites", "datasets/boolq-sample", "datasets/ceval-sample", "datasets/gsm8k-sample"]
                .into_iter()
                .chain(["datasets/wikitext-2-sample", "models/demo"])
                .map(|folder| root.join(folder))
                .collect();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        found.sort();
        found
    }

    #[test]
    fn the_binary_carries_every_suite_and_what_they_need() {
        assert_eq!(FILES.iter().map(|(path, _)| *path).collect::<Vec<_>>(), in_repository());
        assert!(suites().any(|suite| suite.name == "quickstart"));
        assert!(suites().all(|suite| !suite.name.contains('/')));
    }

    #[test]
    fn shipped_files_are_written_once_and_mended() {
        let folder = tempfile::tempdir().unwrap();
        unpack(folder.path()).unwrap();
        let suite = folder.path().join("suites/quickstart.toml");
        assert!(fs::read_to_string(&suite).unwrap().contains("quickstart"));
        let written = fs::metadata(&suite).unwrap().modified().unwrap();
        fs::write(folder.path().join("models/demo/config.json"), "{}").unwrap();
        unpack(folder.path()).unwrap();
        assert_eq!(fs::metadata(&suite).unwrap().modified().unwrap(), written);
        assert!(fs::read(folder.path().join("models/demo/config.json")).unwrap().len() > 2);
    }
}
