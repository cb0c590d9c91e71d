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
use serde::Deserialize;

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
        let entries: Vec<Entry> = match serde_saphyr::from_slice_with_options(content, config::yaml()) {
            Ok(entries) => entries,
            Err(error) => {
                let said = error.without_snippet().to_string();
                let said = said.lines().next().unwrap_or_default();
                self.fault(
                    origin.clone(),
                    format!("is a cloud-config archive that is not readable: {said}"),
                );
                return;
            }
        };
        for (index, entry) in entries.into_iter().enumerate() {
            let (content, media_type, name) = match entry {
                Entry::Text(content) => (content, None, None),
                Entry::Part(part) => (part.content, part.media_type, part.filename),
            };
            let origin = Origin::UserDataPart {
                number: index + 1,
                name,
            };
            let content = content.into_bytes();
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

/// An entry of a cloud-config archive, as cloud-init takes it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Text(String),
    Part(ArchivePart),
}

#[derive(Deserialize)]
struct ArchivePart {
    #[serde(default)]
    content: String,
    #[serde(rename = "type")]
    media_type: Option<String>,
    filename: Option<String>,
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
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    const BARE: &str = "version: 1\nrole: nomad-client\n";

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn encoded(content: &[u8]) -> Vec<u8> {
        STANDARD.encode(content).into_bytes()
    }

    fn contents(found: &UserData) -> Vec<(String, String)> {
        let text = |document: &Document| {
            let content = String::from_utf8_lossy(&document.bytes).into_owned();
            (document.origin.to_string(), content)
        };
        found.documents.iter().map(text).collect()
    }

    fn assert_bare(bytes: &[u8]) {
        let found = read(bytes);
        assert_eq!(contents(&found), [("user-data".to_owned(), BARE.to_owned())]);
        assert_eq!(found.faults, []);
    }

    #[test]
    fn a_document_is_found_however_it_is_packed() {
        let bare = BARE.as_bytes();
        assert_bare(bare);
        assert_bare(&gzip(bare));
        assert_bare(&encoded(bare));
        assert_bare(&encoded(&gzip(bare)));
        assert_bare(&gzip(&encoded(bare)));
        assert_bare(&encoded(&encoded(bare)));
        let lines = encoded(&gzip(bare))
            .chunks(20)
            .collect::<Vec<_>>()
            .join(&b"\r\n"[..]);
        assert_bare(&lines);
    }

    #[test]
    fn what_begins_like_a_document_is_one() {
        for ours in [
            "version: 1\n",
            "\n{\"version\":1}",
            "---\nversion: 1\n",
            "# of the shop\n\nrole: x\n",
            "\"version\": 1",
            "consul:\n  datacenter: x\n",
            "%YAML 1.2\n---\nversion: 1",
            "verison: 1",
            "\u{feff}version: 1",
        ] {
            assert_eq!(read(ours.as_bytes()).documents.len(), 1, "{ours}");
        }
    }

    #[test]
    fn what_is_another_programs_is_left_to_it() {
        for (theirs, what) in [
            ("#cloud-config\nruncmd: []", "a #cloud-config"),
            ("#!/bin/sh\ncos-agent apply", "a script"),
            ("#include\nhttp://example/", "a list of addresses for cloud-init"),
            ("## template: jinja\n#cloud-config\n", "a template of cloud-init"),
            ("hello", "something that is no NodeConfig"),
            ("CLUSTER=main\n", "something that is no NodeConfig"),
            ("<powershell>", "a script for another system"),
            ("\u{0}\u{1}\u{2}", "something that is no NodeConfig"),
        ] {
            let found = read(theirs.as_bytes());
            assert_eq!((found.documents.len(), found.others), (0, vec![what.to_owned()]));
            assert_eq!(found.faults, []);
        }
        assert_eq!(read(b""), UserData::default());
        assert_eq!(read(b" \n"), UserData::default());
    }

    #[test]
    fn parts_are_found_in_their_order_each_by_its_name() {
        let packed = encoded(&gzip(b"{\"version\": 1, \"role\": \"packed\"}"));
        let message = format!(
            "Content-Type: multipart/mixed; boundary=\"B\"\nMIME-Version: 1.0\n\n\
             --B\nContent-Type: text/cloud-config\n\n#cloud-config\n\
             --B\nContent-Type: application/vnd.cos.node+yaml\nContent-Disposition: attachment; \
             filename=\"base.yaml\"\n\nversion: 1\n\
             --B\nContent-Type: multipart/mixed; boundary=C\n\n--C\n\nrole: inner\n--C--\n\
             --B\nContent-Type: application/x-gzip\nContent-Transfer-Encoding: base64\n\n{}\n--B--\n",
            String::from_utf8(packed).unwrap()
        );
        let expected = [
            ("user-data part 2 (base.yaml)", "version: 1"),
            ("user-data part 3", "role: inner"),
            ("user-data part 4", "{\"version\": 1, \"role\": \"packed\"}"),
        ]
        .map(|(origin, content)| (origin.to_owned(), content.to_owned()));
        for whole in [
            message.clone().into_bytes(),
            message.replace('\n', "\r\n").into_bytes(),
            gzip(message.as_bytes()),
            encoded(&gzip(message.as_bytes())),
        ] {
            let found = read(&whole);
            assert_eq!(contents(&found), expected);
            assert_eq!(found.others, ["a part of type text/cloud-config"]);
            assert_eq!(found.faults, []);
        }
    }

