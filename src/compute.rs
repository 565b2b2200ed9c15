//! How a model computes: device, types, ranks, threads.
//!
//! A [`ComputeSpec`] is what one place says: a suite, one of its configurations, or the flags of a command. They are
//! merged once, by [`Compute::merged`], and every verb computes with the result. The order of precedence is: flags, the
//! configuration, the suite, the environment (`TP_WORLD_SIZE`, `BIND_CPU`), the defaults.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use glmbench_cpu::{InstructionSet, available_threads};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DeviceKind, KvForm, Precision};

use glmbench_engine::EngineError;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{Emulate, LoadOptions, ModelPath};
use glmbench_engine::memory::MemoryOf;
use glmbench_engine::model::Capacity;

/// Maximum number of threads.
const MAX_THREADS: usize = 1024;

/// What an emulated card does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emulation {
    /// Nothing is emulated.
    Off,
    /// Computes real models. For random weights only the clock runs.
    Auto,
    /// Computes: real numbers, modelled times.
    Compute,
    /// Only the virtual clock runs: times without numbers.
    Timing,
}

/// What one place says about how to compute. `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComputeSpec {
    /// The device.
    pub device: Option<DeviceKind>,
    /// Whether an Ascend card is emulated, and how.
    pub emulation: Option<Emulation>,
    /// Chip profile of the emulated card, instead of the card's own.
    pub profile: Option<PathBuf>,
    /// Type of weights and activations. If its KV cache has a form of its own, that counts as [`kv`](Self::kv).
    pub dtype: Option<Precision>,
    /// Form of the KV cache.
    pub kv: Option<KvForm>,
    /// Rounding of the rotary table.
    pub rope: Option<RotaryMode>,
    /// Number of tensor-parallel ranks.
    pub ranks: Option<usize>,
    /// Number of threads.
    pub threads: Option<usize>,
    /// CPU kernels. Without effect on other devices.
    pub kernel: Option<InstructionSet>,
    /// Whether each rank's threads are bound to their own cores.
    pub bind: Option<bool>,
    /// Whether every operator is timed.
    pub profile_operators: Option<bool>,
    /// Whether packed weights are kept in a file beside the checkpoint.
    pub pack_cache: Option<bool>,
}

impl ComputeSpec {
    /// Returns these settings, completed by those of a lower precedence.
    ///
    /// The flags of a command serve all its configurations, so a profile is dropped where a configuration says that
    /// nothing is emulated.
    #[must_use]
    pub fn over(self, lower: &Self) -> Self {
        let unused = self.emulation.is_none() && lower.emulation == Some(Emulation::Off);
        let profile = self.profile.filter(|_| !unused);
        let own_form = self.dtype.map(|dtype| dtype.kv).filter(|form| *form != KvForm::Auto);
        let lower_form = lower.dtype.map(|dtype| dtype.kv).filter(|form| *form != KvForm::Auto);
        Self {
            device: self.device.or(lower.device),
            emulation: self.emulation.or(lower.emulation),
            profile: profile.or_else(|| lower.profile.clone()),
            dtype: self.dtype.or(lower.dtype),
            kv: self.kv.or(own_form).or(lower.kv).or(lower_form),
            rope: self.rope.or(lower.rope),
            ranks: self.ranks.or(lower.ranks),
            threads: self.threads.or(lower.threads),
            kernel: self.kernel.or(lower.kernel),
            bind: self.bind.or(lower.bind),
            profile_operators: self.profile_operators.or(lower.profile_operators),
            pack_cache: self.pack_cache.or(lower.pack_cache),
        }
    }

    /// Returns these settings with the number of ranks in `TP_WORLD_SIZE`, if they say none. Runs do not ask for it,
    /// because their cases say how many ranks they need.
    ///
    /// # Errors
    /// `TP_WORLD_SIZE` is not a number.
    pub fn or_ranks_of_environment(self) -> Result<Self, EngineError> {
        self.or_ranks_of(&|name| std::env::var_os(name))
    }

    fn or_ranks_of(self, environment: Environment<'_>) -> Result<Self, EngineError> {
        match self.ranks {
            Some(_) => Ok(self),
            None => Ok(Self { ranks: number(environment, "TP_WORLD_SIZE", "a number of ranks")?, ..self }),
        }
    }
}

