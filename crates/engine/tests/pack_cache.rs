//! The cache of packed weights: the same bits with and without it, and nothing stale or damaged is used.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use glmbench_cpu::InstructionSet;
use glmbench_device::{DType, Precision};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{DeviceKind, LoadOptions, ModelPath, load};
use glmbench_engine::model::Capacity;
use glmbench_engine::weights::dummy::Dummy;
use glmbench_engine::weights::packed::PackUse;
use glmbench_engine::weights::{StorageType, StoredTensor, TensorView, WeightError, WeightSource};
use glmbench_engine::{EngineError, Request};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

/// Age from which weights count as settled, and a little more.
const SETTLED: Duration = Duration::from_millis(5_500);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Returns a folder with links to the files of a model. The files themselves are settled, where copies would be new.
fn linked(model: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(model)).unwrap() {
        let entry = entry.unwrap();
        symlink(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

/// Replaces the link to the weights by a file with these bytes, and waits until it is settled.
fn write_weights(dir: &TempDir, bytes: &[u8]) {
    let path = dir.path().join("model.safetensors");
    fs::remove_file(&path).unwrap();
    fs::write(path, bytes).unwrap();
    std::thread::sleep(SETTLED);
}

/// What a load and a few tokens came to.
#[derive(Debug)]
struct Run {
    bits: Vec<u32>,
    used: Option<PackUse>,
    notes: String,
    faults: String,
}

fn run(model: &Path, cache: Option<&Path>, precision: Precision, tp: usize) -> Result<Run, EngineError> {
    run_on(model, cache, precision, tp, None)
}

fn run_on(
    model: &Path,
    cache: Option<&Path>,
    precision: Precision,
    tp: usize,
    instruction_set: Option<InstructionSet>,
) -> Result<Run, EngineError> {
    let path = ModelPath::Folder(model.to_owned());
    let config = path.config(None)?;
    let options = LoadOptions {
        threads: Some(2),
        instruction_set,
        tp,
        pack_cache: cache.map(Path::to_owned),
        ..LoadOptions::plain(DeviceKind::Cpu, precision, Capacity::for_batch(&config, 1, 64))
    };
    run_of(&config, path.weights(&config, precision.dtype)?, &options)
}

fn run_of(
    config: &ModelConfig,
    source: Box<dyn WeightSource>,
    options: &LoadOptions,
) -> Result<Run, EngineError> {
    let mut engine = load(config, Arc::from(source), options, &mut |_, _| {})?;
    let mut bits = Vec::new();
    for prompt in [vec![3, 5, 7, 11, 2, 1], (0..40).collect()] {
        let choice_ids = (0..config.padded_vocab_size as u32).collect();
        engine.submit(Request { prompt, choice_ids, ..Request::probe() })?;
        while !engine.is_idle() {
            let finished = engine.step()?.finished;
            bits.extend(finished.iter().flat_map(|done| &done.choice_logprobs).map(|x| x.to_bits()));
        }
    }
    let faults = format!("{:?}", engine.weight_faults());
    let (used, notes) = match engine.pack_cache() {
        Some(cache) => (Some(cache.used), cache.notes.join("\n")),
        None => (None, String::new()),
    };
    Ok(Run { bits, used, notes, faults })
}

fn cached(model: &Path, precision: Precision, tp: usize) -> Run {
    run(model, Some(model), precision, tp).unwrap()
}

fn caches(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains(".packs")).collect()
}

fn holds(dir: &TempDir, precision: Precision, tp: usize) {
    let what = format!("{precision} on {tp}");
    let model = dir.path();
    let plain = run(model, None, precision, tp).unwrap();
    assert!(plain.bits.len() > 100 && plain.used.is_none(), "{what}");
    for used in [PackUse::Written, PackUse::Mapped, PackUse::Mapped] {
        let run = cached(model, precision, tp);
        assert_eq!(run.used, Some(used), "{what}: {}", run.notes);
        assert!(run.bits == plain.bits, "{what}: other bits, {used:?}");
        assert_eq!(run.faults, plain.faults, "{what}");
    }
}

#[test]
fn bits_are_the_same_with_and_without_the_cache() {
    let dir = linked("models/demo");
    let types = Precision::TYPES.into_iter().filter(|precision| !precision.weights.is_calibrated());
    for precision in types {
        for tp in [1, 2] {
            holds(&dir, precision, tp);
        }
    }
    // One file for each type and number of ranks.
    assert_eq!(caches(dir.path()).len(), 2 * 7);
}

/// A quantised checkpoint brings integers, scales, and the quantisation of inputs.
#[test]
fn bits_of_a_quantised_checkpoint_are_the_same_with_and_without_the_cache() {
    let dir = linked("tests/fixtures/quantised/w8a8");
    [1, 2].into_iter().for_each(|tp| holds(&dir, DType::Fp16.into(), tp));
}

/// Random weights that say they are from a file.
struct Filed(Dummy);

impl WeightSource for Filed {
    fn place(&self) -> String {
        self.0.place()
    }

    fn stored(&self) -> Vec<StoredTensor> {
        let origin = fixture("models/demo/model.safetensors").display().to_string();
        self.0.stored().into_iter().map(|tensor| StoredTensor { origin: origin.clone(), ..tensor }).collect()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        self.0.tensor(name, shape)
    }

    fn release(&self, name: &str) {
        self.0.release(name);
    }

    fn dtype(&self) -> StorageType {
        self.0.dtype()
    }

    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        self.0.fingerprint(hashed)
    }
}

