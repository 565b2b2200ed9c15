//! `docs/ADDING.md` is true. Every file that it names exists. No kind of extension needs more than five source files. No
//! source file stands outside the tables, where it would be overlooked. Every table has an example that keeps to it: a patch
//! ([`patches`]), or code in test builds ([`toys`]).

mod patches;
mod toys;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The most source files that an extension may touch.
const MOST: usize = 5;

/// The section of a port. Its list is longer and says so.
const PORT: &str = "Another Ascend chip";

/// Words behind which a paragraph may name further files: they are no work on the sources.
const BESIDE: [&str; 3] = ["Tests:", "Documentation:", "Example:"];

/// A heading with the text up to the next one.
#[derive(Debug)]
struct Section {
    title: String,
    lines: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sections() -> Vec<Section> {
    let page = fs::read_to_string(root().join("docs/ADDING.md")).unwrap();
    sections_of(&page)
}

fn sections_of(page: &str) -> Vec<Section> {
    let mut all: Vec<Section> = Vec::new();
    for line in page.lines() {
        match line.strip_prefix('#') {
            Some(rest) => {
                let title = rest.trim_start_matches('#').trim().to_owned();
                all.push(Section { title, lines: Vec::new() });
            }
            None => all.last_mut().expect("the page begins with a heading").lines.push(line.to_owned()),
        }
    }
    all
}

/// Returns the texts between backticks that are paths of this repository.
fn paths(text: &str) -> Vec<String> {
    let is_path = |code: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-<>".contains(c);
        let ends = [".rs", ".md", ".toml", ".csv", "/"].iter().any(|end| code.ends_with(end));
        code.starts_with(|c: char| c.is_ascii_alphanumeric())
            && code.chars().all(plain)
            && code.contains('/')
            && ends
    };
    text.split('`').skip(1).step_by(2).filter(is_path).map(str::to_owned).collect()
}

/// Whether a path counts against the limit: code of the program. Tests, texts, tables and data do not.
fn is_source(path: &str) -> bool {
    let of_tests = ["tests", "testing", "benches"];
    let is_test = path.split('/').any(|part| of_tests.contains(&part)) || path.ends_with("/tests.rs");
    let other =
        [".md", ".toml", ".csv"].iter().any(|end| path.ends_with(end)) || path.starts_with("datasets/");
    !is_test && !other
}

/// Whether a source file is part of test builds alone: a `#[cfg(test)]` stands before its module, or before one around it.
fn is_test_module(path: &str) -> bool {
    let path = Path::new(path);
    let (Some(stem), Some(folder)) = (path.file_stem(), path.parent()) else { return false };
    // A crate is no module.
    if stem == "lib" || stem == "main" {
        return false;
    }
    let (name, folder) = match (stem.to_str(), folder.file_name(), folder.parent()) {
        (Some("mod"), Some(name), Some(around)) => (name, around),
        _ => (stem, folder),
    };
    let beside = ["mod.rs", "lib.rs", "main.rs"].map(|file| folder.join(file));
    let around = beside.into_iter().chain([folder.with_extension("rs")]);
    let Some(around) = around.filter(|file| file != path).find(|file| root().join(file).is_file()) else {
        return false;
    };
    let text = fs::read_to_string(root().join(&around)).unwrap();
    let declared = format!("mod {};", name.to_string_lossy());
    let mut lines = text.lines().rev().skip_while(|line| !line.ends_with(&declared)).skip(1);
    lines.next().is_some_and(|line| line == "#[cfg(test)]") || is_test_module(around.to_str().unwrap())
}

/// Whether a part of a path is that of the table. A part with `<name>` stands for any name, but not for the list of modules
/// beside it.
fn fits(part: &str, name: &str) -> bool {
    match (part.split_once('<'), part.split_once('>')) {
        (Some((start, _)), Some((_, end))) => {
            let is_longer = name.len() > start.len() + end.len();
            name != "mod.rs" && is_longer && name.starts_with(start) && name.ends_with(end)
        }
        _ => name == part,
    }
}

impl Section {
    /// Returns the paths in the first column of the tables.
    fn files(&self) -> BTreeSet<String> {
        let rows = self.lines.iter().filter(|line| line.starts_with("| `"));
        rows.flat_map(|row| paths(row.split('|').nth(1).unwrap_or_default())).collect()
    }

    /// Whether one of the tables names the file.
    fn has(&self, path: &str) -> bool {
        let names = |known: &String| {
            let (known, parts) = (known.split('/'), path.split('/'));
            known.clone().count() == parts.clone().count()
                && known.zip(parts).all(|(part, name)| fits(part, name))
        };
        self.files().iter().any(names)
    }

    /// Returns what the line `Example: …` and those below it say.
    fn example(&self) -> String {
        let lines = self.lines.iter().skip_while(|line| !line.starts_with("Example: "));
        lines.take_while(|line| !line.is_empty()).cloned().collect::<Vec<_>>().join(" ")
    }

