//! Tokens of OpenAI's encoding cl100k_base, the unit of NeedleBench's lengths.

use tiktoken_rs::cl100k_base_singleton;

use crate::Undefined;
use crate::python::is_space;

/// The longest run of white space that is encoded. The encoding's pattern goes back over such a run character by character.
const MAX_SPACES: usize = 100_000;

/// Encodes a text, without special tokens: `tiktoken.get_encoding("cl100k_base").encode_ordinary(text)`.
///
/// The vocabulary is in the program, and loaded at the first use.
pub fn cl100k(text: &str) -> Result<Vec<u32>, Undefined> {
    let mut run = 0;
    for c in text.chars() {
        run = if is_space(c) { run + 1 } else { 0 };
        if run > MAX_SPACES {
            return Err(Undefined::Pattern { length: text.chars().count() });
        }
    }
    Ok(cl100k_base_singleton().encode_ordinary(text))
}

/// Decodes tokens of [`cl100k`]. Bytes that are no UTF-8, as at the borders of cut texts, become U+FFFD, as in Python.
/// Numbers that are no token are left out.
pub fn cl100k_text(tokens: &[u32]) -> String {
    let encoding = cl100k_base_singleton();
    let bytes: Vec<u8> =
        tokens.iter().filter_map(|token| encoding.decode_bytes(&[*token]).ok()).flatten().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
