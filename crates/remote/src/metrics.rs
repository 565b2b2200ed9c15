//! Metrics in Prometheus' or OpenMetrics' text format.

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name, such as `vllm:num_requests_running`.
    pub name: String,
    /// Labels in the order of the text, with escapes undone.
    pub labels: Vec<(String, String)>,
    /// The value. May be infinite or NaN.
    pub value: f64,
}

impl Sample {
    /// Returns name and labels as one text: `name{a="b"}`.
    pub fn series(&self) -> String {
        if self.labels.is_empty() {
            return self.name.clone();
        }
        let labels: Vec<String> =
            self.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        format!("{}{{{}}}", self.name, labels.join(","))
    }
}

/// The most samples of one text that are read.
pub const MAX_SAMPLES: usize = 100_000;

/// Reads the samples. Comments, time stamps and exemplars are skipped.
///
/// # Errors
/// The number of the first line that is neither a sample nor a comment, counted from 1, or of the first sample beyond
/// [`MAX_SAMPLES`].
pub fn parse(text: &str) -> Result<Vec<Sample>, usize> {
    let mut samples = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match sample(line) {
            Some(sample) if samples.len() < MAX_SAMPLES => samples.push(sample),
            _ => return Err(number + 1),
        }
    }
    Ok(samples)
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, mut rest) = line.split_at(end);
    let mut characters = name.chars();
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    if !characters.next().is_some_and(starts) || !characters.all(|c| starts(c) || c.is_ascii_digit()) {
        return None;
    }
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    let value = match rest.split_whitespace().next()? {
        "+Inf" | "Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" | "Nan" => f64::NAN,
        number => number.parse().ok()?,
    };
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Reads `name="value",…}` and returns what follows.
fn read_labels<'a>(mut text: &'a str, labels: &mut Vec<(String, String)>) -> Option<&'a str> {
    loop {
        text = text.trim_start_matches([' ', ',']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some(rest);
        }
        let (name, rest) = text.split_once('=')?;
        let rest = rest.trim_start().strip_prefix('"')?;
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim().to_owned(), value));
        text = &rest[end + 1..];
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn samples_of_real_servers_are_read() {
        let text = "# HELP vllm:num_requests_running Number of requests.\n# TYPE vllm:num_requests_running gauge\n\
                    vllm:num_requests_running{engine=\"0\",model_name=\"a\\\"b}, c\"} 3.0\n\
                    tgi_queue_size 0\n\
                    e2e_bucket{le=\"+Inf\"} 17 1700000000 # {trace_id=\"x\"} 0.5\n\
                    llamacpp:ratio NaN\n# EOF\n";
        let samples = parse(text).unwrap();
        assert_eq!(samples.len(), 4);
        assert_eq!(samples[0].labels[1], ("model_name".to_owned(), "a\"b}, c".to_owned()));
        assert_eq!(samples[0].value, 3.0);
        assert_eq!(samples[1].series(), "tgi_queue_size");
        assert_eq!(samples[2].series(), "e2e_bucket{le=\"+Inf\"}");
        assert!(samples[3].value.is_nan());
    }

    #[test]
    fn a_line_that_is_no_sample_is_named() {
        assert_eq!(parse("a 1\n{\"error\": \"metrics are off\"}"), Err(2));
        assert_eq!(parse("a{b=\"c} 1"), Err(1));
        assert_eq!(parse("a"), Err(1));
        assert_eq!(parse("a b"), Err(1));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
