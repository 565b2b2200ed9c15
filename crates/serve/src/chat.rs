//! A chat's messages as one prompt.

use glmbench_engine::chat::{Round, build_prompt};

use crate::app::App;
use crate::error::ApiError;
use crate::wire::openai::Message;

/// Returns the prompt of a chat.
///
/// ChatGLM2 knows questions and answers only. Its system message goes before the first question, as a paragraph of its
/// own. Messages of one role in a row become one, with a line end between them. A model without `[gMASK]` has no form
/// of a chat here: its single message is continued as it is.
///
/// # Errors
/// There is no message, a role is unknown, or the last message is not the user's.
pub(crate) fn prompt(app: &App, messages: Vec<Message>) -> Result<String, ApiError> {
    let rounds = !app.model.tokenizer.prefix_ids().is_empty();
    build(messages, rounds)
}

fn build(messages: Vec<Message>, rounds: bool) -> Result<String, ApiError> {
    let wrong = |message: String| ApiError::invalid("messages", message);
    let (mut system, mut turns) = (String::new(), Vec::<(bool, String)>::new());
    for (place, message) in messages.into_iter().enumerate() {
        if message.tool_calls.is_some_and(|calls| !calls.is_nothing()) {
            return Err(wrong(format!(
                "messages[{place}] has tool_calls, which this server does not support"
            )));
        }
        let text = message.content.unwrap_or_default().0;
        let is_user = match message.role.as_deref() {
            Some("user") => true,
            Some("assistant") => false,
            Some("system" | "developer") => {
                join(&mut system, &text);
                continue;
            }
            role => {
                let role: String = role.unwrap_or("missing").chars().take(40).collect();
                return Err(wrong(format!(
                    "messages[{place}].role is {role}, expected system, user or assistant"
                )));
            }
        };
        match turns.last_mut() {
            Some((last, known)) if *last == is_user => join(known, &text),
            _ => turns.push((is_user, text)),
        }
    }
    if !turns.first().is_some_and(|(is_user, _)| *is_user) {
        return Err(wrong("messages begin without one of the user".into()));
    }
    let Some((true, question)) = turns.pop() else {
        return Err(wrong("the last message is the assistant's, expected the user's".into()));
    };
    let mut history: Vec<Round> =
        turns.chunks(2).map(|pair| (pair[0].1.clone(), pair[1].1.clone())).collect();
    let mut question = question;
    if !system.is_empty() {
        let first = history.first_mut().map_or(&mut question, |round| &mut round.0);
        *first = format!("{system}\n\n{first}");
    }
    if rounds {
        return Ok(build_prompt(&history, &question));
    }
    if history.is_empty() {
        return Ok(question);
    }
    Err(wrong("the model has no chat template, so it takes a single question; use /v1/completions".into()))
}

fn join(to: &mut String, text: &str) {
    if !to.is_empty() && !text.is_empty() {
        to.push('\n');
    }
    to.push_str(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(json: &str, rounds: bool) -> Result<String, String> {
        build(serde_json::from_str(json).unwrap(), rounds).map_err(|error| error.message)
    }

    #[test]
    fn a_chat_becomes_rounds() {
        let chat = r#"[{"role":"system","content":"Be brief."},{"role":"user","content":"a"},
            {"role":"assistant","content":"b"},{"role":"user","content":[{"type":"text","text":"c"},{"type":"text","text":"d"}]}]"#;
        assert_eq!(
            built(chat, true).unwrap(),
            "[Round 1]\n\n问：Be brief.\n\na\n\n答：b\n\n[Round 2]\n\n问：cd\n\n答："
        );
        assert!(built(chat, false).unwrap_err().contains("no chat template"));
        assert_eq!(
            built(r#"[{"role":"system","content":""},{"role":"user","content":"a"}]"#, false).unwrap(),
            "a"
        );
    }

    #[test]
    fn what_is_no_chat_is_refused() {
        for (chat, words) in [
            ("[]", "without one of the user"),
            (r#"[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]"#, "the last message"),
            (r#"[{"role":"tool","content":"a"}]"#, "messages[0].role is tool"),
            (r#"[{"content":"a"}]"#, "role is missing"),
            (r#"[{"role":"user","content":"a","tool_calls":[{}]}]"#, "tool_calls"),
        ] {
            let message = built(chat, true).unwrap_err();
            assert!(message.contains(words), "{chat}: {message}");
        }
    }
}
