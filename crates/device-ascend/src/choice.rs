//! Which operators do the work where several could.
//!
//! Documentation, host source and programs in use disagree about what a 310P runs, and operators come and go between versions
//! of CANN. So at start-up every alternative is asked, in the order of preference: its first stage, with the model's shapes.
//! The first that accepts is taken, and stands in the record. `GLMBENCH_ASCEND` forces any choice, e.g.
//! `GLMBENCH_ASCEND=decode=matmul,kv=copy`; a forced choice that is refused is an error.

use glmbench_device::DeviceError;

/// Defines the alternatives of one capability with their words.
macro_rules! alternatives {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All, the preferred first.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word of the record and of `GLMBENCH_ASCEND`.
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
        /// In fractals, `aclnnMm` told so by the format.
        FractalMm = "nz-mm",
        /// In fractals, `aclnnMatmul` told so by the format. Its page allows no fractals, its source does.
        Fractal = "nz",
        /// As stored, seen transposed, `aclnnMatmul` and `aclnnAddmm`.
        Plain = "plain",
    }
}

alternatives! {
    /// How a linear layer's bias gets into its sums.
    Bias {
        /// `aclnnAddmm`, which takes weights as they are stored: the sum is rounded once.
        Addmm = "addmm",
        /// A column of the weight, against a one behind each row of the input: the sum is rounded once.
        Folded = "folded",
        /// Added to the product, which was rounded before.
        Added = "added",
    }
}

alternatives! {
    /// How keys and values get into the cache.
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
    /// Attention of one token of every sequence.
    Decode {
        /// `aclnnFusedInferAttentionScoreV2` over the paged cache.
        Fused = "fused",
        /// `aclnnIncreFlashAttentionV4` over a paged cache with heads before tokens, as its page recommends on an A2.
        IncrementalByHeads = "incre-bnsd",
        /// `aclnnIncreFlashAttentionV4` over a paged cache with tokens before heads.
        Incremental = "incre",
        /// `aclnnPromptFlashAttentionV3`: the query heads of a KV head as tokens of one head, over gathered blocks.
        Prompt = "prompt",
        /// `aclnnBatchMatMul`, `aclnnSoftmax`, `aclnnBatchMatMul`.
        Matmul = "matmul",
    }
}

alternatives! {
    /// Attention of many tokens of a sequence.
    Prefill {
        /// `aclnnFusedInferAttentionScoreV2` over the paged cache.
        Fused = "fused",
        /// `aclnnPromptFlashAttentionV3`; chunks that go on past 4,096 tokens as by matmul.
        Prompt = "prompt",
        /// `aclnnBatchMatMul`, mask, `aclnnSoftmax`, `aclnnBatchMatMul`.
        Matmul = "matmul",
    }
}

alternatives! {
    /// How the residual is added.
    Addition {
        /// `aclnnInplaceAdd`, which repeats biases and masks itself.
        Add = "add",
        /// `aclnnInplaceAdd` of equal shapes; `aclnnInplaceCopy` repeats biases and masks before.
        AddRepeated = "add-repeated",
        /// `aclnnAddRmsNorm`, whose sum is kept and whose norm is not.
        AddRmsNorm = "add-rms-norm",
    }
}

alternatives! {
    /// Whether plans of operators are kept.
    Reuse {
        /// Repeatable executors.
        Kept = "kept",
        /// Every launch plans anew.
        Anew = "anew",
    }
}

alternatives! {
    /// Whether launches that come again in the same order are captured and launched as one.
    Graph {
        /// Every operator is launched by itself.
        Off = "off",
        /// What lies between attention, collectives and copies is a graph (`aclmdlRICaptureBegin`).
        Segments = "segments",
    }
}

/// What is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choices {
    /// Weights of linear layers.
    pub weights: WeightFormat,
    /// Their biases.
    pub bias: Bias,
    /// KV write.
    pub kv: KvWrite,
    /// Rotary.
    pub rotary: Rotation,
    /// Attention, decode.
    pub decode: Decode,
    /// Attention, prefill.
    pub prefill: Prefill,
    /// Residual.
    pub add: Addition,
    /// Executors.
    pub reuse: Reuse,
    /// Graphs.
    pub graph: Graph,
}

impl Choices {
    /// By name, for the record.
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

/// Choices that somebody forces.
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
    /// Reads `name=word,name=word`; an empty text forces nothing.
    ///
    /// # Errors
    /// An unknown name or word, with those that are known.
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

    /// What [`FORCE_VARIABLE`] says.
    ///
    /// # Errors
    /// As [`Forced::parse`], naming the variable.
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
