//! The devices of this program: their words, and what every room must know of them.
//!
//! A device has one entry here, and no other file matches on devices except those that create one or count its memory.

use std::fmt;
use std::str::FromStr;

use super::{DType, KvForm, Precision, WeightForm};

/// The values of `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    /// The CPU engine.
    Cpu,
    /// The plain fp32 reference implementation.
    Reference,
    /// Atlas 300I DUO, two Ascend 310P3.
    Duo300i,
    /// Atlas 800I A2, eight Ascend 910B.
    A2800i,
    /// An example, for tests.
    #[cfg(test)]
    Toy,
}

/// What a device is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hardware {
    /// The host: its memory is the engine's, and it can time each operator.
    Host,
    /// An accelerator card, real or emulated. It runs its operators asynchronously, in memory of its own.
    Card,
}

/// The types that a device supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Types {
    /// Every precision.
    All,
    /// One type for everything.
    Only(DType),
    /// These types, and the forms of weights that cards have operators for. The device itself checks which of the types.
    Cards {
        /// The types.
        types: &'static [DType],
        /// Whether attention operators take an int8 cache with a scale per channel, in fp16.
        has_c8: bool,
    },
}

/// The forms of weights that cards have operators for.
const CARD_FORMS: [WeightForm; 3] = [WeightForm::Plain, WeightForm::W8a8, WeightForm::W8a16];

/// The entry of a device.
struct Entry {
    word: &'static str,
    /// Addition to the word in `--help`.
    help: &'static str,
    hardware: Hardware,
    main_type: DType,
    types: Types,
    /// Largest useful number of tokens per step.
    step_tokens: usize,
    /// Whether the number of threads and the choice of kernels change what it does, and whether the machine's limits
    /// bound it.
    has_threads: bool,
    /// Number of its colour and marker in charts. `None` takes a free one.
    series: Option<usize>,
}

/// Tokens per step: a few hundred rows fill a CPU's matrix kernels. A card needs few launches, and whole prompts where
/// possible.
const HOST_STEP: usize = 512;
/// See [`HOST_STEP`].
const CARD_STEP: usize = 4096;

impl DeviceKind {
    /// All devices.
    pub const ALL: [Self; 4 + cfg!(test) as usize] = [
        Self::Cpu,
        Self::Reference,
        Self::Duo300i,
        Self::A2800i,
        #[cfg(test)]
        Self::Toy,
    ];

    const fn entry(self) -> Entry {
        match self {
            Self::Cpu => Entry {
                word: "cpu",
                help: "",
                hardware: Hardware::Host,
                main_type: DType::Fp16,
                types: Types::All,
                step_tokens: HOST_STEP,
                has_threads: true,
                series: Some(0),
            },
            Self::Reference => Entry {
                word: "reference",
                help: " (plain fp32 loops, slow)",
                hardware: Hardware::Host,
                main_type: DType::Fp32,
                types: Types::Only(DType::Fp32),
                step_tokens: HOST_STEP,
                has_threads: false,
                series: None,
            },
            Self::Duo300i => Entry {
                word: "300i-duo",
                help: "",
                hardware: Hardware::Card,
                main_type: DType::Fp16,
                types: Types::Cards { types: &[DType::Fp16], has_c8: false },
                step_tokens: CARD_STEP,
                has_threads: false,
                series: Some(1),
            },
            Self::A2800i => Entry {
                word: "800i-a2",
                help: "",
                hardware: Hardware::Card,
                main_type: DType::Fp16,
                types: Types::Cards { types: &[DType::Fp16, DType::Bf16], has_c8: true },
                step_tokens: CARD_STEP,
                has_threads: false,
                series: Some(2),
            },
            #[cfg(test)]
            Self::Toy => Entry {
                word: "toy",
                help: " (an example)",
                hardware: Hardware::Host,
                main_type: DType::Bf16,
                types: Types::Only(DType::Bf16),
                step_tokens: 1,
                has_threads: false,
                series: None,
            },
        }
    }

