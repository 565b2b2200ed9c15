//! `glmbench quantize`: a quantised checkpoint in ModelSlim's layout.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::DecimalBytes;
use serde::Deserialize;

use glmbench_device::words::one_of;
use glmbench_device::{DType, KvForm, Role};
use glmbench_engine::config::{ModelConfig, RopeScaling, Scheme, default_float};
use glmbench_engine::quantise::{ActMethod, Control, Estimate, Job, Progress, Report, Settings};
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::weights::layout::LinearId;

use crate::dataset::{CEVAL, Source, read_jsonl};
use crate::run::found::FoundModel;
use crate::run::observer::BYTES;
use crate::task::{self, Evaluation};

use super::engine::ROPE_SCALING;
use super::progress::{self, Bar};
use super::signals::{self, Watch};

/// Prompts that `--calibration ceval` takes, as many as ModelSlim's script for ChatGLM2 has.
const PROMPTS: usize = 20;
/// The subject of the prompts in that script.
const SUBJECT: &str = "civil_servant";

/// Make a quantised checkpoint of a float model, as ModelSlim does
///
/// Writes a new folder OUT: quant_model_weight_SCHEME.safetensors, quant_model_description_SCHEME.json, config.json with the
/// key `quantize`, and the tokenizer files. `glmbench run --model OUT` and MindIE read it. int4 and int8 checkpoints of THUDM are
/// rewritten with `--scheme w8a16`.
///
/// w8a8 and w8a8s need a calibration, and so do --smooth, --search-float and --kv c8: the model runs over prompts on the CPU. An
/// interrupted calibration goes on when the same command is run again. OUT appears complete, by one rename, or stays as it was.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the float model, or `demo`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// New or empty folder
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The scheme
    #[arg(long, value_name = "SCHEME", value_parser = scheme, help = scheme_help())]
    scheme: Scheme,
    /// Adds scales of an int8 KV cache: `c8`
    #[arg(long, value_name = "KV", value_parser = kv_form())]
    kv: Option<KvForm>,
    /// Prompts to calibrate with: a file with one JSON object a line (`inputs_pretokenized`, `prompt`, `text` or `ids`), or
    /// `ceval` for 5-shot prompts of C-Eval
    #[arg(long, value_name = "FILE.jsonl|ceval")]
    calibration: Option<PathBuf>,
    /// Folder of C-Eval for `--calibration ceval` [default: datasets/ceval, else the sample]
    #[arg(long, value_name = "DIR")]
    set: Option<PathBuf>,
    /// Linear layers to leave in float, by name or by its end: `default` (ModelSlim's list for the scheme), `none`, `output_layer`,
    /// `dense_4h_to_h`, `layers.3.mlp.dense_4h_to_h`. [default: `default`, or `output_layer` with --search-float]
    #[arg(long, value_name = "NAME,…")]
    leave_float: Vec<String>,
    /// Leaves N more layers in float: those with the largest output errors, relative or absolute, as the logits decide. Prints the
    /// ranking: relative error, absolute error, layer
    #[arg(long, value_name = "N")]
    search_float: Option<usize>,
    /// Ranges of activations: 1 min-max, 2 histogram, 3 the better of both for each layer [default: 1]
    #[arg(long, value_name = "1|2|3", value_parser = clap::value_parser!(u8).range(1..=3))]
    act_method: Option<u8>,
    /// Inputs that share a scale under w4a16; 0 for one scale per output channel [default: 128]
    #[arg(long, value_name = "N")]
    group: Option<usize>,
    /// Moves outliers of activations into the weights (SmoothQuant) with this strength, 0 to 1; w8a8 and w8a8_dynamic
    #[arg(long, value_name = "ALPHA")]
    smooth: Option<f32>,
    #[arg(long, value_name = "WHAT", help = ROPE_SCALING)]
    rope_scaling: Option<RopeScaling>,
    /// Prints what the export takes, and writes nothing
    #[arg(long)]
    dry_run: bool,
}

fn kv_form() -> impl TypedValueParser<Value = KvForm> {
    PossibleValuesParser::new([KvForm::C8.name()]).map(|_| KvForm::C8)
}

fn scheme(word: &str) -> Result<Scheme, String> {
    Scheme::of_word(word).ok_or_else(|| format!("expected {}", one_of(Scheme::written().map(Scheme::word))))
}

