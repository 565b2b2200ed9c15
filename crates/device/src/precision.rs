//! The types in which a model computes: activations, linear-layer weights, KV cache.

use std::fmt;
use std::str::FromStr;

use super::weight::SCALE_BYTES;
use super::words::one_of;
use super::{
    DType, Form, HostTensor, INT4_GROUP, Inputs, Int4Weight, Int8StaticWeight, Int8Weight, LinearWeight,
    StaticInput, Storage,
};

/// Quantisation of the inputs of random weights, which have no calibrated activations: ±8 in 127 steps either way.
const UNCALIBRATED: StaticInput = StaticInput { scale: 8.0 / 127.0, offset: 0.0 };

/// The form of linear layers: that of a quantised checkpoint, or that into which dense weights are brought at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WeightForm {
    /// In the type of the activations.
    #[default]
    Plain,
    /// int8, symmetric, with one scale per output channel. Activations are quantised to int8 with one scale per token
    /// before the product; sums are int32. This includes the output layer. With an fp16 output layer, the mean KL
    /// divergence of the demo model from fp16 would be 3.0e-3 instead of 3.2e-3. At most two of 224 BoolQ items would
    /// change. ChatGLM2-6B would read 4 % more bytes per token.
    W8a8Dynamic,
    /// int8 weights with inputs quantised by a stored scale, as in ModelSlim's W8A8. The scale comes from a calibrated
    /// checkpoint. Random weights have one that is made up.
    W8a8,
    /// int8 weights with one scale per output channel, and floating-point inputs.
    W8a16,
    /// int4 weights with one scale per output channel and group of [`INT4_GROUP`] inputs, and floating-point inputs.
    W4a16,
    /// int4 weights as in [`Self::W4a16`], and inputs quantised to int8 with one scale per token.
    W4a8Dynamic,
}

impl WeightForm {
    /// Returns the word of this form among the number types. `None` if the word is that of the activations.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::W8a8Dynamic => Some("w8a8-dynamic"),
            Self::W8a8 => Some("w8a8"),
            Self::W8a16 => Some("w8a16"),
            Self::W4a16 => Some("w4a16"),
            Self::W4a8Dynamic => Some("w4a8-dynamic"),
        }
    }

    /// Says in a few words what the form does, for help texts.
    pub fn about(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::W8a8Dynamic => Some("int8 products between fp16 activations"),
            Self::W8a8 => Some("as w8a8-dynamic, with scales from a calibrated checkpoint"),
            Self::W8a16 => Some("int8 weights"),
            Self::W4a16 => Some("int4 weights in groups of 128"),
            Self::W4a8Dynamic => Some("as w8a8-dynamic, with int4 weights"),
        }
    }

    /// Whether the form needs numbers that dense weights do not have: scales from a calibration.
    pub fn is_calibrated(self) -> bool {
        self == Self::W8a8
    }

    /// Returns the form of the values that [`of_dense`](Self::of_dense) makes.
    pub fn form(self) -> Form {
        match self {
            Self::Plain => Form::Dense,
            Self::W8a8Dynamic => Form::Int8(Inputs::Int8PerToken),
            Self::W8a8 => Form::Int8(Inputs::Int8Static),
            Self::W8a16 => Form::Int8(Inputs::Float),
            Self::W4a16 => Form::Int4(Inputs::Float),
            Self::W4a8Dynamic => Form::Int4(Inputs::Int8PerToken),
        }
    }

    /// Brings a dense weight into this form. It is quantised row by row while the device packs it, so no second copy of the
    /// integers is in memory. The inputs of a [calibrated](Self::is_calibrated) form have a scale that is made up, which is
    /// good for random weights only.
    pub fn of_dense(self, dense: HostTensor<'_>) -> LinearWeight<'_> {
        match self {
            Self::Plain => LinearWeight::Dense(dense),
            Self::W8a8Dynamic => LinearWeight::Int8(Int8Weight::quantised(dense, Inputs::Int8PerToken)),
            Self::W8a8 => LinearWeight::Int8Static(Int8StaticWeight::quantised(dense, UNCALIBRATED)),
            Self::W8a16 => LinearWeight::Int8(Int8Weight::quantised(dense, Inputs::Float)),
            Self::W4a16 => LinearWeight::Int4(Int4Weight::quantised(dense, INT4_GROUP, Inputs::Float)),
            Self::W4a8Dynamic => {
                LinearWeight::Int4(Int4Weight::quantised(dense, INT4_GROUP, Inputs::Int8PerToken))
            }
        }
    }

    /// Returns how a device that computes in `dtype` stores weights of this form.
    fn storage(self, dtype: DType) -> Storage {
        match self {
            Self::Plain => Storage::Dense(dtype),
            Self::W8a8Dynamic | Self::W8a16 => Storage::Int8,
            Self::W8a8 => Storage::Int8Static,
            Self::W4a16 | Self::W4a8Dynamic => Storage::Int4 { group: INT4_GROUP },
        }
    }
}

