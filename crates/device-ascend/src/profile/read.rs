//! Reads a profile from its text. Mistakes name the line, what was found and what was expected.

use glmbench_device::ClockFit;

use super::{Entry, FitMark, Mark, OPTIONAL, Profile, ProfileError, REQUIRED, SOCS, hex};

/// Keys of a `[[fit]]`.
const FIT_KEYS: [&str; 10] =
    ["phase", "chips", "rows", "shapes", "error", "worst", "batch", "tokens", "parameters", "graphs"];

impl Profile {
    /// Reads a profile's text. `origin` names it in errors.
    pub fn parse(text: &str, origin: &str) -> Result<Self, ProfileError> {
        let reader = Reader { text, origin };
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            reader.invalid(line, e.message().to_owned())
        })?;
        let soc = reader.word(&table, "soc")?;
        if !SOCS.contains(&soc.as_str()) {
            let problem = format!("soc is \"{soc}\", expected {}", SOCS.join(" or "));
            return Err(reader.invalid(reader.line_of("soc"), problem));
        }
        let chips = table.get("chips_per_card").and_then(toml::Value::as_integer);
        let Some(chips_per_card) = chips.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0) else {
            let problem = "chips_per_card: expected a whole number from 1".to_owned();
            return Err(reader.invalid(reader.line_of("chips_per_card"), problem));
        };
        let (mut entries, mut fits) = (Vec::new(), Vec::new());
        for (key, value) in &table {
            match value {
                toml::Value::Table(number) => entries.push(reader.entry(key, number)?),
                toml::Value::Array(all) if key == "fit" => fits = reader.fits(all)?,
                _ if ["name", "soc", "title", "chips_per_card", "fitted"].contains(&key.as_str()) => {}
                _ => return Err(reader.invalid(reader.line_of(key), format!("\"{key}\" is unknown"))),
            }
        }
        if let Some((key, _)) = REQUIRED.iter().find(|(key, _)| entries.iter().all(|e| e.key != *key)) {
            return Err(reader.invalid(None, format!("[{key}] is missing")));
        }
        entries.sort_by_key(|entry| reader.line_of(&entry.key));
        let profile = Self {
            name: reader.word(&table, "name")?,
            title: reader.word(&table, "title")?,
            soc,
            chips_per_card,
            sha256: hex(text.as_bytes()),
            entries,
            fits,
            text: text.to_owned(),
        };
        let fitted = table.get("fitted").map(|_| reader.word(&table, "fitted")).transpose()?;
        let own = (!profile.fits.is_empty()).then(|| profile.figures_sha256());
        if fitted != own {
            let problem = "expected the SHA-256 of the figures that [[fit]] is of: these were changed after the fit. Remove fitted \
                           and every [[fit]], or run glmbench calibrate again";
            return Err(reader.invalid(reader.line_of("fitted"), format!("fitted: {problem}")));
        }
        Ok(profile)
    }
}

/// The text being parsed, for messages.
struct Reader<'a> {
    text: &'a str,
    origin: &'a str,
}

