//! The filters of the page, in HTML and CSS alone: radio buttons, and rules that hide what has another value.

use crate::language::{Language, Text, text};

use super::picture::{FIXED, FRAME, Period, Span};
use minijinja::{Value, context};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Most values of a filter. Rarer ones are put together.
const MOST_CHOICES: usize = 24;

/// Letter of the filter of clocks.
pub(super) const CLOCK: char = 's';

/// A filter: its values, each with its number.
pub(super) struct Filter {
    /// The letter of its data attribute.
    letter: char,
    name: Text,
    values: Vec<Text>,
    places: HashMap<String, usize>,
}

impl Filter {
    /// Makes a filter of the values that occur, frequent ones first where there are too many.
    pub(super) fn of(letter: char, name: Text, found: impl Iterator<Item = String>) -> Self {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        found.for_each(|value| *counts.entry(value).or_default() += 1);
        let mut values: Vec<String> = counts.keys().cloned().collect();
        let mut places = HashMap::new();
        let mut others = None;
        if values.len() > MOST_CHOICES {
            values.sort_by_key(|value| std::cmp::Reverse(counts[value]));
            let rare = values.split_off(MOST_CHOICES - 1);
            values.sort();
            places.extend(rare.iter().map(|value| (value.clone(), values.len())));
            others = Some(text!("{rare} others", rare = rare.len()));
        }
        for (place, value) in values.iter().enumerate() {
            places.entry(value.clone()).or_insert(place);
        }
        // Clocks are words. Models, forms and devices are names.
        let said = |value| if letter == CLOCK { Text::term(value) } else { Text::data(value) };
        let values = values.into_iter().map(said).chain(others).collect();
        Self { letter, name, values, places }
    }

    pub(super) fn place(&self, value: &str) -> usize {
        self.places.get(value).copied().unwrap_or(0)
    }

    pub(super) fn value(&self, language: Language) -> Value {
        let values: Vec<String> = self.values.iter().map(|value| value.in_language(language)).collect();
        context! { letter => self.letter.to_string(), name => self.name.in_language(language), values }
    }

    /// The rules that hide what has another value.
    pub(super) fn style(&self) -> String {
        let rule = |place: usize| {
            let letter = self.letter;
            format!(
                "body:has(#{letter}{place}:checked) [data-{letter}]:not([data-{letter}~=\"{place}\"]){{display:none}}\n"
            )
        };
        (0..self.values.len()).map(rule).collect()
    }
}

/// Returns the labels of the axis of time for each period, as SVG.
pub(super) fn period_labels(span: Span) -> String {
    let of = |period: &Period| format!("<g id=\"x{}\">{}</g>", period.days, span.labels(*period));
    span.periods().iter().map(of).collect()
}

/// Returns the rules of the periods: they stretch the points, choose the labels, and hide what is older.
pub(super) fn period_style(span: Span) -> String {
    // The style of all pages makes every picture as wide as its place; the frame within one is not.
    let mut style = format!(".line svg svg{{display:inline;width:{}px;height:{}px}}\n", FRAME.0, FRAME.1);
    for (place, period) in span.periods().into_iter().enumerate().filter(|(_, of)| of.days > 0) {
        let (days, stretch) = (period.days, span.stretch(period));
        let checked = format!("body:has(#p{days}:checked)");
        let _ = writeln!(
            style,
            ".x{days}{{display:none}}\n{checked} .x{days}{{display:inline}}\n{checked} .x0{{display:none}}\n\
             {checked} .z{{transform:translateX({FIXED}px) scaleX({stretch:.5}) translateX(-{FIXED}px)}}"
        );
        // Periods are numbered from the shortest: what is older has a higher number.
        let _ = writeln!(style, "{checked} [data-p]:not({}){{display:none}}", within(place));
    }
    style
}

/// The selectors of the periods up to one.
fn within(place: usize) -> String {
    let each: Vec<String> = (0..=place).map(|place| format!("[data-p=\"{place}\"]")).collect();
    each.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_values_are_put_together() {
        let many =
            (0..100).flat_map(|model: usize| std::iter::repeat_n(format!("model-{model:02}"), 200 - model));
        let filter = Filter::of('m', text!("Model"), many);
        assert_eq!(filter.values.len(), MOST_CHOICES);
        assert_eq!(filter.values[0], "model-00");
        assert_eq!(filter.values[MOST_CHOICES - 1], "77 others");
        assert_eq!(
            (filter.place("model-22"), filter.place("model-23"), filter.place("model-99")),
            (22, 23, 23)
        );
        let few = Filter::of('m', text!("Model"), ["b", "a", "b"].map(str::to_owned).into_iter());
        assert_eq!(
            (few.values.as_slice(), few.place("b")),
            ([Text::data("a"), Text::data("b")].as_slice(), 1)
        );
    }
}
