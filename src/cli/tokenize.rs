//! `glmbench tokenize`: converts text to token ids and back, line by line.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::ModelPath;
use glmbench_engine::tokenizer::Tokenizer;

use crate::bounded;
use crate::text;

use super::{Exit, say};

/// Convert text to token ids, or ids to text, line by line
///
/// Reads one JSON string per line from standard input, and writes one JSON list of ids per line. With --decode, reads lists and
/// writes strings. The model folder needs only tokenizer files.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  echo '\"你好\"' | glmbench tokenize --model chatglm2-6b\n  \
                        echo '[36474, 54591]' | glmbench tokenize --model chatglm2-6b --decode")]
pub struct Args {
    /// Folder with tokenizer.model or tokenizer.json, or `demo`
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Put the model's prompt prefix (for ChatGLM2 `[gMASK] sop`) before the ids of each line. With --decode, omit the unknown
    /// (padding) piece as ChatGLM2's tokenizer does; plain SentencePiece shows it
    #[arg(long)]
    pub special: bool,
    /// Read lists of ids, write JSON strings
    #[arg(long)]
    pub decode: bool,
}

/// Maximum size of a line in bytes. Longer text exceeds any model's context.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Runs the verb on standard input and output.
///
/// # Errors
/// Fails if the folder has no tokenizer, or on a read or write error. An invalid line is reported on standard error
/// with its number, and the exit code is 2. Earlier lines are already written. A closed standard output is no error.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = match crate::run::found::model_path(args.model.as_os_str())? {
        ModelPath::Folder(dir) => dir,
        ModelPath::DummyChatglm2 | ModelPath::Dummy(_) => {
            anyhow::bail!("random weights have no tokenizer; give a model folder")
        }
    };
    let tokenizer = Tokenizer::from_dir(&dir)?;
    match convert_lines(&tokenizer, &Task { args, rows: rows(&dir) }, io::stdin().lock(), io::stdout().lock())
    {
        Ok(()) | Err(Stop::ReaderGone) => Ok(ExitCode::SUCCESS),
        Err(Stop::BadLine(problem)) => {
            say(&format!("error: {problem}"));
            Ok(Exit::Usage.into())
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// Returns the number of embedding rows, from a `config.json` beside the tokenizer; 0 without one. A model can generate ids of
/// rows that have no piece and therefore no text.
fn rows(dir: &Path) -> usize {
    // The tokenizer does not depend on the rotation.
    ModelConfig::shape_of(&dir.join("config.json")).map_or(0, |config| config.padded_vocab_size)
}

/// The operation to apply to each line.
struct Task<'a> {
    args: &'a Args,
    rows: usize,
}

/// Why the conversion stopped before the end of its input.
#[derive(Debug)]
enum Stop {
    BadLine(String),
    ReaderGone,
    Failed(anyhow::Error),
}

fn convert_lines(
    tokenizer: &Tokenizer,
    task: &Task<'_>,
    mut input: impl BufRead,
    mut output: impl Write,
) -> Result<(), Stop> {
    let mut line = Vec::new();
    for number in 1.. {
        let length = match bounded::line(&mut input, &mut line, MAX_LINE_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(Stop::BadLine(format!("standard input, line {number}: {error}")));
            }
            read => read.context("standard input").map_err(Stop::Failed)?,
        };
        if length == 0 {
            break;
        }
        let answer = convert(tokenizer, task, line.trim_ascii_end()).map_err(|error| {
            // The parser also counts lines, but it sees only one.
            let error = error.to_string().replace(" at line 1 column ", " at column ");
            let expected = if task.args.decode { "a JSON list of ids" } else { "a JSON string" };
            Stop::BadLine(format!("standard input, line {number}: expected {expected}: {error}"))
        })?;
        writeln!(output, "{answer}").map_err(stop_writing)?;
    }
    output.flush().map_err(stop_writing)
}

fn convert(tokenizer: &Tokenizer, task: &Task<'_>, line: &[u8]) -> serde_json::Result<String> {
    let args = task.args;
    if args.decode {
        let ids: Vec<i64> = serde_json::from_slice(line)?;
        let ids: Vec<u32> =
            ids.into_iter().map(|id| known(tokenizer, task.rows, id)).collect::<Result<_, _>>()?;
        let text = if args.special { tokenizer.decode(&ids) } else { tokenizer.decode_pieces(&ids) };
        serde_json::to_string(&text).map(|text| text::json(&text).into_owned())
    } else {
        let text: String = serde_json::from_slice(line)?;
        let ids = if args.special { tokenizer.encode_prompt(&text) } else { tokenizer.encode(&text) };
        serde_json::to_string(&ids)
    }
}

