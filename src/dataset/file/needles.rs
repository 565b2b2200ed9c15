//! NeedleBench, single needle: a sentence is hidden in essays at a depth, and asked for. The rows are made from two kinds of
//! files, as OpenCompass makes them: needles, and essays with a column `text`.

use std::collections::BTreeMap;
use std::path::Path;

use glmbench_metrics::{cl100k, cl100k_text};
use rand_mt::Mt;

use super::files::leaves;
use super::rows::Row;
use crate::dataset::error::{DatasetError, Problems};
use crate::dataset::{jsonl, shorten, text};
use crate::document::DocumentError;
use crate::document::table::{Table, count, counts, found, number, string, tables};
use crate::document::tree::{Node, Value};

/// Most rows of a split.
const MOST_ROWS: usize = 100_000;

/// Where needles are hidden, and how often.
#[derive(Debug)]
pub(super) struct Haystacks {
    /// Rows for each text, length and depth.
    repeats: u32,
    essays: Vec<Essays>,
    splits: BTreeMap<String, Grid>,
}

/// A file of essays, and the needles that belong in it.
#[derive(Debug)]
struct Essays {
    file: String,
    /// Language of the needles, as their column `language` has it.
    language: String,
    /// Text in a question before which a hint is put, and the hint.
    before: String,
    hint: String,
}

/// Lengths and depths of a split.
#[derive(Debug)]
struct Grid {
    /// Tokens of cl100k that a prompt has at most, with its question.
    lengths: Vec<usize>,
    /// Per cent of the text before the needle.
    depths: Vec<f64>,
    /// Tokens that are left for the question, by the order of the essays.
    buffers: Vec<usize>,
}

impl Haystacks {
    pub(super) fn parse(mut table: Table, splits: &[String]) -> Result<Self, DocumentError> {
        let repeats = count(&table.require("repeats", "rows for each text, length and depth")?, 1)? as u32;
        let origin = table.origin.clone();
        let essays: Vec<Essays> =
            tables(&mut table, "essays")?.into_iter().map(Essays::parse).collect::<Result<_, _>>()?;
        if essays.is_empty() {
            return Err(DocumentError::at(
                &origin,
                "found no [[data.haystacks.essays]]; expected at least one",
            ));
        }
        let mut grids = BTreeMap::new();
        for mut grid in tables(&mut table, "grid")? {
            let node = grid.require("split", "the split that has these lengths and depths")?;
            let split = string(&node)?;
            if !splits.contains(&split) {
                return Err(found(
                    &node,
                    &format!("the split {split:?}"),
                    &format!("one of {}", splits.join(", ")),
                ));
            }
            let made = Grid::parse(grid, essays.len())?;
            let rows = [repeats as usize, essays.len(), made.lengths.len(), made.depths.len()];
            if rows.into_iter().try_fold(1_usize, usize::checked_mul).is_none_or(|rows| rows > MOST_ROWS) {
                return Err(found(&node, "a split of more rows", &format!("{MOST_ROWS} at most")));
            }
            grids.insert(split, made);
        }
        if let Some(lacking) = splits.iter().find(|split| !grids.contains_key(*split)) {
            let message = format!("found no [[data.haystacks.grid]] of the split `{lacking}`; expected one");
            return Err(DocumentError::at(&origin, message));
        }
        table.finish()?;
        Ok(Self { repeats, essays, splits: grids })
    }

    /// Makes the rows of a split from the text of the needle file.
    pub(super) fn rows(
        &self,
        root: &Path,
        needles: &str,
        path: &Path,
        split: &str,
        problems: &mut Problems,
    ) -> Result<Vec<(u64, Row)>, DatasetError> {
        let needles = Needle::all(needles, path, problems);
        let Some(grid) = self.splits.get(split) else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        for (essays, buffer) in self.essays.iter().zip(&grid.buffers) {
            let own: Vec<&Needle> =
                needles.iter().filter(|needle| needle.language == essays.language).collect();
            if own.is_empty() {
                problems.push(
                    path,
                    1,
                    format!("found no needle of the language {:?}; expected some", essays.language),
                );
                continue;
            }
            let file = root.join(&essays.file);
            let Some(mut texts) = Texts::read(&file, problems)? else { continue };
            for length in &grid.lengths {
                for depth in &grid.depths {
                    let spot = Spot { essays, length: *length, depth: *depth, buffer: *buffer };
                    match spot.rows(&own, &mut texts, self.repeats) {
                        Ok(made) => rows.extend(made),
                        Err((line, fault)) => {
                            problems.push(path, line, fault);
                            return Ok(Vec::new());
                        }
                    }
                }
            }
        }
        Ok(rows)
    }
}

