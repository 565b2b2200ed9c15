//! Selects between alternative operators.
//!
//! Documentation, host source and existing programs disagree about what a 310P runs, and operators come and go between
//! versions of CANN. So start-up probes every alternative in order of preference: it calls the first stage with the
//! model's shapes. The first alternative that is accepted is used and recorded. `GLMBENCH_ASCEND` forces any choice, e.g.
//! `GLMBENCH_ASCEND=decode=matmul,kv=copy`; a forced choice that is refused is an error.

use glmbench_device::DeviceError;

/// Defines the alternatives of one capability, with their names.
macro_rules! alternatives {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All alternatives, the preferred first.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the name in the record and in `GLMBENCH_ASCEND`.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            fn parse(word: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|choice| choice.word() == word).ok_or_else(|| {
                    let all: Vec<&str> = Self::ALL.iter().map(|choice| choice.word()).collect();
                    format!("\"{word}\" is none of {}", all.join(", "))
                })
            }
        }
    };
}

alternatives! {
    /// How linear layers hold their weights.
    WeightFormat {
        /// In the matrix unit's fractals, `aclnnMatmulWeightNz`.
        FractalOperator = "nz-operator",
        /// In fractals, `aclnnMm` with the format set on the tensor.
        FractalMm = "nz-mm",
        /// In fractals, `aclnnMatmul` with the format set on the tensor. Its page does not allow fractals; its source
        /// does.
        Fractal = "nz",
        /// As stored, viewed transposed, `aclnnMatmul` and `aclnnAddmm`.
        Plain = "plain",
    }
}

/// Forms of int8 weights. The checkpoint has one; nothing is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Int8Form {
    /// Inputs quantised by a stored scale: `aclnnAscendQuantV3`, `aclnnQuantMatmulV4`.
    Static,
    /// Inputs as they are: `aclnnWeightQuantBatchMatmulV2`.
    Float,
}

impl Int8Form {
    /// All forms.
    pub(super) const ALL: [Self; 2] = [Self::Static, Self::Float];

    /// Returns the name in a survey.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Static => "w8a8",
            Self::Float => "w8a16",
        }
    }
}

alternatives! {
    /// How a linear layer adds its bias.
    Bias {
        /// `aclnnAddmm`, which takes weights as stored. The sum is rounded once.
        Addmm = "addmm",
        /// As a column of the weight, against a one after each row of the input. The sum is rounded once.
        Folded = "folded",
        /// Added to the product, which is already rounded.
        Added = "added",
    }
}

alternatives! {
    /// How keys and values are written to the cache.
    KvWrite {
        /// `aclnnScatterPaKvCache`: both at once.
        Scatter = "scatter",
        /// `aclnnInplaceIndexCopy`: rows by index.
        IndexCopy = "index-copy",
        /// `aclnnInplaceCopy`: run by run.
        Copy = "copy",
        /// Copies of memory, run by run.
        Memory = "memory",
    }
}

alternatives! {
    /// How queries and keys are rotated.
    Rotation {
        /// `aclnnApplyRotaryPosEmb`, both in place.
        Apply = "apply",
        /// `aclnnRotaryPositionEmbedding`, one at a time.
        Each = "each",
        /// On the host.
        Host = "host",
    }
}

alternatives! {
    /// Attention with one query token per sequence.
    Decode {
        /// `aclnnFusedInferAttentionScoreV2` over the paged cache.
        Fused = "fused",
        /// `aclnnIncreFlashAttentionV4` over a paged cache with heads before tokens, as its page recommends on an A2.
        IncrementalByHeads = "incre-bnsd",
        /// `aclnnIncreFlashAttentionV4` over a paged cache with tokens before heads.
        Incremental = "incre",
        /// `aclnnPromptFlashAttentionV3` over gathered blocks. The query heads of a KV head become the tokens of one head.
        Prompt = "prompt",
        /// `aclnnBatchMatMul`, `aclnnSoftmax`, `aclnnBatchMatMul`.
        Matmul = "matmul",
    }
}

alternatives! {
    /// Attention with many query tokens per sequence.
    Prefill {
        /// `aclnnFusedInferAttentionScoreV2` over the paged cache.
        Fused = "fused",
        /// `aclnnPromptFlashAttentionV3`. Heads of later chunks are packed into one, so that no row of the square is
        /// wasted. Few rows at the end of a context of more than 4,096 tokens go by matmul.
        Prompt = "prompt",
        /// The same operator without packed heads. Later chunks whose context exceeds 4,096 tokens go by matmul.
        PromptSquare = "prompt-square",
        /// `aclnnBatchMatMul`, mask, `aclnnSoftmax`, `aclnnBatchMatMul`.
        Matmul = "matmul",
    }
}

