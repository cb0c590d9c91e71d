//! Owns what tests need of an upstream: keys, signed releases, and a mirror that really answers on loopback.
//! Touches loopback only.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgp::composed::{
    ArmorOptions, DetachedSignature, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedPublicKey,
    SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::ser::Serialize as _;
use pgp::types::{Password, SigningKey, Timestamp};
use rand_08::rngs::OsRng;

use super::{Arch, Fetcher, Product, Upstream};
use crate::digest::Digest;

/// A key made for a test: a certifying primary and one signing subkey, both Ed25519.
pub(crate) fn key(created: Timestamp) -> SignedSecretKey {
    key_of(created, KeyType::Ed25519Legacy)
}

/// The same with an RSA subkey, as HashiCorp has one.
pub(crate) fn rsa_key() -> SignedSecretKey {
    key_of(Timestamp::now(), KeyType::Rsa(2048))
}

fn key_of(created: Timestamp, subkey: KeyType) -> SignedSecretKey {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(subkey)
        .can_sign(true)
        .can_encrypt(EncryptionCaps::None)
        .created_at(created)
        .build()
        .unwrap();
    SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .created_at(created)
        .primary_user_id("Test <test@example.org>".to_owned())
        .subkeys(vec![subkey])
        .build()
        .unwrap()
        .generate(OsRng)
        .unwrap()
}

/// The public half, armoured, as a file for `--trust-key`.
pub(crate) fn public(key: &SignedSecretKey) -> String {
    SignedPublicKey::from(key.clone())
        .to_armored_string(ArmorOptions::default())
        .unwrap()
}

/// A detached signature.
pub(crate) fn sign(key: &impl SigningKey, data: &[u8]) -> Vec<u8> {
    sign_with(key, data, HashAlgorithm::Sha256)
}

/// A detached signature by a chosen digest.
pub(crate) fn sign_with(key: &impl SigningKey, data: &[u8], digest: HashAlgorithm) -> Vec<u8> {
    DetachedSignature::sign_binary_data(OsRng, key, &Password::empty(), digest, data)
        .unwrap()
        .to_bytes()
        .unwrap()
}

/// Bytes that do not compress, so that archives have some length.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(step).take(length).collect()
}

pub(crate) fn zip(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, content) in members {
        writer
            .start_file(
                *name,
                zip::write::SimpleFileOptions::default().unix_permissions(0o755),
            )
            .unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

pub(crate) fn tar_gz(members: &[(&str, &[u8])]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut writer = tar::Builder::new(gzip);
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        // As upstream's archives have it: with the leading `./`, which set_path would drop.
        let bytes = name.as_bytes();
        header.as_old_mut().name[..bytes.len()].copy_from_slice(bytes);
        header.set_cksum();
        writer.append(&header, *content).unwrap();
    }
    writer.into_inner().unwrap().finish().unwrap()
}

/// An archive with all that a product must carry, and what else upstream puts beside it.
pub(crate) fn archive(product: Product, seed: u64) -> Vec<u8> {
    let program = |name: &str| noise(seed + name.len() as u64, 3000 + name.len());
    let many = |prefix: &str, names: &[&str]| -> Vec<(String, Vec<u8>)> {
        names
            .iter()
            .map(|name| (format!("{prefix}{name}"), program(name)))
            .collect()
    };
    let docker = [
        "containerd",
        "containerd-shim-runc-v2",
        "ctr",
        "docker",
        "docker-init",
        "docker-proxy",
        "dockerd",
        "runc",
    ];
    let cni = [
        "LICENSE",
        "README.md",
        "bridge",
        "firewall",
        "host-local",
        "loopback",
        "portmap",
        "vlan",
    ];
    let mut members = match product {
        Product::Cni => many("./", &cni),
        Product::Docker => many("docker/", &docker),
        _ => many("", &["LICENSE.txt", product.name()]),
    };
    if product == Product::Docker {
        members.insert(0, ("docker/".to_owned(), Vec::new()));
    }
    let members: Vec<_> = members
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_slice()))
        .collect();
    if product.is_signed() {
        zip(&members)
    } else {
        tar_gz(&members)
    }
}

/// How a mirror answers a path.
#[derive(Clone)]
pub(crate) enum Answer {
    /// With these bytes.
    Bytes(Vec<u8>),
    /// With an error status, so many times, then with the bytes.
    StatusFirst(u16, usize, Vec<u8>),
    /// Breaks off in the middle, so many times, then with the bytes.
    BreakFirst(usize, Vec<u8>),
}

/// A mirror on loopback, with all its paths in memory.
pub(crate) struct Mirror {
    pub(crate) url: String,
    pub(crate) key: SignedSecretKey,
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    pub(crate) requests: Arc<AtomicUsize>,
}

