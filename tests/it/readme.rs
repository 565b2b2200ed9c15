//! Blocks of output in `README.md` and `docs/*.md` are what the program prints, and relative links in them resolve.
//!
//! A block lies between `<!-- glmbench ARGUMENTS -->` and `<!-- end -->`. It holds one fence with the command's standard output.
//! ` | TEXT` after the arguments, once or several times, picks the paragraphs that begin with TEXT. ` | TEXT:N` picks the first N
//! lines of one. An ellipsis stands for what is left out. `<!-- measured glmbench … -->` marks an output with times of the machine
//! that wrote it: such a block is written in the same way and never compared.
//!
//! A command with `--endpoint http://127.0.0.1:PORT` gets the server that the page tells its reader to start: the demo model, on one
//! thread. Its port is a free one, and the output shows that of the page.
//!
//! `scripts/readme_blocks.sh` rewrites blocks by this test with `GLMBENCH_README` set: a word of the wanted commands, `compared`
//! or `all`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::serve::Served;
use crate::support::{Answer, answer};

/// Flags of the server that the commands in the pages are for.
const SERVER: [&str; 2] = ["--threads", "1"];

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const FENCE: [&str; 2] = ["```text\n", "```\n"];
const END: &str = "<!-- end -->";

/// A page of documentation.
struct Page {
    /// Path below the checkout, with `/`.
    name: String,
    /// Its file.
    path: PathBuf,
    /// Its text.
    text: String,
}

/// `README.md` and every `docs/*.md`, in that order.
fn pages() -> Vec<Page> {
    let mut names = vec!["README.md".to_owned()];
    let docs = fs::read_dir(Path::new(ROOT).join("docs")).unwrap();
    let mut of_docs: Vec<String> = docs
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| format!("docs/{}", path.file_name().unwrap().display()))
        .collect();
    of_docs.sort();
    names.extend(of_docs);
    let page = |name: String| {
        let path = Path::new(ROOT).join(&name);
        let text = fs::read_to_string(&path).unwrap();
        Page { name, path, text }
    };
    names.into_iter().map(page).collect()
}

/// A block of a page.
#[derive(Debug, PartialEq)]
struct Block<'a> {
    /// Whether the output depends on the machine's clock.
    measured: bool,
    /// The arguments, split as by a shell.
    arguments: Vec<&'a str>,
    /// Selected paragraphs by their first words, with a number of lines. Empty for the whole output.
    picks: Vec<(&'a str, usize)>,
    /// The text between the marks.
    text: &'a str,
}

impl<'a> Block<'a> {
    /// Parses the words of a mark, without its brackets.
    fn parse(mark: &'a str, text: &'a str) -> Option<Self> {
        let measured = mark.strip_prefix("measured ");
        let mut parts = measured.unwrap_or(mark).split(" | ");
        let arguments = parts.next()?.strip_prefix("glmbench ")?.split_whitespace().collect();
        let pick =
            |part: &'a str| match part.rsplit_once(':').and_then(|(text, n)| Some((text, n.parse().ok()?))) {
                Some(pick) => pick,
                None => (part, usize::MAX),
            };
        Some(Self { measured: measured.is_some(), arguments, picks: parts.map(pick).collect(), text })
    }

    fn command(&self) -> String {
        format!("glmbench {}", self.arguments.join(" "))
    }

    /// Returns whether `word`, the value of `GLMBENCH_README`, selects this block.
    fn is_asked_for(&self, word: &str) -> bool {
        match word {
            "all" => true,
            "compared" => !self.measured,
            _ => self.command().contains(word),
        }
    }

    /// The fence as it has to be. `printed` keeps outputs by command: blocks of one command show one run of it.
    fn fence(&self, printed: &mut HashMap<String, String>) -> String {
        let output = printed.entry(self.command()).or_insert_with(|| self.output());
        let picked = pick(output, &self.picks).unwrap_or_else(|e| panic!("{}: {e}", self.command()));
        [FENCE[0], &picked, FENCE[1]].concat()
    }

    /// Runs the command and returns its standard output.
    fn output(&self) -> String {
        let out = tempfile::tempdir().unwrap();
        let mut arguments: Vec<String> = self.arguments.iter().map(|word| (*word).to_owned()).collect();
        if arguments[0] == "run" {
            arguments.extend(["--out".to_owned(), out.path().to_str().unwrap().to_owned()]);
        }
        let shown = self.arguments.iter().find_map(|word| word.strip_prefix("http://127.0.0.1:"));
        let server = shown.map(|_| Served::start(&SERVER));
        // The address of the page, and that of the server.
        let addresses = shown.zip(server.as_ref().map(|server| server.address.as_str()));
        let addresses = addresses.map(|(port, real)| (format!("127.0.0.1:{port}"), real));
        if let Some((shown, real)) = &addresses {
            arguments.iter_mut().for_each(|word| *word = word.replace(shown, real));
        }
        let told = answer(&arguments);
        assert!(!told.out.is_empty(), "{} printed nothing: {}", self.command(), told.words);
        addresses.map_or(told.out.clone(), |(shown, real)| told.out.replace(real, &shown))
    }
}

