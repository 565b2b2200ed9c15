//! Title and subtitle of a chart, broken into lines that fit its width.

use super::ink::{Anchor, Ink, Lettering, MUTED, TEXT};
use crate::language::{columns, unbroken};
use plotters::coord::Shift;
use plotters::prelude::*;

/// Space left and right of the lines.
const MARGIN: i32 = 12;
/// Distance of title lines, and of subtitle lines.
const TITLE: i32 = 18;
const SUBTITLE: i32 = 15;
/// Width of a letter in tenths of a unit: the widest mean of the fonts in which a chart is shown.
const TITLE_LETTER: i32 = 88;
const SUBTITLE_LETTER: i32 = 63;

/// The broken lines of a head.
pub(super) struct Head {
    title: Vec<String>,
    subtitle: Vec<String>,
}

impl Head {
    /// Breaks both texts to the width of a picture.
    pub(super) fn of(title: &str, subtitle: &str, width: i32) -> Self {
        let letters = |tenths: i32| ((width - 2 * MARGIN) * 10 / tenths).max(8) as usize;
        Self {
            title: broken(title, letters(TITLE_LETTER)),
            subtitle: broken(subtitle, letters(SUBTITLE_LETTER)),
        }
    }

    /// Height of the lines beyond one title and one subtitle. A chart moves down by it.
    pub(super) fn more(&self) -> i32 {
        let beyond = |lines: &Vec<String>| (lines.len() as i32 - 1).max(0);
        TITLE * beyond(&self.title) + SUBTITLE * beyond(&self.subtitle)
    }

    /// Writes the lines from the top left corner.
    pub(super) fn write<DB: DrawingBackend>(
        &self,
        area: &DrawingArea<DB, Shift>,
        ink: &Ink,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        let mut y = 18;
        for line in &self.title {
            let at = (ink.dots(MARGIN), ink.dots(y));
            ink.write(area, line, at, Lettering::bold(14, TEXT), Anchor::Left)?;
            y += TITLE;
        }
        y += 2;
        for line in &self.subtitle {
            let at = (ink.dots(MARGIN), ink.dots(y));
            ink.write(area, line, at, Lettering::plain(11, MUTED), Anchor::Left)?;
            y += SUBTITLE;
        }
        Ok(())
    }
}

/// Breaks a text into lines of at most `most` columns, at spaces and between Chinese characters. Between those, no line
/// begins with a closing sign or ends with an opening one. A longer word has a line of its own.
fn broken(text: &str, most: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (word, spaced) in unbroken(text) {
        let line = lines.last_mut().expect("invariant: there is a line");
        let space = usize::from(spaced);
        if line.is_empty() {
            line.push_str(&word);
        } else if columns(line) + space + columns(&word) <= most {
            line.push_str(if spaced { " " } else { "" });
            line.push_str(&word);
        } else {
            lines.push(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_keep_every_word() {
        for (text, most) in [("", 5), ("one", 2), ("one two three four", 8), ("题目 题目 题目", 9)] {
            let lines = broken(text, most);
            assert_eq!(lines.join(" "), text);
            assert!(
                lines.iter().all(|line| line.chars().count() <= most || !line.contains(' ')),
                "{lines:?}"
            );
        }
        assert_eq!(broken("one two three four", 8), ["one two", "three", "four"]);
        assert_eq!(broken("题目 题目 题目", 9), ["题目 题目", "题目"]);
    }

    #[test]
    fn a_long_head_moves_its_chart_down() {
        assert_eq!(Head::of("short", "short", 560).more(), 0);
        assert!(Head::of("short", &"words of a long subtitle ".repeat(9), 560).more() >= 2 * SUBTITLE);
    }
}
