//! The architecture rules that Cargo cannot hold, checked on the sources. They say which module of the root crate and of the
//! CPU device may use which module and crate. They say where `unsafe` is allowed, and who may write to the standard streams.
//! The two Ascend crates share no Rust type. Modules of a crate, or of a room of the root crate, do not use each other in a circle.
//!
//! Cargo holds the directions among the crates: a crate names only what its `Cargo.toml` lists. Clippy denies the macros that
//! print.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the root crate and the other modules that it may use. `cli` may use all.
const ROOMS: [(&str, &[&str]); 22] = [
    ("backend", &[]),
    ("bench", &["backend", "stats"]),
    ("bounded", &[]),
    ("bundle", &["bounded", "record", "stats"]),
    (
        "cli",
        &[
            "backend", "bench", "bounded", "bundle", "compute", "dataset", "gate", "language", "record",
            "report", "run", "shipped", "stats", "suite", "task", "text",
        ],
    ),
    ("compute", &[]),
    ("dataset", &["bounded", "document"]),
    ("document", &["bounded"]),
    ("gate", &["bounded", "language", "record", "report", "stats", "suite", "text"]),
    ("language", &[]),
    ("lib", &[]),
    ("main", &["cli"]),
    ("record", &["bounded", "language", "stats", "text"]),
    ("report", &["dataset", "language", "record", "stats", "text"]),
    (
        "run",
        &[
            "backend", "bench", "bounded", "compute", "dataset", "language", "record", "report", "shipped",
            "stats", "suite", "task", "text",
        ],
    ),
    ("shipped", &["dataset"]),
    ("stats", &[]),
    ("suite", &["bounded", "compute", "dataset", "document", "record", "stats", "task"]),
    ("task", &["dataset", "document", "stats"]),
    ("text", &[]),
    // A test.
    ("toy_walk", &["backend", "dataset", "record", "report", "run", "suite", "task"]),
    // The list itself, and the tests of the example. The files of a workload belong to the rooms in `LAYERS`.
    ("workload", &["backend", "language", "record", "report", "run", "suite"]),
];

/// Each room of the CPU device and the other rooms that it may use. The crate root may use all.
const CPU_ROOMS: [(&str, &[&str]); 13] = [
    ("attention", &["buffer", "pack", "pool", "product", "simd"]),
    ("buffer", &[]),
    ("elementwise", &["simd"]),
    // Tests of whole layers.
    ("families", &["buffer"]),
    ("group", &[]),
    ("kernels", &["attention", "limits", "product", "simd"]),
    ("limits", &["buffer", "pack", "pool", "simd"]),
    ("memory", &["attention", "buffer", "kernels", "pack", "product"]),
    ("pack", &["buffer", "packs", "pool", "simd"]),
    ("packs", &["buffer"]),
    ("pool", &[]),
    ("product", &["buffer", "elementwise", "pack", "packs", "pool", "simd"]),
    ("simd", &[]),
];

/// The room of each file in the folder of a workload, and the names of a folder that the room may use.
const LAYERS: [(&str, &[&str], &[&str]); 4] = [
    ("suite", &["schema", "table"], &["Table"]),
    ("run", &["plan", "run", "serve", "trace"], &["Run"]),
    ("record", &["record", "level", "request", "row"], &["Case", "Line"]),
    (
        "report",
        &["charts", "checks", "compare", "history", "report", "rows", "sentences", "tables"],
        &["Report"],
    ),
];

/// Returns the room of a file or a name in a workload's folder.
fn layer_of(name: &str) -> Option<&'static str> {
    let is_of =
        |(_, files, names): &&(&str, &[&str], &[&str])| files.contains(&name) || names.contains(&name);
    LAYERS.iter().find(is_of).map(|(room, ..)| *room)
}

/// The crates below the root crate.
const CRATES: [&str; 11] = [
    "glmbench_calibrate",
    "glmbench_serve",
    "glmbench_engine",
    "glmbench_remote",
    "glmbench_metrics",
    "glmbench_sandbox",
    "glmbench_cpu",
    "glmbench_ascend",
    "glmbench_device",
    "ascend_sys",
    "ascend_emulator",
];

