//! What `rope_ratio` does: of two branches of the family's code each knows the key, and means something else by it.

/// What `rope_ratio` does; the two branches of the family's code that know the key mean different things by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeScaling {
    /// Positions are divided by it, as in ChatGLM2-6B-32k.
    Positions,
    /// The base is multiplied by it, as in ChatGLM3 and later.
    Base,
}

impl RopeScaling {
    /// The word of `--rope-scaling`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Positions => "positions",
            Self::Base => "base",
        }
    }

    /// What a model's name says of it, if that.
    fn of_name(name: &str, ratio: f64) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
        if has(&["chatglm2"]) {
            // The code of ChatGLM2-6B itself has no such key: a file with another ratio than 1 is of neither.
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

/// What `rope_ratio` does, if there is one: what a person said, else what the model's name says.
///
/// # Errors
/// Neither says it; a person said it of nothing.
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
        "rope_ratio is {ratio}, and the folder does not say what it does ({name}); give --rope-scaling positions (it divides \
             positions, as in ChatGLM2-6B-32k) or --rope-scaling base (it multiplies the base, as in ChatGLM3 and later): the \
             two are different models"
    ))
}
