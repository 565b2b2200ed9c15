//! Chip profiles: the figures behind the emulator's virtual clock, each with its source.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use glmbench_device::{ClockFigure, ClockFit, ClockProfile};

/// The built-in profiles, by the card's name on the command line.
const BUILTIN: [(&str, &str); 4] = [
    ("300i-duo", include_str!("../../ascend-emulator/profiles/300i-duo.toml")),
    ("300i-duo-48g", include_str!("../../ascend-emulator/profiles/300i-duo-48g.toml")),
    ("800i-a2", include_str!("../../ascend-emulator/profiles/800i-a2.toml")),
    ("800i-a2-64g", include_str!("../../ascend-emulator/profiles/800i-a2-64g.toml")),
];

/// Chips that can be emulated.
const SOCS: [&str; 3] = ["Ascend310P3", "Ascend910B3", "Ascend910B4"];

/// The kind of source of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Stated in a public text.
    Published,
    /// Computed from published figures.
    Derived,
    /// Fitted to figures that others published, or to runs on a card.
    Calibrated,
    /// An assumption.
    Assumed,
}

impl Mark {
    const ALL: [Self; 4] = [Self::Published, Self::Derived, Self::Calibrated, Self::Assumed];

    /// Returns the word used in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Derived => "derived",
            Self::Calibrated => "calibrated",
            Self::Assumed => "assumed",
        }
    }
}

/// One figure of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The name, which is the emulator's key.
    pub key: String,
    /// The value.
    pub value: f64,
    /// The unit.
    pub unit: String,
    /// The kind of source.
    pub mark: Mark,
    /// The source, as text.
    pub source: String,
    /// What a calibrated figure rests on.
    pub fit: Option<FitMark>,
}

impl Entry {
    fn figure(&self) -> ClockFigure {
        let Self { key, value, unit, mark, source, fit } = self.clone();
        let fit = fit.map(|fit| (fit.rows, fit.error));
        ClockFigure { key, value, unit, mark: mark.name().to_owned(), source, fit }
    }
}

/// What a calibrated figure rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitMark {
    /// Number of rows that it was fitted to.
    pub rows: u32,
    /// Root mean square of the logarithm of modelled over measured, over the models left out one at a time.
    pub error: f64,
}

/// A chip profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The name of the profile.
    pub name: String,
    /// The card's name in full.
    pub title: String,
    /// The chip, as `aclrtGetSocName` names it.
    pub soc: String,
    /// Chips per card.
    pub chips_per_card: u32,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// All figures, in the file's order.
    pub entries: Vec<Entry>,
    /// How the profile compares with the times of a card that it was fitted to. Shipped profiles have none: the published
    /// speeds state their errors.
    pub fits: Vec<ClockFit>,
    /// The file's text.
    pub text: String,
}

/// Errors of reading a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("profile {}: {problem}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        problem: std::io::Error,
    },
    /// There is no profile of this name.
    #[error("profile \"{name}\" is unknown, expected {} or a file", BUILTIN.map(|(n, _)| n).join(", "))]
    Unknown {
        /// The name.
        name: String,
    },
    /// The text is not a valid profile.
    #[error("profile {origin}{}: {problem}", line.map(|l| format!(" line {l}")).unwrap_or_default())]
    Invalid {
        /// The file, or the name of a built-in profile.
        origin: String,
        /// The line, counted from one.
        line: Option<usize>,
        /// What was found and what was expected.
        problem: String,
    },
}

/// Keys that every profile must have, with their units. Keys outside this table and [`OPTIONAL`] are rejected.
const REQUIRED: [(&str, &str); 24] = [
    ("cube_fp16_flops", "FLOP/s"),
    ("cube_int8_ops", "OP/s"),
    ("vector_fp16_flops", "FLOP/s"),
    ("memory_bytes", "byte"),
    ("memory_bytes_per_s", "byte/s"),
    ("l2_bytes", "byte"),
    ("activation_bytes_per_s", "byte/s"),
    ("compute_efficiency", "1"),
    ("vector_efficiency", "1"),
    ("memory_efficiency", "1"),
    ("link_efficiency", "1"),
    ("mesh_efficiency", "1"),
    ("matmul_launch_ns", "ns"),
    ("vector_launch_ns", "ns"),
    ("single_launch_ns", "ns"),
    ("prompt_layer_ns", "ns"),
    ("collective_latency_ns", "ns"),
    ("link_bytes_per_s", "byte/s"),
    ("link_peers", "link"),
    ("pcie_bytes_per_s", "byte/s"),
    ("copy_latency_ns", "ns"),
    ("host_plan_ns", "ns"),
    ("host_launch_ns", "ns"),
    ("host_call_ns", "ns"),
];
/// Keys that a profile may have.
const OPTIONAL: [(&str, &str); 3] =
    [("cube_bf16_flops", "FLOP/s"), ("cube_fp32_flops", "FLOP/s"), ("max_power_w", "W")];

