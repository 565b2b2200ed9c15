//! Element types of the device, and conversion of rows to and from fp32.

/// aclDataType, as far as the emulator supports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum DType {
    Float = 0,
    Float16 = 1,
    Int8 = 2,
    Int32 = 3,
    Uint8 = 4,
    Int16 = 6,
    Int64 = 9,
    Uint64 = 10,
    Double = 11,
    Bool = 12,
    Bf16 = 27,
}

impl DType {
    /// Type with this C code.
    pub(crate) fn from_code(code: i32) -> Option<Self> {
        Some(match code {
            0 => Self::Float,
            1 => Self::Float16,
            2 => Self::Int8,
            3 => Self::Int32,
            4 => Self::Uint8,
            6 => Self::Int16,
            9 => Self::Int64,
            10 => Self::Uint64,
            11 => Self::Double,
            12 => Self::Bool,
            27 => Self::Bf16,
            _ => return None,
        })
    }

    /// Documented name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Float => "FLOAT",
            Self::Float16 => "FLOAT16",
            Self::Int8 => "INT8",
            Self::Int32 => "INT32",
            Self::Uint8 => "UINT8",
            Self::Int16 => "INT16",
            Self::Int64 => "INT64",
            Self::Uint64 => "UINT64",
            Self::Double => "DOUBLE",
            Self::Bool => "BOOL",
            Self::Bf16 => "BFLOAT16",
        }
    }

    /// Size of an element in bytes.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Int8 | Self::Uint8 | Self::Bool => 1,
            Self::Float16 | Self::Bf16 | Self::Int16 => 2,
            Self::Float | Self::Int32 => 4,
            Self::Int64 | Self::Uint64 | Self::Double => 8,
        }
    }

    /// Whether the type is fp32, fp16 or bf16.
    pub(crate) fn is_float(self) -> bool {
        matches!(self, Self::Float | Self::Float16 | Self::Bf16)
    }
}

/// Converts binary16 to binary32, exactly.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u16) -> f32 {
    let sign = u32::from(h & 0x8000) << 16;
    let exponent = u32::from(h >> 10) & 0x1f;
    let mantissa = u32::from(h & 0x3ff);
    match exponent {
        0 => {
            let magnitude = mantissa as f32 * f32::from_bits(0x3380_0000); // 2^-24
            f32::from_bits(sign | magnitude.to_bits())
        }
        31 => f32::from_bits(sign | 0x7f80_0000 | (mantissa << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13)),
    }
}

/// Converts binary32 to binary16: to nearest, ties to even.
#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00;
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    if magnitude < 0x3880_0000 {
        // Below 2^-14, adding one half makes the adder round at the last place of the subnormal.
        let rounded = (f32::from_bits(magnitude) + 0.5).to_bits() - 0.5f32.to_bits();
        return sign | rounded as u16;
    }
    let odd = (magnitude >> 13) & 1;
    let rounded = magnitude.wrapping_sub(112 << 23).wrapping_add(0xfff + odd);
    sign | (rounded >> 13) as u16
}

/// Converts bfloat16 to binary32, exactly.
#[inline(always)]
pub(crate) fn bf16_to_f32(b: u16) -> f32 {
    f32::from_bits(u32::from(b) << 16)
}

/// Converts binary32 to bfloat16: to nearest, ties to even.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) >> 16) as u16
}

/// Rounds `x` to the type.
pub(crate) fn round_to(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::Float16 => f16_to_f32(f32_to_f16(x)),
        DType::Bf16 => bf16_to_f32(f32_to_bf16(x)),
        _ => x,
    }
}

/// Rounds `x` to bfloat16: to nearest, ties away from zero (the chip's CAST_ROUND).
pub(crate) fn round_bf16_away(x: f32) -> f32 {
    if x.is_finite() { f32::from_bits(x.to_bits().wrapping_add(0x8000) & 0xffff_0000) } else { x }
}

/// Rounds a fraction between 0 and 1 to fp16, to odd: an inexact result takes the neighbour with an odd last bit (the
/// chip's CAST_ODD).
pub(crate) fn round_to_odd(x: f32) -> f32 {
    // Subnormal numbers are 2^-24 apart.
    let (units, unit) = if x < 6.103_515_6e-5 {
        (x * 16_777_216.0, 1.0 / 16_777_216.0)
    } else {
        let unit = f32::from_bits((x.to_bits() & 0x7f80_0000) - (10 << 23));
        (x / unit, unit)
    };
    let whole = units.trunc();
    let odd = if whole == units { whole } else { (whole as u32 | 1) as f32 };
    odd * unit
}