/// Size in bytes of a zero point.
const ZERO_BYTES: u64 = 1;

/// How the KV cache stores keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvForm {
    /// In the type of the activations.
    #[default]
    Auto,
    /// int8 with one fp32 scale per token and head, and one int8 zero point for each key. Values are symmetric.
    Int8,
    /// int8 with one scale and offset per channel, which a checkpoint stores ([`KvChannels`](super::KvChannels)).
    C8,
}

impl KvForm {
    /// All forms.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Int8, Self::C8];

    /// Returns the word of this form, in suites and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Int8 => "int8",
            Self::C8 => "c8",
        }
    }

    /// Lists the words, for messages and help texts.
    pub fn words() -> String {
        one_of(Self::ALL.map(|form| match form.suffix() {
            None => format!("{} (that of --dtype)", form.name()),
            Some(_) if form == Self::C8 => format!("{} (int8 by the scales of a checkpoint)", form.name()),
            Some(_) => form.name().to_owned(),
        }))
    }

    /// Returns what this form adds to the word of a number type, behind a plus.
    fn suffix(self) -> Option<&'static str> {
        match self {
            Self::Auto => None,
            Self::Int8 => Some("kv-int8"),
            Self::C8 => Some("kv-c8"),
        }
    }
}

impl FromStr for KvForm {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|form| form.name() == word)
            .ok_or_else(|| format!("KV cache type \"{word}\" is unknown, expected {}", Self::words()))
    }
}

/// The types of a running model. In records and tables this is one word: `fp16`, `w8a8-dynamic`, `fp16+kv-int8`….
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Precision {
    /// Type of the activations, and of everything without a form of its own.
    pub dtype: DType,
    /// Form of the linear layer weights.
    pub weights: WeightForm,
    /// Form of the KV cache.
    pub kv: KvForm,
}

impl Precision {
    /// `w8a8-dynamic` with an fp16 KV cache.
    pub const W8A8_DYNAMIC: Self = Self::quantised(WeightForm::W8a8Dynamic);

    /// All number types of activations and weights, with the KV cache in that of the activations.
    pub const TYPES: [Self; 8] = [
        Self::plain(DType::Fp16),
        Self::plain(DType::Bf16),
        Self::plain(DType::Fp32),
        Self::W8A8_DYNAMIC,
        Self::quantised(WeightForm::W8a8),
        Self::quantised(WeightForm::W8a16),
        Self::quantised(WeightForm::W4a16),
        Self::quantised(WeightForm::W4a8Dynamic),
    ];

    /// Everything in one type.
    const fn plain(dtype: DType) -> Self {
        Self { dtype, weights: WeightForm::Plain, kv: KvForm::Auto }
    }

    /// Linear layers in a form of their own, everything else in fp16.
    pub const fn quantised(weights: WeightForm) -> Self {
        Self { dtype: DType::Fp16, weights, kv: KvForm::Auto }
    }

