//! Words of files that stand for a value of the program: a device, a number type, an arrival process.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The word of a value, as a file has it. A file may have a word that this program does not know: from another version, a
/// server, or a script. Such a word is shown and compared as it is.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Word<T> {
    text: String,
    #[serde(skip)]
    of: PhantomData<fn() -> T>,
}

impl<T: FromStr> Word<T> {
    /// Returns the value.
    ///
    /// # Errors
    /// This program does not know the word.
    pub fn value(&self) -> Result<T, T::Err> {
        self.text.parse()
    }

    /// Returns the value, if this program knows the word.
    pub fn known(&self) -> Option<T> {
        self.value().ok()
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