impl Essays {
    fn parse(mut table: Table) -> Result<Self, DocumentError> {
        let node = table.require("file", "the essays' file, of JSON Lines")?;
        let file = string(&node)?;
        if leaves(&file) {
            return Err(found(&node, &format!("the file {file:?}"), "a path below the data set's folder"));
        }
        let language = string(&table.require("language", "the language of its needles")?)?;
        let before =
            string(&table.require("before", "the text of a question before which the hint stands")?)?;
        let node = table.require("hint", "the hint")?;
        // White space is a part of it.
        let Value::String(hint) = node.value else {
            return Err(found(&node, node.value.kind(), "a string"));
        };
        table.finish()?;
        Ok(Self { file, language, before, hint })
    }
}

impl Grid {
    fn parse(mut table: Table, essays: usize) -> Result<Self, DocumentError> {
        let lengths = counts(table.require("lengths", "lengths in tokens")?, "lengths in tokens")?;
        let node = table.require("depths", "per cent, or the number of equal steps from 0 to 100")?;
        let depths = depths(&node)?;
        let node =
            table.require("buffers", "the tokens left for the question, one number for each [[essays]]")?;
        let buffers = counts(node.clone(), "numbers of tokens")?;
        if buffers.len() != essays {
            return Err(found(
                &node,
                &format!("{} numbers", buffers.len()),
                &format!("{essays}, one for each essays"),
            ));
        }
        table.finish()?;
        Ok(Self { lengths, depths, buffers })
    }
}

/// Reads depths: a list of numbers, or how many equal steps there are.
fn depths(node: &Node) -> Result<Vec<f64>, DocumentError> {
    let Value::Array(list) = &node.value else {
        let many = count(node, 2)?;
        if many > 1000 {
            return Err(found(node, &many.to_string(), "1000 at most"));
        }
        let step = 100.0 / (many - 1) as f64;
        return Ok((0..many).map(|index| step * index as f64).collect());
    };
    let of = |node: &Node| match node.value {
        Value::Integer(0) => Ok(0.0),
        _ => match number(node)? {
            depth if depth <= 100.0 => Ok(depth),
            more => Err(found(node, &more.to_string(), "0 to 100 per cent")),
        },
    };
    list.iter().map(of).collect()
}

/// A sentence to hide.
struct Needle {
    line: u64,
    needle: String,
    question: String,
    keyword: String,
    language: String,
}

impl Needle {
    fn all(text: &str, path: &Path, problems: &mut Problems) -> Vec<Self> {
        let mut all = Vec::new();
        for (line, row) in jsonl::rows::<Row>(text, path, problems) {
            let of = |name: &str| match row.get(name).and_then(serde_json::Value::as_str) {
                Some(text) => Ok(text.to_owned()),
                None => Err(format!("found no text `{name}`; expected one in each needle")),
            };
            let one = || -> Result<Self, String> {
                Ok(Self {
                    line,
                    needle: of("needle")?,
                    question: of("retrieval_question")?,
                    keyword: of("arg2")?,
                    language: of("language")?,
                })
            };
            match one() {
                Ok(needle) => all.push(needle),
                Err(fault) => problems.push(path, line, fault),
            }
        }
        all
    }
}

/// Essays with their tokens, which are computed when first needed.
struct Texts {
    all: Vec<String>,
    tokens: Vec<Option<Vec<u32>>>,
}

impl Texts {
    fn read(path: &Path, problems: &mut Problems) -> Result<Option<Self>, DatasetError> {
        if !path.is_file() {
            problems.push(path, 1, "found no such file; expected the essays, of JSON Lines");
            return Ok(None);
        }
        let Some(file) = text::read(path, problems)? else { return Ok(None) };
        let mut all = Vec::new();
        for (line, row) in jsonl::rows::<Row>(&file.text, path, problems) {
            match row.get("text").and_then(serde_json::Value::as_str) {
                Some(text) => all.push(text.to_owned()),
                None => problems.push(path, line, "found no `text`; expected one in each essay"),
            }
        }
        if all.is_empty() {
            return Ok(None);
        }
        let tokens = vec![None; all.len()];
        Ok(Some(Self { all, tokens }))
    }

