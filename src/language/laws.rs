//! What holds the catalogue and the sources together.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::catalogue::{CHINESE, Groups, Piece, pieces};
use super::english::english_words;
use super::*;

/// Groups with keys that are not templates of messages.
const OTHER_GROUPS: [&str; 2] = ["separators", "terms"];

fn groups() -> BTreeMap<String, std::collections::HashMap<String, String>> {
    toml::from_str::<Groups>(CHINESE).unwrap().0
}

/// The files below a folder of this crate, in order.
fn files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let (mut folders, mut files) = (vec![root], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// What a Rust file says before its tests. Comments are empty lines, so that lines keep their numbers.
fn shipped(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let tests = text.match_indices("#[cfg(test)]\n").find(|(at, mark)| {
        let next = text[at + mark.len()..].lines().next().unwrap_or_default();
        next.contains("mod ") && next.ends_with('{')
    });
    let head = &text[..tests.map_or(text.len(), |(at, _)| at)];
    let code = head.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line });
    code.collect::<Vec<_>>().join("\n")
}

/// The Rust sources of what ships, outside this folder, which has the macros.
pub(crate) fn sources() -> Vec<(PathBuf, String)> {
    let is_of_tests = |path: &Path| {
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        let parts = [path.to_owned(), path.parent().unwrap().to_owned()].map(|path| name(&path));
        ["tests.rs", "toy.rs", "fixture.rs", "gallery.rs", "languages.rs", "toy_walk.rs"]
            .contains(&&*parts[0])
            || ["tests", "toy", "language"].contains(&&*parts[1])
    };
    let rust = files("src").into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.filter(|path| !is_of_tests(path)).map(|path| (path.clone(), shipped(&path))).collect()
}

/// The string literal that a text starts with, and what follows.
fn literal(text: &str) -> Option<(String, &str)> {
    let mut rest = text.trim_start().strip_prefix('"')?;
    let mut said = String::new();
    loop {
        let at = rest.find(['"', '\\'])?;
        said.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if rest[at..].starts_with('"') {
            return Some((said, after));
        }
        let escaped = after.chars().next()?;
        rest = &after[escaped.len_utf8()..];
        match escaped {
            '\n' => rest = rest.trim_start(),
            'n' => said.push('\n'),
            '"' | '\\' => said.push(escaped),
            other => panic!("the escape \\{other} in {said}"),
        }
    }
}

/// The templates of a source.
fn templates_of(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, start) in code.match_indices("text!(") {
        found.extend(literal(&code[at + start.len()..]).map(|(template, _)| template));
    }
    for (at, start) in code.match_indices("texts![") {
        let mut rest = &code[at + start.len()..];
        while let Some((template, after)) = literal(rest) {
            found.push(template);
            rest = after.trim_start().trim_start_matches(',');
        }
    }
    found
}

/// Every message template in the sources and in the page templates, with a file that has it.
fn templates() -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for (path, code) in sources() {
        found.extend(templates_of(&code).into_iter().map(|template| (template, path.clone())));
    }
    for path in files("src/report/templates") {
        let page = fs::read_to_string(&path).unwrap();
        for part in page.split("t(\"").skip(1) {
            let template = part.split_once("\")").expect("the end of a text of a page").0;
            found.insert(template.to_owned(), path.clone());
        }
    }
    assert!(found.len() > 700, "the search finds {} templates", found.len());
    found
}

fn holes(template: &str) -> BTreeSet<&str> {
    pieces(template)
        .filter_map(|piece| if let Piece::Hole(name) = piece { Some(name) } else { None })
        .collect()
}

#[test]
fn every_template_of_the_sources_has_a_chinese_entry() {
    let lacking: Vec<_> =
        templates().into_iter().filter(|(template, _)| Language::Zh.entry(template).is_none()).collect();
    assert!(lacking.is_empty(), "add to src/language/zh.toml: {lacking:#?}");
}

#[test]
fn no_entry_is_dead_and_none_is_said_twice() {
    let templates = templates();
    let mut seen = BTreeSet::new();
    for (group, entries) in groups() {
        for template in entries.into_keys() {
            let is_used = OTHER_GROUPS.contains(&&*group) || templates.contains_key(&template);
            assert!(is_used, "no source says {template:?} of [{group}]");
            assert!(seen.insert(template.clone()), "{template:?} stands in two groups");
        }
    }
}

#[test]
fn an_entry_has_the_holes_of_its_template_and_no_english_plural() {
    for (template, said) in groups().into_values().flatten() {
        assert_eq!(holes(&template), holes(&said), "{template}");
        assert!(!pieces(&said).any(|piece| matches!(piece, Piece::Plural(_))), "{said}");
    }
}

