//! A protocol for tests, of the benchmark [`TOY_SUMS`]. It shows what a new protocol has to write.

use super::{
    Ask, ChoiceToken, Definition, Evidence, Judgement, Output, Protocol, Question, Stage, Step, TaskError,
    TextCodec,
};
use super::{output_of, wrong_form};
use crate::dataset::{Answer, Content, Number, TOY_SUMS};

/// Shows an example, lets the model write, and reads the last number.
pub(super) struct LastNumber;

impl Protocol for LastNumber {
    fn definition(&self) -> &'static Definition {
        static DEFINITION: Definition = Definition {
            name: "last-number",
            benchmark: &TOY_SUMS,
            about: "an example, a short text, the last number of the text",
            prompts: &[("each demonstration", "{question} = {answer}\n"), ("question", "{question} =")],
            shots: 1,
            max_new_tokens: 16,
            choices: "",
            extraction: "the last number of the text",
            metric: "accuracy: correct / (scored + unscorable)",
            source: "this repository's tests",
        };
        &DEFINITION
    }

    fn choices(&self, _codec: &dyn TextCodec) -> Result<Vec<ChoiceToken>, TaskError> {
        Ok(Vec::new())
    }

    fn evidence(&self) -> Evidence {
        Evidence::Text
    }

    fn judge(&self, output: Output<'_>) -> Judgement {
        let words = output.text.split_whitespace().rev();
        match words.filter_map(|word| word.parse().ok()).find_map(Number::new) {
            Some(number) => Judgement::Answer {
                pred: Answer::Number(number),
                choice_logprobs: Vec::new(),
                rule: "last number".into(),
            },
            None => Judgement::Unreadable("the text has no number; expected one".into()),
        }
    }

    fn step(&self, question: &Question<'_>, done: &[Stage]) -> Step {
        if let [answered, ..] = done {
            return Step::Judge(self.judge(output_of(answered)));
        }
        let mut prompt = String::new();
        for shot in question.shots {
            if let (Content::Fields(fields), Some(answer)) = (&shot.content, shot.gold()) {
                prompt += &format!("{} = {answer}\n", fields.texts["question"]);
            }
        }
        let Content::Fields(fields) = &question.item.content else {
            return wrong_form("one of named texts");
        };
        prompt += &format!("{} =", fields.texts["question"]);
        let prompt_ids = question.codec.encode_prompt(&prompt);
        Step::Ask(Ask { prompt, prompt_ids, max_new_tokens: question.max_new_tokens, ..Ask::default() })
    }
}
