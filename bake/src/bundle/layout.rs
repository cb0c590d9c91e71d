//! Owns the table of what a node gets and where: directories, users, links, COS's own files.
//! Touches nothing. The paths are those of `_docs/architecture.md`, "Layout on a node".

use cos_agent::bundle::{ArchiveFormat, Directory, Link, User};

use crate::release::Product;

/// Where the agent is installed.
pub(super) const AGENT_PATH: &str = "/opt/cos/bin/cos-agent";

/// A text of COS's own that is installed as it is.
pub(super) struct OwnFile {
    /// Absolute path on the node.
    pub(super) path: &'static str,
    /// Permission bits.
    pub(super) mode: u32,
    /// Content.
    pub(super) content: &'static str,
}

/// COS's own texts, by path. None of the units is enabled in an image: the agent enables what a role needs.
/// Scripts for Amazon Linux 1, which has no systemd, lie where nothing runs them on other bases.
pub(super) const OWN_FILES: &[OwnFile] = &[
    text(
        "/etc/modules-load.d/cos.conf",
        include_str!("../../../systemd/modules-load/cos.conf"),
    ),
    text(
        "/etc/sysctl.d/60-cos.conf",
        include_str!("../../../systemd/sysctl/60-cos.conf"),
    ),
    text(
        "/etc/systemd/system-preset/20-cos.preset",
        include_str!("../../../systemd/preset/20-cos.preset"),
    ),
    text(
        "/etc/systemd/system/consul.service",
        include_str!("../../../systemd/consul.service"),
    ),
    text(
        "/etc/systemd/system/containerd.service",
        include_str!("../../../systemd/containerd.service"),
    ),
    text(
        "/etc/systemd/system/cos-agent-watch.service",
        include_str!("../../../systemd/cos-agent-watch.service"),
    ),
    text(
        "/etc/systemd/system/docker.service",
        include_str!("../../../systemd/docker.service"),
    ),
    text(
        "/etc/systemd/system/nomad.service",
        include_str!("../../../systemd/nomad.service"),
    ),
    script(
        "/opt/cos/sysv/consul",
        include_str!("../../../systemd/sysv/consul"),
    ),
    script(
        "/opt/cos/sysv/containerd",
        include_str!("../../../systemd/sysv/containerd"),
    ),
    script(
        "/opt/cos/sysv/cos-agent-watch",
        include_str!("../../../systemd/sysv/cos-agent-watch"),
    ),
    script(
        "/opt/cos/sysv/docker",
        include_str!("../../../systemd/sysv/docker"),
    ),
    script("/opt/cos/sysv/nomad", include_str!("../../../systemd/sysv/nomad")),
];

const fn text(path: &'static str, content: &'static str) -> OwnFile {
    OwnFile {
        path,
        mode: 0o644,
        content,
    }
}

const fn script(path: &'static str, content: &'static str) -> OwnFile {
    OwnFile {
        path,
        mode: 0o755,
        content,
    }
}

const DIRECTORIES: &[(&str, u32, &str, bool)] = &[
    ("/etc/modules-load.d", 0o755, "root", false),
    ("/etc/sysctl.d", 0o755, "root", false),
    ("/etc/systemd/system", 0o755, "root", false),
    ("/etc/systemd/system-preset", 0o755, "root", false),
    ("/opt/cni", 0o755, "root", false),
    ("/opt/cni/bin", 0o755, "root", false),
    ("/opt/cni/config", 0o755, "root", false),
    ("/opt/consul", 0o755, "root", false),
    ("/opt/consul/bin", 0o755, "root", false),
    // Configuration holds gossip keys and tokens.
    ("/opt/consul/config", 0o750, "consul", false),
    // The node's identity and state: an image with them would make twins.
    ("/opt/consul/data", 0o750, "consul", true),
    ("/opt/consul/tls", 0o750, "consul", false),
    ("/opt/cos", 0o755, "root", false),
    ("/opt/cos/bin", 0o755, "root", false),
    ("/opt/cos/sysv", 0o755, "root", false),
    ("/opt/docker", 0o755, "root", false),
    ("/opt/docker/bin", 0o755, "root", false),
    ("/opt/nomad", 0o755, "root", false),
    ("/opt/nomad/bin", 0o755, "root", false),
    ("/opt/nomad/config", 0o750, "nomad", false),
    ("/opt/nomad/data", 0o700, "nomad", true),
    ("/opt/nomad/log", 0o755, "nomad", false),
];

const USERS: &[(&str, &str)] = &[("consul", "/opt/consul"), ("nomad", "/opt/nomad")];

/// Programs that stand in `/usr/local/bin`, by the folder that holds them.
const PROGRAMS: &[(&str, &str)] = &[
    ("consul", "/opt/consul/bin"),
    ("containerd", "/opt/docker/bin"),
    ("containerd-shim-runc-v2", "/opt/docker/bin"),
    ("cos-agent", "/opt/cos/bin"),
    ("ctr", "/opt/docker/bin"),
    ("docker", "/opt/docker/bin"),
    ("docker-init", "/opt/docker/bin"),
    ("docker-proxy", "/opt/docker/bin"),
    ("dockerd", "/opt/docker/bin"),
    ("nomad", "/opt/nomad/bin"),
    ("runc", "/opt/docker/bin"),
];

/// Names under which the agent is another program (`agent/src/cli.rs`): Docker's credential helper, and the commands of
/// older images, where user-data called them and by `PATH`.
const AGENT_NAMES: &[&str] = &[
    "/opt/consul/bin/run-consul",
    "/opt/nomad/bin/run-nomad",
    "/usr/local/bin/docker-credential-ecr-login",
    "/usr/local/bin/run-consul",
    "/usr/local/bin/run-nomad",
];

