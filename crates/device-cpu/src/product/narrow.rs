//! Which tiles compute an integer product with registers of 256 bits.

/// Defines the integer product of a set with registers of 256 bits. The caller has the macros `strip` and `rows_of_panels`,
/// which know how its tiles read and prefetch panels.
macro_rules! narrow {
    ($(#[$doc:meta])* $name:ident, $set:ty, $features:literal, $tile:ident, $most:expr, $heights:tt) => {
        $(#[$doc])*
        pub(super) fn $name(_: $set, t: Checked<'_>) {
            #[target_feature(enable = $features)]
            fn compiled(t: Checked<'_>) {
                let t = &*t;
                // SAFETY: the tiles lie inside the product, which was checked; the instructions are present.
                unsafe {
                    match t.rows() {
                        0 => {}
                        // Few rows: several panels at once, so that enough independent sums are in flight.
                        1 => strip!($tile, t, 1, 4),
                        2 => strip!($tile, t, 2, 2),
                        _ => {
                            for panel in 0..t.panels() {
                                rows_of_panels!($tile, t, $most, panel, $heights, 1);
                            }
                        }
                    }
                }
            }
            // SAFETY: the arguments prove that the machine has the instructions and that the operands hold the product.
            unsafe { compiled(t) }
        }
    };
}

pub(super) use narrow;