    /// Returns the paragraphs and bullets outside of the tables, each without what stands behind the words of [`BESIDE`].
    fn prose(&self) -> Vec<String> {
        let mut all = vec![String::new()];
        for line in self.lines.iter().filter(|line| !line.starts_with('|')) {
            if line.trim().is_empty() || line.starts_with("- ") {
                all.push(String::new());
            }
            let last = all.last_mut().unwrap();
            last.push_str(line);
            last.push(' ');
        }
        let cut = |text: String| {
            let at = BESIDE.iter().filter_map(|word| text.find(word)).min().unwrap_or(text.len());
            text[..at].to_owned()
        };
        all.into_iter().map(cut).collect()
    }
}

/// Returns whether a path exists. A part `<name>` stands for any name: then at least one such path must exist.
fn exists(path: &str) -> bool {
    let mut found = vec![root().to_owned()];
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let inside = |folder: &PathBuf| -> Vec<PathBuf> {
            let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
            let named = entries.map(|entry| entry.unwrap());
            named.filter(|e| fits(part, &e.file_name().to_string_lossy())).map(|e| e.path()).collect()
        };
        found = found.iter().flat_map(inside).collect();
    }
    found.iter().any(|found| if path.ends_with('/') { found.is_dir() } else { found.is_file() })
}

#[test]
fn every_file_named_exists() {
    let all: BTreeSet<String> = sections().iter().flat_map(|s| paths(&s.lines.join("\n"))).collect();
    assert!(all.len() > 60, "only {} paths were seen", all.len());
    let missing: Vec<_> = all.iter().filter(|path| !exists(path)).collect();
    assert!(missing.is_empty(), "docs/ADDING.md names what is not there: {missing:#?}");
}

#[test]
fn no_extension_needs_more_than_five_source_files() {
    let mut tables = 0;
    for section in sections() {
        let files: Vec<String> = section.files().into_iter().filter(|path| is_source(path)).collect();
        let folders: Vec<_> =
            files.iter().filter(|path| path.ends_with('/') && !path.contains('<')).collect();
        assert!(folders.is_empty(), "{}: a folder hides how many files it has: {folders:?}", section.title);
        tables += usize::from(!files.is_empty());
        let is_long = files.len() > MOST;
        assert_eq!(
            is_long,
            section.title == PORT,
            "{}: {} source files: {files:#?}",
            section.title,
            files.len()
        );
    }
    assert!(tables > 15, "only {tables} tables were seen");
}

#[test]
fn no_source_file_stands_outside_of_its_table() {
    for section in sections().into_iter().skip(1) {
        let files = section.files();
        let named = section.prose().iter().flat_map(|text| paths(text)).collect::<BTreeSet<_>>();
        let hidden: Vec<_> = named.iter().filter(|path| is_source(path) && !files.contains(*path)).collect();
        assert!(hidden.is_empty(), "{}: outside of the table: {hidden:?}", section.title);
    }
}

/// Sections with an example that is neither a patch nor a toy, and why.
const REAL: [(&str, &str); 1] = [(PORT, "a port has no small example: it is the one list longer than five")];

/// Each section has a patch, or a toy, or a reason.
#[test]
fn every_extension_has_one_example_that_is_held_to_its_table() {
    let all = sections();
    for section in all.iter().skip(1).filter(|section| !section.files().is_empty()) {
        let title = section.title.as_str();
        assert!(!section.example().is_empty(), "{title}: no line `Example: …`");
        let patches = patches::linked(section).len();
        let toys = toys::TOYS.iter().filter(|toy| toy.section == title).count();
        let real = REAL.iter().filter(|(of, _)| *of == title).count();
        assert_eq!(
            patches + toys + real,
            1,
            "{title}: {patches} patches in docs/adding are linked, {toys} toys and {real} reasons are listed; expected one of them"
        );
    }
    let listed = toys::TOYS.iter().map(|toy| toy.section).chain(REAL.map(|(of, _)| of));
    for title in listed {
        assert!(all.iter().any(|section| section.title == title), "docs/ADDING.md has no section {title:?}");
    }
}

#[test]
fn the_reader_of_the_page_sees_what_is_wrong() {
    let page = "# A\n\n| file | change |\n| --- | --- |\n| `src/a.rs`, `src/<name>/b.rs` | see `src/c.rs` |\n\n\
                Also `src/d.rs`. Tests: `src/e.rs`.\n- `tests/it/f.rs`\n";
    let [section] = sections_of(page).try_into().unwrap();
    assert_eq!(section.files(), ["src/<name>/b.rs", "src/a.rs"].map(str::to_owned).into());
    let prose: Vec<String> = section.prose().iter().flat_map(|text| paths(text)).collect();
    assert_eq!(prose, ["src/d.rs", "tests/it/f.rs"]);
    assert!(is_source("src/d.rs") && !is_source("tests/it/f.rs") && !is_source("docs/A.md"));
    assert!(section.has("src/a.rs") && section.has("src/x/b.rs") && !section.has("src/x/y/b.rs"));
    assert!(fits("<name>.rs", "a.rs") && !fits("<name>.rs", "mod.rs") && !fits("<name>.rs", ".rs"));
    assert!(is_test_module("src/toy_walk.rs") && is_test_module("src/language/laws.rs"));
    assert!(!is_test_module("src/language/mod.rs") && !is_test_module("src/lib.rs"));
    assert!(exists("src/workload/<name>/schema.rs") && !exists("src/workload/<name>/nothing.rs"));
    assert!(exists("crates/device-<name>/") && !exists("src/lib.rs/"));
}