/// Maximum size of a profile in bytes. The built-in ones have a few thousand.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a file, which may be an endless device.
fn text_of(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 <= MAX_BYTES {
        return Ok(text);
    }
    let message = format!("found more than {MAX_BYTES} bytes; expected {MAX_BYTES} at most");
    Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message))
}

impl Profile {
    /// Returns a built-in profile: `300i-duo` or `800i-a2`.
    pub fn builtin(name: &str) -> Result<Self, ProfileError> {
        match BUILTIN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(text, name),
            None => Err(ProfileError::Unknown { name: name.to_owned() }),
        }
    }

    /// Reads a user's own profile.
    pub fn from_file(path: &Path) -> Result<Self, ProfileError> {
        let text = text_of(path)
            .map_err(|problem| ProfileError::Unreadable { path: path.to_path_buf(), problem })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Returns the value of a key.
    pub fn value(&self, key: &str) -> Option<f64> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| entry.value)
    }

    /// Returns name, hash, limits, figures and fits, for the record.
    pub fn clock(&self) -> ClockProfile {
        // Both keys are required of every profile.
        let whole = |key| self.value(key).unwrap_or_default() as u64;
        ClockProfile {
            name: self.name.clone(),
            sha256: self.sha256.clone(),
            memory_bytes_per_s: whole("memory_bytes_per_s"),
            matmul_flops_per_s: whole("cube_fp16_flops"),
            title: self.title.clone(),
            figures: self.entries.iter().map(Entry::figure).collect(),
            fits: self.fits.clone(),
        }
    }

    /// Returns the SHA-256 of the figures, hexadecimal: a fit states it, so that figures changed afterwards do not carry its error.
    pub fn figures_sha256(&self) -> String {
        hex(self.settings_lines().as_bytes())
    }

    /// Returns the emulator's configuration: one line for the chip and one for every figure.
    pub fn settings_lines(&self) -> String {
        let mut lines = format!("soc = {}\n", self.soc);
        for entry in &self.entries {
            let _ = writeln!(lines, "{} = {}", entry.key, entry.value);
        }
        lines
    }

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

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
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
        const KEYS: [&str; 10] =
            ["phase", "chips", "rows", "shapes", "error", "worst", "batch", "tokens", "parameters", "graphs"];
        let of = |(at, value): (usize, &toml::Value)| {
            let line = self.text.lines().enumerate().filter(|(_, line)| line.trim() == "[[fit]]").nth(at);
            let line = line.map(|(index, _)| index + 1);
            let wrong =
                |key: &str, expected: &str| self.invalid(line, format!("[[fit]] {key}: expected {expected}"));
            let empty = toml::Table::new();
            let table = value.as_table().unwrap_or(&empty);
            if let Some(other) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
                return Err(wrong(other, &format!("one of {}", KEYS.join(", "))));
            }
            let count = |key: &str| {
                let found =
                    table.get(key).and_then(toml::Value::as_integer).and_then(|n| u32::try_from(n).ok());
                found.filter(|n| *n > 0).ok_or_else(|| wrong(key, "a whole number from 1"))
            };
            let number = |key: &str, most: f64| {
                let found = number_of(table, key).filter(|x| (0.0..=most).contains(x));
                found.ok_or_else(|| wrong(key, &format!("a number from 0 to {most}")))
            };
            let phase = table.get("phase").and_then(toml::Value::as_str);
            Ok(ClockFit {
                phase: phase
                    .filter(|word| ["prefill", "decode"].contains(word))
                    .ok_or_else(|| wrong("phase", "prefill or decode"))?
                    .to_owned(),
                chips: count("chips")?,
                rows: count("rows")?,
                shapes: count("shapes")?,
                error: number("error", 10.0)?,
                worst: number("worst", 10.0)?,
                batch: count("batch")?,
                tokens: count("tokens")?,
                parameters: number("parameters", 1e15)?,
                graphs: table
                    .get("graphs")
                    .and_then(toml::Value::as_bool)
                    .ok_or_else(|| wrong("graphs", "true or false"))?,
            })
        };
        all.iter().enumerate().map(of).collect()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_in_the_binary_are_complete() {
        for (name, text) in BUILTIN {
            let profile = Profile::builtin(name).unwrap();
            assert_eq!(profile.name, name);
            assert_eq!(profile.sha256.len(), 64);
            assert_eq!(profile.entries.len(), text.matches("\nsource = ").count());
            let lines = profile.settings_lines();
            assert!(lines.starts_with("soc = Ascend"), "{lines}");
            assert_eq!(lines.lines().count(), profile.entries.len() + 1);
            assert!(profile.value("memory_bytes_per_s").unwrap() > 1e11);
        }
        let error = Profile::builtin("400x").unwrap_err().to_string();
        assert_eq!(
            error,
            "profile \"400x\" is unknown, expected 300i-duo, 300i-duo-48g, 800i-a2, 800i-a2-64g or a file"
        );
    }

    #[test]
    fn mistakes_name_file_line_and_what_was_expected() {
        let good = BUILTIN[0].1;
        let line = |part: &str| good.lines().position(|l| l == part).unwrap() + 1;
        let at = |part: &str| format!("profile mine.toml line {}: ", line(part));
        for (from, to, expected) in [
            (
                "mark = \"derived\"\nsource = \"half",
                "mark = \"guessed\"\nsource = \"half",
                at("[cube_fp16_flops]")
                    + "[cube_fp16_flops] mark is \"guessed\", expected published, derived, calibrated or assumed",
            ),
            (
                "soc = \"Ascend310P3\"",
                "soc = \"Ascend1\"",
                at("soc = \"Ascend310P3\"") + "soc is \"Ascend1\"",
            ),
            ("[l2_bytes]", "[l3_bytes]", at("[l2_bytes]") + "[l3_bytes] is unknown"),
            (
                "value = 0.75",
                "value = 7.5",
                at("[memory_efficiency]") + "[memory_efficiency] value is 7.5, expected a number",
            ),
            ("value = 0.75", "value = nan", at("[memory_efficiency]") + "[memory_efficiency] value is nan"),
            (
                "unit = \"W\"",
                "unit = \"kW\"",
                at("[max_power_w]") + "[max_power_w] unit is \"kW\", expected \"W\"",
            ),
            (
                "chips_per_card = 2",
                "chips_per_card = 0",
                at("chips_per_card = 2") + "chips_per_card: expected",
            ),
            ("chips_per_card = 2", "chips_per_card = two", at("chips_per_card = 2")),
        ] {
            assert!(good.contains(from), "{from}");
            let message = Profile::parse(&good.replacen(from, to, 1), "mine.toml").unwrap_err().to_string();
            assert!(message.starts_with(&expected), "{message}\nexpected {expected}");
        }
        let start = good.find("[host_call_ns]").unwrap();
        let end = good.find("[max_power_w]").unwrap();
        let without = [&good[..start], &good[end..]].concat();
        let message = Profile::parse(&without, "mine.toml").unwrap_err().to_string();
        assert_eq!(message, "profile mine.toml: [host_call_ns] is missing");
    }

    #[test]
    fn a_fit_is_of_the_figures_that_it_names() {
        let fit = "[[fit]]\nphase = \"decode\"\nchips = 2\nrows = 9\nshapes = 9\nerror = 0.03\nworst = 0.07\nbatch = 32\n\
            tokens = 2064\nparameters = 6.2e9\ngraphs = false\n";
        let plain = Profile::builtin("300i-duo").unwrap();
        let text = format!("fitted = \"{}\"\n{}\n{fit}", plain.figures_sha256(), plain.text);
        let profile = Profile::parse(&text, "mine.toml").unwrap();
        let told = &profile.clock().fits[0];
        assert_eq!((told.phase.as_str(), told.chips, told.rows, told.error), ("decode", 2, 9, 0.03));
        assert_eq!(profile.settings_lines(), plain.settings_lines());
        assert!(plain.fits.is_empty());
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Profile::parse(&text.replacen(from, to, 1), "mine.toml").unwrap_err().to_string()
        };
        // A figure that was changed afterwards.
        assert!(refused("value = 0.75", "value = 0.9").contains("these were changed after the fit"));
        assert!(refused("fitted = ", "title2 = ").contains("is unknown"));
        for (from, to, expected) in [
            ("phase = \"decode\"", "phase = \"e2e\"", "[[fit]] phase: expected prefill or decode"),
            ("rows = 9", "rows = 0", "[[fit]] rows: expected a whole number from 1"),
            ("error = 0.03", "error = nan", "[[fit]] error: expected a number from 0 to 10"),
            ("graphs = false", "graphs = 0", "[[fit]] graphs: expected true or false"),
            ("worst = 0.07", "worse = 0.07", "[[fit]] worse: expected one of phase, "),
        ] {
            let message = refused(from, to);
            assert!(message.contains(expected) && message.contains("mine.toml line "), "{message}");
        }
    }

    #[test]
    fn the_emulator_takes_every_line() {
        // The emulator's own list, from its source: only the names connect the two.
        let settings = include_str!("../../ascend-emulator/src/settings.rs");
        for (name, _) in BUILTIN {
            for entry in Profile::builtin(name).unwrap().entries {
                assert!(settings.contains(&format!("\n    {},\n", entry.key)), "{}", entry.key);
            }
        }
    }
}