/// A device and, where it is said, a type: what the logits of an engine are compared with. Written `DEVICE[:DTYPE]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Against {
    /// The device.
    pub device: DeviceKind,
    /// The type; `None` for one that its user decides on.
    pub dtype: Option<Precision>,
}

/// Returns the kernels of the CPU as the reference of another device: vectors, whose bits are the same on every machine. So what is
/// said of a card does not depend on the processor of its host.
fn kernels_beside(engine: DeviceKind, reference: DeviceKind) -> Option<InstructionSet> {
    (engine != DeviceKind::Cpu && reference == DeviceKind::Cpu).then(InstructionSet::best_vector)
}

impl Against {
    /// Returns how the reference of an engine computes: as the engine except for device, types and kernels, on one rank.
    pub fn spec(self, engine: ComputeSpec) -> ComputeSpec {
        ComputeSpec {
            device: Some(self.device),
            dtype: self.dtype,
            kv: None,
            kernel: kernels_beside(engine.device.unwrap_or(DeviceKind::Cpu), self.device),
            ranks: Some(1),
            pack_cache: engine.pack_cache.filter(|_| self.device.has_threads()),
            ..engine
        }
    }
}

impl FromStr for Against {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.split_once(':') {
            Some((device, dtype)) => Ok(Self { device: device.parse()?, dtype: Some(dtype.parse()?) }),
            None => Ok(Self { device: word.parse()?, dtype: None }),
        }
    }
}

/// Looks up a variable of the environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Reads a number from an environment variable. `None` if it is unset or empty.
fn number<T: FromStr>(
    environment: Environment<'_>,
    name: &str,
    expected: &str,
) -> Result<Option<T>, EngineError> {
    let Some(word) = environment(name).filter(|word| !word.is_empty()) else { return Ok(None) };
    let word = word.to_string_lossy();
    let refused = |_| EngineError::Option(format!("{name} is \"{word}\", expected {expected}"));
    word.trim().parse().map(Some).map_err(refused)
}

/// How a model computes, with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compute {
    /// The device.
    pub device: DeviceKind,
    /// Whether the card is emulated, and how.
    pub emulation: Emulation,
    /// Chip profile of the emulated card; `None` for the card's own.
    pub profile: Option<PathBuf>,
    /// Types of weights, activations and KV cache.
    pub precision: Precision,
    /// Rounding of the rotary table.
    pub rope: RotaryMode,
    /// Number of tensor-parallel ranks.
    pub ranks: usize,
    /// Number of threads; `None` for all cores.
    pub threads: Option<usize>,
    /// CPU kernels; `None` for the best of the machine, and on other devices.
    pub kernel: Option<InstructionSet>,
    /// Whether each rank's threads are bound to their own cores.
    pub bind: bool,
    /// Whether every operator is timed.
    pub profile_operators: bool,
    /// Whether packed weights are kept in a file beside the checkpoint.
    pub pack_cache: bool,
}

impl Compute {
    /// Merges the flags of a command with what the suite says, a configuration's settings included.
    ///
    /// # Errors
    /// A profile is given and nothing is emulated, or a variable of the environment is not a number.
    pub fn merged(flags: &ComputeSpec, written: &ComputeSpec) -> Result<Self, EngineError> {
        Self::merged_in(flags, written, &|name| std::env::var_os(name))
    }

