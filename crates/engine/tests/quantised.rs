//! Quantised checkpoints: read as the formats define them, made of float models, and rejected by name if they are damaged.
//!
//! The fixture is from `scripts/quantise_reference.py`, an implementation in NumPy that shares nothing with this one.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, KvForm, Precision, Role};
use glmbench_engine::config::{ModelConfig, Scheme};
use glmbench_engine::load::{DeviceKind, LoadOptions, ModelPath, load};
use glmbench_engine::memory::MemoryEstimate;
use glmbench_engine::model::Capacity;
use glmbench_engine::quantise::{
    ActMethod, Control, Job, KlChange, Progress, QuantiseError, Ranked, Settings,
};
use glmbench_engine::weights::layout::LinearId;
use glmbench_engine::weights::packed::PackUse;
use glmbench_engine::{Engine, EngineError, Request};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

const WEIGHTS: &str = "quant_model_weight_w8a8.safetensors";
const DESCRIPTION: &str = "quant_model_description_w8a8.json";
const QKV: &str = "transformer.encoder.layers.0.self_attention.query_key_value";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/quantised").join(name)
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn prompts() -> Vec<Vec<u32>> {
    serde_json::from_value(json_of(&fixture("logits.json"))["prompts"].clone()).unwrap()
}

/// Returns the log-probabilities of all tokens after each prompt.
fn log_probs(dir: &Path, device: DeviceKind, tp: usize) -> Result<Vec<Vec<f32>>, EngineError> {
    let dtype = if device == DeviceKind::Reference { DType::Fp32 } else { DType::Fp16 };
    log_probs_in(dtype.into(), dir, device, tp)
}

/// Like [`log_probs`], in `precision`.
fn log_probs_in(
    precision: Precision,
    dir: &Path,
    device: DeviceKind,
    tp: usize,
) -> Result<Vec<Vec<f32>>, EngineError> {
    let config = ModelPath::Folder(dir.to_owned()).config(None)?;
    let options = LoadOptions {
        rotary: RotaryMode::Model,
        threads: Some(1),
        tp,
        ..LoadOptions::plain(device, precision, Capacity::for_batch(&config, 1, 64))
    };
    log_probs_of(&mut engine(dir, &options)?)
}

fn engine(dir: &Path, options: &LoadOptions) -> Result<Engine, EngineError> {
    let path = ModelPath::Folder(dir.to_owned());
    let config = path.config(None)?;
    let source = Arc::from(path.weights(&config, options.precision.dtype)?);
    load(&config, source, options, &mut |_, _| {})
}

fn log_probs_of(engine: &mut Engine) -> Result<Vec<Vec<f32>>, EngineError> {
    let vocab = engine.config().padded_vocab_size as u32;
    let mut all = Vec::new();
    for prompt in prompts() {
        let choice_ids = (0..vocab).collect();
        engine.submit(Request { prompt, choice_ids, ..Request::probe() })?;
        while !engine.is_idle() {
            all.extend(engine.step()?.finished.into_iter().map(|completion| completion.choice_logprobs));
        }
    }
    Ok(all)
}

fn log_softmax(logits: &[f64]) -> Vec<f32> {
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    logits.iter().map(|x| (x - sum.ln()) as f32).collect()
}

/// Returns the largest difference.
fn distance(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Returns the mean KL divergence of `b` from `a`.
fn kl(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let sum: f32 = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| a.exp() * (a - b)).sum();
    sum / a.len() as f32
}

