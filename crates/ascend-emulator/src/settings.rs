//! Settings: `key = value` lines, applied before aclInit.
//!
//! Numbers missing from the settings come from the chip's profile in `profiles/`, which is compiled in.

use crate::faults::Faults;

/// The emulated chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Soc {
    /// One chip of an Atlas 300I DUO.
    Ascend310P3,
    /// One chip of an Atlas 800I A2 with 64 GB.
    Ascend910B3,
    /// One chip of an Atlas 800I A2 with 32 GB.
    Ascend910B4,
}

impl Soc {
    const ALL: [Self; 3] = [Self::Ascend310P3, Self::Ascend910B3, Self::Ascend910B4];

    /// The name that aclrtGetSocName returns.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ascend310P3 => "Ascend310P3",
            Self::Ascend910B3 => "Ascend910B3",
            Self::Ascend910B4 => "Ascend910B4",
        }
    }

    fn profile(self) -> &'static str {
        match self {
            Self::Ascend310P3 => include_str!("../profiles/300i-duo.toml"),
            Self::Ascend910B3 => include_str!("../profiles/800i-a2-64g.toml"),
            Self::Ascend910B4 => include_str!("../profiles/800i-a2.toml"),
        }
    }

    fn default_devices(self) -> u32 {
        match self {
            Self::Ascend310P3 => 2,
            Self::Ascend910B3 | Self::Ascend910B4 => 8,
        }
    }
}

/// Whether operators compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Real arithmetic on real memory, and the virtual clock.
    Compute,
    /// Checks and virtual clock only. Device memory is address space, and results are zeros.
    Timing,
}

/// Which reading of the documentation applies if texts and shipped programs disagree (310P).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strict {
    /// The operators' pages to the letter.
    Doc,
    /// The operators' host sources, kernel lists, and the behaviour of programs in use.
    Source,
}

/// When stream workers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// Immediately.
    Eager,
    /// Only when someone waits for them, so that a missing synchronise shows every time.
    Lazy,
}

