//! The words for how a model computes. The engine has types of its own for them: a suite file is read without one.

/// Number format of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// 16-bit IEEE floats, the product's main type.
    #[default]
    Fp16,
    /// 32-bit floats.
    Fp32,
    /// bfloat16.
    Bf16,
    /// int8 weights and, in linear layers, activations, between 16-bit IEEE floats.
    W8a8Dynamic,
}

impl Dtype {
    /// The words for them.
    pub const NAMES: [&'static str; 4] = ["fp16", "fp32", "bf16", "w8a8-dynamic"];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fp16 => "fp16",
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::W8a8Dynamic => "w8a8-dynamic",
        }
    }

    /// The type of that word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Fp16, Self::Fp32, Self::Bf16, Self::W8a8Dynamic].into_iter().find(|d| d.as_str() == name)
    }
}

/// Number format of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kv {
    /// That of the activations.
    #[default]
    Auto,
    /// 8-bit integers with a scale for each token and head.
    Int8,
}

impl Kv {
    /// The words for them.
    pub const NAMES: [&'static str; 2] = ["auto", "int8"];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Int8 => "int8",
        }
    }

    /// The format of that word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::Int8].into_iter().find(|kv| kv.as_str() == name)
    }
}

/// How the rotary table is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rope {
    /// As the Hugging Face code does in the model's dtype.
    #[default]
    Model,
    /// In fp32.
    Exact,
}

impl Rope {
    /// The words for them.
    pub const NAMES: [&'static str; 2] = ["model", "exact"];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Exact => "exact",
        }
    }

    /// The mode of that word.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Model, Self::Exact].into_iter().find(|r| r.as_str() == name)
    }
}