/// The file that NumPy made gives NumPy's logits on the oracle, and on the CPU within fp16's rounding.
#[test]
fn a_file_made_by_the_formulas_gives_the_logits_of_the_formulas() {
    let last: Vec<Vec<f64>> =
        serde_json::from_value(json_of(&fixture("logits.json"))["last"].clone()).unwrap();
    let expected: Vec<Vec<f32>> = last.iter().map(|row| log_softmax(row)).collect();
    let reference = log_probs(&fixture("w8a8"), DeviceKind::Reference, 1).unwrap();
    assert!(distance(&reference, &expected) < 0.02, "{}", distance(&reference, &expected));
    let cpu = log_probs(&fixture("w8a8"), DeviceKind::Cpu, 1).unwrap();
    assert!(distance(&cpu, &expected) < 0.1, "{}", distance(&cpu, &expected));
    // The quantised model is another than the float one, and close to it.
    let float = log_probs(&fixture("float"), DeviceKind::Reference, 1).unwrap();
    assert!(distance(&float, &reference) > 0.01 && kl(&float, &reference) < 0.02);
}

/// Ranks of the oracle add their parts in fp32: only the quantisation of inputs that differ in the last bit can differ.
#[test]
fn two_ranks_compute_the_same_model() {
    let one = log_probs(&fixture("w8a8"), DeviceKind::Reference, 1).unwrap();
    let two = log_probs(&fixture("w8a8"), DeviceKind::Reference, 2).unwrap();
    assert!(distance(&one, &two) < 0.05, "{}", distance(&one, &two));
    for (scheme, group) in [(Scheme::W8a16, 0), (Scheme::W4a16, 16), (Scheme::W4a16, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let out = export(&dir, Settings { group, ..settings(scheme) }, &[]).unwrap();
        let [one, two] = [1, 2].map(|tp| log_probs(&out, DeviceKind::Reference, tp).unwrap());
        assert!(distance(&one, &two) < 1e-3, "{scheme:?} {group}: {}", distance(&one, &two));
    }
}

fn settings(scheme: Scheme) -> Settings {
    Settings {
        scheme,
        kv_c8: false,
        float: BTreeSet::from([LinearId::OUTPUT]),
        method: ActMethod::MinMax,
        group: 16,
        smooth: None,
        search: None,
    }
}

fn control(
    run: impl FnOnce(&mut Control<'_>) -> Result<(), QuantiseError>,
) -> Result<Vec<String>, QuantiseError> {
    let mut said = Vec::new();
    let mut progress = |progress| {
        if let Progress::Say(words) = progress {
            said.push(words);
        }
    };
    run(&mut Control { progress: &mut progress, stopped: &|| false })?;
    Ok(said)
}

fn job(dir: &Path, settings: Settings, prompts: Vec<Vec<u32>>) -> Result<Job, QuantiseError> {
    let path = ModelPath::Folder(dir.to_owned());
    let config = path.config(None)?;
    let source = path.weights(&config, DType::Fp16)?;
    Job::new(dir, config, source.into(), settings, prompts)
}

/// Quantises the float fixture into a folder of `dir`, and returns that.
fn export(dir: &TempDir, settings: Settings, prompts: &[Vec<u32>]) -> Result<PathBuf, QuantiseError> {
    let out = dir.path().join("out");
    let job = job(&fixture("float"), settings, prompts.to_vec())?;
    control(|control| job.run(&out, control).map(drop))?;
    Ok(out)
}

/// Name, type, shape and data.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);
type Tensors = Vec<Tensor>;

fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let mut all: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, t.dtype(), t.shape().to_vec(), t.data().to_vec()))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn write(path: &Path, tensors: &[Tensor]) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// An export has the tensors, types, shapes and words of the hand-made file. Integers of weights are equal. Ranges are those
/// that NumPy saw in fp32, within fp16's rounding.
#[test]
fn an_export_has_the_layout_of_the_hand_made_file() {
    let dir = tempfile::tempdir().unwrap();
    let layer = |layer, role| LinearId { layer: Some(layer), role };
    let float = BTreeSet::from([layer(1, Role::Qkv), layer(0, Role::Down), LinearId::OUTPUT]);
    let out = export(&dir, Settings { float, ..settings(Scheme::W8a8) }, &prompts()).unwrap();
    assert_eq!(json_of(&out.join(DESCRIPTION)), json_of(&fixture("w8a8").join(DESCRIPTION)));
    assert_eq!(json_of(&out.join("config.json")), json_of(&fixture("w8a8/config.json")));
    let (found, expected) = (tensors(&out.join(WEIGHTS)), tensors(&fixture("w8a8").join(WEIGHTS)));
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found.0, found.1, &found.2), (&expected.0, expected.1, &expected.2));
        let half = |data: &[u8]| half::f16::from_le_bytes([data[0], data[1]]).to_f32();
        if found.0.ends_with("input_scale") {
            let (found, expected) = (half(&found.3), half(&expected.3));
            assert!((found / expected - 1.0).abs() < 0.01, "{found} {expected}");
        } else if found.0.ends_with("input_offset") {
            assert!((half(&found.3) - half(&expected.3)).abs() <= 2.0, "{}", found.0);
        } else if !found.0.ends_with("deq_scale") && !found.0.ends_with("quant_bias") {
            assert_eq!(found.3, expected.3, "{}", found.0);
        }
    }
    let header = fs::read(out.join(WEIGHTS)).unwrap();
    let (_, header) = SafeTensors::read_metadata(&header).unwrap();
    for (name, info) in header.tensors() {
        let size = info.dtype.bitsize() / 8;
        assert!(info.data_offsets.0.is_multiple_of(size), "{name} is not aligned");
    }
    let (float, w8a8) = (
        log_probs(&fixture("float"), DeviceKind::Cpu, 1).unwrap(),
        log_probs(&out, DeviceKind::Cpu, 1).unwrap(),
    );
    assert!(kl(&float, &w8a8) < 0.02, "{}", kl(&float, &w8a8));
}

