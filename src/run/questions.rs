//! The questions of a data set as prompts for timing: tokenized, truncated or padded to a length, and grouped in
//! batches.

use glmbench_engine::tokenizer::Tokenizer;

use crate::dataset::{Source, read_questions};
use crate::record::PromptsCase;
use crate::suite::{PromptSet, PromptSource};

/// Real prompts of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RealPrompts {
    /// Data set and length settings, as part of case names: `boolq-i128`, `boolq-i128-padded`.
    pub name: String,
    /// The batches, all with the same number of sequences of at least one token each.
    pub groups: Vec<Vec<Vec<u32>>>,
    /// How the prompts were made from the questions, in words.
    pub notes: Vec<String>,
}

/// All prompts of a source at one length, before grouping into batches.
pub(crate) struct Pool {
    pub name: String,
    pub prompts: Vec<Vec<u32>>,
    pub notes: Vec<String>,
}

impl Pool {
    /// Reads the questions and makes prompts of at most `input_tokens` tokens from them.
    ///
    /// # Errors
    /// A message: the data cannot be read, or a question has no tokens.
    pub(crate) fn new(
        source: &PromptSource,
        tokenizer: Option<&Tokenizer>,
        input_tokens: usize,
    ) -> Result<Self, String> {
        let tokenizer = tokenizer
            .ok_or("random weights have no tokenizer, and real prompts need one; give a model folder")?;
        let (set, questions) = questions(&source.set)?;
        let mut pool = Self { name: String::new(), prompts: Vec::new(), notes: Vec::new() };
        let (mut cut, mut padded) = (0, 0);
        for (index, question) in questions.iter().enumerate() {
            let mut ids = tokenizer.encode_prompt(question);
            if ids.is_empty() {
                return Err(format!("question {} of {set} has no token", index + 1));
            }
            if source.padding && ids.len() < input_tokens {
                pad(&mut ids, tokenizer.prefix_ids().len(), input_tokens);
                padded += 1;
            } else if source.truncate && ids.len() > input_tokens {
                ids.truncate(input_tokens);
                cut += 1;
            }
            pool.prompts.push(ids);
        }
        let count = questions.len();
        pool.notes.push(format!("{count} questions of {set}"));
        if cut > 0 {
            pool.notes.push(format!("{cut} cut to {input_tokens} tokens"));
        }
        if padded > 0 {
            pool.notes.push(format!("{padded} padded to {input_tokens} tokens by repeating them"));
        }
        let length = if source.truncate { format!("-i{input_tokens}") } else { String::new() };
        pool.name = format!("{}{length}{}", plain(&set), if source.padding { "-padded" } else { "" });
        Ok(pool)
    }

    /// Returns the length of the longest prompt in tokens.
    pub(crate) fn longest(&self) -> usize {
        self.prompts.iter().map(Vec::len).max().unwrap_or(1)
    }

    /// Groups prompts into batches of `batch`, in data order. Too few prompts are repeated; an incomplete last batch is
    /// dropped.
    /// Takes the first `groups` batches, or all of them if `None`.
    pub(crate) fn groups(&self, batch: usize, groups: Option<usize>) -> RealPrompts {
        let count = self.prompts.len();
        let mut notes = self.notes.clone();
        let all = if count < batch {
            notes.push(format!("repeated to fill a batch of {batch}"));
            vec![self.prompts.iter().cycle().take(batch).cloned().collect()]
        } else {
            if !count.is_multiple_of(batch) {
                notes.push(format!("the last {} left out: no whole batch of {batch}", count % batch));
            }
            self.prompts.chunks_exact(batch).map(<[Vec<u32>]>::to_vec).collect::<Vec<_>>()
        };
        let there = all.len();
        let taken = groups.unwrap_or(there).min(there);
        notes.push(match groups {
            Some(wanted) if wanted > there => format!("{there} batches timed: there are no {wanted}"),
            _ => format!("{taken} of {there} batches timed"),
        });
        RealPrompts { name: self.name.clone(), groups: all.into_iter().take(taken).collect(), notes }
    }
}

