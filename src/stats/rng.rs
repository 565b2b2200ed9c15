//! A random generator with a stream that this crate defines. A seed gives the same tokens and the same intervals in
//! every version and on every machine.
//!
//! The generator is PCG XSL-RR 128/64, which NumPy calls `PCG64` (M. E. O'Neill, "PCG: A Family of Simple Fast
//! Space-Efficient Statistically Good Algorithms for Random Number Generation", 2014). SplitMix64 (Steele, Lea and
//! Flood, 2014) fills its 256 bits of state from the 64-bit seed.
//!
//! `rand_pcg` has the same step of six lines, but another way from a seed to the first state. It would change every
//! recorded prompt and interval. Numbers in a range and in `[0, 1)` would stay here, since `rand` may change its
//! algorithms for them between versions.

/// SplitMix64: expands one 64-bit seed into any number of well-mixed words.
#[derive(Debug, Clone)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// Starts the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Returns the next word.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The crate's random generator: PCG XSL-RR 128/64, seeded through [`SplitMix64`].
#[derive(Debug, Clone)]
pub struct Rng {
    state: u128,
    increment: u128,
}

impl Rng {
    const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

    /// Starts the stream of `seed`. Four SplitMix64 words are the state (high, low) and the increment (high, low,
    /// made odd).
    pub fn new(seed: u64) -> Self {
        let mut words = SplitMix64::new(seed);
        let mut wide = || (u128::from(words.next_u64()) << 64) | u128::from(words.next_u64());
        Self { state: wide(), increment: wide() | 1 }
    }

    /// Returns the next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(Self::MULTIPLIER).wrapping_add(self.increment);
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    /// Returns an integer in `0..n`, uniformly distributed (Lemire's multiplication with rejection, 2019).
    ///
    /// `n = 0` gives 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // Without rejection, words whose low half is below 2^64 mod n would make the first values more likely.
        let reject_below = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= reject_below {
                return (product >> 64) as u64;
            }
        }
    }

    /// Returns a number in `[0, 1)` with 53 random bits.
    pub fn unit_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixtures::{fixtures, u64s};

    #[test]
    fn splitmix_and_pcg_streams_are_those_of_the_reference() {
        let f = &fixtures()["rng"];
        let seed = f["seed"].as_u64().unwrap();
        let mut split = SplitMix64::new(seed);
        assert_eq!(u64s(&f["splitmix"]), (0..8).map(|_| split.next_u64()).collect::<Vec<_>>());
        let mut rng = Rng::new(seed);
        assert_eq!(u64s(&f["pcg64"]), (0..8).map(|_| rng.next_u64()).collect::<Vec<_>>());
        let mut rng = Rng::new(seed);
        for want in f["unit"].as_array().unwrap() {
            assert_eq!(want.as_f64().unwrap(), rng.unit_f64());
        }
        let mut rng = Rng::new(seed);
        assert_eq!(u64s(&f["below_65024"]), (0..8).map(|_| rng.below(65024)).collect::<Vec<_>>());
    }

    #[test]
    fn below_stays_in_range_and_reaches_every_value() {
        let mut rng = Rng::new(1);
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
        let mut seen = [0u32; 7];
        for _ in 0..7000 {
            seen[rng.below(7) as usize] += 1;
        }
        assert!(seen.iter().all(|&count| (850..1150).contains(&count)), "{seen:?}");
        assert!((0..100).all(|_| rng.below(u64::MAX) < u64::MAX));
    }
}
