//! Cuts a text into windows that a model scores.

use super::stage::{Likelihood, Scored};

/// The windows of a text.
pub(super) enum Windows<'a> {
    Rolling(Rolling<'a>),
    Halves(Halves<'a>),
}

impl<'a> Windows<'a> {
    /// Cuts `whole`, whose first `prefix` ids are the model's prefix ids.
    ///
    /// # Errors
    /// The text is too short, or the window is.
    pub(super) fn new(whole: &'a [u32], prefix: usize, of: &Likelihood) -> Result<Self, String> {
        match of.scored {
            Scored::All => Rolling::new(whole, prefix, of.window).map(Self::Rolling),
            Scored::SecondHalf => Halves::new(whole, prefix, of.window).map(Self::Halves),
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::Rolling(windows) => windows.count(),
            Self::Halves(windows) => windows.count(),
        }
    }

    /// Returns the ids of window `index` and the number of those that are scored, from the last backwards.
    pub(super) fn at(&self, index: usize) -> (Vec<u32>, usize) {
        match self {
            Self::Rolling(windows) => windows.at(index),
            Self::Halves(windows) => windows.at(index),
        }
    }
}

/// The windows of lm-evaluation-harness (`get_rolling_token_windows` with one token of context). The first stands behind the
/// model's prefix ids, the others behind the token before them; the last is filled up with tokens scored before.
pub(super) struct Rolling<'a> {
    whole: &'a [u32],
    /// Number of ids at the beginning that are not scored.
    first: usize,
    /// End of the first window.
    end: usize,
    window: usize,
}

impl<'a> Rolling<'a> {
    fn new(whole: &'a [u32], prefix: usize, window: usize) -> Result<Self, String> {
        // Without prefix ids, the first token has nothing before it.
        let first = prefix.max(1);
        let end = whole.len().min(prefix + window);
        if end <= first {
            return Err(format!(
                "the text has {} tokens; expected at least one with a token before it",
                whole.len()
            ));
        }
        Ok(Self { whole, first, end, window })
    }

    fn count(&self) -> usize {
        1 + (self.whole.len() - self.end).div_ceil(self.window)
    }

    fn at(&self, index: usize) -> (Vec<u32>, usize) {
        if index == 0 {
            return (self.whole[..self.end].to_vec(), self.end - self.first);
        }
        let done = self.end + (index - 1) * self.window;
        let end = self.whole.len().min(done + self.window);
        (self.whole[end - self.window - 1..end].to_vec(), end - done)
    }
}

/// The windows of llama.cpp's `llama-perplexity`: consecutive, from the text's first token. The tokens after index `window / 2` are
/// scored. The prefix ids replace the first ids of every window. For one prefix id or none, the windows are llama.cpp's.
pub(super) struct Halves<'a> {
    whole: &'a [u32],
    prefix: usize,
    window: usize,
}

impl<'a> Halves<'a> {
    fn new(whole: &'a [u32], prefix: usize, window: usize) -> Result<Self, String> {
        if whole.len() < window {
            return Err(format!(
                "the text has {} tokens; expected at least {window}, the length of a window",
                whole.len()
            ));
        }
        // The prefix ids are no context of the text.
        if prefix > window / 2 {
            return Err(format!(
                "a window has {window} tokens, and the model {prefix} prefix ids; expected a `window` of at least twice as many"
            ));
        }
        Ok(Self { whole, prefix, window })
    }

    fn count(&self) -> usize {
        self.whole.len() / self.window
    }

    fn at(&self, index: usize) -> (Vec<u32>, usize) {
        let mut ids = self.whole[index * self.window..][..self.window].to_vec();
        ids[..self.prefix].copy_from_slice(&self.whole[..self.prefix]);
        (ids, self.window - self.window / 2 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(whole: &[u32], prefix: usize, window: usize, scored: Scored) -> Vec<(Vec<u32>, usize)> {
        let cut = Windows::new(whole, prefix, &Likelihood { window, scored }).unwrap();
        (0..cut.count()).map(|index| cut.at(index)).collect()
    }

    #[test]
    fn every_token_behind_the_first_is_scored_once() {
        for (length, prefix, window) in [(2, 0, 2), (9, 0, 4), (9, 2, 4), (13, 2, 5), (12, 1, 512)] {
            let whole: Vec<u32> = (0..length).collect();
            let scored: Vec<u32> = windows(&whole, prefix, window, Scored::All)
                .into_iter()
                .flat_map(|(ids, scored)| ids[ids.len() - scored..].to_vec())
                .collect();
            assert_eq!(scored, whole[prefix.max(1)..]);
        }
    }

    #[test]
    fn halves_are_those_of_llama_perplexity() {
        // `--ctx-size 8`: the logits behind tokens 4 to 6 score tokens 5 to 7. A tail that fills no window is left out.
        let whole: Vec<u32> = (0..23).collect();
        let second: Vec<u32> = (8..16).collect();
        assert_eq!(
            windows(&whole, 0, 8, Scored::SecondHalf),
            [(whole[..8].to_vec(), 3), (second.clone(), 3)]
        );
        let odd = windows(&whole[..14], 0, 7, Scored::SecondHalf);
        assert_eq!(odd, [(whole[..7].to_vec(), 3), (whole[7..14].to_vec(), 3)]);
        // The prefix ids stand for the first ids of every window, as the beginning-of-text token there.
        let behind_prefix = [[0, 1].as_slice(), &second[2..]].concat();
        assert_eq!(windows(&whole, 2, 8, Scored::SecondHalf)[1], (behind_prefix, 3));
    }

    #[test]
    fn what_fills_no_window_is_named() {
        let error = |whole: &[u32], prefix, window, scored| {
            Windows::new(whole, prefix, &Likelihood { window, scored }).err().unwrap()
        };
        assert_eq!(
            error(&[1], 0, 8, Scored::All),
            "the text has 1 tokens; expected at least one with a token before it"
        );
        assert_eq!(
            error(&[1; 7], 0, 8, Scored::SecondHalf),
            "the text has 7 tokens; expected at least 8, the length of a window"
        );
        assert_eq!(
            error(&[1; 9], 3, 4, Scored::SecondHalf),
            "a window has 4 tokens, and the model 3 prefix ids; expected a `window` of at least twice as many"
        );
    }
}