/// Plug-ins that Nomad's bridge networking calls by name; the others come along.
const CNI_PLUGINS: &[&str] = &["bridge", "firewall", "host-local", "loopback", "portmap"];

/// Directories in the order of making, parents first.
pub(super) fn directories() -> Vec<Directory> {
    let directory = |&(path, mode, owner, sealed_empty): &(&str, u32, &str, bool)| Directory {
        path: path.to_owned(),
        mode,
        owner: owner.to_owned(),
        sealed_empty,
    };
    DIRECTORIES.iter().map(directory).collect()
}

/// System users.
pub(super) fn users() -> Vec<User> {
    USERS
        .iter()
        .map(|&(name, home)| User {
            name: name.to_owned(),
            home: home.to_owned(),
        })
        .collect()
}

/// Symbolic links, sorted by path.
pub(super) fn links() -> Vec<Link> {
    let link = |&(name, folder): &(&str, &str)| Link {
        path: format!("/usr/local/bin/{name}"),
        target: format!("{folder}/{name}"),
    };
    let name = |path: &&str| Link {
        path: (*path).to_owned(),
        target: AGENT_PATH.to_owned(),
    };
    let mut links: Vec<Link> = PROGRAMS
        .iter()
        .map(link)
        .chain(AGENT_NAMES.iter().map(name))
        .collect();
    links.sort_by(|one, other| one.path.cmp(&other.path));
    links
}

/// Name of an own file inside the bundle.
pub(super) fn own_entry(path: &str) -> String {
    format!("files{path}")
}

/// Format that upstream ships a product in.
pub(super) fn format(product: Product) -> ArchiveFormat {
    if product.is_signed() {
        ArchiveFormat::Zip
    } else {
        ArchiveFormat::TarGz
    }
}

/// Folder that a product's programs are installed into.
pub(super) fn folder(product: Product) -> &'static str {
    match product {
        Product::Cni => "/opt/cni/bin",
        Product::Consul => "/opt/consul/bin",
        Product::Docker => "/opt/docker/bin",
        Product::Nomad => "/opt/nomad/bin",
    }
}

/// Name under which a member of an archive is installed; none leaves it out (licences, read-me's).
pub(super) fn program(product: Product, member: &str) -> Option<&str> {
    let member = member.strip_prefix("./").unwrap_or(member);
    let name = if product == Product::Docker {
        member.strip_prefix("docker/")?
    } else {
        member
    };
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte));
    let program = match product {
        // A HashiCorp archive carries one program; whatever else comes in it is not asked for.
        Product::Consul | Product::Nomad => name == product.name(),
        Product::Cni | Product::Docker => plain && name.starts_with(|first: char| first.is_ascii_lowercase()),
    };
    program.then_some(name)
}

/// Programs that an archive must carry.
pub(super) fn required(product: Product) -> Vec<&'static str> {
    match product {
        Product::Cni => CNI_PLUGINS.to_vec(),
        _ => PROGRAMS
            .iter()
            .filter(|(_, at)| *at == folder(product))
            .map(|(name, _)| *name)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_lists_are_sorted() {
        let directories = directories();
        assert!(directories.is_sorted_by(|one, other| one.path < other.path));
        assert!(links().is_sorted_by(|one, other| one.path < other.path));
        assert!(OWN_FILES.is_sorted_by(|one, other| one.path < other.path));
        let folders: Vec<_> = directories
            .iter()
            .map(|directory| directory.path.as_str())
            .collect();
        for path in OWN_FILES.iter().map(|file| file.path).chain([AGENT_PATH]) {
            assert!(folders.contains(&path.rsplit_once('/').unwrap().0), "{path}");
        }
        let users: Vec<_> = users().into_iter().map(|user| user.name).collect();
        for directory in directories {
            assert!(
                directory.owner == "root" || users.contains(&directory.owner),
                "{}",
                directory.path
            );
        }
    }

    #[test]
    fn the_agent_has_its_other_names() {
        let target = |path: &str| {
            let links = links();
            let link = links.iter().find(|link| link.path == path);
            link.map(|link| link.target.clone())
        };
        for name in ["cos-agent", "docker-credential-ecr-login"] {
            assert_eq!(
                target(&format!("/usr/local/bin/{name}")).as_deref(),
                Some(AGENT_PATH),
                "{name}"
            );
        }
        assert_eq!(
            target("/usr/local/bin/docker").as_deref(),
            Some("/opt/docker/bin/docker")
        );
    }

    #[test]
    fn only_programs_are_installed() {
        for (product, member, name) in [
            (Product::Nomad, "nomad", Some("nomad")),
            (Product::Nomad, "LICENSE.txt", None),
            (Product::Consul, "bin/consul", None),
            (Product::Docker, "docker/dockerd", Some("dockerd")),
            (
                Product::Docker,
                "docker/containerd-shim-runc-v2",
                Some("containerd-shim-runc-v2"),
            ),
            (Product::Docker, "docker/../../etc/shadow", None),
            (Product::Docker, "dockerd", None),
            (Product::Cni, "./host-local", Some("host-local")),
            (Product::Cni, "./LICENSE", None),
            (Product::Cni, "./README.md", None),
            (Product::Cni, "./../bridge", None),
            (Product::Cni, "/etc/passwd", None),
        ] {
            assert_eq!(program(product, member), name, "{member}");
        }
    }

    #[test]
    fn docker_needs_all_its_helpers() {
        assert_eq!(
            required(Product::Docker),
            [
                "containerd",
                "containerd-shim-runc-v2",
                "ctr",
                "docker",
                "docker-init",
                "docker-proxy",
                "dockerd",
                "runc"
            ]
        );
        assert_eq!(required(Product::Nomad), ["nomad"]);
    }
}
