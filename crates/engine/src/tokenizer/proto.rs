//! Parser of a `tokenizer.model`: SentencePiece's protocol-buffer message `ModelProto`.
//!
//! Only the fields that decide how text becomes ids are kept. Their numbers and defaults are those of
//! `sentencepiece_model.proto`. Unknown fields are skipped, as protocol buffers require. Every length is checked
//! against the rest of the file before use, and no length is trusted for an allocation.
//!
//! `prost` would replace the reader of fields. It adds five crates with a derive macro, copies every field, and its errors
//! name a field without its place ("Model.pieces: buffer underflow"). Ours name the byte, and what was found and expected
//! there, which tells a cut file from another kind of file.

use crate::lfs;

/// The fields of `ModelProto` that this reader uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ModelProto {
    /// The vocabulary. A piece's index is its id.
    pub pieces: Vec<Piece>,
    /// How the model was trained, and which pieces are special.
    pub trainer: TrainerSpec,
    /// Processing of text before it is split into pieces.
    pub normalizer: NormalizerSpec,
    /// Size in bytes of a character map applied to decoded text; 0 if there is none.
    pub denormalizer_charsmap_bytes: usize,
}

/// One entry of the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Piece {
    /// The text; U+2581 stands for a space.
    pub text: String,
    /// Merge priority: the candidate with the highest score is merged first.
    pub score: f32,
    /// The piece's role.
    pub kind: PieceKind,
}

/// `SentencePiece.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    /// Text.
    Normal,
    /// Replaces text that has no piece.
    Unknown,
    /// A piece without text: `<s>`, `</s>`.
    Control,
    /// Matched in text before anything else.
    UserDefined,
    /// Never output.
    Unused,
    /// One byte: `<0x00>` to `<0xFF>`.
    Byte,
}

/// Some fields of `TrainerSpec`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TrainerSpec {
    /// 1 unigram, 2 BPE, 3 word, 4 character.
    pub model_type: i32,
    /// Whether spaces are kept after a word rather than before it.
    pub treat_whitespace_as_suffix: bool,
    /// Whether characters without a piece become their UTF-8 bytes.
    pub byte_fallback: bool,
    /// The text that the unknown piece decodes to.
    pub unk_surface: String,
    /// The piece that ends a sequence.
    pub eos_piece: String,
}

impl Default for TrainerSpec {
    fn default() -> Self {
        Self {
            model_type: UNIGRAM,
            treat_whitespace_as_suffix: false,
            byte_fallback: false,
            unk_surface: " \u{2047} ".into(),
            eos_piece: "</s>".into(),
        }
    }
}

/// `TrainerSpec.ModelType.UNIGRAM`, the default.
pub(super) const UNIGRAM: i32 = 1;
/// `TrainerSpec.ModelType.BPE`.
pub(super) const BPE: i32 = 2;

/// Some fields of `NormalizerSpec`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NormalizerSpec {
    /// Name of the rule set, e.g. `identity` or `nmt_nfkc`.
    pub name: String,
    /// Size of the compiled rule set in bytes; 0 leaves text unchanged.
    pub charsmap_bytes: usize,
    /// Whether to put a space before the text.
    pub add_dummy_prefix: bool,
    /// Whether to strip spaces at both ends and to collapse runs of spaces.
    pub remove_extra_whitespaces: bool,
    /// Whether to write spaces as U+2581.
    pub escape_whitespaces: bool,
}

impl Default for NormalizerSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            charsmap_bytes: 0,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        }
    }
}

/// Parses a whole file. The error says what is wrong and at which byte.
pub(super) fn parse(bytes: &[u8]) -> Result<ModelProto, String> {
    if lfs::is_pointer(bytes) {
        return Err(lfs::POINTER.into());
    }
    let mut model = ModelProto::default();
    for field in Fields::new(bytes, 0) {
        let field = field?;
        match field.number {
            1 => model.pieces.push(parse_piece(field.message()?)?),
            2 => parse_trainer(field.message()?, &mut model.trainer)?,
            3 => parse_normalizer(field.message()?, &mut model.normalizer)?,
            5 => {
                let mut denormalizer = NormalizerSpec::default();
                parse_normalizer(field.message()?, &mut denormalizer)?;
                model.denormalizer_charsmap_bytes = denormalizer.charsmap_bytes;
            }
            _ => {}
        }
    }
    if model.pieces.is_empty() {
        return Err("it holds no pieces".into());
    }
    Ok(model)
}

