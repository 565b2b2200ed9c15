//! `glmbench chat`: talk to a model in a terminal or through a pipe.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::Args as ClapArgs;

use glmbench_engine::Engine;
use glmbench_engine::chat::{Round, build_prompt, process_response};
use glmbench_engine::model::Capacity;
use glmbench_engine::sampler::{RandomSampling, Sampling};
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{FinishReason, Request};

use crate::bounded;
use crate::text::printable;

use super::bars::Bars;
use super::engine::EngineArgs;
use super::template::Template;
use super::texts::Asked;
use super::{Exit, say};

/// Chat with a model
///
/// Without --prompt, reads one question per line. `clear` forgets the conversation, and `stop` ends it. The answer is streamed to
/// standard output. Sampling is seeded: the same questions give the same answers.
///
/// With --texts, each text is a conversation of its own. For each, prints its answer, token count and times: `Question[0]`,
/// `Answer[0]`, `Generate[0] token num`, `Time[0]`. This is ModelTest's precision_single, and with --ignore-eos its
/// performance_single. Times count from the submission of the text's batch.
///
/// An answer ends at a NaN or infinite logit. A message names its position, and the exit code is 4.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench chat --model chatglm2-6b\n  glmbench chat --model chatglm2-6b --prompt 你好\n  \
                        glmbench chat --model smollm2 --rope-scaling base --greedy --prompt 'Once upon a time'\n  \
                        cat questions.txt | glmbench chat --model chatglm2-6b\n  \
                        glmbench chat --model demo --greedy --texts questions.txt --batch 4 --max-new-tokens 32\n  \
                        glmbench chat --model demo --greedy --texts \"['What is a bus?', '你好']\" --ignore-eos"
)]
pub struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Ask this question and exit
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Answer each text on its own: a file with one text per line, or a Python list of strings
    #[arg(long, value_name = "FILE|LIST", conflicts_with = "prompt")]
    texts: Option<OsString>,
    /// Number of texts to answer at once
    #[arg(long, value_name = "N", default_value_t = 1, requires = "texts", value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Generate --max-new-tokens tokens for every text, even past its end
    #[arg(long, requires = "texts")]
    ignore_eos: bool,
    /// Text around a question [default: rounds if the tokenizer has [gMASK], else plain]
    #[arg(long, value_name = "FORM")]
    template: Option<Template>,
    /// Always take the most likely token
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "top_k"])]
    greedy: bool,
    /// Temperature of the sampling
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f32,
    /// Sample from the most likely tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 0.8)]
    top_p: f32,
    /// Sample from this number of most likely tokens; 0 means all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Divide the logits of tokens seen before by this
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Seed of the sampling
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Maximum length of an answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_new_tokens: usize,
}

/// Maximum size of a line of standard input in bytes, far more than a conversation's tokens need.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Maximum conversation length in tokens, as in ChatGLM2's own chat.
const MAX_CONTEXT: usize = 8192;

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sampling = sampling(args)?;
    if let Some(texts) = &args.texts {
        let asked = Asked {
            engine: &args.engine,
            template: args.template,
            sampling,
            ignore_eos: args.ignore_eos,
            batch: usize::from(args.batch),
            max_new_tokens: args.max_new_tokens,
        };
        return super::texts::run(&asked, texts);
    }
    let model = args.engine.find()?;
    let tokenizer = model
        .tokenizer()?
        .context("random weights have no tokenizer and cannot chat; give a model folder")?;
    let context = model.config.seq_length.min(MAX_CONTEXT);
    let engine = model.load(
        &args.engine.compute()?,
        Capacity::for_batch(&model.config, 1, context),
        &mut Bars::default(),
    )?;
    let by_files = Template::by_files(&tokenizer);
    let mut chat = Chat {
        engine,
        tokenizer,
        template: args.template.unwrap_or(by_files),
        sampling,
        max_new_tokens: args.max_new_tokens.min(context.saturating_sub(1)).max(1),
        history: Vec::new(),
        broken: false,
    };
    let mut out = io::stdout().lock();
    match &args.prompt {
        Some(prompt) => {
            chat.ask(prompt, &mut out)?;
        }
        None => converse(&mut chat, &mut out)?,
    }
    Ok(if chat.broken { Exit::Invalid } else { Exit::Done }.into())
}

