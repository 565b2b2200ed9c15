//! Conversions between fp32 and the storage types.

use bytemuck::Zeroable;

use crate::simd::{Element, Isa, Kernel, LANES, Simd16};

/// Widens stored numbers to fp32. The number of numbers is a multiple of sixteen.
pub(crate) struct Widen<'a> {
    pub(crate) from: &'a [u8],
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let stored: &[E::Stored] = bytemuck::cast_slice(self.from);
        for (from, to) in stored.iter().zip(self.to.as_chunks_mut().0) {
            E::load(isa, from).store(to);
        }
    }
}

/// Rounds fp32 numbers and stores them. `to` has the size of as many stored numbers.
pub(crate) struct Narrow<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [u8],
}

impl Kernel for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let (whole, rest) = self.from.as_chunks();
        let (stored, end) = self.to.split_at_mut(whole.len() * LANES * E::BYTES);
        let stored: &mut [E::Stored] = bytemuck::cast_slice_mut(stored);
        for (from, to) in whole.iter().zip(stored) {
            E::store(isa.load(from), to);
        }
        if !rest.is_empty() {
            let mut last = E::Stored::zeroed();
            E::store(isa.load_part(rest), &mut last);
            end.copy_from_slice(&bytemuck::bytes_of(&last)[..rest.len() * E::BYTES]);
        }
    }
}
