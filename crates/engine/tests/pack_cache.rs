//! The cache of packed weights: the same bits with and without it, and nothing stale or damaged is used.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use glmbench_device::{DType, Precision};
use glmbench_engine::load::{DeviceKind, LoadOptions, ModelPath, load};
use glmbench_engine::model::Capacity;
use glmbench_engine::weights::packed::PackUse;
use glmbench_engine::{EngineError, Request};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_hours(1);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Returns a copy of a model whose files are an hour old.
fn copy(of: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(of)).unwrap() {
        let entry = entry.unwrap();
        let to = dir.path().join(entry.file_name());
        fs::copy(entry.path(), &to).unwrap();
        set_age(&to, HOUR);
    }
    dir
}

fn set_age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
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
    let path = ModelPath::Folder(model.to_owned());
    let config = path.config(None)?;
    let options = LoadOptions {
        threads: Some(2),
        tp,
        pack_cache: cache.map(Path::to_owned),
        ..LoadOptions::plain(DeviceKind::Cpu, precision, Capacity::for_batch(&config, 1, 64))
    };
    let source = Arc::from(path.weights(&config, precision.dtype)?);
    let mut engine = load(&config, source, &options, &mut |_, _| {})?;
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
    assert!(plain.bits.len() > 1000 && plain.used.is_none(), "{what}");
    for used in [PackUse::Written, PackUse::Mapped, PackUse::Mapped] {
        let run = cached(model, precision, tp);
        assert_eq!(run.used, Some(used), "{what}: {}", run.notes);
        assert!(run.bits == plain.bits, "{what}: other bits, {used:?}");
        assert_eq!(run.faults, plain.faults, "{what}");
    }
}

#[test]
fn bits_are_the_same_with_and_without_the_cache() {
    let dir = copy("models/demo");
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
    let dir = copy("tests/fixtures/quantised/w8a8");
    [1, 2].into_iter().for_each(|tp| holds(&dir, DType::Fp16.into(), tp));
}

/// Weights that are not finite are told by every run, not only by the one that read them.
#[test]
fn faults_are_kept() {
    let dir = copy("models/demo");
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len();
    bytes[end - 2..].copy_from_slice(&0x7E00_u16.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    set_age(&path, HOUR);
    let first = cached(dir.path(), DType::Fp16.into(), 1);
    assert!(first.faults.contains("NaN"), "{}", first.faults);
    holds(&copy_of(&dir), DType::Fp16.into(), 2);
    let second = cached(dir.path(), DType::Fp16.into(), 1);
    assert_eq!((second.used, second.faults), (Some(PackUse::Mapped), first.faults));
}

fn copy_of(dir: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        set_age(&copy.path().join(name), HOUR);
    }
    copy
}

#[test]
fn a_stale_or_damaged_file_is_told_and_replaced() {
    let dir = copy("models/demo");
    let weights = dir.path().join("model.safetensors");
    let precision = DType::Bf16.into();
    let first = cached(dir.path(), precision, 1);
    assert_eq!(first.used, Some(PackUse::Written), "{}", first.notes);
    let [cache] = &caches(dir.path())[..] else { panic!("one file") };
    let good = fs::read(cache).unwrap();
    let changes: [(&str, &dyn Fn()); 5] = [
        ("of other weights", &|| set_age(&weights, 2 * HOUR)),
        ("damaged: its length", &|| fs::write(cache, &good[..good.len() - 1]).unwrap()),
        ("damaged: cut short", &|| fs::write(cache, b"").unwrap()),
        ("no packed weights of schema", &|| fs::write(cache, [&[0; 8], &good[8..]].concat()).unwrap()),
        ("damaged: the checksum", &|| {
            let mut bad = good.clone();
            *bad.last_mut().unwrap() ^= 1;
            fs::write(cache, bad).unwrap();
        }),
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
    let dir = copy("models/demo");
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
    let dir = copy("models/demo");
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
