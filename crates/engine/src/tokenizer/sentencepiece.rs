//! A SentencePiece BPE model: text to ids, with the same result as SentencePiece itself.
//!
//! SentencePiece puts `▁` before the text (if the model says so), writes spaces as `▁`, and starts with every character
//! as a symbol. It then repeatedly merges the neighbours that form the piece with the highest score, leftmost first.
//! Symbols that are not pieces in the end become their UTF-8 bytes, or the unknown piece.
//!
//! [`BPE`] of the `tokenizers` crate merges by an ordered list of pairs instead. The two agree if two conditions hold:
//!
//! - The list holds *every* split of a piece into two parts, ordered by the piece's score.
//! - No two pieces share a score.
//!
//! Then the order of all merges is fixed, so the inside of a piece always grows in the same way. Only one of its splits
//! ever occurs, and the place of the others in the list does not matter.
//!
//! To that algorithm, a whole text is one word. The text is therefore split beforehand, between two characters that are
//! adjacent in no piece. No merge can cross such a place, so the parts are independent and only the speed changes.
//! Short parts come again and again, and their ids are kept ([`parts`]).

mod parts;

use std::collections::{HashMap, HashSet};

use tokenizers::Model as _;
use tokenizers::models::bpe::{BPE, Vocab};

pub use self::parts::Memo;
use super::proto::{self, ModelProto, Piece, PieceKind};
use parts::{Joints, Seen};

/// SentencePiece's visible space, U+2581.
pub(super) const SPACE: char = '\u{2581}';

/// Longest piece in bytes. SentencePiece's own default limit is 16 characters; a far longer piece means a broken file.
/// The number of splits grows with the square of the length.
const MAX_PIECE_BYTES: usize = 512;

/// A loaded `tokenizer.model`.
#[derive(Debug)]
pub(super) struct SentencePiece {
    pieces: Vec<Piece>,
    ids: HashMap<String, u32>,
    bpe: BPE,
    /// Characters that occur in pieces but are not pieces themselves. In `bpe`, their ids follow the last piece.
    loose: Vec<char>,
    joints: Joints,
    seen: Seen,
    /// Ids of the 256 byte pieces, if the model has byte fallback.
    byte_ids: Option<Vec<u32>>,
    unk_id: u32,
    eos_id: Option<u32>,
    unk_surface: String,
    add_dummy_prefix: bool,
    escape_whitespaces: bool,
}