/// The blocks of a page.
fn blocks(readme: &str) -> Vec<Block<'_>> {
    let mark = |piece: &str| piece.starts_with("glmbench ") || piece.starts_with("measured glmbench ");
    let pieces = readme.split("<!-- ").skip(1).filter(|piece| mark(piece));
    let whole = |piece: &'_ str| -> Option<Block<'_>> {
        let begin = piece.as_ptr() as usize - readme.as_ptr() as usize;
        let (mark, rest) = readme[begin..].split_once(" -->\n")?;
        Block::parse(mark, &rest[..rest.find(END)?])
    };
    let block = |piece: &'_ str| whole(piece).unwrap_or_else(|| panic!("no whole block: <!-- {piece}"));
    pieces.map(block).collect()
}

/// Returns the selected paragraphs of an output.
fn pick(output: &str, picks: &[(&str, usize)]) -> Result<String, String> {
    let paragraphs: Vec<Vec<&str>> = output
        .split("\n\n")
        .map(|paragraph| paragraph.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect())
        .filter(|lines: &Vec<_>| !lines.is_empty())
        .collect();
    if picks.is_empty() {
        return Ok(output.lines().map(|line| format!("{}\n", line.trim_end())).collect());
    }
    let mut picked = String::new();
    let mut last = None;
    for (begin, lines) in picks {
        let after = last.map_or(0, |at: usize| at + 1);
        let found =
            paragraphs[after..].iter().position(|paragraph| paragraph[0].trim_start().starts_with(begin));
        let at =
            after + found.ok_or_else(|| format!("no paragraph after the {after}th begins with {begin:?}"))?;
        if last.is_some() {
            picked += if at > after { "…\n" } else { "\n" };
        }
        let shown = &paragraphs[at][..paragraphs[at].len().min(*lines)];
        shown.iter().for_each(|line| picked += &format!("{line}\n"));
        last = Some(at);
        if shown.len() < paragraphs[at].len() {
            picked += "…\n";
        }
    }
    Ok(picked)
}

/// Compares, or rewrites what `GLMBENCH_README` asks for.
#[test]
fn the_blocks_are_what_the_program_prints() {
    let wanted = std::env::var("GLMBENCH_README").ok();
    let mut printed = HashMap::new();
    for Page { name, path, text } in pages() {
        let mut written = text.clone();
        for block in blocks(&text) {
            if let Some(word) = wanted.as_deref() {
                if block.is_asked_for(word) {
                    written = written.replacen(block.text, &block.fence(&mut printed), 1);
                }
            } else if block.measured {
                eprintln!("{name}: not compared, since measured: {}", block.command());
            } else {
                let fence = block.fence(&mut printed);
                assert!(
                    block.text == fence,
                    "{name}: `{}` prints something else by now; scripts/readme_blocks.sh rewrites the block. Expected:\n{fence}",
                    block.command()
                );
            }
        }
        if written != text {
            let whole = path.with_extension("md.new");
            fs::write(&whole, written).unwrap();
            fs::rename(whole, path).unwrap();
        }
    }
}

/// Returns the fence of shell commands that start a server behind them.
fn server_example(page: &str) -> &str {
    let fences = page.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split_once("```\n")?.0));
    fences.into_iter().find(|fence| fence.contains("glmbench serve") && fence.contains(" &\n")).unwrap()
}

/// Whoever pastes the example gets a server and a run on it, without another step before. The test has another port, and dry runs.
#[cfg(unix)]
#[test]
fn the_example_of_an_endpoint_starts_its_own_server() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/SERVING.md")).unwrap();
    let example = server_example(&page);
    let pasted =
        example.replace("--port 18123", "--port 0").replace("--api vllm\n", "--api vllm --dry-run\n");
    assert!(
        pasted.contains("--port 0") && !pasted.contains("18123") && pasted.contains(&SERVER.join(" ")),
        "{example}"
    );
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_glmbench")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    // The suites of the checkout, and what the example writes beside them.
    std::os::unix::fs::symlink(Path::new(ROOT).join("suites"), folder.path().join("suites")).unwrap();
    // If a line fails, the server ends as well.
    let script = format!("set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{pasted}");
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]).current_dir(folder.path()).env("PATH", path);
    let told = Answer::of(shell.stdin(Stdio::null()).output().unwrap()).expect(0, &[]);
    assert_eq!(told.out.matches("total     750 requests").count(), 2, "{told:?}");
}

