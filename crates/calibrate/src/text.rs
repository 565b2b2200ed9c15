//! A profile's text with fitted figures, and with the errors of the fit.

use glmbench_ascend::profile::{Profile, ProfileError};
use glmbench_device::ClockFit;

/// A fitted figure, as a profile states it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The profile's key.
    pub key: String,
    /// The value.
    pub value: f64,
    /// Rows that it was fitted to.
    pub rows: usize,
    /// Error of these rows on models left out of the fit ([`modelled`](crate::modelled) has the definition).
    pub error: f64,
    /// The source, as text.
    pub source: String,
}

/// Returns a number with three significant digits: more than any fit supports, and few enough to be stable.
pub fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    format!("{value:.2e}").parse().unwrap_or(value)
}

/// Returns `text`, a profile, with the errors of the fit that its figures come from.
///
/// # Errors
/// The text is no profile.
pub fn with_fits(text: &str, fits: &[ClockFit]) -> Result<String, ProfileError> {
    let profile = Profile::parse(text, "the fitted profile")?;
    if fits.is_empty() {
        return Ok(text.to_owned());
    }
    let mut out = format!("fitted = \"{}\"\n{}\n", profile.figures_sha256(), text.trim_end());
    for fit in fits {
        let ClockFit { phase, chips, rows, shapes, error, worst, batch, tokens, parameters, graphs } = fit;
        let (error, worst) = (rounded(*error), rounded(*worst));
        out += &format!(
            "\n[[fit]]\nphase = \"{phase}\"\nchips = {chips}\nrows = {rows}\nshapes = {shapes}\nerror = {error}\nworst = {worst}\n\
             batch = {batch}\ntokens = {tokens}\nparameters = {parameters:e}\ngraphs = {graphs}\n"
        );
    }
    Profile::parse(&out, "the fitted profile")?;
    Ok(out)
}

/// Returns `text`, a profile, with these figures marked as calibrated. `name` replaces the profile's name. The errors of an earlier
/// fit are left out: they are not of these figures.
pub fn calibrated(text: &str, name: Option<&str>, figures: &[Figure]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut section: Option<&Figure> = None;
    let mut in_fit = false;
    for line in text.lines() {
        if line.trim().starts_with('[') {
            in_fit = line.trim().starts_with("[[fit]]");
        }
        if in_fit || line.split_once('=').is_some_and(|(key, _)| key.trim() == "fitted") {
            continue;
        }
        if let Some(key) = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            section = figures.iter().find(|figure| figure.key == key.trim());
        }
        let key = line.split_once('=').map(|(key, _)| key.trim());
        let replaced = match (section, key) {
            (None, Some("name")) => name.map(|name| format!("name = {}", quoted(name))),
            (Some(figure), Some("value")) => Some(format!("value = {}", rounded(figure.value))),
            (Some(figure), Some("mark")) => {
                let (rows, error) = (figure.rows, rounded(figure.error));
                Some(format!("mark = \"calibrated\"\nrows = {rows}\nerror = {error}"))
            }
            (Some(figure), Some("source")) => Some(format!("source = {}", quoted(&figure.source))),
            (Some(_), Some("rows" | "error")) => continue,
            _ => None,
        };
        out.push_str(replaced.as_deref().unwrap_or(line));
        out.push('\n');
    }
    // The blank line before a fit that was left out.
    out.truncate(out.trim_end().len());
    out + "\n"
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_ascend::profile::Mark;

    #[test]
    fn a_calibrated_profile_reads_back_with_its_fit() {
        let base = Profile::builtin("300i-duo").unwrap();
        let figure = |key: &str, value| Figure {
            key: key.into(),
            value,
            rows: 7,
            error: 0.1234,
            source: "runs \"a\" and b".into(),
        };
        let figures = [figure("memory_efficiency", 0.712_34), figure("compute_efficiency", 0.25)];
        // Twice, as when a calibrated profile is calibrated again.
        let text = calibrated(&calibrated(&base.text, Some("mine"), &figures), None, &figures);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let read = Profile::from_file(file.path()).unwrap();
        assert_eq!((read.name.as_str(), read.entries.len()), ("mine", base.entries.len()));
        let entry = read.entries.iter().find(|entry| entry.key == "memory_efficiency").unwrap();
        assert_eq!(
            (entry.value, entry.mark, entry.source.as_str()),
            (0.712, Mark::Calibrated, "runs \"a\" and b")
        );
        assert_eq!(entry.fit.map(|fit| (fit.rows, fit.error)), Some((7, 0.123)));
        // With the errors of a fit, twice: the second replaces the first.
        let fit = |error| ClockFit {
            phase: "decode".into(),
            chips: 1,
            rows: 9,
            shapes: 9,
            error,
            worst: 0.0712_3,
            batch: 32,
            tokens: 2064,
            parameters: 6.24e9,
            graphs: false,
        };
        let once = with_fits(&text, &[fit(0.5)]).unwrap();
        let twice = with_fits(&calibrated(&once, None, &figures), &[fit(0.0312_3)]).unwrap();
        let fits = Profile::parse(&twice, "mine").unwrap().fits;
        assert_eq!(fits, [ClockFit { error: 0.0312, worst: 0.0712, ..fit(0.0) }]);
        assert_eq!(calibrated(&twice, None, &figures), text);
        let untouched = |profile: &Profile| profile.value("host_call_ns");
        assert_eq!(untouched(&read), untouched(&base));
    }
}
