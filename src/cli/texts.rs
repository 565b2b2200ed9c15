//! `glmbench chat --texts`: answers given texts independently, with lengths and times (ModelTest's `performance_single`
//! and `precision_single`).

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use glmbench_engine::Engine;
use glmbench_engine::chat::build_prompt;
use glmbench_engine::model::Capacity;
use glmbench_engine::sampler::Sampling;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{FinishReason, NotFinite, Request, RequestId};

use crate::bounded;
use crate::record::Phase;
use crate::report::modelled::{self, Known, marked};
use crate::text::one_line;

use super::bars::Bars;
use super::engine::EngineArgs;
use super::template::Template;
use super::{Exit, emit, say};

/// Maximum size of a file of texts, in bytes.
const MAX_BYTES: u64 = 1 << 28;

/// How texts are asked.
pub(super) struct Asked<'a> {
    pub(super) engine: &'a EngineArgs,
    /// What is put around each text; decided by the tokenizer if `None`.
    pub(super) template: Option<Template>,
    pub(super) sampling: Sampling,
    pub(super) ignore_eos: bool,
    /// Number of texts at once.
    pub(super) batch: usize,
    pub(super) max_new_tokens: usize,
}

/// Runs all texts and prints the results, batch by batch.
pub(super) fn run(args: &Asked<'_>, word: &OsStr) -> anyhow::Result<ExitCode> {
    let texts = texts(word)?;
    let model = args.engine.find()?;
    let tokenizer = model
        .tokenizer()?
        .context("random weights have no tokenizer and cannot take texts; give a model folder")?;
    let template = args.template.unwrap_or(Template::by_files(&tokenizer));
    let new_tokens = args.max_new_tokens.max(1);
    let prompts = prompts(&texts, &tokenizer, template, new_tokens, model.config.seq_length)?;
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(1);
    let batch = args.batch.min(texts.len());
    let capacity = Capacity::for_batch(&model.config, batch, longest + new_tokens);
    let mut engine = model.load(&args.engine.compute()?, capacity, &mut Bars::default())?;
    let device = engine.device_info();
    let parameters = model.config.parameters();
    // The longest prompt of all has the error that says most.
    let error = |phase| modelled::error_on(&device, parameters, phase, [batch, longest, new_tokens]);
    let errors = [Phase::Prefill, Phase::Decode, Phase::E2e].map(error);
    let mut broken = false;
    for (number, (texts, prompts)) in texts.chunks(batch).zip(prompts.chunks(batch)).enumerate() {
        let request = |prompt: &Vec<u32>| Request {
            prompt: prompt.clone(),
            max_new_tokens: new_tokens,
            sampling: args.sampling,
            ignore_eos: args.ignore_eos,
            ..Request::probe()
        };
        let answers = ask(&mut engine, prompts.iter().map(request).collect())?;
        broken |= answers.iter().any(|answer| answer.broken.is_some());
        for (i, (text, answer)) in texts.iter().zip(&answers).enumerate() {
            emit(&told(number * batch + i, text, answer, &tokenizer, &errors))?;
        }
    }
    Ok(if broken { Exit::Invalid } else { Exit::Done }.into())
}

/// The result of one text. Times are in nanoseconds since its batch was submitted.
struct Answer {
    tokens: Vec<u32>,
    /// When the first token was chosen; if none was generated, the end.
    first_ns: u64,
    end_ns: u64,
    /// The first logit that was NaN or infinite.
    broken: Option<NotFinite>,
}

