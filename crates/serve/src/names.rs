//! The tokens' own texts, one per id and no two equal.

use std::collections::HashSet;

use glmbench_engine::tokenizer::Tokenizer;

/// Names of all token ids of a model.
///
/// A piece's name is its text with `▁` as a space; a special token's is its own word. A byte piece of a vocabulary with
/// bytes is `bytes:\xe4`. An id without a piece, or with a name that a lower id has, is `token_id:N`. Names therefore
/// never collide as keys of a map.
pub(crate) struct TokenNames {
    names: Vec<String>,
    bytes: Vec<Option<u8>>,
    special: Vec<bool>,
}

impl TokenNames {
    pub(crate) fn of(tokenizer: &Tokenizer, vocab: usize) -> Self {
        let mut seen = HashSet::new();
        let (mut names, mut bytes, mut special) = (Vec::new(), Vec::new(), Vec::new());
        for id in 0..vocab as u32 {
            let piece = tokenizer.piece(id);
            let byte = piece.and_then(byte_of);
            let has_text =
                |piece: &str| piece.is_empty() || piece == "▁" || !tokenizer.decode(&[id]).is_empty();
            let mut name = match (byte, piece) {
                (Some(byte), _) => format!("bytes:\\x{byte:02x}"),
                (None, Some(piece)) => piece.replace('▁', " "),
                (None, None) => Self::plain(id),
            };
            if !seen.insert(name.clone()) {
                name = Self::plain(id);
                seen.insert(name.clone());
            }
            names.push(name);
            bytes.push(byte);
            special.push(byte.is_none() && !piece.is_some_and(has_text));
        }
        Self { names, bytes, special }
    }

    /// Returns `token_id:N`.
    pub(crate) fn plain(id: u32) -> String {
        format!("token_id:{id}")
    }

    /// Returns an id's name.
    pub(crate) fn name(&self, id: u32) -> &str {
        self.names.get(id as usize).map_or("", String::as_str)
    }

    /// Returns the bytes that an id stands for.
    pub(crate) fn bytes(&self, id: u32) -> Vec<u8> {
        match self.bytes.get(id as usize) {
            Some(Some(byte)) => vec![*byte],
            _ => self.name(id).as_bytes().to_vec(),
        }
    }

    /// Whether an id has no text of its own.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(true)
    }
}

/// Returns the byte of a byte piece, `<0x0A>`.
fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}
