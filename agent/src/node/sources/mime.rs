//! Owns MIME messages (RFC 2045, 2046) as far as user-data has them: parts in parts, their types, encodings and names.
//! Touches nothing; it never panics, and takes no more memory than a few times the message.
//!
//! What Python's `email` package, with which cloud-init reads user-data, takes as a well-formed message is read to the
//! same parts. What it guesses its way through (a missing end, a wrong encoding) is refused here: half a configuration
//! is worse than none.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Parts within parts, at most.
const DEEPEST: usize = 8;
/// Parts of one message, at most.
const MOST_PARTS: usize = 64;

/// A part that holds no other parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Media type in lower case, without parameters; `text/plain` if it is not said.
    pub media_type: String,
    /// File name, if one is given.
    pub name: Option<String>,
    /// Content, decoded from its transfer encoding.
    pub body: Vec<u8>,
}

/// Whether this is a message: its head has `MIME-Version`, or a type with parts.
pub(super) fn is_message(bytes: &[u8]) -> bool {
    let mut rest = bytes.trim_ascii_start();
    let Ok(head) = head(&mut rest) else {
        return false;
    };
    head.get("mime-version").is_some()
        || head
            .get("content-type")
            .is_some_and(|value| value.to_ascii_lowercase().starts_with("multipart/"))
}

/// The parts of a message that hold no others, in the order in which they stand there. The error says what is wrong,
/// as the rest of a sentence about the message.
pub fn parts(message: &[u8]) -> Result<Vec<Part>, String> {
    let mut all = Vec::new();
    entity(message.trim_ascii_start(), "text/plain", 0, &mut all)?;
    Ok(all)
}

/// Header fields by name in lower case; folded lines are one value.
struct Head(Vec<(String, String)>);

impl Head {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn entity(bytes: &[u8], default: &str, depth: usize, all: &mut Vec<Part>) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("has parts within parts, more than {DEEPEST} deep"));
    }
    let mut body = bytes;
    let head = head(&mut body)?;
    let content_type = Field::of(head.get("content-type").unwrap_or(default));
    let media_type = match content_type.value.split('/').collect::<Vec<_>>().as_slice() {
        [kind, subtype] if !kind.is_empty() && !subtype.is_empty() => content_type.value.clone(),
        _ => "text/plain".to_owned(),
    };
    let encoding = Field::of(head.get("content-transfer-encoding").unwrap_or_default()).value;
    let plain = matches!(encoding.as_str(), "" | "7bit" | "8bit" | "binary");
    if media_type.starts_with("multipart/") {
        if !plain {
            return Err(format!(
                "has parts in the encoding {encoding}, which RFC 2045 forbids"
            ));
        }
        let boundary = content_type.parameter("boundary");
        let boundary = boundary.as_deref().map(str::trim_end).unwrap_or_default();
        if boundary.is_empty() {
            return Err(format!("is {media_type} and names no boundary"));
        }
        let default = if media_type == "multipart/digest" {
            "message/rfc822"
        } else {
            "text/plain"
        };
        return split(body, boundary)?
            .into_iter()
            .try_for_each(|part| entity(part, default, depth + 1, all));
    }
    if media_type == "message/rfc822" {
        return entity(body, "text/plain", depth + 1, all);
    }
    if all.len() == MOST_PARTS {
        return Err(format!("has more than {MOST_PARTS} parts"));
    }
    let name = head
        .get("content-disposition")
        .and_then(|value| Field::of(value).parameter("filename"))
        .or_else(|| content_type.parameter("name"));
    let body = match encoding.as_str() {
        _ if plain => body.to_vec(),
        "base64" => {
            let dense: Vec<u8> = body
                .iter()
                .copied()
                .filter(|byte| !byte.is_ascii_whitespace())
                .collect();
            STANDARD.decode(dense).map_err(|error| {
                format!("has a part ({media_type}) that is not the base64 it says: {error}")
            })?
        }
        "quoted-printable" => quoted_printable(body),
        other => {
            let message = format!("has a part ({media_type}) in the encoding {other}, which is not known");
            return Err(message);
        }
    };
    all.push(Part {
        media_type,
        name,
        body,
    });
    Ok(())
}

