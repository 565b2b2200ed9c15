//! Seeded mutations of bytes, as from a bad disk, a partial copy or an attacker.

use glmbench::stats::Rng;

/// Numbers at the limits of types, and non-numbers.
const NUMBERS: [&str; 16] = [
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999",
    "1e308",
    "-1e999",
    "1e-320",
    "NaN",
];
/// Words with a meaning in some format.
const WORDS: [&str; 14] = [
    "null",
    "true",
    "\"\"",
    "{}",
    "[]",
    "\\u0000",
    "\u{202e}",
    "\u{1b}[2J",
    "=1+1",
    "../../x",
    "\n",
    "\r\n",
    "\"",
    ",",
];
/// Nesting depth beyond that of any valid file.
const DEEP: usize = 100_000;

/// Returns one input made from the seeds' bytes. Half of the inputs get one to four arbitrary changes. The others are
/// changed so that they may still follow their format and fail at a deeper level.
pub(super) fn mutated(seeds: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = pick(seeds, rng).clone();
    if rng.below(2) == 0 {
        (0..=rng.below(4)).for_each(|_| mutate(&mut bytes, seeds, rng));
    } else {
        (0..=rng.below(3)).for_each(|_| alter(&mut bytes, rng));
    }
    bytes
}

/// Replaces a number, a word or a letter within a word, or reorders, repeats or removes lines.
fn alter(bytes: &mut Vec<u8>, rng: &mut Rng) {
    match rng.below(6) {
        0 | 1 => replace_number(bytes, rng),
        2 => replace_word(bytes, rng),
        3 => {
            let letter = *pick(b"a0-. Z", rng);
            replace(bytes, u8::is_ascii_alphanumeric, &[letter], rng);
        }
        _ => {
            let mut lines: Vec<Vec<u8>> =
                bytes.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
            let (a, b) = (rng.below(lines.len() as u64) as usize, rng.below(lines.len() as u64) as usize);
            match rng.below(3) {
                _ if lines.is_empty() => {}
                0 => lines.swap(a, b),
                1 => lines.insert(b, lines[a].clone()),
                _ => drop(lines.remove(a)),
            }
            *bytes = lines.concat();
        }
    }
}

fn pick<'a, T>(from: &'a [T], rng: &mut Rng) -> &'a T {
    &from[rng.below(from.len() as u64) as usize]
}

/// Returns a random position from 0 to `length`, inclusive.
fn place(length: usize, rng: &mut Rng) -> usize {
    rng.below(length as u64 + 1) as usize
}

/// Returns a random range within `length`, usually short.
fn stretch(length: usize, rng: &mut Rng) -> std::ops::Range<usize> {
    let start = place(length, rng);
    let most = if rng.below(4) == 0 { length } else { 64 };
    start..(start + place(most, rng)).min(length)
}

fn mutate(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    let length = bytes.len();
    match rng.below(12) {
        // Flips bits, or sets a byte.
        0 if length > 0 => {
            for _ in 0..=rng.below(8) {
                bytes[rng.below(length as u64) as usize] ^= 1 << rng.below(8);
            }
        }
        1 if length > 0 => {
            bytes[rng.below(length as u64) as usize] = *pick(&[0, 0xff, 0x7f, 0x80, b'\n', b'"'], rng);
        }
        // Sets a word of a binary format to an extreme.
        2 => {
            let at = place(length, rng);
            let word = *pick(&[0u64, u64::MAX, i64::MAX as u64, 1 << 32, u64::from(u32::MAX), 1 << 62], rng);
            let width = (*pick(&[2, 4, 8], rng)).min(length - at);
            bytes[at..at + width].copy_from_slice(&word.to_le_bytes()[..width]);
        }
        // Truncates the bytes, or removes a range.
        3 => bytes.truncate(place(length, rng)),
        4 => drop(bytes.drain(stretch(length, rng))),
        // Repeats a range, once or until it is long.
        5 => {
            let part = bytes[stretch(length, rng)].to_vec();
            let times = if rng.below(8) == 0 { 1 + 20_000 / part.len().max(1) } else { 1 };
            insert(bytes, &part.repeat(times), rng);
        }
        // Inserts a range of another file.
        6 => {
            let other = pick(seeds, rng);
            let part = other[stretch(other.len(), rng)].to_vec();
            insert(bytes, &part, rng);
        }
        // Moves a range to another place.
        7 => {
            let (a, b) = (stretch(length, rng), place(length, rng));
            let part: Vec<u8> = bytes.drain(a).collect();
            let b = b.min(bytes.len());
            drop(bytes.splice(b..b, part));
        }
        8 => replace_number(bytes, rng),
        9 => insert(bytes, pick(&WORDS, rng).as_bytes(), rng),
        10 => replace_word(bytes, rng),
        _ if rng.below(4) == 0 => {
            let open = *pick(&["[", "{\"a\":", "a.", "((", "\"\"", "{a="], rng);
            insert(bytes, open.repeat(DEEP).as_bytes(), rng);
        }
        _ => insert(bytes, &[*pick(&[0, 9, 13, 27, 127, 155, 255], rng)], rng),
    }
}

fn insert(bytes: &mut Vec<u8>, part: &[u8], rng: &mut Rng) {
    let at = place(bytes.len(), rng);
    drop(bytes.splice(at..at, part.iter().copied()));
}

/// Replaces one run of digits by an extreme.
fn replace_number(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let number = pick(&NUMBERS, rng).as_bytes().to_vec();
    replace(bytes, u8::is_ascii_digit, &number, rng);
}

/// Replaces one run of letters by another word.
fn replace_word(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let word = pick(&WORDS, rng).as_bytes().to_vec();
    replace(bytes, |byte| byte.is_ascii_alphabetic() || *byte == b'_', &word, rng);
}

fn replace(bytes: &mut Vec<u8>, of: impl Fn(&u8) -> bool, by: &[u8], rng: &mut Rng) {
    let from = place(bytes.len(), rng);
    let Some(start) = bytes[from..].iter().position(&of).map(|at| from + at) else { return };
    let end = bytes[start..].iter().position(|byte| !of(byte)).map_or(bytes.len(), |at| start + at);
    drop(bytes.splice(start..end, by.iter().copied()));
}