/// A prefix is computed while the model is loaded, so its weights are used before all are there.
#[test]
fn bits_of_a_model_with_a_prefix_are_the_same_with_and_without_the_cache() {
    for (projection, tp) in [(false, 1), (true, 1), (true, 2)] {
        let text = format!(
            r#"{{"model_type":"chatglm","num_layers":2,"hidden_size":64,"ffn_hidden_size":96,"kv_channels":16,
            "num_attention_heads":4,"multi_query_attention":true,"multi_query_group_num":2,
            "padded_vocab_size":1000,"seq_length":2048,"add_qkv_bias":true,"eos_token_id":2,
            "pre_seq_len":13,"prefix_projection":{projection}}}"#
        );
        let config = ModelConfig::from_json(&text, Path::new("config.json")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let run = |pack_cache: Option<&Path>| {
            let options = LoadOptions {
                threads: Some(2),
                tp,
                pack_cache: pack_cache.map(Path::to_owned),
                ..LoadOptions::plain(DeviceKind::Cpu, DType::Fp16.into(), Capacity::for_batch(&config, 1, 64))
            };
            let dummy = Dummy::new(config.clone(), StorageType::F16, 7);
            run_of(&config, Box::new(Filed(dummy)), &options).unwrap()
        };
        let plain = run(None);
        for used in [PackUse::Written, PackUse::Mapped] {
            let run = run(Some(folder.path()));
            assert_eq!(run.used, Some(used), "{}", run.notes);
            assert!(run.bits == plain.bits, "{projection} {tp}: other bits, {used:?}");
        }
        assert!(caches(folder.path())[0].to_string_lossy().contains("fp16-prefix-tp"));
    }
}

/// The loader decides on the order of the parts and on how ranks share them, and a file does not say which loader wrote it. With
/// another order, weights of the same size would be exchanged.
#[test]
fn the_parts_of_this_version_are_these() {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for precision in [DType::Fp16.into(), Precision::W8A8_DYNAMIC] {
        for tp in [1, 2] {
            let dir = linked("models/demo");
            let model = dir.path();
            run_on(model, Some(model), precision, tp, Some(InstructionSet::Portable)).unwrap();
            for part in parts(&caches(model)[0]) {
                for byte in part {
                    hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
                }
            }
        }
    }
    // If this changes, a constant of the key must change: `SCHEMA` of `packed`, or `PACK_LAYOUT` of the device.
    assert_eq!(hash, 16_815_992_563_922_371_638);
}

/// Returns the parts of a file, rank by rank. In the file they lie as the ranks finished them.
fn parts(file: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(file).unwrap();
    let index = u64::from_le_bytes(*bytes[16..].first_chunk().unwrap()) as usize;
    let index: Value = serde_json::from_slice(&bytes[index..]).unwrap();
    let ranks: Vec<Vec<(usize, usize, u32)>> = serde_json::from_value(index["ranks"].clone()).unwrap();
    ranks.into_iter().flatten().map(|(at, length, _)| bytes[at..at + length].to_vec()).collect()
}