/// One line with its end, and what follows.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    let end = bytes.iter().position(|byte| *byte == b'\n');
    Some(bytes.split_at(end.map_or(bytes.len(), |end| end + 1)))
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Reads header fields up to the empty line; `bytes` is the body afterwards.
fn head(bytes: &mut &[u8]) -> Result<Head, String> {
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut first = true;
    while let Some((next, rest)) = line(bytes) {
        *bytes = rest;
        let next = without_end(next);
        if next.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(next);
        if text.starts_with([' ', '\t']) {
            let Some((_, value)) = fields.last_mut() else {
                return Err("begins with a line that continues nothing".to_owned());
            };
            value.push_str(&text);
        } else if let Some((name, value)) = text.split_once(':').filter(|(name, _)| is_name(name)) {
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        } else if !(first && text.starts_with("From ")) {
            // The first line of a mailbox's message is taken, as tools write it.
            return Err("has a head with a line that is no header field".to_owned());
        }
        first = false;
    }
    Ok(Head(fields))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The parts between delimiters. What stands before the first and after the last is not for machines.
fn split<'m>(body: &'m [u8], boundary: &str) -> Result<Vec<&'m [u8]>, String> {
    let mut parts = Vec::new();
    // Where the part began that is being read, and where its last line ended without its end.
    let mut began: Option<usize> = None;
    let mut offset = 0;
    while let Some((next, _)) = line(&body[offset..]) {
        let delimiter = delimiter(next, boundary);
        if delimiter.is_some()
            && let Some(began) = began
        {
            // The line end before a delimiter belongs to the delimiter.
            let part = &body[began..offset.max(began)];
            parts.push(without_end(part));
            if parts.len() > MOST_PARTS {
                return Err(format!("has more than {MOST_PARTS} parts"));
            }
        }
        offset += next.len();
        match delimiter {
            Some(Delimiter::Last) if began.is_some() => return Ok(parts),
            Some(Delimiter::Last) => return Err("has its last boundary before any part".to_owned()),
            Some(Delimiter::Next) => began = Some(offset),
            None => {}
        }
    }
    match began {
        None => Err("has no part: its boundary does not occur".to_owned()),
        Some(_) => Err("ends in the middle: the last boundary is missing".to_owned()),
    }
}

enum Delimiter {
    Next,
    Last,
}

fn delimiter(line: &[u8], boundary: &str) -> Option<Delimiter> {
    let rest = without_end(line)
        .strip_prefix(b"--")?
        .strip_prefix(boundary.as_bytes())?;
    let (last, rest) = rest
        .strip_prefix(b"--")
        .map_or((false, rest), |rest| (true, rest));
    let padding = rest.iter().all(|byte| matches!(byte, b' ' | b'\t'));
    padding.then_some(if last { Delimiter::Last } else { Delimiter::Next })
}

/// A structured field: a value in lower case, then parameters.
struct Field<'f> {
    value: String,
    parameters: &'f str,
}

impl<'f> Field<'f> {
    fn of(text: &'f str) -> Self {
        let (value, parameters) = text.split_once(';').unwrap_or((text, ""));
        Self {
            value: value.trim().to_ascii_lowercase(),
            parameters,
        }
    }

    /// A parameter by its name in lower case, without quotes.
    fn parameter(&self, wanted: &str) -> Option<String> {
        let mut rest = self.parameters;
        loop {
            rest = rest.trim_start_matches(|character: char| character.is_whitespace() || character == ';');
            let (name, after) = rest.split_once('=')?;
            let (value, next) = value(after.trim_start());
            if name.trim().eq_ignore_ascii_case(wanted) {
                return Some(value);
            }
            rest = next;
        }
    }
}

