//! ChatGLM2's own tokenizer against SentencePiece's output for the same texts and ids.

use std::path::PathBuf;
use std::sync::LazyLock;

use glmbench_engine::chat::build_prompt;
use glmbench_engine::tokenizer::Tokenizer;
use serde_json::Value;

use crate::support::shared;

/// The real model and its test vectors. They cannot be shipped, so the tests that need them may be skipped.
static DIR: LazyLock<Option<PathBuf>> = LazyLock::new(|| shared("tokenizer/chatglm2-6b"));

static CHATGLM2: LazyLock<Option<Tokenizer>> =
    LazyLock::new(|| DIR.as_ref().map(|dir| Tokenizer::from_dir(dir).unwrap()));

fn chatglm2() -> Option<&'static Tokenizer> {
    CHATGLM2.as_ref()
}

fn vectors(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(DIR.as_ref().unwrap().join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(vector: &Value) -> Vec<u32> {
    vector["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn every_text_has_sentencepieces_ids() {
    let Some(tokenizer) = chatglm2() else { return };
    let vectors = vectors("encode_vectors.jsonl");
    assert_eq!(vectors.len(), 340);
    for vector in vectors {
        let ids = ids(&vector);
        assert_eq!(tokenizer.encode(vector["text"].as_str().unwrap()), ids, "{vector}");
        assert_eq!(tokenizer.decode(&ids), vector["decoded"].as_str().unwrap(), "{vector}");
        for (piece, &id) in vector["pieces"].as_array().unwrap().iter().zip(&ids) {
            assert_eq!(tokenizer.piece(id), piece.as_str());
        }
    }
}

#[test]
fn every_id_list_has_sentencepieces_text() {
    let Some(tokenizer) = chatglm2() else { return };
    let vectors = vectors("decode_vectors.jsonl");
    assert_eq!(vectors.len(), 103);
    for vector in vectors {
        let ids = ids(&vector);
        let text = vector["text"].as_str().unwrap();
        assert_eq!(tokenizer.decode_pieces(&ids), text, "{vector}");
        // ChatGLM2's class differs only in the unknown piece.
        if !ids.contains(&0) {
            assert_eq!(tokenizer.decode(&ids), text, "{vector}");
        }
    }
}

#[test]
fn known_ids_of_chatglm2() {
    let Some(tokenizer) = chatglm2() else { return };
    assert_eq!(tokenizer.prefix_ids(), [64790, 64792]);
    assert_eq!((tokenizer.eos_id(), tokenizer.vocab_size()), (Some(2), 64793));
    assert_eq!(tokenizer.token_id("eop"), Some(64793));
    assert!(tokenizer.sha256().starts_with("e7dc4c39"));
    let code = "def main():\n    print('hello world')\t# greeting";
    let cases: [(&str, &[u32]); 4] = [
        ("你好", &[36474, 54591]),
        (
            &build_prompt(&[], "你好"),
            &[790, 30951, 517, 30910, 30939, 30996, 13, 13, 54761, 31211, 39701, 13, 13, 55437, 31211],
        ),
        (code, &[884, 1301, 9427, 13, 296, 4466, 2029, 15616, 30914, 993, 3387, 12, 31010, 30174]),
        ("", &[]),
    ];
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode_prompt(text), [&[64790, 64792], ids].concat());
    }
    assert!(tokenizer.encode("a👋").ends_with(&[243, 162, 148, 142]));
    assert!(!tokenizer.encode("[gMASK]sop</s>").iter().any(|id| !(3..=64788).contains(id)));
    for (letter, id) in [("A", 316), ("B", 347), ("C", 319), ("D", 367), ("yes", 5756), ("no", 687)] {
        assert_eq!(tokenizer.encode(letter), [id]);
        assert_eq!(tokenizer.token_id(&format!("\u{2581}{letter}")), Some(id));
    }
}

#[test]
fn special_tokens_and_padding_have_no_text() {
    let Some(tokenizer) = chatglm2() else { return };
    assert_eq!(tokenizer.decode(&[0, 0, 64790, 64792, 36474, 54591, 2, 64793, 65023, u32::MAX]), "你好");
}

#[test]
fn a_character_in_byte_pieces_is_streamed_whole() {
    let Some(tokenizer) = chatglm2() else { return };
    let mut stream = tokenizer.stream();
    let texts = [36474, 54591, 243, 162, 148, 142, 13].map(|id| stream.push(id));
    assert_eq!(texts, ["你", "好", "", "", "", "👋", "\n"]);
    assert_eq!(stream.finish(), "");
}
