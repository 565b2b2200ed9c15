//! Export of a quantised checkpoint in the layout of ModelSlim, without ModelSlim.
//!
//! A [`Job`] reads a float model, calibrates it if the scheme needs that, and writes a folder: weights, description,
//! `config.json`, tokenizer. The calibration runs the engine's own forward pass on a device that shows what it computes
//! ([`glmbench_device::observed`]); prompts come as token ids from the caller. The weights are then quantised one linear layer
//! at a time. So the memory is that of the float model during the calibration, and that of one layer afterwards.
//!
//! [`range`] has the ranges of activations, and `weights` the weights and the errors of their outputs. `plan` has the tensors of
//! the new files, `source` the quantised model in memory, `export` the files. `state` keeps a calibration until its files are
//! written, so that a stopped job can go on.

mod calibrate;
mod export;
mod kl;
mod observations;
mod plan;
pub mod range;
mod search;
mod source;
mod state;
mod weights;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glmbench_device::words::one_of;

use crate::EngineError;
use crate::config::{ModelConfig, Scheme};
use crate::memory::MemoryEstimate;
use crate::weights::layout::LinearId;
use crate::weights::{WeightError, WeightSource};

use self::calibrate::Calibration;
use self::plan::Plan;
pub use self::search::Ranked;

/// Errors of an export.
#[derive(Debug, thiserror::Error)]
pub enum QuantiseError {
    /// The float model cannot be read or run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A setting that does not fit the model.
    #[error("{0}")]
    Setting(String),
    /// A number that cannot be quantised.
    #[error("{what} cannot be quantised, expected finite numbers")]
    NotFinite {
        /// Where it is.
        what: String,
    },
    /// The output folder is not empty.
    #[error("{}: something is there already; choose a new or an empty folder", out.display())]
    Exists {
        /// The folder, left unchanged.
        out: PathBuf,
    },
    /// The caller stopped the job.
    #[error("stopped before it was done; the same command goes on from the calibration's last prompt")]
    Stopped,
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl From<WeightError> for QuantiseError {
    fn from(error: WeightError) -> Self {
        Self::Engine(error.into())
    }
}

/// How the input range of a layer is determined: `act_method` in ModelSlim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActMethod {
    /// 1: from the lowest to the highest number.
    MinMax,
    /// 2: the bounds with the least error of quantisation, by a histogram.
    Histogram,
    /// 3: the one of these two with the lower output error, layer by layer.
    Automatic,
}

/// What to make of a model.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The scheme: one of ModelSlim's.
    pub scheme: Scheme,
    /// Whether scales of an int8 KV cache are added.
    pub kv_c8: bool,
    /// Linear layers that stay in float.
    pub float: BTreeSet<LinearId>,
    /// Ranges of inputs under W8A8 and W8A8S.
    pub method: ActMethod,
    /// Inputs that share a scale under W4A16; 0 for one scale per output channel.
    pub group: usize,
    /// Strength of SmoothQuant, from 0 to 1; `None` for none.
    pub smooth: Option<f32>,
    /// Number of further layers to leave in float: those with the largest errors.
    pub search: Option<usize>,
}

/// What a job is doing, for the caller to show.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A stage begins, with its amount of work.
    Stage {
        /// What is done.
        what: &'static str,
        /// The unit of the amount.
        unit: &'static str,
        /// The amount.
        total: u64,
    },
    /// An amount of work in the stage is done.
    Done(u64),
    /// Something worth a line.
    Say(String),
}

/// The caller's side of a running job.
pub struct Control<'a> {
    /// Receives the progress.
    pub progress: &'a mut dyn FnMut(Progress),
    /// Whether to stop.
    pub stopped: &'a dyn Fn() -> bool,
}

impl Control<'_> {
    fn stage(&mut self, what: &'static str, unit: &'static str, total: u64) {
        (self.progress)(Progress::Stage { what, unit, total });
    }

    fn done(&mut self, amount: u64) {
        (self.progress)(Progress::Done(amount));
    }

    fn say(&mut self, words: String) {
        (self.progress)(Progress::Say(words));
    }

    fn check(&self) -> Result<(), QuantiseError> {
        if (self.stopped)() { Err(QuantiseError::Stopped) } else { Ok(()) }
    }
}

/// What a job will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// Size of the new weights in bytes.
    pub disk_bytes: u64,
    /// Memory in bytes: the model that is calibrated, or the largest layer.
    pub memory_bytes: u64,
    /// Tokens of the calibration.
    pub tokens: u64,
    /// Multiplications and additions of all forward passes.
    pub operations: u64,
}

