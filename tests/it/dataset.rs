//! Data sets as users have them: the official layouts, the real files if available, and malformed files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use glmbench::dataset::{Answer, BOOLQ, CEVAL, Content, DatasetError, Item, Source, catalogue};

/// Returns the folder of real data sets beside the checkout, if it exists.
pub(crate) fn real(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/datasets").join(name);
    if path.is_dir() {
        return Some(path);
    }
    crate::support::skipped(&format!("no real {name} beside the checkout"));
    None
}

/// Writes files into a fresh folder.
pub(crate) fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    dir
}

pub(crate) const MAPPING: &[u8] = br#"{"law": ["Law", "\u6cd5\u5b66", "Humanities"]}"#;
const HEADER: &str = "id,question,A,B,C,D,answer\n";

/// Reads the val split of a C-Eval folder in which the only subject, law, has this csv file.
fn read_law(csv: &[u8]) -> Result<Vec<(String, String)>, String> {
    let dir = folder(&[("subject_mapping.json", MAPPING), ("val/law_val.csv", csv)]);
    let source = Source::open(&CEVAL, dir.path()).unwrap();
    assert_eq!(source.layout.name(), "ceval-csv");
    let base = format!("{}/", dir.path().display());
    let dataset = source.read("val", &[]).map_err(|e| e.to_string().replace(&base, ""))?;
    let text = |content: &Content| match content {
        Content::Choice(choice) => choice.question_and_options().into_owned(),
        _ => unreachable!(),
    };
    Ok(dataset.items.iter().map(|item| (item.doc_id.clone(), text(&item.content))).collect())
}

fn wrong_law(rows: &str) -> String {
    read_law(format!("{HEADER}{rows}").as_bytes()).unwrap_err()
}

#[test]
fn the_real_sets_have_their_published_counts_and_are_as_catalogued() {
    if let Some(root) = real("ceval") {
        let source = Source::open(&CEVAL, &root).unwrap();
        let entry = catalogue::find("ceval").unwrap();
        for (split, items) in [("dev", 260), ("val", 1346), ("test", 12342)] {
            let dataset = source.read(split, &[]).unwrap();
            assert_eq!((dataset.items.len(), dataset.subjects.len()), (items, 52));
            assert_eq!(entry.differences(&dataset), Vec::<String>::new());
            assert_eq!(dataset.items.iter().all(|item| item.gold().is_some()), split != "test");
            let ids: BTreeSet<_> = dataset.items.iter().map(|item| &item.doc_id).collect();
            assert_eq!(ids.len(), items);
        }
        let val = source.read("val", &[]).unwrap();
        let category = |item: &Item| val.subjects[&item.subject].category.clone().unwrap();
        let of = |c: &&str| val.items.iter().filter(|item| category(item) == *c).count();
        assert_eq!(CEVAL.categories.iter().map(of).collect::<Vec<_>>(), [430, 275, 257, 384]);
        let golds = |i| val.items.iter().filter(|item| item.gold() == Some(Answer::Choice(i))).count();
        assert_eq!([0, 1, 2, 3].map(golds), [310, 338, 344, 354]);
    }
    if let Some(root) = real("boolq") {
        let dev = Source::open(&BOOLQ, &root).unwrap().read("dev", &[]).unwrap();
        assert_eq!(dev.items.len(), 3270);
        assert_eq!(dev.items.iter().filter(|item| item.gold() == Some(Answer::Boolean(true))).count(), 2033);
        assert_eq!(catalogue::identify(&dev).unwrap().name, "boolq");
    }
}

#[test]
fn the_strict_csv_reader_and_the_csv_crate_agree_on_every_real_file() {
    let Some(root) = real("ceval") else { return };
    let source = Source::open(&CEVAL, &root).unwrap();
    for split in ["dev", "val", "test"] {
        let dataset = source.read(split, &[]).unwrap();
        let mut items = dataset.items.iter();
        for file in &dataset.files {
            let mut reader = csv::Reader::from_path(root.join(&file.path)).unwrap();
            for row in reader.records() {
                let row = row.unwrap();
                let item = items.next().unwrap();
                assert!(item.doc_id.ends_with(&format!("/{}", &row[0])));
                let Content::Choice(choice) = &item.content else { unreachable!() };
                let text =
                    format!("{}\nA. {}\nB. {}\nC. {}\nD. {}", &row[1], &row[2], &row[3], &row[4], &row[5]);
                assert_eq!(choice.question_and_options(), text.replace("\r\n", "\n"));
            }
        }
        assert!(items.next().is_none());
    }
}