    #[test]
    fn an_archive_is_taken_apart() {
        let archive = "#cloud-config-archive\n- '#!/bin/sh'\n- type: application/vnd.cos.node+yaml\n  filename: n\n  \
                       content: |\n    version: 1\n- content: 'role: x'\n- {type: text/x-shellscript, content: x}\n";
        let found = read(archive.as_bytes());
        assert_eq!(found.faults, []);
        let expected = [
            ("user-data part 2 (n)", "version: 1\n"),
            ("user-data part 3", "role: x"),
        ]
        .map(|(origin, content)| (origin.to_owned(), content.to_owned()));
        assert_eq!(contents(&found), expected);
        assert_eq!(found.others, ["a script", "a part of type text/x-shellscript"]);
    }

    #[test]
    fn what_is_broken_is_told_and_not_skipped() {
        let cut = &gzip(BARE.as_bytes())[..20];
        let layers = (0..6).fold(BARE.as_bytes().to_vec(), |content, _| gzip(&content));
        let bomb = gzip(&vec![b'#'; 64 * LARGEST]);
        assert!(bomb.len() < 128 * 1024);
        // One that is small by itself and many times there.
        let part = "--B\nContent-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n".to_owned()
            + &String::from_utf8(encoded(&gzip(&vec![b'#'; LARGEST / 4]))).unwrap();
        let many = format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n{}\n--B--\n",
            vec![part; 8].join("\n")
        );
        for (bytes, message) in [
            (cut, "begins like gzip and is not"),
            (&layers, "is packed more than 4 times over"),
            (&bomb, TOO_LARGE),
            (&vec![b' '; LARGEST + 1], TOO_LARGE),
            (many.as_bytes(), TOO_LARGE),
            (
                b"Content-Type: multipart/mixed; boundary=B\n\n--B\n\nversion: 1\n",
                "is a MIME message that ends in the middle",
            ),
            (
                b"#cloud-config-archive\n- [",
                "is a cloud-config archive that is not readable",
            ),
        ] {
            let found = read(bytes);
            assert!(
                found
                    .faults
                    .iter()
                    .any(|fault| fault.message.starts_with(message)),
                "{message}: {:?}",
                found.faults
            );
        }
    }

    /// Pieces that user-data is made of, so that chance gets behind the first test of each.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "Content-Type: multipart/mixed; boundary=B\n",
            "Content-Type: application/vnd.cos.node+yaml\n",
            "Content-Type: text/cloud-config-archive\n",
            "Content-Type: message/rfc822\n",
            "Content-Type: multipart/digest; boundary=\"\\\"\n",
            "Content-Transfer-Encoding: base64\n",
            "Content-Transfer-Encoding: quoted-printable\n",
            "Content-Disposition: attachment; filename=\"x",
            "MIME-Version: 1.0\n",
            "--B\n",
            "--B--\n",
            "\n",
            "\r\n",
            "=3",
            "= \n",
            "dmVyc2lvbjogMQo=",
            "version: 1\n",
            "#cloud-config-archive\n- content: x\n",
            "- &a [*a]\n",
            "{[",
            ": ",
            ";;=",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec());
        let noise = prop::collection::vec(any::<u8>(), 0..20);
        prop::collection::vec(prop_oneof![6 => piece, 1 => noise], 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = read(&bytes);
            let _ = read(&[&[0x1f, 0x8b, 8, 0][..], &bytes].concat());
            let _ = read(&encoded(&bytes));
        }

        #[test]
        fn any_pieces_are_read_without_panic(bytes in pieces(), pack in 0..3) {
            let found = match pack {
                0 => read(&bytes),
                1 => read(&gzip(&bytes)),
                _ => read(&encoded(&gzip(&bytes))),
            };
            let size: usize = found.documents.iter().map(|document| document.bytes.len()).sum();
            prop_assert!(size <= LARGEST);
        }

        #[test]
        fn flipped_bytes_are_read_without_panic(at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let message = format!("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\
                Content-Type: application/vnd.cos.node+yaml\n\n{BARE}\n--B--\n");
            for mut bytes in [message.clone().into_bytes(), gzip(message.as_bytes()), encoded(&gzip(message.as_bytes()))] {
                let at = at.index(bytes.len());
                bytes[at] = with;
                let _ = read(&bytes);
            }
        }
    }
}