/// Every scheme and option is read back, and is as close to the float model as its bits allow.
#[test]
fn every_scheme_comes_back() {
    let float = log_probs(&fixture("float"), DeviceKind::Cpu, 1).unwrap();
    let base = settings;
    let cases = [
        (base(Scheme::W8a8), 0.02),
        (Settings { method: ActMethod::Histogram, ..base(Scheme::W8a8) }, 0.03),
        (Settings { method: ActMethod::Automatic, ..base(Scheme::W8a8) }, 0.02),
        (Settings { smooth: Some(0.5), ..base(Scheme::W8a8) }, 0.02),
        (Settings { kv_c8: true, ..base(Scheme::W8a8) }, 0.02),
        (base(Scheme::W8a8s), 1.0),
        (base(Scheme::W8a8Dynamic), 0.02),
        (Settings { smooth: Some(0.5), ..base(Scheme::W8a8Dynamic) }, 0.02),
        (Settings { kv_c8: true, ..base(Scheme::W8a8Dynamic) }, 0.02),
        (base(Scheme::W8a16), 0.002),
        (Settings { kv_c8: true, ..base(Scheme::W8a16) }, 0.005),
        (base(Scheme::W4a16), 0.3),
        (Settings { group: 0, ..base(Scheme::W4a16) }, 0.5),
    ];
    for (settings, most) in cases {
        let dir = tempfile::tempdir().unwrap();
        let what = format!("{settings:?}");
        let (scheme, kv_c8) = (settings.scheme, settings.kv_c8);
        let out = export(&dir, settings, &prompts()).unwrap();
        let config = ModelPath::Folder(out.clone()).config(None).unwrap();
        let precision = config.precision(DType::Fp16.into()).unwrap();
        assert_eq!(precision.weights, scheme.form(), "{what}");
        assert_eq!(precision.kv, if kv_c8 { KvForm::C8 } else { KvForm::Auto }, "{what}");
        let found = log_probs(&out, DeviceKind::Cpu, 1).unwrap();
        assert!(kl(&float, &found) < most, "{what}: {}", kl(&float, &found));
        let names: BTreeSet<String> =
            fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        let word = scheme.word();
        let expected = [
            "config.json".to_owned(),
            format!("quant_model_description_{word}.json"),
            format!("quant_model_weight_{word}.safetensors"),
        ];
        assert_eq!(names, BTreeSet::from(expected), "{what}");
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["out"], "{what}");
    }
}