#[test]
fn quoted_newlines_crlf_and_a_byte_order_mark_change_nothing_of_an_item() {
    let plain = format!("{HEADER}0,\"one\ntwo, \"\"three\"\"\",a,b,c,d,C\n");
    let items = read_law(plain.as_bytes()).unwrap();
    assert_eq!(items, [("ceval/val/law/0".into(), "one\ntwo, \"three\"\nA. a\nB. b\nC. c\nD. d".into())]);
    let dressed =
        "\u{feff}".to_owned() + HEADER.trim() + "\r\n0,\"one\ntwo, \"\"three\"\"\",\"a\",b,c,d,C\r\n\r\n";
    assert_eq!(read_law(dressed.as_bytes()).unwrap(), items);
}

#[test]
fn a_line_end_within_a_question_is_read_as_one_character_in_both_layouts() {
    let row = |end: &str| format!("{HEADER}0,\"one{end}two\",\"a{end}a\",b,c,d,C\n");
    let hash = |files: &[(&str, &[u8])]| {
        let dir = folder(files);
        let dataset = Source::open(&CEVAL, dir.path()).unwrap().read("val", &[]).unwrap();
        (dataset.content_hash(), dataset.items[0].doc_hash.clone(), dataset.files[0].sha256.clone())
    };
    let csv =
        |end: &str| hash(&[("subject_mapping.json", MAPPING), ("val/law_val.csv", row(end).as_bytes())]);
    let (unix, windows, old_mac) = (csv("\n"), csv("\r\n"), csv("\r"));
    assert_eq!((&unix.0, &unix.1), (&windows.0, &windows.1));
    assert_ne!(unix.2, windows.2);
    // A lone carriage return is part of the text.
    assert_ne!(unix.0, old_mac.0);
    let line = |end: &str| {
        format!(
            r#"{{"inputs_pretokenized": "one{end}two{end}A. a{end}a{end}B. b{end}C. c{end}D. d", "choices_pretokenized": [" A", " B", " C", " D"], "label": 2}}"#
        )
    };
    for end in [r"\n", r"\r\n"] {
        let jsonl = hash(&[("val/Humanities/law.jsonl", line(end).as_bytes())]);
        assert_eq!(jsonl.1, unix.1, "{end}");
    }
}

