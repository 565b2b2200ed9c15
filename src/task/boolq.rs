//! BoolQ's protocols.

use super::{
    Ask, ChoiceToken, Definition, Evidence, Judgement, Output, Protocol, Question, Stage, Step, TaskError,
    TextCodec,
};
use super::{all_different, most_probable, output_of, wrong_form};
use crate::dataset::{Answer, BOOLQ, Content, YesNo};

/// ModelTest's protocol: one forward pass, two fixed tokens.
pub(super) struct ModelTest;

/// lm-eval's protocol: log-likelihood of the continuations ` no` and ` yes`, each of any number of tokens.
pub(super) struct LogLikelihood;

/// The choices in tie-breaking order: `no` first, since both sources answer a tie with no.
const ANSWERS: [Answer; 2] = [Answer::Boolean(false), Answer::Boolean(true)];

const PROMPT: &str = "{title} -- {passage}\nQuestion: {question}?\nAnswer:";

fn prompt(question: &Question<'_>) -> Result<String, Box<Step>> {
    let Content::YesNo(YesNo { title, passage, question, .. }) = &question.item.content else {
        return Err(Box::new(wrong_form("a yes/no question")));
    };
    Ok(format!("{title} -- {passage}\nQuestion: {question}?\nAnswer:"))
}

impl Protocol for ModelTest {
    fn definition(&self) -> &'static Definition {
        static DEFINITION: Definition = Definition {
            name: "modeltest",
            benchmark: &BOOLQ,
            about: "ModelTest's run: one forward pass, the more probable of two tokens",
            prompts: &[("question", PROMPT)],
            shots: 0,
            max_new_tokens: 0,
            choices: "the last token of \"How can we learning machine learning: yes\" and of \"…: no\", without prefix ids; the whole answer must be that one token",
            extraction: "yes if its log-probability after the prompt is larger than that of no",
            metric: "accuracy: correct / (scored + unscorable)",
            source: "MindIE ModelTest full_BoolQ",
        };
        &DEFINITION
    }

    fn choices(&self, codec: &dyn TextCodec) -> Result<Vec<ChoiceToken>, TaskError> {
        let protocol = self.definition().name;
        let stem = "How can we learning machine learning:";
        let before = codec.encode(stem);
        let last = |answer: Answer| {
            let ids = codec.encode(&format!("{stem} {answer}"));
            let Some([id]) = ids.strip_prefix(before.as_slice()) else {
                let message = format!(
                    "the tokenizer splits \"{stem} {answer}\" into {ids:?}; expected the ids of \"{stem}\" {before:?} and one more"
                );
                return Err(TaskError::Choices { protocol, message });
            };
            Ok(ChoiceToken { answer, id: *id })
        };
        all_different(protocol, ANSWERS.into_iter().map(last).collect::<Result<_, _>>()?)
    }

    fn step(&self, question: &Question<'_>, done: &[Stage]) -> Step {
        if let [answered, ..] = done {
            return Step::Judge(self.judge(output_of(answered)));
        }
        match prompt(question) {
            Ok(prompt) => {
                let prompt_ids = question.codec.encode_prompt(&prompt);
                let choice_ids = question.choices.iter().map(|choice| choice.id).collect();
                Step::Ask(Ask { prompt, prompt_ids, choice_ids, ..Ask::default() })
            }
            Err(step) => *step,
        }
    }

    fn evidence(&self) -> Evidence {
        Evidence::Choices(ANSWERS.to_vec())
    }

    fn judge(&self, output: Output<'_>) -> Judgement {
        most_probable(&ANSWERS, output.choice_logprobs)
    }
}

impl Protocol for LogLikelihood {
    fn definition(&self) -> &'static Definition {
        static DEFINITION: Definition = Definition {
            name: "loglikelihood",
            benchmark: &BOOLQ,
            about: "lm-eval's task `boolq` on the official release: the likelier of two continuations",
            prompts: &[("question", PROMPT)],
            shots: 0,
            max_new_tokens: 0,
            choices: "continuations \" no\" and \" yes\": encode(prompt + continuation) cut at the length of encode(prompt). A continuation of several tokens is the sum over them, with one forward pass for each token after the first",
            extraction: "the continuation of the larger log-likelihood; no if equal",
            metric: "accuracy: correct / (scored + unscorable)",
            source: "lm-evaluation-harness task boolq v2 (there `{passage}` is SuperGLUE's, which starts with the title already)",
        };
        &DEFINITION
    }

    fn choices(&self, codec: &dyn TextCodec) -> Result<Vec<ChoiceToken>, TaskError> {
        // Scored tokens come from each whole prompt. These tokens, after the prompt's last word, are for the run
        // header.
        let protocol = self.definition().name;
        let before = codec.encode("Answer:");
        let first = |answer: Answer| {
            let ids = codec.encode(&format!("Answer: {answer}"));
            let Some([id, ..]) = ids.strip_prefix(before.as_slice()) else {
                let message = format!(
                    "the tokenizer splits \"Answer: {answer}\" into {ids:?}; expected the ids of \"Answer:\" {before:?} and more"
                );
                return Err(TaskError::Choices { protocol, message });
            };
            Ok(ChoiceToken { answer, id: *id })
        };
        ANSWERS.into_iter().map(first).collect()
    }

    /// The first stage asks for the first tokens of both continuations. Then comes one stage for each further token of
    /// ` no`, and of ` yes`.
    fn step(&self, question: &Question<'_>, done: &[Stage]) -> Step {
        let prompt = match prompt(question) {
            Ok(prompt) => prompt,
            Err(step) => return *step,
        };
        let context = question.codec.encode_prompt(&prompt);
        let mut continuations = Vec::new();
        for answer in &ANSWERS {
            let whole = question.codec.encode_prompt(&format!("{prompt} {answer}"));
            match whole.strip_prefix(context.as_slice()) {
                Some(ids) if !ids.is_empty() => continuations.push(ids.to_vec()),
                _ => {
                    let reason = format!(
                        "the tokenizer joins the prompt's end with \" {answer}\"; it cannot be cut there"
                    );
                    return Step::Judge(Judgement::Impossible(reason));
                }
            }
        }
        let Some(stage) = done.len().checked_sub(1) else {
            let choice_ids = continuations.iter().map(|ids| ids[0]).collect();
            return Step::Ask(Ask { prompt, prompt_ids: context, choice_ids, ..Ask::default() });
        };
        let further: Vec<(usize, usize)> =
            (0..ANSWERS.len()).flat_map(|c| (1..continuations[c].len()).map(move |t| (c, t))).collect();
        if let Some(&(c, t)) = further.get(stage) {
            let ids = &continuations[c];
            let mut prompt_ids = context;
            prompt_ids.extend(&ids[..t]);
            let prompt = format!("{prompt}{}", question.codec.decode(&ids[..t]));
            return Step::Ask(Ask { prompt, prompt_ids, choice_ids: vec![ids[t]], ..Ask::default() });
        }
        let mut sums = done[0].choice_logprobs.clone();
        for (&(c, _), stage) in further.iter().zip(&done[1..]) {
            sums[c] += stage.choice_logprobs[0];
        }
        Step::Judge(self.judge(Output { text: "", choice_logprobs: &sums }))
    }

    fn evidence(&self) -> Evidence {
        Evidence::Choices(ANSWERS.to_vec())
    }

    fn judge(&self, output: Output<'_>) -> Judgement {
        most_probable(&ANSWERS, output.choice_logprobs)
    }
}