/// A checkpoint with all layers quantised equals `--dtype w8a8-dynamic` on the float model, bit for bit.
#[test]
fn a_dynamic_checkpoint_is_the_dynamic_form() {
    let dir = tempfile::tempdir().unwrap();
    let all = Settings { float: BTreeSet::new(), ..settings(Scheme::W8a8Dynamic) };
    let out = export(&dir, all, &prompts()).unwrap();
    let stored = log_probs(&out, DeviceKind::Cpu, 1).unwrap();
    let made = log_probs_in(Precision::W8A8_DYNAMIC, &fixture("float"), DeviceKind::Cpu, 1).unwrap();
    assert_eq!(stored, made);
    assert_ne!(stored, log_probs(&fixture("float"), DeviceKind::Cpu, 1).unwrap());
}

/// THUDM's layout, made of the float fixture: `bits` per weight, scales in fp16.
fn thudm(dir: &Path, bits: u32) {
    let mut config = json_of(&fixture("float/config.json"));
    config["quantization_bit"] = bits.into();
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut all = Tensors::new();
    for (name, dtype, shape, data) in tensors(&fixture("float/model.safetensors")) {
        if LinearId::of_weight(&name).is_none_or(|id| id == LinearId::OUTPUT) {
            all.push((name, dtype, shape, data));
            continue;
        }
        let largest = if bits == 4 { 7.0 } else { 127.0 };
        let numbers: Vec<f32> =
            data.as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect();
        let (mut integers, mut scales) = (Vec::new(), Vec::new());
        for row in numbers.chunks_exact(shape[1]) {
            let most = row.iter().fold(0.0f32, |most, w| most.max(w.abs()));
            let scale = half::f16::from_f32(most / largest);
            scales.extend(scale.to_le_bytes());
            let q: Vec<i8> = row
                .iter()
                .map(|w| (w / scale.to_f32()).round_ties_even().clamp(-largest, largest) as i8)
                .collect();
            match bits {
                4 => integers
                    .extend(q.chunks_exact(2).map(|pair| (pair[0] << 4 | (pair[1] & 15)).cast_unsigned())),
                _ => integers.extend(q.iter().map(|q| q.cast_unsigned())),
            }
        }
        let width = if bits == 4 { shape[1] / 2 } else { shape[1] };
        all.push((name.replace(".weight", ".weight_scale"), Dtype::F16, vec![shape[0]], scales));
        all.push((name, Dtype::I8, vec![shape[0], width], integers));
    }
    write(&dir.join("model.safetensors"), &all);
}

/// Each scheme stores other tensors, and loading from a cache skips the integers alone.
#[cfg(unix)]
#[test]
fn quantised_weights_give_the_same_numbers_from_a_cache_of_packed_ones() {
    let forms = [
        settings(Scheme::W8a8),
        settings(Scheme::W8a8s),
        settings(Scheme::W8a8Dynamic),
        Settings { kv_c8: true, ..settings(Scheme::W8a16) },
        settings(Scheme::W4a16),
        Settings { group: 0, ..settings(Scheme::W4a16) },
    ];
    let folders: Vec<TempDir> = (0..forms.len() + 2).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut models = Vec::new();
    for (dir, form) in folders.iter().zip(forms) {
        models.push(export(dir, form, &prompts()).unwrap());
    }
    for (dir, bits) in folders[models.len()..].iter().zip([4, 8]) {
        thudm(dir.path(), bits);
        models.push(dir.path().to_owned());
    }
    // Weights are kept once they have not changed for 5 s.
    std::thread::sleep(std::time::Duration::from_millis(5_500));
    for (model, tp) in models.iter().flat_map(|model| [(model, 1), (model, 2)]) {
        let expected = log_probs(model, DeviceKind::Cpu, tp).unwrap();
        let config = ModelPath::Folder(model.clone()).config(None).unwrap();
        let options = LoadOptions {
            threads: Some(1),
            tp,
            pack_cache: Some(model.clone()),
            ..LoadOptions::plain(DeviceKind::Cpu, DType::Fp16.into(), Capacity::for_batch(&config, 1, 64))
        };
        for used in [PackUse::Written, PackUse::Mapped] {
            let mut engine = engine(model, &options).unwrap();
            let cache = engine.pack_cache().unwrap();
            assert_eq!(cache.used, used, "{} {tp}: {:?}", model.display(), cache.notes);
            assert_eq!(log_probs_of(&mut engine).unwrap(), expected, "{} {tp}", model.display());
        }
    }
}

