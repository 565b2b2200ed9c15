//! Descriptions in labelled lines, as lists and tasks print them.

use crate::task::Definition;
use crate::text::one_line;

/// Describes a protocol in labelled lines.
pub(super) fn protocol_words(definition: &Definition) -> String {
    let mut lines = vec![("", definition.about.to_owned())];
    // The label is printed once. The stages are listed below one another.
    for (i, (stage, template)) in definition.prompts.iter().enumerate() {
        let label = if i == 0 { "prompt" } else { "" };
        lines.push((label, format!("{stage}: \"{}\"", template.replace('\n', "\\n"))));
    }
    let shots = match definition.shots {
        0 => "none".to_owned(),
        shots => {
            format!("{shots} from the {} split (key `shots`)", definition.benchmark.demonstration_split)
        }
    };
    let limit = match definition.max_new_tokens {
        0 => "nothing is generated".to_owned(),
        tokens => format!("greedy, up to {tokens} new tokens (key `max_new_tokens`)"),
    };
    lines.extend([("shots", shots), ("decoding", limit)]);
    if !definition.choices.is_empty() {
        lines.push(("choices", definition.choices.to_owned()));
    }
    lines.extend([
        ("answer", definition.extraction.to_owned()),
        ("metric", definition.metric.to_owned()),
        ("source", definition.source.to_owned()),
    ]);
    block(&format!("{} {}", definition.benchmark, definition.name), &lines)
}

/// Formats a title with labelled lines below it.
pub(super) fn block(title: &str, lines: &[(&str, String)]) -> String {
    let body = lines.iter().map(|(label, text)| (*label, one_line(text))).map(|(label, text)| match label {
        "" if lines.len() == 1 => format!("  {text}\n"),
        label => format!("  {label:<9} {text}\n"),
    });
    format!("{}\n{}\n", one_line(title), body.collect::<String>())
}