impl SentencePiece {
    /// Reads the bytes of a `tokenizer.model`. The error says which part cannot be used.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        Self::from_proto(
            proto::parse(bytes).map_err(|problem| format!("not a SentencePiece model: {problem}"))?,
        )
    }

    fn from_proto(mut model: ModelProto) -> Result<Self, String> {
        check_settings(&model)?;
        retire_null(&mut model);
        let ids = number(&model.pieces)?;
        check_reachable(&model, &ids)?;
        let unk_id = find_unknown(&model.pieces)?;
        let byte_ids = find_bytes(&model, &ids)?;
        let control = |text: &str| {
            ids.get(text).copied().filter(|&id| model.pieces[id as usize].kind == PieceKind::Control)
        };
        let eos_id = control(&model.trainer.eos_piece);
        let loose = loose_characters(&model.pieces);
        Ok(Self {
            bpe: build_bpe(&model.pieces, &loose, unk_id, byte_ids.is_some())?,
            joints: Joints::of(normal_texts(&model.pieces)),
            seen: Seen::default(),
            ids,
            loose,
            byte_ids,
            unk_id,
            eos_id,
            unk_surface: model.trainer.unk_surface,
            add_dummy_prefix: model.normalizer.add_dummy_prefix,
            escape_whitespaces: model.normalizer.escape_whitespaces,
            pieces: model.pieces,
        })
    }

    /// Returns the number of pieces in the vocabulary.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Returns the piece with this id.
    pub(super) fn piece(&self, id: u32) -> Option<&Piece> {
        self.pieces.get(id as usize)
    }

    /// Returns the id of a piece as written in the file.
    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        self.ids.get(piece).copied()
    }

    /// Returns the id of the control piece that ends a sequence.
    pub(super) fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// Whether a space is put before the text.
    pub(super) fn add_dummy_prefix(&self) -> bool {
        self.add_dummy_prefix
    }

    /// Returns the text that the unknown piece decodes to.
    pub(super) fn unk_surface(&self) -> &str {
        &self.unk_surface
    }

    /// Returns the byte of a byte piece.
    pub(super) fn byte(&self, id: u32) -> Option<u8> {
        let piece = self.piece(id).filter(|piece| piece.kind == PieceKind::Byte)?;
        byte_of(&piece.text)
    }

    /// Encodes text to ids.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::with_capacity(text.len() / 2);
        let mut start = 0;
        while start < text.len() {
            start += self.next_part(text, start, &mut ids);
        }
        ids
    }

    /// Encodes a text that may begin like the last one.
    pub(super) fn encode_from(&self, memo: &mut Memo, text: &str) {
        let mut start = memo.begin(text);
        while start < text.len() {
            start += self.next_part(text, start, memo.ids_mut());
            memo.mark(start);
        }
    }

    /// Encodes the part of a text that begins at `start`, and returns its length in bytes.
    fn next_part(&self, text: &str, start: usize, ids: &mut Vec<u32>) -> usize {
        let space = if self.escape_whitespaces { SPACE } else { ' ' };
        let rest = &text[start..];
        let length = self.joints.first_part(rest, space);
        let part = &rest[..length];
        if start > 0 || !self.add_dummy_prefix {
            self.append(part, ids);
            return length;
        }
        let first = rest.chars().next().map_or(space, |c| if c == ' ' { space } else { c });
        if self.joints.has(space, first) {
            self.append(&format!(" {part}"), ids);
        } else {
            self.append(" ", ids);
            self.append(part, ids);
        }
        length
    }

    /// Appends the ids of a part. A run of unknown characters becomes one unknown piece, across parts as well.
    fn append(&self, part: &str, ids: &mut Vec<u32>) {
        let make = || self.ids_of(&self.normalize(part));
        self.seen.with(part, make, |own| {
            let goes_on = own.first() == Some(&self.unk_id) && ids.last() == Some(&self.unk_id);
            ids.extend_from_slice(&own[usize::from(goes_on)..]);
        });
    }

    fn normalize(&self, part: &str) -> String {
        if self.escape_whitespaces {
            part.replace(' ', SPACE.encode_utf8(&mut [0; 4]))
        } else {
            part.to_owned()
        }
    }

    /// Returns the ids of a normalized part.
    fn ids_of(&self, part: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let tokens = self.bpe.tokenize(part).expect("invariant: the vocabulary holds the unknown piece");
        for token in tokens {
            match (self.loose.get((token.id as usize).wrapping_sub(self.pieces.len())), &self.byte_ids) {
                (None, _) if token.id != self.unk_id => ids.push(token.id),
                (Some(c), Some(byte_ids)) => {
                    let mut buffer = [0; 4];
                    ids.extend(c.encode_utf8(&mut buffer).bytes().map(|byte| byte_ids[byte as usize]));
                }
                // A run of unknown characters becomes one unknown piece.
                _ if ids.last() == Some(&self.unk_id) => {}
                _ => ids.push(self.unk_id),
            }
        }
        ids
    }
}

