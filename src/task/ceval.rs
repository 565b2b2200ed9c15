//! C-Eval's protocols.

use super::extract::{self, Extraction, LETTERS};
use super::{
    Ask, ChoiceToken, Definition, Evidence, Judgement, Output, Protocol, Question, Stage, Step, TaskError,
    TextCodec,
};
use super::{all_different, most_probable, output_of, wrong_form};
use crate::dataset::{Answer, CEVAL, Choice, Content, Subject};

/// The published protocol: reason in text, then choose a letter by probability.
pub(super) struct TwoStage;

/// ModelTest's few-shot protocol: read the first character of a short continuation.
pub(super) struct ModelTestFewShot;

/// ModelTest's zero-shot protocol: reason in text, then extract the answer by regular expressions.
pub(super) struct ModelTestZeroShot {
    /// Whether the ladder is the repaired one.
    pub(super) is_fixed: bool,
}

/// Text that the second stage appends to the output of the first.
const CLOSING: &str = "\n综上所述，ABCD中正确的选项是：";

/// The options, in tie-breaking order.
const OPTIONS: [Answer; 4] = [Answer::Choice(0), Answer::Choice(1), Answer::Choice(2), Answer::Choice(3)];

fn choice<'a>(question: &'a Question<'_>) -> Result<&'a Choice, Box<Step>> {
    match &question.item.content {
        Content::Choice(choice) => Ok(choice),
        _ => Err(Box::new(wrong_form("one with four options"))),
    }
}

fn impossible(reason: &str) -> Step {
    Step::Judge(Judgement::Impossible(reason.to_owned()))
}

fn ask(question: &Question<'_>, prompt: String, max_new_tokens: usize, choice_ids: Vec<u32>) -> Step {
    let prompt_ids = question.codec.encode_prompt(&prompt);
    Step::Ask(Ask { prompt, prompt_ids, max_new_tokens, choice_ids, ..Ask::default() })
}

/// Returns ChatGLM2's chat template for a first round.
fn first_round(query: &str) -> String {
    format!("[Round 1]\n\n问：{query}\n\n答：")
}

impl Protocol for TwoStage {
    fn definition(&self) -> &'static Definition {
        static DEFINITION: Definition = Definition {
            name: "two-stage",
            benchmark: &CEVAL,
            about: "the protocol of the published ChatGLM2-6B figures: free reasoning, then the letter by probability",
            prompts: &[
                ("reason", "[Round 1]\n\n问：{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\n\n答："),
                (
                    "choose",
                    "[Round 1]\n\n问：{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}{text of the first stage}\n综上所述，ABCD中正确的选项是：\n\n答：",
                ),
            ],
            shots: 0,
            max_new_tokens: 512,
            choices: "encode(\"A\")[0] … encode(\"D\")[0] without prefix ids, as the published script takes them; one token each, all different",
            extraction: "largest log-probability of the four choice tokens after the second prompt; the first among equals",
            metric: "accuracy: correct / (scored + unscorable); micro over items, macro over subjects",
            source: "THUDM/ChatGLM2-6B evaluation/evaluate_ceval.py; ModelTest ceval_0_shot. Nothing is truncated here: a prompt too long for the model fails its item",
        };
        &DEFINITION
    }

    fn choices(&self, codec: &dyn TextCodec) -> Result<Vec<ChoiceToken>, TaskError> {
        let protocol = self.definition().name;
        let single = |answer: Answer| match codec.encode(&answer.to_string()).as_slice() {
            [id] => Ok(ChoiceToken { answer, id: *id }),
            ids => {
                let message =
                    format!("the tokenizer gives the letter {answer} the ids {ids:?}; expected one token");
                Err(TaskError::Choices { protocol, message })
            }
        };
        all_different(protocol, OPTIONS.into_iter().map(single).collect::<Result<_, _>>()?)
    }

    fn step(&self, question: &Question<'_>, done: &[Stage]) -> Step {
        let choice = match choice(question) {
            Ok(choice) => choice,
            Err(step) => return *step,
        };
        let text = choice.question_and_options();
        match done {
            [] => ask(question, first_round(&text), question.max_new_tokens, Vec::new()),
            [reasoned] => {
                let ids = question.choices.iter().map(|choice| choice.id).collect();
                ask(question, first_round(&format!("{text}{}{CLOSING}", reasoned.text)), 0, ids)
            }
            [.., chosen] => Step::Judge(self.judge(output_of(chosen))),
        }
    }

    fn evidence(&self) -> Evidence {
        Evidence::Choices(OPTIONS.to_vec())
    }

    fn judge(&self, output: Output<'_>) -> Judgement {
        most_probable(&OPTIONS, output.choice_logprobs)
    }
}

