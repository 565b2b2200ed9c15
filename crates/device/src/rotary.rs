//! The rotary position table, and the two ways to round it.
//!
//! The Hugging Face ChatGLM2-6B code builds the table in the model's own type. It rounds the exponent, the power, its
//! reciprocal, the position index and their product (the angle) to that type. Only cosine and sine are taken in fp32.
//! In fp16 an angle is off by up to 0.4 rad at position 1000, and positions above 2048 coincide. Parity with such a run
//! past ~500 positions therefore needs the same rounding. Two later branches of that code read the key `rope_ratio`,
//! with different meanings ([`RotaryScaling`]).

use super::DType;

/// How the angles are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RotaryMode {
    /// As the model's Hugging Face code does, in the model's type.
    Model,
    /// In double precision; only cosine and sine are rounded.
    Exact,
}

impl RotaryMode {
    /// All modes.
    pub const ALL: [Self; 2] = [Self::Model, Self::Exact];

    /// Returns the word of this mode, in suites and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Exact => "exact",
        }
    }
}

impl std::str::FromStr for RotaryMode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == word);
        found.ok_or_else(|| {
            let expected = super::words::one_of(Self::ALL.map(Self::name));
            format!("rotary mode \"{word}\" is unknown, expected {expected}")
        })
    }
}

/// The meaning of `rope_ratio` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RotaryScaling {
    /// No scaling: ChatGLM2-6B itself.
    None,
    /// Divides positions by the ratio (interpolation), in the model's type: ChatGLM2-6B-32k.
    Positions(f64),
    /// Multiplies the base, 10,000, by the ratio. Angles are computed in fp32 whatever the model's type, because the
    /// product would overflow fp16: ChatGLM3 and later.
    Base(f64),
}

impl RotaryScaling {
    fn base(self) -> f64 {
        if let Self::Base(ratio) = self { 10000.0 * ratio } else { 10000.0 }
    }

    fn position_divisor(self) -> f64 {
        if let Self::Positions(ratio) = self { ratio } else { 1.0 }
    }

    /// Returns the type in which the model's own code computes the angles.
    fn angle_type(self, model: DType) -> DType {
        if let Self::Base(_) = self { DType::Fp32 } else { model }
    }
}

/// The parameters of a rotary table.
#[derive(Debug, Clone, Copy)]
pub struct RotarySpec {
    /// Rotated channels per head (half of all its channels). Pairs are adjacent channels.
    pub channels: usize,
    /// The meaning of `rope_ratio`.
    pub scaling: RotaryScaling,
    /// How the angles are computed.
    pub mode: RotaryMode,
    /// The model's type.
    pub dtype: DType,
}

/// Cosine and sine of every position and pair.
#[derive(Debug, Clone, PartialEq)]
pub struct RotaryTable {
    /// Pairs per head.
    pub pairs: usize,
    /// Cosines `[positions, pairs]`, each representable in the model's type.
    pub cos: Vec<f32>,
    /// Sines `[positions, pairs]`, each representable in the model's type.
    pub sin: Vec<f32>,
}

impl RotaryTable {
    /// Builds the table for positions `0..positions`.
    pub fn new(spec: RotarySpec, positions: usize) -> Self {
        let pairs = spec.channels / 2;
        let mut table = Self {
            pairs,
            cos: Vec::with_capacity(positions * pairs),
            sin: Vec::with_capacity(positions * pairs),
        };
        let angles = Angles::new(spec);
        for position in 0..positions {
            for pair in 0..pairs {
                let (sin, cos) = angles.at(position, pair);
                table.cos.push(spec.dtype.round(cos));
                table.sin.push(spec.dtype.round(sin));
            }
        }
        table
    }
}

/// Angles by [`RotaryMode`].
enum Angles {
    /// Products rounded to `dtype`, of positions and frequencies that are rounded to `dtype`.
    Rounded { dtype: DType, position_divisor: f32, theta: Vec<f32> },
    /// Angle per position, in double precision.
    Exact { theta: Vec<f64> },
}