#[test]
fn thudms_checkpoints_are_read_and_rewritten_to_the_same_numbers() {
    let float = log_probs(&fixture("float"), DeviceKind::Reference, 1).unwrap();
    for (bits, most, rewritten) in
        [(8, 0.002, &[(Scheme::W8a16, 128)][..]), (4, 0.5, &[(Scheme::W8a16, 128), (Scheme::W4a16, 0)])]
    {
        let dir = tempfile::tempdir().unwrap();
        thudm(dir.path(), bits);
        let [reference, cpu] =
            [DeviceKind::Reference, DeviceKind::Cpu].map(|device| log_probs(dir.path(), device, 1).unwrap());
        assert!(kl(&float, &reference) < most && kl(&float, &cpu) < most, "{bits}");
        for &(scheme, group) in rewritten {
            let new = tempfile::tempdir().unwrap();
            let out = new.path().join("out");
            let job = job(dir.path(), Settings { group, ..settings(scheme) }, Vec::new()).unwrap();
            control(|control| job.run(&out, control).map(drop)).unwrap();
            assert_eq!(log_probs(&out, DeviceKind::Reference, 1).unwrap(), reference, "{bits} {scheme:?}");
        }
        let float_scheme = job(dir.path(), settings(Scheme::W8a8), prompts()).err().unwrap().to_string();
        assert!(float_scheme.contains("is made of float weights"), "{float_scheme}");
        // Packed rows are half as wide: the other key does not fit.
        let mut config = json_of(&dir.path().join("config.json"));
        config["quantization_bit"] = (12 - bits).into();
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let message = log_probs(dir.path(), DeviceKind::Cpu, 1).unwrap_err().to_string();
        assert!(
            message.contains("has shape") && message.contains("config.json says quantization_bit"),
            "{message}"
        );
    }
}

/// A copy of the W8A8 fixture that a test damages.
struct Damaged(TempDir);

impl Damaged {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in [WEIGHTS, DESCRIPTION, "config.json"] {
            fs::copy(fixture("w8a8").join(name), dir.path().join(name)).unwrap();
        }
        Self(dir)
    }

    /// Changes the tensor `QKV.suffix`; `None` removes it.
    fn tensor(self, suffix: &str, change: impl FnOnce(&mut Tensor) -> bool) -> Self {
        let path = self.0.path().join(WEIGHTS);
        let mut all = tensors(&path);
        let at = all.iter().position(|t| t.0 == format!("{QKV}.{suffix}")).unwrap();
        if !change(&mut all[at]) {
            all.remove(at);
        }
        write(&path, &all);
        self
    }

    fn json(self, file: &str, key: &str, value: &Value) -> Self {
        let path = self.0.path().join(file);
        let mut all = json_of(&path);
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(key)),
            value => all[key] = value.clone(),
        }
        fs::write(path, all.to_string()).unwrap();
        self
    }

    #[track_caller]
    fn refused(&self, says: &[&str]) {
        for device in [DeviceKind::Cpu, DeviceKind::Reference] {
            let message = log_probs(self.0.path(), device, 1).unwrap_err().to_string();
            for word in says {
                assert!(message.contains(word), "{word:?} is not in: {message}");
            }
        }
    }
}

