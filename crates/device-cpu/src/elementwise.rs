//! Kernels over the numbers of a row: normalisation, activation, rotary embedding, sums.
//!
//! Every result is one fixed sequence of IEEE operations, and sums over a row use sixteen lanes, by index modulo 16.
//! The bits are therefore the same for every instruction set, batch, chunk and number of threads.
//!
//! Rows are padded to sixteen numbers. Kernels compute whole vectors, including the padding.

use crate::simd::{Element, Isa, Kernel, LANES, Simd16, exp};

/// `sums[i] = round(sums[i] + bias[i])` in place. Lengths are multiples of sixteen.
pub(crate) struct Finish<'a> {
    pub(crate) sums: &'a mut [f32],
    pub(crate) bias: Option<&'a [f32]>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let (sums, _) = self.sums.as_chunks_mut();
        match self.bias {
            Some(bias) => {
                for (sums, bias) in sums.iter_mut().zip(bias.as_chunks().0) {
                    E::round(isa.load(sums).add(isa.load(bias))).store(sums);
                }
            }
            None => {
                for sums in sums {
                    E::round(isa.load(sums)).store(sums);
                }
            }
        }
    }
}

/// Copies whole vectors past the caches.
pub(crate) struct Stream<'a> {
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [f32],
}

impl Kernel for Stream<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        for (from, to) in self.from.as_chunks().0.iter().zip(self.to.as_chunks_mut().0) {
            isa.load(from).stream(to);
        }
    }
}

/// `out = round(x / sqrt(mean(x^2) + epsilon) * weight)` for rows of `n` numbers, padded to sixteen.
pub(crate) struct RmsNorm<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) n: usize,
    pub(crate) weight: &'a [f32],
    pub(crate) epsilon: f32,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        // Only `n` numbers enter the sum.
        let (whole, rest) = self.x[..self.n].as_chunks();
        let mut squares = isa.splat(0.0);
        for x in whole {
            let v = isa.load(x);
            squares = v.mul_add(v, squares);
        }
        if !rest.is_empty() {
            let v = isa.load_part(rest);
            squares = v.mul_add(v, squares);
        }
        let scale = isa.splat(1.0 / (squares.sum() / self.n as f32 + self.epsilon).sqrt());
        let rows = self.x.as_chunks().0.iter().zip(self.weight.as_chunks().0);
        for ((x, weight), out) in rows.zip(self.out.as_chunks_mut().0) {
            E::round(isa.load(x).mul(scale).mul(isa.load(weight))).store(out);
        }
    }
}

/// `x = round(x + y)`. Lengths are multiples of sixteen.
pub(crate) struct Add<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) y: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        for (x, y) in self.x.as_chunks_mut().0.iter_mut().zip(self.y.as_chunks().0) {
            E::round(isa.load(x).add(isa.load(y))).store(x);
        }
    }
}

/// `out = round(round(silu(gate)) * up)`. Lengths are multiples of sixteen, or the last vector is filled with zeros.
pub(crate) struct SwiGlu<'a> {
    pub(crate) gate: &'a [f32],
    pub(crate) up: &'a [f32],
    /// Padded to sixteen numbers.
    pub(crate) out: &'a mut [f32],
    /// Whether whole vectors of results are streamed.
    pub(crate) streamed: bool,
}

impl SwiGlu<'_> {
    /// Returns sixteen results.
    #[inline(always)]
    pub(crate) fn sixteen<I: Isa, E: Element>(isa: I, gate: I::Vector, up: I::Vector) -> I::Vector {
        let one = isa.splat(1.0);
        let silu = E::round(gate.div(one.add(exp(isa, isa.splat(0.0).sub(gate)))));
        E::round(silu.mul(up))
    }
}

impl Kernel for SwiGlu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let ((gates, gate), (ups, up)) = (self.gate.as_chunks(), self.up.as_chunks());
        let mut out = self.out.as_chunks_mut().0.iter_mut();
        for ((gate, up), out) in gates.iter().zip(ups).zip(&mut out) {
            let results = Self::sixteen::<I, E>(isa, isa.load(gate), isa.load(up));
            if self.streamed { results.stream(out) } else { results.store(out) }
        }
        if let (false, Some(out)) = (gate.is_empty(), out.next()) {
            Self::sixteen::<I, E>(isa, isa.load_part(gate), isa.load_part(up)).store(out);
        }
    }
}

/// Rotates adjacent pairs of one head in place, each product and the sum rounded. There is a pair per number of the
/// table.
pub(crate) struct Rotate<'a> {
    pub(crate) head: &'a mut [f32],
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, E: Element>(self, isa: I) {
        let table = self.cos.chunks(LANES).zip(self.sin.chunks(LANES));
        for (head, (cos, sin)) in self.head.chunks_mut(2 * LANES).zip(table) {
            let (pairs, _) = head.as_chunks_mut::<2>();
            let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
            for (i, pair) in pairs.iter().take(cos.len()).enumerate() {
                (a[i], b[i]) = (pair[0], pair[1]);
            }
            let (a, b) = (isa.load(&a), isa.load(&b));
            let (c, s) = (isa.load_part(cos), isa.load_part(sin));
            let x = E::round(E::round(a.mul(c)).sub(E::round(b.mul(s)))).lanes();
            let y = E::round(E::round(b.mul(c)).add(E::round(a.mul(s)))).lanes();
            for (i, pair) in pairs.iter_mut().take(cos.len()).enumerate() {
                *pair = [x[i], y[i]];
            }
        }
    }
}
