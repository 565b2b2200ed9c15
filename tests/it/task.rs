//! Protocols: prompts as in the sources, the order of questions, and the name of each outcome.

use std::collections::BTreeSet;
use std::path::Path;

use glmbench::dataset::{Answer, BOOLQ, Benchmark, CEVAL, Source};
use glmbench::task::{
    self, ChoiceToken, Evaluation, Next, Outcome, Plan, Protocol, Settings, State, TaskError, TextCodec,
    extract,
};
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{Completion, FinishReason};
use tempfile::TempDir;

use crate::dataset::{folder, real};

/// One id per character (its code point), with `[1, 2]` before prompts. Words in `pieces` are one id each.
struct Toy {
    pieces: &'static [(&'static str, u32)],
}

const PLAIN: Toy = Toy { pieces: &[(" yes", 9_000_001), (" no", 9_000_002)] };
/// Here ` yes` is ` y` + `es`: a continuation of two tokens.
const SPLIT: Toy = Toy { pieces: &[(" y", 9_000_003), ("es", 9_000_004), (" no", 9_000_002)] };

impl TextCodec for Toy {
    fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            // Matches pieces only at the end of a text, so that prompts keep one id per character.
            let piece = self.pieces.iter().find(|(piece, _)| {
                let after = rest.strip_prefix(piece);
                after.is_some_and(|after| after.is_empty() || self.pieces.iter().any(|(p, _)| *p == after))
            });
            let (id, taken) = piece.map_or((c as u32, c.len_utf8()), |(piece, id)| (*id, piece.len()));
            ids.push(id);
            rest = &rest[taken..];
        }
        ids
    }

    fn encode_prompt(&self, text: &str) -> Vec<u32> {
        let mut ids = vec![1, 2];
        ids.extend(self.encode(text));
        ids
    }

    fn decode(&self, ids: &[u32]) -> String {
        let piece = |id: u32| self.pieces.iter().find(|(_, i)| *i == id).map(|(text, _)| (*text).to_owned());
        ids.iter().map(|&id| piece(id).unwrap_or_else(|| char::from_u32(id).unwrap().to_string())).collect()
    }
}

/// A small C-Eval folder: law with two questions, one dev item, Chinese name 法学, and a second subject.
fn ceval() -> TempDir {
    folder(&[
        ("subject_mapping.json", r#"{"law": ["Law", "法学", "Humanities"], "civil_servant": ["Civil Servant", "公务员", "Other"]}"#.as_bytes()),
        ("dev/law_dev.csv", "id,question,A,B,C,D,answer,explanation\n0,例题____。,甲,乙,丙,丁,B,\"1. 因为\n2. 所以\"\n".as_bytes()),
        ("dev/civil_servant_dev.csv", "id,question,A,B,C,D,answer,explanation\n0,问,一,二,三,四,D,无\n".as_bytes()),
        ("val/law_val.csv", "id,question,A,B,C,D,answer\n0,下列能够成立的是____。,演绎,归纳,类比,辩证,C\n1,第二题____。,a,b,c,d,A\n".as_bytes()),
        ("val/civil_servant_val.csv", "id,question,A,B,C,D,answer\n0,\"多行\n题目____。\",子,丑,寅,卯,D\n".as_bytes()),
        ("test/law_test.csv", "id,question,A,B,C,D\n0,无答案,a,b,c,d\n".as_bytes()),
        ("test/civil_servant_test.csv", "id,question,A,B,C,D\n".as_bytes()),
    ])
}

fn boolq() -> TempDir {
    let row = r#"{"question": "is the moon made of cheese", "title": "Moon", "answer": false, "passage": "The Moon is rock."}"#;
    folder(&[("dev.jsonl", row.as_bytes())])
}

fn settings(split: &str) -> Settings {
    Settings { split: split.into(), ..Settings::default() }
}

fn plan(
    benchmark: &'static Benchmark,
    protocol: &str,
    dir: &Path,
    settings: &Settings,
) -> Result<Plan, TaskError> {
    Plan::new(task::find(benchmark, protocol).unwrap(), &Source::open(benchmark, dir).unwrap(), settings)
}

fn evaluation<'a>(
    benchmark: &'static Benchmark,
    protocol: &str,
    dir: &Path,
    settings: &Settings,
    codec: &'a Toy,
) -> Evaluation<'a> {
    Evaluation::new(plan(benchmark, protocol, dir, settings).unwrap(), codec, 4096).unwrap()
}

/// The model's answer to a prompt: generated text, and one log-probability per requested choice.
type Model<'a> = &'a mut dyn FnMut(&str, &[u32]) -> (String, Vec<f32>);

