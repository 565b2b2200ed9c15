//! `glmbench convert`: pickled checkpoints become the same model in safetensors, or give an error.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::weights::convert::Plan;
use glmbench_engine::weights::{WeightSource, layout, open_checkpoint};
use tempfile::TempDir;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

/// A tensor of fp16 numbers for [`pickled`]: name, storage key, length of the storage, offset, shape, stride.
type Window<'a> = (&'a str, &'a str, u32, u32, &'a [usize], &'a [usize]);

/// Returns the pickle of a state dict.
fn pickled(tensors: &[Window<'_>]) -> Vec<u8> {
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let number = |number: u32| [b"J", &number.to_le_bytes()[..]].concat();
    let tuple = |sizes: &[usize]| {
        let numbers: Vec<u8> = sizes.iter().flat_map(|&size| number(size as u32)).collect();
        [b"(", numbers.as_slice(), b"t"].concat()
    };
    let mut out = b"\x80\x02}(".to_vec();
    for (name, key, len, offset, shape, stride) in tensors {
        out.extend(text(name));
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        out.extend(
            [text("storage"), b"ctorch\nHalfStorage\n".to_vec(), text(key), text("cpu"), number(*len)]
                .concat(),
        );
        out.extend(b"tQ");
        out.extend([number(*offset), tuple(shape), tuple(stride)].concat());
        out.extend(b"\x89ccollections\nOrderedDict\n)RtR");
    }
    out.extend(b"u.");
    out
}

/// Returns a `.bin` file: a zip of the pickle and the storages.
fn zipped(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// One contiguous tensor over a storage of six numbers.
const ONE: &[Window<'_>] = &[("w", "0", 6, 0, &[2, 3], &[3, 1])];
const NUMBERS: &[u8] = &[0, 60, 0, 64, 0, 66, 0, 68, 0, 69, 0, 70];

fn one() -> Vec<u8> {
    zipped(&[("data.pkl", &pickled(ONE)), ("data/0", NUMBERS)], CompressionMethod::Stored)
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn convert(from: &Path, to: &Path) -> Result<Vec<String>, String> {
    let plan = Plan::read(from).map_err(|error| error.to_string())?;
    let (bytes, mut copied) = (plan.bytes(), 0);
    let converted = plan.write(to, &mut |count| copied += count).map_err(|error| error.to_string())?;
    assert_eq!(copied, bytes);
    Ok(converted)
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Checks that converting this `.bin` file fails and leaves an empty folder; returns the message.
fn refusal(bin: &[u8]) -> String {
    let (from, to) = (folder(&[("pytorch_model.bin", bin)]), tempfile::tempdir().unwrap());
    let message = convert(from.path(), to.path()).expect_err("refused");
    assert!(message.contains("pytorch_model.bin"), "{message}");
    assert_eq!(files(to.path()), Vec::<String>::new());
    message
}

#[test]
fn what_pythons_own_pickler_writes_is_converted() {
    let bin = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/state_dict.bin")).unwrap();
    let from = folder(&[("pytorch_model.bin", &bin), ("config.json", b"{}"), ("tokenizer.model", b"pieces")]);
    let to = tempfile::tempdir().unwrap();
    let out = to.path().join("new/folder");
    let all = ["model.safetensors", "config.json", "tokenizer.model"];
    assert_eq!(convert(from.path(), &out).unwrap(), all);
    let source = open_checkpoint(&out).unwrap();
    let a = source.tensor("transformer.a.weight", &[2, 300]).unwrap();
    assert!(a.to_f32().iter().enumerate().all(|(i, &x)| x == i as f32 / 8.0));
    assert_eq!(source.tensor("transformer.b.bias", &[4]).unwrap().to_f32(), [1.5, -2.0, 3.25, 1e-3]);
    assert_eq!(source.tensor("transformer.b.window", &[1, 2]).unwrap().to_f32(), [-2.0, 3.25]);
    let raw = fs::read(out.join("model.safetensors")).unwrap();
    assert_eq!(safetensors::SafeTensors::deserialize(&raw).unwrap().len(), 3);
    // Neither a second time nor next to the .bin file.
    for occupied in [&out, &from.path().to_path_buf()] {
        let before = files(occupied);
        let message = convert(from.path(), occupied).unwrap_err();
        assert!(message.contains("something is there already"), "{message}");
        assert_eq!(files(occupied), before);
    }
}

#[test]
fn a_model_in_shards_is_the_same_model_afterwards() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/goldens/prefix-g2");
    if !golden.is_dir() {
        crate::support::skipped(&format!("{} is not there", golden.display()));
        return;
    }
    let raw = fs::read(golden.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&raw).unwrap().tensors();
    let from = folder(&[("config.json", &fs::read(golden.join("config.json")).unwrap())]);
    let mut map = serde_json::Map::new();
    for (index, shard) in tensors.chunks(tensors.len().div_ceil(3)).enumerate() {
        let file = format!("pytorch_model-0000{}-of-00003.bin", index + 1);
        let keys: Vec<String> = (0..shard.len()).map(|key| key.to_string()).collect();
        let strides: Vec<[usize; 2]> = shard.iter().map(|(_, t)| [*t.shape().last().unwrap(), 1]).collect();
        let windows: Vec<Window<'_>> = std::iter::zip(shard, std::iter::zip(&keys, &strides))
            .map(|((name, tensor), (key, stride))| {
                let shape = tensor.shape();
                (
                    name.as_str(),
                    key.as_str(),
                    tensor.data().len() as u32 / 2,
                    0,
                    shape,
                    &stride[2 - shape.len()..],
                )
            })
            .collect();
        let pickle = pickled(&windows);
        let names: Vec<String> = keys.iter().map(|key| format!("data/{key}")).collect();
        let storages =
            std::iter::zip(&names, shard).map(|(name, (_, tensor))| (name.as_str(), tensor.data()));
        let entries: Vec<_> = std::iter::once(("data.pkl", pickle.as_slice())).chain(storages).collect();
        fs::write(from.path().join(&file), zipped(&entries, CompressionMethod::Stored)).unwrap();
        map.extend(shard.iter().map(|(name, _)| (name.clone(), file.clone().into())));
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
    fs::write(from.path().join("pytorch_model.bin.index.json"), index.to_string()).unwrap();

    let advice = open_checkpoint(from.path()).err().unwrap().to_string();
    assert!(advice.contains("glmbench convert"), "{advice}");
    let to = tempfile::tempdir().unwrap();
    convert(from.path(), to.path()).unwrap();
    let expected = [
        "config.json",
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ];
    assert_eq!(files(to.path()), expected);
    let source = open_checkpoint(to.path()).unwrap();
    layout::check(&*source, &ModelConfig::from_file(&to.path().join("config.json")).unwrap()).unwrap();
    let golden = open_checkpoint(&golden).unwrap();
    assert_eq!(source.fingerprint(&|_| ()).unwrap(), golden.fingerprint(&|_| ()).unwrap());

    // Without their index, the numbered shards are still the same model. A stray file next to them makes another one.
    let again = tempfile::tempdir().unwrap();
    fs::remove_file(from.path().join("pytorch_model.bin.index.json")).unwrap();
    convert(from.path(), &again.path().join("out")).unwrap();
    let source = open_checkpoint(&again.path().join("out")).unwrap();
    assert_eq!(source.fingerprint(&|_| ()).unwrap(), golden.fingerprint(&|_| ()).unwrap());
    fs::write(from.path().join("pytorch_model.bin"), one()).unwrap();
    let message = convert(from.path(), &again.path().join("other")).unwrap_err();
    assert!(message.contains("two sets of weights, pytorch_model.bin and pytorch_model-00001"), "{message}");
    fs::remove_file(from.path().join("pytorch_model.bin")).unwrap();
    fs::remove_file(from.path().join("pytorch_model-00002-of-00003.bin")).unwrap();
    let message = convert(from.path(), &again.path().join("other")).unwrap_err();
    assert!(
        message.contains("2 of 3 shards are here; missing: pytorch_model-00002-of-00003.bin"),
        "{message}"
    );
    assert_eq!(files(again.path()), ["out"]);
}

#[test]
fn a_folder_that_holds_something_is_refused_before_anything_is_written() {
    let from = folder(&[("pytorch_model.bin", &one()), ("config.json", b"{}")]);
    for file in ["model.safetensors", "config.json", "model-00001-of-00002.safetensors", ".hidden", "notes"] {
        let to = folder(&[(file, b"mine")]);
        let message = convert(from.path(), to.path()).unwrap_err();
        assert!(message.contains("something is there already"), "{message}");
        assert_eq!(
            (files(to.path()), fs::read(to.path().join(file)).unwrap()),
            (vec![file.into()], b"mine".to_vec())
        );
    }
    let not_a_folder = folder(&[("out", b"")]);
    assert!(convert(from.path(), &not_a_folder.path().join("out")).unwrap_err().contains("out"));
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(convert(from.path(), empty.path()).unwrap(), ["model.safetensors", "config.json"]);
}

/// A `.bin` file of 64 MB, copied to the output buffer by buffer, takes long enough to be killed.
#[cfg(unix)]
#[test]
fn a_conversion_that_is_killed_leaves_the_output_as_it_was_and_the_next_one_sweeps_up() {
    const COUNT: u32 = 32 << 20;
    let shape = [COUNT as usize];
    let pickle = pickled(&[("w", "0", COUNT, 0, &shape, &[1])]);
    let storage = vec![0u8; 2 * COUNT as usize];
    let bin = zipped(&[("data.pkl", &pickle), ("data/0", &storage)], CompressionMethod::Stored);
    let from = folder(&[("pytorch_model.bin", &bin), ("config.json", b"{}")]);
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let args = ["convert", from.path().to_str().unwrap(), out.to_str().unwrap()];
    let mut killed = 0;
    for delay_ms in [0, 5, 10, 20, 40, 80] {
        let mut child = crate::support::glmbench(&args).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        if out.exists() {
            // The conversion finished before the kill, so everything must be there.
            assert_eq!(files(&out), ["config.json", "model.safetensors"]);
            fs::remove_dir_all(&out).unwrap();
        } else {
            killed += 1;
        }
    }
    assert!(killed > 0);
    crate::support::answer(&args).expect(0, &["2 files written; 1 tensors"]);
    assert_eq!(
        (files(place.path()), files(&out)),
        (vec!["out".into()], vec!["config.json".into(), "model.safetensors".into()])
    );
}

#[test]
fn a_pickle_that_would_run_something_is_refused_by_name() {
    let refusal =
        |pickle: &[u8]| refusal(&zipped(&[("data.pkl", pickle), ("data/0", &[])], CompressionMethod::Stored));
    let message = refusal(b"\x80\x02cos\nsystem\nX\x07\0\0\0touch x\x85R.");
    assert!(message.contains("pickle byte 2: global os.system is refused"), "{message}");
    let message = refusal(b"\x80\x02(X\x02\0\0\0idios\nsystem\n.");
    assert!(message.contains("opcode INST (0x69) is refused"), "{message}");
}

#[test]
fn tensors_that_are_not_in_the_file_as_said_are_named() {
    let stored = CompressionMethod::Stored;
    let with = |window: Window<'_>| {
        refusal(&zipped(&[("data.pkl", &pickled(&[window])), ("data/0", NUMBERS)], stored))
    };
    for (window, expected) in [
        (("w", "0", 6, 1, &[2, 3][..], &[3, 1][..]), "from number 1 on goes past its storage of 6"),
        (("w", "0", 6, 0, &[7], &[1]), "goes past its storage"),
        (("w", "0", 6, 0, &[0x7FFF_FFFF; 4], &[1; 4]), "goes past its storage"),
        (("w", "0", 6, 0, &[3, 2], &[1, 3]), "tensor w of shape [3, 2] has strides [1, 3]"),
        (("w", "0", 6, 0, &[2, 3], &[0, 1]), "has strides [0, 1]"),
        (("w", "1", 6, 0, &[2, 3], &[3, 1]), "tensor w: storage 1 is not in the file"),
        (("w", "../data.pkl", 6, 0, &[2, 3], &[3, 1]), "storage ../data.pkl is not in the file"),
        (("w", "0", 7, 0, &[2, 3], &[3, 1]), "its storage has 12 bytes, expected 7 numbers of F16"),
    ] {
        let message = with(window);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn a_file_that_is_no_sound_torch_zip_is_answered() {
    let (pickle, good, stored) = (pickled(ONE), one(), CompressionMethod::Stored);
    let deflated = zipped(&[("data.pkl", &pickle), ("data/0", NUMBERS)], CompressionMethod::Deflated);
    let big_endian = [("data.pkl", &pickle[..]), ("data/0", NUMBERS), ("byteorder", b"big")];
    let two = [("data.pkl", &pickle[..]), ("data/0", NUMBERS), ("../b/data.pkl", &pickle)];
    let huge = vec![b'N'; 5 << 20];
    let mut flipped = good.clone();
    let numbers_at = good.windows(NUMBERS.len()).position(|window| window == NUMBERS).unwrap();
    flipped[numbers_at + 3] ^= 1;
    for (bin, expected) in [
        (vec![], "it is no zip"),
        (b"text".to_vec(), "it is no zip"),
        (b"\x80\x02\x8a\x0al\xfc".to_vec(), "torch before 1.6"),
        (b"PK\x03\x04".to_vec(), "zip: "),
        (good[..good.len() - 1].to_vec(), "zip: "),
        (good[..good.len() / 2].to_vec(), "zip: "),
        (deflated, "compressed"),
        (zipped(&big_endian, stored), "byte order \"big\""),
        (zipped(&[("data/0", NUMBERS)], stored), "0 entries NAME/data.pkl"),
        (zipped(&[("data.pkl", &huge)], stored), "5242880 bytes, expected at most"),
        (flipped, "checksum"),
    ] {
        let message = refusal(&bin);
        assert!(message.contains(expected), "{expected}: {message}");
    }
    // A second pickle elsewhere in the zip changes nothing.
    let (from, to) = (folder(&[("pytorch_model.bin", &zipped(&two, stored))]), tempfile::tempdir().unwrap());
    convert(from.path(), to.path()).unwrap();
    let numbers = open_checkpoint(to.path()).unwrap().tensor("w", &[2, 3]).unwrap().to_f32();
    assert_eq!(numbers, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn a_zip_cut_anywhere_is_answered() {
    let good = one();
    for cut in 0..good.len() {
        refusal(&good[..cut]);
    }
}

#[test]
fn a_small_file_cannot_fill_the_disk() {
    let storage = vec![0; 60_000];
    let names: Vec<String> = (0..100).map(|i| format!("w{i}")).collect();
    let windows: Vec<Window<'_>> =
        names.iter().map(|name| (name.as_str(), "0", 30_000, 0, &[30_000][..], &[1][..])).collect();
    let bin = zipped(&[("data.pkl", &pickled(&windows)), ("data/0", &storage)], CompressionMethod::Stored);
    assert!(refusal(&bin).contains("6000000 bytes of tensors"));
}

#[test]
fn an_index_that_disagrees_with_its_shards_is_answered() {
    let (shard, other) = (one(), {
        let window: Window<'_> = ("v", "0", 6, 0, &[6], &[1]);
        zipped(&[("data.pkl", &pickled(&[window])), ("data/0", NUMBERS)], CompressionMethod::Stored)
    });
    for (map, expected) in [
        (r#"{"w":"../a.bin"}"#, "expected the name of a file in this folder"),
        (r#"{"w":"absent.bin"}"#, "absent.bin"),
        (r#"{"w":"a.bin","v":"a.bin"}"#, "tensor v is not in a.bin"),
        (r#"{"w":"b.bin","v":"a.bin"}"#, "tensor w is in a.bin, not in b.bin"),
        (r#"{"v":"b.bin","x":"a.bin"}"#, "tensor w of a.bin"),
        (r#"{"w":"pytorch_model.bin"}"#, "would become model.safetensors"),
        (r#"{"w":"pytorch_x.bin","v":"x.bin"}"#, "would become x.safetensors"),
    ] {
        let index = format!("{{\"weight_map\":{map}}}");
        let from = folder(&[
            ("pytorch_model.bin.index.json", index.as_bytes()),
            ("a.bin", &shard),
            ("b.bin", &other),
            (if map.contains("pytorch_model") { "pytorch_model.bin" } else { "unnamed.bin" }, &shard),
            ("pytorch_x.bin", &shard),
            ("x.bin", &other),
        ]);
        let to = tempfile::tempdir().unwrap();
        let message = convert(from.path(), to.path()).unwrap_err();
        assert!(message.contains(expected), "{map}: {message}");
        assert_eq!(files(to.path()), Vec::<String>::new());
    }
}

#[test]
fn a_folder_with_nothing_to_convert_says_so() {
    let message = |file| Plan::read(folder(&[(file, &b""[..])]).path()).err().unwrap().to_string();
    assert!(message("config.json").contains("expected pytorch_model.bin"));
    assert!(message("model.safetensors").contains("safetensors already"));
}

#[test]
fn a_conversion_that_is_stopped_leaves_nothing() {
    let (from, to) = (folder(&[("pytorch_model.bin", &one())]), tempfile::tempdir().unwrap());
    // Stops before the first tensor, and before the folder is renamed.
    for asked_at in [1, 2] {
        let asked = std::cell::Cell::new(0);
        let stopped = || {
            asked.set(asked.get() + 1);
            asked.get() >= asked_at
        };
        let plan = Plan::read(from.path()).unwrap();
        let error = plan.write_until(&to.path().join("out"), &mut |_| (), &stopped).unwrap_err();
        assert!(error.to_string().contains("stopped before it was done"), "{error}");
        assert_eq!(files(to.path()), Vec::<String>::new());
    }
}
