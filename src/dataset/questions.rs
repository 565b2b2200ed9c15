//! The texts of a data set for performance runs as in ModelTest: questions without protocol or answer.

use std::path::Path;

use serde::Deserialize;

use super::Dataset;
use super::error::DatasetError;
use super::jsonl::read_jsonl;

impl Dataset {
    /// Returns [`Benchmark::question_of`](super::Benchmark::question_of) of each item, in item order.
    pub fn questions(&self) -> Vec<String> {
        self.items.iter().map(|item| self.benchmark.question_of(item)).collect()
    }
}

/// A line of a questions file. Other fields are ignored (wire type).
#[derive(Deserialize)]
struct Row {
    question: String,
}

/// Reads the questions of a JSON Lines file; each line is an object with a `question`.
///
/// # Errors
/// When the file cannot be read. Otherwise lists every line that is not such an object or has an empty question.
pub fn read_questions(path: &Path) -> Result<Vec<String>, DatasetError> {
    let empty = |row: &Row| {
        row.question.trim().is_empty().then(|| "found an empty question; expected some text".to_owned())
    };
    Ok(read_jsonl::<Row>(path, "a `question`", empty)?.into_iter().map(|row| row.question).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_read_and_every_fault_has_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.jsonl");
        std::fs::write(&path, "{\"question\": \"是吗\", \"more\": 1}\n{\"question\": \"b\"}\n\n").unwrap();
        assert_eq!(read_questions(&path).unwrap(), ["是吗", "b"]);
        for (text, says) in [
            ("", "q.jsonl:1: found an empty file"),
            ("{\"question\": \" \"}\n", "q.jsonl:1: found an empty question"),
            ("{\"question\": \"a\"}\n{\"q\": 1}\n", "q.jsonl:2: column 8: missing field `question`"),
            ("{\"question\": 1}\n", "q.jsonl:1: column 14: invalid type: integer"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = read_questions(&path).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
        let missing = read_questions(&dir.path().join("none.jsonl")).unwrap_err().to_string();
        assert!(missing.contains("none.jsonl"), "{missing}");
    }
}
