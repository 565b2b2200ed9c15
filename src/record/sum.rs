//! The checksum at the end of each journal line and of `run.json`.
//!
//! The last field is `sum`: the first 16 hexadecimal digits of a SHA-256. It covers all bytes before, from the `{` to
//! the byte before the comma. It covers one line only, so the lines of a resumed run equal those of an uninterrupted
//! run.
//! It does not protect against someone who recomputes sums.

use super::identity::hex;
use sha2::{Digest, Sha256};

/// Number of hexadecimal digits of a sum.
const DIGITS: usize = 16;

/// The text around the digits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    before: &'static str,
    after: &'static str,
    /// The end of the object without a sum.
    end: &'static str,
}

/// A journal line.
pub(super) const LINE: Frame = Frame { before: ",\"sum\":\"", after: "\"}\n", end: "}" };
/// An object over several lines, indented by two spaces.
pub(super) const PAGE: Frame = Frame { before: ",\n  \"sum\": \"", after: "\"\n}\n", end: "\n}" };

/// Result of checking a text's sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sum {
    /// The sum matches the bytes.
    Right,
    /// The sum does not match the bytes.
    Wrong,
    /// The text does not end with a sum.
    Absent,
}

impl Frame {
    /// Appends the sum as the last field to the JSON text of an object with at least one field.
    pub(super) fn close(self, mut json: Vec<u8>) -> Vec<u8> {
        json.truncate(json.len() - self.end.len());
        let sum = sum(&json);
        json.extend([self.before, &sum, self.after].map(str::as_bytes).concat());
        json
    }

    /// Checks the sum of `text`.
    pub(super) fn check(self, text: &[u8]) -> Sum {
        let parts = || {
            let text = text.strip_suffix(self.after.as_bytes())?;
            let (text, digits) = text.split_at_checked(text.len().checked_sub(DIGITS)?)?;
            Some((text.strip_suffix(self.before.as_bytes())?, digits))
        };
        match parts() {
            None => Sum::Absent,
            Some((bytes, digits)) if sum(bytes).as_bytes() == digits => Sum::Right,
            Some(_) => Sum::Wrong,
        }
    }
}

fn sum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..DIGITS / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        for (frame, json) in [(LINE, "{\"a\":1}"), (PAGE, "{\n  \"a\": 1\n}")] {
            let closed = frame.close(json.as_bytes().to_vec());
            assert_eq!(frame.check(&closed), Sum::Right);
            let read: serde_json::Value = serde_json::from_slice(&closed).unwrap();
            assert_eq!((&read["a"], read["sum"].as_str().map(str::len)), (&1.into(), Some(DIGITS)));
            for at in 0..closed.len() {
                let mut other = closed.clone();
                other[at] ^= 1;
                assert_ne!(frame.check(&other), Sum::Right, "byte {at}");
            }
            assert_eq!(frame.check(json.as_bytes()), Sum::Absent);
        }
        assert_eq!(LINE.check(b""), Sum::Absent);
    }

    #[test]
    fn it_is_the_beginning_of_sha_256() {
        // printf '{"a":1' | sha256sum
        let closed = LINE.close(b"{\"a\":1}".to_vec());
        let digest = hex(&Sha256::digest(b"{\"a\":1"));
        assert_eq!(closed, format!("{{\"a\":1,\"sum\":\"{}\"}}\n", &digest[..16]).as_bytes());
    }
}