/// Returns the help of `--scheme`.
fn scheme_help() -> String {
    let word = |of: Scheme| match of.about() {
        Some(about) => format!("{} ({about})", of.word()),
        None => of.word().to_owned(),
    };
    format!("The scheme: {}", one_of(Scheme::written().map(word)))
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    let model = FoundModel::find(args.model.as_os_str(), None, args.rope_scaling)?;
    let Some(dir) = model.path.tokenizer_dir().map(Path::to_path_buf) else {
        bail!("{}: random weights cannot be quantised; give a model folder", args.model.display());
    };
    let source = model.weights(DType::Fp16)?;
    let settings = settings(args, &model.config)?;
    refuse_unused(args, &settings)?;
    let prompts = match &args.calibration {
        Some(word) => prompts(args, word, &model)?,
        None if Job::needs_calibration(&settings) => bail!(
            "scheme {}{} needs prompts to calibrate with; give --calibration FILE.jsonl or --calibration ceval",
            args.scheme.word(),
            calibrated_flag(args)
        ),
        None => Vec::new(),
    };
    let job = Job::new(&dir, model.config, source.into(), settings, prompts)?;
    super::say(&takes(&job.estimate(), &args.out));
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    let report = {
        let mut bar: Option<Bar> = None;
        let mut show = |progress: Progress| match progress {
            Progress::Stage { what, unit, total } => {
                // The former stage ends before the next is drawn.
                drop(bar.take());
                let new = progress::bar(what, if unit == "bytes" { BYTES } else { unit });
                new.set_length(total);
                bar = Some(new);
            }
            Progress::Done(amount) => bar.iter().for_each(|bar| bar.inc(amount)),
            Progress::Say(words) => {
                drop(bar.take());
                super::say(&words);
            }
        };
        let _watch = Watch::new();
        job.run(&args.out, &mut Control { progress: &mut show, stopped: &signals::asked })?
    };
    tell(&report, args, start)?;
    Ok(ExitCode::SUCCESS)
}

/// Describes what a job takes.
fn takes(estimate: &Estimate, out: &Path) -> String {
    let Estimate { disk_bytes, memory_bytes, tokens, operations } = *estimate;
    let calibration = if operations == 0 {
        String::new()
    } else {
        format!(", {:.2} TFLOP for {tokens} tokens", operations as f64 / 1e12)
    };
    format!(
        "{}: {} of weights to write, about {} of memory{calibration}",
        out.display(),
        DecimalBytes(disk_bytes),
        DecimalBytes(memory_bytes)
    )
}

/// Prints the result.
fn tell(report: &Report, args: &Args, start: Instant) -> anyhow::Result<()> {
    for ranked in &report.ranked {
        super::emit(&format!("{:.3e}  {:.3e}  {}", ranked.relative, ranked.absolute, ranked.linear.name()))?;
    }
    let (quantised, all) = (report.quantised, report.linear);
    super::say(&format!(
        "{}: {} files written; {quantised} of {all} linear layers in {}, weights {} in {:.1} s",
        args.out.display(),
        report.files.len(),
        args.scheme.word(),
        DecimalBytes(report.weight_bytes),
        start.elapsed().as_secs_f64(),
    ));
    Ok(())
}

fn settings(args: &Args, config: &ModelConfig) -> anyhow::Result<Settings> {
    Ok(Settings {
        scheme: args.scheme,
        kv_c8: args.kv.is_some(),
        float: float(args, config)?,
        method: match args.act_method {
            None | Some(1) => ActMethod::MinMax,
            Some(2) => ActMethod::Histogram,
            Some(_) => ActMethod::Automatic,
        },
        group: args.group.unwrap_or(128),
        smooth: args.smooth,
        search: args.search_float,
    })
}

/// Refuses flags that would change nothing.
fn refuse_unused(args: &Args, settings: &Settings) -> anyhow::Result<()> {
    let word = args.scheme.word();
    if args.group.is_some() && args.scheme != Scheme::W4a16 {
        bail!("--group is for w4a16, and the scheme is {word}");
    }
    if args.act_method.is_some() && !args.scheme.has_static_inputs() {
        bail!("--act-method is for schemes with ranges of activations; {word} has none");
    }
    if args.calibration.is_some() && !Job::needs_calibration(settings) {
        bail!(
            "--calibration is for schemes with ranges of activations, --kv c8, --smooth and --search-float; {word} alone needs no calibration"
        );
    }
    if args.set.is_some() && args.calibration.as_deref() != Some(Path::new(CEVAL.name)) {
        bail!("--set is the folder of --calibration ceval, which is not given");
    }
    Ok(())
}

/// Returns the flag that needs a calibration, after the scheme that does not: ` with --smooth`.
fn calibrated_flag(args: &Args) -> &'static str {
    match (args.scheme.has_static_inputs(), args.kv.is_some(), args.smooth.is_some()) {
        (true, ..) => "",
        (_, true, _) => " with --kv c8",
        (.., true) => " with --smooth",
        _ => " with --search-float",
    }
}

