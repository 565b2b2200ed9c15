//! Compression of files that are embedded in the program, without C.
//!
//! The crate jieba-rs embeds its dictionary by include-flate, which compresses at compile time with zstd, a C library. This
//! crate stands in for include-flate-compress, where that happens. It has the functions that include-flate calls, and uses
//! DEFLATE for each method: what one build compresses, the same build decompresses.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

/// The method that a caller asks for. All are DEFLATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CompressionMethod {
    /// `with deflate`, and the default.
    #[default]
    Deflate,
    /// `with zstd`.
    Zstd,
}

/// Compresses everything from the reader.
pub fn apply_compression<R: Read, W: Write>(
    reader: &mut R,
    writer: &mut W,
    _method: CompressionMethod,
) -> io::Result<()> {
    let mut encoder = DeflateEncoder::new(writer, Compression::best());
    io::copy(reader, &mut encoder)?;
    encoder.finish().map(|_| ())
}

/// Decompresses everything from the reader. Data that [`apply_compression`] did not write are an error.
pub fn apply_decompression(
    reader: impl Read,
    mut writer: impl Write,
    _method: CompressionMethod,
) -> io::Result<()> {
    io::copy(&mut DeflateDecoder::new(reader), &mut writer).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decompresses_what_it_compressed() {
        for text in ["", "一个词 3 n\n".repeat(10_000).as_str()] {
            for method in [CompressionMethod::Deflate, CompressionMethod::Zstd] {
                let (mut compressed, mut back) = (Vec::new(), Vec::new());
                apply_compression(&mut text.as_bytes(), &mut compressed, method).unwrap();
                apply_decompression(compressed.as_slice(), &mut back, method).unwrap();
                assert_eq!(back, text.as_bytes());
                assert!(text.is_empty() || compressed.len() < 1000, "{}", compressed.len());
            }
        }
        assert!(apply_decompression(&[0xff_u8; 9][..], io::sink(), CompressionMethod::Zstd).is_err());
    }
}