    fn merged_in(
        flags: &ComputeSpec,
        written: &ComputeSpec,
        environment: Environment<'_>,
    ) -> Result<Self, EngineError> {
        let device = flags.device.or(written.device).unwrap_or(DeviceKind::Cpu);
        let spec = match device.only_type() {
            // The types of a suite are for its other devices.
            Some(_) => flags.clone().over(&ComputeSpec { dtype: None, kv: None, ..written.clone() }),
            None => flags.clone().over(written),
        };
        let emulation = spec.emulation.unwrap_or(Emulation::Off);
        if spec.profile.is_some() && emulation == Emulation::Off {
            return Err(EngineError::Option("--profile is for an emulated card; give --emulate, too".into()));
        }
        let bound = || number::<u8>(environment, "BIND_CPU", "0 or 1");
        let precision = spec.dtype.unwrap_or(device.main_type().into());
        Ok(Self {
            device,
            emulation,
            profile: spec.profile,
            precision: Precision { kv: spec.kv.unwrap_or(precision.kv), ..precision },
            rope: spec.rope.unwrap_or(RotaryMode::Model),
            ranks: spec.ranks.unwrap_or(1),
            threads: spec.threads.map(|threads| threads.min(MAX_THREADS)),
            kernel: spec.kernel.filter(|_| device.has_threads()),
            bind: match spec.bind {
                Some(bind) => bind,
                None => bound()?.is_some_and(|word| word != 0),
            },
            profile_operators: spec.profile_operators.unwrap_or(false),
            pack_cache: spec.pack_cache.unwrap_or(false),
        })
    }

    /// Merges the flags of a command that runs no suite, with the number of ranks of the environment.
    ///
    /// # Errors
    /// As for [`merged`](Self::merged).
    pub fn of_flags(flags: &ComputeSpec) -> Result<Self, EngineError> {
        Self::merged(&flags.clone().or_ranks_of_environment()?, &ComputeSpec::default())
    }

    /// Returns the same settings in the types of a model: a quantised checkpoint has a form of weights of its own.
    ///
    /// # Errors
    /// The settings ask for another form than the checkpoint's.
    pub fn of_model(&self, config: &ModelConfig) -> Result<Self, EngineError> {
        Ok(Self { precision: config.precision(self.precision)?, ..self.clone() })
    }

    /// Returns the same settings with `ranks` ranks.
    #[must_use]
    pub fn on(&self, ranks: usize) -> Self {
        Self { ranks, ..self.clone() }
    }

    /// Returns how a reference on this host computes beside this: on another device or in another type, on one rank, with nothing
    /// emulated and no operator timed. Threads are the same, and so are kernels on the same device: a configuration beside itself
    /// has the same bits.
    #[must_use]
    pub fn reference(&self, device: DeviceKind, precision: Precision) -> Self {
        Self {
            device,
            precision,
            emulation: Emulation::Off,
            profile: None,
            ranks: 1,
            kernel: kernels_beside(self.device, device).or(self.kernel.filter(|_| device.has_threads())),
            profile_operators: false,
            pack_cache: self.pack_cache && device.has_threads(),
            ..self.clone()
        }
    }

    /// Whether times come from a virtual clock. They have no noise, so one repetition is enough.
    pub fn is_modelled(&self) -> bool {
        self.emulation != Emulation::Off
    }

    /// Returns the emulation, resolved for this model. `None` for real hardware.
    pub fn emulate(&self, model: &ModelPath) -> Option<Emulate> {
        let timing_only = match self.emulation {
            Emulation::Off => return None,
            Emulation::Auto => !matches!(model, ModelPath::Folder(_)),
            Emulation::Compute => false,
            Emulation::Timing => true,
        };
        Some(Emulate { profile: self.profile.clone(), timing_only })
    }

    /// Returns the number of threads.
    pub fn thread_count(&self) -> usize {
        self.threads.unwrap_or_else(available_threads)
    }

    /// Returns how the device stores values, for memory estimates.
    pub fn memory(&self) -> MemoryOf {
        MemoryOf::of_kind(self.device, self.precision, self.kernel, self.thread_count())
    }

