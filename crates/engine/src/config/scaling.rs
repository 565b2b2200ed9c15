//! The meaning of `rope_ratio`, which differs between two branches of the family code.

/// What `rope_ratio` scales. Two branches of the family code use the key with different meanings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeScaling {
    /// Positions are divided by the ratio, as in ChatGLM2-6B-32k.
    Positions,
    /// The base is multiplied by the ratio, as in ChatGLM3 and later.
    Base,
}

impl RopeScaling {
    /// Returns the value of `--rope-scaling`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Positions => "positions",
            Self::Base => "base",
        }
    }

    /// Returns what a model's name says about the scaling, if anything.
    fn of_name(name: &str, ratio: f64) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if has(&["chatglm2"]) {
            // ChatGLM2-6B's own code has no such key, so a ratio other than 1 does not belong to this model.
            return (has(&["32k"]) || ratio == 1.0).then_some(Self::Positions);
        }
        has(&["chatglm3", "glm-4", "glm4"]).then_some(Self::Base)
    }
}

impl std::str::FromStr for RopeScaling {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "positions" => Ok(Self::Positions),
            "base" => Ok(Self::Base),
            _ => Err(format!(
                "rotary scaling \"{word}\" is unknown, expected positions (rope_ratio divides positions, as in \
                 ChatGLM2-6B-32k) or base (it multiplies the base, as in ChatGLM3 and later)"
            )),
        }
    }
}

/// Returns what `rope_ratio` scales, if there is one: the user's choice, else what the model's name says.
///
/// # Errors
/// Neither says it, or the user chose a scaling and there is no `rope_ratio`.
pub(super) fn decided(
    ratio: Option<f64>,
    name: Option<&str>,
    said: Option<RopeScaling>,
) -> Result<Option<RopeScaling>, String> {
    let Some(ratio) = ratio else {
        let nothing = "there is no rope_ratio, so there is nothing for --rope-scaling to scale by";
        return said.map_or(Ok(None), |_| Err(nothing.to_owned()));
    };
    if let Some(scaling) = said.or_else(|| RopeScaling::of_name(name.unwrap_or_default(), ratio)) {
        return Ok(Some(scaling));
    }
    let name = name.map_or("there is no _name_or_path".into(), |n| format!("_name_or_path is \"{n}\""));
    Err(format!(
        "rope_ratio is {ratio}, and the folder does not say what it does ({name}). Give --rope-scaling positions if it divides \
             positions, as in ChatGLM2-6B-32k. Give --rope-scaling base if it multiplies the base, as in ChatGLM3 and later. The \
             two are different models"
    ))
}