/// An output outside of a block would grow stale unseen.
#[test]
fn every_output_in_the_pages_is_a_block() {
    let pages = pages();
    let all: Vec<Block<'_>> = pages.iter().flat_map(|page| blocks(&page.text)).collect();
    assert!(all.iter().any(|block| block.measured) && all.iter().any(|block| !block.measured));
    for Page { name, text, .. } in &pages {
        let blocks = blocks(text);
        for block in &blocks {
            let inside = block.text.strip_prefix(FENCE[0]).and_then(|text| text.strip_suffix(FENCE[1]));
            let alone = inside.is_some_and(|text| !text.contains("```"));
            assert!(alone, "{name}: expected one fence alone: {}", block.command());
        }
        assert_eq!(text.matches(FENCE[0]).count(), blocks.len(), "{name}");
        assert_eq!(text.matches(END).count(), blocks.len(), "{name}");
    }
}

/// A draft marks an output that is still to come with this word.
#[test]
fn no_page_has_a_placeholder() {
    for Page { name, text, .. } in pages() {
        let found = text.lines().find(|line| line.contains("OUTPUT-"));
        assert_eq!(found, None, "{name} has a placeholder");
    }
}

/// The first fence of the README has the commands that `.ci/run` runs.
#[test]
fn the_readme_begins_with_the_two_commands() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```sh\n").unwrap();
    let (first, _) = rest.split_once("```\n").unwrap();
    let commands: Vec<&str> =
        first.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).collect();
    assert_eq!(commands, ["cargo run --release -- run suites/quickstart.toml", "cargo test --release"]);
    let ci = fs::read_to_string(Path::new(ROOT).join(".ci/run")).unwrap();
    assert!(commands.iter().all(|command| ci.lines().any(|line| line.starts_with(command))), "{ci}");
}

/// The anchor that a forge makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
        _ => None,
    };
    heading.trim().to_lowercase().chars().filter_map(kept).collect()
}

/// Whether a page has a heading with this anchor.
fn has_anchor(text: &str, wanted: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).any(|found| found == wanted)
}

#[test]
fn every_relative_link_resolves() {
    let mut seen = 0;
    for Page { name, path, text } in pages() {
        let links = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        for link in links.filter(|link| !link.contains("://")) {
            seen += 1;
            let (file, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{name}: the link {link} leads to no file");
            let resolves = wanted.is_empty() || has_anchor(&fs::read_to_string(&target).unwrap(), wanted);
            assert!(resolves, "{name}: the link {link} leads to no heading");
        }
    }
    assert!(seen > 10, "only {seen} links were seen");
}

#[test]
fn a_mark_says_what_is_shown() {
    let readme = "a\n<!-- glmbench list suites -->\n```text\nx\n```\n<!-- end -->\nb\n<!-- a word -->\n\
        <!-- measured glmbench run s.toml --only cpu | Accuracy | Speed, B:3 -->\ny<!-- end -->\n";
    let found = blocks(readme);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].command(), "glmbench list suites");
    assert_eq!((found[0].measured, found[0].text), (false, "```text\nx\n```\n"));
    assert_eq!((found[1].measured, found[1].text), (true, "y"));
    assert_eq!(found[1].picks, [("Accuracy", usize::MAX), ("Speed, B", 3)]);
}

#[test]
fn paragraphs_are_picked_in_their_order() {
    let output = "One\n 1  \n\nTwo\n 2\n\nThree\n 3\n 4\n";
    let picked = |picks: &[(&str, usize)]| pick(output, picks);
    let all = usize::MAX;
    assert_eq!(picked(&[]).unwrap(), "One\n 1\n\nTwo\n 2\n\nThree\n 3\n 4\n");
    assert_eq!(picked(&[("One", all), ("Two", all)]).unwrap(), "One\n 1\n\nTwo\n 2\n");
    assert_eq!(picked(&[("One", all), ("Three", 2)]).unwrap(), "One\n 1\n…\nThree\n 3\n…\n");
    assert_eq!(
        picked(&[("Three", all), ("One", all)]).unwrap_err(),
        "no paragraph after the 3th begins with \"One\""
    );
}
