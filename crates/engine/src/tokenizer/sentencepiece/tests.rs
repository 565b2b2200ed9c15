use std::collections::HashSet;

use proptest::prelude::*;

use super::super::proto::write;
use super::super::testing::{model, tiny};
use super::*;

fn load(model: &ModelProto) -> Result<SentencePiece, String> {
    SentencePiece::from_bytes(&write(model))
}

/// SentencePiece's algorithm as in its paper: slow, on the whole text.
fn encode_slowly(model: &ModelProto, text: &str) -> Vec<u32> {
    let id_of = |text: &str| model.pieces.iter().position(|piece| piece.text == text);
    let normal = |text: &str| id_of(text).filter(|&id| model.pieces[id].kind == PieceKind::Normal);
    let dummy = if text.is_empty() || !model.normalizer.add_dummy_prefix { "" } else { " " };
    let text = format!("{dummy}{text}").replace(' ', "\u{2581}");
    let mut symbols: Vec<String> = text.chars().map(String::from).collect();
    loop {
        let mut best: Option<(usize, f32)> = None;
        for i in 1..symbols.len() {
            if let Some(id) = normal(&symbols[i - 1..=i].concat()) {
                let score = model.pieces[id].score;
                if best.is_none_or(|(_, highest)| score > highest) {
                    best = Some((i, score));
                }
            }
        }
        let Some((i, _)) = best else { break };
        let right = symbols.remove(i);
        symbols[i - 1] += &right;
    }
    let mut ids = Vec::new();
    for symbol in symbols {
        match normal(&symbol) {
            Some(id) => ids.push(id as u32),
            None if model.trainer.byte_fallback => {
                ids.extend(symbol.bytes().map(|byte| id_of(&format!("<0x{byte:02X}>")).unwrap() as u32));
            }
            None if ids.last() == Some(&0) => {}
            None => ids.push(0),
        }
    }
    ids
}

prop_compose! {
    /// Models with few letters, so that pieces overlap. Some of the letters are not pieces themselves.
    fn any_model()(
        letters in proptest::collection::vec("[ab\u{2581}你]", 0..4),
        words in proptest::collection::vec("[ab\u{2581}你é]{2,5}", 0..14),
        byte_fallback: bool,
        add_dummy_prefix: bool,
    ) -> ModelProto {
        let mut seen = HashSet::new();
        let texts: Vec<&str> = words.iter().chain(&letters).map(String::as_str).filter(|t| seen.insert(*t)).collect();
        let mut model = model(&texts, byte_fallback);
        model.normalizer.add_dummy_prefix = add_dummy_prefix;
        model
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_text_has_the_ids_that_sentencepiece_gives_it(
        model in any_model(),
        text in "[ab 你é😀\u{2581}]{0,40}",
    ) {
        let loaded = load(&model).unwrap();
        prop_assert_eq!(loaded.encode(&text), encode_slowly(&model, &text));
    }

    /// What a text begins with, and what was encoded before it, changes nothing.
    #[test]
    fn a_text_after_another_has_the_ids_that_it_has_alone(
        model in any_model(),
        beginning in "[ab 你é😀\u{2581}]{0,20}",
        ends in proptest::collection::vec("[ab 你é😀\u{2581}]{0,12}", 1..6),
    ) {
        let loaded = load(&model).unwrap();
        let mut memo = Memo::default();
        for end in ends {
            let text = beginning.clone() + &end;
            loaded.encode_from(&mut memo, &text);
            prop_assert_eq!(memo.ids(), loaded.encode(&text));
        }
    }
}

#[test]
fn a_piece_that_overlaps_itself_is_joined_from_the_left() {
    for words in
        [&["a", "b", "aa", "aaa"][..], &["a", "b", "ab", "ba", "aba"], &["ba", "ab", "aba", "a", "b"]]
    {
        let mut model = model(words, false);
        model.normalizer.add_dummy_prefix = false;
        let loaded = load(&model).unwrap();
        for text in ["aaaaaaa", "abababa", "babab", "aabaaba"] {
            assert_eq!(loaded.encode(text), encode_slowly(&model, text), "{words:?} {text}");
        }
    }
}

#[test]
fn what_cannot_be_done_exactly_is_refused_by_name() {
    let damaged = |damage: &dyn Fn(&mut ModelProto)| {
        let mut model = tiny();
        damage(&mut model);
        load(&model).unwrap_err()
    };
    let push =
        |text: &str, kind| damaged(&|m| m.pieces.push(Piece { text: text.into(), score: -1000.0, kind }));
    let cases = [
        (damaged(&|m| m.trainer.model_type = proto::UNIGRAM), "model_type is 1 (unigram), expected 2 (BPE)"),
        (damaged(&|m| m.trainer.model_type = 9), "model_type is 9"),
        (damaged(&|m| m.trainer.treat_whitespace_as_suffix = true), "treat_whitespace_as_suffix"),
        (damaged(&|m| m.normalizer.charsmap_bytes = 3), "precompiled_charsmap of 3 bytes"),
        (damaged(&|m| m.normalizer.remove_extra_whitespaces = true), "remove_extra_whitespaces"),
        (damaged(&|m| m.trainer.byte_fallback = false), "256 byte pieces, expected 0"),
        (damaged(&|m| m.pieces.truncate(100)), "97 byte pieces, expected 256"),
        (damaged(&|m| m.pieces[3].text = "<0x0>".into()), "none of <0x00> to <0xFF>"),
        (damaged(&|m| m.pieces[0].kind = PieceKind::Control), "no piece is the unknown piece"),
        (damaged(&|m| m.pieces[2].kind = PieceKind::Unknown), "pieces 0 and 2 are both the unknown piece"),
        (damaged(&|m| m.pieces[261].score = f32::NAN), "score NaN"),
        (damaged(&|m| m.pieces[261].score = m.pieces[262].score), "share the score"),
        (damaged(&|m| m.pieces[261].text = String::new()), "piece 261 has 0 bytes"),
        (damaged(&|m| m.pieces[261].text = "a".repeat(513)), "piece 261 has 513 bytes"),
        (push("b", PieceKind::Normal), "already piece 260"),
        (push("[tool]", PieceKind::UserDefined), "user-defined"),
        (push("c", PieceKind::Control), "text can become it"),
        (push("bb", PieceKind::Unused), "text can become it"),
    ];
    for (problem, expected) in cases {
        assert!(problem.contains(expected), "{problem} (expected: {expected})");
    }
}

#[test]
fn unused_pieces_are_no_text() {
    let mut model = tiny();
    for (text, kind) in [("<unused>", PieceKind::Unused), ("c", PieceKind::Unused), ("\0", PieceKind::Normal)]
    {
        model.pieces.push(Piece { text: text.into(), score: -1e6, kind });
    }
    let loaded = load(&model).unwrap();
    assert_eq!(loaded.len(), 266);
    assert_eq!(loaded.encode("c\0"), [259, 3 + 99, 3]);
    model.trainer.byte_fallback = false;
    model.pieces.retain(|piece| piece.kind != PieceKind::Byte);
    assert!(load(&model).unwrap_err().contains("\"c\" is Unused but text can become it"));
}