/// Drives one item to its end.
fn drive(evaluation: &Evaluation<'_>, index: usize, codec: &Toy, model: Model<'_>) -> Outcome {
    let (mut progress, mut next) = evaluation.start(index);
    loop {
        match next {
            Next::Done(outcome) => return outcome,
            Next::Ask(request) => {
                assert_eq!(request.prompt[..2], [1, 2]);
                let (text, choice_logprobs) = model(&codec.decode(&request.prompt[2..]), &request.choice_ids);
                let tokens = text.chars().map(|c| c as u32).collect();
                let finish = FinishReason::Eos;
                let completion = Completion {
                    id: 0,
                    tokens,
                    text: None,
                    choice_logprobs,
                    prompt_logprobs: vec![],
                    finish,
                    start_ns: 1,
                    end_ns: 2,
                };
                next = evaluation.advance(&mut progress, &completion);
            }
        }
    }
}

const QUESTION: &str = "下列能够成立的是____。\nA. 演绎\nB. 归纳\nC. 类比\nD. 辩证";

/// What the lists of benchmarks and protocols must keep: records and files refer to their entries by name.
#[test]
fn the_lists_have_distinct_names_and_known_splits() {
    let mut names: Vec<&str> = Benchmark::names();
    for benchmark in Benchmark::all() {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        assert!(benchmark.name.chars().all(plain), "{benchmark}");
        for split in [benchmark.default_split, benchmark.demonstration_split] {
            assert!(benchmark.splits.contains(&split), "{benchmark}: {split}");
        }
        names.extend(benchmark.layouts.iter().map(|layout| layout.name()));
        assert!(task::protocols_of(benchmark).count() > 0, "{benchmark}");
    }
    let of = |protocol: &&dyn Protocol| (protocol.definition().benchmark.name, protocol.definition().name);
    let protocols: Vec<(&str, &str)> = task::protocols().iter().map(of).collect();
    assert!(protocols.iter().all(|(_, name)| !name.contains('/')), "{protocols:?}");
    let count = (names.len(), protocols.len());
    let distinct = (BTreeSet::from_iter(names).len(), BTreeSet::from_iter(protocols).len());
    assert_eq!(count, distinct);
}

#[test]
fn two_stage_asks_what_the_published_script_asks() {
    let dir = ceval();
    let evaluation = evaluation(&CEVAL, "two-stage", dir.path(), &settings("val"), &PLAIN);
    assert_eq!(evaluation.choices().iter().map(|c| c.id).collect::<Vec<_>>(), [65, 66, 67, 68]);
    let mut prompts = Vec::new();
    let outcome = drive(&evaluation, 1, &PLAIN, &mut |prompt, choices| {
        prompts.push(prompt.to_owned());
        match choices {
            [] => ("想一想。".into(), vec![]),
            _ => (String::new(), vec![-2.0, -1.5, -0.5, -3.0]),
        }
    });
    assert_eq!(prompts[0], format!("[Round 1]\n\n问：{QUESTION}\n\n答："));
    assert_eq!(
        prompts[1],
        format!("[Round 1]\n\n问：{QUESTION}想一想。\n综上所述，ABCD中正确的选项是：\n\n答：")
    );
    assert_eq!(prompts.len(), 2);
    assert_eq!((outcome.doc_id.as_str(), outcome.state.clone()), ("ceval/val/law/0", State::Scored));
    assert_eq!(
        (&outcome.pred, &outcome.gold, outcome.is_correct()),
        (&Some(Answer::Choice(2)), &Answer::Choice(2), true)
    );
    assert_eq!((outcome.margin, outcome.text().as_str()), (Some(1.0), "想一想。"));
}

#[test]
fn two_stage_generates_up_to_512_tokens_greedily_and_then_none() {
    let dir = ceval();
    let evaluation = evaluation(&CEVAL, "two-stage", dir.path(), &settings("val"), &PLAIN);
    let (mut progress, next) = evaluation.start(0);
    let Next::Ask(request) = next else { panic!("{next:?}") };
    assert_eq!((request.max_new_tokens, request.ignore_eos, request.choice_ids.len()), (512, false, 0));
    let finish = FinishReason::Eos;
    let silent = Completion {
        id: 0,
        tokens: vec![],
        text: None,
        choice_logprobs: vec![],
        prompt_logprobs: vec![],
        finish,
        start_ns: 0,
        end_ns: 0,
    };
    let Next::Ask(request) = evaluation.advance(&mut progress, &silent) else { panic!() };
    assert_eq!((request.max_new_tokens, request.choice_ids), (0, vec![65, 66, 67, 68]));
}