macro_rules! profile_numbers {
    ($($(#[$doc:meta])* $key:ident,)*) => {
        /// Parameters of the virtual clock. Meanings, units and sources are in `profiles/`.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Profile { $($(#[$doc])* pub(crate) $key: f64,)* }

        impl Profile {
            fn set(&mut self, key: &str, value: f64) -> bool {
                match key {
                    $(stringify!($key) => self.$key = value,)*
                    _ => return false,
                }
                true
            }
        }

        /// Keys of [`Profile`].
        pub(crate) const PROFILE_KEYS: &[&str] = &[$(stringify!($key),)*];
    };
}

profile_numbers! {
    /// Matrix unit, fp16, FLOP/s.
    cube_fp16_flops,
    /// Matrix unit, int8, OP/s.
    cube_int8_ops,
    /// Matrix unit, bf16, FLOP/s; 0 if unsupported.
    cube_bf16_flops,
    /// Matrix unit, fp32, FLOP/s; 0 if fp32 is computed in fp16.
    cube_fp32_flops,
    /// Vector unit, fp16, FLOP/s.
    vector_fp16_flops,
    /// Device memory capacity, bytes.
    memory_bytes,
    /// Device memory bandwidth, bytes/s.
    memory_bytes_per_s,
    /// Second-level cache, bytes; for information only.
    l2_bytes,
    /// Rate at which vector operators read and write activations, bytes/s. The second-level cache holds a part of the
    /// activations.
    activation_bytes_per_s,
    /// Reached fraction of the matrix unit peak.
    compute_efficiency,
    /// Reached fraction of the vector unit peak.
    vector_efficiency,
    /// Reached fraction of the memory bandwidth.
    memory_efficiency,
    /// Reached fraction of the link bandwidth (between two chips, and to the host).
    link_efficiency,
    /// Fraction of the link bandwidth that a collective over several links of a chip reaches.
    mesh_efficiency,
    /// Fixed device cost of a matrix operator, ns.
    matmul_launch_ns,
    /// Fixed device cost of a vector operator, ns.
    vector_launch_ns,
    /// Further fixed cost of an operator that is launched outside a graph, ns.
    single_launch_ns,
    /// Further fixed cost of attention over prompts, once a layer and step, ns.
    prompt_layer_ns,
    /// Fixed cost of a collective, ns.
    collective_latency_ns,
    /// Bandwidth of one link between chips, bytes/s in one direction.
    link_bytes_per_s,
    /// Number of other chips to which a chip has a link of its own.
    link_peers,
    /// Bandwidth of the link to the host, bytes/s in one direction.
    pcie_bytes_per_s,
    /// Fixed cost of a copy, ns.
    copy_latency_ns,
    /// Host time of a first stage, ns.
    host_plan_ns,
    /// Host time of a second stage, ns.
    host_launch_ns,
    /// Host time of any other call that reaches the driver, ns.
    host_call_ns,
    /// Power limit of a chip, W; for information only.
    max_power_w,
}

/// All settings.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The chip.
    pub soc: Soc,
    /// Number of devices.
    pub devices: u32,
    /// Whether operators compute.
    pub mode: Mode,
    /// Reading of the documentation.
    pub strict: Strict,
    /// When stream workers run.
    pub streams: Streams,
    /// Whether DCMI and the utilisation query answer, with obviously made-up numbers.
    pub fake_telemetry: bool,
    /// Whether a cache serves repeated first stages with the same arguments, as in CANN.
    pub executor_cache: bool,
    /// Whether devices count their work ([`Work`](crate::clock::Work)).
    pub record: bool,
    /// Maximum number of graphs on a device.
    pub graphs: u32,
    /// Real time after which a collective that other ranks do not join fails, ms.
    pub hccl_timeout_ms: u64,
    /// Parameters of the virtual clock.
    pub profile: Profile,
    /// Faults to inject.
    pub faults: Faults,
}

impl Config {
    /// Returns the defaults for a chip.
    pub(crate) fn new(soc: Soc) -> Self {
        let mut profile = Profile::default();
        for (key, value) in read_profile(soc.profile()) {
            profile.set(key, value);
        }
        Self {
            soc,
            devices: soc.default_devices(),
            mode: Mode::Compute,
            strict: Strict::Source,
            streams: Streams::Eager,
            fake_telemetry: false,
            executor_cache: false,
            record: false,
            graphs: 256,
            hccl_timeout_ms: 30_000,
            profile,
            faults: Faults::default(),
        }
    }

    /// Parses settings. `soc` may be on any line. Other keys apply in order: a later one replaces an earlier one,
    /// `fault` accumulates.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(format!("settings line {}: found \"{line}\", expected key = value", index + 1));
            };
            lines.push((index + 1, key.trim(), value.trim()));
        }
        let soc = match lines.iter().rev().find(|(_, key, _)| *key == "soc") {
            None => Soc::Ascend310P3,
            Some((line, _, value)) => word(*line, "soc", value, &Soc::ALL.map(|soc| (soc.name(), soc)))?,
        };
        let mut config = Self::new(soc);
        for (line, key, value) in lines {
            config.set(line, key, value)?;
        }
        Ok(config)
    }

    fn set(&mut self, line: usize, key: &str, value: &str) -> Result<(), String> {
        match key {
            "soc" => {}
            "devices" => self.devices = number(line, key, value, 1.0, 64.0)? as u32,
            "mode" => {
                self.mode = word(line, key, value, &[("compute", Mode::Compute), ("timing", Mode::Timing)])?;
            }
            "strict" => {
                self.strict = word(line, key, value, &[("doc", Strict::Doc), ("source", Strict::Source)])?;
            }
            "streams" => {
                self.streams = word(line, key, value, &[("eager", Streams::Eager), ("lazy", Streams::Lazy)])?;
            }
            "telemetry" => {
                self.fake_telemetry = word(line, key, value, &[("none", false), ("fake", true)])?;
            }
            "executor_cache" => {
                self.executor_cache = word(line, key, value, &[("off", false), ("on", true)])?;
            }
            "record" => self.record = word(line, key, value, &[("off", false), ("on", true)])?,
            "graphs" => self.graphs = number(line, key, value, 1.0, 1e6)? as u32,
            "hccl_timeout_ms" => self.hccl_timeout_ms = number(line, key, value, 1.0, 3_600_000.0)? as u64,
            "fault" => {
                self.faults.add(value).map_err(|problem| format!("settings line {line}: {problem}"))?;
            }
            _ if PROFILE_KEYS.contains(&key) => {
                let least = if key.ends_with("_ns") || OPTIONAL.contains(&key) { 0.0 } else { 1e-6 };
                let most = if key.ends_with("_efficiency") { 1.0 } else { 1e18 };
                let value = number(line, key, value, least, most)?;
                self.profile.set(key, value);
            }
            _ => return Err(format!("settings line {line}: the key \"{key}\" is unknown")),
        }
        Ok(())
    }
}