/// Each module of the root crate that uses crates below it, and which.
const USERS: [(&str, &[&str]); 15] = [
    ("backend", &["glmbench_engine", "glmbench_device", "glmbench_remote"]),
    ("bench", &["glmbench_engine", "glmbench_device"]),
    ("bundle", &["glmbench_ascend", "glmbench_device"]),
    (
        "cli",
        &[
            "glmbench_calibrate",
            "glmbench_serve",
            "glmbench_engine",
            "glmbench_cpu",
            "glmbench_ascend",
            "glmbench_device",
            "glmbench_remote",
        ],
    ),
    ("compute", &["glmbench_engine", "glmbench_cpu", "glmbench_device"]),
    // The unit of NeedleBench's lengths.
    ("dataset", &["glmbench_metrics"]),
    // The names and properties of devices and number types.
    ("gate", &["glmbench_device"]),
    // The processes that the sandbox starts.
    ("main", &["glmbench_sandbox"]),
    ("record", &["glmbench_device"]),
    ("report", &["glmbench_calibrate", "glmbench_device", "glmbench_metrics"]),
    ("run", &["glmbench_engine", "glmbench_cpu", "glmbench_device", "glmbench_remote"]),
    ("suite", &["glmbench_engine", "glmbench_device"]),
    ("task", &["glmbench_engine", "glmbench_metrics", "glmbench_sandbox"]),
    ("toy_walk", &["glmbench_engine", "glmbench_device"]),
    ("workload", &["glmbench_engine", "glmbench_device"]),
];

/// A source file: its path relative to the searched folder, and its text without comments and literals.
struct Source {
    path: String,
    code: String,
}

impl Source {
    /// Returns the folder or file below `src/` that the source belongs to. A workload's file belongs to its layer.
    fn room(&self) -> &str {
        let mut parts = self.path.split(['/', '.']);
        let (first, file) = (parts.next().unwrap(), parts.nth(1).unwrap_or_default());
        Some(first).filter(|room| *room == "workload").and_then(|_| layer_of(file)).unwrap_or(first)
    }

    /// Returns the number of modules between the source and the crate root.
    fn depth(&self) -> usize {
        self.path.split('/').count() - usize::from(self.path.ends_with("/mod.rs"))
    }

    /// Returns the modules named by paths from the crate root, however the root is written. A workload's file counts as
    /// its layer.
    fn used(&self) -> Vec<String> {
        let up = "super::".repeat(self.depth());
        let roots = ["crate::", "glmbench::", &up];
        let named = roots.iter().flat_map(|root| after(&self.code, root));
        named.filter(|room| room != "workload").chain(self.used_of_workloads()).collect()
    }

    /// Returns the layers of workload files and names that the source uses. In macros, a folder is `$folder`.
    fn used_of_workloads(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (at, root) in self.code.match_indices("crate::workload::") {
            let rest = &self.code[at + root.len()..];
            if let Some((_, name)) =
                rest.split_once("::").filter(|(folder, _)| !folder.contains([' ', ';', '!']))
            {
                names.extend(after(&format!("@{name}"), "@"));
            }
        }
        if self.path.starts_with("workload/")
            && self.path.split('/').count() == 3
            && !self.path.ends_with("mod.rs")
        {
            names.extend(after(&self.code, "super::"));
        }
        names.iter().filter_map(|name| layer_of(name)).map(str::to_owned).collect()
    }

    fn line_of(&self, word: &str) -> Option<usize> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let has = |line: &str| {
            line.match_indices(word).any(|(at, _)| {
                !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word)
            })
        };
        self.code.lines().position(has).map(|line| line + 1)
    }
}

/// Returns the names directly after each `root`: one name, or those of a group in braces.
fn after(code: &str, root: &str) -> Vec<String> {
    let name = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
    let mut names = Vec::new();
    for (at, _) in code.match_indices(root) {
        let rest = &code[at + root.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.push(name(rest));
            continue;
        };
        let (mut level, mut start) = (1, 0);
        for (i, c) in group.char_indices() {
            match c {
                '{' => level += 1,
                '}' => level -= 1,
                _ => {}
            }
            if level == 0 || (level == 1 && c == ',') {
                names.push(name(group[start..i].trim()));
                start = i + 1;
            }
            if level == 0 {
                break;
            }
        }
    }
    names
}

/// Reads everything under `src/`.
fn sources() -> Vec<Source> {
    sources_in("src")
}

/// Reads every source in a folder of the checkout and blanks out comments and literals line by line.
fn sources_in(folder: &str) -> Vec<Source> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    walk(&folder, &mut files);
    files.sort();
    let read = |file: PathBuf| Source {
        path: file.strip_prefix(&folder).unwrap().to_str().unwrap().replace('\\', "/"),
        code: code_of(&fs::read_to_string(&file).unwrap()),
    };
    files.into_iter().map(read).collect()
}

