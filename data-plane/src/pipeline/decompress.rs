//! Compressed request bodies: gzip, deflate, br and zstd, with the limit on what they become. A bomb is given up at the
//! limit, so that it costs no more memory than a plain body of that size. Called by [`super::ingress`].
//!
//! Decoding runs on a thread for blocking work: 32 MiB take longer than a thread that serves others may be busy.

use std::io::{self, Write};

use bytes::Bytes;
use http::{HeaderMap, header};

use super::error::{GatewayError, Kind};

/// Larger windows are refused, as RFC 9659 has it for HTTP: a decoder holds a whole window in memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// How a brotli stream with a large window begins: seven bits that RFC 7932 reserves. The decoder takes it all the same, with
/// a window of up to 1 GiB, which it fills before it hands anything out. Every other beginning means 16 MiB at most.
const BROTLI_LARGE_WINDOW: u8 = 0b001_0001;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Gzip,
    /// The zlib format of RFC 9110, or raw deflate as some clients send it.
    Deflate,
    Brotli,
    Zstd,
}

/// What `content-encoding` says; `None` for a plain body.
///
/// # Errors
/// 415 for anything else, and for several encodings on top of each other.
pub fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, GatewayError> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let value = value.as_bytes().trim_ascii().to_ascii_lowercase();
    match value.as_slice() {
        _ if values.next().is_some() => Err(refused(b"several encodings")),
        b"" | b"identity" => Ok(None),
        b"gzip" | b"x-gzip" => Ok(Some(Encoding::Gzip)),
        b"deflate" => Ok(Some(Encoding::Deflate)),
        b"br" => Ok(Some(Encoding::Brotli)),
        b"zstd" => Ok(Some(Encoding::Zstd)),
        other => Err(refused(other)),
    }
}

fn refused(what: &[u8]) -> GatewayError {
    let what = String::from_utf8_lossy(&what[..what.len().min(64)]).into_owned();
    GatewayError::new(
        Kind::UnsupportedMediaType,
        format!("The content encoding {what} is not accepted; send one of gzip, deflate, br, zstd, or none."),
    )
    .param("content-encoding")
}