/// Mean KL divergence of the calibration logits from those of the float model, in nats.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KlChange {
    /// With the layers of the search quantised.
    pub before: f64,
    /// With these layers in float.
    pub after: f64,
}

/// What a job did.
#[derive(Debug, Clone)]
pub struct Report {
    /// Names of the files written.
    pub files: Vec<String>,
    /// Size of the weights in bytes.
    pub weight_bytes: u64,
    /// Number of linear layers that are quantised.
    pub quantised: usize,
    /// Number of all linear layers.
    pub linear: usize,
    /// The layers by error, the largest first; empty without a search.
    pub ranked: Vec<Ranked>,
    /// The effect of the layers that the search left in float. `None` without a search.
    pub kl: Option<KlChange>,
}

/// A model to be quantised.
pub struct Job {
    dir: PathBuf,
    config: ModelConfig,
    source: Arc<dyn WeightSource>,
    settings: Settings,
    prompts: Vec<Vec<u32>>,
}

impl Job {
    /// Creates a job for the model in the folder `dir` with this config and these weights. `prompts` are token ids.
    ///
    /// # Errors
    /// The settings do not fit the model, or each other; the model is quantised in a way that cannot be rewritten.
    pub fn new(
        dir: &Path,
        config: ModelConfig,
        source: Arc<dyn WeightSource>,
        settings: Settings,
        prompts: Vec<Vec<u32>>,
    ) -> Result<Self, QuantiseError> {
        let job = Self { dir: dir.to_path_buf(), config, source, settings, prompts };
        job.check()?;
        Ok(job)
    }

    /// Whether the settings need a calibration.
    pub fn needs_calibration(settings: &Settings) -> bool {
        settings.scheme.has_static_inputs()
            || settings.kv_c8
            || settings.smooth.is_some()
            || settings.search.is_some()
    }

    fn check(&self) -> Result<(), QuantiseError> {
        let refused = |problem: String| Err(QuantiseError::Setting(problem));
        let Self { config, settings, prompts, .. } = self;
        let (scheme, word) = (settings.scheme, settings.scheme.word());
        if scheme.description_word().is_none() {
            let ours = one_of(Scheme::written().map(Scheme::word));
            return refused(format!("scheme {word} is THUDM's, expected {ours}"));
        }
        if config.pre_seq_len.is_some() {
            return refused("the model has a P-tuning prefix; quantise the model without it".to_owned());
        }
        if let Some(quantised) = &config.quantised {
            let fits = match quantised.scheme {
                Some(Scheme::Int8) => scheme == Scheme::W8a16,
                Some(Scheme::Int4) => {
                    scheme == Scheme::W8a16 || scheme == Scheme::W4a16 && settings.group == 0
                }
                _ => false,
            };
            if !fits || quantised.kv_c8 {
                return refused(format!(
                    "config.json says {}, and {word} is made of float weights; int8 and int4 weights of THUDM can become w8a16, \
                     int4 also w4a16 with --group 0",
                    quantised.said
                ));
            }
            if let Some(id) = settings.float.symmetric_difference(&quantised.float).next() {
                let (found, asked) = if quantised.float.contains(id) {
                    ("in float", "quantised")
                } else {
                    ("quantised", "left in float")
                };
                return refused(format!(
                    "{} is {found} in the checkpoint, and is to be {asked}; a rewritten checkpoint keeps its layers as they are",
                    id.name()
                ));
            }
            if settings.smooth.is_some() || settings.search.is_some() {
                return refused(
                    "weights that are quantised already can neither be smoothed nor searched".into(),
                );
            }
        }
        if settings.smooth.is_some() && !matches!(scheme, Scheme::W8a8 | Scheme::W8a8Dynamic) {
            return refused(format!("smoothing is for w8a8 and w8a8_dynamic, and the scheme is {word}"));
        }
        if settings.smooth.is_some_and(|alpha| !(0.0..=1.0).contains(&alpha)) {
            return refused("the strength of smoothing is from 0 to 1".to_owned());
        }
        let layers: BTreeSet<LinearId> = LinearId::all(config).collect();
        if let Some(unknown) = settings.float.iter().find(|id| !layers.contains(id)) {
            return refused(format!("the model has no linear layer {}", unknown.name()));
        }
        if settings.search.is_some_and(|count| count > layers.len()) {
            return refused(format!("the model has {} linear layers to search", layers.len()));
        }
        if Self::needs_calibration(settings) && prompts.iter().all(Vec::is_empty) {
            return refused("the settings need prompts to calibrate with, and there are none".to_owned());
        }
        let rows = config.padded_vocab_size;
        if let Some(token) = prompts.iter().flatten().find(|&&token| token as usize >= rows) {
            return refused(format!("a prompt has token {token}, and the model has {rows}"));
        }
        if let Some(long) = prompts.iter().map(Vec::len).find(|&len| len > config.seq_length) {
            return refused(format!(
                "a prompt has {long} tokens, and the model's context is {}",
                config.seq_length
            ));
        }
        if scheme == Scheme::W4a16 && settings.group > 0 {
            let narrow = layers.iter().find(|id| {
                !settings.float.contains(id) && !id.shape(config)[1].is_multiple_of(settings.group)
            });
            if let Some(id) = narrow {
                return refused(format!(
                    "groups of {} do not divide the {} inputs of {}; choose --group 0 or a divisor, or leave the layer in float",
                    settings.group,
                    id.shape(config)[1],
                    id.name()
                ));
            }
        }
        Ok(())
    }

