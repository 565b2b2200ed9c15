//! The types in which a model computes: activations, linear-layer weights, KV cache.

use std::fmt;
use std::str::FromStr;

use super::weight::SCALE_BYTES;
use super::{DType, Storage};

/// The form into which dense weights of linear layers are brought at load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WeightForm {
    /// In the type of the activations.
    #[default]
    Plain,
    /// int8, symmetric, with one scale per output channel. Activations are quantised to int8 with one scale per token
    /// before the product; sums are int32. This includes the output layer. With an fp16 output layer, the mean KL
    /// divergence of the demo model's logits from fp16 would be 3.0e-3 instead of 3.2e-3. At most two of 224 BoolQ
    /// items would change. ChatGLM2-6B would read 4 % more bytes per token.
    W8a8Dynamic,
}

/// How the KV cache stores keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvForm {
    /// In the type of the activations.
    #[default]
    Auto,
    /// int8, symmetric, with one fp32 scale per token and head.
    Int8,
}

impl KvForm {
    /// All forms.
    pub const ALL: [Self; 2] = [Self::Auto, Self::Int8];

    /// Returns the word of this form, in suites and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Int8 => "int8",
        }
    }
}

impl FromStr for KvForm {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|form| form.name() == word).ok_or_else(|| {
            format!("KV cache type \"{word}\" is unknown, expected auto (that of --dtype) or int8")
        })
    }
}

/// The types of a running model. In records and tables this is one word: `fp16`, `w8a8-dynamic`, `fp16+kv-int8`….
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Precision {
    /// Type of the activations, and of everything without a form of its own.
    pub dtype: DType,
    /// Form of the linear layers' weights.
    pub weights: WeightForm,
    /// Form of the KV cache.
    pub kv: KvForm,
}

/// Suffix of the type name for an int8 KV cache.
const KV_INT8: &str = "+kv-int8";

impl Precision {
    /// `w8a8-dynamic` with an fp16 KV cache.
    pub const W8A8_DYNAMIC: Self =
        Self { dtype: DType::Fp16, weights: WeightForm::W8a8Dynamic, kv: KvForm::Auto };

    /// All number types of activations and weights, with the KV cache in that of the activations.
    pub const TYPES: [Self; 4] =
        [Self::plain(DType::Fp16), Self::plain(DType::Fp32), Self::plain(DType::Bf16), Self::W8A8_DYNAMIC];

    /// Everything in one type.
    const fn plain(dtype: DType) -> Self {
        Self { dtype, weights: WeightForm::Plain, kv: KvForm::Auto }
    }

    /// Returns the word of the number type, in suites and on the command line.
    pub fn type_name(self) -> &'static str {
        match self.weights {
            WeightForm::Plain => self.dtype.name(),
            WeightForm::W8a8Dynamic => "w8a8-dynamic",
        }
    }

    /// Returns what is quantised, for the identity of a run: `none`, `w8a8-dynamic`, `kv-int8`, or both joined by a
    /// plus.
    pub fn quantisation(self) -> &'static str {
        match (self.weights, self.kv) {
            (WeightForm::Plain, KvForm::Auto) => "none",
            (WeightForm::Plain, KvForm::Int8) => "kv-int8",
            (WeightForm::W8a8Dynamic, KvForm::Auto) => "w8a8-dynamic",
            (WeightForm::W8a8Dynamic, KvForm::Int8) => "w8a8-dynamic+kv-int8",
        }
    }

    /// Returns whether everything has the type `dtype`.
    pub fn is_plain(self) -> bool {
        self == Self::from(self.dtype)
    }

    /// Returns how linear layers are stored whose checkpoint is dense.
    pub fn storage(self) -> Storage {
        match self.weights {
            WeightForm::Plain => Storage::Dense(self.dtype),
            WeightForm::W8a8Dynamic => Storage::Int8,
        }
    }

    /// Returns the size in bytes of one token's key (or value) of one head.
    pub fn kv_bytes(self, channels: u64) -> u64 {
        match self.kv {
            KvForm::Auto => channels.saturating_mul(self.dtype.bytes() as u64),
            KvForm::Int8 => channels.saturating_add(SCALE_BYTES),
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
        match self.kv {
            KvForm::Auto => Ok(()),
            KvForm::Int8 => f.write_str(KV_INT8),
        }
    }
}

impl FromStr for Precision {
    type Err = String;

    /// Parses what [`Display`](fmt::Display) writes.
    fn from_str(word: &str) -> Result<Self, String> {
        let (name, kv) = match word.strip_suffix(KV_INT8) {
            Some(name) => (name, KvForm::Int8),
            None => (word, KvForm::Auto),
        };
        let found = Self::TYPES.into_iter().find(|of| of.type_name() == name);
        found.map(|of| Self { kv, ..of }).ok_or_else(|| {
            format!(
                "dtype \"{word}\" is unknown, expected fp16, bf16, fp32 or w8a8-dynamic, with \"{KV_INT8}\" behind it for an int8 KV cache"
            )
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
        ] {
            assert_eq!(word.parse::<Precision>().unwrap().to_string(), word);
        }
        for word in ["", "int8", "w8a8", "+kv-int8", "fp16+kv-int8+kv-int8", "fp16 "] {
            assert!(word.parse::<Precision>().unwrap_err().contains("expected fp16"), "{word}");
        }
    }

    #[test]
    fn a_scale_stands_beside_each_channel_and_each_token_of_a_head() {
        assert_eq!(Precision::from(DType::Fp16).storage().bytes(3, 10), 60);
        assert_eq!(Precision::W8A8_DYNAMIC.storage().bytes(3, 10), 42);
        assert_eq!(Precision::from(DType::Fp16).kv_bytes(128), 256);
        assert_eq!(Precision { kv: KvForm::Int8, ..DType::Fp32.into() }.kv_bytes(128), 132);
    }
}
