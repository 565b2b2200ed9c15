use proptest::prelude::*;

use super::testing::{File, dir_of, tiny, tiny_dir};
use super::*;

const CHATGLM: &[u8] = br#"{"tokenizer_class": "ChatGLMTokenizer"}"#;

fn load(files: &[File<'_>]) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_dir(dir_of(files).path())
}

fn without_dummy_prefix() -> Vec<u8> {
    let mut model = tiny();
    model.normalizer.add_dummy_prefix = false;
    proto::write(&model)
}

/// A byte-level model as Hugging Face writes it: all 256 byte letters, a few merges, one special token.
fn byte_level_json(post_processor: &str) -> Vec<u8> {
    let visible = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..);
    let mut hidden = 0u32;
    let mut letters: Vec<char> = (0..=255u8)
        .map(|byte| {
            if visible(byte) {
                return char::from(byte);
            }
            hidden += 1;
            char::from_u32(255 + hidden).unwrap()
        })
        .collect();
    letters.sort_unstable();
    let mut vocab: serde_json::Map<String, Value> =
        letters.iter().zip(0..).map(|(letter, id)| (letter.to_string(), Value::from(id))).collect();
    vocab.insert("ab".into(), 256.into());
    let merges = r#"["a b"]"#;
    let vocab = Value::Object(vocab);
    format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"normalizer":null,
        "added_tokens":[{{"id":257,"content":"<end>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}],
        "pre_tokenizer":{{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}},
        "post_processor":{post_processor},
        "decoder":{{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}},
        "model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
        "fuse_unk":false,"byte_fallback":false,"vocab":{vocab},"merges":{merges}}}}}"#
    )
    .into_bytes()
}

const BEFORE: &str = r#"{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<end>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
    "pair":[],"special_tokens":{"<end>":{"id":"<end>","ids":[257],"tokens":["<end>"]}}}"#;
const AFTER: &str = r#"{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<end>","type_id":0}}],
    "pair":[],"special_tokens":{"<end>":{"id":"<end>","ids":[257],"tokens":["<end>"]}}}"#;

/// Tests of other crates read this file, because they cannot call [`tiny`].
#[test]
fn the_fixture_for_other_crates_is_the_tiny_model() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny/tokenizer.model");
    assert!(std::fs::read(file).unwrap() == proto::write(&tiny()), "write the file again");
}