/// Keys for which zero means that the chip lacks the unit.
const OPTIONAL: &[&str] = &["cube_bf16_flops", "cube_fp32_flops"];

fn word<T: Copy>(line: usize, key: &str, value: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(name, _)| *name == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let expected: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        format!("settings line {line}: {key} is \"{value}\", expected {}", expected.join(" or "))
    })
}

fn number(line: usize, key: &str, value: &str, least: f64, most: f64) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= least && number <= most => Ok(number),
        _ => Err(format!(
            "settings line {line}: {key} is \"{value}\", expected a number from {least} to {most}"
        )),
    }
}

/// Reads the `[key]` / `value = number` pairs of our own profile files.
fn read_profile(text: &'static str) -> impl Iterator<Item = (&'static str, f64)> {
    let mut key = "";
    text.lines().filter_map(move |line| {
        if let Some(name) = line.strip_prefix('[') {
            key = name.trim_end_matches(']');
        }
        let value = line.strip_prefix("value = ")?;
        Some((key, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_profiles_is_known_and_sourced() {
        for soc in Soc::ALL {
            let keys: Vec<&str> = read_profile(soc.profile()).map(|(key, _)| key).collect();
            assert!(keys.iter().all(|key| PROFILE_KEYS.contains(key)), "{keys:?}");
            let wanted = PROFILE_KEYS.iter().filter(|key| !OPTIONAL.contains(*key));
            assert!(wanted.clone().all(|key| keys.contains(key)));
            for word in ["mark = ", "source = ", "unit = "] {
                assert_eq!(soc.profile().matches(&format!("\n{word}")).count(), keys.len());
            }
        }
    }

    #[test]
    fn mistakes_name_line_and_expectation() {
        for (text, part) in [
            (
                "soc = Ascend999",
                "line 1: soc is \"Ascend999\", expected Ascend310P3 or Ascend910B3 or Ascend910B4",
            ),
            ("\nnonsense", "line 2: found \"nonsense\""),
            ("colour = red", "the key \"colour\" is unknown"),
            ("memory_efficiency = 1.5", "expected a number from 0.000001 to 1"),
            ("devices = many", "devices is \"many\""),
            ("fault = fire:3", "fault \"fire:3\""),
        ] {
            let message = Config::parse(text).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn later_lines_win_and_soc_may_come_last() {
        let config = Config::parse("memory_bytes_per_s = 1e9\nmode = timing\nsoc = Ascend910B4\n").unwrap();
        assert_eq!(config.soc, Soc::Ascend910B4);
        assert_eq!(config.mode, Mode::Timing);
        assert_eq!(config.profile.memory_bytes_per_s, 1e9);
        assert_eq!(config.profile.cube_fp16_flops, 280e12);
    }
}