impl Protocol for ModelTestFewShot {
    fn definition(&self) -> &'static Definition {
        static DEFINITION: Definition = Definition {
            name: "modeltest-5shot",
            benchmark: &CEVAL,
            about: "ModelTest's few-shot run: English frame, demonstrations from dev, the first character of the continuation",
            prompts: &[
                (
                    "header",
                    "The following are multiple choice questions (with answers) about {subject, each `_`-part with a space before it}.\n\n",
                ),
                ("each demonstration", "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer: {answer}\n\n"),
                ("question", "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\nAnswer:"),
            ],
            shots: 5,
            max_new_tokens: 20,
            choices: "",
            extraction: "first character of the continuation after leading white space; no answer if it is none of A, B, C, D",
            metric: "accuracy: correct / (scored + unscorable); micro over items, macro over subjects",
            source: "MindIE ModelTest full_CEval with shots (two blanks after \"about\" are its own)",
        };
        &DEFINITION
    }

    fn choices(&self, _codec: &dyn TextCodec) -> Result<Vec<ChoiceToken>, TaskError> {
        Ok(Vec::new())
    }

    fn step(&self, question: &Question<'_>, done: &[Stage]) -> Step {
        let choice = match choice(question) {
            Ok(choice) => choice,
            Err(step) => return *step,
        };
        let [answered, ..] = done else {
            let prompt = few_shot_prompt(question, choice);
            return ask(question, prompt, question.max_new_tokens, Vec::new());
        };
        Step::Judge(self.judge(output_of(answered)))
    }

    fn evidence(&self) -> Evidence {
        Evidence::Text
    }

    fn judge(&self, output: Output<'_>) -> Judgement {
        match output.text.trim_start().chars().next() {
            None => Judgement::Unreadable("the continuation is empty; expected a letter".into()),
            Some(first) => match LETTERS.iter().position(|letter| letter.starts_with(first)) {
                Some(option) => Judgement::Answer {
                    pred: Answer::Choice(option),
                    choice_logprobs: Vec::new(),
                    rule: "first character".into(),
                },
                None => Judgement::Unreadable(format!(
                    "the continuation starts with {first:?}; expected A, B, C or D"
                )),
            },
        }
    }
}

fn few_shot_prompt(question: &Question<'_>, choice: &Choice) -> String {
    let mut prompt = String::from("The following are multiple choice questions (with answers) about ");
    for part in question.subject.key.split('_') {
        prompt.push(' ');
        prompt.push_str(part);
    }
    prompt.push_str(".\n\n");
    for shot in question.shots {
        if let (Content::Choice(example), Some(answer)) = (&shot.content, shot.gold()) {
            prompt.push_str(&example.question_and_options());
            prompt.push_str("\nAnswer: ");
            prompt.push_str(&answer.to_string());
            prompt.push_str("\n\n");
        }
    }
    prompt.push_str(&choice.question_and_options());
    prompt.push_str("\nAnswer:");
    prompt
}

impl Protocol for ModelTestZeroShot {
    fn definition(&self) -> &'static Definition {
        static DEFINITION: Definition = Definition {
            name: "modeltest-0shot",
            benchmark: &CEVAL,
            about: "ModelTest's newer zero-shot run: Chinese frame, free text, the answer by a ladder of regular expressions",
            prompts: &[(
                "question",
                "\n以下是中国关于{Chinese name of the subject}考试的单项选择题，请选出其中的正确答案。\n{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\n让我们一步一步思考。答案: ",
            )],
            shots: 0,
            max_new_tokens: 256,
            choices: "",
            extraction: extract::LADDER_ABOUT,
            metric: "accuracy: correct / (scored + unscorable); micro over items, macro over subjects",
            source: "MindIE ModelTest (newer) ceval without shots; the ladder is that of OpenCompass' first_option_postprocess as ModelTest has it",
        };
        static FIXED: Definition = Definition {
            name: "modeltest-0shot-fixed",
            about: "ModelTest's newer zero-shot run with a repaired ladder: two patterns that its source runs together are apart",
            extraction: extract::FIXED_ABOUT,
            source: "MindIE ModelTest (newer) ceval without shots, with the comma that its ladder lacks",
            ..DEFINITION
        };
        if self.is_fixed { &FIXED } else { &DEFINITION }
    }

    fn choices(&self, _codec: &dyn TextCodec) -> Result<Vec<ChoiceToken>, TaskError> {
        Ok(Vec::new())
    }

    fn accepts(&self, subject: &Subject) -> Result<(), String> {
        match subject.chinese_name {
            Some(_) => Ok(()),
            None => Err(format!(
                "the subject `{}` has no Chinese name; expected one in subject_mapping.json",
                subject.key
            )),
        }
    }

    fn step(&self, question: &Question<'_>, done: &[Stage]) -> Step {
        let choice = match choice(question) {
            Ok(choice) => choice,
            Err(step) => return *step,
        };
        let Some(name) = &question.subject.chinese_name else {
            return impossible("the subject has no Chinese name");
        };
        let [answered, ..] = done else {
            let text = choice.question_and_options();
            let prompt = format!(
                "\n以下是中国关于{name}考试的单项选择题，请选出其中的正确答案。\n{text}\n让我们一步一步思考。答案: "
            );
            return ask(question, prompt, question.max_new_tokens, Vec::new());
        };
        Step::Judge(self.judge(output_of(answered)))
    }

    fn evidence(&self) -> Evidence {
        Evidence::Text
    }

    fn last_rule(&self) -> Option<String> {
        let ladder = self.ladder();
        Some(rule_name(&ladder, ladder.len() - 1))
    }

    fn judge(&self, output: Output<'_>) -> Judgement {
        let find = if self.is_fixed { extract::first_option_fixed } else { extract::first_option };
        match find(output.text) {
            Some(Extraction { letter, rule }) => Judgement::Answer {
                pred: Answer::Choice(letter),
                choice_logprobs: Vec::new(),
                rule: rule_name(&self.ladder(), rule),
            },
            None => Judgement::Unreadable("no rule finds a letter in the text".into()),
        }
    }
}

/// Returns the name of a ladder rule, as recorded with an answer.
fn rule_name(ladder: &[&str], rule: usize) -> String {
    format!("rule {}: {}", rule + 1, ladder[rule])
}

impl ModelTestZeroShot {
    fn ladder(&self) -> Vec<&'static str> {
        if self.is_fixed { extract::fixed_ladder() } else { extract::LADDER.to_vec() }
    }
}
