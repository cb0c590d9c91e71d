//! Owns finding NodeConfig documents in user-data: bare, in MIME parts, in a cloud-config archive; packed by gzip or
//! base64 as a whole or part by part. Touches nothing; any bytes are fine, and memory is bounded.
//!
//! What belongs to cloud-init (`#cloud-config`, scripts) is left to it: a `write_files` that puts a document at
//! /etc/cos/node.yaml has its say as that file. The rules of what cloud-init takes for what are those of its modules
//! `user_data` and `handlers`.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::MultiGzDecoder;
use serde_json::Value as Json;

use super::mime::{self, Part};
use super::{Document, Origin};
use crate::node::config::{self, Fault};

/// Media type of a MIME part that holds a NodeConfig document. `+json` says the same, for those who write JSON.
pub const MEDIA_TYPE: &str = "application/vnd.cos.node+yaml";
const MEDIA_TYPE_JSON: &str = "application/vnd.cos.node+json";

/// The most that user-data may come to when all of it is unpacked. EC2 takes 16 KiB, which gzip can make of 16 MiB.
pub const LARGEST: usize = 1024 * 1024;
/// gzip and base64, one within the other, at most.
const MOST_LAYERS: usize = 4;

/// Media types that cloud-init unpacks before it looks what is inside.
const PACKED: [&str; 8] = [
    "application/gzip",
    "application/gzip-compressed",
    "application/gzipped",
    "application/x-compress",
    "application/x-compressed",
    "application/x-gunzip",
    "application/x-gzip",
    "application/x-gzip-compressed",
];
/// Media types that say nothing of what is inside.
const VAGUE: [&str; 2] = ["text/plain", "text/x-not-multipart"];
const ARCHIVE: &str = "text/cloud-config-archive";

/// What cloud-init knows content by; a longer one comes before those that it begins with.
const MARKS: [(&str, Kind); 10] = [
    ("#cloud-config-archive", Kind::Archive),
    ("#cloud-config-jsonp", Kind::Other("a patch of cloud-config")),
    ("#cloud-config", Kind::Other("a #cloud-config")),
    ("#cloud-boothook", Kind::Other("a boot hook of cloud-init")),
    ("#part-handler", Kind::Other("a part handler of cloud-init")),
    ("#include", Kind::Other("a list of addresses for cloud-init")),
    ("## template: jinja", Kind::Other("a template of cloud-init")),
    ("#upstart-job", Kind::Other("an upstart job")),
    ("#!", Kind::Other("a script")),
    ("<", Kind::Other("a script for another system")),
];

/// What user-data holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct UserData {
    /// NodeConfig documents in their order, each with its origin.
    pub documents: Vec<Document>,
    /// What is wrong: it was packed or parted, and cannot be taken apart.
    pub faults: Vec<Fault>,
    /// What else is there, in words.
    pub others: Vec<String>,
}

/// What some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    NodeConfig,
    Message,
    Archive,
    Other(&'static str),
    Nothing,
    Unknown,
}

/// Finds every document.
pub fn read(bytes: &[u8]) -> UserData {
    let mut found = UserData::default();
    let mut unpacker = Unpacker {
        left: LARGEST.saturating_sub(bytes.len()),
    };
    if bytes.len() > LARGEST {
        found.fault(Origin::UserData, TOO_LARGE.to_owned());
        return found;
    }
    match unpacker.open(bytes.to_vec()) {
        Err(message) => found.fault(Origin::UserData, message),
        Ok(content) => match kind(&content) {
            Kind::Message => match mime::parts(&content) {
                Ok(parts) => found.parts(parts, &mut unpacker),
                Err(message) => found.fault(Origin::UserData, format!("is a MIME message that {message}")),
            },
            Kind::Archive => found.archive(&Origin::UserData, &content),
            Kind::NodeConfig => found.document(Origin::UserData, content),
            Kind::Other(what) => found.others.push(what.to_owned()),
            Kind::Unknown => found.others.push("something that is no NodeConfig".to_owned()),
            Kind::Nothing => {}
        },
    }
    found
}

impl UserData {
    fn document(&mut self, origin: Origin, bytes: Vec<u8>) {
        self.documents.push(Document { origin, bytes });
    }

    fn fault(&mut self, origin: Origin, message: String) {
        self.faults.push(Fault {
            origin,
            path: String::new(),
            message,
            place: None,
        });
    }

    fn parts(&mut self, parts: Vec<Part>, unpacker: &mut Unpacker) {
        for (index, part) in parts.into_iter().enumerate() {
            let origin = Origin::UserDataPart {
                number: index + 1,
                name: part.name,
            };
            let ours = [MEDIA_TYPE, MEDIA_TYPE_JSON].contains(&part.media_type.as_str());
            let archive = part.media_type == ARCHIVE;
            let vague = VAGUE.contains(&part.media_type.as_str());
            let packed = PACKED.contains(&part.media_type.as_str());
            if !(ours || archive || vague || packed) {
                self.others.push(format!("a part of type {}", part.media_type));
                continue;
            }
            let body = part.body;
            let content = match unpacker.open(body.clone()) {
                Ok(content) => content,
                Err(message) => {
                    self.fault(origin, message);
                    continue;
                }
            };
            if packed && content == body {
                let message = format!("is said to be {} and is no gzip", part.media_type);
                self.fault(origin, message);
                continue;
            }
            match kind(&content) {
                _ if ours => self.document(origin, content),
                _ if archive => self.archive(&origin, &content),
                Kind::Archive => self.archive(&origin, &content),
                Kind::NodeConfig => self.document(origin, content),
                Kind::Other(what) => self.others.push(what.to_owned()),
                _ => self.others.push(format!("a part of type {}", part.media_type)),
            }
        }
    }