#[test]
fn modeltest_few_shot_has_its_frame_word_for_word() {
    let dir = ceval();
    let one = Settings { shots: Some(1), ..settings("val") };
    let evaluation = evaluation(&CEVAL, "modeltest-5shot", dir.path(), &one, &PLAIN);
    let mut prompts = Vec::new();
    for index in 0..3 {
        drive(&evaluation, index, &PLAIN, &mut |prompt, _| {
            prompts.push(prompt.to_owned());
            ("C".into(), vec![])
        });
    }
    let civil = "The following are multiple choice questions (with answers) about  civil servant.\n\n\
                 问\nA. 一\nB. 二\nC. 三\nD. 四\nAnswer: D\n\n多行\n题目____。\nA. 子\nB. 丑\nC. 寅\nD. 卯\nAnswer:";
    let law = format!(
        "The following are multiple choice questions (with answers) about  law.\n\n\
         例题____。\nA. 甲\nB. 乙\nC. 丙\nD. 丁\nAnswer: B\n\n{QUESTION}\nAnswer:"
    );
    assert_eq!(prompts[..2], [civil.to_owned(), law]);
}

#[test]
fn modeltest_few_shot_reads_the_first_character() {
    let dir = ceval();
    let one = Settings { shots: Some(1), ..settings("val") };
    let evaluation = evaluation(&CEVAL, "modeltest-5shot", dir.path(), &one, &PLAIN);
    let says = |text: &str| drive(&evaluation, 1, &PLAIN, &mut |_, _| (text.to_owned(), vec![]));
    assert_eq!(says(" \nC. 类比").pred, Some(Answer::Choice(2)));
    assert!(!says("B").is_correct());
    for unreadable in ["", "  \n", "答案C", "c"] {
        let outcome = says(unreadable);
        assert!(matches!(outcome.state, State::Unscorable(_)), "{unreadable:?}: {outcome:?}");
        assert!(!outcome.is_correct());
    }
}

#[test]
fn modeltest_zero_shot_has_its_frame_word_for_word() {
    let dir = ceval();
    let evaluation = evaluation(&CEVAL, "modeltest-0shot", dir.path(), &settings("val"), &PLAIN);
    let (prompt, ids) = evaluation.first_prompt(1).unwrap();
    let expected = format!(
        "\n以下是中国关于法学考试的单项选择题，请选出其中的正确答案。\n{QUESTION}\n让我们一步一步思考。答案: "
    );
    assert_eq!(prompt, expected);
    assert_eq!(ids, PLAIN.encode_prompt(&expected));
    let Next::Ask(request) = evaluation.start(1).1 else { panic!() };
    assert_eq!(request.max_new_tokens, 256);
    let says = |text: &str| drive(&evaluation, 1, &PLAIN, &mut |_, _| (text.to_owned(), vec![]));
    let outcome = says("类比推理，故选C。");
    assert_eq!(
        (outcome.pred, outcome.rule.starts_with("rule 8: ")),
        (Some(Answer::Choice(2)), true),
        "{}",
        outcome.rule
    );
    assert!(matches!(says("不知道").state, State::Unscorable(_)));
}

#[test]
fn boolq_protocols_ask_the_same_prompt_and_answer_a_tie_with_no() {
    let dir = boolq();
    for protocol in ["modeltest", "loglikelihood"] {
        let evaluation = evaluation(&BOOLQ, protocol, dir.path(), &settings("dev"), &PLAIN);
        let expected_choices = [(false, 9_000_002), (true, 9_000_001)]
            .map(|(answer, id)| ChoiceToken { answer: Answer::Boolean(answer), id });
        assert_eq!(evaluation.choices(), expected_choices);
        let answer = |no: f32, yes: f32| {
            drive(&evaluation, 0, &PLAIN, &mut |prompt, choices| {
                assert_eq!(
                    prompt,
                    "Moon -- The Moon is rock.\nQuestion: is the moon made of cheese?\nAnswer:"
                );
                assert_eq!(choices, [9_000_002, 9_000_001]);
                (String::new(), vec![no, yes])
            })
        };
        assert_eq!(answer(-1.0, -0.5).pred, Some(Answer::Boolean(true)));
        assert_eq!(answer(-0.5, -1.0).pred, Some(Answer::Boolean(false)));
        assert_eq!(answer(-1.0, -1.0).pred, Some(Answer::Boolean(false)));
    }
}

