//! Small models for the tests.

use tempfile::TempDir;

use super::proto::{self, ModelProto, NormalizerSpec, Piece, PieceKind, TrainerSpec};

/// A BPE model: `<unk>` 0, `<s>` 1, `</s>` 2, byte pieces 3 to 258 if `byte_fallback`, then `texts` with falling
/// scores.
pub(super) fn model(texts: &[&str], byte_fallback: bool) -> ModelProto {
    let special = [("<unk>", PieceKind::Unknown), ("<s>", PieceKind::Control), ("</s>", PieceKind::Control)];
    let bytes =
        (0..if byte_fallback { 256 } else { 0 }).map(|byte| (format!("<0x{byte:02X}>"), PieceKind::Byte));
    let texts = texts.iter().map(|text| ((*text).to_owned(), PieceKind::Normal));
    let all = special.iter().map(|(text, kind)| ((*text).to_owned(), *kind)).chain(bytes).chain(texts);
    ModelProto {
        pieces: all
            .zip(0u16..)
            .map(|((text, kind), id)| Piece { text, kind, score: -f32::from(id) })
            .collect(),
        trainer: TrainerSpec { model_type: proto::BPE, byte_fallback, ..TrainerSpec::default() },
        normalizer: NormalizerSpec {
            name: "identity".into(),
            remove_extra_whitespaces: false,
            ..NormalizerSpec::default()
        },
        denormalizer_charsmap_bytes: 0,
    }
}

/// The pieces of [`tiny`], from id 259 on. `[MASK]` is 263.
const TINY: [&str; 4] = ["\u{2581}", "b", "\u{2581}a", "\u{2581}ab"];

/// A model of 263 pieces with ChatGLM2's settings.
pub(super) fn tiny() -> ModelProto {
    model(&TINY, true)
}

/// Name and contents.
pub(super) type File<'a> = (&'a str, &'a [u8]);

/// Creates a folder with these files.
pub(super) fn dir_of(files: &[File<'_>]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

/// Creates a folder with [`tiny`] as `tokenizer.model`.
pub(super) fn tiny_dir() -> TempDir {
    dir_of(&[("tokenizer.model", &proto::write(&tiny()))])
}