    /// A list of parts in YAML; one without a type is known by its beginning.
    fn archive(&mut self, origin: &Origin, content: &[u8]) {
        let entries = match config::plain(content) {
            Ok(Json::Array(entries)) => entries,
            Ok(_) => {
                let message = "is a cloud-config archive that is no list of parts";
                self.fault(origin.clone(), message.to_owned());
                return;
            }
            Err(said) => {
                self.fault(origin.clone(), format!("is a cloud-config archive that {said}"));
                return;
            }
        };
        for (index, entry) in entries.iter().enumerate() {
            let text = |key: &str| entry[key].as_str().map(str::to_owned);
            let content = entry
                .as_str()
                .map_or_else(|| text("content"), |text| Some(text.to_owned()));
            let (media_type, name) = (text("type"), text("filename"));
            let origin = Origin::UserDataPart {
                number: index + 1,
                name,
            };
            let content = content.unwrap_or_default().into_bytes();
            match (media_type.as_deref(), kind(&content)) {
                (Some(MEDIA_TYPE | MEDIA_TYPE_JSON), _) => self.document(origin, content),
                (Some(other), kind) if !VAGUE.contains(&other) || kind != Kind::NodeConfig => {
                    self.others.push(format!("a part of type {other}"));
                }
                (_, Kind::NodeConfig) => self.document(origin, content),
                (_, Kind::Other(what)) => self.others.push(what.to_owned()),
                _ => self.others.push("a part without a type".to_owned()),
            }
        }
    }
}

/// Content without the gzip and base64 around it.
pub(super) fn unpacked(content: Vec<u8>) -> Result<Vec<u8>, String> {
    Unpacker { left: LARGEST }.open(content)
}

/// What content is, by how it begins.
fn kind(content: &[u8]) -> Kind {
    if mime::is_message(content) {
        return Kind::Message;
    }
    let Ok(text) = std::str::from_utf8(content) else {
        return Kind::Unknown;
    };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.is_empty() {
        return Kind::Nothing;
    }
    let starts = |mark: &str| {
        text.get(..mark.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(mark))
    };
    if let Some((_, kind)) = MARKS.iter().find(|(mark, _)| starts(mark)) {
        return *kind;
    }
    let mut lines = text.lines().map(str::trim_start);
    match lines.find(|line| !line.is_empty() && !line.starts_with('#')) {
        Some(line) if ["---", "{", "%YAML"].iter().any(|start| line.starts_with(start)) || is_key(line) => {
            Kind::NodeConfig
        }
        _ => Kind::Unknown,
    }
}

/// Whether a line is a key of YAML: a word, perhaps in quotes, and a colon with nothing or white space behind it.
fn is_key(line: &str) -> bool {
    let Some((key, rest)) = line.split_once(':') else {
        return false;
    };
    let key = key.trim_end().trim_matches(['"', '\'']);
    let word = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    !key.is_empty() && key.chars().all(word) && (rest.is_empty() || rest.starts_with(char::is_whitespace))
}

const TOO_LARGE: &str = "is larger than 1 MiB when it is unpacked";

/// Unpacks, and counts what it made so far.
struct Unpacker {
    left: usize,
}

impl Unpacker {
    /// Takes off gzip and base64 until neither is left.
    fn open(&mut self, mut content: Vec<u8>) -> Result<Vec<u8>, String> {
        for _ in 0..=MOST_LAYERS {
            content = if content.starts_with(&[0x1f, 0x8b]) {
                self.inflate(&content)?
            } else if let Some(decoded) = base64(&content) {
                decoded
            } else {
                return Ok(content);
            };
        }
        Err(format!("is packed more than {MOST_LAYERS} times over"))
    }

    fn inflate(&mut self, packed: &[u8]) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        let limit = u64::try_from(self.left).unwrap_or(u64::MAX).saturating_add(1);
        MultiGzDecoder::new(packed)
            .take(limit)
            .read_to_end(&mut content)
            .map_err(|error| format!("begins like gzip and is not: {error}"))?;
        self.left = self
            .left
            .checked_sub(content.len())
            .ok_or_else(|| TOO_LARGE.to_owned())?;
        Ok(content)
    }
}

/// Content in base64, if it has the alphabet and there is something inside that is known; a word may look the same.
fn base64(content: &[u8]) -> Option<Vec<u8>> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=\r\n\t ".contains(byte);
    if content.len() < 8 || !content.iter().all(fits) {
        return None;
    }
    let dense: Vec<u8> = content
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let decoded = STANDARD.decode(dense).ok()?;
    let known = decoded.starts_with(&[0x1f, 0x8b])
        || !matches!(kind(&decoded), Kind::Unknown | Kind::Nothing)
        || base64(&decoded).is_some();
    known.then_some(decoded)
}

#[cfg(test)]
mod tests;