alternatives! {
    /// How the residual is added.
    Addition {
        /// `aclnnInplaceAdd`, which broadcasts biases and masks itself.
        Add = "add",
        /// `aclnnInplaceAdd` of equal shapes, after `aclnnInplaceCopy` has expanded biases and masks.
        AddRepeated = "add-repeated",
        /// `aclnnAddRmsNorm`: the sum is kept, the norm is discarded.
        AddRmsNorm = "add-rms-norm",
    }
}

alternatives! {
    /// Whether operators' plans are kept.
    Reuse {
        /// Repeatable executors.
        Kept = "kept",
        /// A new plan for every launch.
        Anew = "anew",
    }
}

alternatives! {
    /// Whether launches that recur in the same order are captured and launched as one graph.
    Graph {
        /// Every operator is launched separately.
        Off = "off",
        /// The operators between attention, collectives and copies form a graph (`aclmdlRICaptureBegin`).
        Segments = "segments",
    }
}

/// The selected alternatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choices {
    /// Weight format of linear layers.
    pub weights: WeightFormat,
    /// Bias of linear layers.
    pub bias: Bias,
    /// Write to the KV cache.
    pub kv: KvWrite,
    /// Rotary embedding.
    pub rotary: Rotation,
    /// Decode attention.
    pub decode: Decode,
    /// Prefill attention.
    pub prefill: Prefill,
    /// Residual addition.
    pub add: Addition,
    /// Reuse of plans.
    pub reuse: Reuse,
    /// Graph capture.
    pub graph: Graph,
}

impl Choices {
    /// Returns the name of each choice, for the record.
    pub fn words(&self) -> [(&'static str, &'static str); 9] {
        [
            ("weights", self.weights.word()),
            ("bias", self.bias.word()),
            ("kv", self.kv.word()),
            ("rotary", self.rotary.word()),
            ("decode", self.decode.word()),
            ("prefill", self.prefill.word()),
            ("add", self.add.word()),
            ("reuse", self.reuse.word()),
            ("graph", self.graph.word()),
        ]
    }
}

/// Choices forced by the user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forced {
    pub(super) weights: Option<WeightFormat>,
    pub(super) bias: Option<Bias>,
    pub(super) kv: Option<KvWrite>,
    pub(super) rotary: Option<Rotation>,
    pub(super) decode: Option<Decode>,
    pub(super) prefill: Option<Prefill>,
    pub(super) add: Option<Addition>,
    pub(super) reuse: Option<Reuse>,
    pub(super) graph: Option<Graph>,
}

/// The environment variable that forces choices.
pub const FORCE_VARIABLE: &str = "GLMBENCH_ASCEND";

impl Forced {
    /// Parses `name=word,name=word`. An empty text forces nothing.
    ///
    /// # Errors
    /// Fails on an unknown name or word, and lists the known ones.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut forced = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, word) = part.split_once('=').ok_or_else(|| format!("\"{part}\" is not name=word"))?;
            forced.set(name, word).map_err(|problem| format!("{name}: {problem}"))?;
        }
        Ok(forced)
    }

    fn set(&mut self, name: &str, word: &str) -> Result<(), String> {
        match name {
            "weights" => self.weights = Some(WeightFormat::parse(word)?),
            "bias" => self.bias = Some(Bias::parse(word)?),
            "kv" => self.kv = Some(KvWrite::parse(word)?),
            "rotary" => self.rotary = Some(Rotation::parse(word)?),
            "decode" => self.decode = Some(Decode::parse(word)?),
            "prefill" => self.prefill = Some(Prefill::parse(word)?),
            "add" => self.add = Some(Addition::parse(word)?),
            "reuse" => self.reuse = Some(Reuse::parse(word)?),
            "graph" => self.graph = Some(Graph::parse(word)?),
            _ => {
                return Err("expected weights, bias, kv, rotary, decode, prefill, add, reuse or graph".into());
            }
        }
        Ok(())
    }

    /// Reads [`FORCE_VARIABLE`].
    ///
    /// # Errors
    /// Fails as [`Forced::parse`] does, and names the variable.
    pub fn from_environment(device: &'static str) -> Result<Self, DeviceError> {
        let text = std::env::var(FORCE_VARIABLE).unwrap_or_default();
        Self::parse(&text).map_err(|problem| DeviceError::Setting {
            device,
            problem: format!("{FORCE_VARIABLE}={text}: {problem}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_forced_by_words() {
        let forced = Forced::parse("decode=matmul, kv=copy").unwrap();
        assert_eq!((forced.decode, forced.kv), (Some(Decode::Matmul), Some(KvWrite::Copy)));
        assert_eq!(Forced { decode: None, kv: None, ..forced }, Forced::default());
        assert_eq!(Forced::parse("").unwrap(), Forced::default());
        let told = Forced::parse("decode=fast").unwrap_err();
        assert!(told.contains("fused, incre-bnsd, incre, prompt, matmul"), "{told}");
        assert!(Forced::parse("speed=high").unwrap_err().contains("expected weights"));
    }
}