/// Rejects settings that would give other tokens than SentencePiece.
fn check_settings(model: &ModelProto) -> Result<(), String> {
    let ModelProto { trainer, normalizer, .. } = model;
    if trainer.model_type != proto::BPE {
        let name = match trainer.model_type {
            proto::UNIGRAM => "unigram",
            3 => "word",
            4 => "character",
            _ => "unknown",
        };
        return Err(format!("model_type is {} ({name}), expected 2 (BPE)", trainer.model_type));
    }
    if normalizer.charsmap_bytes > 0 {
        return Err(format!(
            "the normalizer \"{}\" has rules (precompiled_charsmap of {} bytes), expected \"identity\" without any",
            normalizer.name, normalizer.charsmap_bytes
        ));
    }
    if model.denormalizer_charsmap_bytes > 0 {
        return Err("the denormalizer has rules, expected none".into());
    }
    for (key, value) in [
        ("remove_extra_whitespaces", normalizer.remove_extra_whitespaces),
        ("treat_whitespace_as_suffix", trainer.treat_whitespace_as_suffix),
    ] {
        if value {
            return Err(format!("{key} is true, expected false"));
        }
    }
    Ok(())
}

/// Assigns ids to the pieces. Rejects pieces that SentencePiece rejects or that the conversion cannot represent.
fn number(pieces: &[Piece]) -> Result<HashMap<String, u32>, String> {
    let mut ids = HashMap::with_capacity(pieces.len());
    let mut scores = HashMap::with_capacity(pieces.len());
    for (id, piece) in pieces.iter().enumerate() {
        let Piece { text, score, kind } = piece;
        if text.is_empty() || text.len() > MAX_PIECE_BYTES {
            return Err(format!("piece {id} has {} bytes, expected 1 to {MAX_PIECE_BYTES}", text.len()));
        }
        if *kind == PieceKind::UserDefined {
            return Err(format!("piece {id} {text:?} is user-defined, which this reader does not support"));
        }
        if let Some(first) = ids.insert(text.clone(), id as u32) {
            return Err(format!("piece {id} {text:?} is already piece {first}"));
        }
        if *kind == PieceKind::Normal && is_longer_than_one(text) {
            if !score.is_finite() {
                return Err(format!("piece {id} {text:?} has score {score}, expected a finite number"));
            }
            // 0 and -0 compare equal.
            if let Some(first) = scores.insert((score + 0.0).to_bits(), id) {
                return Err(format!(
                    "pieces {first} and {id} share the score {score}, expected all to differ"
                ));
            }
        }
    }
    Ok(ids)
}

/// With byte fallback, SentencePiece (observed in 0.2.3) ignores a piece that is the null character.
fn retire_null(model: &mut ModelProto) {
    if model.trainer.byte_fallback {
        for piece in model.pieces.iter_mut().filter(|piece| piece.text == "\0") {
            piece.kind = PieceKind::Unused;
        }
    }
}

/// Rejects non-text pieces that text could merge into: SentencePiece has special rules for them.
fn check_reachable(model: &ModelProto, ids: &HashMap<String, u32>) -> Result<(), String> {
    let pieces = &model.pieces;
    let is_symbol = |part: &str| {
        !is_longer_than_one(part)
            || ids
                .get(part)
                .is_some_and(|&id| matches!(pieces[id as usize].kind, PieceKind::Normal | PieceKind::Unused))
    };
    for (id, Piece { text, kind, .. }) in pieces.iter().enumerate() {
        let reachable = match kind {
            PieceKind::Normal => false,
            // A single character then falls back to its bytes, as it would without a piece.
            PieceKind::Unused if !is_longer_than_one(text) => !model.trainer.byte_fallback,
            PieceKind::Unused => cuts(text).any(|(left, right)| is_symbol(left) && is_symbol(right)),
            _ => !is_longer_than_one(text),
        };
        if reachable {
            return Err(format!(
                "piece {id} {text:?} is {kind:?} but text can become it, which is not supported"
            ));
        }
    }
    Ok(())
}

fn find_unknown(pieces: &[Piece]) -> Result<u32, String> {
    let mut unknown = (0u32..).zip(pieces).filter(|(_, piece)| piece.kind == PieceKind::Unknown);
    match (unknown.next(), unknown.next()) {
        (Some((id, _)), None) => Ok(id),
        (None, _) => Err("no piece is the unknown piece, expected one".into()),
        (Some((first, _)), Some((second, _))) => {
            Err(format!("pieces {first} and {second} are both the unknown piece, expected one"))
        }
    }
}