    /// Returns the engine's options for loading a model.
    pub fn load_options(&self, model: &ModelPath, capacity: Capacity) -> LoadOptions {
        LoadOptions {
            device: self.device,
            emulate: self.emulate(model),
            precision: self.precision,
            rotary: self.rope,
            threads: self.threads,
            instruction_set: self.kernel,
            tp: self.ranks,
            bind: self.bind,
            profile_operators: self.profile_operators,
            pack_cache: match model {
                ModelPath::Folder(folder) => self.pack_cache.then(|| folder.clone()),
                ModelPath::DummyChatglm2 | ModelPath::Dummy(_) => None,
            },
            capacity,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::option::of;
    use proptest::prelude::*;

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    fn merged(flags: &ComputeSpec, written: &ComputeSpec) -> Result<Compute, EngineError> {
        Compute::merged_in(flags, written, &nothing)
    }

    prop_compose! {
        /// What a place may say, but for the emulation, which the device decides.
        fn spec()(
            device in of(prop::sample::select(DeviceKind::ALL.to_vec())),
            dtype in of(prop::sample::select(Precision::TYPES.to_vec())),
            kv in of(prop::sample::select(KvForm::ALL.to_vec())),
            rope in of(prop::sample::select(RotaryMode::ALL.to_vec())),
            ranks in of(1..65_usize),
            threads in of(1..2000_usize),
            kernel in of(prop::sample::select(InstructionSet::ALL.to_vec())),
            bind in of(any::<bool>()),
            profile_operators in of(any::<bool>()),
            pack_cache in of(any::<bool>()),
        ) -> ComputeSpec {
            ComputeSpec {
                device, emulation: None, profile: None, dtype, kv, rope, ranks, threads, kernel, bind, profile_operators,
                pack_cache,
            }
        }
    }

    proptest! {
        /// Each setting is that of the first place that says it: flags, configuration, suite, default.
        #[test]
        fn the_first_place_that_says_a_setting_decides_it(flags in spec(), configuration in spec(), suite in spec()) {
            let all = [&flags, &configuration, &suite];
            fn first<T>(all: [&ComputeSpec; 3], of: impl Fn(&ComputeSpec) -> Option<T>) -> Option<T> {
                all.into_iter().find_map(of)
            }
            let found = merged(&flags, &configuration.clone().over(&suite)).unwrap();
            let device = first(all, |s| s.device).unwrap_or(DeviceKind::Cpu);
            prop_assert_eq!(found.device, device);
            prop_assert_eq!(found.rope, first(all, |s| s.rope).unwrap_or(RotaryMode::Model));
            prop_assert_eq!(found.ranks, first(all, |s| s.ranks).unwrap_or(1));
            prop_assert_eq!(found.threads, first(all, |s| s.threads).map(|threads| threads.min(1024)));
            prop_assert_eq!(found.bind, first(all, |s| s.bind).unwrap_or(false));
            prop_assert_eq!(found.profile_operators, first(all, |s| s.profile_operators).unwrap_or(false));
            prop_assert_eq!(found.pack_cache, first(all, |s| s.pack_cache).unwrap_or(false));
            let kernel = first(all, |s| s.kernel).filter(|_| device == DeviceKind::Cpu);
            prop_assert_eq!(found.kernel, kernel);
            // The types of a suite are not those of the reference, which has one.
            let of_types = if device == DeviceKind::Reference { [&flags; 3] } else { all };
            let dtype = first(of_types, |s| s.dtype).unwrap_or(device.main_type().into());
            let kv = first(of_types, |s| s.kv).unwrap_or(KvForm::Auto);
            prop_assert_eq!(found.precision, Precision { kv, ..dtype });
        }

        /// Merging in one step or in two is the same.
        #[test]
        fn merging_is_associative(a in spec(), b in spec(), c in spec()) {
            prop_assert_eq!(a.clone().over(&b).over(&c), a.over(&b.over(&c)));
        }

        /// What says nothing changes nothing.
        #[test]
        fn silence_changes_nothing(a in spec()) {
            prop_assert_eq!(a.clone().over(&ComputeSpec::default()), a.clone());
            prop_assert_eq!(ComputeSpec::default().over(&a), a);
        }
    }

    #[test]
    fn a_profile_is_for_emulated_cards() {
        let said = |emulation, profile: Option<&str>| ComputeSpec {
            emulation,
            profile: profile.map(PathBuf::from),
            ..ComputeSpec::default()
        };
        let profile = |flags, written| merged(&flags, &written).map(|c| (c.emulation, c.profile));
        let (off, auto, timing) = (Some(Emulation::Off), Some(Emulation::Auto), Some(Emulation::Timing));
        // The flag serves the emulated configurations of a suite, and not the others.
        assert_eq!(
            profile(said(None, Some("a")), said(auto, None)).unwrap(),
            (Emulation::Auto, Some("a".into()))
        );
        assert_eq!(profile(said(None, Some("a")), said(off, None)).unwrap(), (Emulation::Off, None));
        // The configuration's own stays, whatever the flags say of the emulation.
        assert_eq!(
            profile(said(timing, None), said(auto, Some("b"))).unwrap(),
            (Emulation::Timing, Some("b".into()))
        );
        for (flags, written) in
            [(said(None, Some("a")), said(None, None)), (said(None, None), said(off, Some("b")))]
        {
            assert!(profile(flags, written).unwrap_err().to_string().contains("give --emulate"));
        }
    }

    /// A reference beside a card has the same bits on every machine, and one beside the CPU has the CPU's own kernels.
    #[test]
    fn a_reference_beside_a_card_has_vector_kernels() {
        let vectors = Some(InstructionSet::best_vector());
        let said = |device, kernel| ComputeSpec { device: Some(device), kernel, ..ComputeSpec::default() };
        let cpu = DeviceKind::Cpu;
        let against = |device: &str| device.parse::<Against>().unwrap();
        for card in DeviceKind::ALL.into_iter().filter(|device| !device.has_threads()) {
            assert_eq!(against("cpu:fp16").spec(said(card, Some(InstructionSet::Portable))).kernel, vectors);
            let emulated = ComputeSpec { emulation: Some(Emulation::Compute), ..said(card, None) };
            let own = merged(&emulated, &ComputeSpec::default()).unwrap();
            assert_eq!(own.reference(cpu, own.precision).kernel, vectors);
            assert_eq!(own.reference(card, own.precision).kernel, None);
        }
        assert_eq!(against("cpu:bf16").spec(said(cpu, None)).kernel, None);
        let own = merged(&said(cpu, Some(InstructionSet::Portable)), &ComputeSpec::default()).unwrap();
        assert_eq!(own.reference(cpu, own.precision).kernel, Some(InstructionSet::Portable));
    }

    #[test]
    fn the_cache_of_a_type_counts_as_said() {
        let typed =
            |word: &str, kv| ComputeSpec { dtype: Some(word.parse().unwrap()), kv, ..ComputeSpec::default() };
        let of = |flags: &ComputeSpec, written: &ComputeSpec| {
            merged(flags, written).unwrap().precision.to_string()
        };
        let suite = typed("bf16", Some(KvForm::Auto));
        assert_eq!(of(&typed("fp16+kv-int8", None), &suite), "fp16+kv-int8");
        assert_eq!(of(&typed("fp16+kv-int8", Some(KvForm::Auto)), &suite), "fp16");
        assert_eq!(of(&typed("fp16", None), &typed("bf16", Some(KvForm::Int8))), "fp16+kv-int8");
    }

    #[test]
    fn the_environment_is_below_the_flags() {
        let environment = |ranks: &'static str, bind: &'static str| {
            move |name: &str| Some(OsString::from(if name == "BIND_CPU" { bind } else { ranks }))
        };
        let flags = ComputeSpec::default();
        let silent = ComputeSpec::default();
        let set = environment("2", "1");
        assert_eq!(flags.clone().or_ranks_of(&set).unwrap().ranks, Some(2));
        assert!(Compute::merged_in(&flags, &silent, &set).unwrap().bind);
        let said = ComputeSpec { ranks: Some(4), bind: Some(false), ..flags.clone() };
        assert_eq!(said.clone().or_ranks_of(&environment("x", "")).unwrap().ranks, Some(4));
        assert!(!Compute::merged_in(&said, &silent, &set).unwrap().bind);
        let empty = environment("", "");
        assert_eq!(flags.clone().or_ranks_of(&empty).unwrap().ranks, None);
        let wrong = environment("x", "yes");
        let error = flags.clone().or_ranks_of(&wrong).unwrap_err().to_string();
        assert!(error.contains("TP_WORLD_SIZE is \"x\", expected a number of ranks"), "{error}");
        let error = Compute::merged_in(&flags, &silent, &wrong).unwrap_err().to_string();
        assert!(error.contains("BIND_CPU is \"yes\", expected 0 or 1"), "{error}");
    }
}