    /// Returns the word of this device, in suites, on the command line and in records.
    pub const fn name(self) -> &'static str {
        self.entry().word
    }

    /// Returns the type in which the device usually computes.
    pub const fn main_type(self) -> DType {
        self.entry().main_type
    }

    /// Returns the only type in which the device computes, if it has one.
    pub const fn only_type(self) -> Option<DType> {
        match self.entry().types {
            Types::Only(dtype) => Some(dtype),
            Types::All | Types::Cards { .. } => None,
        }
    }

    /// Returns what the device supports instead of a precision that it does not support; `None` if it does. A card
    /// checks further which of the plain types it has.
    pub fn instead_of(self, precision: Precision) -> Option<String> {
        match self.entry().types {
            Types::All => None,
            Types::Only(dtype) => (precision != dtype.into()).then(|| format!("it computes in {dtype} only")),
            Types::Cards { types, has_c8 } => {
                let has_cache = precision.kv == KvForm::Auto
                    || precision.kv == KvForm::C8 && has_c8 && precision.dtype == DType::Fp16;
                (!has_cache || !CARD_FORMS.contains(&precision.weights)).then(|| {
                    let forms = CARD_FORMS.into_iter().filter_map(WeightForm::name);
                    let fp16 = and([DType::Fp16.name()].into_iter().chain(forms.clone()));
                    let caches = match (has_cache, has_c8) {
                        (true, _) => String::new(),
                        (false, true) => {
                            format!("; of int8 KV caches, it has {} beside {fp16}", KvForm::C8.name())
                        }
                        (false, false) => "; its attention operators take no int8 KV cache".to_owned(),
                    };
                    let types = and(types.iter().map(|dtype| dtype.name()).chain(forms));
                    format!("it has {types}{caches}; other forms run on {}", Self::with(Types::All))
                })
            }
        }
    }

    /// Returns the words of the devices that have these types.
    fn with(types: Types) -> String {
        let all = Self::ALL.into_iter().filter(|kind| kind.entry().types == types);
        or(&all.map(|kind| format!("the {kind}")).collect::<Vec<_>>())
    }

    /// Returns the largest useful number of tokens per step.
    pub const fn step_tokens(self) -> usize {
        self.entry().step_tokens
    }

    /// Whether the device is a card, which has memory of its own and runs its operators asynchronously.
    pub const fn is_card(self) -> bool {
        matches!(self.entry().hardware, Hardware::Card)
    }

    /// Whether threads and kernels can be chosen, and the machine's limits bound the device.
    pub const fn has_threads(self) -> bool {
        self.entry().has_threads
    }

    /// Returns the number of the colour and marker that the device has in charts; `None` if it has none of its own.
    pub const fn series(self) -> Option<usize> {
        self.entry().series
    }

    /// Returns the name of the hardware in the folders of ModelTest.
    pub const fn modeltest_hardware(self) -> &'static str {
        match self.entry().hardware {
            Hardware::Host => "CPU",
            Hardware::Card => "NPU",
        }
    }

    /// Returns the words of all devices for help and messages: those without remarks first.
    pub fn help() -> String {
        let (plain, remarked): (Vec<_>, Vec<_>) =
            Self::ALL.into_iter().partition(|kind| kind.entry().help.is_empty());
        let words = plain.into_iter().chain(remarked);
        or(&words.map(|kind| format!("{kind}{}", kind.entry().help)).collect::<Vec<_>>())
    }

    /// Returns the cards.
    pub fn cards() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.is_card())
    }

    /// Returns the words of the cards, or of the other devices, for messages.
    pub fn words(cards: bool) -> String {
        let words = Self::ALL.into_iter().filter(|kind| kind.is_card() == cards);
        or(&words.map(|kind| kind.name().to_owned()).collect::<Vec<_>>())
    }
}

/// Joins words: `a, b and c`.
fn and<'a>(words: impl Iterator<Item = &'a str>) -> String {
    match words.collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Joins words: `a, b, or c`.
fn or(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [one, two] => format!("{one} or {two}"),
        [first @ .., last] => format!("{}, or {last}", first.join(", ")),
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DeviceKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|device| device.name() == word).ok_or_else(|| {
            let [first @ .., last] = Self::ALL.map(Self::name);
            format!("device \"{word}\" is unknown, expected {} or {last}", first.join(", "))
        })
    }
}

/// A device as [`DeviceInfo`](super::DeviceInfo) and records name it: `cpu`, `300i-duo (emulated)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceName {
    /// The device.
    pub kind: DeviceKind,
    /// Whether it is emulated.
    pub emulated: bool,
}

/// What follows the device's word in the name of an emulated card.
const EMULATED: &str = " (emulated)";

impl DeviceName {
    /// Whether the engine uses the memory of this process. A card has its own memory.
    pub const fn is_in_process_memory(self) -> bool {
        !self.kind.is_card()
    }
}