/// Versions that [`Mirror::new`] carries.
pub(crate) const VERSIONS: [(Product, &str); 4] = [
    (Product::Cni, "1.8.0"),
    (Product::Consul, "1.21.0"),
    (Product::Docker, "20.10.24"),
    (Product::Nomad, "1.11.0"),
];

impl Mirror {
    /// One release of each product, for x86_64 only, signed by a new key.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Arc<Mutex<BTreeMap<String, Answer>>> = Arc::default();
        let requests: Arc<AtomicUsize> = Arc::default();
        let (shared, counter) = (Arc::clone(&answers), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, counter) = (Arc::clone(&shared), Arc::clone(&counter));
                std::thread::spawn(move || serve(stream, &shared, &counter));
            }
        });
        let key = key(Timestamp::from_secs(1_700_000_000));
        let mirror = Self {
            url,
            key,
            answers,
            requests,
        };
        for (product, version) in VERSIONS {
            mirror.release(product, version, Arch::X86_64, archive(product, 1));
        }
        mirror.put(
            "/hashicorp/nomad/index.json",
            br#"{"versions":{"1.9.0":{},"1.11.0":{},"2.0.0-rc.1":{}}}"#.to_vec(),
        );
        mirror.put(
            "/hashicorp/consul/index.json",
            br#"{"versions":{"1.21.0":{},"1.20.9":{}}}"#.to_vec(),
        );
        mirror.put("/cni/releases/latest.json", br#"{"tag_name":"v1.8.0"}"#.to_vec());
        let listing = br#"<a href="docker-20.10.24.tgz">docker-20.10.24.tgz</a>"#.to_vec();
        mirror.put("/docker/linux/static/stable/x86_64/", listing);
        mirror
    }

    /// Publishes an archive; for HashiCorp's products with a signed digest list.
    pub(crate) fn release(&self, product: Product, version: &str, arch: Arch, archive: Vec<u8>) {
        let upstream = self.upstream();
        let name = product.archive_name(version, arch);
        if product.is_signed() {
            let other = Digest::of(b"not here");
            let list = format!(
                "{}  {name}\n{other}  {product}_{version}_darwin_arm64.zip\n",
                Digest::of(&archive)
            );
            self.put_signed(product, version, list.into_bytes());
        }
        self.put(&self.path(&upstream.archive(product, version, arch)), archive);
    }

    /// Publishes a digest list, signed by the mirror's subkey.
    pub(crate) fn put_signed(&self, product: Product, version: &str, list: Vec<u8>) {
        let path = self.path(&self.upstream().checksums(product, version));
        self.put(
            &format!("{path}.sig"),
            sign(&self.key.secret_subkeys[0].key, &list),
        );
        self.put(&path, list);
    }

    pub(crate) fn upstream(&self) -> Upstream {
        Upstream::mirror(&self.url).unwrap()
    }

    pub(crate) fn path(&self, url: &str) -> String {
        url.strip_prefix(&self.url).unwrap().to_owned()
    }

    pub(crate) fn put(&self, path: &str, bytes: Vec<u8>) {
        self.answer(path, Answer::Bytes(bytes));
    }

    pub(crate) fn answer(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.answers.lock().unwrap().remove(path).unwrap();
    }

    /// The bytes of a path that answers without faults.
    pub(crate) fn bytes(&self, path: &str) -> Vec<u8> {
        match &self.answers.lock().unwrap()[path] {
            Answer::Bytes(bytes) | Answer::StatusFirst(_, _, bytes) | Answer::BreakFirst(_, bytes) => {
                bytes.clone()
            }
        }
    }

    /// All paths.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.answers.lock().unwrap().keys().cloned().collect()
    }

    /// A fetcher that does not wait long, and tells nobody.
    pub(crate) fn fetcher() -> Fetcher {
        Fetcher::new(Arc::new(|_| ()))
            .unwrap()
            .with_first_pause(Duration::from_millis(1))
    }
}

/// One answer on one connection.
fn serve(mut stream: TcpStream, answers: &Mutex<BTreeMap<String, Answer>>, requests: &AtomicUsize) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        request.push(byte[0]);
    }
    requests.fetch_add(1, Ordering::Relaxed);
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, bytes, whole) = {
        let mut answers = answers.lock().unwrap();
        match answers.get_mut(&path) {
            None => (404, Vec::new(), true),
            Some(Answer::StatusFirst(status, left @ 1.., _)) => {
                *left -= 1;
                (*status, Vec::new(), true)
            }
            Some(Answer::BreakFirst(left @ 1.., bytes)) => {
                *left -= 1;
                (200, bytes.clone(), false)
            }
            Some(Answer::Bytes(bytes) | Answer::StatusFirst(_, _, bytes) | Answer::BreakFirst(_, bytes)) => {
                (200, bytes.clone(), true)
            }
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    let sent = if whole { bytes.len() } else { bytes.len() / 2 };
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&bytes[..sent]));
}