fn sampling(args: &Args) -> anyhow::Result<Sampling> {
    if args.greedy {
        return Ok(Sampling::Greedy);
    }
    let random = RandomSampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        repetition_penalty: args.repetition_penalty,
        seed: args.seed,
    };
    random.check().map_err(|problem| anyhow!("{problem}"))?;
    Ok(Sampling::Random(random))
}

/// Reads questions until the end of input or `stop`.
fn converse(chat: &mut Chat, out: &mut impl Write) -> anyhow::Result<()> {
    let person = io::stdin().is_terminal();
    if person {
        say("Type a question; `clear` forgets the conversation, `stop` ends it.");
    }
    let mut line = Vec::new();
    for number in 1.. {
        if person {
            let _ = write!(io::stderr().lock(), "> ");
        }
        let length = bounded::line(&mut io::stdin().lock(), &mut line, MAX_LINE_BYTES);
        if length.with_context(|| format!("standard input, line {number}"))? == 0 {
            break;
        }
        let question = std::str::from_utf8(&line).with_context(|| {
            format!("standard input, line {number}: found a byte that is not UTF-8; expected text")
        })?;
        match question.trim() {
            "" => {}
            "stop" => break,
            "clear" => chat.history.clear(),
            question => chat.ask(question, out)?,
        }
    }
    Ok(())
}

/// A conversation.
struct Chat {
    engine: Engine,
    tokenizer: Tokenizer,
    template: Template,
    sampling: Sampling,
    max_new_tokens: usize,
    history: Vec<Round>,
    /// Whether an answer ended because of a NaN or infinite logit.
    broken: bool,
}

impl Chat {
    /// Asks a question, streams the answer followed by a line end, and stores both in the history.
    fn ask(&mut self, question: &str, out: &mut impl Write) -> anyhow::Result<()> {
        let prompt = self.prompt(question)?;
        let length = prompt.len();
        self.engine.submit(Request {
            prompt,
            max_new_tokens: self.max_new_tokens,
            sampling: self.sampling,
            ignore_eos: false,
            ..Request::probe()
        })?;
        let mut answer = String::new();
        let mut stream = self.tokenizer.stream();
        let mut broken = None;
        while !self.engine.is_idle() {
            let step = self.engine.step()?;
            for (_, token) in step.emitted {
                let piece = stream.push(token);
                out.write_all(printable(&piece).as_bytes())?;
                out.flush()?;
                answer += &piece;
            }
            for completion in step.finished {
                if let FinishReason::BrokenLogits(place) = completion.finish {
                    broken = Some(place);
                }
            }
        }
        let rest = stream.finish();
        writeln!(out, "{}", printable(&rest))?;
        answer += &rest;
        if let Some(place) = broken {
            self.broken = true;
            say(&format!("glmbench: {place}; the prompt has {length} tokens, and the answer ends there"));
        }
        self.history.push((question.to_owned(), process_response(&answer)));
        Ok(())
    }

    /// Returns the conversation's ids, leaving room for the answer. Drops the oldest rounds if it grows too long.
    fn prompt(&mut self, question: &str) -> anyhow::Result<Vec<u32>> {
        let capacity = self.engine.capacity();
        let room = capacity.max_context - self.engine.config().pre_seq_len.unwrap_or(0) - self.max_new_tokens;
        loop {
            let text = match self.template {
                Template::Rounds => build_prompt(&self.history, question),
                Template::Plain => question.to_owned(),
            };
            let ids = self.tokenizer.encode_prompt(&text);
            if ids.len() <= room {
                return if ids.is_empty() { Err(anyhow!("the question is empty")) } else { Ok(ids) };
            }
            if self.history.is_empty() || self.template == Template::Plain {
                return Err(anyhow!(
                    "the question has {} tokens; with an answer of {}, at most {room} fit into the model's context",
                    ids.len(),
                    self.max_new_tokens
                ));
            }
            self.history.remove(0);
            say("glmbench: dropped the oldest round, because the conversation exceeds the context");
        }
    }
}
