//! `glmbench chat`: talk with a model in a terminal, or through a pipe.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Args as ClapArgs, ValueEnum};

use crate::engine::chat::{Round, build_prompt, process_response};
use crate::engine::model::Limits;
use crate::engine::sampler::{RandomSampling, Sampling};
use crate::engine::scheduler::Scheduler;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::{FinishReason, Request};

use super::engine::EngineArgs;
use super::say;

/// Talk with a model
///
/// Without --prompt, reads a question a line; `clear` forgets the conversation, `stop` ends it. The answer is streamed to
/// stdout. Draws are seeded: the same words give the same answer.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Examples:\n  glmbench chat --model chatglm2-6b\n  glmbench chat --model chatglm2-6b --prompt 你好\n  \
                        glmbench chat --model smollm2 --greedy --prompt 'Once upon a time'\n  \
                        cat questions.txt | glmbench chat --model chatglm2-6b"
)]
pub struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Ask this and end
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// What is put around a question; unless given, `rounds` where the tokenizer has [gMASK], else `plain`
    #[arg(long, value_name = "FORM")]
    template: Option<Template>,
    /// Always take the likeliest token
    #[arg(long, conflicts_with_all = ["temperature", "top_p", "top_k"])]
    greedy: bool,
    /// Spread of the draw
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f32,
    /// Draw among the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 0.8)]
    top_p: f32,
    /// Draw among so many likeliest tokens; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Divide the logits of tokens seen before by this
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Longest answer, tokens
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_new_tokens: usize,
}

/// What is put around a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Template {
    /// ChatGLM2's numbered rounds.
    Rounds,
    /// Nothing: the text is continued.
    Plain,
}

/// Longest conversation, tokens: what ChatGLM2's own chat allows.
const MAX_CONTEXT: usize = 8192;

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let sampling = sampling(args)?;
    let model = args.engine.find()?;
    let tokenizer = model
        .tokenizer()?
        .context("random weights have no tokenizer and cannot chat; give a model folder")?;
    let context = model.config.seq_length.min(MAX_CONTEXT);
    let engine = model.load(&args.engine.compute, Limits::for_batch(&model.config, 1, context))?;
    let by_files = if tokenizer.prefix_ids().is_empty() { Template::Plain } else { Template::Rounds };
    let mut chat = Chat {
        engine,
        tokenizer,
        template: args.template.unwrap_or(by_files),
        sampling,
        max_new_tokens: args.max_new_tokens.min(context.saturating_sub(1)).max(1),
        history: Vec::new(),
    };
    let mut out = io::stdout().lock();
    match &args.prompt {
        Some(prompt) => {
            chat.ask(prompt, &mut out)?;
        }
        None => converse(&mut chat, &mut out)?,
    }
    Ok(ExitCode::SUCCESS)
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
        line.clear();
        if io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let question = std::str::from_utf8(&line).with_context(|| format!("line {number} is not UTF-8"))?;
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
    engine: Scheduler,
    tokenizer: Tokenizer,
    template: Template,
    sampling: Sampling,
    max_new_tokens: usize,
    history: Vec<Round>,
}

impl Chat {
    /// Asks, streams the answer with a line's end after it, and keeps both.
    fn ask(&mut self, question: &str, out: &mut impl Write) -> anyhow::Result<()> {
        let prompt = self.prompt(question)?;
        self.engine.submit(Request {
            prompt,
            max_new_tokens: self.max_new_tokens,
            sampling: self.sampling,
            ignore_eos: false,
            choice_ids: Vec::new(),
        })?;
        let mut answer = String::new();
        let mut stream = self.tokenizer.stream();
        let mut broken = false;
        while !self.engine.is_idle() {
            let step = self.engine.step()?;
            for (_, token) in step.emitted {
                let piece = stream.push(token);
                out.write_all(piece.as_bytes())?;
                out.flush()?;
                answer += &piece;
            }
            broken |= step.finished.iter().any(|c| c.finish == FinishReason::BrokenLogits);
        }
        let rest = stream.finish();
        writeln!(out, "{rest}")?;
        answer += &rest;
        if broken {
            say("glmbench: the model's numbers broke down (NaN or infinite logits); the answer ends there");
        }
        self.history.push((question.to_owned(), process_response(&answer)));
        Ok(())
    }

    /// The conversation's ids with room for the answer; the oldest rounds are dropped when it grows too long.
    fn prompt(&mut self, question: &str) -> anyhow::Result<Vec<u32>> {
        let limits = self.engine.limits();
        let room = limits.max_context - self.engine.config().pre_seq_len.unwrap_or(0) - self.max_new_tokens;
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
                    "the question has {} tokens; with an answer of {} the model holds {room}",
                    ids.len(),
                    self.max_new_tokens
                ));
            }
            self.history.remove(0);
            say("glmbench: the oldest round was dropped, the conversation exceeds the context");
        }
    }
}
