//! Reads text files and reports the position of every fault; computes content hashes.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::bounded;

use super::error::{DatasetError, Problems};

/// Maximum file size in bytes. No catalogued set has a file nearly as large.
pub(super) const MAX_FILE_BYTES: u64 = 64 << 20;
/// Maximum line length in bytes. A row is a question and its passage.
const MAX_LINE_BYTES: usize = 4 << 20;

/// The text of a file and the hash of its bytes.
pub(super) struct TextFile {
    /// The text, without a byte-order mark.
    pub text: String,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
}

/// Reads all of `path`. Invalid UTF-8 or a line that is too long is added to `problems`, and the result is `None`.
pub(super) fn read(path: &Path, problems: &mut Problems) -> Result<Option<TextFile>, DatasetError> {
    let bytes = bounded::file(path, MAX_FILE_BYTES).map_err(|e| DatasetError::io(path, e))?;
    if let Some((line, found)) = too_long(&bytes) {
        problems.push(
            path,
            line,
            format!("found a line of {found} bytes; expected {MAX_LINE_BYTES} at most"),
        );
        return Ok(None);
    }
    let sha256 = sha256_hex(&bytes);
    match String::from_utf8(bytes) {
        Ok(text) => {
            let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
            Ok(Some(TextFile { text, sha256 }))
        }
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            let line = bytes[..good].split(|&b| b == b'\n').count() as u64;
            let found = bytes[good];
            problems.push(
                path,
                line,
                format!("found byte 0x{found:02x} at offset {good}; expected UTF-8 text"),
            );
            Ok(None)
        }
    }
}

/// Returns the number and length of the first line that is too long.
fn too_long(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut lines = (1..).zip(bytes.split(|&b| b == b'\n'));
    lines.find(|(_, line)| line.len() > MAX_LINE_BYTES).map(|(number, line)| (number, line.len()))
}

/// Returns the SHA-256 of `bytes` as 64 lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_hash_is_sha256() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(sha256_hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn bytes_that_are_no_text_are_named_with_line_and_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        fs::write(&path, b"ok\nstill\n\xffno").unwrap();
        let mut problems = Problems::default();
        assert!(read(&path, &mut problems).unwrap().is_none());
        assert_eq!(problems.0[0].line, 3);
        assert_eq!(problems.0[0].message, "found byte 0xff at offset 9; expected UTF-8 text");
    }

    #[test]
    fn a_line_without_end_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        fs::write(&path, [b"{}\n".as_slice(), &vec![b'x'; MAX_LINE_BYTES + 1]].concat()).unwrap();
        let mut problems = Problems::default();
        assert!(read(&path, &mut problems).unwrap().is_none());
        assert_eq!(problems.0[0].line, 2);
        assert_eq!(problems.0[0].message, "found a line of 4194305 bytes; expected 4194304 at most");
    }

    #[test]
    fn a_byte_order_mark_is_no_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.csv");
        fs::write(&path, "\u{feff}id").unwrap();
        assert_eq!(read(&path, &mut Problems::default()).unwrap().unwrap().text, "id");
    }
}