/// Whether the CPU has AVX2, FMA and F16C.
#[inline(always)]
pub(crate) fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Reads `out.len()` contiguous elements of a float type.
///
/// # Safety
/// `from` points to that many elements of `dtype`.
pub(crate) unsafe fn widen(dtype: DType, from: *const u8, out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            DType::Float => std::ptr::copy_nonoverlapping(from, out.as_mut_ptr().cast::<u8>(), out.len() * 4),
            DType::Bf16 => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = bf16_to_f32(from.cast::<u16>().add(i).read_unaligned());
                }
            }
            DType::Float16 => {
                #[cfg(target_arch = "x86_64")]
                if has_avx2() {
                    return widen_f16c(from.cast(), out);
                }
                for (i, o) in out.iter_mut().enumerate() {
                    *o = f16_to_f32(from.cast::<u16>().add(i).read_unaligned());
                }
            }
            _ => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = read_f64(dtype, from.add(i * dtype.bytes())) as f32;
                }
            }
        }
    }
}

/// Rounds and writes contiguous elements of a float type.
///
/// # Safety
/// `to` points to room for `numbers.len()` elements of `dtype`.
pub(crate) unsafe fn narrow(dtype: DType, numbers: &[f32], to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            DType::Float => {
                std::ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), to, numbers.len() * 4);
            }
            DType::Bf16 => {
                for (i, x) in numbers.iter().enumerate() {
                    to.cast::<u16>().add(i).write_unaligned(f32_to_bf16(*x));
                }
            }
            DType::Float16 => {
                #[cfg(target_arch = "x86_64")]
                if has_avx2() {
                    return narrow_f16c(numbers, to.cast());
                }
                for (i, x) in numbers.iter().enumerate() {
                    to.cast::<u16>().add(i).write_unaligned(f32_to_f16(*x));
                }
            }
            _ => {
                for (i, x) in numbers.iter().enumerate() {
                    write_f64(dtype, f64::from(*x), to.add(i * dtype.bytes()));
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn widen_f16c(from: *const u16, out: &mut [f32]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let whole = out.len() / 8 * 8;
    for i in (0..whole).step_by(8) {
        // SAFETY: eight numbers from `i` are inside both.
        unsafe {
            let halves = _mm_loadu_si128(from.add(i).cast());
            _mm256_storeu_ps(out.as_mut_ptr().add(i), _mm256_cvtph_ps(halves));
        }
    }
    for (i, o) in out.iter_mut().enumerate().skip(whole) {
        // SAFETY: the caller's promise.
        *o = f16_to_f32(unsafe { from.add(i).read_unaligned() });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn narrow_f16c(numbers: &[f32], to: *mut u16) {
    use std::arch::x86_64::{_mm_storeu_si128, _mm256_cvtps_ph, _mm256_loadu_ps};
    let whole = numbers.len() / 8 * 8;
    for i in (0..whole).step_by(8) {
        // SAFETY: eight numbers from `i` are inside both.
        unsafe {
            let halves = _mm256_cvtps_ph::<0>(_mm256_loadu_ps(numbers.as_ptr().add(i)));
            _mm_storeu_si128(to.add(i).cast(), halves);
        }
    }
    for (i, x) in numbers.iter().enumerate().skip(whole) {
        // SAFETY: the caller's promise.
        unsafe { to.add(i).write_unaligned(f32_to_f16(*x)) };
    }
}

/// Reads an element of any type as fp64. Exact, except for 64-bit integers beyond 2^53.
///
/// # Safety
/// `from` points to an element of `dtype`.
pub(crate) unsafe fn read_f64(dtype: DType, from: *const u8) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            DType::Float => f64::from(from.cast::<f32>().read_unaligned()),
            DType::Float16 => f64::from(f16_to_f32(from.cast::<u16>().read_unaligned())),
            DType::Bf16 => f64::from(bf16_to_f32(from.cast::<u16>().read_unaligned())),
            DType::Int8 => f64::from(from.cast::<i8>().read()),
            DType::Uint8 | DType::Bool => f64::from(from.read()),
            DType::Int16 => f64::from(from.cast::<i16>().read_unaligned()),
            DType::Int32 => f64::from(from.cast::<i32>().read_unaligned()),
            DType::Int64 => from.cast::<i64>().read_unaligned() as f64,
            DType::Uint64 => from.cast::<u64>().read_unaligned() as f64,
            DType::Double => from.cast::<f64>().read_unaligned(),
        }
    }
}

/// Writes an element, rounded to the type (integers: towards zero, saturating).
///
/// # Safety
/// `to` points to room for an element of `dtype`.
pub(crate) unsafe fn write_f64(dtype: DType, x: f64, to: *mut u8) {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            DType::Float => to.cast::<f32>().write_unaligned(x as f32),
            DType::Float16 => to.cast::<u16>().write_unaligned(f32_to_f16(x as f32)),
            DType::Bf16 => to.cast::<u16>().write_unaligned(f32_to_bf16(x as f32)),
            DType::Int8 => to.cast::<i8>().write(x as i8),
            DType::Uint8 => to.write(x as u8),
            DType::Bool => to.write(u8::from(x != 0.0)),
            DType::Int16 => to.cast::<i16>().write_unaligned(x as i16),
            DType::Int32 => to.cast::<i32>().write_unaligned(x as i32),
            DType::Int64 => to.cast::<i64>().write_unaligned(x as i64),
            DType::Uint64 => to.cast::<u64>().write_unaligned(x as u64),
            DType::Double => to.cast::<f64>().write_unaligned(x),
        }
    }
}

