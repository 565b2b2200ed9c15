//! `glmbench parity`: teacher-forced comparison of logits with a reference file or another device.

mod file;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use serde::Serialize;

use glmbench_device::DeviceKind;

use glmbench_engine::{Engine, EngineError};

use crate::bench::{
    OrdinaryTokens, Shape, capacity_for, compare_logits, continuation, prompts as random_prompts,
};
use crate::compute::{Against, Compute, ComputeSpec};
use crate::run::found::FoundModel;
use crate::stats::parity::{Divergence, ParitySummary, PositionParity};

use self::file::against_file;
use super::bars::Bars;
use super::engine::EngineArgs;
use super::prompts::read_prompts;
use super::{emit, gate_exit, json_text};

/// Compare logits position by position with a reference (teacher-forced)
///
/// The reference is a file of `glmbench logits` (or arrays with the same names), or the same model on another device or in
/// another type. The flag --emulate applies to the side that is an Ascend card. Both sides see the same tokens. KL is
/// KL(reference ||
/// engine) in nats, over the whole vocabulary.
///
/// Both sides also generate greedily. Where they choose different tokens, the reference's logits must nearly tie. Otherwise
/// decoding differs from prefill, and the gate fails.
///
/// The exit code is 1 if the gate fails, and 4 if a logit is NaN or infinite.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    engine: EngineArgs,
    /// Reference logits: a safetensors file with `prompt<i>` and, if there, `greedy<i>` and `decode<i>`
    #[arg(
        long,
        value_name = "F.safetensors",
        required_unless_present = "against",
        conflicts_with = "against"
    )]
    reference: Option<PathBuf>,
    /// Reference device and type, e.g. `reference:fp32` or `cpu:bf16`
    #[arg(long, value_name = "DEVICE[:DTYPE]")]
    against: Option<Against>,
    /// JSON file with the prompts, a list of lists of token ids [default: those recorded in the reference file, or four prompts
    /// of random tokens]
    #[arg(long, value_name = "P.json")]
    prompts: Option<PathBuf>,
    /// Prefix of the array names in the reference file, e.g. `fp16.`
    #[arg(long, value_name = "TEXT", default_value = "")]
    array_prefix: String,
    /// Tokens of free-running continuation to compare (with --against). The gate fails if
    /// the first divergence of a prompt is no tie. In a tie, the reference prefers its token by at most twice the largest difference
    /// of a logit there
    #[arg(long, value_name = "N", default_value_t = 32)]
    decode: usize,
    /// Gate: maximum KL at any position, in nats
    #[arg(long, value_name = "NATS", default_value_t = 1e-3)]
    max_kl: f64,
    /// Count positions with a KL above this, in nats
    #[arg(long, value_name = "NATS", default_value_t = 1e-4)]
    kl_threshold: f64,
    /// Gate: maximum share of positions above the threshold
    #[arg(long, value_name = "SHARE", default_value_t = 0.005)]
    max_share: f64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Drops the emulation of a device that is no card: `--emulate` and `--profile` apply to whichever side is one.
fn emulated_if_card(spec: ComputeSpec) -> ComputeSpec {
    if spec.device.is_some_and(DeviceKind::is_card) {
        return spec;
    }
    ComputeSpec { emulation: None, profile: None, ..spec }
}

/// Returns how the engine computes.
fn engine_compute(args: &Args) -> Result<Compute, EngineError> {
    let spec = args.engine.compute.spec();
    // If neither side is a card, the flags stay and are rejected as usual.
    let card_opposite = args.against.is_some_and(|against| against.device.is_card());
    Compute::of_flags(&if card_opposite { emulated_if_card(spec) } else { spec })
}

/// Names an engine, for tables.
fn named(engine: &Engine) -> String {
    let info = engine.device_info();
    let ranks = if info.tp > 1 { format!(" tp {}", info.tp) } else { String::new() };
    format!("{} {}{ranks}", info.name, info.precision)
}

/// The printed result.
#[derive(Serialize)]
struct Outcome {
    engine: String,
    reference: String,
    positions: usize,
    kl_mean: f64,
    kl_p99: f64,
    kl_max: f64,
    kl_threshold: f64,
    share_above_threshold: f64,
    top1_agreement: f64,
    top5_overlap: f64,
    max_abs_difference: f32,
    /// Continuations compared, and the tokens generated in all of them.
    continuations: usize,
    continued_tokens: usize,
    /// Continuations that diverge, and continuations with a first divergence that is no tie. The gate counts the latter.
    divergences: usize,
    divergences_beyond_ties: usize,
    /// The first divergence that is no tie, or else the first.
    first_divergence: Option<Diverged>,
    pass: bool,
}

