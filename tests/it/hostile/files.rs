//! Valid files of binary formats, small enough that a corrupted byte is likely to matter.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;

/// Returns a zip archive with uncompressed entries.
pub(super) fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// Returns a byte-level tokenizer with the 256 bytes and one merge, as in other models' folders.
pub(super) fn byte_level() -> Vec<u8> {
    let visible = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..);
    let hidden = (0..=255u8).filter(|byte| !visible(*byte)).count() as u32;
    let letters = (0..=255u8).filter(|byte| visible(*byte)).map(char::from);
    let letters = letters.chain((0..hidden).map(|n| char::from_u32(256 + n).unwrap()));
    let mut vocab: serde_json::Map<String, serde_json::Value> =
        letters.zip(0..).map(|(letter, id)| (letter.to_string(), id.into())).collect();
    vocab.insert("ab".into(), 256.into());
    let byte_level = |space: bool| serde_json::json!({"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": true, "use_regex": true});
    let end = serde_json::json!({"id": 257, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    let all = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [end], "pre_tokenizer": byte_level(false), "post_processor": null, "decoder": byte_level(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": ["a b"]}});
    all.to_string().into_bytes()
}

pub(super) fn safetensors_with(tensors: &[(&str, [usize; 2])]) -> Vec<u8> {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let offsets = [end, end + 2 * shape[0] * shape[1]];
        end = offsets[1];
        let info = serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": offsets});
        header.insert((*name).to_owned(), info);
    }
    let header = serde_json::Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; end]].concat()
}

pub(super) fn safetensors() -> Vec<u8> {
    safetensors_with(&[("a", [2, 3]), ("b", [4, 1])])
}

pub(super) fn safetensors_of_many() -> Vec<u8> {
    let names: Vec<String> = (0..40).map(|n| format!("transformer.layer.{n}.weight")).collect();
    safetensors_with(&names.iter().map(|name| (name.as_str(), [3, 2])).collect::<Vec<_>>())
}

/// Returns a state dict with one fp16 tensor of two by three.
pub(super) fn pickle() -> Vec<u8> {
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let number = |number: u32| [b"J", &number.to_le_bytes()[..]].concat();
    let tuple = |sizes: [u32; 2]| [&b"("[..], &number(sizes[0]), &number(sizes[1]), b"t"].concat();
    let parts: [&[u8]; 12] = [
        b"\x80\x02}(",
        &text("w"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &text("storage"),
        b"ctorch\nHalfStorage\n",
        &text("0"),
        &text("cpu"),
        &number(6),
        b"tQ",
        &number(0),
        &[tuple([2, 3]), tuple([3, 1])].concat(),
        b"\x89ccollections\nOrderedDict\n)RtRu.",
    ];
    parts.concat()
}
