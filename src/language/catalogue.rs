//! Catalogues: templates and what they say in another language.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;

/// The Chinese catalogue.
pub(super) const CHINESE: &str = include_str!("zh.toml");

/// A catalogue file: groups of entries. The groups serve the reader alone.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Groups(pub(super) std::collections::BTreeMap<String, HashMap<String, String>>);

/// Returns the Chinese entries.
pub(super) fn chinese() -> &'static HashMap<String, String> {
    static ENTRIES: LazyLock<HashMap<String, String>> = LazyLock::new(|| {
        let Groups(groups) =
            toml::from_str(CHINESE).expect("invariant: the catalogue in this program is TOML");
        groups.into_values().flatten().collect()
    });
    &ENTRIES
}

/// Whether a character occurs in what a catalogue says. The charts' font has those that are not Latin.
pub(crate) fn is_in_catalogue(c: char) -> bool {
    static KNOWN: LazyLock<HashSet<char>> =
        LazyLock::new(|| chinese().values().flat_map(|text| text.chars()).collect());
    KNOWN.contains(&c)
}

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Letters.
    Letters(&'a str),
    /// `{name}`: the argument of that name.
    Hole(&'a str),
    /// `{name:s}`: an `s`, unless the argument is 1. For English plurals.
    Plural(&'a str),
}

/// Cuts a template into its parts.
pub(super) fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let hole = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let (piece, after) = if let Some((hole, after)) = hole {
            (hole.strip_suffix(":s").map_or(Piece::Hole(hole), Piece::Plural), after)
        } else {
            let end = rest.find('{').filter(|at| *at > 0).unwrap_or(rest.len());
            (Piece::Letters(&rest[..end]), &rest[end..])
        };
        rest = after;
        Some(piece)
    })
}
