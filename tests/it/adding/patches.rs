//! The examples that are patches: `docs/adding/*.patch`, each a commit that adds a toy.
//!
//! A patch begins with what it adds, and with lines `Test: cargo test …` that show that the toy works. Then comes a diff as
//! `git diff` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use diffy::patch_set::{FileOperation, ParseOptions, PatchSet};

use super::{MOST, Section, is_source, is_test_module, root, sections};
use crate::support::skipped;

/// The most lines that a patch may add and remove.
const MOST_LINES: usize = 120;

/// The folder of the patches.
const FOLDER: &str = "docs/adding";

/// A patch that was read.
struct Patch {
    /// Name of the file.
    name: String,
    text: String,
}

/// A file that a patch changes, with its whole new text.
struct Changed {
    path: String,
    is_new: bool,
    text: String,
}

/// Returns all patches, by name.
fn all() -> Vec<Patch> {
    let names = fs::read_dir(root().join(FOLDER)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    let read = |name: String| {
        assert!(name.strip_suffix(".patch").is_some(), "{FOLDER}/{name} is no patch");
        let text = fs::read_to_string(root().join(FOLDER).join(&name)).unwrap();
        Patch { name, text }
    };
    names.into_iter().map(read).collect()
}

/// Returns the names of the patches that a section links to as its example.
pub(super) fn linked(section: &Section) -> Vec<String> {
    let example = section.example();
    let links = example.split("](adding/").skip(1);
    links.map(|rest| rest.split(')').next().unwrap_or_default().to_owned()).collect()
}

impl Patch {
    /// Returns what stands before the diff, and the diff.
    fn parts(&self) -> (&str, &str) {
        let at = self.text.find("diff --git ").unwrap_or_else(|| panic!("{}: no diff", self.name));
        self.text.split_at(at)
    }

    /// Returns the arguments of each `cargo test` that the patch names.
    fn tests(&self) -> Vec<Vec<&str>> {
        let lines = self.parts().0.lines().filter_map(|line| line.strip_prefix("Test: cargo test "));
        lines.map(|line| line.split(' ').collect()).collect()
    }

    /// Returns the number of lines that the patch adds and removes.
    fn size(&self) -> usize {
        let changes = |line: &&str| line.starts_with(['+', '-']);
        let heads = |line: &&str| line.starts_with("+++ ") || line.starts_with("--- ");
        self.parts().1.lines().filter(changes).filter(|line| !heads(line)).count()
    }

    /// Applies the patch to the sources of a folder, and returns the files that it changes.
    ///
    /// # Errors
    /// What does not fit.
    fn applied(&self, folder: &Path) -> Result<Vec<Changed>, String> {
        let mut changed = Vec::new();
        for file in PatchSet::parse(self.parts().1, ParseOptions::gitdiff()) {
            let file = file.map_err(|error| error.to_string())?;
            let (path, is_new) = match file.operation().strip_prefix(1) {
                FileOperation::Create(path) => (path.into_owned(), true),
                FileOperation::Modify { original, modified } if original == modified => {
                    (modified.into_owned(), false)
                }
                other => return Err(format!("{other:?}: a patch adds and changes files only")),
            };
            let before = if is_new {
                String::new()
            } else {
                fs::read_to_string(folder.join(&path)).map_err(|error| format!("{path}: {error}"))?
            };
            let diff = file.patch().as_text().ok_or("binary, expected a text")?;
            let text = diffy::apply(&before, diff).map_err(|error| format!("{path}: {error}"))?;
            changed.push(Changed { path, is_new, text });
        }
        Ok(changed)
    }
}

#[test]
fn every_patch_is_the_example_of_one_section() {
    let sections = sections();
    let linked: Vec<String> = sections.iter().flat_map(linked).collect();
    let files: Vec<String> = all().into_iter().map(|patch| patch.name).collect();
    for name in &files {
        let count = linked.iter().filter(|link| *link == name).count();
        assert_eq!(
            count, 1,
            "docs/ADDING.md: {count} sections have the example {FOLDER}/{name}, expected one"
        );
    }
    let missing: Vec<_> = linked.iter().filter(|link| !files.contains(link)).collect();
    assert!(missing.is_empty(), "docs/ADDING.md links to what is not in {FOLDER}: {missing:?}");
}

#[test]
fn every_patch_applies_and_touches_only_the_files_of_its_table() {
    let sections = sections();
    for patch in all() {
        let name = &patch.name;
        let changed = patch.applied(root()).unwrap_or_else(|problem| {
            panic!(
                "{FOLDER}/{name} does not fit the sources: {problem}\n`git apply --3way` merges it with them"
            )
        });
        let section = sections.iter().find(|section| linked(section).contains(name));
        let section = section.unwrap_or_else(|| panic!("no section of docs/ADDING.md links to {name}"));
        let sources = changed.iter().map(|file| file.path.as_str());
        let sources: BTreeSet<&str> =
            sources.filter(|path| is_source(path) && !is_test_module(path)).collect();
        let other: Vec<_> = sources.iter().filter(|path| !section.has(path)).collect();
        assert!(other.is_empty(), "{name}: the table of {:?} does not name {other:?}", section.title);
        assert!(sources.len() <= MOST, "{name}: {} source files, expected {MOST} at most", sources.len());
        let exist: Vec<_> = changed.iter().filter(|f| f.is_new && root().join(&f.path).exists()).collect();
        assert!(exist.is_empty(), "{name} adds a file that is there already: {:?}", exist[0].path);
    }
}

#[test]
fn every_patch_is_as_small_as_a_commit_and_says_what_it_adds() {
    for patch in all() {
        let (size, name) = (patch.size(), &patch.name);
        assert!(size > 0 && size <= MOST_LINES, "{name} changes {size} lines, expected {MOST_LINES} at most");
        let about = patch.parts().0.lines().next().unwrap_or_default();
        assert!(about.ends_with('.'), "{name} begins with {about:?}, expected a sentence on what it adds");
        assert!(!patch.tests().is_empty(), "{name} has no line `Test: cargo test …` before the diff");
    }
}

#[test]
fn a_patch_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.rs"), "one\ntwo\nthree\n").unwrap();
    let patch = |diff: &str| Patch { name: "x.patch".into(), text: format!("Adds.\n\n{diff}") };
    let change = |line: &str| {
        patch(&format!(
            "diff --git a/a.rs b/a.rs\n--- a/a.rs\n+++ b/a.rs\n@@ -1,3 +1,4 @@\n one\n {line}\n+new\n three\n"
        ))
    };
    let fitting = change("two").applied(folder.path()).unwrap();
    assert_eq!((fitting[0].text.as_str(), fitting[0].is_new), ("one\ntwo\nnew\nthree\n", false));
    assert_eq!(change("two").size(), 1);
    assert!(change("2").applied(folder.path()).is_err());
    let gone = patch(
        "diff --git a/a.rs b/a.rs\ndeleted file mode 100644\n--- a/a.rs\n+++ /dev/null\n@@ -1,3 +0,0 @@\n-one\n-two\n-three\n",
    );
    assert!(gone.applied(folder.path()).is_err());
}

