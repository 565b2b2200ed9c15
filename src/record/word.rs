//! Words of records in texts.

use crate::language::{Text, ToText};

pub use glmbench_device::Word;

impl<T> ToText for Word<T> {
    fn to_text(&self) -> Text {
        Text::data(self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_device::{DeviceKind, DeviceName, Precision};

    #[test]
    fn a_word_is_kept_as_it_was_written_and_known_if_it_is_one_of_ours() {
        let read = |json: &str| serde_json::from_str::<Word<DeviceName>>(json).unwrap();
        let card = read(r#""300i-duo (emulated)""#);
        assert_eq!(card.known(), Some(DeviceName { kind: DeviceKind::Duo300i, emulated: true }));
        let foreign = read(r#""endpoint (openai)""#);
        assert_eq!(foreign.known(), None);
        for word in [card, foreign] {
            assert_eq!(serde_json::to_string(&word).unwrap(), format!("\"{word}\""));
        }
        let types = Word::<Precision>::of(Precision::W8A8_DYNAMIC);
        assert_eq!((&*types, types.known()), ("w8a8-dynamic", Some(Precision::W8A8_DYNAMIC)));
    }
}
