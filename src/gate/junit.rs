//! JUnit XML for CI systems: one test case per gate.
//!
//! Uses the dialect that Jenkins, GitLab and GitHub's reporters share: `testsuites` over one `testsuite`. A
//! `testcase` that did not pass has a `failure`, `error` or `skipped` element.
//!
//! `quick-junit` would replace this page. It adds seven crates (an XML writer, UUIDs, dates, a terminal parser). It
//! drops control characters silently where [`printable`] shows them, and keeps invisible ones such as U+202E.

use crate::report::compare::{GateOutcome, Judgement};
use crate::suite::gates::Undecided;
use crate::text::printable;
use std::fmt::Write;

/// Returns the whole document. An undecided gate is an error, or skipped or failed if the gate file says so.
pub fn document(judgements: &[Judgement], undecided: Undecided) -> String {
    let fails = |j: &&Judgement| {
        let open = j.outcome == GateOutcome::Undecided;
        j.outcome == GateOutcome::Fail || (open && undecided == Undecided::Fails)
    };
    let failures = judgements.iter().filter(fails).count();
    let open = judgements.iter().filter(|j| j.outcome == GateOutcome::Undecided).count();
    let counted = |as_what| if undecided == as_what { open } else { 0 };
    let (errors, skipped) = (counted(Undecided::Open), counted(Undecided::Passes));
    let totals = format!("tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\"", judgements.len());
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string cannot fail.
    let _ = writeln!(xml, "<testsuites name=\"glmbench\" {totals}>");
    let _ = writeln!(xml, "  <testsuite name=\"gates\" {totals} skipped=\"{skipped}\">");
    for judgement in judgements {
        let decide = judgement.decide.as_ref().map(|decide| format!("; {decide}")).unwrap_or_default();
        let message = format!("found {}; expected {}{decide}", judgement.found, judgement.limit);
        let (name, class) =
            (escaped(&judgement.gate.to_string()), escaped(&format!("glmbench.gates.{}", judgement.run)));
        let _ = write!(xml, "    <testcase classname=\"{class}\" name=\"{name}\" time=\"0\"");
        let message = escaped(&message);
        let _ = match judgement.outcome {
            _ if fails(&judgement) => {
                writeln!(xml, ">\n      <failure message=\"{message}\"/>\n    </testcase>")
            }
            GateOutcome::Undecided => {
                let element = if undecided == Undecided::Open { "error" } else { "skipped" };
                writeln!(xml, ">\n      <{element} message=\"undecided: {message}\"/>\n    </testcase>")
            }
            _ => writeln!(xml, "/>"),
        };
    }
    xml + "  </testsuite>\n</testsuites>\n"
}

/// Escapes text for an attribute, on one line. Invisible characters are shown escaped; XML 1.0 forbids most of them.
fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => xml += "&amp;",
            '<' => xml += "&lt;",
            '>' => xml += "&gt;",
            '"' => xml += "&quot;",
            '\n' | '\t' => xml.push(' '),
            '\u{fffe}' | '\u{ffff}' => xml.push('?'),
            c => xml.push(c),
        }
    }
    xml
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_within_their_attribute() {
        assert_eq!(escaped("a<b> & \"c\"\n\u{0}\u{ffff}"), r"a&lt;b&gt; &amp; &quot;c&quot; \u{0}?");
    }

    #[test]
    fn each_gate_is_a_test_case() {
        let judgement = |outcome| Judgement {
            gate: "accuracy of ceval".into(),
            run: "B".into(),
            limit: "at least 50.00 %".into(),
            found: "47 % [45, 49]".into(),
            outcome,
            decide: (outcome == GateOutcome::Undecided).then(|| "`glmbench run s.toml`".into()),
        };
        let all = [GateOutcome::Pass, GateOutcome::Fail, GateOutcome::Undecided].map(judgement);
        insta::assert_snapshot!("junit.xml", document(&all, Undecided::Open));
        assert!(document(&all, Undecided::Fails).contains("failures=\"2\" errors=\"0\" skipped=\"0\""));
        let passes = document(&all, Undecided::Passes);
        assert!(passes.contains("failures=\"1\" errors=\"0\" skipped=\"1\"") && passes.contains("<skipped"));
    }
}
