//! Every way in which user-data may be packed, and any bytes at all.

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
