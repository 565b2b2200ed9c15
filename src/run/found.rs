//! Finding a model by its word, and loading it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use glmbench_device::affinity::why_not_bound;
use glmbench_device::{DType, DeviceError, DeviceKind, Precision};

use glmbench_engine::config::{ModelConfig, RopeScaling};
use glmbench_engine::load::{self, ModelPath, load_tokenizer};
use glmbench_engine::memory::{MemoryBudget, MemoryEstimate};
use glmbench_engine::model::Capacity;
use glmbench_engine::parallel::check_tp;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::weights::overlay::Overlay;
use glmbench_engine::weights::{Choice, WeightSource, layout, open_checkpoint};
use glmbench_engine::{Engine, EngineError};

use crate::compute::Compute;
use crate::shipped;

use super::machine::Machine;
use super::model::ModelFacts;
use super::observer::{BYTES, Observer};
use super::weights_hash::{Files, KEPT};

/// Resolves a value of `--model`. `demo` is searched for in the current directory, in the program's directory, and in
/// their ancestors. Without such a folder it is the one that the program carries.
///
/// # Errors
/// There is no such folder or file.
pub fn model_path(word: &OsStr) -> Result<ModelPath, EngineError> {
    if word != "demo" {
        let path = ModelPath::parse(word);
        let missing = match &path {
            ModelPath::Folder(dir) if !dir.exists() => Some(dir.join("config.json")),
            ModelPath::Dummy(file) if !file.exists() => Some(file.clone()),
            _ => None,
        };
        return match missing {
            None => Ok(path),
            Some(missing) => Err(EngineError::Option(format!(
                "--model {}: {} is not there; expected a model folder, `demo`, `dummy:chatglm2-6b` or \
                 `dummy:PATH/config.json`",
                word.display(),
                missing.display()
            ))),
        };
    }
    let places = std::env::current_dir().into_iter().chain(std::env::current_exe());
    let mut folders: Vec<PathBuf> =
        places.flat_map(|p| p.ancestors().map(Path::to_path_buf).collect::<Vec<_>>()).collect();
    folders.push(PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let demo = folders.into_iter().map(|folder| folder.join("models").join("demo"));
    let folder = match demo.into_iter().find(|dir| dir.join("config.json").is_file()) {
        Some(folder) => folder,
        None => shipped::demo_model()
            .map_err(|error| EngineError::Option(format!("--model demo: {error}; or give a model folder")))?,
    };
    Ok(ModelPath::Folder(folder))
}

/// A model that was found and checked but not loaded.
#[derive(Debug)]
pub struct FoundModel {
    /// The model's path.
    pub path: ModelPath,
    /// The model's configuration, including the prefix.
    pub config: ModelConfig,
    ptuning: Option<PathBuf>,
    /// Whether the user specified the meaning of `rope_ratio`.
    scaling_said: bool,
    /// The host's available memory when the model was found. Plan and checks use this one figure, or another process that
    /// takes memory between two looks would have them contradict each other.
    available_bytes: Option<u64>,
}

impl FoundModel {
    /// Finds the model for a value of `--model`, adds the prefix from a P-tuning folder, and reads its configuration.
    /// `scaling` is the user's meaning of `rope_ratio`, if any.
    ///
    /// # Errors
    /// The model or the prefix is missing, or its configuration cannot be used.
    pub fn find(
        word: &OsStr,
        ptuning: Option<&Path>,
        scaling: Option<RopeScaling>,
    ) -> Result<Self, EngineError> {
        let path = model_path(word)?;
        let mut config = path.config(scaling)?;
        if let Some(dir) = ptuning {
            // Only the prefix is read from this folder. The base model defines the rotation.
            let tuned = ModelConfig::shape_of(&dir.join("config.json"))?;
            if tuned.pre_seq_len.is_none() {
                return Err(EngineError::Option(format!(
                    "--ptuning {}: config.json has no pre_seq_len, so there is no prefix",
                    dir.display()
                )));
            }
            config.pre_seq_len = tuned.pre_seq_len;
            config.prefix_projection = tuned.prefix_projection;
        }
        let scaling_said = scaling.is_some();
        let available_bytes = Machine::read().available_bytes;
        Ok(Self { path, config, ptuning: ptuning.map(Path::to_path_buf), scaling_said, available_bytes })
    }

    /// Returns the model's name for records, for the value of `--model` that named it. It is only the folder's name, because paths
    /// are private.
    pub fn name(&self, word: &OsStr) -> String {
        let name = match &self.path {
            ModelPath::Folder(dir) if word != "demo" => dir.file_name().unwrap_or(word),
            _ => word,
        };
        name.to_string_lossy().into_owned()
    }

    /// Returns the memory of the host that was available when the model was found, if the system tells.
    pub fn available_bytes(&self) -> Option<u64> {
        self.available_bytes
    }

    /// Opens the weights and checks them against the configuration. Does not read them.
    pub fn weights(&self, dtype: DType) -> Result<Box<dyn WeightSource>, EngineError> {
        let Some(dir) = &self.ptuning else { return self.path.weights(&self.config, dtype) };
        let base = ModelConfig { pre_seq_len: None, ..self.config.clone() };
        let open = |dir: &Path| open_checkpoint(dir).map_err(EngineError::from);
        let overlay = Overlay { prefix: open(dir)?, base: self.path.weights(&base, dtype)? };
        layout::check(&overlay, &self.config)?;
        Ok(Box::new(overlay))
    }

    /// Returns the hash of the weights: the one kept beside them while their files are unchanged, unless `anew`.
    pub fn fingerprint(
        &self,
        dtype: DType,
        anew: bool,
        observer: &mut dyn Observer,
    ) -> Result<String, EngineError> {
        // With a prefix, the weights are from two folders.
        let files = match (&self.path, &self.ptuning) {
            (ModelPath::Folder(dir), None) => Files::read(dir),
            _ => None,
        };
        if let Some(kept) = files.as_ref().filter(|_| !anew).and_then(Files::kept) {
            observer
                .say(&format!("the weights' hash is the one in {KEPT} beside them; --verify hashes anew"));
            return Ok(kept);
        }
        let hash = self.hashed(dtype, observer)?;
        if let Some(files) = files {
            files.keep(&hash);
        }
        Ok(hash)
    }

    fn hashed(&self, dtype: DType, observer: &mut dyn Observer) -> Result<String, EngineError> {
        let source = self.weights(dtype)?;
        let bar = observer.operation("hashing", BYTES);
        bar.set_length(source.stored().iter().map(|t| t.bytes).sum());
        let done = AtomicU64::new(0);
        let hash = source.fingerprint(&|bytes| {
            bar.set_position(done.fetch_add(bytes, Ordering::Relaxed) + bytes);
        });
        hash.map_err(EngineError::from)
    }

    /// Returns what was read from the model, and what was assumed where its folder does not say.
    pub fn facts(&self, tokenizer: Option<&Tokenizer>) -> Result<ModelFacts, EngineError> {
        let mut weights = self.path.weights_in_words(&self.config)?;
        if let Some(dir) = &self.ptuning {
            weights += &format!(", with the P-tuning prefix of {}", Choice::of(dir)?.words());
        }
        Ok(ModelFacts::new(&self.config, tokenizer, weights, self.scaling_said))
    }

    /// Returns the tokenizer; `None` for random weights.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, EngineError> {
        self.path.tokenizer_dir().map(|dir| load_tokenizer(dir, Some(&self.config))).transpose()
    }

    /// Returns the memory the model may use: the host memory, or the memory of the chips in the profile of an emulated card.
    /// `None` for a real card, which is asked when the model is loaded.
    pub fn memory_budget(&self, compute: &Compute) -> Result<Option<MemoryBudget>, EngineError> {
        if !compute.device.is_card() {
            return Ok(self.available_bytes.map(MemoryBudget::Together));
        }
        let Some(emulate) = compute.emulate(&self.path) else { return Ok(None) };
        let machine = emulate.machine_of(compute.device)?;
        Ok(machine.and_then(|machine| machine.memory_bytes).map(MemoryBudget::EachRank))
    }

    /// Checks that the model can be loaded: that it can be split among the ranks, and that device and memory are
    /// available.
    pub fn check(&self, compute: &Compute, capacity: Capacity) -> Result<(), EngineError> {
        let compute = &compute.of_model(&self.config)?;
        let emulate = compute.emulate(&self.path);
        check_tp(&self.config, compute.ranks)?;
        self.check_calibrated(compute.precision)?;
        let types = self.config.types_on(compute.device, compute.precision);
        load::check(compute.device, types, compute.ranks, emulate.as_ref())?;
        if compute.profile_operators {
            load::check_profile(compute.device)?;
        }
        if compute.pack_cache {
            self.check_pack_cache(compute.device)?;
        }
        self.check_room(compute, capacity)
    }

    /// Checks that the host had enough memory when the model was found, if the host computes.
    pub fn check_room(&self, compute: &Compute, capacity: Capacity) -> Result<(), EngineError> {
        self.check_room_in(self.available_bytes, compute, capacity)
    }

    fn check_room_in(
        &self,
        available_bytes: Option<u64>,
        compute: &Compute,
        capacity: Capacity,
    ) -> Result<(), EngineError> {
        let rank = MemoryEstimate::per_rank(&self.config, compute.memory(), capacity, compute.ranks)?;
        // A real card checks its own memory. An emulated card that computes uses the host's.
        let here = match compute.emulate(&self.path) {
            Some(emulate) => !emulate.timing_only,
            None => !compute.device.is_card(),
        };
        if here {
            check_memory(&rank.of_ranks(compute.ranks), available_bytes)?;
        }
        Ok(())
    }

    /// Checks that the device packs weights, and that there is a folder to keep them in.
    fn check_pack_cache(&self, device: DeviceKind) -> Result<(), EngineError> {
        load::check_pack_cache(device)?;
        match self.path {
            ModelPath::Folder(_) => Ok(()),
            ModelPath::DummyChatglm2 | ModelPath::Dummy(_) => Err(EngineError::Option(
                "--pack-cache: random weights have no checkpoint to keep packed weights beside; expected a model folder, or no \
                 --pack-cache"
                    .into(),
            )),
        }
    }

    /// Checks that weights in a calibrated form come from a calibrated checkpoint, or are random.
    fn check_calibrated(&self, precision: Precision) -> Result<(), EngineError> {
        let is_dense = self.config.quantised.is_none() && self.path.tokenizer_dir().is_some();
        if !(is_dense && precision.weights.is_calibrated()) {
            return Ok(());
        }
        let dynamic = Precision::W8A8_DYNAMIC;
        Err(EngineError::Option(format!(
            "--dtype {precision}: the weights are not quantised, and this type needs a calibrated checkpoint; take one, or \
             --dtype {dynamic}"
        )))
    }

    /// Loads the model, after [checking](Self::check) device and memory. Looks at the available memory again: the plan may be
    /// old.
    pub fn load(
        &self,
        compute: &Compute,
        capacity: Capacity,
        observer: &mut dyn Observer,
    ) -> Result<Engine, EngineError> {
        let compute = &compute.of_model(&self.config)?;
        self.check(compute, capacity)?;
        self.check_room_in(Machine::read().available_bytes, compute, capacity)?;
        let options = compute.load_options(&self.path, capacity);
        let source = self.weights(options.precision.dtype)?;
        let bar = observer.operation("loading", "tensors");
        let engine = load::load(&self.config, source.into(), &options, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
        drop(bar);
        if let Some(reason) = why_not_bound(&engine.device_info()) {
            observer.say(&format!("the ranks are not bound to cores: {reason}"));
        }
        engine.pack_cache().iter().flat_map(|cache| &cache.notes).for_each(|note| observer.say(note));
        for fault in weight_fault_words(&engine, 5).unwrap_or_default() {
            observer.say(&format!("warning: {fault}; what the model says cannot be believed"));
        }
        Ok(engine)
    }
}

/// Lists the first `most` tensors with weights that are NaN, or infinite in the run's type, and the number of further
/// ones. `None` if no weights were read.
pub(super) fn weight_fault_words(engine: &Engine, most: usize) -> Option<Vec<String>> {
    let faults = engine.weight_faults()?;
    let mut words: Vec<String> = faults.iter().take(most).map(ToString::to_string).collect();
    match faults.len().saturating_sub(most) {
        0 => {}
        1 => words.push("1 more tensor is so".to_owned()),
        more => words.push(format!("{more} more tensors are so")),
    }
    Some(words)
}

/// Rejects a model that does not fit in memory, before time is spent on loading it.
fn check_memory(estimate: &MemoryEstimate, available_bytes: Option<u64>) -> Result<(), DeviceError> {
    let Some(available) = available_bytes else { return Ok(()) };
    if estimate.total_bytes() > available {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        return Err(DeviceError::OutOfMemory {
            device: DeviceKind::Cpu.name(),
            what: format!(
                "weights {:.2} GB, KV cache {:.2} GB, working memory {:.2} GB ({:.2} GB are available)",
                gb(estimate.weight_bytes),
                gb(estimate.kv_bytes),
                gb(estimate.activation_bytes),
                gb(available)
            ),
            wanted_bytes: estimate.total_bytes() as usize,
        });
    }
    Ok(())
}
