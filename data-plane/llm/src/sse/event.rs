//! What a complete event says.

/// An event that has data or a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SseEvent<'a> {
    /// The `event` field; empty when there is none, as in the OpenAI dialect.
    pub name: &'a [u8],
    /// The `data` field; several are joined by LF.
    pub data: &'a [u8],
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads the event in `bytes`. `None` when it has neither data nor name. `single`: only one of its lines is not
/// blank. `first`: nothing stood before it in the stream. `joined` is scratch space.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    single: bool,
    first: bool,
    joined: &'a mut Vec<u8>,
) -> Option<SseEvent<'a>> {
    let bytes = if first { bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes) } else { bytes };
    if single && let Some(data) = bytes.strip_prefix(b"data:") {
        let end = data.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
        return Some(SseEvent { name: b"", data: without_space(&data[..end]) });
    }
    let (mut name, mut data, mut count) = (&b""[..], &b""[..], 0_usize);
    joined.clear();
    for line in bytes.split(|byte| matches!(byte, b'\n' | b'\r')) {
        if let Some(value) = field(line, b"event") {
            name = value;
        } else if let Some(value) = field(line, b"data") {
            match count {
                0 => data = value,
                1 => joined.extend_from_slice(data),
                _ => {}
            }
            if count > 0 {
                joined.push(b'\n');
                joined.extend_from_slice(value);
            }
            count += 1;
        }
    }
    match count {
        0 if name.is_empty() => None,
        0 | 1 => Some(SseEvent { name, data }),
        _ => Some(SseEvent { name, data: joined }),
    }
}

/// The value of `line` if its field is `name`; a field without colon has an empty value.
fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest.split_first() {
        None => Some(rest),
        Some((b':', value)) => Some(without_space(value)),
        Some(_) => None,
    }
}

/// One space after the colon belongs to the syntax.
fn without_space(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}
