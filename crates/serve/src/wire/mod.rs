//! The JSON that clients send and get, apart from what the program thinks in.
//!
//! Requests are read field by field. Every field may be null. A field of the wrong type is an error that names it.
//! Unknown fields are ignored but remembered.

pub(crate) mod fields;
pub(crate) mod openai;
pub(crate) mod replies;
pub(crate) mod tgi;
pub(crate) mod tokens;

use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// Most unknown fields that are remembered.
const MAX_UNKNOWN: usize = 16;
/// Longest remembered name of an unknown field, in characters.
const MAX_NAME: usize = 64;
/// Longest message about a body, in characters. The parser's own messages repeat the text that they found.
const MAX_MESSAGE: usize = 400;
/// Sets the name of a field apart from the message about it.
const MARK: char = '\u{1}';

/// Reads a request's body.
///
/// # Errors
/// The body is not JSON, or a field has the wrong type; the error names the field.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let mut parts = text.splitn(3, MARK);
        let short = |text: &str| text.chars().take(MAX_MESSAGE).collect::<String>();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(""), Some(field), Some(message)) => {
                ApiError::invalid(field, format!("{field}: {}", short(message)))
            }
            _ => {
                ApiError::malformed(format!("the body is not a JSON object of this route: {}", short(&text)))
            }
        }
    })
}

/// Returns an error about one field, which [`read`] takes apart again.
pub(crate) fn about<E: serde::de::Error>(field: &str, message: impl std::fmt::Display) -> E {
    let text = message.to_string();
    // The innermost field is the one to name.
    if text.starts_with(MARK) {
        return E::custom(text);
    }
    E::custom(format!("{MARK}{field}{MARK}{text}"))
}

/// Remembers the name of an unknown field.
pub(crate) fn remember(unknown: &mut Vec<String>, name: &str) {
    if unknown.len() < MAX_UNKNOWN {
        let name = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        if !unknown.contains(&name) {
            unknown.push(name);
        }
    }
}

/// Defines a JSON object whose fields are all optional and may be null. `unknown` holds the names of other fields.
macro_rules! wire {
    ($(#[$about:meta])* $name:ident { $($field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            $(pub(crate) $field: Option<$kind>,)*
            pub(crate) unknown: Vec<String>,
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        let mut found = $name::default();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $(stringify!($field) => {
                                    found.$field = map
                                        .next_value()
                                        .map_err(|error| $crate::wire::about(stringify!($field), error))?;
                                })*
                                _ => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                    $crate::wire::remember(&mut found.unknown, &key);
                                }
                            }
                        }
                        Ok(found)
                    }
                }
                deserializer.deserialize_map(Fields)
            }
        }
    };
}
pub(crate) use wire;