/// Weights that are not finite are told by every run, not only by the one that read them.
#[test]
fn faults_are_kept() {
    let dir = linked("models/demo");
    let mut bytes = fs::read(dir.path().join("model.safetensors")).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let at = 8 + header + metadata.info("transformer.output_layer.weight").unwrap().data_offsets.0;
    bytes[at..at + 2].copy_from_slice(&0x7E00_u16.to_le_bytes());
    write_weights(&dir, &bytes);
    let first = cached(dir.path(), DType::Fp16.into(), 1);
    assert!(first.faults.contains("NaN"), "{}", first.faults);
    let second = cached(dir.path(), DType::Fp16.into(), 1);
    assert_eq!((second.used, second.faults), (Some(PackUse::Mapped), first.faults));
    holds(&dir, DType::Fp16.into(), 2);
}

/// Changes a byte of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_stale_or_damaged_file_is_told_and_replaced() {
    let dir = linked("models/demo");
    let weights = fs::read(dir.path().join("model.safetensors")).unwrap();
    let precision = DType::Bf16.into();
    let first = cached(dir.path(), precision, 1);
    assert_eq!(first.used, Some(PackUse::Written), "{}", first.notes);
    let [cache] = &caches(dir.path())[..] else { panic!("one file") };
    let good = fs::read(cache).unwrap();
    let changes: [(&str, &dyn Fn()); 6] = [
        // The same bytes in another file: only the system knows.
        ("of other weights", &|| write_weights(&dir, &weights)),
        ("damaged: its length", &|| fs::write(cache, &good[..good.len() - 1]).unwrap()),
        ("damaged: cut short", &|| fs::write(cache, b"").unwrap()),
        ("no packed weights of schema", &|| fs::write(cache, [&[0; 8], &good[8..]].concat()).unwrap()),
        ("damaged: the checksum of header and index", &|| flip(cache, good.len() - 1)),
        ("damaged: the checksum of a weight", &|| flip(cache, good.len() / 2)),
    ];
    for (says, change) in changes {
        change();
        let again = cached(dir.path(), precision, 1);
        assert!(again.notes.contains(says) && again.notes.contains("packing anew"), "{}", again.notes);
        assert_eq!(again.used, Some(PackUse::Written), "{}", again.notes);
        assert!(again.bits == first.bits);
        assert_eq!(cached(dir.path(), precision, 1).used, Some(PackUse::Mapped));
    }
    assert_eq!(caches(dir.path()).len(), 1);
}

#[test]
fn a_cache_that_cannot_be_written_is_told_and_left_out() {
    let dir = linked("models/demo");
    let precision = DType::Fp16.into();
    let plain = run(dir.path(), None, precision, 1).unwrap();
    let nowhere = run(dir.path(), Some(&dir.path().join("none")), precision, 1).unwrap();
    assert!(nowhere.notes.contains("not kept"), "{}", nowhere.notes);
    assert_eq!((nowhere.used, &nowhere.bits), (Some(PackUse::Failed), &plain.bits));
    // A folder stands where the file would be.
    assert_eq!(cached(dir.path(), precision, 1).used, Some(PackUse::Written));
    let [cache] = &caches(dir.path())[..] else { panic!("one file") };
    fs::remove_file(cache).unwrap();
    fs::create_dir(cache).unwrap();
    fs::write(cache.join("x"), b"x").unwrap();
    let blocked = cached(dir.path(), precision, 1);
    assert_eq!((blocked.used, &blocked.bits), (Some(PackUse::Failed), &plain.bits));
    assert_eq!(caches(dir.path()).len(), 1);
}

#[test]
fn other_devices_refuse_the_cache_by_name() {
    let dir = linked("models/demo");
    let path = ModelPath::Folder(dir.path().to_owned());
    let config = path.config(None).unwrap();
    for device in DeviceKind::ALL.into_iter().filter(|device| *device != DeviceKind::Cpu) {
        let precision: Precision = device.main_type().into();
        let options = LoadOptions {
            pack_cache: Some(dir.path().to_owned()),
            ..LoadOptions::plain(device, precision, Capacity::for_batch(&config, 1, 64))
        };
        let source = Arc::from(path.weights(&config, precision.dtype).unwrap());
        let error = load(&config, source, &options, &mut |_, _| {}).err().unwrap().to_string();
        assert!(error.contains(&format!("--pack-cache: device {device}")), "{error}");
    }
}
