//! Reads `[[protocol.stage]]` of a task file.

use super::judged::Judged;
use super::measure::Normalisation;
use super::parse::{Reader, UNCONDITIONAL};
use crate::dataset::file::{AnswerKind, literals};
use crate::document::DocumentError;
use crate::document::table::{Table, count, found, optional_count, string, tables, word};
use crate::document::tree::{Node, Value};

/// Most stages of a protocol.
const MOST_STAGES: usize = 8;
/// Most tokens that a stage may ask for.
const MOST_NEW_TOKENS: usize = 1 << 16;

/// A stage: one template, and what is asked after it.
#[derive(Debug)]
pub(super) struct StageSpec {
    /// Name of its template.
    pub(super) prompt: String,
    pub(super) kind: StageKind,
    /// Most tokens of the prompt; a longer one keeps its two ends.
    pub(super) keep_ends: Option<usize>,
    /// Names of the templates before and after a prompt that may have been cut.
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// What a stage asks for.
#[derive(Debug)]
pub(super) enum StageKind {
    /// Generate a text.
    Generate {
        /// Limit in tokens; the largest if items have their own.
        max_new_tokens: usize,
        /// Field with an item's own limit.
        limit_field: Option<String>,
        /// Texts that end it.
        stop: Vec<String>,
    },
    /// Compare tokens.
    Tokens(Tokens),
    /// Compare continuations of any length.
    Continuations(Continuations),
    /// Score the text itself.
    Likelihood(Likelihood),
}

/// How a text is cut to be scored.
#[derive(Debug)]
pub(super) struct Likelihood {
    /// With [`Scored::All`], the most tokens scored at once. With [`Scored::SecondHalf`], the length of a window in tokens.
    pub(super) window: usize,
    pub(super) scored: Scored,
}

/// The tokens of a text that are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scored {
    /// All, each once.
    All,
    /// Those in the second half of each window. The first half is their context, and a last window that is not full is left out.
    SecondHalf,
}

impl Likelihood {
    fn parse(table: &mut Table) -> Result<Self, DocumentError> {
        const SCORED: [&str; 2] = ["all", "second-half"];
        let window = table.require("window", "the number of tokens of a window")?;
        let scored = match table.take("scored") {
            Some(node) => word(&node, &SCORED, |word| match word {
                "all" => Some(Scored::All),
                "second-half" => Some(Scored::SecondHalf),
                _ => None,
            })?,
            None => Scored::All,
        };
        // The fourth token is the first that the second half of a window scores.
        let least = if scored == Scored::All { 2 } else { 4 };
        Ok(Self { window: count(&window, least)? as usize, scored })
    }
}

/// Tokens to compare.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Their texts, in the order of the answers.
    pub(super) ids: Vec<String>,
    /// The text after which each is one token.
    pub(super) after: String,
}

/// Continuations to compare.
#[derive(Debug)]
pub(super) struct Continuations {
    /// Name of the template of a continuation.
    pub(super) template: String,
    pub(super) normalisation: Normalisation,
    /// Whether there is a template of the prompt without the question.
    pub(super) unconditional: bool,
    /// Tokens at the beginning of a continuation that do not count.
    pub(super) skip: usize,
}

/// Reads all stages of a protocol.
pub(super) fn stages(
    table: &mut Table,
    templates: &mut Reader,
    kind: AnswerKind,
    judged: &Judged,
) -> Result<Vec<StageSpec>, DocumentError> {
    let origin = table.origin.clone();
    let all = tables(table, "stage")?;
    if all.is_empty() || all.len() > MOST_STAGES {
        let message = format!("found {} stages; expected 1 to {MOST_STAGES} [[protocol.stage]]", all.len());
        return Err(DocumentError::at(&origin, message));
    }
    let last = all.len() - 1;
    let stages: Vec<StageSpec> = all
        .into_iter()
        .enumerate()
        .map(|(index, stage)| one_stage(stage, index, templates, (kind, index == last, judged)))
        .collect::<Result<_, _>>()?;
    Ok(stages)
}