#[test]
fn boolq_as_superglue_has_it_is_the_same_set() {
    let own = [
        r#"{"question": "is it so", "title": "It", "answer": true, "passage": "It -- is so."}"#,
        r#"{"question": "is it not", "title": "It", "answer": false, "passage": "No."}"#,
    ];
    let glue = [
        r#"{"question": "is it so", "passage": "It -- It -- is so.", "idx": 0, "label": true}"#,
        r#"{"question": "is it not", "passage": "It -- No.", "idx": 1, "label": false}"#,
    ];
    let read = |name: &str, lines: &[&str], split: &str| {
        let dir = folder(&[(name, lines.join("\n").as_bytes())]);
        let source = Source::open(&BOOLQ, dir.path()).unwrap();
        assert!(source.has_split(split) && !source.has_split("train"));
        source.read(split, &[]).map_err(|e| e.to_string())
    };
    let (own, glue) = (read("dev.jsonl", &own, "dev").unwrap(), read("val.jsonl", &glue, "dev").unwrap());
    assert_eq!(own.content_hash(), glue.content_hash());
    assert_eq!(
        glue.items.iter().map(|i| i.gold().unwrap()).collect::<Vec<_>>(),
        [true, false].map(Answer::Boolean)
    );
    assert_eq!((glue.items[0].doc_id.as_str(), glue.files[0].path.as_str()), ("boolq/dev/0", "val.jsonl"));
    let table = [r#"{"question": "q", "passage": "t -- p", "idx": 0, "label": 1}"#];
    assert_eq!(read("val.jsonl", &table, "dev").unwrap().items[0].gold(), Some(Answer::Boolean(true)));
    let test = [
        r#"{"question": "q", "passage": "t -- p", "idx": 0}"#,
        r#"{"question": "q", "passage": "t -- p", "label": -1}"#,
    ];
    assert!(read("test.jsonl", &test, "test").unwrap().items.iter().all(|item| item.gold().is_none()));
    for (row, says) in [
        (r#"{"question": "q", "passage": "t -- p", "label": "yes"}"#, "expected true or false"),
        (r#"{"question": "q", "passage": "t -- p", "label": 2}"#, "found the label 2"),
        (r#"{"question": "q", "passage": "t -- p", "label": -1}"#, "found no `answer` or `label`"),
        (r#"{"question": "q", "passage": "t -- p", "label": true, "answer": false}"#, "expected the same"),
        (r#"{"question": "q", "passage": "p", "label": true}"#, "found no `title`"),
        (r#"{"question": "q", "passage": " ", "label": true}"#, "found an empty `passage`"),
    ] {
        let message = read("val.jsonl", &[row], "dev").unwrap_err();
        assert!(message.contains("val.jsonl:1: ") && message.contains(says), "{message}");
    }
    let both = folder(&[("dev.jsonl", b"{}"), ("val.jsonl", b"{}")]);
    let message = Source::open(&BOOLQ, both.path()).unwrap().read("dev", &[]).unwrap_err().to_string();
    assert!(message.contains("dev.jsonl and val.jsonl, two files of the dev split"), "{message}");
}

#[test]
fn the_real_boolq_in_superglues_form_is_the_real_boolq() {
    let Some(root) = real("boolq") else { return };
    let text = fs::read_to_string(root.join("dev.jsonl")).unwrap();
    let mut lines = String::new();
    for (idx, line) in text.lines().enumerate() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let word = |key: &str| row[key].as_str().unwrap();
        let passage = format!("{} -- {}", word("title"), word("passage"));
        let glue = serde_json::json!({"question": word("question"), "passage": passage, "idx": idx, "label": row["answer"]});
        lines += &format!("{glue}\n");
    }
    let dir = folder(&[("val.jsonl", lines.as_bytes())]);
    let read = |root: &Path| Source::open(&BOOLQ, root).unwrap().read("dev", &[]).unwrap();
    let (own, glue) = (read(&root), read(dir.path()));
    // A title that contains the dashes would be split elsewhere, but the prompt would still be the same.
    let prompt = |content: &Content| match content {
        Content::YesNo(q) => format!("{} -- {}\n{}", q.title, q.passage, q.question),
        _ => unreachable!(),
    };
    assert!(own.items.iter().zip(&glue.items).all(|(a, b)| prompt(&a.content) == prompt(&b.content)));
    let same = own.items.iter().zip(&glue.items).filter(|(a, b)| a.doc_hash == b.doc_hash).count();
    assert_eq!(same, own.items.len());
}

#[test]
fn every_wrong_row_is_named_with_file_and_line() {
    let message = wrong_law(
        "0,q,a,b,c,d,A\n1,q,a,b,c,d\n2,\"q\nq\",a,b,c,d,E\n3,,a,b,c,d,A\n4,q,a,,c,d,A\n0,q,a,b,c,d,B\n,q,a,b,c,d,B\n",
    );
    let expected = "\
val/law_val.csv:3: found 6 fields; expected 7
val/law_val.csv:4: found the answer \"E\"; expected A, B, C or D
val/law_val.csv:6: found an empty question; expected text
val/law_val.csv:7: found an empty option B; expected text
val/law_val.csv:8: found the id 0 again (first on line 2); expected ids that differ
val/law_val.csv:9: found the id \"\" in val of law; expected a number";
    assert_eq!(message, expected);
}

#[test]
fn quotes_that_are_left_open_lose_no_rows_in_silence() {
    let message = wrong_law("0,q,a,b,c,d,A\n1,q,a,b,c,d,\"A\n2,q,a,b,c,d,A\n");
    assert!(
        message.starts_with("val/law_val.csv:3: the quote opened on line 3 is never closed"),
        "{message}"
    );
}

#[test]
fn a_header_that_is_not_the_official_one_is_named() {
    for (header, found) in [
        ("", "val/law_val.csv:1: found an empty file"),
        ("\n\n", "val/law_val.csv:1: found an empty file"),
        ("id,question,A,B,C,answer\n", "val/law_val.csv:1: found no column `D`"),
        ("id,question,A,B,C,D\n", "val/law_val.csv:1: found no column `answer`"),
        ("id,question,A,B,C,D,E,answer\n", "val/law_val.csv:1: found the column \"E\""),
        ("id,id,question,A,B,C,D,answer\n", "val/law_val.csv:1: found the column `id` twice"),
    ] {
        let message = read_law(header.as_bytes()).unwrap_err();
        assert!(message.starts_with(found), "{message}");
    }
}

#[test]
fn bytes_that_are_no_utf8_are_named_with_line_and_offset() {
    let mut csv = HEADER.as_bytes().to_vec();
    csv.extend(b"0,\xc4\xe3,a,b,c,d,A\n");
    assert_eq!(
        read_law(&csv).unwrap_err(),
        "val/law_val.csv:2: found byte 0xc4 at offset 29; expected UTF-8 text"
    );
}

#[test]
fn a_folder_that_lacks_a_piece_of_the_layout_says_which() {
    let csv = format!("{HEADER}0,q,a,b,c,d,A\n");
    let csv = csv.as_bytes();
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(Files<'_>, &str); 6] = [
        (&[("val/law_val.csv", csv)], "subject_mapping.json: nothing there"),
        (&[("subject_mapping.json", b"[1]"), ("val/law_val.csv", csv)], "expected an object"),
        (
            &[("subject_mapping.json", br#"{"law": ["Law", "x", "Arts"]}"#), ("val/law_val.csv", csv)],
            "category \"Arts\" of `law`",
        ),
        (
            &[("subject_mapping.json", MAPPING), ("val/law_val.csv", csv), ("val/art_val.csv", csv)],
            "a file of no known subject",
        ),
        (&[("subject_mapping.json", MAPPING), ("val/law_dev.csv", csv)], "a file of no known subject"),
        (&[("subject_mapping.json", MAPPING), ("test/law_test.csv", csv)], "the val split of C-Eval"),
    ];
    for (files, expected) in cases {
        let dir = folder(files);
        let error = Source::open(&CEVAL, dir.path()).and_then(|s| s.read("val", &[])).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let empty = folder(&[]);
    assert!(matches!(Source::open(&CEVAL, empty.path()), Err(DatasetError::Layout { .. })));
    assert!(matches!(Source::open(&BOOLQ, empty.path()), Err(DatasetError::Layout { .. })));
    assert!(matches!(Source::open(&BOOLQ, &empty.path().join("none")), Err(DatasetError::Layout { .. })));
}

#[test]
fn subjects_can_be_picked_and_a_wrong_pick_is_answered_with_the_right_ones() {
    let csv = format!("{HEADER}0,q,a,b,c,d,A\n");
    let mapping = br#"{"law": ["Law", "x", "Humanities"], "logic": ["Logic", "y", "Humanities"]}"#;
    let dir = folder(&[
        ("subject_mapping.json", mapping),
        ("val/law_val.csv", csv.as_bytes()),
        ("val/logic_val.csv", csv.as_bytes()),
    ]);
    let source = Source::open(&CEVAL, dir.path()).unwrap();
    assert_eq!(source.read("val", &["logic".into()]).unwrap().items[0].doc_id, "ceval/val/logic/0");
    let error = source.read("val", &["lo".into()]).unwrap_err().to_string();
    assert!(error.contains("no subject `lo`") && error.contains("law, logic"), "{error}");
}

#[test]
fn the_same_question_has_one_identity_in_both_layouts_of_ceval() {
    let line = r#"{"id": 0, "inputs_pretokenized": "q\nA. a\nB. b\nC. c\nD. d", "choices_pretokenized": [" A", " B", " C", " D"], "label": 2, "targets_pretokenized": ["C"]}"#;
    let jsonl = folder(&[("val/Humanities/law.jsonl", line.as_bytes())]);
    let jsonl = Source::open(&CEVAL, jsonl.path()).unwrap().read("val", &[]).unwrap();
    let csv = format!("{HEADER}0,q,a,b,c,d,C\n");
    let csv = folder(&[("subject_mapping.json", MAPPING), ("val/law_val.csv", csv.as_bytes())]);
    let csv = Source::open(&CEVAL, csv.path()).unwrap().read("val", &[]).unwrap();
    assert_eq!(jsonl.items[0].doc_id, csv.items[0].doc_id);
    assert_eq!(jsonl.items[0].doc_hash, csv.items[0].doc_hash);
    assert_eq!(jsonl.content_hash(), csv.content_hash());
}

#[test]
fn wrong_lines_of_the_jsonl_layout_are_named() {
    let good = r#""choices_pretokenized": [" A", " B", " C", " D"]"#;
    let lines = [
        format!(r#"{{"inputs_pretokenized": "q", {good}, "label": 4}}"#),
        format!(r#"{{"inputs_pretokenized": "q", {good}}}"#),
        format!(r#"{{"inputs_pretokenized": "q", {good}, "label": 0, "targets_pretokenized": ["B"]}}"#),
        r#"{"inputs_pretokenized": "q", "choices_pretokenized": ["A"], "label": 0}"#.into(),
        String::new(),
        format!(r#"{{"inputs_pretokenized": 7, {good}, "label": 0}}"#),
        "{".into(),
    ];
    let dir = folder(&[("val/STEM/logic.jsonl", lines.join("\n").as_bytes())]);
    let error = Source::open(&CEVAL, dir.path()).unwrap().read("val", &[]).unwrap_err();
    let DatasetError::Rows(problems) = error else { panic!("{error}") };
    let found: Vec<(u64, &str)> = problems.0.iter().map(|p| (p.line, p.message.as_str())).collect();
    let expected = [
        (1, "found the label 4"),
        (2, "found no `label`"),
        (3, "found the target [\"B\"] beside the label 0"),
        (4, "found the choices [\"A\"]"),
        (5, "found a blank line"),
        (6, "column 25: invalid type: integer `7`, expected a string"),
        (7, "column 1: EOF while parsing an object"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((line, message), (expected_line, start)) in found.into_iter().zip(expected) {
        assert_eq!(line, expected_line, "{message}");
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn wrong_lines_of_boolq_are_named() {
    let read = |text: &[u8]| {
        let dir = folder(&[("dev.jsonl", text)]);
        let result = Source::open(&BOOLQ, dir.path()).unwrap().read("dev", &[]);
        result.map(|d| d.items.len()).map_err(|e| e.to_string().rsplit_once('/').unwrap().1.to_owned())
    };
    let row = r#"{"question": "q", "title": "t", "answer": true, "passage": "p"}"#;
    assert_eq!(read(format!("{row}\n{row}\n\n").as_bytes()), Ok(2));
    for (wrong, message) in [
        (
            r#"{"question": "q", "title": "t", "passage": "p"}"#,
            "dev.jsonl:2: found no `answer` or `label`; expected true or false",
        ),
        (
            r#"{"question": "q", "title": "t", "answer": "yes", "passage": "p"}"#,
            "dev.jsonl:2: column 47: invalid type: string \"yes\", expected a boolean",
        ),
        (
            r#"{"question": "q", "title": "t", "answer": true}"#,
            "dev.jsonl:2: column 47: missing field `passage`",
        ),
        (
            r#"{"question": " ", "title": "t", "answer": true, "passage": "p"}"#,
            "dev.jsonl:2: found an empty `question`; expected text",
        ),
    ] {
        assert_eq!(read(format!("{row}\n{wrong}\n").as_bytes()), Err(message.into()));
    }
    assert!(read(b"\n").unwrap_err().contains("found an empty file"));
    assert!(read(b"\xff").unwrap_err().contains("expected UTF-8"));
}
