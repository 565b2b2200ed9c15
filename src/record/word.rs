//! Words of records that stand for a value of the program: a device, a number type, an arrival process.

use crate::language::{Text, ToText};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;

/// The word of a value, as recorded. A record may have a word that this program does not know: from another version, a
/// server, or a script. Such a word is shown and compared as it is.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Word<T> {
    text: String,
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

impl<T: FromStr> Word<T> {
    /// Returns the value, if this program knows the word.
    pub fn known(&self) -> Option<T> {
        self.text.parse().ok()
    }
}

impl<T: fmt::Display> Word<T> {
    /// Returns the word of a value.
    pub fn of(value: T) -> Self {
        value.to_string().into()
    }
}

impl<T> From<String> for Word<T> {
    fn from(text: String) -> Self {
        Self { text, of: PhantomData }
    }
}

impl<T> From<&str> for Word<T> {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl<T> Deref for Word<T> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl<T> ToText for Word<T> {
    fn to_text(&self) -> Text {
        Text::data(self.text.clone())
    }
}

impl<T> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<T> fmt::Debug for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

// Derived implementations would ask the same of `T`.
impl<T> Clone for Word<T> {
    fn clone(&self) -> Self {
        self.text.clone().into()
    }
}

impl<T> PartialEq for Word<T> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<T> Eq for Word<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_device::{DeviceKind, DeviceName, Precision};

    #[test]
    fn a_word_is_kept_as_it_was_written_and_known_if_it_is_one_of_ours() {
        let read = |json: &str| serde_json::from_str::<Word<DeviceName>>(json).unwrap();
        let card = read(r#""300i-duo (emulated)""#);
        assert_eq!(card.known(), Some(DeviceName { kind: DeviceKind::Duo300i, emulated: true }));
        let foreign = read(r#""endpoint (openai)""#);
        assert_eq!(foreign.known(), None);
        for word in [card, foreign] {
            assert_eq!(serde_json::to_string(&word).unwrap(), format!("\"{word}\""));
        }
        let types = Word::<Precision>::of(Precision::W8A8_DYNAMIC);
        assert_eq!((&*types, types.known()), ("w8a8-dynamic", Some(Precision::W8A8_DYNAMIC)));
    }
}
