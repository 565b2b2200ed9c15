//! Checkpoints: stored values are read back, and unusable parts are named.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use glmbench_engine::config::ModelConfig;
use glmbench_engine::weights::overlay::Overlay;
use glmbench_engine::weights::{StorageType, WeightSource, layout, open_checkpoint};
use proptest::prelude::*;
use tempfile::TempDir;

/// Returns a golden's folder beside the checkout, or `None` with a message if it is missing.
fn golden(name: &str) -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/goldens").join(name);
    if !dir.is_dir() {
        crate::support::skipped(&format!("{} is not there", dir.display()));
        return None;
    }
    Some(dir)
}

/// Returns a safetensors file of `(name, type, shape, data)`.
fn file_of(tensors: &[(&str, &str, &[usize], &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut header = serde_json::Map::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let info = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert((*name).to_owned(), info);
        data.extend_from_slice(bytes);
    }
    with_header(&serde_json::Value::Object(header).to_string(), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn open_error(files: &[(&str, &[u8])]) -> String {
    let dir = folder(files);
    open_checkpoint(dir.path()).err().expect("an error").to_string()
}

fn index_of(pairs: &[(&str, &str)]) -> Vec<u8> {
    let map: serde_json::Map<_, _> =
        pairs.iter().map(|(name, file)| ((*name).to_owned(), (*file).into())).collect();
    serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map}).to_string().into_bytes()
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn the_goldens_hold_their_models() {
    for name in ["tiny-g2", "prefix-g2"] {
        let Some(dir) = golden(name) else { continue };
        let config = ModelConfig::from_file(&dir.join("config.json")).unwrap();
        let source = open_checkpoint(&dir).unwrap();
        layout::check(&*source, &config).unwrap();
        assert_eq!(source.dtype(), StorageType::F16);
        let raw = fs::read(dir.join("model.safetensors")).unwrap();
        let oracle = safetensors::SafeTensors::deserialize(&raw).unwrap();
        for (name, shape) in layout::model_tensors(&config) {
            let tensor = source.tensor(&name, &shape).unwrap();
            assert_eq!(&*tensor.data, oracle.tensor(&name).unwrap().data());
            assert_eq!(tensor.to_f32().len(), shape.iter().product::<usize>());
            source.release(&name);
            assert_eq!(&*source.tensor(&name, &shape).unwrap().data, oracle.tensor(&name).unwrap().data());
        }
    }
}

#[test]
fn a_wrong_config_is_answered_tensor_by_tensor() {
    let Some(dir) = golden("tiny-g2") else { return };
    let source = open_checkpoint(&dir).unwrap();
    let right = ModelConfig::from_file(&dir.join("config.json")).unwrap();
    let message = |config: &ModelConfig| layout::check(&*source, config).unwrap_err().to_string();

    let missing = message(&ModelConfig { num_layers: 4, ..right.clone() });
    assert!(
        missing.contains("layers.3.mlp.dense_h_to_4h.weight is missing, expected shape [688, 128]"),
        "{missing}"
    );
    let extra = message(&ModelConfig { num_layers: 2, ..right.clone() });
    assert!(extra.contains("layers.2.self_attention.dense.weight [128, 256]"), "{extra}");
    assert!(extra.contains("is not expected: the model has 2 layers"), "{extra}");
    let shape = message(&ModelConfig { padded_vocab_size: 600, ..right.clone() });
    assert!(shape.contains("output_layer.weight has shape [512, 128]"), "{shape}");
    assert!(shape.contains("model.safetensors, expected [600, 128]"), "{shape}");
    let prefix = message(&ModelConfig { pre_seq_len: Some(8), ..right.clone() });
    assert!(prefix.contains("prefix_encoder.embedding.weight is missing"), "{prefix}");
    let many = message(&ModelConfig { hidden_size: 256, num_layers: 1 << 24, ..right });
    assert!(many.contains("990 more or above") && many.lines().count() == 12, "{many}");
}

#[test]
fn a_prefix_folder_lies_over_a_base_folder() {
    let Some(dir) = golden("prefix-g2") else { return };
    let raw = fs::read(dir.join("model.safetensors")).unwrap();
    let oracle = safetensors::SafeTensors::deserialize(&raw).unwrap();
    let (prefix, base): (Vec<_>, Vec<_>) =
        oracle.tensors().into_iter().partition(|(name, _)| name.starts_with(layout::PREFIX));
    let write = |tensors: Vec<(String, safetensors::tensor::TensorView<'_>)>| {
        folder(&[("model.safetensors", &safetensors::serialize(tensors, None).unwrap())])
    };
    let (prefix, base) = (write(prefix), write(base));
    let config = ModelConfig::from_file(&dir.join("config.json")).unwrap();
    let source = Overlay {
        prefix: open_checkpoint(prefix.path()).unwrap(),
        base: open_checkpoint(base.path()).unwrap(),
    };
    layout::check(&source, &config).unwrap();
    for (name, shape) in layout::model_tensors(&config) {
        assert_eq!(&*source.tensor(&name, &shape).unwrap().data, oracle.tensor(&name).unwrap().data());
    }
    assert!(layout::check(&source.base, &config).unwrap_err().to_string().contains("P-tuning prefix"));
    let plain = ModelConfig { pre_seq_len: None, ..config };
    assert!(layout::check(&source, &plain).unwrap_err().to_string().contains("has no pre_seq_len"));
}

#[test]
fn shards_and_one_file_are_the_same_model() {
    let (a, b) = ([0u8, 60, 0, 64], [1u8, 2, 3, 4, 5, 6]);
    let whole =
        folder(&[("model.safetensors", &file_of(&[("a", "F16", &[2], &a), ("b", "BF16", &[3, 1], &b)]))]);
    let shards = folder(&[
        (INDEX, &index_of(&[("a", "x.safetensors"), ("b", "y.safetensors")])),
        ("x.safetensors", &file_of(&[("a", "F16", &[2], &a)])),
        ("y.safetensors", &file_of(&[("b", "BF16", &[3, 1], &b)])),
    ]);
    let (whole, shards) = (open_checkpoint(whole.path()).unwrap(), open_checkpoint(shards.path()).unwrap());
    assert_eq!(shards.tensor("a", &[2]).unwrap().to_f32(), [1.0, 2.0]);
    assert_eq!(*shards.tensor("b", &[3, 1]).unwrap().data, b);
    let hashed = AtomicU64::new(0);
    let count = |bytes| {
        hashed.fetch_add(bytes, Ordering::Relaxed);
    };
    assert_eq!(whole.fingerprint(&count).unwrap(), shards.fingerprint(&|_| ()).unwrap());
    assert_eq!(hashed.into_inner(), 10);
}

#[test]
fn the_fingerprint_sees_every_byte_type_and_shape() {
    let print = |dtype, shape: &[usize], bytes: &[u8]| {
        let dir = folder(&[("model.safetensors", &file_of(&[("a", dtype, shape, bytes)]))]);
        open_checkpoint(dir.path()).unwrap().fingerprint(&|_| ()).unwrap()
    };
    let first = print("F16", &[2, 1], &[1, 2, 3, 4]);
    assert_eq!(first, print("F16", &[2, 1], &[1, 2, 3, 4]));
    assert_ne!(first, print("F16", &[2, 1], &[1, 2, 3, 5]));
    assert_ne!(first, print("BF16", &[2, 1], &[1, 2, 3, 4]));
    assert_ne!(first, print("F16", &[1, 2], &[1, 2, 3, 4]));
}

#[test]
fn a_tensor_that_is_not_as_asked_is_named() {
    let file = file_of(&[("a", "F16", &[2], &[0; 4]), ("ids", "I64", &[1], &[0; 8])]);
    let dir = folder(&[("model.safetensors", &file)]);
    let source = open_checkpoint(dir.path()).unwrap();
    let message = |name: &str, shape: &[usize]| source.tensor(name, shape).unwrap_err().to_string();
    assert!(message("b", &[2]).ends_with("model.safetensors: tensor b is missing, expected shape [2]"));
    assert!(message("a", &[1, 2]).ends_with("tensor a has shape [2], expected [1, 2]"));
    assert!(message("ids", &[1]).ends_with("tensor ids has type I64, expected F16, BF16 or F32"));
    source.release("b");
}

#[test]
fn a_folder_without_weights_says_what_to_do() {
    assert!(open_error(&[("config.json", b"{}")]).contains("no weights here"));
    let pickled =
        open_error(&[("pytorch_model-00002-of-00002.bin", b""), ("pytorch_model-00001-of-00002.bin", b"")]);
    assert!(
        pickled.contains("pytorch_model-00001-of-00002.bin") && pickled.contains("glmbench convert"),
        "{pickled}"
    );
    assert!(open_checkpoint(Path::new("no/such/folder")).is_err());
}

#[test]
fn broken_files_are_answered_with_what_is_wrong() {
    let good = file_of(&[("a", "F16", &[2], &[0; 4])]);
    let single = |bytes: &[u8]| open_error(&[("model.safetensors", bytes)]);
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("empty", vec![], "0 bytes are no safetensors file"),
        ("length only", vec![1; 7], "7 bytes"),
        ("giant length", vec![0xFF; 16], "header of 18446744073709551615 bytes"),
        ("header cut", good[..20].to_vec(), "cut short: the header alone"),
        (
            "numbers cut",
            good[..good.len() - 1].to_vec(),
            "cut short: 3 bytes of numbers, the header promises 4",
        ),
        ("trailing", [&good[..], &[0]].concat(), "5 bytes of numbers, more than the 4"),
        ("no json", with_header("{\"a\":", &[]), "safetensors header"),
        ("no utf-8", [&2u64.to_le_bytes()[..], &[0xFF, 0xFE]].concat(), "safetensors header"),
        ("unknown type", file_of(&[("a", "Q7", &[2], &[0; 4])]), "Q7"),
        ("shape against bytes", file_of(&[("a", "F16", &[3], &[0; 4])]), "invalid shape"),
        ("overflow", file_of(&[("a", "F16", &[usize::MAX, 2], &[0; 4])]), "overflow"),
        (
            "far offset",
            with_header(
                r#"{"a":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}}"#,
                &[],
            ),
            "the header promises 2305843009213693951",
        ),
        (
            "overlap",
            with_header(
                r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#,
                &[0; 3],
            ),
            "invalid offset",
        ),
    ];
    for (what, bytes, expected) in cases {
        let message = single(&bytes);
        assert!(message.contains(expected) && message.contains("model.safetensors"), "{what}: {message}");
    }
    let deep = "[".repeat(100_000);
    assert!(single(&with_header(&deep, &[])).contains("safetensors header"));
}

#[test]
fn a_shard_index_cannot_lead_astray() {
    let shard = file_of(&[("a", "F16", &[2], &[0; 4])]);
    let with_index =
        |index: &[u8]| open_error(&[(INDEX, index), ("x.safetensors", &shard), ("y.safetensors", &shard)]);
    for outside in ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "", "x.safetensors/"] {
        let message = with_index(&index_of(&[("a", outside)]));
        assert!(message.contains("expected the name of a file in this folder"), "{outside}: {message}");
    }
    assert!(with_index(&index_of(&[("a", "z.safetensors")])).contains("z.safetensors"));
    let twice = with_index(&index_of(&[("a", "x.safetensors"), ("b", "y.safetensors")]));
    assert!(twice.contains("tensor a is also in") && twice.contains("x.safetensors"), "{twice}");
    let absent = with_index(&index_of(&[("a", "x.safetensors"), ("b", "x.safetensors")]));
    assert!(absent.contains("tensor b is not in x.safetensors"), "{absent}");
    assert!(with_index(b"{\"weight_map\": [1]}").contains(INDEX));
    assert!(with_index(b"\xFF").contains(INDEX));
}

#[test]
fn a_folder_where_a_file_should_be_is_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    assert!(open_checkpoint(dir.path()).err().unwrap().to_string().contains("not a regular file"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any bytes in the file give an answer, and readable tensors lie within the file.
    #[test]
    fn no_damage_makes_a_panic(position in 0usize..120, byte: u8, cut in 0usize..130) {
        let mut file = file_of(&[("a", "F16", &[2], &[0; 4]), ("b", "F32", &[1], &[0; 4])]);
        if let Some(target) = file.get_mut(position) {
            *target = byte;
        }
        file.truncate(file.len().min(cut.max(100)));
        let dir = folder(&[("model.safetensors", &file)]);
        if let Ok(source) = open_checkpoint(dir.path()) {
            for stored in source.stored() {
                drop(source.tensor(&stored.name, &stored.shape));
                source.release(&stored.name);
            }
            source.fingerprint(&|_| ()).unwrap();
        }
    }
}