/// Returns the ids of `<0x00>` to `<0xFF>`. With byte fallback all must exist, without it none may.
fn find_bytes(model: &ModelProto, ids: &HashMap<String, u32>) -> Result<Option<Vec<u32>>, String> {
    let is_byte = |piece: &&Piece| piece.kind == PieceKind::Byte;
    if let Some(piece) = model.pieces.iter().filter(is_byte).find(|piece| byte_of(&piece.text).is_none()) {
        return Err(format!("the byte piece {:?} is none of <0x00> to <0xFF>", piece.text));
    }
    let count = model.pieces.iter().filter(is_byte).count();
    let expected = if model.trainer.byte_fallback { 256 } else { 0 };
    if count != expected {
        return Err(format!(
            "byte_fallback is {} and there are {count} byte pieces, expected {expected}",
            model.trainer.byte_fallback
        ));
    }
    Ok(model.trainer.byte_fallback.then(|| (0..=255).map(|byte| ids[&byte_piece(byte)]).collect()))
}

fn byte_piece(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

fn byte_of(piece: &str) -> Option<u8> {
    let byte = u8::from_str_radix(piece.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()?;
    (byte_piece(byte) == piece).then_some(byte)
}

/// Returns the characters that occur in pieces but are not pieces themselves. They can still be merged; on their own
/// they fall back.
fn loose_characters(pieces: &[Piece]) -> Vec<char> {
    let normal: HashSet<&str> = normal_texts(pieces).collect();
    let mut loose: Vec<char> = normal_texts(pieces).flat_map(str::chars).collect();
    loose.sort_unstable();
    loose.dedup();
    loose.retain(|c| !normal.contains(c.encode_utf8(&mut [0; 4]) as &str));
    loose
}

fn build_bpe(pieces: &[Piece], loose: &[char], unk_id: u32, byte_fallback: bool) -> Result<BPE, String> {
    let of_bpe = |piece: &Piece| !matches!(piece.kind, PieceKind::Control | PieceKind::Unused);
    let texts = pieces.iter().map(|piece| of_bpe(piece).then(|| piece.text.clone()));
    let vocab: Vocab = texts
        .chain(loose.iter().map(|c| Some(c.to_string())))
        .zip(0u32..)
        .filter_map(|(text, id)| Some((text?, id)))
        .collect();
    let merges = merges(pieces, loose);
    BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(pieces[unk_id as usize].text.clone())
        .fuse_unk(true)
        .byte_fallback(byte_fallback)
        .build()
        .map_err(|error| format!("its pieces make no BPE model: {error}"))
}

/// Returns every split of every piece into two symbols, pieces with the highest score first.
fn merges(pieces: &[Piece], loose: &[char]) -> Vec<(String, String)> {
    let mut by_score: Vec<&Piece> = pieces.iter().filter(|piece| piece.kind == PieceKind::Normal).collect();
    by_score.sort_by(|a, b| b.score.total_cmp(&a.score));
    let loose: Vec<String> = loose.iter().map(char::to_string).collect();
    let symbols: HashSet<&str> = normal_texts(pieces).chain(loose.iter().map(String::as_str)).collect();
    by_score
        .iter()
        .flat_map(|piece| cuts(&piece.text))
        .filter(|(left, right)| symbols.contains(left) && symbols.contains(right))
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect()
}

fn normal_texts(pieces: &[Piece]) -> impl Iterator<Item = &str> {
    pieces.iter().filter(|piece| piece.kind == PieceKind::Normal).map(|piece| piece.text.as_str())
}

fn is_longer_than_one(text: &str) -> bool {
    text.chars().nth(1).is_some()
}

/// Returns every split of a text into two parts.
fn cuts(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.char_indices().skip(1).map(|(at, _)| text.split_at(at))
}

#[cfg(test)]
mod tests;