/// A parameter's value, and what stands behind it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, next) = text.split_once(';').unwrap_or((text, ""));
        return (value.trim().to_owned(), next);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[index + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

/// Quoted-printable (RFC 2045, 6.7): `=XX`, lines joined at a last `=`, white space at a line's end dropped. What is
/// no escape stands for itself.
fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((next, after)) = line(rest) {
        rest = after;
        let content = without_end(next);
        let end = &next[content.len()..];
        let content = if end.is_empty() {
            content
        } else {
            let trimmed = content
                .iter()
                .rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
            &content[..trimmed.map_or(0, |last| last + 1)]
        };
        let (content, joined) = content
            .strip_suffix(b"=")
            .map_or((content, false), |content| (content, true));
        let mut bytes = content.iter();
        while let Some(&byte) = bytes.next() {
            let escaped = match bytes.as_slice() {
                [high, low, ..] if byte == b'=' => digit(*high).zip(digit(*low)),
                _ => None,
            };
            if let Some((high, low)) = escaped {
                decoded.push(high * 16 + low);
                bytes.nth(1);
            } else {
                decoded.push(byte);
            }
        }
        if !joined {
            decoded.extend_from_slice(end);
        }
    }
    decoded
}

fn digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Message {
        message: String,
        parts: Vec<Expected>,
    }

    #[derive(Deserialize)]
    struct Expected {
        r#type: String,
        name: Option<String>,
        body: String,
    }

    fn messages() -> Vec<Message> {
        serde_json::from_str(include_str!("../../../tests/mime/messages.json")).unwrap()
    }

    fn decoded(text: &str) -> Vec<u8> {
        STANDARD.decode(text).unwrap()
    }

    #[test]
    fn the_parts_are_those_that_python_sees() {
        let messages = messages();
        assert!(messages.len() > 60);
        for (index, message) in messages.iter().enumerate() {
            let bytes = decoded(&message.message);
            let text = String::from_utf8_lossy(&bytes);
            assert!(is_message(&bytes), "{index}\n{text}");
            let read = parts(&bytes).unwrap_or_else(|error| panic!("{index}: {error}\n{text}"));
            let expected: Vec<Part> = message
                .parts
                .iter()
                .map(|part| Part {
                    media_type: part.r#type.clone(),
                    name: part.name.clone(),
                    body: decoded(&part.body),
                })
                .collect();
            assert_eq!(read.len(), expected.len(), "{index}\n{text}");
            for (read, expected) in read.iter().zip(&expected) {
                let shown = |part: &Part| String::from_utf8_lossy(&part.body).into_owned();
                let both = (shown(read), shown(expected));
                assert_eq!(read, expected, "{index}: {both:?}\n{text}");
            }
        }
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        for (message, reason) in [
            (
                "Content-Type: multipart/mixed\n\n--B\n\nx\n--B--",
                "names no boundary",
            ),
            ("Content-Type: multipart/mixed; boundary=B\n\nx", "does not occur"),
            (
                "Content-Type: multipart/mixed; boundary=B\n\n--B\n\nx\n",
                "ends in the middle",
            ),
            (
                "Content-Type: multipart/mixed; boundary=B\n\n--B--\n",
                "before any part",
            ),
            ("MIME-Version: 1.0\nrubbish\n\nx", "no header field"),
            (
                "MIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\n!",
                "not the base64 it says",
            ),
            (
                "MIME-Version: 1.0\nContent-Transfer-Encoding: x-uuencode\n\n!",
                "encoding x-uuencode",
            ),
            (
                "Content-Type: multipart/mixed; boundary=B\nContent-Transfer-Encoding: base64\n\nLS1C",
                "which RFC 2045 forbids",
            ),
        ] {
            let said = parts(message.as_bytes()).unwrap_err();
            assert!(said.contains(reason), "{reason}: {said}");
        }
        let deep = "Content-Type: message/rfc822\n\n".repeat(1000);
        assert!(parts(deep.as_bytes()).unwrap_err().contains("more than 8 deep"));
        let many = format!(
            "Content-Type: multipart/mixed; boundary=B\n\n{}--B--\n",
            "--B\n\nx\n".repeat(MOST_PARTS + 1)
        );
        assert!(parts(many.as_bytes()).unwrap_err().contains("more than 64 parts"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn a_message_with_a_wrong_byte_is_read_or_refused(
            which in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
        ) {
            let messages = messages();
            let mut bytes = decoded(&which.get(&messages).message);
            let at = at.index(bytes.len());
            bytes[at] = with;
            let _ = is_message(&bytes);
            if let Ok(parts) = parts(&bytes) {
                let size: usize = parts.iter().map(|part| part.body.len()).sum();
                prop_assert!(size <= bytes.len());
            }
            let _ = super::parts(&bytes[..at]);
        }
    }
}
