//! Names for how a model computes. The engine has its own types, so suites can be read without it.

/// Number format of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// 16-bit IEEE floats, the program's main type.
    #[default]
    Fp16,
    /// 32-bit floats.
    Fp32,
    /// bfloat16.
    Bf16,
    /// int8 weights and int8 activations within linear layers, 16-bit IEEE floats between them.
    W8a8Dynamic,
}

impl Dtype {
    /// The names used in suites.
    pub const NAMES: [&'static str; 4] = ["fp16", "fp32", "bf16", "w8a8-dynamic"];

    /// Returns the name used in suites.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fp16 => "fp16",
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::W8a8Dynamic => "w8a8-dynamic",
        }
    }

    /// Returns the type called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Fp16, Self::Fp32, Self::Bf16, Self::W8a8Dynamic].into_iter().find(|d| d.as_str() == name)
    }
}

/// Number format of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kv {
    /// Same as the activations.
    #[default]
    Auto,
    /// 8-bit integers with one scale per token and head.
    Int8,
}

impl Kv {
    /// The names used in suites.
    pub const NAMES: [&'static str; 2] = ["auto", "int8"];

    /// Returns the name used in suites.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Int8 => "int8",
        }
    }

    /// Returns the format called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Auto, Self::Int8].into_iter().find(|kv| kv.as_str() == name)
    }
}

/// Rounding of the rotary table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rope {
    /// As in the Hugging Face code, in the model's dtype.
    #[default]
    Model,
    /// In fp32.
    Exact,
}

impl Rope {
    /// The names used in suites.
    pub const NAMES: [&'static str; 2] = ["model", "exact"];

    /// Returns the name used in suites.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Exact => "exact",
        }
    }

    /// Returns the mode called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Model, Self::Exact].into_iter().find(|r| r.as_str() == name)
    }
}