#[test]
fn a_continuation_of_several_tokens_is_the_sum_over_them() {
    let dir = boolq();
    let evaluation = evaluation(&BOOLQ, "loglikelihood", dir.path(), &settings("dev"), &SPLIT);
    let mut asked = Vec::new();
    let outcome = drive(&evaluation, 0, &SPLIT, &mut |prompt, choices| {
        asked.push((prompt.ends_with("Answer: y"), choices.to_vec()));
        let logprobs = if choices.len() == 2 { vec![-1.0, -0.75] } else { vec![-0.5] };
        (String::new(), logprobs)
    });
    assert_eq!(asked, [(false, vec![9_000_002, 9_000_003]), (true, vec![9_000_004])]);
    assert_eq!(outcome.choice_logprobs, [-1.0, -1.25]);
    assert_eq!((outcome.pred, outcome.margin), (Some(Answer::Boolean(false)), Some(0.25)));
    // ModelTest's protocol scores single tokens only, and reports an error instead of scoring part of a word.
    let error =
        Evaluation::new(plan(&BOOLQ, "modeltest", dir.path(), &settings("dev")).unwrap(), &SPLIT, 4096);
    let message = error.err().unwrap().to_string();
    assert!(message.contains("one more") && message.contains("nothing is run"), "{message}");
}

#[test]
fn letters_that_share_a_token_are_refused() {
    struct Mute;
    impl TextCodec for Mute {
        fn encode(&self, _: &str) -> Vec<u32> {
            vec![0]
        }
        fn encode_prompt(&self, _: &str) -> Vec<u32> {
            vec![0]
        }
        fn decode(&self, _: &[u32]) -> String {
            String::new()
        }
    }
    let dir = ceval();
    let plan = plan(&CEVAL, "two-stage", dir.path(), &settings("val")).unwrap();
    let message = Evaluation::new(plan, &Mute, 4096).err().unwrap().to_string();
    assert!(message.contains("A and B the same id 0"), "{message}");
}

#[test]
fn numbers_that_are_none_fail_the_item() {
    let dir = boolq();
    let evaluation = evaluation(&BOOLQ, "modeltest", dir.path(), &settings("dev"), &PLAIN);
    for bad in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY] {
        let outcome = drive(&evaluation, 0, &PLAIN, &mut |_, _| (String::new(), vec![-1.0, bad]));
        assert!(outcome.reason().unwrap().contains("degenerate"), "{outcome:?}");
        assert!(matches!(outcome.state, State::Failed(_)) && outcome.pred.is_none() && !outcome.is_correct());
        assert_eq!(outcome.choice_logprobs.len(), 2);
    }
    let outcome = drive(&evaluation, 0, &PLAIN, &mut |_, _| (String::new(), vec![]));
    assert!(matches!(outcome.state, State::Failed(_)));
}

#[test]
fn a_prompt_too_long_for_the_model_fails_with_the_numbers_and_is_not_cut() {
    let dir = ceval();
    let plan = plan(&CEVAL, "two-stage", dir.path(), &settings("val")).unwrap();
    let evaluation = Evaluation::new(plan, &PLAIN, 540).unwrap();
    let length = evaluation.first_prompt(1).unwrap().1.len();
    let Next::Done(outcome) = evaluation.start(1).1 else { panic!() };
    let reason = outcome.reason().unwrap();
    assert!(
        reason.starts_with(&format!(
            "the prompt has {length} tokens and up to 512 are generated; expected at most 540"
        )),
        "{reason}"
    );
    assert!(matches!(outcome.state, State::Failed(_)));
}

#[test]
fn what_a_data_set_lacks_is_said_before_any_model_is_needed() {
    let dir = ceval();
    let message = |protocol, settings: &Settings| {
        plan(&CEVAL, protocol, dir.path(), settings).err().unwrap().to_string()
    };
    assert!(
        message("two-stage", &settings("test")).contains("has no answers (ceval/test/law/0 is the first"),
        "{}",
        message("two-stage", &settings("test"))
    );
    assert!(
        message("modeltest-5shot", &settings("val")).contains("has 1 items of `civil_servant`; expected 5")
    );
    let line =
        br#"{"inputs_pretokenized": "q", "choices_pretokenized": [" A", " B", " C", " D"], "label": 2}"#;
    let jsonl = folder(&[("val/STEM/alchemy.jsonl", line)]);
    let message =
        |protocol| plan(&CEVAL, protocol, jsonl.path(), &settings("val")).err().unwrap().to_string();
    assert!(message("modeltest-5shot").contains("has no dev split"));
    assert!(message("modeltest-0shot").contains("`alchemy` has no Chinese name"));
    assert!(plan(&CEVAL, "two-stage", jsonl.path(), &settings("val")).is_ok());
}