impl From<DeviceKind> for DeviceName {
    fn from(kind: DeviceKind) -> Self {
        Self { kind, emulated: false }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind, if self.emulated { EMULATED } else { "" })
    }
}

impl FromStr for DeviceName {
    type Err = String;

    /// Parses what [`Display`](fmt::Display) writes.
    fn from_str(name: &str) -> Result<Self, String> {
        let (word, emulated) = match name.strip_suffix(EMULATED) {
            Some(word) => (word, true),
            None => (name, false),
        };
        Ok(Self { kind: word.parse()?, emulated })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        for kind in DeviceKind::ALL {
            for emulated in [false, true] {
                let name = DeviceName { kind, emulated };
                assert_eq!(name.to_string().parse(), Ok(name));
            }
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for name in ["", "gpu", "cpu ", "cpu(emulated)", " (emulated)", "endpoint (openai)"] {
            let problem = name.parse::<DeviceName>().unwrap_err();
            assert!(problem.contains("expected cpu, reference, 300i-duo, 800i-a2 or toy"), "{problem}");
        }
    }

    #[test]
    fn every_device_supports_its_main_type_and_says_what_it_has_instead_of_others() {
        for kind in DeviceKind::ALL {
            assert_eq!(kind.instead_of(kind.main_type().into()), None, "{kind}");
        }
        let int8 = Precision { kv: KvForm::Int8, ..DType::Fp16.into() };
        let instead = DeviceKind::ALL.map(|kind| kind.instead_of(int8).unwrap_or_default());
        assert_eq!(instead[0], "");
        assert_eq!(instead[1], "it computes in fp32 only");
        let of_duo = "it has fp16, w8a8 and w8a16; its attention operators take no int8 KV cache; other forms run on the cpu";
        assert_eq!(instead[2], of_duo);
        assert_eq!(
            instead[3],
            "it has fp16, bf16, w8a8 and w8a16; of int8 KV caches, it has c8 beside fp16, w8a8 and w8a16; other forms run on the cpu"
        );
        for precision in Precision::TYPES {
            let c8 = Precision { kv: KvForm::C8, ..precision };
            let has = precision.dtype == DType::Fp16 && CARD_FORMS.contains(&precision.weights);
            assert_eq!(DeviceKind::A2800i.instead_of(c8).is_none(), has, "{c8}");
            assert!(
                DeviceKind::Duo300i.instead_of(c8).is_some_and(|said| said.contains("no int8 KV cache")),
                "{c8}"
            );
        }
        let dynamic = DeviceKind::A2800i.instead_of(Precision::W8A8_DYNAMIC).unwrap();
        assert_eq!(dynamic, "it has fp16, bf16, w8a8 and w8a16; other forms run on the cpu");
        assert_eq!(DeviceKind::Duo300i.instead_of(Precision::quantised(WeightForm::W8a8)), None);
        assert!(DeviceKind::A2800i.instead_of(Precision::W8A8_DYNAMIC).is_some());
    }

    #[test]
    fn devices_with_a_colour_have_different_ones() {
        let mut series: Vec<usize> = DeviceKind::ALL.into_iter().filter_map(DeviceKind::series).collect();
        series.sort_unstable();
        assert_eq!(series, (0..series.len()).collect::<Vec<_>>(), "without gaps, so that others follow them");
    }

    #[test]
    fn words_are_listed_for_help_and_messages() {
        let expected = "cpu, 300i-duo, 800i-a2, reference (plain fp32 loops, slow), or toy (an example)";
        assert_eq!(DeviceKind::help(), expected);
        assert_eq!(DeviceKind::words(true), "300i-duo or 800i-a2");
        assert_eq!(DeviceKind::words(false), "cpu, reference, or toy");
    }

    /// An entry is all that the other rooms need of a device, except what makes it.
    #[test]
    fn the_example_is_found_by_its_word() {
        let toy: DeviceName = "toy".parse().unwrap();
        assert_eq!((toy.kind, toy.emulated, toy.is_in_process_memory()), (DeviceKind::Toy, false, true));
        assert_eq!((toy.kind.main_type(), toy.kind.step_tokens()), (DType::Bf16, 1));
        let instead = toy.kind.instead_of(DType::Fp16.into());
        assert_eq!(instead.as_deref(), Some("it computes in bf16 only"));
    }
}