#[test]
fn damaged_files_are_refused_with_file_tensor_and_what_was_expected() {
    let set = |bytes: &'static [u8]| {
        move |t: &mut Tensor| {
            t.3[..bytes.len()].copy_from_slice(bytes);
            true
        }
    };
    let half = |x: f32| -> &'static [u8] { Vec::leak(half::f16::from_f32(x).to_le_bytes().to_vec()) };
    let wide = |bits: i64| -> &'static [u8] { Vec::leak(bits.to_le_bytes().to_vec()) };
    for (scale, shown) in [(0.0, "0"), (-1.0, "-1"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let says = [WEIGHTS, QKV, "input_scale", shown, "expected a positive number"];
        Damaged::new().tensor("input_scale", set(half(scale))).refused(&says);
        let says = [WEIGHTS, QKV, "deq_scale", shown, "channel 0, expected a positive number"];
        Damaged::new()
            .tensor("deq_scale", set(wide(i64::from(scale.to_bits().cast_signed()))))
            .refused(&says);
    }
    for offset in [0.5, 200.0, f32::NAN] {
        let says = [WEIGHTS, "input_offset", "expected an integer from -128 to 127"];
        Damaged::new().tensor("input_offset", set(half(offset))).refused(&says);
    }
    let says = [WEIGHTS, "deq_scale", "4294967296", "the 32 bits of an fp32 number"];
    Damaged::new().tensor("deq_scale", set(wide(1 << 32))).refused(&says);
    let says = [WEIGHTS, &format!("{QKV}.weight"), "integer -128 at [0, 0]"];
    Damaged::new().tensor("weight", set(&[128])).refused(&says);
    Damaged::new()
        .tensor("weight", |t| {
            t.2.swap(0, 1);
            true
        })
        .refused(&["query_key_value.weight has shape [32, 64]", "expected [64, 32]", "quantize = \"w8a8\""]);
    let retyped = Damaged::new().tensor("quant_bias", |t| {
        t.1 = Dtype::F32;
        true
    });
    retyped.refused(&["quant_bias has type F32", "expected I32"]);
    for suffix in ["weight", "input_scale", "input_offset", "quant_bias", "deq_scale"] {
        let says = [&format!("{QKV}.{suffix} is missing"), "quantize = \"w8a8\""];
        Damaged::new().tensor(suffix, |_| false).refused(&says);
    }
}

