//! The examples that are code in test builds only: each keeps to the files of its table.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::{is_source, is_test_module, root, sections};

/// An example in test builds.
pub(super) struct Toy {
    /// Title of its section in `docs/ADDING.md`.
    pub(super) section: &'static str,
    /// The folder where its names mean the toy.
    folder: &'static str,
    /// Names in code that no other code has.
    names: &'static [&'static str],
}

/// All toys.
pub(super) const TOYS: [Toy; 13] = [
    Toy { section: "A benchmark in code", folder: "src", names: &["TOY_SUMS"] },
    Toy { section: "A protocol", folder: "src/task", names: &["toy::LastNumber", "for LastNumber"] },
    Toy {
        section: "A workload",
        folder: "src",
        names: &["ToyTable", "ToyRun", "ToyCase", "ToyReport", "toy: toy, toys"],
    },
    Toy { section: "A weight form", folder: "crates/device-cpu", names: &["ToyInt4", "toy_form"] },
    Toy {
        section: "A family with its own order of sums",
        folder: "crates",
        names: &["ToyKernels", "toy_family", "ToyPortable", "Family::Toy", "InstructionSet::Toy"],
    },
    Toy { section: "A device", folder: "crates/device", names: &["Self::Toy", "DeviceKind::Toy"] },
    Toy {
        section: "A backend",
        folder: "src",
        names: &["Scripted::new", "Answering::Scripted", "Scripted {"],
    },
    Toy { section: "A server's protocol", folder: "crates/remote", names: &["toy::Toy", "for Toy"] },
    Toy { section: "A route of the server", folder: "crates/serve", names: &["toy::toy", "fn toy"] },
    Toy { section: "An export", folder: "src/report/export", names: &["Toy"] },
    Toy { section: "A section of a report", folder: "src/report/sections", names: &["toy::Toy", "for Toy"] },
    Toy { section: "A chart", folder: "src", names: &["ToyChart", "Self::Toy"] },
    Toy { section: "A format of pages", folder: "src/report/formats", names: &["Toy"] },
];

/// A Rust file: its path from the root, and its code without comments.
struct Code {
    path: String,
    lines: Vec<String>,
}

/// Returns the Rust files of the program, those of tests included.
fn code() -> Vec<Code> {
    let mut folders: Vec<PathBuf> = ["src", "crates"].map(|folder| root().join(folder)).into();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let lines = lines.map(str::to_owned).collect();
                let path = path.strip_prefix(root()).unwrap();
                let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
                found.push(Code { path: parts.join("/"), lines });
            }
        }
    }
    found
}

impl Code {
    /// Whether the code is part of the program, so that it counts as work on the sources.
    fn is_shipped(&self) -> bool {
        is_source(&self.path) && !is_test_module(&self.path)
    }

    fn says(&self, name: &str) -> bool {
        self.lines.iter().any(|line| line.contains(name))
    }

    /// Returns the code before the file's own module of tests.
    fn before_tests(&self) -> impl Iterator<Item = &str> {
        let pairs = self.lines.windows(2);
        let begins = |pair: &[String]| {
            pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
        };
        let end = pairs.clone().position(begins).unwrap_or(self.lines.len());
        self.lines[..end].iter().map(String::as_str)
    }
}

#[test]
fn every_toy_keeps_to_the_files_of_its_table() {
    let (sections, code) = (sections(), code());
    for Toy { section: title, folder, names } in TOYS {
        let section = sections.iter().find(|section| section.title == title).expect("a section");
        let inside = format!("{folder}/");
        let own: Vec<_> = code.iter().filter(|file| file.path.starts_with(&inside)).collect();
        for name in names {
            assert!(own.iter().any(|file| file.says(name)), "{title}: no code says {name:?}");
        }
        let with = own.iter().filter(|file| names.iter().any(|name| file.says(name)));
        let outside: Vec<_> = with.filter(|file| file.is_shipped() && !section.has(&file.path)).collect();
        let outside: Vec<_> = outside.iter().map(|file| &file.path).collect();
        assert!(outside.is_empty(), "{title}: the table does not name {outside:?}, which have the toy");
    }
}

/// No toy is forgotten in [`TOYS`]: what is called one belongs to a table.
#[test]
fn no_other_source_mentions_a_toy() {
    let sections = sections();
    let listed: Vec<_> =
        sections.iter().filter(|section| TOYS.iter().any(|toy| toy.section == section.title)).collect();
    // A declaration of a module is in a table with its module, or the module is one of tests.
    let is_toy = |line: &str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric());
        !line.starts_with("mod ") && words.any(|word| word.eq_ignore_ascii_case("toy"))
    };
    let found = code().into_iter().filter(|file| file.is_shipped() && file.before_tests().any(is_toy));
    let found: BTreeSet<String> = found.map(|file| file.path).collect();
    assert!(found.len() > 10, "only {found:?} have toys");
    let other: Vec<_> = found.iter().filter(|path| !listed.iter().any(|section| section.has(path))).collect();
    assert!(other.is_empty(), "no table of a toy names {other:?}");
}
