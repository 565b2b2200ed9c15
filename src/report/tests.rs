//! Tests of a whole report.

use super::*;
use crate::record::Status;
use std::fs;
use std::path::PathBuf;

const VOID: [&str; 6] = ["meta", "br", "circle", "input", "line", "rect"];

/// Asserts that every tag is closed by its own closing tag, in order.
fn assert_balanced(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let tags = html.split('<').skip(1).filter_map(|part| part.split_once('>').map(|(tag, _)| tag));
    for tag in tags.filter(|tag| !tag.starts_with('!')) {
        let name = |tag: &'_ str| tag.split([' ', '\n', '/']).next().unwrap_or_default().len();
        if let Some(closing) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closing), "</{closing}> closes something else");
        } else if !tag.ends_with('/') && !VOID.contains(&&tag[..name(tag)]) {
            open.push(&tag[..name(tag)]);
        }
    }
    assert!(open.is_empty(), "left open: {open:?}");
}

/// Asserts that the page is well-formed, states its language, and loads nothing external.
pub(super) fn assert_whole_page(html: &str, language: Language) {
    assert_balanced(html);
    for absent in ["http", "<script", "<link", "<img", "url(", "@import", " src="] {
        assert!(!html.contains(absent), "{absent}");
    }
    assert!(html.contains(&format!("<html lang=\"{}\">", language.tag())));
}

#[test]
fn a_report_is_one_whole_page_that_needs_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = fixture::write(root.path(), &fixture::realistic());
    let summary = render(dir.path(), Language::En).unwrap();
    assert_eq!(summary.verdict(), Verdict::Valid);
    let html = fs::read_to_string(dir.file("report.html")).unwrap();
    assert_whole_page(&html, Language::En);
    assert!(html.contains("下列 x &lt; y &amp; y"), "escaped prompt");
    assert_eq!(html.matches("<svg").count(), 6);
    insta::assert_snapshot!("summary.md", fs::read_to_string(dir.file("summary.md")).unwrap());
    insta::assert_snapshot!("accuracy.csv", fs::read_to_string(dir.file("accuracy.csv")).unwrap());
    insta::assert_snapshot!("perf.csv", fs::read_to_string(dir.file("perf.csv")).unwrap());
    let without_charts: Vec<&str> =
        html.split("<svg").map(|part| part.split_once("</svg>").map_or(part, |(_, rest)| rest)).collect();
    insta::assert_snapshot!("report.html", without_charts.join("<!-- chart -->"));
}

#[test]
fn a_report_made_twice_is_the_same() {
    let root = tempfile::tempdir().unwrap();
    let dir = fixture::write(root.path(), &fixture::quiet());
    let read = || ["report.html", "summary.md", "perf.csv"].map(|name| fs::read(dir.file(name)).unwrap());
    render(dir.path(), Language::En).unwrap();
    let first = read();
    render(dir.path(), Language::En).unwrap();
    assert!(first == read());
}

#[test]
fn a_run_killed_at_once_still_has_a_report() {
    let root = tempfile::tempdir().unwrap();
    let mut run = fixture::run();
    run.status = Status::Running;
    run.first_prompt = None;
    let dir = fixture::write(root.path(), &fixture::Records::empty(run));
    let summary = render(dir.path(), Language::En).unwrap();
    assert_eq!(summary.verdict(), Verdict::Incomplete);
    assert_eq!(summary.headline, ["Nothing has finished yet."]);
    assert_balanced(&fs::read_to_string(dir.file("report.html")).unwrap());
}

#[test]
fn a_folder_that_is_no_run_is_named() {
    let message = render(Path::new("not-a-run"), Language::En).unwrap_err().to_string();
    assert!(message.contains("not-a-run/run.json"), "{message}");
}

/// Not a check: writes a sample report to the folder that the variable names.
#[test]
fn leave_one_to_look_at() {
    let Some(folder) = std::env::var_os("GLMBENCH_REPORT_SAMPLE") else { return };
    for (folder, language) in
        [(PathBuf::from(&folder), Language::En), (Path::new(&folder).join("zh"), Language::Zh)]
    {
        fs::create_dir_all(&folder).unwrap();
        let dir = fixture::write(&folder, &fixture::realistic());
        render(dir.path(), language).unwrap();
    }
}