/// Returns the layers to leave in float.
fn float(args: &Args, config: &ModelConfig) -> anyhow::Result<BTreeSet<LinearId>> {
    let usual = if args.search_float.is_some() { "output_layer" } else { "default" };
    let words = match args.leave_float.as_slice() {
        [] => vec![usual.to_owned()],
        words => words.to_vec(),
    };
    let mut float: BTreeSet<LinearId> = BTreeSet::new();
    for word in words.iter().flat_map(|word| word.split(',')).filter(|word| *word != "none") {
        if word == "default" {
            float.extend(default_float(args.scheme, config.num_layers));
            continue;
        }
        let word = word.strip_suffix(".weight").unwrap_or(word);
        let is_meant = |id: &LinearId| {
            let name = id.name();
            name == word || name.ends_with(&format!(".{word}"))
        };
        let meant: Vec<LinearId> = LinearId::all(config).filter(is_meant).collect();
        if meant.is_empty() {
            let names: BTreeSet<String> = [Role::Qkv, Role::Dense, Role::GateUp, Role::Down]
                .map(|role| LinearId { layer: Some(0), role }.name())
                .into_iter()
                .chain([LinearId::OUTPUT.name()])
                .collect();
            bail!(
                "--leave-float {word}: the model has no such linear layer; expected {}, or the end of such a name",
                one_of(names)
            );
        }
        float.extend(meant);
    }
    // What THUDM's checkpoints leave in float cannot be quantised from them.
    if let Some(quantised) = &config.quantised {
        float.extend(&quantised.float);
    }
    Ok(float)
}

/// A line of a calibration file.
#[derive(Deserialize)]
struct Row {
    inputs_pretokenized: Option<String>,
    prompt: Option<String>,
    text: Option<String>,
    ids: Option<Vec<u32>>,
}

impl Row {
    fn text(&self) -> Option<&str> {
        [&self.inputs_pretokenized, &self.prompt, &self.text].into_iter().find_map(|text| text.as_deref())
    }

    fn fault(&self) -> Option<String> {
        let is_there = self.text().is_some_and(|text| !text.is_empty())
            || self.ids.as_ref().is_some_and(|ids| !ids.is_empty());
        let keys = "`inputs_pretokenized`, `prompt`, `text` or `ids`";
        (!is_there).then(|| format!("found no prompt; expected a key {keys} that is not empty"))
    }
}

/// Returns the token ids of the calibration prompts.
fn prompts(args: &Args, word: &Path, model: &FoundModel) -> anyhow::Result<Vec<Vec<u32>>> {
    let tokenizer = model.tokenizer()?.context("random weights have no tokenizer")?;
    let prompts = if word == Path::new(CEVAL.name) {
        of_ceval(args, &tokenizer)?
    } else {
        let rows = read_jsonl(word, "a prompt to calibrate with", Row::fault)
            .with_context(|| format!("--calibration {}", word.display()))?;
        let ids = |row: Row| match row.text() {
            Some(text) => tokenizer.encode_prompt(text),
            None => row.ids.unwrap_or_default(),
        };
        rows.into_iter().map(ids).collect()
    };
    let most = model.config.seq_length;
    Ok(prompts
        .into_iter()
        .map(|ids: Vec<u32>| if ids.len() > most { ids[ids.len() - most..].to_vec() } else { ids })
        .collect())
}

/// Returns the first prompts of C-Eval's validation items, 5-shot. They are those of the civil servants, as in ModelSlim's
/// script, or of all subjects in turn if the set has no such subject.
fn of_ceval(args: &Args, tokenizer: &Tokenizer) -> anyhow::Result<Vec<Vec<u32>>> {
    let usual = [CEVAL.name, "ceval-sample"].map(|name| Path::new("datasets").join(name));
    let found = args.set.as_ref().or_else(|| usual.iter().find(|folder| folder.is_dir()));
    let folder = found.cloned().map_or_else(crate::shipped::ceval_sample, Ok)?;
    let source = Source::open(&CEVAL, &folder)?;
    let protocol =
        task::find(&CEVAL, "modeltest-5shot").context("the protocol modeltest-5shot is not there")?;
    let all = source.read("val", &[])?.subjects;
    let subjects = if all.contains_key(SUBJECT) { vec![SUBJECT.to_owned()] } else { Vec::new() };
    let settings = task::Settings {
        split: "val".to_owned(),
        subjects,
        limit: Some(PROMPTS),
        ..task::Settings::default()
    };
    let evaluation = Evaluation::new(task::Plan::new(protocol, &source, &settings)?, tokenizer, usize::MAX)?;
    Ok((0..evaluation.len()).filter_map(|index| evaluation.first_prompt(index)).map(|(_, ids)| ids).collect())
}