/// Where two free-running continuations diverge.
#[derive(Serialize, Clone, Copy)]
struct Diverged {
    prompt: usize,
    step: usize,
    reference_token: u32,
    token: u32,
    margin: f64,
    tie: f64,
    is_tie: bool,
}

impl From<&Divergence> for Diverged {
    fn from(of: &Divergence) -> Self {
        let Divergence { prompt, step, reference_token, token, margin, tie } = *of;
        Self { prompt, step, reference_token, token, margin, tie, is_tie: of.is_tie() }
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let model = args.engine.find()?;
    let compared = match (&args.reference, args.against) {
        (Some(path), _) => against_file(args, &model, path)?,
        (None, Some(against)) => against_device(args, &model, against)?,
        (None, None) => bail!("expected --reference FILE or --against DEVICE"),
    };
    let summary = ParitySummary::new(&compared.positions, args.kl_threshold)
        .context("there are no positions to compare")?;
    let continued = &compared.continued;
    let beyond = || continued.divergences.iter().filter(|divergence| !divergence.is_tie());
    let outcome = Outcome {
        engine: compared.engine,
        reference: compared.reference,
        positions: summary.positions,
        kl_mean: summary.kl_mean,
        kl_p99: summary.kl_p99,
        kl_max: summary.kl_max,
        kl_threshold: args.kl_threshold,
        share_above_threshold: summary.share_above,
        top1_agreement: summary.top1_agreement,
        top5_overlap: summary.top5_overlap,
        max_abs_difference: summary.max_abs,
        continuations: continued.prompts,
        continued_tokens: continued.tokens,
        divergences: continued.divergences.len(),
        divergences_beyond_ties: beyond().count(),
        first_divergence: beyond().next().or(continued.divergences.first()).map(Diverged::from),
        pass: summary.kl_max <= args.max_kl
            && summary.share_above <= args.max_share
            && beyond().next().is_none(),
    };
    let mut text = if args.json { json_text(&outcome)? } else { words(&outcome, args) };
    let is_off = outcome.kl_max > args.max_kl || outcome.share_above_threshold > args.max_share;
    if !args.json && is_off && compared.has_integers {
        text.push_str(OVER_INTEGERS);
    }
    match emit(&text) {
        // The exit code is the result, even if nobody reads the table.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(gate_exit(outcome.pass)),
    }
}

fn words(o: &Outcome, args: &Args) -> String {
    let divergence = match o.first_divergence {
        None => "none".to_owned(),
        Some(d) => {
            let Diverged { prompt, step, token, reference_token, margin, tie, .. } = d;
            format!(
                "prompt {prompt}, step {step}: token {token} for {reference_token}, which the reference prefers by {margin:.1e} \
                 nat (a tie: at most {tie:.1e})"
            )
        }
    };
    format!(
        "engine                   {}\n\
         reference                {}\n\
         positions                {}\n\
         KL mean                  {:.3e} nat\n\
         KL 99 %                  {:.3e} nat\n\
         KL max                   {:.3e} nat   (gate: at most {:.0e})\n\
         share above {:.0e}        {:.3} %   (gate: at most {:.2} %)\n\
         top-1 agreement          {:.3} %\n\
         top-5 overlap            {:.3} %\n\
         max |difference|         {:.3e}\n\
         free continuations       {} of {} tokens in all\n\
         divergences              {}, no ties: {}   (gate: none that is no tie)\n\
         first free divergence    {divergence}\n\
         parity                   {}",
        o.engine,
        o.reference,
        o.positions,
        o.kl_mean,
        o.kl_p99,
        o.kl_max,
        args.max_kl,
        o.kl_threshold,
        100.0 * o.share_above_threshold,
        100.0 * args.max_share,
        100.0 * o.top1_agreement,
        100.0 * o.top5_overlap,
        o.max_abs_difference,
        o.continuations,
        o.continued_tokens,
        o.divergences,
        o.divergences_beyond_ties,
        if o.pass { "PASS" } else { "FAIL" }
    )
}

/// Added where logits fail the gate and a side quantises activations.
const OVER_INTEGERS: &str = "\nThe default gate is for float activations. With integers, one rounding can become a whole step: set \
     --max-kl and --max-share";

/// The comparison of two engines' logits.
struct Compared {
    engine: String,
    reference: String,
    /// Whether a side quantises activations.
    has_integers: bool,
    positions: Vec<PositionParity>,
    continued: Continued,
}

/// The free-running continuations of all prompts.
#[derive(Default)]
struct Continued {
    prompts: usize,
    tokens: usize,
    divergences: Vec<Divergence>,
}

/// A prompt's continuation on both sides.
struct Continuation {
    prompt: usize,
    /// Tokens of the prompt.
    length: usize,
    /// Index of the first token that differs, and both sides' tokens.
    differs: Option<(usize, [u32; 2])>,
}

impl Continued {
    /// Continues a prompt with the engine, beside the tokens `greedy` of the reference.
    fn generate(
        &mut self,
        engine: &mut Engine,
        index: usize,
        prompt: &[u32],
        greedy: &[u32],
    ) -> anyhow::Result<Continuation> {
        let ours = continuation(engine, prompt, greedy.len())?;
        self.prompts += usize::from(!greedy.is_empty());
        self.tokens += greedy.len();
        let step = ours.iter().zip(greedy).position(|(ours, theirs)| ours != theirs);
        let differs = step.map(|step| (step, [greedy[step], ours[step]]));
        Ok(Continuation { prompt: index, length: prompt.len(), differs })
    }