#[test]
fn the_files_decide_about_special_tokens_and_prefix() {
    let plain = without_dummy_prefix();
    let dummy = proto::write(&tiny());
    let auto: &[u8] = br#"{"auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", null]}}"#;
    let other: &[u8] = br#"{"tokenizer_class": "LlamaTokenizer"}"#;
    let none: &[u8] = br#"{"tokenizer_class": "ChatGLMTokenizer", "prefix_tokens": []}"#;
    let own: &[u8] = br#"{"prefix_tokens": ["<s>"]}"#;
    let named: &[u8] = br#"{"tokenizer_class": "LlamaTokenizer", "prefix_tokens": ["[gMASK]", "sop"]}"#;
    let word: &[u8] = br#"{"auto_map": {"AutoTokenizer": "tokenization_chatglm.ChatGLMTokenizer"}}"#;
    // tokenizer.model, tokenizer_config.json, prefix ids, rows of the embedding
    type Case<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u32], usize);
    let cases: [Case<'_>; 15] = [
        (&dummy, None, &[264, 266], 267),
        (&plain, None, &[], 263),
        (&dummy, Some(CHATGLM), &[264, 266], 267),
        (&plain, Some(CHATGLM), &[264, 266], 267),
        (&plain, Some(auto), &[264, 266], 267),
        (&dummy, Some(other), &[], 263),
        (&dummy, Some(none), &[], 263),
        (&dummy, Some(own), &[1], 263),
        // Re-saved by other libraries: no class, or one that fits every vocabulary.
        (&dummy, Some(b"{}"), &[264, 266], 267),
        (&dummy, Some(br#"{"tokenizer_class": null}"#), &[264, 266], 267),
        (&dummy, Some(br#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#), &[264, 266], 267),
        (&plain, Some(b"{}"), &[], 263),
        (&plain, Some(word), &[264, 266], 267),
        (&dummy, Some(named), &[264, 266], 267),
        (&plain, Some(named), &[264, 266], 267),
    ];
    for (model, config, prefix, vocab_size) in cases {
        let mut files = vec![("tokenizer.model", model)];
        files.extend(config.map(|config| ("tokenizer_config.json", config)));
        let tokenizer = load(&files).unwrap();
        assert_eq!(tokenizer.prefix_ids(), prefix);
        assert_eq!(tokenizer.vocab_size(), vocab_size);
        assert_eq!(tokenizer.encode_prompt("b"), [prefix, &tokenizer.encode("b")].concat());
        assert_eq!(tokenizer.eos_id(), Some(2));
        assert_eq!(tokenizer.sha256(), hex(&Sha256::digest(model)));
    }
}

#[test]
fn a_chatglm_folder_whose_tokenizer_says_otherwise_has_to_decide() {
    let (dummy, plain) = (proto::write(&tiny()), without_dummy_prefix());
    let config: File<'_> = ("config.json", br#"{"model_type": "chatglm"}"#);
    let other = |text| ("tokenizer_config.json", text);
    let foreign: &[u8] = br#"{"tokenizer_class": "LlamaTokenizer"}"#;
    let message = load(&[config, ("tokenizer.model", &dummy), other(foreign)]).unwrap_err().to_string();
    for says in ["tokenizer.model", "LlamaTokenizer", r#""prefix_tokens": ["[gMASK]", "sop"]"#, "[] for none"]
    {
        assert!(message.contains(says), "{message}");
    }
    let prefix = |files: &[File<'_>]| load(files).unwrap().prefix_ids().to_vec();
    let decided: &[u8] = br#"{"tokenizer_class": "LlamaTokenizer", "prefix_tokens": []}"#;
    assert_eq!(prefix(&[config, ("tokenizer.model", &dummy), other(decided)]), [0; 0]);
    // Another vocabulary with the same config.json, and folders without a usable config.json.
    assert_eq!(prefix(&[config, ("tokenizer.model", &plain), other(foreign)]), [0; 0]);
    assert_eq!(prefix(&[("tokenizer.model", &dummy), other(foreign)]), [0; 0]);
    assert_eq!(prefix(&[("config.json", b"{"), ("tokenizer.model", &dummy), other(foreign)]), [0; 0]);
    assert_eq!(prefix(&[config, ("tokenizer.model", &dummy), other(b"{}")]), [264, 266]);

    let json = String::from_utf8(byte_level_json("null")).unwrap();
    assert_eq!(prefix(&[config, ("tokenizer.json", json.as_bytes())]), [0; 0]);
    let specials = json.replace("\"<end>\"", "\"sop\"").replace("\"ab\"", "\"[gMASK]\"");
    let specials = specials.replace("[\"a b\"]", "[]");
    let message = load(&[config, ("tokenizer.json", specials.as_bytes())]).unwrap_err().to_string();
    assert!(message.contains("post-processor adds nothing"), "{message}");
}

#[test]
fn what_decided_on_the_prefix_is_told() {
    let dummy = proto::write(&tiny());
    let from = |text: &[u8]| {
        load(&[("tokenizer.model", &dummy), ("tokenizer_config.json", text)]).unwrap().prefix_from()
    };
    assert_eq!(from(CHATGLM), "the class in tokenizer_config.json");
    assert!(from(b"{}").contains("dummy prefix"));
    assert_eq!(from(br#"{"prefix_tokens": []}"#), "prefix_tokens of tokenizer_config.json");
}

#[test]
fn pieces_and_special_tokens_have_names() {
    let tokenizer = Tokenizer::from_dir(tiny_dir().path()).unwrap();
    for (id, piece) in
        [(0, "<unk>"), (13, "<0x0A>"), (262, "\u{2581}ab"), (263, "[MASK]"), (266, "sop"), (267, "eop")]
    {
        assert_eq!(tokenizer.piece(id), Some(piece));
        assert_eq!(tokenizer.token_id(piece), Some(id));
    }
    assert_eq!(tokenizer.piece(268), None);
    assert_eq!(tokenizer.token_id("[gMASK] "), None);
}

#[test]
fn a_folder_that_gives_no_tokenizer_says_why() {
    let good = proto::write(&tiny());
    // files, the file named in the error, part of the message
    type Case<'a> = (&'a [File<'a>], &'a str, &'a str);
    let cases: [Case<'_>; 7] = [
        (
            &[("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\n")],
            "tokenizer.json",
            "Git LFS pointer",
        ),
        (&[], "", "neither tokenizer.model nor tokenizer.json"),
        (&[("tokenizer.model", b"")], "tokenizer.model", "no pieces"),
        (&[("tokenizer.model", &good[..good.len() - 1])], "tokenizer.model", "not a SentencePiece model"),
        (&[("tokenizer.model", &good), ("tokenizer_config.json", b"{")], "tokenizer_config.json", "line 1"),
        (
            &[("tokenizer.model", &good), ("tokenizer_config.json", br#"{"prefix_tokens": ["[sop]"]}"#)],
            "tokenizer_config.json",
            "\"[sop]\", which is no piece",
        ),
        (&[("tokenizer.json", b"[1]")], "tokenizer.json", "not a tokenizer.json"),
    ];
    for (files, name, expected) in cases {
        let message = load(files).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(expected), "{message}");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tokenizer.model")).unwrap();
    assert!(matches!(Tokenizer::from_dir(dir.path()), Err(TokenizerError::Read { .. })));
}

#[test]
fn a_tokenizer_json_is_read_without_matching_special_tokens_in_text() {
    let config: &[u8] = br#"{"eos_token": {"content": "<end>"}}"#;
    let tokenizer =
        load(&[("tokenizer.json", &byte_level_json("null")), ("tokenizer_config.json", config)]).unwrap();
    assert_eq!((tokenizer.eos_id(), tokenizer.prefix_ids()), (Some(257), &[][..]));
    assert_eq!((tokenizer.vocab_size(), tokenizer.piece(256)), (258, Some("ab")));
    let text = "ab<end> 你\n👋";
    let ids = tokenizer.encode(text);
    assert!(ids.contains(&256) && !ids.contains(&257));
    assert_eq!(tokenizer.decode(&ids), text);
    let prefixed = load(&[("tokenizer.json", &byte_level_json(BEFORE))]).unwrap();
    assert_eq!(prefixed.prefix_ids(), [257]);
}

#[test]
fn a_tokenizer_json_that_would_break_the_crate_is_refused() {
    let good = String::from_utf8(byte_level_json("null")).unwrap();
    let cases = [
        (good.replace("\"BPE\"", "\"Unigram\""), "its model is Unigram"),
        (good.replace("\"dropout\":null", "\"dropout\":0.1"), "dropout"),
        (good.replace("\"unk_token\":null", "\"unk_token\":\"?!\""), "unk_token \"?!\""),
        (good.replace("word_suffix\":null", "word_suffix\":\"</w>\""), "end_of_word_suffix"),
        (good.replace("[\"a b\"]", "[\"ab abababab\"]"), "its merge 0 makes"),
        (good.replace("\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"CTC\""), "its decoder"),
        (
            good.replace("\"normalizer\":null", "\"normalizer\":{\"type\":\"Precompiled\"}"),
            "precompiled_charsmap",
        ),
        (String::from_utf8(byte_level_json(AFTER)).unwrap(), "after the text"),
    ];
    for (json, expected) in cases {
        let message = load(&[("tokenizer.json", json.as_bytes())]).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

/// Decodes as SentencePiece's source does: a run of bytes at once, then the piece after it.
fn decode_slowly(tokenizer: &Tokenizer, dummy_prefix: bool, ids: &[u32], unknown: &str) -> String {
    fn flush(run: &mut Vec<u8>, text: &mut String) {
        let mut rest = &run[..];
        while !rest.is_empty() {
            let whole = (1..=rest.len().min(4))
                .find_map(|n| std::str::from_utf8(&rest[..n]).ok().filter(|c| c.chars().count() == 1));
            text.push_str(whole.unwrap_or("\u{fffd}"));
            rest = &rest[whole.map_or(1, str::len)..];
        }
        run.clear();
    }
    let (mut text, mut run) = (String::new(), Vec::new());
    let mut stripped = !dummy_prefix;
    for &id in ids {
        if (3..259).contains(&id) {
            run.push((id - 3) as u8);
            continue;
        }
        flush(&mut run, &mut text);
        match id {
            0 => text.push_str(unknown),
            259..263 => {
                let mut piece = tokenizer.piece(id).unwrap();
                if text.is_empty() && !stripped && piece.starts_with('\u{2581}') {
                    piece = &piece['\u{2581}'.len_utf8()..];
                    stripped = true;
                }
                text.push_str(&piece.replace('\u{2581}', " "));
            }
            _ => {}
        }
    }
    flush(&mut run, &mut text);
    text
}

/// Ids of the tiny model: mostly bytes of characters, whole and broken, and some of all other kinds.
fn any_ids() -> impl Strategy<Value = Vec<u32>> {
    let bytes = |text: &str| text.bytes().map(|byte| u32::from(byte) + 3).collect::<Vec<_>>();
    let some = prop_oneof![
        Just(bytes("👋")),
        Just(bytes("你\u{fffd}")),
        (0u32..270).prop_map(|id| vec![id]),
        (259u32..263).prop_map(|id| vec![id]),
        (131u32..259).prop_map(|id| vec![id]),
        any::<u32>().prop_map(|id| vec![id]),
    ];
    proptest::collection::vec(some, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn ids_decode_as_sentencepiece_decodes_them(ids in any_ids(), dummy_prefix: bool) {
        let tokenizer = if dummy_prefix {
            Tokenizer::from_dir(tiny_dir().path()).unwrap()
        } else {
            load(&[("tokenizer.model", &without_dummy_prefix())]).unwrap()
        };
        let expected = decode_slowly(&tokenizer, dummy_prefix, &ids, " \u{2047} ");
        prop_assert_eq!(tokenizer.decode_pieces(&ids), expected);
        prop_assert_eq!(tokenizer.decode(&ids), decode_slowly(&tokenizer, dummy_prefix, &ids, ""));
    }

    #[test]
    fn a_stream_never_takes_back_what_it_gave(ids in any_ids()) {
        let tokenizer = Tokenizer::from_dir(tiny_dir().path()).unwrap();
        let mut stream = tokenizer.stream();
        let mut text = String::new();
        for (i, &id) in ids.iter().enumerate() {
            text += &stream.push(id);
            // Later ids never change text that was already output.
            prop_assert!(tokenizer.decode(&ids[..=i]).starts_with(&text));
            prop_assert!(tokenizer.decode(&ids).starts_with(&text));
        }
        text += &stream.finish();
        prop_assert_eq!(text, tokenizer.decode(&ids));
    }

    #[test]
    fn any_text_survives_its_ids(text in ".{0,40}") {
        let tokenizer = Tokenizer::from_dir(tiny_dir().path()).unwrap();
        prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text.replace('\u{2581}', " "));
    }

    #[test]
    fn a_json_stream_gives_what_decoding_at_once_gives(ids in proptest::collection::vec(0u32..259, 0..60)) {
        let tokenizer = load(&[("tokenizer.json", &byte_level_json("null"))]).unwrap();
        let Model::Json(model) = &tokenizer.model else { unreachable!() };
        prop_assert_eq!(tokenizer.decode(&ids), model.decode(&ids));
    }
}