/// Records and quotations are data. The words of an entry are not.
#[test]
fn an_entry_has_no_english_words_but_proper_terms() {
    let mut left: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (template, said) in groups().into_values().flatten() {
        let letters =
            pieces(&said).map(|piece| if let Piece::Letters(letters) = piece { letters } else { " " });
        let words = english_words(&letters.collect::<String>());
        if !words.is_empty() {
            left.insert(template, words);
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}

/// A stop of the wrong kind is the commonest slip of a hand that types both languages.
#[test]
fn chinese_words_have_chinese_stops() {
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c);
    for said in groups().into_values().flat_map(|entries| entries.into_values()) {
        let characters: Vec<char> = said.chars().collect();
        for pair in characters.windows(2) {
            let is_wrong = is_chinese(pair[0]) && ",;:?!(".contains(pair[1])
                || is_chinese(pair[1]) && ",;:?!)".contains(pair[0]);
            assert!(!is_wrong, "{said}");
        }
    }
}

#[test]
fn every_separator_has_an_entry() {
    let entries = groups().remove("separators").unwrap();
    let mut used = BTreeSet::from([String::new()]);
    for (path, code) in sources() {
        for (at, start) in code.match_indices("joined(").chain(code.match_indices("Text::list(")) {
            let Some(separator) = last_literal(&code[at + start.len()..]) else { continue };
            assert!(entries.contains_key(&separator), "{}: the separator {separator:?}", path.display());
            used.insert(separator);
        }
    }
    assert_eq!(
        used.into_iter().collect::<Vec<_>>(),
        entries.into_keys().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
}

/// The literal that is the last argument of a call, given what follows its opening parenthesis.
fn last_literal(call: &str) -> Option<String> {
    let (mut rest, mut depth, mut last) = (call, 1, None);
    while depth > 0 {
        let c = rest.chars().next()?;
        match c {
            '"' => {
                let (said, after) = literal(rest)?;
                last = (depth == 1).then_some(said);
                rest = after;
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' | ' ' | '\n' => {}
            _ if depth == 1 => last = None,
            _ => {}
        }
        rest = &rest[c.len_utf8()..];
    }
    last
}

/// The words that other crates, the published figures and the task files define.
#[test]
fn every_term_is_defined_somewhere() {
    let mut defined = String::new();
    for folder in [
        "crates/calibrate",
        "crates/ascend-emulator",
        "datasets",
        "src/dataset",
        "src/report/modelled",
        "src/report/evidence",
        "src/report/followed",
        "src/gate",
        "src/report/history",
    ] {
        for path in files(folder) {
            let is_text =
                path.extension().is_some_and(|end| ["rs", "toml", "csv"].iter().any(|text| end == *text));
            if is_text {
                defined += &fs::read_to_string(path).unwrap();
            }
        }
    }
    for term in groups().remove("terms").unwrap().into_keys() {
        assert!(defined.contains(&term), "no source defines {term:?}");
    }
}

const WIDE: &[u8] = include_bytes!("../report/font/NotoSansCJKsc-Regular.subset.otf");
const LATIN: [&[u8]; 2] = [
    include_bytes!("../report/font/DejaVuSans.subset.ttf"),
    include_bytes!("../report/font/DejaVuSans-Bold.subset.ttf"),
];

/// The characters that a font draws.
fn drawn_by(font: &[u8]) -> BTreeSet<char> {
    let face = ttf_parser::Face::parse(font, 0).unwrap();
    let mut drawn = BTreeSet::new();
    for table in face.tables().cmap.unwrap().subtables.into_iter().filter(|table| table.is_unicode()) {
        table.codepoints(|point| drawn.extend(char::from_u32(point)));
    }
    drawn
}

#[test]
fn the_fonts_of_the_charts_have_the_catalogues_characters_and_the_wide_one_no_other() {
    let said: BTreeSet<char> = groups()
        .into_values()
        .flat_map(|entries| entries.into_values())
        .flat_map(|text| text.chars().collect::<Vec<_>>())
        .collect();
    let (wide, narrow): (BTreeSet<char>, BTreeSet<char>) = said.into_iter().partition(|c| *c >= '\u{2e80}');
    assert_eq!(wide, drawn_by(WIDE), "run scripts/subset_font.sh");
    // The exponent stands in a table's head.
    let in_no_chart = |c: char| "\n⁹".contains(c);
    for font in LATIN {
        let lacking: Vec<char> =
            narrow.difference(&drawn_by(font)).copied().filter(|c| !in_no_chart(*c)).collect();
        assert!(lacking.is_empty(), "{lacking:?}");
    }
}

#[test]
fn a_text_says_its_message_in_each_language_and_data_in_none() {
    let count = 3_usize;
    let few = text!("{rows} row{rows:s}", rows = count);
    assert_eq!([few.to_string(), few.in_language(Language::Zh)], ["3 rows", "3 行"]);
    assert_eq!(text!("{count} row{count:s}", count = 1_usize), "1 row");
    // Texts in texts, in the order of the language, and data that looks like a hole or like an entry.
    let title = text!("{title}: {run}", title = text!("decode"), run = "{title} prefill");
    assert_eq!(title, "decode: {title} prefill");
    assert_eq!(title.in_language(Language::Zh), "解码：{title} prefill");
    let list = joined([text!("prefill"), text!("decode")], ", ");
    assert_eq!([list.to_string(), list.in_language(Language::Zh)], ["prefill, decode", "预填充，解码"]);
    assert_eq!(Text::term("fit").in_language(Language::Zh), "拟合");
    assert_eq!(Text::term("a word that nobody knows").in_language(Language::Zh), "a word that nobody knows");
    assert_eq!(format!("{:>8}|{:<8}|", text!("decode"), text!("decode")), "  decode|decode  |");
}

#[test]
fn a_text_is_english_in_json_and_data_when_read_back() {
    let written = serde_json::to_string(&text!("decode")).unwrap();
    assert_eq!(written, "\"decode\"");
    let read: Text = serde_json::from_str(&written).unwrap();
    assert_eq!(read, text!("decode"));
    assert_eq!(read.in_language(Language::Zh), "decode");
}

#[test]
fn lines_break_between_chinese_characters_and_never_before_a_stop() {
    let parts: Vec<String> =
        unbroken("首 token 时延（TTFT），慢").into_iter().map(|(part, _)| part).collect();
    assert_eq!(parts, ["首", "token", "时", "延", "（TTFT），", "慢"]);
    let parts: Vec<(String, bool)> = unbroken("是 2.3 倍，慢");
    assert_eq!(parts, [("是".into(), false), ("2.3 倍，".into(), true), ("慢".into(), false)]);
    assert_eq!(columns("时延 ms"), 7);
}