/// Decodes a whole body to at most `limit` bytes.
///
/// # Errors
/// 413 beyond the limit, 400 when it is malformed or cut short.
pub async fn run(encoding: Encoding, body: Bytes, limit: usize) -> Result<Bytes, GatewayError> {
    let decoded = tokio::task::spawn_blocking(move || decode(encoding, &body, limit)).await;
    let decoded = decoded.map_err(|_| GatewayError::new(Kind::Internal, "Decompression failed."))?;
    decoded.map_err(|error| match error {
        Failed::TooLarge => GatewayError::new(
            Kind::PayloadTooLarge,
            format!("The request body is larger than the limit of {limit} bytes when decompressed."),
        ),
        Failed::Malformed => GatewayError::new(
            Kind::InvalidRequest,
            "The request body is not what its content-encoding says, or is cut short.",
        )
        .param("content-encoding"),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    TooLarge,
    Malformed,
}

/// Takes decoded bytes up to the limit.
struct Sink {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            self.full = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn decode(encoding: Encoding, body: &[u8], limit: usize) -> Result<Bytes, Failed> {
    let mut sink = Sink { bytes: Vec::new(), limit, full: false };
    let mut done = decode_into(encoding, body, &mut sink);
    if done.is_err() && !sink.full && encoding == Encoding::Deflate {
        // Without the zlib frame: not by the book, but common enough.
        sink.bytes.clear();
        done = finish(flate2::read::DeflateDecoder::new(body), &mut sink);
    }
    match done {
        Ok(()) => Ok(sink.bytes.into()),
        Err(_) if sink.full => Err(Failed::TooLarge),
        Err(_) => Err(Failed::Malformed),
    }
}

fn decode_into(encoding: Encoding, body: &[u8], sink: &mut Sink) -> io::Result<()> {
    match encoding {
        Encoding::Gzip => finish(flate2::read::MultiGzDecoder::new(body), sink),
        Encoding::Deflate => finish(flate2::read::ZlibDecoder::new(body), sink),
        Encoding::Brotli if has_large_window(body) => Err(io::ErrorKind::InvalidData.into()),
        Encoding::Brotli => finish(brotli_decompressor::Decompressor::new(body, 16 * 1024), sink),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(body)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            finish(decoder, sink)
        }
    }
}

fn has_large_window(brotli: &[u8]) -> bool {
    brotli.first().is_some_and(|first| first & 0x7f == BROTLI_LARGE_WINDOW)
}

/// A decoder that ends before its format says so reports `UnexpectedEof`.
fn finish(mut decoder: impl io::Read, sink: &mut Sink) -> io::Result<()> {
    io::copy(&mut decoder, sink).map(|_| ())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const TEXT: &[u8] = br#"{"model":"m","messages":[{"role":"user","content":"hello hello hello hello"}]}"#;
    const LIMIT: usize = 1 << 20;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn all(plain: &[u8]) -> [(Encoding, Vec<u8>); 3] {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(plain).unwrap();
        let zstd = zstd::encode_all(plain, 3).unwrap();
        [(Encoding::Gzip, gzip(plain)), (Encoding::Deflate, zlib.finish().unwrap()), (Encoding::Zstd, zstd)]
    }

    #[test]
    fn every_accepted_encoding_is_undone() {
        for (encoding, body) in all(TEXT) {
            assert_eq!(decode(encoding, &body, LIMIT).unwrap(), TEXT, "{encoding:?}");
        }
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        raw.write_all(TEXT).unwrap();
        assert_eq!(decode(Encoding::Deflate, &raw.finish().unwrap(), LIMIT).unwrap(), TEXT);
        // "hello" as brotli: stored in one uncompressed piece (RFC 7932 sections 9.1 and 9.2).
        let brotli = [0x0b, 0x02, 0x80, b'h', b'e', b'l', b'l', b'o', 0x03];
        assert_eq!(decode(Encoding::Brotli, &brotli, LIMIT).unwrap(), "hello");
        assert_eq!(decode(Encoding::Brotli, &brotli, 4), Err(Failed::TooLarge));
        assert_eq!(decode(Encoding::Brotli, &brotli[..6], LIMIT), Err(Failed::Malformed));
    }

    #[test]
    fn bombs_are_given_up_at_the_limit() {
        let bomb = vec![0; 64 << 20];
        for (encoding, body) in all(&bomb) {
            assert!(body.len() < 1 << 20, "{encoding:?} {}", body.len());
            assert_eq!(decode(encoding, &body, LIMIT), Err(Failed::TooLarge), "{encoding:?}");
        }
    }

    /// No window is filled before the limit sees what comes out of it.
    #[test]
    fn a_brotli_window_is_no_larger_than_the_format_allows() {
        // As above, with the largest window there is, and with one of 32 MiB in the way of the extension.
        let largest = [&[0x0f, 0x02, 0x80], &b"hello"[..], &[0x03]].concat();
        assert_eq!(decode(Encoding::Brotli, &largest, LIMIT).unwrap(), "hello");
        let large = [&[0x11, 0x19, 0x08, 0x00, 0x02], &b"hello"[..], &[0x03]].concat();
        let mut extended = Sink { bytes: Vec::new(), limit: LIMIT, full: false };
        finish(brotli_decompressor::Decompressor::new(&large[..], 4096), &mut extended).unwrap();
        assert_eq!(extended.bytes, b"hello", "the decoder would take it");
        assert_eq!(decode(Encoding::Brotli, &large, LIMIT), Err(Failed::Malformed));
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        for (encoding, body) in all(TEXT) {
            assert_eq!(decode(encoding, &body, TEXT.len()).unwrap(), TEXT);
            assert_eq!(decode(encoding, &body, TEXT.len() - 1), Err(Failed::TooLarge));
        }
    }

    #[test]
    fn bodies_that_are_cut_short_or_nonsense_are_malformed() {
        for (encoding, body) in all(TEXT) {
            assert_eq!(
                decode(encoding, &body[..body.len() - 9], LIMIT),
                Err(Failed::Malformed),
                "{encoding:?}"
            );
            assert_eq!(decode(encoding, TEXT, LIMIT), Err(Failed::Malformed), "{encoding:?}");
        }
    }

    #[test]
    fn other_encodings_are_refused_by_name() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            encoding(&headers)
        };
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["identity"]).unwrap(), None);
        assert_eq!(of(&[" GZIP"]).unwrap(), Some(Encoding::Gzip));
        assert_eq!(of(&["br"]).unwrap(), Some(Encoding::Brotli));
        for values in [&["compress"][..], &["gzip, br"], &["gzip", "gzip"]] {
            let error = of(values).unwrap_err();
            assert_eq!(error.kind, Kind::UnsupportedMediaType, "{values:?}");
            assert!(error.message.contains("gzip, deflate, br, zstd"), "{}", error.message);
        }
    }
}