#[test]
fn descriptions_and_configurations_that_lie_are_refused() {
    let weight = format!("{QKV}.weight");
    let said = "quantize = \"w8a8\"";
    Damaged::new().json(DESCRIPTION, &weight, &json!("FLOAT")).refused(&[
        DESCRIPTION,
        QKV,
        "expected \"FLOAT\"",
    ]);
    let all_float = Damaged::new();
    let mut words = json_of(&all_float.0.path().join(DESCRIPTION));
    for (_, word) in words.as_object_mut().unwrap().iter_mut().filter(|(name, _)| name.starts_with(QKV)) {
        *word = "FLOAT".into();
    }
    fs::write(all_float.0.path().join(DESCRIPTION), words.to_string()).unwrap();
    all_float.refused(&[&weight, "has type I8", "expected F16, BF16 or F32", "stays in float"]);
    let other = "transformer.output_layer.weight";
    Damaged::new().json(DESCRIPTION, other, &json!("W8A8")).refused(&[
        other,
        "has type F16",
        "expected I8",
        said,
    ]);
    Damaged::new().json(DESCRIPTION, &weight, &json!("W4A4")).refused(&[
        DESCRIPTION,
        &weight,
        "W4A4",
        "\"W8A8\" or \"FLOAT\"",
    ]);
    Damaged::new().json(DESCRIPTION, &weight, &Value::Null).refused(&[DESCRIPTION, "no word for", &weight]);
    Damaged::new().json(DESCRIPTION, "model_quant_type", &json!("W8A16")).refused(&[
        "model_quant_type",
        "W8A16",
        said,
    ]);
    Damaged::new()
        .json(DESCRIPTION, "kv_cache_type", &json!("C8"))
        .refused(&["kv_cache_type", "quantization_config"]);
    let undescribed = Damaged::new();
    fs::remove_file(undescribed.0.path().join(DESCRIPTION)).unwrap();
    undescribed.refused(&[DESCRIPTION, "is not there", said]);
    fs::write(undescribed.0.path().join(DESCRIPTION), "[]").unwrap();
    undescribed.refused(&[DESCRIPTION, "expected a map"]);
    Damaged::new()
        .json("config.json", "quantize", &json!("w8a16"))
        .refused(&["quant_model_weight_w8a16.safetensors"]);
    let compressed = Damaged::new().json("config.json", "quantize", &json!("w8a8sc"));
    fs::rename(compressed.0.path().join(WEIGHTS), compressed.0.path().join("model.safetensors")).unwrap();
    compressed.refused(&["w8a8sc", "this engine reads", "tiling"]);
    let silent = Damaged::new().json("config.json", "quantize", &Value::Null);
    fs::rename(silent.0.path().join(WEIGHTS), silent.0.path().join("model.safetensors")).unwrap();
    silent.refused(&["a w8a8 checkpoint", "config.json says nothing of it", said]);
    // The weights may also have the usual name.
    let renamed = Damaged::new();
    fs::rename(renamed.0.path().join(WEIGHTS), renamed.0.path().join("model.safetensors")).unwrap();
    assert!(log_probs(renamed.0.path(), DeviceKind::Cpu, 1).is_ok());
}

#[test]
fn a_run_cannot_ask_for_another_form_than_the_checkpoints() {
    let config = ModelPath::Folder(fixture("w8a8")).config(None).unwrap();
    let asked = |precision: &str| config.precision(precision.parse::<Precision>().unwrap());
    assert_eq!(asked("fp16").unwrap(), asked("w8a8").unwrap());
    let message = asked("w8a8-dynamic").unwrap_err().to_string();
    assert!(message.contains("w8a8-dynamic was asked for, and the checkpoint is w8a8"), "{message}");
    assert!(asked("fp16+kv-c8").unwrap_err().to_string().contains("has no scales"), "c8");
    assert!(ModelConfig::chatglm2_6b().precision("fp16+kv-c8".parse().unwrap()).is_err());
    let capacity = Capacity::for_batch(&config, 1, 8);
    let of = |config: &ModelConfig, precision: &str| {
        MemoryEstimate::new(config, precision.parse::<Precision>().unwrap(), capacity).weight_bytes
    };
    let float = ModelPath::Folder(fixture("float")).config(None).unwrap();
    let (all, some, none) = (of(&float, "w8a8"), of(&config, "w8a8"), of(&float, "fp16"));
    assert!(all < some && some < none, "{all} {some} {none}");
}

#[test]
fn a_search_leaves_the_layers_with_the_largest_errors_in_float() {
    [Scheme::W8a8, Scheme::W8a8Dynamic].into_iter().for_each(searched);
}

fn searched(scheme: Scheme) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let job = job(&fixture("float"), Settings { search: Some(3), ..settings(scheme) }, prompts()).unwrap();
    let mut report = None;
    control(|control| {
        report = Some(job.run(&out, control)?);
        Ok(())
    })
    .unwrap();
    let report = report.unwrap();
    assert_eq!((report.ranked.len(), report.quantised, report.linear), (8, 5, 9));
    let is_by = |by: fn(&Ranked) -> f64| report.ranked.is_sorted_by(|a, b| by(a) >= by(b));
    assert!(is_by(|ranked| ranked.relative) || is_by(|ranked| ranked.absolute));
    let KlChange { before, after } = report.kl.unwrap();
    assert!(0.0 < after && after < before, "{before} {after}");
    let config = ModelPath::Folder(out).config(None).unwrap();
    let float = config.quantised.unwrap().float;
    let expected: BTreeSet<LinearId> = report.ranked[..3].iter().map(|ranked| ranked.linear).collect();
    assert_eq!(float, expected.into_iter().chain([LinearId::OUTPUT]).collect());
}

