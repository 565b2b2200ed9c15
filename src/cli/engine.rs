//! The flags that select a model and say how it computes.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use glmbench_cpu::{Family, InstructionSet};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::words::one_of;
use glmbench_device::{DType, DeviceKind, KvForm, Precision};

use glmbench_engine::EngineError;
use glmbench_engine::config::RopeScaling;

use crate::compute::{Compute, ComputeSpec, Emulation};
use crate::run::found::FoundModel;

/// Which model, on what.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Model folder, `demo`, `dummy:chatglm2-6b` or `dummy:PATH/config.json`
    #[arg(long, value_name = "DIR|demo|dummy:…")]
    pub model: OsString,
    /// What changes the model
    #[command(flatten)]
    pub over: OverModel,
    /// How to compute
    #[command(flatten)]
    pub compute: ComputeFlags,
}

impl EngineArgs {
    /// Finds the model and reads its configuration.
    pub fn find(&self) -> Result<FoundModel, EngineError> {
        self.over.find(&self.model)
    }

    /// Returns how to compute.
    pub fn compute(&self) -> Result<Compute, EngineError> {
        Compute::of_flags(&self.compute.spec())
    }
}

/// Help of `--rope-scaling`. Three sets of flags have it.
pub const ROPE_SCALING: &str = "What rope_ratio does if the model's folder does not say: `positions` divides positions (ChatGLM2-6B-32k), \
     `base` multiplies the base (ChatGLM3 and later)";

/// Flags that change a model of a folder.
#[derive(Debug, Clone, Args)]
pub struct OverModel {
    /// Folder of a P-tuning v2 prefix for the model: its config.json and the prefix tensors
    #[arg(long, value_name = "DIR")]
    pub ptuning: Option<PathBuf>,
    /// What the model's `rope_ratio` does.
    #[arg(long, value_name = "WHAT", help = ROPE_SCALING)]
    pub rope_scaling: Option<RopeScaling>,
}

impl OverModel {
    /// Finds the model with this word.
    pub fn find(&self, word: &OsString) -> Result<FoundModel, EngineError> {
        FoundModel::find(word, self.ptuning.as_deref(), self.rope_scaling)
    }
}

/// Reads a value of `--emulate`.
fn emulation_parser() -> impl TypedValueParser<Value = Emulation> {
    let words = [
        ("auto", "Computes real models; for `dummy:` ones only the clock runs"),
        ("compute", "Computes: real numbers, modelled times"),
        ("timing", "Only the virtual clock runs: times without numbers"),
    ];
    let parser = PossibleValuesParser::new(words.map(|(word, help)| PossibleValue::new(word).help(help)));
    parser.map(|word| match word.as_str() {
        "compute" => Emulation::Compute,
        "timing" => Emulation::Timing,
        _ => Emulation::Auto,
    })
}

/// Whether an Ascend card is emulated, and by which numbers its clock runs.
#[derive(Debug, Clone, Default, Args)]
pub struct EmulationFlags {
    /// Emulate the Ascend card: numbers are computed on the CPU, times are modelled
    #[arg(
        long, value_name = "MODE", num_args = 0..=1, require_equals = true, default_missing_value = "auto",
        value_parser = emulation_parser()
    )]
    pub emulate: Option<Emulation>,
    /// Chip profile of the emulated card: a file, instead of the card's own
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
}

/// Returns the help of `--kernel`.
fn kernel_help() -> String {
    format!(
        "CPU kernels: {}; the same bits within a family ({}) \
         [default: the best of this machine; to verify a run, the best of its family]",
        InstructionSet::words(),
        Family::words()
    )
}

/// Returns the help of `--dtype`.
fn dtype_help() -> String {
    let word = |of: Precision| match of.weights.about() {
        Some(about) => {
            let all_cards = DeviceKind::cards().all(|card| card.instead_of(of).is_none());
            let only = if all_cards { "" } else { "; cpu only" };
            format!("{} ({about}{only})", of.type_name())
        }
        None => of.type_name().to_owned(),
    };
    format!(
        "Type of weights, activations and KV cache: {}; reference computes in fp32 [default: the suite's, else the \
         device's main type]",
        one_of(Precision::TYPES.map(word))
    )
}

/// Returns the help of `--kv`.
fn kv_help() -> String {
    let devices = |kv: KvForm| {
        let of = Precision { kv, ..DType::Fp16.into() };
        let takes = |kind: &DeviceKind| *kind != DeviceKind::Reference && kind.instead_of(of).is_none();
        let names: Vec<_> = DeviceKind::ALL.into_iter().filter(takes).map(DeviceKind::name).collect();
        names.join(" and ")
    };
    format!(
        "Type of the KV cache: {}; int8 runs on {}, c8 on {} [default: the suite's, else auto]",
        KvForm::words(),
        devices(KvForm::Int8),
        devices(KvForm::C8)
    )
}

/// Returns the help of `--device`.
fn device_help() -> String {
    let words = DeviceKind::help();
    format!("Device: {words} [default: the device of the suite or the run, else cpu]")
}

/// On what to compute.
#[derive(Debug, Clone, Args)]
pub struct DeviceFlags {
    /// The device
    #[arg(long, help = device_help())]
    pub device: Option<DeviceKind>,
    /// On the emulated card
    #[command(flatten)]
    pub emulation: EmulationFlags,
    /// Tensor-parallel ranks [default: those of the suite's cases or the run; without either TP_WORLD_SIZE, else 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub tp: Option<u16>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// CPU kernels
    #[arg(long, value_name = "SET", help = kernel_help())]
    pub kernel: Option<InstructionSet>,
}

impl DeviceFlags {
    /// Returns what the flags say.
    pub fn spec(&self) -> ComputeSpec {
        ComputeSpec {
            device: self.device,
            emulation: self.emulation.emulate,
            profile: self.emulation.profile.clone(),
            ranks: self.tp.map(usize::from),
            threads: self.threads.map(usize::from),
            kernel: self.kernel,
            ..ComputeSpec::default()
        }
    }
}

/// How to compute.
#[derive(Debug, Clone, Args)]
pub struct ComputeFlags {
    /// On what
    #[command(flatten)]
    pub on: DeviceFlags,
    /// Type of weights, activations and KV cache
    #[arg(long, value_name = "TYPE", help = dtype_help())]
    pub dtype: Option<Precision>,
    /// Type of the KV cache
    #[arg(long, value_name = "TYPE", help = kv_help())]
    pub kv: Option<KvForm>,
    /// Rotary table: `model` rounds as the model's own code does, `exact` does not [default: the suite's, else model]
    #[arg(long, value_name = "MODE")]
    pub rope: Option<RotaryMode>,
    /// Keep each rank's threads on cores of its own; BIND_CPU=1 does the same
    #[arg(long)]
    pub bind: bool,
    /// Keep the packed weights in a file beside the checkpoint, and map them from it in later runs; cpu only
    #[arg(long)]
    pub pack_cache: bool,
}

impl ComputeFlags {
    /// Returns what the flags say.
    pub fn spec(&self) -> ComputeSpec {
        ComputeSpec {
            dtype: self.dtype,
            kv: self.kv,
            rope: self.rope,
            bind: self.bind.then_some(true),
            pack_cache: self.pack_cache.then_some(true),
            ..self.on.spec()
        }
    }
}