    /// Keeps the divergence of a continuation if it is at this position, with both sides' teacher-forced logits there.
    fn look(&mut self, of: &Continuation, position: usize, theirs: &[f32], ours: &[f32]) {
        if let Some((step, tokens)) = of.differs
            && position + 1 == of.length + step
        {
            self.divergences.push(Divergence::new(of.prompt, step, tokens, theirs, ours));
        }
    }
}

/// Compares with the same model on another device.
fn against_device(args: &Args, model: &FoundModel, against: Against) -> anyhow::Result<Compared> {
    let prompts = match &args.prompts {
        Some(path) => read_prompts(path, &model.config)?,
        None => default_prompts(model),
    };
    let capacity = capacity_for(&model.config, &prompts, args.decode);
    let other = Compute::of_flags(&emulated_if_card(against.spec(args.engine.compute.spec())))?;
    let own = engine_compute(args)?;
    let mut reference = model.load(&other, capacity, &mut Bars::default())?;
    let mut engine = model.load(&own, capacity, &mut Bars::default())?;
    let mut positions = Vec::new();
    let mut continued = Continued::default();
    for (i, prompt) in prompts.iter().enumerate() {
        let greedy = continuation(&mut reference, prompt, args.decode)?;
        let free = continued.generate(&mut engine, i, prompt, &greedy)?;
        let fed: Vec<u32> = prompt.iter().chain(&greedy).copied().collect();
        let of = format!("prompt {i}");
        compare_logits(&mut reference, &mut engine, &fed, &of, &mut |position, theirs, ours| {
            positions.push(PositionParity::new(theirs, ours));
            continued.look(&free, position, theirs, ours);
        })?;
    }
    let has_integers =
        [&engine, &reference].iter().any(|e| e.device_info().precision.quantises_activations());
    Ok(Compared { engine: named(&engine), reference: named(&reference), has_integers, positions, continued })
}

/// Returns four prompts of seeded random tokens, short enough for a small context.
fn default_prompts(model: &FoundModel) -> Vec<Vec<u32>> {
    let mut tokens = OrdinaryTokens::of_vocabulary(model.config.padded_vocab_size);
    // Parity needs no text, so a folder without a tokenizer is accepted.
    if let Ok(Some(tokenizer)) = model.tokenizer() {
        tokens.prefix = tokenizer.prefix_ids().to_vec();
        tokens.range.end = tokens.range.end.min(tokenizer.vocab_size() as u32).max(tokens.range.start + 1);
    }
    let longest = (model.config.seq_length / 2).min(256);
    let lengths = [1, longest / 8, longest / 2, longest];
    let shape = |input| Shape { batch: 1, input_tokens: usize::max(input, 1), output_tokens: 0 };
    lengths.iter().zip(1..).flat_map(|(&n, seed)| random_prompts(shape(n), &tokens, seed)).collect()
}