impl Angles {
    fn new(spec: RotarySpec) -> Self {
        let exponents = (0..spec.channels).step_by(2);
        match spec.mode {
            RotaryMode::Exact => {
                let (base, divisor) = (spec.scaling.base(), spec.scaling.position_divisor());
                let theta =
                    exponents.map(|e| base.powf(-(e as f64) / spec.channels as f64) / divisor).collect();
                Self::Exact { theta }
            }
            RotaryMode::Model => {
                let dtype = spec.scaling.angle_type(spec.dtype);
                let base = spec.scaling.base() as f32;
                let theta = exponents
                    .map(|e| {
                        let exponent = dtype.round(e as f32 / spec.channels as f32);
                        let power = dtype.round(dtype.round(base).powf(exponent));
                        dtype.round(1.0 / power)
                    })
                    .collect();
                let position_divisor = spec.scaling.position_divisor() as f32;
                Self::Rounded { dtype, position_divisor, theta }
            }
        }
    }

    /// Returns sine and cosine of the angle.
    fn at(&self, position: usize, pair: usize) -> (f32, f32) {
        match self {
            Self::Exact { theta } => {
                let (sin, cos) = (position as f64 * theta[pair]).sin_cos();
                (sin as f32, cos as f32)
            }
            Self::Rounded { dtype, position_divisor, theta } => {
                let position = dtype.round(dtype.round(position as f32) / position_divisor);
                let angle = dtype.round(position * theta[pair]);
                // Computed in double precision, so that the fp32 result is correctly rounded on every platform.
                let (sin, cos) = f64::from(angle).sin_cos();
                (sin as f32, cos as f32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(mode: RotaryMode, dtype: DType) -> RotarySpec {
        RotarySpec { channels: 64, scaling: RotaryScaling::None, mode, dtype }
    }

    #[test]
    fn fp16_rounding_moves_the_angle_as_far_as_measured_elsewhere() {
        // Independently derived, to two digits: at most 0.05 rad at position 100 and 0.39 rad at 1000, over all pairs.
        let exact = Angles::new(spec(RotaryMode::Exact, DType::Fp16));
        let model = Angles::new(spec(RotaryMode::Model, DType::Fp16));
        for (position, bound) in [(100, 0.055), (1000, 0.395)] {
            let worst = (0..32)
                .map(|pair| {
                    let (s0, c0) = exact.at(position, pair);
                    let (s1, c1) = model.at(position, pair);
                    (s0 * c1 - c0 * s1).atan2(c0 * c1 + s0 * s1).abs()
                })
                .fold(0.0f32, f32::max);
            assert!(worst <= bound && worst > bound / 4.0, "position {position}: {worst}");
        }
    }

    #[test]
    fn interpolation_puts_every_fourth_position_where_a_position_was() {
        for mode in [RotaryMode::Model, RotaryMode::Exact] {
            let plain = RotaryTable::new(spec(mode, DType::Fp16), 64);
            let stretched = RotarySpec { scaling: RotaryScaling::Positions(4.0), ..spec(mode, DType::Fp16) };
            let stretched = RotaryTable::new(stretched, 256);
            for position in 0..64 {
                let row = |table: &RotaryTable, at: usize| table.cos[at * 32..(at + 1) * 32].to_vec();
                assert_eq!(row(&plain, position), row(&stretched, 4 * position), "position {position}");
            }
        }
    }

    #[test]
    fn with_a_scaled_base_the_model_mode_does_not_overflow() {
        let scaled =
            RotarySpec { scaling: RotaryScaling::Base(10.0), ..spec(RotaryMode::Model, DType::Fp16) };
        let table = RotaryTable::new(scaled, 16);
        assert!(table.cos.iter().chain(&table.sin).all(|v| v.is_finite()));
        assert!(table.sin[5 * 32 + 31] > 0.0, "the slowest pair still turns");
    }
}