    /// Returns the word of the number type, in suites and on the command line.
    pub fn type_name(self) -> &'static str {
        self.weights.name().unwrap_or(self.dtype.name())
    }

    /// Lists the words of all number types, for messages and help texts.
    pub fn words() -> String {
        one_of(Self::TYPES.map(Self::type_name))
    }

    /// Returns what is quantised, for the identity of a run: `none`, `w8a8-dynamic`, `kv-int8`, or both joined by a
    /// plus.
    pub fn quantisation(self) -> String {
        let parts: Vec<&str> = self.weights.name().into_iter().chain(self.kv.suffix()).collect();
        if parts.is_empty() { "none".to_owned() } else { parts.join("+") }
    }

    /// Returns whether linear layers have a form of their own, which scales their numbers.
    pub fn has_quantised_weights(self) -> bool {
        self.weights != WeightForm::Plain
    }

    /// Returns whether a step rounds numbers to integers: inputs of linear layers, keys or values. There, a difference of one
    /// rounding before can become a whole step.
    pub fn quantises_activations(self) -> bool {
        self.weights.form().inputs() != Inputs::Float || self.kv != KvForm::Auto
    }

    /// Returns whether everything has the type `dtype`.
    pub fn is_plain(self) -> bool {
        self == Self::from(self.dtype)
    }

    /// Returns how the linear layers of a dense checkpoint are stored.
    pub fn storage(self) -> Storage {
        self.weights.storage(self.dtype)
    }

    /// Returns the size in bytes of the key and the value of one token in one head.
    pub fn kv_bytes(self, channels: u64) -> u64 {
        let numbers = channels.saturating_mul(2);
        match self.kv {
            KvForm::Auto => numbers.saturating_mul(self.dtype.bytes() as u64),
            KvForm::Int8 => numbers.saturating_add(2 * SCALE_BYTES + ZERO_BYTES),
            KvForm::C8 => numbers,
        }
    }
}

impl From<DType> for Precision {
    fn from(dtype: DType) -> Self {
        Self::plain(dtype)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())?;
        self.kv.suffix().map_or(Ok(()), |suffix| write!(f, "+{suffix}"))
    }
}

impl FromStr for Precision {
    type Err = String;

    /// Parses what [`Display`](fmt::Display) writes.
    fn from_str(word: &str) -> Result<Self, String> {
        let all = || Self::TYPES.into_iter().flat_map(|of| KvForm::ALL.map(|kv| Self { kv, ..of }));
        all().find(|of| of.to_string() == word).ok_or_else(|| {
            let with =
                |kv: KvForm| Some(format!("\"+{}\" behind it for an {} KV cache", kv.suffix()?, kv.name()));
            let with: Vec<String> = KvForm::ALL.into_iter().filter_map(with).collect();
            format!("dtype \"{word}\" is unknown, expected {}, with {}", Self::words(), with.join(" or "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_precision_is_read_as_it_is_written() {
        for word in [
            "fp16",
            "bf16",
            "fp32",
            "w8a8-dynamic",
            "fp16+kv-int8",
            "bf16+kv-int8",
            "fp32+kv-int8",
            "w8a8-dynamic+kv-int8",
            "w8a8",
            "w8a8+kv-c8",
            "w8a16",
            "w4a16+kv-c8",
            "w4a8-dynamic",
        ] {
            assert_eq!(word.parse::<Precision>().unwrap().to_string(), word);
        }
        for word in ["", "int8", "w8a8s", "+kv-int8", "fp16+kv-int8+kv-int8", "fp16 "] {
            assert!(word.parse::<Precision>().unwrap_err().contains("expected fp16"), "{word}");
        }
    }

    #[test]
    fn a_scale_stands_beside_each_channel_and_each_token_of_a_head() {
        assert_eq!(Precision::from(DType::Fp16).storage().bytes(3, 10), 60);
        assert_eq!(Precision::W8A8_DYNAMIC.storage().bytes(3, 10), 42);
        assert_eq!(Precision::quantised(WeightForm::W4a16).storage().bytes(3, 256), 3 * 128 + 3 * 2 * 4);
        assert_eq!(Precision::from(DType::Fp16).kv_bytes(128), 512);
        assert_eq!(Precision { kv: KvForm::Int8, ..DType::Fp32.into() }.kv_bytes(128), 265);
        assert_eq!(Precision { kv: KvForm::C8, ..DType::Fp16.into() }.kv_bytes(128), 256);
    }
}
