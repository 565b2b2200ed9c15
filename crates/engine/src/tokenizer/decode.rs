//! Incremental decoding of ids to text, with the same result as SentencePiece's decoding of the whole list.

use super::proto::PieceKind;
use super::sentencepiece::{SPACE, SentencePiece};

/// Decodes a growing list of ids. The outputs of [`push`](Self::push) and [`finish`](Self::finish), joined, are the
/// text.
#[derive(Debug, Clone)]
pub(super) struct PieceDecoder<'a> {
    model: &'a SentencePiece,
    /// Text of the unknown piece.
    unknown: &'a str,
    /// Pending bytes: always the beginning of a character.
    bytes: Vec<u8>,
    /// Whether there is no text yet, so that a leading space is the dummy prefix. Always false for a model without one.
    at_start: bool,
}

impl<'a> PieceDecoder<'a> {
    pub(super) fn new(model: &'a SentencePiece, unknown: &'a str) -> Self {
        Self::resume(model, unknown, Vec::new(), model.add_dummy_prefix())
    }

    /// Continues with the pending bytes and the state that [`suspend`](Self::suspend) returned.
    pub(super) fn resume(model: &'a SentencePiece, unknown: &'a str, bytes: Vec<u8>, at_start: bool) -> Self {
        Self { model, unknown, bytes, at_start }
    }

    /// Returns the pending bytes, and whether there is no text yet.
    pub(super) fn suspend(self) -> (Vec<u8>, bool) {
        (self.bytes, self.at_start)
    }

    /// Takes the next id. Returns the text that is now final.
    pub(super) fn push(&mut self, id: u32) -> String {
        let mut text = String::new();
        if let Some(byte) = self.model.byte(id) {
            self.bytes.push(byte);
            self.take_characters(&mut text);
            self.at_start &= text.is_empty();
        } else {
            text = self.finish();
            self.push_piece(id, &mut text);
        }
        text
    }

    /// Stops waiting for the rest of a character. Each pending byte becomes U+FFFD.
    pub(super) fn finish(&mut self) -> String {
        let text = "\u{fffd}".repeat(self.bytes.len());
        self.bytes.clear();
        self.at_start &= text.is_empty();
        text
    }

    fn push_piece(&mut self, id: u32, text: &mut String) {
        // Ids outside the vocabulary (ChatGLM2's special tokens, padding rows) have no text.
        let Some(piece) = self.model.piece(id) else { return };
        let mut surface = match piece.kind {
            PieceKind::Control => return,
            PieceKind::Unknown => self.unknown.to_owned(),
            _ => piece.text.replace(SPACE, " "),
        };
        if surface.is_empty() {
            return;
        }
        if self.at_start && piece.kind != PieceKind::Unknown && piece.text.starts_with(SPACE) {
            surface.remove(0);
        }
        self.at_start = false;
        text.push_str(&surface);
    }

    /// Moves whole characters out of `bytes`. A byte that cannot be part of a character becomes U+FFFD.
    fn take_characters(&mut self, text: &mut String) {
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.bytes.clear();
                    return;
                }
                // `bytes` was the beginning of one character before this byte, so no whole character precedes the
                // error.
                Err(error) if error.error_len().is_none() => return,
                Err(_) => {
                    text.push('\u{fffd}');
                    self.bytes.remove(0);
                }
            }
        }
    }
}
