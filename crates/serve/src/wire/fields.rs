//! Types of fields that come in several shapes.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most elements of a list of texts, far more than any limit of the server.
const MAX_TEXTS: usize = 1 << 16;

/// `prompt` of the completion route: a text, texts, token ids, or lists of them.
#[derive(Debug, PartialEq)]
pub(crate) struct Prompts(pub(crate) Vec<Prompt>);

/// One prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Prompt {
    /// A text, still to be encoded.
    Text(String),
    /// Token ids, used as they are.
    Ids(Vec<u32>),
}

/// An element of a list of prompts.
enum Element {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a token id or a list of token ids")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Text(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Element, E> {
                u32::try_from(id).map(Element::Id).map_err(|_| E::custom(format!("{id} is no token id")))
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<Element, E> {
                Err(E::custom(format!("{id} is no token id")))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = seq.next_element()? {
                    ids.push(id);
                }
                Ok(Element::Ids(ids))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, a list of texts, a list of token ids, or a list of such lists")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts(vec![Prompt::Text(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompts, A::Error> {
                let (mut prompts, mut ids) = (Vec::new(), Vec::new());
                while let Some(element) = seq.next_element()? {
                    match element {
                        Element::Text(text) => prompts.push(Prompt::Text(text)),
                        Element::Ids(list) => prompts.push(Prompt::Ids(list)),
                        Element::Id(id) => ids.push(id),
                    }
                    if prompts.len() > MAX_TEXTS {
                        return Err(A::Error::custom(format!("there are more than {MAX_TEXTS} prompts")));
                    }
                    if !ids.is_empty() && !prompts.is_empty() {
                        return Err(A::Error::custom("token ids stand beside prompts in one list"));
                    }
                }
                if prompts.is_empty() {
                    prompts.push(Prompt::Ids(ids));
                }
                Ok(Prompts(prompts))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// One text or a list of texts.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Texts(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = seq.next_element::<String>()? {
                    if texts.len() == MAX_TEXTS {
                        return Err(A::Error::custom(format!("there are more than {MAX_TEXTS} texts")));
                    }
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// `content` of a message: a text, or parts that are all texts.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Content(pub(crate) String);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::wire!(
            /// A part of a message.
            Part {
                r#type: String,
                text: String,
            }
        );
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of text parts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
                let mut content = String::new();
                while let Some(part) = seq.next_element::<Part>()? {
                    let kind = part.r#type.as_deref().unwrap_or("text");
                    if kind != "text" {
                        return Err(A::Error::custom(format!(
                            "a part is of type \"{kind}\", expected \"text\""
                        )));
                    }
                    content += &part.text.unwrap_or_default();
                }
                Ok(Content(content))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// A seed: any whole number of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seed(pub(crate) u64);

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl Visitor<'_> for Shape {
            type Value = Seed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number of 64 bits")
            }

            fn visit_u64<E: Error>(self, seed: u64) -> Result<Seed, E> {
                Ok(Seed(seed))
            }

            fn visit_i64<E: Error>(self, seed: i64) -> Result<Seed, E> {
                Ok(Seed(seed as u64))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// A count that may be −1 for "no limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountOrAll(pub(crate) Option<usize>);

impl<'de> Deserialize<'de> for CountOrAll {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            -1 | 0 => Ok(Self(None)),
            count => match usize::try_from(count) {
                Ok(count) => Ok(Self(Some(count))),
                Err(_) => Err(D::Error::custom(format!("found {count}, expected a count, or -1 for all"))),
            },
        }
    }
}

/// `logprobs`: a count on the completion route, true or false on the chat route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logprobs {
    Count(usize),
    Wanted(bool),
}

impl<'de> Deserialize<'de> for Logprobs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl Visitor<'_> for Shape {
            type Value = Logprobs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a count, true or false")
            }

            fn visit_u64<E: Error>(self, count: u64) -> Result<Logprobs, E> {
                Ok(Logprobs::Count(usize::try_from(count).unwrap_or(usize::MAX)))
            }

            fn visit_bool<E: Error>(self, wanted: bool) -> Result<Logprobs, E> {
                Ok(Logprobs::Wanted(wanted))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// The value of a field that is known but not supported: only whether it asks for anything.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plain {
    Bool(bool),
    Number(f64),
    /// A list or an object; whether it is empty.
    Whole {
        empty: bool,
    },
    /// A text.
    Word(String),
    /// An object whose `type` is this text.
    Typed(String),
}

impl Plain {
    /// Whether the value asks for nothing: false, 0, or an empty text, list or object.
    pub(crate) fn is_nothing(&self) -> bool {
        match self {
            Self::Bool(value) => !value,
            Self::Number(value) => *value == 0.0,
            Self::Whole { empty } => *empty,
            Self::Word(word) => word.is_empty() || word == "none",
            Self::Typed(_) => false,
        }
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Plain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Plain, E> {
                Ok(Plain::Bool(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Plain, E> {
                Ok(Plain::Number(value as f64))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Plain, E> {
                Ok(Plain::Number(value as f64))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Plain, E> {
                Ok(Plain::Number(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Plain, E> {
                Ok(Plain::Word(text.chars().take(32).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Plain, A::Error> {
                let mut empty = true;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    empty = false;
                }
                Ok(Plain::Whole { empty })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Plain, A::Error> {
                let (mut empty, mut kind) = (true, None);
                while let Some(key) = map.next_key::<String>()? {
                    empty = false;
                    if key == "type" {
                        if let Some(Plain::Word(word)) = map.next_value()? {
                            kind = Some(word);
                        }
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(kind.map_or(Plain::Whole { empty }, Plain::Typed))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}