#[test]
fn a_limit_takes_from_each_subject_in_turn() {
    let dir = ceval();
    let ids = |limit| {
        let limited = Settings { limit: Some(limit), ..settings("val") };
        let plan = plan(&CEVAL, "two-stage", dir.path(), &limited).unwrap();
        (0..plan.chosen.len()).map(|i| plan.item(i).doc_id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(1), ["ceval/val/civil_servant/0"]);
    assert_eq!(ids(2), ["ceval/val/civil_servant/0", "ceval/val/law/0"]);
    assert_eq!(ids(99).len(), 3);
}

#[test]
fn the_input_hash_moves_with_shots_and_with_the_tokenizer_only() {
    let dir = ceval();
    let hash = |shots, codec: &Toy| {
        let shown = Settings { shots: Some(shots), ..settings("val") };
        Evaluation::new(plan(&CEVAL, "modeltest-5shot", dir.path(), &shown).unwrap(), codec, 4096)
            .unwrap()
            .input_hash()
    };
    assert_eq!(hash(1, &PLAIN), hash(1, &PLAIN));
    assert_ne!(hash(1, &PLAIN), hash(0, &PLAIN));
    assert_ne!(hash(1, &PLAIN), hash(1, &Toy { pieces: &[(":", 77)] }));
}

#[test]
fn the_ladder_agrees_with_pythons_re_on_every_recorded_text() {
    // Recorded from Python's `re` with the same patterns: text, letter, number of the rule.
    for line in include_str!("../data/extraction_ladder.jsonl").lines() {
        let (text, letter, rule): (String, Option<String>, Option<usize>) =
            serde_json::from_str(line).unwrap();
        let found = extract::first_option(&text);
        assert_eq!(found.map(|e| e.rule + 1), rule, "{text:?}");
        assert_eq!(found.map(|e| ["A", "B", "C", "D"][e.letter].to_owned()), letter, "{text:?}");
    }
}

#[test]
fn every_real_item_gives_a_prompt_that_holds_its_question_and_options() {
    for (benchmark, split) in [(&CEVAL, "val"), (&BOOLQ, "dev")] {
        let Some(root) = real(benchmark.name) else { continue };
        for protocol in task::protocols_of(benchmark) {
            let name = protocol.definition().name;
            let evaluation = evaluation(benchmark, name, &root, &settings(split), &PLAIN);
            assert_eq!(evaluation.len(), if benchmark == &CEVAL { 1346 } else { 3270 });
            for index in (0..evaluation.len()).step_by(7) {
                let (prompt, ids) = evaluation.first_prompt(index).unwrap();
                let pieces = match &evaluation.plan().item(index).content {
                    glmbench::dataset::Content::Choice(choice) => {
                        vec![choice.question_and_options().into_owned()]
                    }
                    glmbench::dataset::Content::YesNo(q) => {
                        vec![q.title.clone(), q.passage.clone(), q.question.clone()]
                    }
                    glmbench::dataset::Content::Fields(_) => unreachable!(),
                };
                assert!(pieces.iter().all(|piece| prompt.contains(piece)), "{name}: {prompt}");
                assert!(ids.len() > 2);
            }
        }
    }
}

#[test]
fn the_real_tokenizer_gives_the_known_choice_tokens() {
    let Some(dir) = crate::support::shared("tokenizer/chatglm2-6b") else { return };
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    let ids = |benchmark, name| -> Vec<u32> {
        task::find(benchmark, name)
            .unwrap()
            .choices(&tokenizer)
            .unwrap()
            .iter()
            .map(|choice| choice.id)
            .collect()
    };
    assert_eq!(ids(&CEVAL, "two-stage"), [316, 347, 319, 367]);
    assert_eq!(ids(&BOOLQ, "modeltest"), [687, 5756]);
    assert_eq!(ids(&BOOLQ, "loglikelihood"), [687, 5756]);
    let Some(root) = real("boolq") else { return };
    let limited = Settings { limit: Some(40), ..settings("dev") };
    let plan = plan(&BOOLQ, "loglikelihood", &root, &limited).unwrap();
    let evaluation = Evaluation::new(plan, &tokenizer, 4096).unwrap();
    for index in 0..evaluation.len() {
        let Next::Ask(request) = evaluation.start(index).1 else { panic!() };
        assert_eq!(request.prompt[..2], [64790, 64792]);
        assert_eq!(request.choice_ids, [687, 5756]);
    }
}