fn parse_piece(fields: Fields<'_>) -> Result<Piece, String> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    for field in fields {
        let field = field?;
        match field.number {
            1 => piece.text = field.text()?,
            2 => piece.score = field.float()?,
            3 => piece.kind = parse_kind(&field)?,
            _ => {}
        }
    }
    Ok(piece)
}

fn parse_kind(field: &Field<'_>) -> Result<PieceKind, String> {
    Ok(match field.int()? {
        1 => PieceKind::Normal,
        2 => PieceKind::Unknown,
        3 => PieceKind::Control,
        4 => PieceKind::UserDefined,
        5 => PieceKind::Unused,
        6 => PieceKind::Byte,
        other => return Err(format!("a piece has type {other} at byte {}, expected 1 to 6", field.at)),
    })
}

fn parse_trainer(fields: Fields<'_>, spec: &mut TrainerSpec) -> Result<(), String> {
    for field in fields {
        let field = field?;
        match field.number {
            3 => spec.model_type = field.int()?,
            24 => spec.treat_whitespace_as_suffix = field.flag()?,
            35 => spec.byte_fallback = field.flag()?,
            44 => spec.unk_surface = field.text()?,
            47 => spec.eos_piece = field.text()?,
            _ => {}
        }
    }
    Ok(())
}

fn parse_normalizer(fields: Fields<'_>, spec: &mut NormalizerSpec) -> Result<(), String> {
    for field in fields {
        let field = field?;
        match field.number {
            1 => spec.name = field.text()?,
            2 => spec.charsmap_bytes = field.bytes()?.len(),
            3 => spec.add_dummy_prefix = field.flag()?,
            4 => spec.remove_extra_whitespaces = field.flag()?,
            5 => spec.escape_whitespaces = field.flag()?,
            _ => {}
        }
    }
    Ok(())
}

/// One field of a message, in wire format.
struct Field<'a> {
    number: u64,
    value: Value<'a>,
    /// Offset of the field in the file.
    at: usize,
    /// Offset of its bytes in the file, if it has bytes.
    bytes_at: usize,
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
    Fixed64,
}

impl<'a> Field<'a> {
    fn mistyped(&self, expected: &str) -> String {
        format!("field {} at byte {} has another wire type, expected {expected}", self.number, self.at)
    }

    fn bytes(&self) -> Result<&'a [u8], String> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.mistyped("bytes")),
        }
    }

    fn message(&self) -> Result<Fields<'a>, String> {
        Ok(Fields::new(self.bytes()?, self.bytes_at))
    }

    fn text(&self) -> Result<String, String> {
        match std::str::from_utf8(self.bytes()?) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(format!("the text of field {} at byte {} is not UTF-8", self.number, self.at)),
        }
    }

    fn int(&self) -> Result<i32, String> {
        match self.value {
            Value::Varint(value) => Ok(value as i32),
            _ => Err(self.mistyped("an integer")),
        }
    }

    fn flag(&self) -> Result<bool, String> {
        Ok(self.int()? != 0)
    }

    fn float(&self) -> Result<f32, String> {
        match self.value {
            Value::Fixed32(bytes) => Ok(f32::from_le_bytes(bytes)),
            _ => Err(self.mistyped("a 32-bit float")),
        }
    }
}

/// Iterates over a message's fields in order, up to the first unreadable one.
struct Fields<'a> {
    rest: &'a [u8],
    /// Offset of `rest` in the file.
    at: usize,
}

impl<'a> Fields<'a> {
    fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { rest: bytes, at }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let Some((head, tail)) = usize::try_from(count).ok().and_then(|n| self.rest.split_at_checked(n))
        else {
            return Err(format!(
                "a field at byte {} is {count} bytes long, but {} are left",
                self.at,
                self.rest.len()
            ));
        };
        self.rest = tail;
        self.at += head.len();
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let Some((&byte, tail)) = self.rest.split_first() else {
                return Err(format!("it ends within a number at byte {start}"));
            };
            self.rest = tail;
            self.at += 1;
            // The tenth byte has one useful bit. The other bits are dropped, as other readers do.
            value |= u64::from(byte & 0x7f).wrapping_shl(shift);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(format!("a number at byte {start} is longer than 10 bytes"))
    }

    fn field(&mut self) -> Result<Field<'a>, String> {
        let at = self.at;
        let key = self.varint()?;
        let number = key >> 3;
        if number == 0 {
            return Err(format!("byte {at} begins no field"));
        }
        let mut bytes_at = self.at;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let length = self.varint()?;
                bytes_at = self.at;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Value::Fixed32([bytes[0], bytes[1], bytes[2], bytes[3]])
            }
            other => {
                return Err(format!("the field at byte {at} has wire type {other}, expected 0, 1, 2 or 5"));
            }
        };
        Ok(Field { number, value, at, bytes_at })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Writes a model file for the tests: the counterpart of [`parse`].
