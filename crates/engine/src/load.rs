//! Loading a model from the command line's values: where it comes from ([`ModelPath`]), the device ([`DeviceKind`]), and the
//! capacity to load it for.

mod device;
mod path;

use std::sync::{Arc, Mutex};

use glmbench_ascend::{AscendGroup, Chip, Forced, GroupSettings};
use glmbench_cpu::{Cpu, CpuGroup, CpuOptions, InstructionSet, available_threads};
use glmbench_device::group::DeviceGroup;
use glmbench_device::observed::{Observation, Observed, Observer};
use glmbench_device::reference::{Reference, ReferenceGroup};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::timed::{OperatorClock, Timed, TimedGroup, Timing};
use glmbench_device::{Device, Precision};

use super::Engine;
use super::EngineError;
use super::config::ModelConfig;
use super::model::{Capacity, Forward, Model, attention_shape};
use super::parallel::{Cut, Ranks};
use super::weights::WeightSource;
use super::weights::unread::Unread;
use super::weights::watch::Watched;

use self::device::{check_emulated, check_precision};
use self::path::storage;

pub use glmbench_device::DeviceKind;

pub use self::device::{Emulate, check, check_profile};
pub use self::path::{ModelPath, load_tokenizer};

/// Options for loading a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The device.
    pub device: DeviceKind,
    /// Emulator settings; `None` for real hardware.
    pub emulate: Option<Emulate>,
    /// Types of weights, activations and cache.
    pub precision: Precision,
    /// Rounding of the rotary table.
    pub rotary: RotaryMode,
    /// Number of threads; `None` means all cores available to the process.
    pub threads: Option<usize>,
    /// CPU kernels; `None` means the best that the machine supports.
    pub instruction_set: Option<InstructionSet>,
    /// Number of tensor-parallel ranks.
    pub tp: usize,
    /// Whether each rank's threads are bound to their own cores.
    pub bind: bool,
    /// Whether every operator is timed ([`Engine::take_profile`]).
    pub profile_operators: bool,
    /// The capacity that must fit into memory.
    pub capacity: Capacity,
}

impl LoadOptions {
    /// Returns the options of a caller that asks for nothing further: one rank, all cores, the best kernels.
    pub fn plain(device: DeviceKind, precision: Precision, capacity: Capacity) -> Self {
        Self {
            device,
            emulate: None,
            precision,
            rotary: RotaryMode::Model,
            threads: None,
            instruction_set: None,
            tp: 1,
            bind: false,
            profile_operators: false,
            capacity,
        }
    }
}