impl RealPrompts {
    /// Returns the prompt part of the plan record.
    pub(crate) fn record(&self) -> PromptsCase {
        let lengths = || self.groups.iter().flatten().map(|ids| ids.len() as u32);
        PromptsCase {
            source: self.name.clone(),
            groups: self.groups.len() as u32,
            shortest: lengths().min().unwrap_or(0),
            longest: lengths().max().unwrap_or(0),
            notes: self.notes.clone(),
        }
    }

    /// Returns the mean prompt length in tokens, rounded.
    pub(crate) fn mean_tokens(&self) -> usize {
        mean_tokens(self.groups.iter().flatten())
    }
}

/// Returns the mean length of prompts, rounded.
pub(crate) fn mean_tokens<'a>(prompts: impl Iterator<Item = &'a Vec<u32>>) -> usize {
    let (tokens, count) = prompts.fold((0, 0), |(tokens, count), ids| (tokens + ids.len(), count + 1));
    (2 * tokens + count) / (2 * count).max(1)
}

/// Returns the SHA-256 of all token ids, for the identity.
pub(crate) fn input_hash<'a>(prompts: impl Iterator<Item = &'a Vec<u32>>) -> String {
    let mut bytes = Vec::new();
    for ids in prompts {
        bytes.extend((ids.len() as u64).to_le_bytes());
        bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    }
    crate::dataset::sha256_hex(&bytes)
}

/// Returns the name of the set and its questions.
fn questions(set: &PromptSet) -> Result<(String, Vec<String>), String> {
    let name = |path: &std::path::Path| {
        let part = path.file_stem().unwrap_or(path.as_os_str());
        part.to_string_lossy().into_owned()
    };
    match set {
        PromptSet::Jsonl(path) => Ok((name(path), read_questions(path).map_err(|e| e.to_string())?)),
        PromptSet::Dataset(task, folder) => {
            let source = Source::open(task, folder).map_err(|e| e.to_string())?;
            let dataset = source.read(task.default_split, &[]).map_err(|e| e.to_string())?;
            Ok((name(folder), dataset.questions()))
        }
    }
}

/// Repeats the ids after the first `prefix` ids until there are `length` ids.
fn pad(ids: &mut Vec<u32>, prefix: usize, length: usize) {
    let body: Vec<u32> = ids.get(prefix..).filter(|body| !body.is_empty()).unwrap_or(ids).to_vec();
    let missing = length.saturating_sub(ids.len());
    ids.extend(body.iter().cycle().take(missing));
}

/// Replaces the characters of a name that are unsuitable for case names and files.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(lengths: &[usize]) -> Pool {
        let prompts = lengths.iter().map(|&n| (0..n as u32).collect()).collect();
        Pool { name: "p".into(), prompts, notes: vec![] }
    }

    #[test]
    fn batches_are_whole_and_what_was_done_is_told() {
        let seven = pool(&[1, 2, 3, 4, 5, 6, 7]);
        let made = seven.groups(3, None);
        let lengths: Vec<Vec<usize>> = made.groups.iter().map(|g| g.iter().map(Vec::len).collect()).collect();
        assert_eq!(lengths, [[1, 2, 3], [4, 5, 6]]);
        assert_eq!(made.notes, ["the last 1 left out: no whole batch of 3", "2 of 2 batches timed"]);
        assert_eq!((made.mean_tokens(), made.record().shortest, made.record().longest), (4, 1, 6));
        assert_eq!(seven.groups(3, Some(1)).groups.len(), 1);
        assert_eq!(seven.groups(3, Some(9)).notes[1], "2 batches timed: there are no 9");
        let more = pool(&[1, 2]).groups(5, Some(1));
        assert_eq!(more.groups[0].iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 1, 2, 1]);
        assert_eq!(more.notes[0], "repeated to fill a batch of 5");
    }

    #[test]
    fn padding_repeats_the_text_and_not_the_prefix() {
        let mut ids = vec![90, 91, 1, 2, 3];
        pad(&mut ids, 2, 10);
        assert_eq!(ids, [90, 91, 1, 2, 3, 1, 2, 3, 1, 2]);
        let mut only_prefix = vec![90, 91];
        pad(&mut only_prefix, 2, 5);
        assert_eq!(only_prefix, [90, 91, 90, 91, 90]);
    }
}
