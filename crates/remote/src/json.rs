//! JSON as servers really write it: with repeated keys, with Python's `NaN` and `-Infinity`.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value. Objects keep repeated keys: two tokens with one text share a key in `top_logprobs`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

static NULL: Json = Json::Null;

impl Json {
    /// Parses one value. `NaN` becomes null, `Infinity` and `-Infinity` the infinities.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        match serde_json::from_slice(bytes) {
            Ok(json) => Ok(json),
            Err(error) => match without_python_numbers(bytes) {
                Some(bytes) => serde_json::from_slice(&bytes),
                None => Err(error),
            },
        }
    }

    /// Returns the first member of that name, or null.
    pub(crate) fn get(&self, name: &str) -> &Json {
        self.members().iter().find(|(key, _)| key == name).map_or(&NULL, |(_, value)| value)
    }

    /// Returns an entry of a list, or null.
    pub(crate) fn at(&self, index: usize) -> &Json {
        self.list().get(index).unwrap_or(&NULL)
    }

    pub(crate) fn list(&self) -> &[Json] {
        if let Self::List(list) = self { list } else { &[] }
    }

    pub(crate) fn members(&self) -> &[(String, Json)] {
        if let Self::Object(members) = self { members } else { &[] }
    }

    pub(crate) fn is_null(&self) -> bool {
        *self == Self::Null
    }

    pub(crate) fn is_true(&self) -> bool {
        *self == Self::Bool(true)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn number(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    /// Returns a number that is a count.
    pub(crate) fn count(&self) -> Option<u32> {
        let number = self.number()?;
        (number >= 0.0 && number <= f64::from(u32::MAX) && number.fract() == 0.0).then_some(number as u32)
    }

    /// Returns a list of ids, or one id. Empty if the value is anything else.
    pub(crate) fn ids(&self) -> Vec<u32> {
        match self {
            Self::List(list) => list.iter().map_while(Json::count).collect(),
            other => other.count().into_iter().collect(),
        }
    }

    /// Changes every text, names of members among them.
    pub(crate) fn change_texts(&mut self, change: &dyn Fn(String) -> String) {
        match self {
            Self::Text(text) => *text = change(std::mem::take(text)),
            Self::List(list) => list.iter_mut().for_each(|value| value.change_texts(change)),
            Self::Object(members) => {
                for (name, value) in members {
                    *name = change(std::mem::take(name));
                    value.change_texts(change);
                }
            }
            Self::Null | Self::Bool(_) | Self::Number(_) => {}
        }
    }

    /// Returns the message of an error object, in any of the shapes that servers use.
    pub(crate) fn error_text(&self) -> Option<String> {
        let error = self.get("error");
        if let Some(text) = error.text() {
            return Some(match self.get("error_type").text() {
                Some(kind) => format!("{text} ({kind})"),
                None => text.to_owned(),
            });
        }
        if !error.is_null() {
            let message = error.get("message").text().or_else(|| error.get("error").text());
            return Some(message.map_or_else(|| error.to_string(), str::to_owned));
        }
        let flat = self.get("object").text() == Some("error") || self.get("detail").text().is_some();
        let bare = self.members().len() == 1 && self.get("message").text().is_some();
        (flat || bare)
            .then(|| self.get("message").text().or_else(|| self.get("detail").text()))
            .flatten()
            .map(str::to_owned)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(list) => {
                f.write_str("[")?;
                for (i, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Self::Object(members) => {
                f.write_str("{")?;
                for (i, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}{name:?}: {value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Replaces Python's numbers outside of strings. `None` if there is none.
fn without_python_numbers(bytes: &[u8]) -> Option<Vec<u8>> {
    // Numbers too large for a double are errors to the parser. The largest double stands for infinity until it is read.
    const WORDS: [(&[u8], &[u8]); 3] = [
        (b"-Infinity", b"-1.7976931348623157e308"),
        (b"Infinity", b"1.7976931348623157e308"),
        (b"NaN", b"null"),
    ];
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut in_string, mut changed) = (0, false, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        if !in_string && let Some((word, instead)) = WORDS.iter().find(|(word, _)| rest.starts_with(word)) {
            out.extend_from_slice(instead);
            at += word.len();
            changed = true;
            continue;
        }
        if in_string && rest[0] == b'\\' && rest.len() > 1 {
            out.extend_from_slice(&rest[..2]);
            at += 2;
            continue;
        }
        in_string ^= rest[0] == b'"';
        out.push(rest[0]);
        at += 1;
    }
    changed.then_some(out)
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(match value {
            f64::MAX => f64::INFINITY,
            f64::MIN => f64::NEG_INFINITY,
            other => other,
        }))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn python_numbers_are_read_and_texts_left_alone() {
        let json =
            Json::parse(br#"{"a": NaN, "b": [-Infinity, Infinity, 1], "c": "NaN \" Infinity"}"#).unwrap();
        assert!(json.get("a").is_null());
        assert_eq!(json.get("b").at(0).number(), Some(f64::NEG_INFINITY));
        assert_eq!(json.get("b").at(1).number(), Some(f64::INFINITY));
        assert_eq!(json.get("c").text(), Some("NaN \" Infinity"));
        assert!(Json::parse(b"{NaN").is_err());
    }

    #[test]
    fn repeated_keys_are_kept() {
        let json = Json::parse(br#"{"A": -1, "A": -2}"#).unwrap();
        assert_eq!(json.members().len(), 2);
    }

    #[test]
    fn errors_are_read_in_every_shape() {
        let text = |s: &str| Json::parse(s.as_bytes()).unwrap().error_text();
        assert_eq!(text(r#"{"error":"a","error_type":"b"}"#).unwrap(), "a (b)");
        assert_eq!(text(r#"{"error":{"message":"a","code":1}}"#).unwrap(), "a");
        assert_eq!(text(r#"{"object":"error","message":"a"}"#).unwrap(), "a");
        assert_eq!(text(r#"{"message":"Request body too large"}"#).unwrap(), "Request body too large");
        assert_eq!(text(r#"{"detail":"Not Found"}"#).unwrap(), "Not Found");
        assert_eq!(text(r#"{"error":{"a":[1,null]}}"#).unwrap(), r#"{"a": [1, null]}"#);
        assert_eq!(text(r#"{"error":null,"choices":[]}"#), None);
    }
}
