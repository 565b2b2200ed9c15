//! Texts: messages, data, and lists of both.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Language;
use super::catalogue::{Piece, pieces};

/// What a report says. Its [`Display`](fmt::Display) is English. Two texts are equal if they say the same in English.
#[derive(Clone)]
pub struct Text(Kind);

#[derive(Clone)]
enum Kind {
    /// A name, a number or a quotation: the same in every language.
    Data(Cow<'static, str>),
    /// A template, and the arguments for its holes.
    Message(&'static str, Vec<(&'static str, Text)>),
    /// A word of a closed set that another crate defines: translated if the catalogue knows it.
    Term(String),
    /// Texts with a separator between them, which the catalogue translates.
    List(&'static str, Vec<Text>),
}

impl Text {
    /// Nothing.
    pub const EMPTY: Self = Self(Kind::Data(Cow::Borrowed("")));

    /// Returns what is the same in every language.
    pub fn data(data: impl Into<Cow<'static, str>>) -> Self {
        Self(Kind::Data(data.into()))
    }

    /// Returns a word of a closed set that another crate defines.
    pub(crate) fn term(word: impl Into<String>) -> Self {
        Self(Kind::Term(word.into()))
    }

    /// Returns texts with a separator between them.
    pub(crate) fn list(parts: impl IntoIterator<Item = Self>, separator: &'static str) -> Self {
        Self(Kind::List(separator, parts.into_iter().collect()))
    }

    /// A message. [`text!`] makes it, and checks that the holes are those of the arguments.
    pub(crate) const fn message(template: &'static str, holes: Vec<(&'static str, Self)>) -> Self {
        Self(Kind::Message(template, holes))
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Kind::Data(data) => data.is_empty(),
            Kind::Message(template, _) => template.is_empty(),
            Kind::Term(word) => word.is_empty(),
            Kind::List(_, parts) => parts.iter().all(Self::is_empty) && parts.len() < 2,
        }
    }

    /// Whether the English contains these words.
    pub fn contains(&self, words: &str) -> bool {
        self.to_string().contains(words)
    }

    /// Whether the English starts with these words.
    pub fn starts_with(&self, words: &str) -> bool {
        self.to_string().starts_with(words)
    }

    /// Returns the text in a language. What its catalogue lacks stays English.
    pub fn in_language(&self, language: Language) -> String {
        let mut out = String::new();
        self.write(language, &mut out);
        out
    }

    fn write(&self, language: Language, out: &mut String) {
        match &self.0 {
            Kind::Data(data) => out.push_str(data),
            Kind::Term(word) => out.push_str(language.entry(word).unwrap_or(word)),
            Kind::List(separator, parts) => {
                let separator = language.entry(separator).unwrap_or(separator);
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        out.push_str(separator);
                    }
                    part.write(language, out);
                }
            }
            Kind::Message(template, holes) => {
                let of = |name: &str| holes.iter().find(|(hole, _)| *hole == name).map(|(_, text)| text);
                for piece in pieces(language.entry(template).unwrap_or(template)) {
                    match piece {
                        Piece::Letters(letters) => out.push_str(letters),
                        Piece::Hole(name) => of(name).into_iter().for_each(|text| text.write(language, out)),
                        Piece::Plural(name) => {
                            let one = of(name).is_some_and(|count| *count == "1");
                            out.push_str(if one { "" } else { "s" });
                        }
                    }
                }
            }
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.in_language(Language::En))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.in_language(Language::En), f)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.in_language(Language::En) == other.in_language(Language::En)
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.in_language(Language::En) == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        *self == **other
    }
}

/// English, as all JSON.
impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.in_language(Language::En))
    }
}

/// A text that was written as English is data from then on.
impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::data)
    }
}

impl From<String> for Text {
    fn from(data: String) -> Self {
        Self::data(data)
    }
}

impl From<&String> for Text {
    fn from(data: &String) -> Self {
        Self::data(data.clone())
    }
}

impl From<&str> for Text {
    fn from(data: &str) -> Self {
        Self::data(data.to_owned())
    }
}