fn one_stage(
    mut table: Table,
    index: usize,
    templates: &mut Reader,
    (answers, is_last, judged): (AnswerKind, bool, &Judged),
) -> Result<StageSpec, DocumentError> {
    const KINDS: [&str; 4] = ["generate", "tokens", "continuations", "likelihood"];
    let kind_node = table.require("kind", &format!("one of {}", KINDS.join(", ")))?;
    let kind = word(&kind_node, &KINDS, |word| KINDS.iter().copied().find(|known| *known == word))?;
    let purpose = match table.take("name") {
        Some(node) => string(&node)?,
        None if index == 0 => "question".to_owned(),
        None => format!("stage {}", index + 1),
    };
    let prompt = format!("prompt {index}");
    let earlier: &[&str] = if index > 0 { &["texts"] } else { &[] };
    let node = table.require("prompt", "the template of the prompt")?;
    templates.add(&node, &prompt, &purpose, earlier)?;
    if kind != "generate" && !is_last {
        return Err(found(
            &kind_node,
            &format!("a stage of kind {kind:?} before another"),
            "it at the end: its choice is the answer",
        ));
    }
    match judged {
        Judged::Key if (kind == "likelihood") != (answers == AnswerKind::None) => {
            return Err(found(
                &kind_node,
                &format!("a stage of kind {kind:?}"),
                "\"likelihood\" exactly with data whose answers are of the kind none and without `score` and `run`",
            ));
        }
        Judged::Score(_) | Judged::Run(_) if kind != "generate" => {
            return Err(found(
                &kind_node,
                &format!("a stage of kind {kind:?}"),
                "\"generate\": `score` and `run` take a text",
            ));
        }
        _ => {}
    }
    if ["tokens", "continuations"].contains(&kind)
        && !matches!(answers, AnswerKind::Choice | AnswerKind::Boolean)
    {
        return Err(found(
            &kind_node,
            &format!("a stage of kind {kind:?}"),
            "data whose answers are of the kind choice or boolean",
        ));
    }
    let kind = match kind {
        "generate" => {
            let (max_new_tokens, limit_field) = limit(&mut table, templates)?;
            let stop =
                table.take("stop").map(|node| literals(node, "texts that end the answer")).transpose()?;
            StageKind::Generate { max_new_tokens, limit_field, stop: stop.unwrap_or_default() }
        }
        "likelihood" => StageKind::Likelihood(Likelihood::parse(&mut table)?),
        "tokens" => {
            let node = table.require("tokens", "the texts of the tokens to compare")?;
            let ids = literals(node.clone(), "texts of tokens")?;
            if answers == AnswerKind::Boolean && ids.len() != 2 {
                return Err(found(&node, &format!("{} tokens", ids.len()), "two: those of no and yes"));
            }
            let after = table.take("after").map(|node| string(&node)).transpose()?.unwrap_or_default();
            StageKind::Tokens(Tokens { ids, after })
        }
        _ => {
            if answers == AnswerKind::Boolean {
                return Err(found(
                    &kind_node,
                    "continuations",
                    "data whose answers are of the kind choice; a yes/no question has the options no and yes",
                ));
            }
            let node = table.require("continuation", "the template of a continuation")?;
            templates.add(&node, "continuation", "each continuation", &["option", "index", "texts"])?;
            let normalisation = Normalisation::parse(&mut table)?;
            let unconditional =
                templates.optional(&mut table, UNCONDITIONAL, "prompt without the question", &[])?;
            if normalisation == Normalisation::Unconditional && !unconditional {
                return Err(table.missing(UNCONDITIONAL, "the template of a prompt without the question"));
            }
            let skip = optional_count(&mut table, "skip", 0)?.unwrap_or(0);
            StageKind::Continuations(Continuations {
                template: "continuation".to_owned(),
                normalisation,
                unconditional,
                skip,
            })
        }
    };
    let (keep_ends, before, after) = ends(&mut table, index, templates)?;
    table.finish()?;
    Ok(StageSpec { prompt, kind, keep_ends, before, after })
}

/// Reads `max_new_tokens`: a number, or a table. The table has a field with the number for each item, and the most that occurs.
fn limit(table: &mut Table, templates: &Reader) -> Result<(usize, Option<String>), DocumentError> {
    let node = table.require("max_new_tokens", "the limit of generated tokens")?;
    let checked = |node: &Node| match count(node, 1)? as usize {
        many if many > MOST_NEW_TOKENS => {
            Err(found(node, &many.to_string(), &format!("{MOST_NEW_TOKENS} at most")))
        }
        fits => Ok(fits),
    };
    if !matches!(node.value, Value::Table(_)) {
        return Ok((checked(&node)?, None));
    }
    let mut own = Table::new(node)?;
    let field_node = own.require("field", "the field with an item's own limit")?;
    let known = templates.names();
    let field = word(&field_node, &known, |name| known.contains(&name).then(|| name.to_owned()))?;
    let most = checked(&own.require("most", "the largest of the items' limits")?)?;
    own.finish()?;
    Ok((most, Some(field)))
}

/// Reads what is done with a prompt that may be too long.
type Ends = (Option<usize>, Option<String>, Option<String>);

fn ends(table: &mut Table, index: usize, templates: &mut Reader) -> Result<Ends, DocumentError> {
    let keep_ends = optional_count(table, "keep_ends", 2)?;
    let mut around = |table: &mut Table, key: &'static str| -> Result<Option<String>, DocumentError> {
        let Some(node) = table.take(key) else { return Ok(None) };
        if keep_ends.is_none() {
            return Err(found(
                &node,
                &format!("`{key}`"),
                "it beside `keep_ends` only; else it belongs to `prompt`",
            ));
        }
        let name = format!("{key} {index}");
        templates.add(&node, &name, &format!("{key} the prompt"), &[])?;
        Ok(Some(name))
    };
    let before = around(table, "before_prompt")?;
    let after = around(table, "after_prompt")?;
    Ok((keep_ends, before, after))
}