/// Reads an index of type INT32 or INT64.
///
/// # Safety
/// `from` points to an element of `dtype`.
pub(crate) unsafe fn read_index(dtype: DType, from: *const u8) -> i64 {
    // SAFETY: the caller's promise.
    unsafe {
        match dtype {
            DType::Int64 => from.cast::<i64>().read_unaligned(),
            _ => i64::from(from.cast::<i32>().read_unaligned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_way_there_and_back() {
        for h in 0..=u16::MAX {
            let x = f16_to_f32(h);
            if x.is_nan() {
                assert!(f16_to_f32(f32_to_f16(x)).is_nan());
            } else {
                assert_eq!(f32_to_f16(x), h);
            }
        }
    }

    #[test]
    fn rounding_is_to_nearest_even_at_every_midpoint() {
        for h in 0..0x7bffu16 {
            let (low, high) = (f16_to_f32(h), f16_to_f32(h + 1));
            let middle = f32::midpoint(low, high);
            assert_eq!(f32_to_f16(middle), h + (h & 1), "{h:#x}");
            assert_eq!(f32_to_f16(middle.next_up()), h + 1);
            assert_eq!(f32_to_f16(middle.next_down()), h);
        }
        assert_eq!(f32_to_f16(65519.99), 0x7bff);
        assert_eq!(f32_to_f16(65520.0), 0x7c00);
        assert_eq!(f32_to_f16(-1e30), 0xfc00);
        assert_eq!(f32_to_bf16(1.0 + 1.0 / 256.0), 0x3f80);
        assert_eq!(f32_to_bf16(1.0 + 3.0 / 256.0), 0x3f82);
    }

    #[test]
    fn a_tie_of_bf16_is_rounded_as_the_chip_is_told() {
        let tie = 1.0 + 1.0 / 256.0;
        assert_eq!([round_to(DType::Bf16, tie), round_bf16_away(tie)], [1.0, 1.0078125]);
        assert_eq!(round_bf16_away(-tie), -1.0078125);
        assert_eq!(round_bf16_away(tie.next_down()), 1.0);
        assert!(round_bf16_away(f32::NAN).is_nan());
    }

    #[test]
    fn rounding_to_odd_keeps_what_fits_and_takes_the_odd_neighbour_of_the_rest() {
        for h in 0..=0x3c00u16 {
            let (low, high) = (f16_to_f32(h), f16_to_f32(h + 1));
            assert_eq!(round_to_odd(low), low);
            for x in [low.next_up(), f32::midpoint(low, high), high.next_down()] {
                assert_eq!(round_to_odd(x), f16_to_f32(h | 1), "{h:#x}");
            }
        }
    }

    #[test]
    fn the_instruction_set_does_not_change_a_number() {
        let numbers: Vec<f32> = (0..70_000u32).map(|i| f32::from_bits(i.wrapping_mul(61_001))).collect();
        let mut halves = vec![0u16; numbers.len()];
        // SAFETY: as many numbers as room.
        unsafe { narrow(DType::Float16, &numbers, halves.as_mut_ptr().cast()) };
        let mut back = vec![0f32; numbers.len()];
        // SAFETY: as many numbers as room.
        unsafe { widen(DType::Float16, halves.as_ptr().cast(), &mut back) };
        for ((x, h), b) in numbers.iter().zip(&halves).zip(&back) {
            if !x.is_nan() {
                assert_eq!(f32_to_f16(*x), *h);
                assert_eq!(f16_to_f32(*h), *b);
            }
        }
    }
}