/// Loads a model.
///
/// `progress` receives the number of tensors loaded so far (by rank 0, if there are several ranks) and the total.
/// Weights that are NaN, or infinite in the run's type, are loaded unchanged: [`Engine::weight_faults`] names them.
///
/// # Errors
/// The model cannot be split over this number of ranks (checked before anything is loaded). The device is missing or too
/// small, or the weights cannot be read.
pub fn load(
    config: &ModelConfig,
    source: Arc<dyn WeightSource>,
    options: &LoadOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Engine, EngineError> {
    let rank = Cut::new(config, 0, options.tp)?.config(config);
    let alone = options.tp == 1 && !options.bind;
    check_emulated(options.device, options.emulate.as_ref())?;
    let options = &LoadOptions { precision: config.precision(options.precision)?, ..options.clone() };
    check_precision(options.device, config.types_on(options.device, options.precision))?;
    let (rotary, capacity) = (options.rotary, options.capacity);
    if options.profile_operators {
        check_profile(options.device)?;
    }
    let clock: Option<Arc<OperatorClock>> = options.profile_operators.then(Arc::default);
    let watched = Arc::new(Watched::new(source, options.precision));
    let source = Arc::clone(&watched) as Arc<dyn WeightSource>;
    let mut on = On { config, options, clock: clock.clone(), source, progress };
    let model: Box<dyn Forward> = match options.device {
        DeviceKind::Cpu => {
            let cpu = CpuOptions {
                precision: options.precision,
                threads: options.threads.unwrap_or_else(available_threads),
                instruction_set: options.instruction_set,
                max_context: capacity.max_context,
                attention: attention_shape(&rank),
            };
            if alone {
                on.one(Cpu::new(cpu)?)?
            } else {
                on.ranks(CpuGroup::new(cpu, options.tp, options.bind))?
            }
        }
        DeviceKind::Reference => {
            if alone {
                on.one(Reference::default())?
            } else {
                on.ranks(ReferenceGroup::new(options.tp))?
            }
        }
        DeviceKind::Duo300i | DeviceKind::A2800i => {
            let chip = Chip::of(options.device).expect("invariant: these two are chips");
            let emulate = options.emulate.as_ref();
            let settings = GroupSettings {
                chip,
                tp: options.tp,
                dtype: options.precision.dtype,
                weights: options.precision.weights,
                attention: attention_shape(&rank),
                bind: options.bind,
                forced: Forced::from_environment(chip.name())?,
                emulation: emulate.map(|emulate| emulate.machine(chip)).transpose()?,
            };
            let source = match emulate {
                Some(Emulate { timing_only: true, .. }) => {
                    Arc::new(Unread { config: config.clone(), dtype: storage(options.precision.dtype) })
                }
                _ => on.source,
            };
            let group = AscendGroup::new(settings)?;
            Box::new(Ranks::load(group, config, rotary, capacity, source, on.progress)?)
        }
    };
    let mut engine = match clock {
        Some(clock) => Engine::profiled(model, clock),
        None => Engine::new(model),
    };
    if !options.emulate.as_ref().is_some_and(|emulate| emulate.timing_only) {
        engine.set_weight_faults(watched.faults());
    }
    Ok(engine)
}

/// Loads a model on all cores of this machine, for a caller that drives the forward pass itself. `observer` sees what it computes.
///
/// # Errors
/// As for [`load`].
pub fn load_observed(
    config: &ModelConfig,
    source: &dyn WeightSource,
    precision: Precision,
    capacity: Capacity,
    observer: Option<Arc<Mutex<dyn Observer>>>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Box<dyn Forward>, EngineError> {
    let cpu = Cpu::new(CpuOptions::plain(precision, capacity.max_context, attention_shape(config)))?;
    let rotary = RotaryMode::Model;
    Ok(match observer {
        None => Box::new(Model::load(cpu, config, rotary, capacity, source, progress)?),
        Some(observer) => {
            let cpu = Observed::new(cpu, Observation::new(observer));
            Box::new(Model::load(cpu, config, rotary, capacity, source, progress)?)
        }
    })
}

/// The inputs of loading that are common to all devices.
struct On<'a> {
    config: &'a ModelConfig,
    options: &'a LoadOptions,
    clock: Option<Arc<OperatorClock>>,
    source: Arc<dyn WeightSource>,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl On<'_> {
    /// Loads the model on a single device, timed if requested.
    fn one(&mut self, device: impl Device + 'static) -> Result<Box<dyn Forward>, EngineError> {
        let LoadOptions { rotary, capacity, .. } = *self.options;
        let (config, source, progress) = (self.config, &*self.source, &mut *self.progress);
        Ok(match self.clock.clone() {
            None => Box::new(Model::load(device, config, rotary, capacity, source, progress)?),
            clock => {
                let device = Timed::new(device, Timing::new(clock));
                Box::new(Model::load(device, config, rotary, capacity, source, progress)?)
            }
        })
    }

    /// Loads the model on a group of devices, timed if requested.
    fn ranks(&mut self, group: impl DeviceGroup) -> Result<Box<dyn Forward>, EngineError> {
        let LoadOptions { rotary, capacity, .. } = *self.options;
        let (config, source, progress) = (self.config, Arc::clone(&self.source), &mut *self.progress);
        Ok(match self.clock.clone() {
            None => Box::new(Ranks::load(group, config, rotary, capacity, source, progress)?),
            Some(clock) => {
                let group = TimedGroup::new(group, clock);
                Box::new(Ranks::load(group, config, rotary, capacity, source, progress)?)
            }
        })
    }
}