/// A copy of this repository, in which patches are applied one after another.
struct Copy {
    folder: PathBuf,
    /// The target folder, which all patches share.
    target: PathBuf,
}

impl Copy {
    /// Brings the copy up to date; `None` where `git` does not list the files.
    fn new() -> Option<Self> {
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let list = Command::new("git").args(list).current_dir(root()).output().ok()?;
        let own: BTreeSet<&str> =
            std::str::from_utf8(&list.stdout).ok()?.split('\0').filter(|path| !path.is_empty()).collect();
        if !list.status.success() || own.is_empty() {
            return None;
        }
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (folder, target) = (temporary.join("adding"), temporary.parent()?.to_owned());
        for path in own.into_iter().filter(|path| root().join(path).is_file()) {
            write(&folder.join(path), &fs::read(root().join(path)).ok()?);
        }
        let copy = Self { folder, target };
        // An earlier run may have been stopped before it took its patch back.
        for file in all().iter().flat_map(|patch| patch.applied(root()).unwrap()).filter(|file| file.is_new) {
            let _ = fs::remove_file(copy.folder.join(file.path));
        }
        Some(copy)
    }

    /// Applies a patch, and takes it back after `then`.
    fn with(&self, patch: &Patch, then: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let changed = patch.applied(&self.folder)?;
        let before = |file: &&Changed| !file.is_new;
        let kept: BTreeMap<&str, Vec<u8>> = changed
            .iter()
            .filter(before)
            .map(|file| (file.path.as_str(), fs::read(self.folder.join(&file.path)).unwrap()))
            .collect();
        for file in &changed {
            write(&self.folder.join(&file.path), file.text.as_bytes());
        }
        let result = then();
        for file in &changed {
            match kept.get(file.path.as_str()) {
                Some(bytes) => write(&self.folder.join(&file.path), bytes),
                None => fs::remove_file(self.folder.join(&file.path)).unwrap(),
            }
        }
        result
    }

    /// Runs cargo in the copy.
    fn cargo(&self, args: &[&str]) -> Result<Output, String> {
        let output = Command::new(env!("CARGO"))
            .args(args)
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", &self.target)
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(output);
        }
        let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
        Err(format!("cargo {}\n{}", args.join(" "), said.concat()))
    }

    /// Compiles every crate with the patch, and runs the tests that it names.
    fn holds(&self, patch: &Patch) -> Result<(), String> {
        self.cargo(&["check", "--offline", "--workspace", "--tests"])?;
        for test in patch.tests() {
            let args: Vec<&str> = ["test", "--offline"].into_iter().chain(test).collect();
            let said = String::from_utf8_lossy(&self.cargo(&args)?.stdout).into_owned();
            if passed(&said) == 0 {
                return Err(format!("cargo {}: no test has this name\n{said}", args.join(" ")));
            }
        }
        Ok(())
    }
}

/// Writes a file unless it has this content, so that cargo compiles again only what has changed.
fn write(path: &Path, bytes: &[u8]) {
    if fs::read(path).is_ok_and(|found| found == bytes) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Returns how many tests passed, by what `cargo test` prints.
fn passed(said: &str) -> usize {
    let counts = said.split("test result: ok. ").skip(1).filter_map(|rest| rest.split(' ').next());
    counts.filter_map(|count| count.parse::<usize>().ok()).sum()
}

/// Takes minutes: each patch is compiled with every crate. `GLMBENCH_PATCH=kv-form` takes that patch alone.
#[test]
#[ignore = "compiles every crate once for each patch; docs/ADDING.md has the command"]
fn every_patch_compiles_and_its_tests_pass() {
    let Some(copy) = Copy::new() else { return skipped("git does not list the files of this repository") };
    let wanted = std::env::var("GLMBENCH_PATCH").ok();
    let mut failed = Vec::new();
    for patch in all() {
        let stem = patch.name.trim_end_matches(".patch");
        if wanted.as_ref().is_some_and(|wanted| wanted != stem) {
            continue;
        }
        match copy.with(&patch, || copy.holds(&patch)) {
            Ok(()) => println!("{stem}: compiles, and its tests pass"),
            Err(problem) => failed.push(format!("{stem}: {problem}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}