/// Removes comments, strings and character literals from the text, but keeps line ends.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = literal_length(rest);
        let (skipped, tail) = rest.split_at(length.max(c.len_utf8()));
        match length {
            0 => code.push(c),
            _ => code.extend(skipped.chars().filter(|&c| c == '\n')),
        }
        rest = tail;
    }
    code
}

/// Returns the length in bytes of the comment or literal at the start of `text`; 0 for code.
fn literal_length(text: &str) -> usize {
    let until =
        |open: usize, close: &str| text[open..].find(close).map_or(text.len(), |at| open + at + close.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return until(2, "*/");
    }
    if let Some(hashes) = text.strip_prefix('r').map(|t| t.len() - t.trim_start_matches('#').len())
        && text[1 + hashes..].starts_with('"')
    {
        return until(2 + hashes, &format!("\"{}", "#".repeat(hashes)));
    }
    if text.starts_with('"') {
        let mut escaped = false;
        for (at, c) in text.char_indices().skip(1) {
            match c {
                '"' if !escaped => return at + 1,
                _ => escaped = c == '\\' && !escaped,
            }
        }
        return text.len();
    }
    if text.starts_with("'\\") {
        return until(3, "'");
    }
    // A character literal, not a lifetime: the quote closes after one character.
    let mut chars = text.char_indices();
    match (chars.next(), chars.next(), chars.next()) {
        (Some((_, '\'')), Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let imports = check_rooms("src", &ROOMS);
    assert!(imports > 300, "only {imports} imports were seen");
}

#[test]
fn rooms_of_the_cpu_device_have_no_circle() {
    let imports = check_rooms("crates/device-cpu/src", &CPU_ROOMS);
    assert!(imports > 100, "only {imports} imports were seen");
    // Each pass takes away the rooms that use none of those that are left.
    let mut left = CPU_ROOMS.to_vec();
    while !left.is_empty() {
        let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
        let before = left.len();
        left.retain(|(_, below)| below.iter().any(|used| names.contains(used)));
        assert!(left.len() < before, "a circle: {left:?}");
    }
}

/// Fails if a room in `folder` uses a room that it may not. Returns the number of imports.
fn check_rooms(folder: &str, rooms: &[(&str, &[&str])]) -> usize {
    let (mut imports, mut wrong) = (0, Vec::new());
    for source in sources_in(folder) {
        let room = source.room();
        // The root of a library uses all of its rooms.
        let Some((_, below)) = rooms.iter().find(|(name, _)| *name == room) else {
            assert_eq!(room, "lib", "{folder}/{}: a room without a rule", source.path);
            continue;
        };
        for used in source.used().iter().filter(|used| rooms.iter().any(|(name, _)| name == used)) {
            imports += 1;
            if used != room && !below.contains(&used.as_str()) {
                wrong.push(format!("{folder}/{}: {room} uses {used}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "against the directions:\n{}", wrong.join("\n"));
    imports
}

#[test]
fn a_workloads_files_are_of_its_layers() {
    let layers: Vec<(String, String)> = sources()
        .iter()
        .filter(|s| s.path.split('/').count() == 3 && s.path.starts_with("workload/"))
        .map(|s| (s.path.clone(), s.room().to_owned()))
        .collect();
    assert!(layers.len() > 15, "{layers:?}");
    let wrong: Vec<_> =
        layers.iter().filter(|(path, room)| room == "workload" && !path.ends_with("/mod.rs")).collect();
    assert!(wrong.is_empty(), "files that no layer has: {wrong:?}");
    // The reader sees a way back.
    let source = |path: &str, code: &str| Source { path: path.into(), code: code.into() };
    let back = source(
        "workload/load/record.rs",
        "use super::report::load_rows; use crate::workload::shapes::run::X;",
    );
    assert_eq!((back.room(), back.used()), ("record", vec!["run".to_owned(), "report".to_owned()]));
    let list = source("suite/cases.rs", "crate::workload::$folder::Run; crate::workload::each!(cases);");
    assert_eq!((list.room(), list.used()), ("suite", vec!["run".to_owned()]));
}

#[test]
fn rooms_use_only_the_crates_that_they_may() {
    let (mut uses, mut wrong) = (0, Vec::new());
    for source in sources() {
        let may = USERS.iter().find(|(room, _)| *room == source.room()).map_or(&[][..], |(_, crates)| crates);
        for (used, line) in CRATES.iter().filter_map(|used| Some((used, source.line_of(used)?))) {
            uses += 1;
            if !may.contains(used) {
                wrong.push(format!("src/{}:{line}: {} uses {used}", source.path, source.room()));
            }
        }
    }
    assert!(uses > 60, "only {uses} uses were seen");
    assert!(wrong.is_empty(), "against the directions:\n{}", wrong.join("\n"));
}

/// Rooms whose modules, from the top down, never use each other in a circle, by folder. The root of a room names and
/// re-exports its modules, and may use all.
const LAYERED: [(&str, &[&str]); 2] = [
    ("src", &["backend", "bench", "cli", "gate", "record", "report", "run", "stats"]),
    ("crates/engine/src", &["weights"]),
];

/// Crates whose modules never use each other in a circle. The crate root names and re-exports its modules, and may use all.
const LAYERED_CRATES: [&str; 5] = [
    "crates/engine/src",
    "crates/device-ascend/src",
    "crates/device-cpu/src",
    "crates/remote/src",
    "crates/serve/src",
];

/// Modules, each with the others that it uses.
type Uses = BTreeMap<String, BTreeSet<String>>;

#[test]
fn modules_of_a_room_have_no_circle() {
    for (folder, rooms) in LAYERED {
        let all = sources_in(folder);
        for room in rooms {
            let uses = module_uses(&all, room);
            assert!(uses.len() > 3, "only {} modules of {room} were seen", uses.len());
            let circle = circle_of(uses);
            assert!(circle.is_empty(), "a circle in {folder}/{room}: {circle:?}");
        }
    }
}

#[test]
fn modules_of_a_crate_have_no_circle() {
    for folder in LAYERED_CRATES {
        let uses = module_uses(&sources_in(folder), "");
        assert!(uses.len() > 10, "only {} modules of {folder} were seen", uses.len());
        let circle = circle_of(uses);
        assert!(circle.is_empty(), "a circle in {folder}: {circle:?}");
    }
}

/// Returns the modules in circles and those that use them; nothing if there is no circle.
fn circle_of(mut uses: Uses) -> Uses {
    // Each pass takes away the modules that use none of those that are left.
    loop {
        let left: BTreeSet<String> = uses.keys().cloned().collect();
        uses.retain(|_, used| used.iter().any(|name| left.contains(name)));
        if uses.len() == left.len() {
            return uses;
        }
    }
}

/// Returns the modules that only test builds have, by their paths without `.rs`.
fn test_modules(all: &[Source]) -> Vec<String> {
    let mut modules = Vec::new();
    for Source { path, code } in all {
        let folder = match path.strip_suffix("mod.rs").or(path.strip_suffix("lib.rs")) {
            Some(folder) => folder.to_owned(),
            None => format!("{}/", path.trim_end_matches(".rs")),
        };
        for item in code.split("#[cfg(test)]").skip(1) {
            let declared = item.trim_start().split([';', '{']).next().unwrap_or_default();
            let is_file = item.trim_start()[declared.len()..].starts_with(';');
            let name = declared.rsplit_once("mod ").filter(|(before, _)| !before.contains("use "));
            modules.extend(name.filter(|_| is_file).map(|(_, name)| format!("{folder}{name}")));
        }
    }
    modules
}

/// Returns the modules of a room, or of the crate if `room` is empty, each with the others that it uses: by their path, or
/// by a name that the root re-exports. Modules of test builds may use all.
fn module_uses(all: &[Source], room: &str) -> Uses {
    let (root, inside, path, level) = match room {
        "" => ("lib.rs".to_owned(), String::new(), "crate::".to_owned(), 0),
        _ => (format!("{room}/mod.rs"), format!("{room}/"), format!("crate::{room}::"), 1),
    };
    let tests = test_modules(all);
    let is_test = |path: &str| {
        let path = path.trim_end_matches(".rs");
        tests
            .iter()
            .any(|test| path.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    };
    let own = |s: &&Source| s.path != root && s.path.starts_with(&inside) && !is_test(&s.path);
    let module = |path: &str| path.split(['/', '.']).nth(level).unwrap().to_owned();
    let modules: BTreeSet<String> = all.iter().filter(own).map(|s| module(&s.path)).collect();
    let root = all.iter().find(|s| s.path == root).unwrap();
    let exports: BTreeMap<String, &String> = modules
        .iter()
        .flat_map(|name| {
            let paths = ["use self::", "use "].map(|path| format!("{path}{name}::"));
            let names: Vec<String> = paths.iter().flat_map(|path| after(&root.code, path)).collect();
            names.into_iter().filter(|of: &String| !of.is_empty()).map(move |of| (of, name))
        })
        .collect();
    let mut uses = Uses::new();
    for source in all.iter().filter(own) {
        let up = "super::".repeat(source.depth() - level);
        let roots = [up.as_str(), path.as_str()];
        let named = roots.iter().flat_map(|root| after(&source.code, root));
        let used = named.map(|name| exports.get(&name).map_or(name, |of| (*of).clone()));
        let name = module(&source.path);
        let others = used.filter(|used| modules.contains(used) && *used != name);
        uses.entry(name.clone()).or_default().extend(others.collect::<Vec<_>>());
    }
    uses
}

/// The walks of the architecture page name files that exist, each once in its walk.
#[test]
fn every_file_of_a_walk_exists_and_stands_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let walks = page.split_once("## Three walks").unwrap().1.split_once("## The crates").unwrap().0;
    let tables: Vec<&str> = walks.split("| --- | --- | --- |").skip(1).collect();
    assert_eq!(tables.len(), 3);
    for table in tables {
        let is_step = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit());
        let rows = table.lines().filter_map(|line| line.strip_prefix("//! | ")).filter(is_step);
        let steps = rows.filter_map(|row| row.split(" | ").nth(1));
        let files: Vec<&str> =
            steps.flat_map(|files| files.split(", ")).map(|f| f.trim_matches('`')).collect();
        assert!(files.len() > 9, "{files:?}");
        let once: BTreeSet<&str> = files.iter().copied().collect();
        assert_eq!(once.len(), files.len(), "{files:?}");
        let missing: Vec<&&str> = files.iter().filter(|file| !root.join(file).is_file()).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[test]
fn unsafe_stands_only_in_its_rooms() {
    const ROOMS: [&str; 7] = [
        "crates/device-cpu/src/",
        "crates/device-ascend/src/",
        "crates/device/src/affinity.rs",
        "crates/sandbox/src/linux/process.rs",
        "crates/engine/src/weights/map.rs",
        "crates/ascend-sys/",
        "crates/ascend-emulator/",
    ];
    let (mut seen, mut wrong) = (0, Vec::new());
    for folder in ["src", "crates", "tests", "benches"] {
        for source in sources_in(folder) {
            let path = format!("{folder}/{}", source.path);
            let Some(line) = source.line_of("unsafe") else { continue };
            seen += 1;
            if !ROOMS.iter().any(|room| path.starts_with(room)) {
                wrong.push(format!("{path}:{line}"));
            }
        }
    }
    assert!(seen > 10, "nothing unsafe was seen at all");
    assert!(wrong.is_empty(), "unsafe outside its rooms: {wrong:?}");
}

/// Returns the first use of a standard stream in a source, with its line.
fn printing(source: &Source) -> Option<String> {
    let words = ["stdout()", "stderr()"];
    words.iter().find_map(|w| source.line_of(w).map(|line| format!("{}:{line}: {w}", source.path)))
}

#[test]
fn only_the_command_line_prints() {
    let all = sources();
    assert!(all.iter().any(|s| s.room() == "cli" && printing(s).is_some()), "nobody prints at all");
    let wrong: Vec<_> = all.iter().filter(|s| s.room() != "cli").filter_map(printing).collect();
    assert!(wrong.is_empty(), "printing outside src/cli:\n{}", wrong.join("\n"));
    // Programs, benchmarks and tests of the crates may print.
    let crates = sources_in("crates");
    let may_print = ["/bin/", "/tests/", "/benches/"];
    let library = crates.iter().filter(|s| !may_print.iter().any(|part| s.path.contains(part)));
    let wrong: Vec<_> = library.filter_map(printing).collect();
    assert!(wrong.is_empty(), "printing in crates:\n{}", wrong.join("\n"));
}

/// Device and emulator meet only at the C ABI. Neither crate depends on the other or on a crate of glmbench. The client of
/// servers, the metrics and the sandbox depend on none of them either.
#[test]
fn the_crates_know_nothing_of_each_other_nor_of_us() {
    let names: Vec<&str> = ["glmbench"].into_iter().chain(CRATES).collect();
    for package in ["ascend-sys", "ascend-emulator", "metrics", "remote", "sandbox"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates").join(package).join("Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
        let needs = manifest.get("dependencies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        assert!(names.iter().all(|name| !needs.contains_key(&name.replace('_', "-"))), "{needs:?}");
        assert!(package != "ascend-emulator" || needs.is_empty(), "one call of rustc builds it: {needs:?}");
    }
}

#[test]
fn the_reader_of_sources_knows_code_from_words() {
    let code = code_of(
        "use crate::{a::B, c::{d}, e};\n// crate::f\n\"crate::\\\"g\" '\"' r#\"crate::\"h\"# &'a crate::i '\\''",
    );
    assert_eq!(after(&code, "crate::"), ["a", "c", "e", "i"]);
    assert_eq!(code.lines().count(), 3);
}
