//! Descriptions of the protocols of task files, for lists and records.

use super::parse::Spec;
use super::rules::Rule;
use crate::dataset::Benchmark;
use crate::task::Definition;

impl Spec {
    /// Returns the description of the protocol. Its texts live as long as the program, as those of built-in ones do.
    pub(super) fn definition(&self, benchmark: &'static Benchmark) -> Definition {
        let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let prompts: Vec<(&str, &str)> = self
            .verbatim
            .iter()
            .map(|(stage, template)| (leak(stage.clone()), leak(template.clone())))
            .collect();
        let choices = match (self.tokens(), self.continuations()) {
            (Some(tokens), _) => format!(
                "the token of each of {:?} after {:?}, one token each, all different",
                tokens.ids, tokens.after
            ),
            (_, Some(continuations)) => format!(
                "encode(prompt + continuation) cut at the length of encode(prompt); the sum over the tokens{}{}",
                if continuations.skip > 0 {
                    format!(" after the first {}", continuations.skip)
                } else {
                    String::new()
                },
                continuations.normalisation.words()
            ),
            _ => String::new(),
        };
        let extraction = if self.is_likelihood() {
            let which = if self.scores_all_tokens() { "" } else { " in the second half of each window" };
            format!(
                "nothing is read: the tokens of the text{which} are scored, each after those before it in its window"
            )
        } else if self.is_scored() {
            "the largest log-probability; the first among equals".to_owned()
        } else {
            let mut words: Vec<String> = self.rules.iter().map(Rule::words).collect();
            if words.is_empty() {
                words.push("the whole text".to_owned());
            }
            if !self.normalisers.is_empty() {
                let names: Vec<&str> = self.normalisers.iter().map(|normaliser| normaliser.name()).collect();
                words.push(format!("both answers after {}", names.join(", ")));
            }
            words.join("; ")
        };
        let mut metric = self.metric.clone();
        if !self.measures.is_empty() {
            metric += &format!("; also the means of {}", self.measures.join(", "));
        }
        Definition {
            name: leak(self.name.clone()),
            benchmark,
            about: leak(self.about.clone()),
            prompts: Box::leak(prompts.into_boxed_slice()),
            shots: self.shots,
            max_new_tokens: self.max_new_tokens(),
            choices: leak(choices),
            extraction: leak(extraction),
            metric: leak(metric),
            source: leak(self.source.clone()),
        }
    }
}
