//! Item places of a shard among all items of their task.

use serde::{Deserialize, Serialize};

/// Places in a list in rising order, as text: each number is the distance from the place before, the first from the
/// list's begin. `3 1 5` are the places 3, 4 and 9.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Places(String);

impl Places {
    /// Encodes places in rising order.
    pub fn of(places: impl IntoIterator<Item = usize>) -> Self {
        let (mut text, mut before) = (String::new(), 0);
        for place in places {
            if !text.is_empty() {
                text.push(' ');
            }
            text += &(place - before).to_string();
            before = place;
        }
        Self(text)
    }

    /// Returns the places, or what is wrong with the text.
    ///
    /// # Errors
    /// The text has no numbers, places that do not rise, or one of `total` or more.
    pub fn read(&self, total: u64) -> Result<Vec<usize>, String> {
        let (mut places, mut at) = (Vec::new(), 0_u64);
        for word in self.0.split_ascii_whitespace() {
            let step: u64 =
                word.parse().map_err(|_| format!("found the place `{word}`; expected a number"))?;
            at = at.saturating_add(step);
            if at >= total || (step == 0 && !places.is_empty()) {
                return Err(format!(
                    "found the place {at} out of order; expected rising places below {total}"
                ));
            }
            places.push(at as usize);
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back_and_bad_ones_are_refused() {
        for places in [vec![], vec![0], vec![7], vec![0, 1, 2], vec![3, 4, 9, 1000]] {
            assert_eq!(Places::of(places.iter().copied()).read(1001), Ok(places));
        }
        assert_eq!(Places::of([3, 4, 9]), Places("3 1 5".into()));
        for bad in ["3 0", "x", "-1", "9", "3 6", "18446744073709551615 2"] {
            assert!(Places(bad.into()).read(9).is_err(), "{bad}");
        }
    }
}
