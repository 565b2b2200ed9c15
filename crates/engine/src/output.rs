//! The text of a growing output: decoded token by token, and ended by stop texts.

use super::tokenizer::{DecoderState, Tokenizer};

/// Decodes the ids of one output and watches for texts that end it.
///
/// Text that a later id could still turn into a stop text is held back. The pieces of all calls, joined, are therefore
/// the same however the text is cut into tokens.
#[derive(Debug, Clone, Default)]
pub struct TextOutput {
    decoder: DecoderState,
    stops: Vec<String>,
    /// Whether a stop text is part of the output.
    keep: bool,
    /// Text that may be the beginning of a stop text.
    held: String,
    text: String,
    stopped: Option<usize>,
}

impl TextOutput {
    /// Creates an output that `stops` end. With `keep`, the stop text itself is its last part.
    pub fn new(stops: Vec<String>, keep: bool) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, keep, ..Self::default() }
    }

    /// Takes the next id and returns the text that is now final, often empty. Without `may_stop`, stop texts in the new
    /// text are ordinary text.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32, may_stop: bool) -> String {
        let mut decoder = tokenizer.resume(std::mem::take(&mut self.decoder));
        let new = decoder.push(id);
        self.decoder = decoder.suspend();
        self.take(&new, may_stop)
    }

    /// Ends the output and returns the text that was held back. Bytes of an incomplete character become U+FFFD.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        let rest = tokenizer.resume(std::mem::take(&mut self.decoder)).finish();
        let mut last = self.take(&rest, true);
        if self.stopped.is_none() {
            let held = std::mem::take(&mut self.held);
            self.text += &held;
            last += &held;
        }
        last
    }

    /// Returns the index of the stop text that ended the output, if one did.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// Returns the text so far, without what is held back.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the text so far and forgets it.
    pub fn into_text(self) -> String {
        self.text
    }

    fn take(&mut self, new: &str, may_stop: bool) -> String {
        if self.stopped.is_some() {
            return String::new();
        }
        let mut open = std::mem::take(&mut self.held);
        open += new;
        if may_stop && !self.stops.is_empty() {
            if let Some((end, start, index)) = self.first_stop(&open) {
                self.stopped = Some(index);
                open.truncate(if self.keep { end } else { start });
            } else {
                self.held = open.split_off(open.len() - self.beginning_at_the_end(&open));
            }
        }
        self.text += &open;
        open
    }

    /// Returns end, start and index of the stop text that is complete first; of several, the longest.
    fn first_stop(&self, text: &str) -> Option<(usize, usize, usize)> {
        let found = |(index, stop): (usize, &String)| {
            text.find(stop.as_str()).map(|start| (start + stop.len(), start, index))
        };
        self.stops.iter().enumerate().filter_map(found).min()
    }

    /// Returns the length in bytes of the longest end of `text` that begins a stop text.
    fn beginning_at_the_end(&self, text: &str) -> usize {
        let of_stop = |stop: &String| {
            let begins = |length: &usize| stop.is_char_boundary(*length) && text.ends_with(&stop[..*length]);
            (1..stop.len()).rev().find(begins).unwrap_or(0)
        };
        self.stops.iter().map(of_stop).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds pieces of text, as a tokenizer would decode them.
    fn fed(stops: &[&str], keep: bool, pieces: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut output = TextOutput::new(stops.iter().map(ToString::to_string).collect(), keep);
        let mut out: Vec<String> = pieces.iter().map(|piece| output.take(piece, true)).collect();
        if output.stopped.is_none() {
            out.push(output.held.clone());
        }
        (out, output.stopped)
    }

    #[test]
    fn the_beginning_of_a_stop_text_is_held_back() {
        assert_eq!(
            fed(&["\n\n"], false, &["a\n", "b\n", "\nc"]),
            (vec!["a".into(), "\nb".into(), String::new()], Some(0))
        );
        assert_eq!(fed(&["END"], true, &["x E", "N", "D y"]).0.concat(), "x END");
        assert_eq!(
            fed(&["END"], false, &["x E", "N", "o"]),
            (vec!["x ".into(), String::new(), "ENo".into(), String::new()], None)
        );
    }

    #[test]
    fn the_stop_text_that_is_complete_first_counts() {
        assert_eq!(fed(&["bcd", "c"], false, &["abcd"]), (vec!["ab".into()], Some(1)));
        assert_eq!(fed(&["c", "bc"], false, &["abcd"]), (vec!["a".into()], Some(1)));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(text in "[ab中]{0,24}", cuts in prop::collection::vec(0usize..4, 0..24), keep: bool) {
            let stops = ["ab", "b中b", "aa中"];
            let chars: Vec<char> = text.chars().collect();
            let mut pieces = Vec::new();
            let mut rest = &chars[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (piece, left) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece.iter().collect::<String>());
                rest = left;
            }
            let single: Vec<String> = chars.iter().map(char::to_string).collect();
            let refs = |v: &[String]| fed(&stops, keep, &v.iter().map(String::as_str).collect::<Vec<_>>());
            let ((a, a_stop), (b, b_stop)) = (refs(&pieces), refs(&single));
            prop_assert_eq!(a.concat(), b.concat());
            prop_assert_eq!(a_stop, b_stop);
        }
    }
}