#[test]
fn a_stopped_job_leaves_nothing_but_its_calibration_and_goes_on_to_the_same_files() {
    let settings = || Settings { method: ActMethod::Automatic, ..settings(Scheme::W8a8) };
    let whole = tempfile::tempdir().unwrap();
    let expected = export(&whole, settings(), &prompts()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for stop_at in [2, 3, 6] {
        let checks = std::cell::Cell::new(0);
        let stopped = || checks.replace(checks.get() + 1) >= stop_at;
        let job = job(&fixture("float"), settings(), prompts()).unwrap();
        let result = job.run(&out, &mut Control { progress: &mut |_| (), stopped: &stopped });
        assert!(matches!(result, Err(QuantiseError::Stopped)), "{stop_at}");
        assert!(!out.exists() && dir.path().join(".out.calibration").exists());
    }
    let mut said = Vec::new();
    let mut progress = |progress| {
        if let Progress::Say(words) = progress {
            said.push(words);
        }
    };
    let job = job(&fixture("float"), settings(), prompts()).unwrap();
    job.run(&out, &mut Control { progress: &mut progress, stopped: &|| false }).unwrap();
    assert!(said.iter().any(|words| words.contains("going on with the calibration")), "{said:?}");
    for name in [WEIGHTS, DESCRIPTION, "config.json"] {
        assert_eq!(fs::read(out.join(name)).unwrap(), fs::read(expected.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn settings_that_do_not_fit_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |settings: Settings, prompts: Vec<Vec<u32>>, says: &str| {
        let message = job(&fixture("float"), settings, prompts).err().unwrap().to_string();
        assert!(message.contains(says), "{message}");
    };
    refused(settings(Scheme::W8a8), Vec::new(), "need prompts to calibrate with");
    refused(settings(Scheme::W8a8), vec![vec![64]], "token 64, and the model has 64");
    refused(settings(Scheme::W8a8), vec![vec![1; 65]], "65 tokens, and the model's context is 64");
    refused(settings(Scheme::Int4), prompts(), "is THUDM's");
    refused(
        Settings { group: 5, ..settings(Scheme::W4a16) },
        prompts(),
        "groups of 5 do not divide the 32 inputs",
    );
    refused(
        Settings { smooth: Some(0.5), ..settings(Scheme::W8a16) },
        prompts(),
        "smoothing is for w8a8 and w8a8_dynamic",
    );
    refused(Settings { smooth: Some(2.0), ..settings(Scheme::W8a8) }, prompts(), "from 0 to 1");
    refused(Settings { search: Some(99), ..settings(Scheme::W8a8) }, prompts(), "9 linear layers");
    let again = job(&fixture("w8a8"), settings(Scheme::W8a16), prompts()).err().unwrap().to_string();
    assert!(again.contains("is made of float weights"), "{again}");
    for name in ["model.safetensors", "config.json"] {
        fs::copy(fixture("float").join(name), dir.path().join(name)).unwrap();
    }
    for out in [dir.path().to_path_buf(), dir.path().join("inside"), dir.path().join("absent/inside")] {
        drop(fs::create_dir(&out));
        let job = job(dir.path(), settings(Scheme::W8a16), Vec::new()).unwrap();
        let message = control(|control| job.run(&out, control).map(drop)).unwrap_err().to_string();
        assert!(message.contains("the float model's folder"), "{message}");
    }
}