    /// Returns the first `most` tokens of the essays in this order.
    fn joined(&mut self, order: &[usize], most: usize) -> Result<Vec<u32>, String> {
        let mut joined = Vec::new();
        for &index in order {
            if self.tokens[index].is_none() {
                self.tokens[index] = Some(cl100k(&self.all[index]).map_err(|fault| fault.to_string())?);
            }
            joined.extend_from_slice(self.tokens[index].as_deref().unwrap_or_default());
            if joined.len() >= most {
                break;
            }
        }
        joined.truncate(most);
        Ok(joined)
    }
}

/// A length and a depth in one file of essays.
struct Spot<'a> {
    essays: &'a Essays,
    length: usize,
    depth: f64,
    buffer: usize,
}

impl Spot<'_> {
    /// Makes the rows. Each repetition shuffles the order that the one before left, and then picks a needle, both from a generator
    /// that is seeded with its number. An error has the needle's line.
    fn rows(
        &self,
        needles: &[&Needle],
        texts: &mut Texts,
        repeats: u32,
    ) -> Result<Vec<(u64, Row)>, (u64, String)> {
        let mut order: Vec<usize> = (0..texts.all.len()).collect();
        let mut rows = Vec::new();
        for repeat in 0..repeats {
            shuffle(&mut order, repeat);
            let needle = needles[below(&mut seeded(repeat), needles.len() as u32) as usize];
            let row = self.row(needle, &order, texts).map_err(|fault| (needle.line, fault))?;
            rows.push((needle.line, row));
        }
        Ok(rows)
    }

    fn row(&self, needle: &Needle, order: &[usize], texts: &mut Texts) -> Result<Row, String> {
        let Essays { file, language, before, hint } = self.essays;
        let mut parts = needle.question.split(before.as_str());
        let (Some(start), Some(end)) = (parts.next(), parts.next()) else {
            let question = shorten(&needle.question);
            return Err(format!(
                "found the question {question:?}; expected {before:?} in it, before which the hint stands"
            ));
        };
        let question = format!("{start}{hint}{before}{end}");
        let hidden = format!("\n{}\n", needle.needle);
        let own = cl100k(&hidden).map_err(|fault| fault.to_string())?;
        let most = self.length.saturating_sub(self.buffer).saturating_sub(own.len());
        let essays = texts.joined(order, most)?;
        let at = (essays.len() as f64 * (self.depth / 100.0)) as usize;
        let context = cl100k_text(&[&essays[..at], own.as_slice(), &essays[at..]].concat());
        let name = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".jsonl");
        let (depth, length) = (self.depth as u64, self.length);
        let place = format!("{name}_{length}_{depth}");
        Ok([
            ("context", context.into()),
            ("question", question.into()),
            ("needle", hidden.into()),
            ("keyword", needle.keyword.clone().into()),
            ("language", language.clone().into()),
            ("place", place.into()),
            ("length", length.into()),
            ("depth", depth.into()),
        ]
        .into_iter()
        .map(|(name, value): (&str, serde_json::Value)| (name.to_owned(), value))
        .collect())
    }
}

/// Python's generator after `random.seed(number)`.
fn seeded(number: u32) -> Mt {
    Mt::new_with_key([number])
}

/// Python's `randrange(most)`, for a `most` of at least 1.
fn below(random: &mut Mt, most: u32) -> u32 {
    let bits = 32 - most.leading_zeros();
    loop {
        let drawn = random.next_u32() >> (32 - bits);
        if drawn < most {
            return drawn;
        }
    }
}

/// Python's `random.seed(number); random.shuffle(list)`.
fn shuffle(list: &mut [usize], number: u32) {
    let mut random = seeded(number);
    for index in (1..list.len()).rev() {
        let other = below(&mut random, index as u32 + 1) as usize;
        list.swap(index, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHUFFLED: [(u32, [usize; 10], u32); 3] = [
        (0, [7, 8, 1, 5, 3, 4, 2, 0, 9, 6], 6),
        (1, [6, 8, 9, 7, 5, 3, 0, 4, 1, 2], 1),
        (9, [9, 8, 3, 2, 0, 6, 1, 4, 5, 7], 3),
    ];

    /// The numbers of CPython 3.11: `random.seed(n); l = list(range(10)); random.shuffle(l)`, then `random.seed(n);
    /// random.randrange(7)`.
    #[test]
    fn shuffles_and_choices_are_those_of_python() {
        for (seed, shuffled, chosen) in SHUFFLED {
            let mut list: Vec<usize> = (0..10).collect();
            shuffle(&mut list, seed);
            assert_eq!(list, shuffled, "seed {seed}");
            assert_eq!(below(&mut seeded(seed), 7), chosen, "seed {seed}");
        }
    }
}
