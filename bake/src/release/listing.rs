//! Owns how upstreams list versions and digests: `index.json`, Docker's HTML, GitHub's JSON, `SHA256SUMS`.
//! Touches nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;

/// A stable version: three numbers. Pre-releases and enterprise builds (`1.11.0-rc.1`, `1.11.0+ent`) are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stable([u32; 3]);

impl Stable {
    /// Reads `1.11.0`. Numbers with leading zeros (Docker's `17.03.0-ce` time) are no stable version either.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|number| {
            let plain = number.bytes().all(|digit| digit.is_ascii_digit());
            (plain && (number == "0" || !number.starts_with('0')))
                .then(|| number.parse().ok())
                .flatten()
        });
        let triple = [numbers.next()??, numbers.next()??, numbers.next()??];
        numbers.next().is_none().then_some(Self(triple))
    }
}

impl std::fmt::Display for Stable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch] = self.0;
        write!(formatter, "{major}.{minor}.{patch}")
    }
}

/// Whether a text can stand as a version in an address: digits first, then what versions are written with.
pub fn version_is_plain(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|first: char| first.is_ascii_digit())
        && !text.contains("..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".+-".contains(&byte))
}

#[derive(Deserialize)]
struct HashicorpIndex {
    #[expect(
        clippy::zero_sized_map_values,
        reason = "a JSON object is wanted for its keys only"
    )]
    versions: BTreeMap<String, IgnoredAny>,
}

/// The newest stable version in HashiCorp's `index.json`.
pub(crate) fn newest_hashicorp(index: &[u8]) -> Result<Option<Stable>, serde_json::Error> {
    let index: HashicorpIndex = serde_json::from_slice(index)?;
    Ok(index
        .versions
        .keys()
        .filter_map(|version| Stable::parse(version))
        .max())
}

#[derive(Deserialize)]
struct GithubRelease {
    tag_name: String,
}

/// The version of GitHub's latest release; GitHub itself leaves pre-releases out.
pub(crate) fn newest_github(release: &[u8]) -> Result<Option<Stable>, serde_json::Error> {
    let release: GithubRelease = serde_json::from_slice(release)?;
    Ok(Stable::parse(
        release.tag_name.strip_prefix('v').unwrap_or(&release.tag_name),
    ))
}

/// The stable versions in Docker's HTML listing: what stands as `docker-VERSION.tgz` in a link.
pub(crate) fn docker_versions(html: &str) -> BTreeSet<Stable> {
    html.split(['"', '\'', '<', '>', '/'])
        .filter_map(|piece| piece.strip_prefix("docker-")?.strip_suffix(".tgz"))
        .filter_map(Stable::parse)
        .collect()
}

/// HashiCorp's `SHA256SUMS`: the digest of each file of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksums(BTreeMap<String, Digest>);

impl Checksums {
    /// Reads lines of `DIGEST  NAME`. Nothing else may stand in the list, and no name twice.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut digests = BTreeMap::new();
        for line in std::str::from_utf8(bytes).ok()?.lines() {
            let (digest, name) = line.split_once("  ")?;
            let plain = !name.is_empty() && !name.contains([' ', '/']);
            if !plain || digests.insert(name.to_owned(), digest.parse().ok()?).is_some() {
                return None;
            }
        }
        (!digests.is_empty()).then_some(Self(digests))
    }

    /// The digest of a file.
    pub fn get(&self, name: &str) -> Option<Digest> {
        self.0.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_is_three_numbers() {
        for (text, stable) in [
            ("1.11.0", true),
            ("10.0.12", true),
            ("1.11.0-rc.1", false),
            ("1.11.0+ent", false),
            ("17.03.0", false),
            ("1.11", false),
            ("1.2.3.4", false),
            ("1..3", false),
            ("99999999999.0.0", false),
        ] {
            assert_eq!(
                Stable::parse(text).map(|version| version.to_string()).as_deref() == Some(text),
                stable,
                "{text}"
            );
        }
    }

    #[test]
    fn newest_is_by_number_not_by_text() {
        let index = br#"{"name":"nomad","versions":{
            "1.9.7":{"builds":[{"arch":"amd64"}]},"1.11.0":{},"1.10.3":{},"1.12.0-beta.1":{},"1.13.0+ent":{}}}"#;
        assert_eq!(newest_hashicorp(index).unwrap(), Some(Stable([1, 11, 0])));
        assert_eq!(
            newest_hashicorp(br#"{"versions":{"1.0.0-rc1":{}}}"#).unwrap(),
            None
        );
        assert!(newest_hashicorp(b"<html>").is_err());
        assert_eq!(
            newest_github(br#"{"tag_name":"v1.8.0","assets":[]}"#).unwrap(),
            Some(Stable([1, 8, 0]))
        );
    }

    #[test]
    fn docker_links_are_read_and_rootless_extras_are_not() {
        let html = r#"<a href="../">../</a>
            <a href="docker-20.10.24.tgz">docker-20.10.24.tgz</a>   2023-04-04 18:00  65M
            <a href="docker-rootless-extras-29.0.0.tgz">docker-rootless-extras-29.0.0.tgz</a>
            <a href="docker-9.1.0.tgz">x</a><a href="docker-29.0.0-rc.1.tgz">x</a>"#;
        let versions: Vec<_> = docker_versions(html).iter().map(ToString::to_string).collect();
        assert_eq!(versions, ["9.1.0", "20.10.24"]);
    }

    #[test]
    fn versions_that_would_change_an_address_are_not_plain() {
        for (version, plain) in [
            ("1.11.0", true),
            ("1.11.0+ent", true),
            ("", false),
            ("v1", false),
            ("1/../2", false),
            ("1..2", false),
            ("1?x", false),
        ] {
            assert_eq!(version_is_plain(version), plain, "{version}");
        }
    }

    #[test]
    fn checksums_take_only_their_own_form() {
        let digest = Digest::of(b"x");
        let list = format!("{digest}  a.zip\n{digest}  b.zip\n");
        assert_eq!(
            Checksums::parse(list.as_bytes()).unwrap().get("b.zip"),
            Some(digest)
        );
        for wrong in [
            String::new(),
            format!("{digest} a.zip"),
            format!("{list}{digest}  a.zip"),
            format!("{list}\n"),
        ] {
            assert_eq!(Checksums::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