/// Runs one batch to completion.
fn ask(engine: &mut Engine, requests: Vec<Request>) -> anyhow::Result<Vec<Answer>> {
    let start_ns = engine.now_ns();
    let ids = requests.into_iter().map(|r| engine.submit(r)).collect::<Result<Vec<RequestId>, _>>()?;
    let mut answers: Vec<Option<Answer>> = ids.iter().map(|_| None).collect();
    let mut first: Vec<Option<u64>> = vec![None; ids.len()];
    let index = |id: RequestId| ids.iter().position(|known| *known == id);
    while !engine.is_idle() {
        let step = engine.step()?;
        for (id, _) in &step.emitted {
            if let Some(i) = index(*id) {
                first[i].get_or_insert(step.end_ns - start_ns);
            }
        }
        for completion in step.finished {
            if let Some(i) = index(completion.id) {
                let end_ns = completion.end_ns - start_ns;
                answers[i] = Some(Answer {
                    tokens: completion.tokens,
                    first_ns: first[i].unwrap_or(end_ns),
                    end_ns,
                    broken: match completion.finish {
                        FinishReason::BrokenLogits(place) => Some(place),
                        _ => None,
                    },
                });
            }
        }
    }
    answers.into_iter().collect::<Option<Vec<_>>>().context("the engine ended before every text was answered")
}

/// Formats the lines about one text.
fn told(
    index: usize,
    text: &str,
    answer: &Answer,
    tokenizer: &Tokenizer,
    [of_first, of_next, of_all]: &[Option<Known>; 3],
) -> String {
    if let Some(place) = answer.broken {
        say(&format!("glmbench: text {index}: {place}; the answer ends there"));
    }
    let ms = |ns: u64| ns as f64 / 1e6;
    let count = answer.tokens.len();
    let next = match count {
        0 | 1 => "next tokens none".to_owned(),
        n => format!(
            "next tokens {:.3} ms each{}",
            ms(answer.end_ns - answer.first_ns) / (n - 1) as f64,
            marked(of_next.as_ref())
        ),
    };
    // A text is shown as one line. An answer may take several.
    format!(
        "Question[{index}]: {}\nAnswer[{index}]: {}\nGenerate[{index}] token num: {count}\n\
         Time[{index}]: first token {:.3} ms{}, {next}, all {:.3} ms{}\n",
        one_line(text),
        tokenizer.decode(&answer.tokens),
        ms(answer.first_ns),
        marked(of_first.as_ref()),
        ms(answer.end_ns),
        marked(of_all.as_ref())
    )
}

/// Encodes all texts. Each must leave room for its answer.
fn prompts(
    texts: &[String],
    tokenizer: &Tokenizer,
    template: Template,
    new_tokens: usize,
    seq_length: usize,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let mut prompts = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let ids = match template {
            Template::Rounds => tokenizer.encode_prompt(&build_prompt(&[], text)),
            Template::Plain => tokenizer.encode_prompt(text),
        };
        if ids.len().saturating_add(new_tokens) > seq_length {
            bail!(
                "text {index} has {} tokens; with an answer of {new_tokens} that exceeds the model's seq_length {seq_length}",
                ids.len()
            );
        }
        prompts.push(ids);
    }
    Ok(prompts)
}

/// Reads the texts: a Python list of strings, or a file with one text per line. Skips blank lines.
fn texts(word: &OsStr) -> anyhow::Result<Vec<String>> {
    let literal = word.to_str().filter(|word| word.trim_start().starts_with('['));
    let texts = match literal {
        Some(list) => python_list(list).map_err(|problem| anyhow::anyhow!("--texts {list}: {problem}"))?,
        None => lines(Path::new(word))?,
    };
    let word = word.display();
    match texts.iter().position(|text| text.trim().is_empty()) {
        Some(index) => bail!("--texts {word}: text {index} is empty"),
        None if texts.is_empty() => {
            bail!("--texts {word}: found no text; expected one text per line, or a list")
        }
        None => Ok(texts),
    }
}

fn lines(path: &Path) -> anyhow::Result<Vec<String>> {
    let place = || {
        format!(
            "--texts {}: expected a file with one text per line, or a list such as '[\"a\", \"b\"]'",
            path.display()
        )
    };
    let bytes = match bounded::file(path, MAX_BYTES) {
        Err(error) if error.kind() == ErrorKind::FileTooLarge => bail!("--texts {}: {error}", path.display()),
        read => read.with_context(place)?,
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|&b| b == b'\n').count();
        anyhow::anyhow!(
            "--texts {}:{line}: found a byte that is not UTF-8; expected UTF-8 text",
            path.display()
        )
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect())
}