/// One after the other.
impl<T: Into<Text>> std::ops::Add<T> for Text {
    type Output = Self;

    fn add(self, after: T) -> Self {
        Self::list([self, after.into()], "")
    }
}

/// One after the other.
impl FromIterator<Text> for Text {
    fn from_iter<I: IntoIterator<Item = Text>>(parts: I) -> Self {
        Self::list(parts, "")
    }
}

/// What can be an argument of a message. Letters and numbers are data. A type with translated words says how.
pub(crate) trait ToText {
    /// Returns the text.
    fn to_text(&self) -> Text;
}

impl<T: ToText + ?Sized> ToText for &T {
    fn to_text(&self) -> Text {
        (**self).to_text()
    }
}

impl ToText for Text {
    fn to_text(&self) -> Text {
        self.clone()
    }
}

macro_rules! data {
    ($($type:ty),*) => {
        $(impl ToText for $type {
            fn to_text(&self) -> Text {
                Text::data(self.to_string())
            }
        })*
    };
}

data!(str, String, Cow<'_, str>, char, u32, u64, usize, f32, f64, std::path::Display<'_>);

/// Asserts that the holes of a template are its arguments. Evaluated by the compiler.
pub(crate) const fn assert_holes(template: &str, names: &[&str]) {
    let bytes = template.as_bytes();
    let mut seen = 0_u64;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'{' {
            let begin = at + 1;
            while at < bytes.len() && bytes[at] != b'}' {
                at += 1;
            }
            assert!(at < bytes.len(), "a hole is not closed");
            let plural = at > begin + 2 && bytes[at - 2] == b':' && bytes[at - 1] == b's';
            let index = position(bytes, begin, if plural { at - 2 } else { at }, names);
            assert!(index < names.len(), "a hole has no argument");
            seen |= 1 << index;
        }
        at += 1;
    }
    assert!(names.len() < 64 && seen == (1 << names.len()) - 1, "an argument has no hole");
}

/// The index of the name that stands in a part of the bytes; the number of names if none does.
const fn position(bytes: &[u8], begin: usize, end: usize, names: &[&str]) -> usize {
    let mut index = 0;
    while index < names.len() {
        let name = names[index].as_bytes();
        let mut equal = name.len() == end - begin;
        let mut at = 0;
        while equal && at < name.len() {
            equal = name[at] == bytes[begin + at];
            at += 1;
        }
        if equal {
            return index;
        }
        index += 1;
    }
    index
}

/// Makes a message: `text!("{count} of {all} items failed", count, all = plan.items)`. An argument is a local name, or a name
/// with its value. `{count:s}` is an `s` unless the count is 1.
macro_rules! text {
    ($template:literal $(,)?) => {{
        const { $crate::language::message::assert_holes($template, &[]) };
        $crate::language::Text::message($template, Vec::new())
    }};
    ($template:literal, $($name:ident $(= $value:expr)?),+ $(,)?) => {{
        const { $crate::language::message::assert_holes($template, &[$(stringify!($name)),+]) };
        $crate::language::Text::message(
            $template,
            vec![$((
                stringify!($name),
                $crate::language::ToText::to_text(&$crate::language::message::argument!($name $(= $value)?)),
            )),+],
        )
    }};
}

/// The value of an argument.
macro_rules! argument {
    ($name:ident = $value:expr) => {
        $value
    };
    ($name:ident) => {
        $name
    };
}

/// Makes an array of messages without holes, such as the heads of a table.
macro_rules! texts {
    ($($template:literal),* $(,)?) => {
        [$($crate::language::text!($template)),*]
    };
}

/// Makes a row of a table: texts, letters and numbers.
macro_rules! cells {
    ($($cell:expr),* $(,)?) => {
        vec![$($crate::language::ToText::to_text(&$cell)),*]
    };
}

pub(crate) use {argument, cells, text, texts};

/// Returns texts with a separator between them.
pub(crate) fn joined<T: ToText>(parts: impl IntoIterator<Item = T>, separator: &'static str) -> Text {
    Text::list(parts.into_iter().map(|part| part.to_text()), separator)
}