    /// Estimates what the job takes.
    pub fn estimate(&self) -> Estimate {
        let tokens = self.prompts.iter().map(|prompt| prompt.len() as u64).sum();
        let calibrates = Self::needs_calibration(&self.settings);
        let passes = match (calibrates, self.settings.method) {
            (false, _) => 0,
            (true, ActMethod::MinMax) => 1,
            (true, ActMethod::Histogram | ActMethod::Automatic) => {
                1 + u64::from(self.settings.scheme.has_static_inputs())
            }
        } + if self.settings.search.is_some() { 4 } else { 0 };
        let linears = || LinearId::all(&self.config).map(|id| id.shape(&self.config).map(|n| n as u64));
        let weights: u64 = linears().map(|[out, width]| out * width).sum();
        // fp32 rows of all threads are small beside the integers of a layer.
        let layer = linears().map(|[out, width]| out * width).max().unwrap_or(0);
        let model = if calibrates {
            let capacity = calibrate::capacity(&self.config, &self.prompts);
            MemoryEstimate::new(&self.config, self.precision(), capacity).total_bytes()
        } else {
            0
        };
        Estimate {
            disk_bytes: Plan::new(&self.config, &self.settings, &*self.source).bytes(),
            memory_bytes: model.max(layer),
            tokens,
            operations: passes * tokens * 2 * weights,
        }
    }

    /// Quantises the model into the folder `out`, which must be absent or empty. The folder appears with all its files, or
    /// stays as it was.
    ///
    /// # Errors
    /// `out` is or lies in the model's folder, or is not empty. A number is not finite. The caller stopped the job. An I/O error.
    pub fn run(mut self, out: &Path, control: &mut Control<'_>) -> Result<Report, QuantiseError> {
        self.check_out(out)?;
        let calibration = Calibration::of(&self, out, control)?;
        let (mut ranked, mut kl) = (Vec::new(), None);
        if let Some(count) = self.settings.search {
            let found = search::search(&mut self, &calibration, count, control)?;
            (ranked, kl) = (found.ranked, Some(found.kl));
        }
        let plan = Plan::new(&self.config, &self.settings, &*self.source);
        let (files, weight_bytes) = export::write(&self, &plan, &calibration, out, control)?;
        state::remove(out);
        let linear = LinearId::all(&self.config).count();
        let quantised = linear - self.settings.float.len();
        Ok(Report { files, weight_bytes, quantised, linear, ranked, kl })
    }

    fn check_out(&self, out: &Path) -> Result<(), QuantiseError> {
        // A folder that is to be made is where its nearest folder is.
        let place = out.ancestors().find_map(|path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            std::fs::canonicalize(path).ok()
        });
        if place.zip(std::fs::canonicalize(&self.dir).ok()).is_some_and(|(out, dir)| out.starts_with(dir)) {
            return Err(QuantiseError::Setting(format!(
                "{}: this is or lies in the float model's folder, expected a new one elsewhere",
                out.display()
            )));
        }
        match std::fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
            Ok(true) => Err(QuantiseError::Exists { out: out.to_path_buf() }),
            Ok(false) => Ok(()),
            // A dangling link is something.
            Err(_) if std::fs::symlink_metadata(out).is_ok_and(|found| found.is_symlink()) => {
                Err(QuantiseError::Exists { out: out.to_path_buf() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && out.file_name().is_some() => Ok(()),
            Err(source) => Err(QuantiseError::File { path: out.to_path_buf(), source }),
        }
    }
}