/// Returns the id if it is in the vocabulary.
fn known(tokenizer: &Tokenizer, rows: usize, id: i64) -> serde_json::Result<u32> {
    let in_vocabulary = |id: &u32| tokenizer.piece(*id).is_some() || (*id as usize) < rows;
    u32::try_from(id).ok().filter(in_vocabulary).ok_or_else(|| {
        let ids = rows.max(tokenizer.vocab_size());
        serde::de::Error::custom(format!("{id} is outside the vocabulary of {ids} ids"))
    })
}

fn stop_writing(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::ReaderGone,
        _ => Stop::Failed(anyhow::Error::new(error).context("standard output")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the folder of the tiny tokenizer in the engine: 263 pieces, ChatGLM2's settings.
    fn tiny_dir() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/engine/tests/data/tiny")
    }

    fn convert_all(input: &[u8], special: bool, decode: bool) -> (String, Result<(), Stop>) {
        let args = Args { model: tiny_dir(), special, decode };
        let tokenizer = Tokenizer::from_dir(&args.model).unwrap();
        let mut output = Vec::new();
        let end = convert_lines(&tokenizer, &Task { args: &args, rows: 268 }, input, &mut output);
        (String::from_utf8(output).unwrap(), end)
    }

    #[test]
    fn lines_go_in_and_come_out_one_by_one() {
        let (ids, end) = convert_all(b"\"ab\"\n\"\"\r\n\"\\u0061\"", false, false);
        assert!(end.is_ok());
        assert_eq!(ids, "[262]\n[]\n[261]\n");
        let (text, end) = convert_all(ids.as_bytes(), false, true);
        assert!(end.is_ok());
        assert_eq!(text, "\"ab\"\n\"\"\n\"a\"\n");
    }

    #[test]
    fn the_prefix_comes_only_when_it_is_asked_for() {
        let (plain, _) = convert_all(b"\"ab\"\n", false, false);
        let (special, _) = convert_all(b"\"ab\"\n", true, false);
        assert_eq!(special, plain.replace('[', "[264,266,"));
    }

    #[test]
    fn a_wrong_line_is_named_and_the_lines_before_it_stay() {
        for (input, decode) in [
            (&b"\"ab\"\nab\n\"a\"\n"[..], false),
            (b"\"ab\"\n\n", false),
            (b"\"ab\"\n\"\xff\"\n", false),
            (b"\"ab\"\n\"\\ud800\"\n", false),
            (b"[]\n[1.5]\n", true),
            (b"[]\n[1,\n", true),
            (b"[]\n\"a\"\n", true),
        ] {
            let (output, end) = convert_all(input, false, decode);
            assert_eq!(output.lines().count(), 1);
            assert!(
                matches!(end, Err(Stop::BadLine(problem)) if problem.contains("line 2") && problem.contains("at column"))
            );
        }
    }

    #[test]
    fn ids_outside_the_vocabulary_are_refused() {
        for id in ["-1", "4294967296", "99999", "268"] {
            let (text, end) = convert_all(format!("[262]\n[262, {id}]\n").as_bytes(), false, true);
            assert_eq!(text, "\"ab\"\n");
            let says =
                format!("line 2: expected a JSON list of ids: {id} is outside the vocabulary of 268 ids");
            assert!(matches!(end, Err(Stop::BadLine(problem)) if problem.contains(&says)), "{id}");
        }
    }

    #[test]
    fn rows_of_no_piece_and_specials_have_no_text() {
        let (text, end) = convert_all(b"[267, 262]\n[0]\n", false, true);
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(text, "\"ab\"\n\" \u{2047} \"\n");
        assert_eq!(convert_all(b"[0, 264, 262]\n", true, true).0, "\"ab\"\n");
    }

    #[test]
    fn a_reader_that_goes_away_is_no_failure() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let args = Args { model: tiny_dir(), special: false, decode: false };
        let tokenizer = Tokenizer::from_dir(&args.model).unwrap();
        assert!(matches!(
            convert_lines(&tokenizer, &Task { args: &args, rows: 0 }, &b"\"a\"\n"[..], Gone),
            Err(Stop::ReaderGone)
        ));
    }
}
