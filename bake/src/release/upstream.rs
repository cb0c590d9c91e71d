//! Owns the addresses of releases: at HashiCorp, Docker and GitHub, or on one mirror.
//! Touches nothing.

use reqwest::Url;

use super::{Arch, Product, ReleaseError};

/// Where releases are downloaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    mirror: Option<String>,
}

impl Upstream {
    /// The publishers' own sites.
    pub fn official() -> Self {
        Self { mirror: None }
    }

    /// One mirror with the layout of `_docs/architecture.md`.
    pub fn mirror(base: &str) -> Result<Self, ReleaseError> {
        // An address that is none may hold a password as well, before its last `@`.
        let fault = || {
            let shown = base.rsplit_once('@').map_or(base, |(_, behind)| behind);
            ReleaseError::MirrorAddress(shown.to_owned())
        };
        let url = Url::parse(base).map_err(|_| fault())?;
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            return Err(fault());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ReleaseError::MirrorSecret);
        }
        Ok(Self {
            mirror: Some(url.as_str().trim_end_matches('/').to_owned()),
        })
    }

    /// A mirror if one is named, else the publishers.
    pub fn from_option(mirror: Option<&str>) -> Result<Self, ReleaseError> {
        mirror.map_or_else(|| Ok(Self::official()), Self::mirror)
    }

    /// Whether addresses are the publishers' own.
    pub fn is_official(&self) -> bool {
        self.mirror.is_none()
    }

    /// Folder of a product: its releases lie below it.
    fn folder(&self, product: Product) -> String {
        match (&self.mirror, product) {
            (None, Product::Cni) => "https://github.com/containernetworking/plugins/releases".to_owned(),
            (None, Product::Docker) => "https://download.docker.com/linux/static/stable".to_owned(),
            (None, _) => format!("https://releases.hashicorp.com/{product}"),
            (Some(base), Product::Cni) => format!("{base}/cni/releases"),
            (Some(base), Product::Docker) => format!("{base}/docker/linux/static/stable"),
            (Some(base), _) => format!("{base}/hashicorp/{product}"),
        }
    }

    /// Address of the list of versions. Docker has one for each architecture.
    pub(crate) fn listing(&self, product: Product, arch: Arch) -> String {
        match (&self.mirror, product) {
            (None, Product::Cni) => {
                "https://api.github.com/repos/containernetworking/plugins/releases/latest".to_owned()
            }
            (Some(_), Product::Cni) => format!("{}/latest.json", self.folder(product)),
            (_, Product::Docker) => format!("{}/{}/", self.folder(product), docker_arch(arch)),
            _ => format!("{}/index.json", self.folder(product)),
        }
    }

    /// Address of an archive.
    pub fn archive(&self, product: Product, version: &str, arch: Arch) -> String {
        let (folder, name) = (self.folder(product), product.archive_name(version, arch));
        match product {
            Product::Cni => format!("{folder}/download/v{version}/{name}"),
            Product::Docker => format!("{folder}/{}/{name}", docker_arch(arch)),
            Product::Consul | Product::Nomad => format!("{folder}/{version}/{name}"),
        }
    }

    /// Address of HashiCorp's digest list of a version; its signature has `.sig` behind.
    pub(crate) fn checksums(&self, product: Product, version: &str) -> String {
        format!(
            "{}/{version}/{product}_{version}_SHA256SUMS",
            self.folder(product)
        )
    }
}

/// Docker names folders by the kernel's machine names.
fn docker_arch(arch: Arch) -> &'static str {
    match arch {
        Arch::Arm64 => "aarch64",
        Arch::X86_64 => "x86_64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn official_addresses() {
        let upstream = Upstream::official();
        for (product, version, arch, url) in [
            (
                Product::Nomad,
                "1.11.0",
                Arch::X86_64,
                "https://releases.hashicorp.com/nomad/1.11.0/nomad_1.11.0_linux_amd64.zip",
            ),
            (
                Product::Docker,
                "29.0.0",
                Arch::Arm64,
                "https://download.docker.com/linux/static/stable/aarch64/docker-29.0.0.tgz",
            ),
            (
                Product::Cni,
                "1.8.0",
                Arch::Arm64,
                "https://github.com/containernetworking/plugins/releases/download/v1.8.0/\
                 cni-plugins-linux-arm64-v1.8.0.tgz",
            ),
        ] {
            assert_eq!(upstream.archive(product, version, arch), url);
        }
        assert!(upstream.is_official());
    }

    #[test]
    fn a_mirror_has_the_documented_layout() {
        let upstream = Upstream::mirror("http://127.0.0.1:8480/").unwrap();
        for (url, path) in [
            (
                upstream.listing(Product::Nomad, Arch::X86_64),
                "hashicorp/nomad/index.json",
            ),
            (
                upstream.checksums(Product::Nomad, "1.11.0"),
                "hashicorp/nomad/1.11.0/nomad_1.11.0_SHA256SUMS",
            ),
            (
                upstream.listing(Product::Docker, Arch::X86_64),
                "docker/linux/static/stable/x86_64/",
            ),
            (
                upstream.archive(Product::Docker, "20.10.24", Arch::X86_64),
                "docker/linux/static/stable/x86_64/docker-20.10.24.tgz",
            ),
            (
                upstream.listing(Product::Cni, Arch::Arm64),
                "cni/releases/latest.json",
            ),
            (
                upstream.archive(Product::Cni, "1.8.0", Arch::X86_64),
                "cni/releases/download/v1.8.0/cni-plugins-linux-amd64-v1.8.0.tgz",
            ),
        ] {
            assert_eq!(url, format!("http://127.0.0.1:8480/{path}"));
        }
        assert!(!upstream.is_official());
    }

    #[test]
    fn other_addresses_are_refused() {
        for base in [
            "",
            "mirror",
            "ftp://host",
            "file:///srv",
            "http://host/?x=1",
            "ftp://me:secret@host",
        ] {
            assert!(
                matches!(Upstream::mirror(base), Err(ReleaseError::MirrorAddress(_))),
                "{base}"
            );
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for base in [
            "http://me:secret@host/",
            "https://secret@host",
            "http://:secret@host",
            "http://me:secret@host/?x=1",
            "http//me:secret@host",
        ] {
            let error = Upstream::mirror(base).unwrap_err();
            let said = format!("{error} {}", error.hint().unwrap());
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