/// Parses a Python list literal of strings in single or double quotes, with the escapes that occur in texts.
fn python_list(literal: &str) -> Result<Vec<String>, String> {
    let mut chars = literal.trim().chars().peekable();
    let mut texts = Vec::new();
    chars.next_if_eq(&'[').ok_or("found no `[`")?;
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        match chars.next() {
            Some(']') => break,
            Some(quote @ ('"' | '\'')) => texts.push(python_string(&mut chars, quote)?),
            Some(other) => return Err(format!("found {other:?}; expected a string in quotes or `]`")),
            None => return Err("the list has no end; expected `]`".into()),
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next_if_eq(&',').is_none() && chars.peek() != Some(&']') {
            return Err(match chars.peek() {
                Some(other) => format!("found {other:?} after a string; expected `,` or `]`"),
                None => "the list has no end; expected `]`".into(),
            });
        }
    }
    match chars.next() {
        None => Ok(texts),
        Some(other) => Err(format!("found {other:?} after the list")),
    }
}

/// Parses the rest of a string up to its closing quote.
fn python_string(chars: &mut impl Iterator<Item = char>, quote: char) -> Result<String, String> {
    let mut text = String::new();
    let no_end = || format!("a string has no end; expected {quote}");
    loop {
        match chars.next().ok_or_else(no_end)? {
            c if c == quote => return Ok(text),
            '\\' => match chars.next().ok_or_else(no_end)? {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'x' => text.push(code_point(chars, 2)?),
                'u' => text.push(code_point(chars, 4)?),
                'U' => text.push(code_point(chars, 8)?),
                '\n' => {}
                c @ ('\\' | '\'' | '"') => text.push(c),
                other => {
                    return Err(format!(
                        "found the escape \\{other}; expected \\n, \\t, \\r, \\x, \\u, \\\\ or a quote"
                    ));
                }
            },
            c => text.push(c),
        }
    }
}

/// Parses a character from `digits` hexadecimal digits.
fn code_point(chars: &mut impl Iterator<Item = char>, digits: usize) -> Result<char, String> {
    let hex: String = chars.take(digits).collect();
    let whole = hex.len() == digits && hex.chars().all(|c| c.is_ascii_hexdigit());
    let code = u32::from_str_radix(&hex, 16).ok().filter(|_| whole);
    code.and_then(char::from_u32)
        .ok_or_else(|| format!("found {hex:?}; expected {digits} digits of a character"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_list_is_read_as_python_reads_it() {
        for (literal, texts) in [
            (r#"["a", 'b']"#, vec!["a", "b"]),
            (r#"['it\'s', "a \"b\"\n", "是\u4f60", '\x41']"#, vec!["it's", "a \"b\"\n", "是你", "A"]),
            (" [ 'a' , ] ", vec!["a"]),
            ("[]", vec![]),
        ] {
            assert_eq!(python_list(literal).unwrap(), texts, "{literal}");
        }
        for (literal, says) in [
            ("['a'", "no end"),
            ("['a", "a string has no end"),
            ("['a\\", "a string has no end"),
            ("['a' 'b']", "expected `,` or `]`"),
            ("[a]", "expected a string in quotes"),
            ("['a'] x", "after the list"),
            ("['\\q']", "the escape \\q"),
            ("['\\ud800']", "digits of a character"),
            ("['\\u12']", "digits of a character"),
            ("['\\x+1']", "digits of a character"),
            ("[,]", "expected a string in quotes"),
        ] {
            let problem = python_list(literal).unwrap_err();
            assert!(problem.contains(says), "{literal}: {problem}");
        }
    }
}