impl Reader<'_> {
    fn invalid(&self, line: Option<usize>, problem: String) -> ProfileError {
        ProfileError::Invalid { origin: self.origin.to_owned(), line, problem }
    }

    /// Returns the line on which a key or table begins.
    fn line_of(&self, key: &str) -> Option<usize> {
        let begins = |line: &str| {
            let line = line.trim();
            line.strip_prefix('[').and_then(|rest| rest.split(']').next()).map(str::trim) == Some(key)
                || line.split_once('=').is_some_and(|(name, _)| name.trim() == key)
        };
        self.text.lines().position(begins).map(|index| index + 1)
    }

    fn word(&self, table: &toml::Table, key: &str) -> Result<String, ProfileError> {
        match table.get(key).and_then(toml::Value::as_str).filter(|word| !word.trim().is_empty()) {
            Some(word) => Ok(word.to_owned()),
            None => Err(self.invalid(self.line_of(key), format!("{key}: expected a text"))),
        }
    }

    /// Reads every `[[fit]]`.
    fn fits(&self, all: &[toml::Value]) -> Result<Vec<ClockFit>, ProfileError> {
        let begins = self.text.lines().enumerate().filter(|(_, line)| line.trim() == "[[fit]]");
        let mut lines = begins.map(|(index, _)| index + 1);
        let empty = toml::Table::new();
        all.iter().map(|value| self.fit(lines.next(), value.as_table().unwrap_or(&empty))).collect()
    }

    /// Reads the `[[fit]]` that begins on a line.
    fn fit(&self, line: Option<usize>, table: &toml::Table) -> Result<ClockFit, ProfileError> {
        let wrong =
            |key: &str, expected: &str| self.invalid(line, format!("[[fit]] {key}: expected {expected}"));
        if let Some(other) = table.keys().find(|key| !FIT_KEYS.contains(&key.as_str())) {
            return Err(wrong(other, &format!("one of {}", FIT_KEYS.join(", "))));
        }
        let count = |key: &str| {
            let found = table.get(key).and_then(toml::Value::as_integer).and_then(|n| u32::try_from(n).ok());
            found.filter(|n| *n > 0).ok_or_else(|| wrong(key, "a whole number from 1"))
        };
        let number = |key: &str, most: f64| {
            let found = number_of(table, key).filter(|x| (0.0..=most).contains(x));
            found.ok_or_else(|| wrong(key, &format!("a number from 0 to {most}")))
        };
        let phase = table.get("phase").and_then(toml::Value::as_str);
        let phase = phase.filter(|word| ["prefill", "decode"].contains(word));
        let graphs = table.get("graphs").and_then(toml::Value::as_bool);
        Ok(ClockFit {
            phase: phase.ok_or_else(|| wrong("phase", "prefill or decode"))?.to_owned(),
            chips: count("chips")?,
            rows: count("rows")?,
            shapes: count("shapes")?,
            error: number("error", 10.0)?,
            worst: number("worst", 10.0)?,
            batch: count("batch")?,
            tokens: count("tokens")?,
            parameters: number("parameters", 1e15)?,
            graphs: graphs.ok_or_else(|| wrong("graphs", "true or false"))?,
        })
    }

    /// Reads a figure: the table `[key]`.
    fn entry(&self, key: &str, table: &toml::Table) -> Result<Entry, ProfileError> {
        let line = self.line_of(key);
        let Some((_, unit)) = REQUIRED.iter().chain(&OPTIONAL).find(|(known, _)| *known == key) else {
            let known: Vec<&str> = REQUIRED.iter().chain(&OPTIONAL).map(|(known, _)| *known).collect();
            return Err(
                self.invalid(line, format!("[{key}] is unknown, expected one of {}", known.join(", ")))
            );
        };
        let text = |name: &str| {
            let found = table.get(name).and_then(toml::Value::as_str).map(str::to_owned);
            found
                .filter(|word| !word.trim().is_empty())
                .ok_or_else(|| self.invalid(line, format!("[{key}] {name}: expected a text")))
        };
        let known = ["value", "unit", "mark", "source", "rows", "error"];
        if let Some(other) = table.keys().find(|k| !known.contains(&k.as_str())) {
            let problem = format!("[{key}] {other} is unknown, expected value, unit, mark and source");
            return Err(self.invalid(line, problem));
        }
        let found = text("unit")?;
        if found != *unit {
            return Err(self.invalid(line, format!("[{key}] unit is \"{found}\", expected \"{unit}\"")));
        }
        let word = text("mark")?;
        let Some(mark) = Mark::ALL.into_iter().find(|mark| mark.name() == word) else {
            let problem = format!("[{key}] mark is \"{word}\", expected {}", words_of_marks());
            return Err(self.invalid(line, problem));
        };
        let fit = fit_of(table);
        if fit.is_some() != (mark == Mark::Calibrated) || (fit.is_none() && has_fit(table)) {
            let problem = format!(
                "[{key}] is {}; a calibrated figure, and no other, has rows (from 1) and error (0 to 10)",
                mark.name()
            );
            return Err(self.invalid(line, problem));
        }
        let number = number_of(table, "value");
        let least = if unit == &"ns" || key.starts_with("cube_bf16") || key.starts_with("cube_fp32") {
            0.0
        } else {
            1e-6
        };
        let most = if unit == &"1" { 1.0 } else { 1e18 };
        let Some(value) = number.filter(|x| (least..=most).contains(x)) else {
            let found = table.get("value").map_or("missing".to_owned(), ToString::to_string);
            let problem = format!("[{key}] value is {found}, expected a number from {least} to {most}");
            return Err(self.invalid(line, problem));
        };
        Ok(Entry { key: key.to_owned(), value, unit: found, mark, source: text("source")?, fit })
    }
}

/// Returns a number of an entry.
fn number_of(table: &toml::Table, key: &str) -> Option<f64> {
    match table.get(key) {
        Some(toml::Value::Integer(n)) => Some(*n as f64),
        Some(toml::Value::Float(x)) => Some(*x),
        _ => None,
    }
}

fn has_fit(table: &toml::Table) -> bool {
    table.contains_key("rows") || table.contains_key("error")
}

/// Returns what a calibrated entry rests on; `None` if that is missing or out of range.
fn fit_of(table: &toml::Table) -> Option<FitMark> {
    let rows = table.get("rows")?.as_integer().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)?;
    let error = number_of(table, "error").filter(|x| (0.0..=10.0).contains(x))?;
    Some(FitMark { rows, error })
}

fn words_of_marks() -> String {
    let [first @ .., last] = Mark::ALL.map(Mark::name);
    format!("{} or {last}", first.join(", "))
}
