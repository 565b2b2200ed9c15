//! The README's blocks show the actual output of the program.
//!
//! A block lies between `<!-- glmbench ARGUMENTS -->` and `<!-- end -->` and contains one fence with the command's
//! standard output. ` | TEXT` after the arguments selects a paragraph that starts with TEXT; it may be repeated.
//! ` | TEXT:N` selects only the first N lines. An ellipsis marks omitted parts. `<!-- measured glmbench … -->` depends
//! on the clock of the machine that wrote it: it is written in the same way but never compared.
//!
//! `scripts/readme_blocks.sh` rewrites blocks by running this test with `GLMBENCH_README` set to part of a command,
//! `compared` or `all`.

use std::fs;

use crate::support::answer;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const FENCE: [&str; 2] = ["```text\n", "```\n"];
const END: &str = "<!-- end -->";

/// A block of the README.
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

    /// Returns the expected fence.
    fn fence(&self) -> String {
        let out = tempfile::tempdir().unwrap();
        let mut arguments = self.arguments.clone();
        if arguments[0] == "run" {
            arguments.extend(["--out", out.path().to_str().unwrap()]);
        }
        let told = answer(&arguments);
        assert!(!told.out.is_empty(), "{} printed nothing: {}", self.command(), told.words);
        let picked = pick(&told.out, &self.picks).unwrap_or_else(|e| panic!("{}: {e}", self.command()));
        [FENCE[0], &picked, FENCE[1]].concat()
    }
}

/// Returns the README's blocks.
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

/// Compares the blocks, or rewrites those that `GLMBENCH_README` selects.
#[test]
fn the_blocks_are_what_the_program_prints() {
    let readme = fs::read_to_string(PATH).unwrap();
    let wanted = std::env::var("GLMBENCH_README").ok();
    let mut written = readme.clone();
    for block in blocks(&readme) {
        if let Some(word) = wanted.as_deref() {
            if block.is_asked_for(word) {
                written = written.replacen(block.text, &block.fence(), 1);
            }
        } else if block.measured {
            eprintln!("not compared, since measured: {}", block.command());
        } else {
            let fence = block.fence();
            assert!(
                block.text == fence,
                "README.md: `{}` prints something else by now; scripts/readme_blocks.sh writes it anew. Expected:\n{fence}",
                block.command()
            );
        }
    }
    if written != readme {
        let whole = format!("{PATH}.new");
        fs::write(&whole, written).unwrap();
        fs::rename(whole, PATH).unwrap();
    }
}

/// Program output outside of a block would become outdated unnoticed.
#[test]
fn every_output_in_the_readme_is_a_block() {
    let readme = fs::read_to_string(PATH).unwrap();
    let blocks = blocks(&readme);
    assert!(blocks.iter().any(|block| block.measured) && blocks.iter().any(|block| !block.measured));
    for block in &blocks {
        let inside = block.text.strip_prefix(FENCE[0]).and_then(|text| text.strip_suffix(FENCE[1]));
        assert!(inside.is_some_and(|text| !text.contains("```")), "one fence alone: {}", block.command());
    }
    assert_eq!(readme.matches(FENCE[0]).count(), blocks.len());
    assert_eq!(readme.matches(END).count(), blocks.len());
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
