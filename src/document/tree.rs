//! A TOML document as a tree that records the origin of every value, and applies `--set` overrides.
//!
//! `toml` parses the text and gives the spans. Its serde deserialiser, with `Spanned` and `serde_path_to_error`, was tried on
//! the tables of a suite and not taken:
//!
//! - It accepts what is wrong: a third number in `[input, output]`, an empty array, an empty text.
//! - It says less. Unknown keys and words have no "did you mean", and a missing key has no description. A table for
//!   `[[key]]` is "invalid type: map, expected a sequence". The list of known keys exists only within the message.
//! - A value of `--set` has no place in the file, so its message cannot name the flag, and a path may not be UTF-8.
//!
//! A type of our own for nearly every key would restore the first two. Checks across keys, such as `correct <= items`,
//! and this tree, which holds the overrides, would remain.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::DocumentError;

/// Maximum number of dot-separated names in a `--set` key. No suite key is nearly as deep.
const MAX_SET_DEPTH: usize = 16;
/// Maximum number of characters of a `--set` that a message shows.
const TYPED_SHOWN: usize = 120;

/// Where a value was written.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    /// In the file, at this byte offset.
    File { source: Arc<Source>, at: usize },
    /// On the command line: the flag and `key=value`.
    Typed(Arc<str>),
}

/// A file's text, shared by all its values. Lines are counted only for a value that is wrong.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    text: String,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { source, at } => {
                let before = source.text.get(..*at).unwrap_or(&source.text);
                let line_start = before.rfind('\n').map_or(0, |i| i + 1);
                let line = before.matches('\n').count() + 1;
                let column = before[line_start..].chars().count() + 1;
                write!(f, "{}:{line}:{column}", source.path.display())
            }
            Self::Typed(text) => match text.char_indices().nth(TYPED_SHOWN) {
                Some((cut, _)) => write!(f, "{}…", &text[..cut]),
                None => write!(f, "{text}"),
            },
        }
    }
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub origin: Origin,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    String(String),
    /// A command-line text that is not UTF-8. Paths need not be.
    Path(PathBuf),
    /// An integer. TOML integers are signed with 64 bits.
    Integer(i64),
    /// A number with a decimal point. Whole numbers are [`Value::Integer`].
    Float(f64),
    Boolean(bool),
    Table(BTreeMap<String, Entry>),
    Array(Vec<Node>),
    /// Any other kind of value, such as a date. No suite key accepts it. Holds the name of the kind.
    Other(&'static str),
}

/// A key's value and the origin of the key itself.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key_origin: Origin,
    pub node: Node,
}

impl Value {
    /// Returns the kind as named in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Path(_) => "a text that is not UTF-8",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "true or false",
            Self::Table(_) => "a table",
            Self::Array(_) => "an array",
            Self::Other(kind) => kind,
        }
    }
}

/// Parses the text of the file `path`.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Node, DocumentError> {
    let source = Arc::new(Source { path: path.to_path_buf(), text: text.to_owned() });
    let origin = |span: &Range<usize>| Origin::File { source: Arc::clone(&source), at: span.start };
    match DeTable::parse(text) {
        Ok(table) => {
            Ok(Node { origin: origin(&table.span()), value: convert_table(table.get_ref(), &origin)? })
        }
        Err(error) => {
            let place = origin(&error.span().unwrap_or(0..0));
            Err(DocumentError::at(&place, error.message().to_owned()))
        }
    }
}

/// Parses the value in the `key=value` of a flag: as TOML if it is valid TOML, otherwise as a plain string.
pub(crate) fn parse_override(flag: &str, key: &str, text: &OsStr) -> Result<Node, DocumentError> {
    let origin = Origin::Typed(format!("{flag} {key}={}", text.to_string_lossy()).into());
    let Some(text) = text.to_str() else { return Ok(Node { origin, value: Value::Path(text.into()) }) };
    let place = |_: &Range<usize>| origin.clone();
    match DeValue::parse(text.trim()) {
        // A value such as 2024-01-01 or inf is kept as text, since no suite key accepts it as TOML.
        Ok(value) if !matches!(value.get_ref(), DeValue::Datetime(_)) => match convert(&value, &place)? {
            Node { value: Value::Other(_), origin } => {
                Ok(Node { origin, value: Value::String(text.to_owned()) })
            }
            node => Ok(node),
        },
        _ => Ok(Node { origin, value: Value::String(text.to_owned()) }),
    }
}

type OriginOf<'a> = dyn Fn(&Range<usize>) -> Origin + 'a;

fn convert(value: &Spanned<DeValue<'_>>, origin: &OriginOf<'_>) -> Result<Node, DocumentError> {
    let converted = match value.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(digits) => {
            // The parser has already removed prefix and underscores.
            Value::Integer(i64::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| {
                let message = format!("found the number {digits}; expected one that fits 64 bits");
                DocumentError::at(&origin(&value.span()), message)
            })?)
        }
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| convert(item, origin)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => convert_table(table, origin)?,
        DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Float(number),
            _ => Value::Other("a number that is not finite"),
        },
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Ok(Node { origin: origin(&value.span()), value: converted })
}

fn convert_table(table: &DeTable<'_>, origin: &OriginOf<'_>) -> Result<Value, DocumentError> {
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let key_origin = origin(&key.span());
        let text: &std::borrow::Cow<'_, str> = key.get_ref();
        Ok((text.to_string(), Entry { key_origin, node: convert(value, origin)? }))
    };
    table.iter().map(entry).collect::<Result<_, _>>().map(Value::Table)
}

/// Overrides the value at the dotted key (`accuracy.0.limit`). Creates missing tables on the way; array entries must
/// exist.
pub(crate) fn set(root: &mut Node, key: &str, value: Node) -> Result<(), DocumentError> {
    let origin = value.origin.clone();
    let fail = |message: String| Err(DocumentError::at(&origin, message));
    let depth = key.split('.').count();
    if depth > MAX_SET_DEPTH {
        return fail(format!("found a key of {depth} names; expected {MAX_SET_DEPTH} at most"));
    }
    let mut place = root;
    for part in key.split('.') {
        if part.is_empty() {
            return fail(format!(
                "found the key {key:?}; expected names separated by dots, such as accuracy.0.limit"
            ));
        }
        let kind = place.value.kind();
        place = match &mut place.value {
            Value::Table(table) => {
                let fresh = || Node { origin: origin.clone(), value: Value::Table(BTreeMap::new()) };
                let entry = table
                    .entry(part.to_owned())
                    .or_insert_with(|| Entry { key_origin: origin.clone(), node: fresh() });
                &mut entry.node
            }
            Value::Array(items) => {
                let count = items.len();
                match part.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
                    Some(item) => item,
                    None => return fail(format!("found the index `{part}`; expected one below {count}")),
                }
            }
            _ => {
                return fail(format!("found the key `{part}` below {kind}; expected a table above it"));
            }
        };
    }
    *place = value;
    Ok(())
}