#[cfg(test)]
pub(super) fn write(model: &ModelProto) -> Vec<u8> {
    fn varint(out: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }
    fn int(out: &mut Vec<u8>, number: u64, value: u64) {
        varint(out, number << 3);
        varint(out, value);
    }
    fn bytes(out: &mut Vec<u8>, number: u64, value: &[u8]) {
        varint(out, number << 3 | 2);
        varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
    let mut out = Vec::new();
    for piece in &model.pieces {
        let mut message = Vec::new();
        bytes(&mut message, 1, piece.text.as_bytes());
        varint(&mut message, 2 << 3 | 5);
        message.extend_from_slice(&piece.score.to_le_bytes());
        int(&mut message, 3, piece.kind as u64 + 1);
        bytes(&mut out, 1, &message);
    }
    let mut trainer = Vec::new();
    int(&mut trainer, 3, model.trainer.model_type as u64);
    int(&mut trainer, 24, model.trainer.treat_whitespace_as_suffix.into());
    int(&mut trainer, 35, model.trainer.byte_fallback.into());
    bytes(&mut trainer, 44, model.trainer.unk_surface.as_bytes());
    bytes(&mut trainer, 47, model.trainer.eos_piece.as_bytes());
    bytes(&mut out, 2, &trainer);
    let mut normalizer = Vec::new();
    bytes(&mut normalizer, 1, model.normalizer.name.as_bytes());
    bytes(&mut normalizer, 2, &vec![1; model.normalizer.charsmap_bytes]);
    int(&mut normalizer, 3, model.normalizer.add_dummy_prefix.into());
    int(&mut normalizer, 4, model.normalizer.remove_extra_whitespaces.into());
    int(&mut normalizer, 5, model.normalizer.escape_whitespaces.into());
    bytes(&mut out, 3, &normalizer);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> ModelProto {
        let piece = |text: &str, score, kind| Piece { text: text.into(), score, kind };
        ModelProto {
            pieces: vec![
                piece("<unk>", 0.0, PieceKind::Unknown),
                piece("</s>", 0.0, PieceKind::Control),
                piece("\u{2581}你", -1.5, PieceKind::Normal),
            ],
            trainer: TrainerSpec { model_type: BPE, byte_fallback: true, ..TrainerSpec::default() },
            normalizer: NormalizerSpec {
                name: "identity".into(),
                remove_extra_whitespaces: false,
                ..NormalizerSpec::default()
            },
            denormalizer_charsmap_bytes: 0,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(parse(&write(&sample())).unwrap(), sample());
    }

    #[test]
    fn missing_fields_have_the_defaults_of_the_format() {
        let model = parse(&[0x0a, 0x03, 0x0a, 0x01, b'a']).unwrap();
        assert_eq!(model.pieces, [Piece { text: "a".into(), score: 0.0, kind: PieceKind::Normal }]);
        assert_eq!(model.trainer.model_type, UNIGRAM);
        assert!(model.normalizer.add_dummy_prefix && model.normalizer.remove_extra_whitespaces);
    }

    #[test]
    fn hostile_bytes_are_answered_with_what_is_wrong() {
        let cases: [(&[u8], &str); 9] = [
            (b"", "no pieces"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
            (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "bytes long"),
            (b"\x0a\x05ab", "5 bytes long, but 2 are left"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "longer than 10 bytes"),
            (b"\x0a", "ends within a number"),
            (b"{\"model\": {}}", "wire type 3"),
            (b"\x0a\x03\x0a\x01\xff", "not UTF-8"),
            (b"\x08\x01", "expected bytes"),
        ];
        for (bytes, expected) in cases {
            let problem = parse(bytes).unwrap_err();
            assert!(problem.contains(expected), "{bytes:?}: {problem}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_damage_makes_it_panic(at in 0usize..120, byte: u8, cut in 0usize..120) {
            let mut bytes = write(&sample());
            let n = bytes.len();
            bytes[at % n] = byte;
            let _ = parse(&bytes);
            let _ = parse(&bytes[..cut % n]);
        }
    }
}
