//! ChatGLM2 conversation rounds as one prompt.
//!
//! The model was tuned on one text form: numbered rounds, `问` (question) and `答` (answer) with full-width colons, and
//! blank lines between them. This form matches `build_prompt` in the model's Hugging Face code, character for
//! character.

/// One finished round: question and answer.
pub type Round = (String, String);

/// Builds the prompt for the next answer: the finished rounds, then the new question.
///
/// Rounds are counted from 1. Pass the result to [`encode_prompt`](crate::tokenizer::Tokenizer::encode_prompt).
///
/// ```
/// # use glmbench_engine::chat::build_prompt;
/// assert_eq!(build_prompt(&[], "你好"), "[Round 1]\n\n问：你好\n\n答：");
/// ```
pub fn build_prompt(history: &[Round], query: &str) -> String {
    let mut prompt = String::new();
    for (number, (question, answer)) in (1..).zip(history) {
        prompt += &open_round(number, question);
        prompt += answer;
        prompt += "\n\n";
    }
    prompt + &open_round(history.len() + 1, query)
}

/// Formats a round up to its answer.
fn open_round(number: usize, question: &str) -> String {
    format!("[Round {number}]\n\n问：{question}\n\n答：")
}

/// Turns generated text into the answer to show and to keep in the history.
///
/// Trims white space at both ends and replaces the model's placeholder for its training date, `[[训练时间]]`.
pub fn process_response(response: &str) -> String {
    response.trim_matches(is_python_space).replace("[[训练时间]]", "2023年")
}

/// Whether Python's `str.strip` removes `c`: Unicode white space and the four ASCII separators U+001C to U+001F.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_numbered_and_the_last_answer_is_open() {
        let history = [("你好".into(), "您好！".into()), ("a{}b".into(), "c\n".into())];
        assert_eq!(
            build_prompt(&history, "晚上睡不着"),
            "[Round 1]\n\n问：你好\n\n答：您好！\n\n[Round 2]\n\n问：a{}b\n\n答：c\n\n\n[Round 3]\n\n问：晚上睡不着\n\n答："
        );
    }

    #[test]
    fn an_answer_is_stripped_and_its_place_holder_filled() {
        assert_eq!(process_response(" \n\u{3000}截至[[训练时间]]，\u{1f}\t"), "截至2023年，");
        assert_eq!(process_response(""), "");
    }
}
