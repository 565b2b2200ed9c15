//! The words of pages, charts and terminal tables, in each language.
//!
//! A report is made of [`Text`]s: messages with named holes, and data such as names and numbers. The `text!` in the sources is
//! English, and the key of the catalogue that each further language has: `zh.toml`. English needs none, so there is no `en.toml`.
//! A text is put into a language where it is written: by a format of pages, by a chart, or by the terminal. CSV files, records,
//! JSON, messages and errors stay English, because they are formats or are searched for.
//!
//! The tests below collect every template of the sources. They demand an entry with the same holes for each, and a template for
//! each entry.

mod breaking;
mod catalogue;
#[cfg(test)]
pub(crate) mod english;
#[cfg(test)]
pub(crate) mod laws;
pub(crate) mod message;

pub(crate) use self::breaking::{columns, unbroken};
pub(crate) use self::catalogue::is_in_catalogue;
pub use self::message::Text;
pub(crate) use self::message::{ToText, cells, joined, text, texts};

/// A language of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Chinese, in simplified characters.
    Zh,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 2] = [Self::En, Self::Zh];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh",
        }
    }

    /// Returns the language of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name)
    }

    /// The tag in an HTML page.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Zh => "zh-CN",
        }
    }

    /// Returns what a template says in this language, with the same holes. `None` if the catalogue has no entry, and in English.
    pub(crate) fn entry(self, template: &str) -> Option<&'static str> {
        match self {
            Self::En => None,
            Self::Zh => catalogue::chinese().get(template).map(String::as_str),
        }
    }
}
