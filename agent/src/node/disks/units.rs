//! Owns how mounts are written down for the next boot: systemd units, their names, lines of `/etc/fstab`.
//! Touches nothing.

use std::fmt::Write as _;

use super::spec::Request;
use crate::node::render::NOMAD_DISKS_DROP_IN;

/// How mounts are kept and made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keeper {
    /// Units of systemd.
    Systemd,
    /// `/etc/fstab` and `mount`: Amazon Linux 1.
    Fstab,
}

/// First line of each file of ours.
pub const HEADER: &str = "# Written by cos-agent from the node's configuration; changes are overwritten.";
/// Where units of ours lie.
pub const UNIT_FOLDER: &str = "/etc/systemd/system";
/// The table of mounts.
pub const FSTAB: &str = "/etc/fstab";

const FSTAB_BEGIN: &str = "# cos-agent: disks begin (changes between these lines are overwritten)";
const FSTAB_END: &str = "# cos-agent: disks end";

/// A mount, as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct MountEntry {
    /// UUID, or what a network file system is called.
    pub what: What,
    /// Absolute path.
    pub point: String,
    /// Type for `mount -t`.
    pub kind: String,
    /// Options, in order.
    pub options: Vec<String>,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A local file system by its UUID: the kernel may number disks in another order at each boot.
    Uuid(super::uuid::Uuid),
    /// A network file system.
    Network(String),
}

impl MountEntry {
    /// Its unit's name: systemd finds the unit of a mount point by it (systemd.unit(5), systemd-escape(1)).
    pub fn unit(&self) -> String {
        format!("{}.mount", escape_path(&self.point))
    }

    /// Path of its unit.
    pub fn unit_path(&self) -> String {
        format!("{UNIT_FOLDER}/{}", self.unit())
    }

    /// Its unit. Every directive is known to systemd 219 (Amazon Linux 2).
    pub fn unit_content(&self) -> String {
        let (what, after) = match &self.what {
            What::Uuid(uuid) => (
                format!("/dev/disk/by-uuid/{uuid}"),
                "# A disk may be looked at once what repairs disks at boot is through.\nAfter=local-fs-pre.target\n",
            ),
            What::Network(name) => (
                name.clone(),
                "# A network file system needs the network, and must go before it goes.\n\
                 Wants=network-online.target\n\
                 After=network-online.target network.target remote-fs-pre.target\n",
            ),
        };
        let options = if self.options.is_empty() {
            "defaults".to_owned()
        } else {
            self.options.join(",")
        };
        format!(
            "{HEADER}\n\
             [Unit]\n\
             Description={kind} at {point}\n\
             # Without this the unit would be ordered before local-fs.target, and a disk that is not there would\n\
             # hold up the whole boot. Nothing that the machine needs to come up waits for this mount, and nothing\n\
             # fails with it: a missing disk never leads to emergency mode.\n\
             DefaultDependencies=no\n\
             Conflicts=umount.target\n\
             Before=umount.target\n\
             {after}\
             # Their data may lie here. Only Nomad requires it, by a drop-in of its own.\n\
             Before=consul.service containerd.service docker.service nomad.service\n\
             \n\
             [Mount]\n\
             What={what}\n\
             Where={point}\n\
             Type={kind}\n\
             Options={options}\n\
             \n\
             [Install]\n\
             # Wanted, not required: as `nofail` in /etc/fstab.\n\
             WantedBy=multi-user.target\n",
            kind = self.kind,
            point = self.point,
        )
    }

    /// Options as `mount` on a System V machine gets them.
    pub fn fstab_options(&self) -> String {
        let given = self
            .options
            .iter()
            .map(String::as_str)
            .filter(|option| *option != "nofail");
        given.chain(["nofail"]).collect::<Vec<_>>().join(",")
    }

    /// What to mount, as `mount` takes it.
    pub fn source(&self) -> String {
        match &self.what {
            What::Uuid(uuid) => format!("UUID={uuid}"),
            What::Network(name) => name.clone(),
        }
    }
}

/// The file with our mounts in it: everything else in it stays as it is, byte for byte. Lines of ours for the
/// points in `keep` stay too: of a disk that is not there today nothing better is known.
pub fn fstab(current: &str, entries: &[MountEntry], keep: &[&str]) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let mut kept: Vec<&str> = Vec::new();
    let mut ours = false;
    for line in current.split_inclusive('\n') {
        match line.trim_end() {
            FSTAB_BEGIN => ours = true,
            FSTAB_END if ours => ours = false,
            _ if !ours => lines.push(line),
            line if line
                .split_whitespace()
                .nth(1)
                .is_some_and(|point| keep.contains(&point)) =>
            {
                kept.push(line);
            }
            _ => {}
        }
    }
    let mut text: String = lines.concat();
    if entries.is_empty() && kept.is_empty() {
        return text;
    }
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let _ = writeln!(text, "{FSTAB_BEGIN}");
    for line in kept {
        let _ = writeln!(text, "{line}");
    }
    for entry in entries {
        // No check at boot: XFS needs none, the kernel replays ext4's journal, and what needs more than that is
        // for a person to decide.
        let (source, options) = (entry.source(), entry.fstab_options());
        let _ = writeln!(text, "{source} {} {} {options} 0 0", entry.point, entry.kind);
    }
    let _ = writeln!(text, "{FSTAB_END}");
    text
}

/// Mount points of the lines that are ours.
pub fn our_points(current: &str) -> Vec<&str> {
    let begun = current
        .lines()
        .skip_while(|line| line.trim_end() != FSTAB_BEGIN)
        .skip(1);
    let ours = begun.take_while(|line| line.trim_end() != FSTAB_END);
    ours.filter_map(|line| line.split_whitespace().nth(1)).collect()
}

/// Lines of `/etc/fstab` outside our block that mount at `point`, by number from 1.
pub fn foreign_lines(current: &str, point: &str) -> Vec<usize> {
    let mut ours = false;
    let mut found = Vec::new();
    for (index, line) in current.lines().enumerate() {
        match line.trim_end() {
            FSTAB_BEGIN => ours = true,
            FSTAB_END => ours = false,
            line if !ours && !line.starts_with('#') && line.split_whitespace().nth(1) == Some(point) => {
                found.push(index + 1);
            }
            _ => {}
        }
    }
    found
}

/// The drop-in by which Nomad starts only when all of these are mounted: without it Nomad would write into the
/// empty folder below a missing mount. None if nothing is mounted.
pub fn nomad_drop_in(request: &Request) -> Option<(&'static str, String)> {
    let disks = request.disks.iter().map(|disk| disk.mount_point.as_str());
    let mut points: Vec<&str> = disks
        .chain(request.efs.iter().map(|efs| efs.mount_point.as_str()))
        .collect();
    points.sort_unstable();
    let content = format!(
        "{HEADER}\n\
         [Unit]\n\
         # Jobs get these paths; an empty folder in the place of a disk that is not there would take their data.\n\
         RequiresMountsFor={}\n",
        points.join(" ")
    );
    (!points.is_empty()).then_some((NOMAD_DISKS_DROP_IN, content))
}

/// An absolute path as systemd writes it in a unit's name (systemd.unit(5), "string escaping"): the slashes at both
/// ends go, those within become hyphens; of the rest ASCII letters, digits, `:`, `_` and `.` stay, but a dot at
/// the beginning, and every other byte becomes `\x` and two digits.
pub fn escape_path(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.is_empty() {
        return "-".to_owned();
    }
    let mut escaped = String::new();
    for (index, byte) in parts.join("/").bytes().enumerate() {
        match byte {
            b'/' => escaped.push('-'),
            b'.' if index == 0 => escaped.push_str("\\x2e"),
            byte if byte.is_ascii_alphanumeric() || b":_.".contains(&byte) => escaped.push(char::from(byte)),
            byte => {
                let _ = write!(escaped, "\\x{byte:02x}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;

    use super::*;
    use crate::host::{Invocation, Programs, RealPrograms};
    use crate::node::disks::spec::{DiskSource, DiskSpec};
    use crate::node::disks::uuid::Uuid;

    fn entry(point: &str) -> MountEntry {
        MountEntry {
            what: What::Uuid(Uuid::of_disk("vol-1")),
            point: point.to_owned(),
            kind: "xfs".to_owned(),
            options: vec!["noatime".to_owned()],
        }
    }

    #[test]
    fn names_are_those_of_the_manual() {
        for (path, name) in [
            ("/", "-"),
            ("/data", "data"),
            ("/opt/nomad/data", "opt-nomad-data"),
            ("/mnt/my-disk", "mnt-my\\x2ddisk"),
            ("/.hidden/.x", "\\x2ehidden-.x"),
            ("//a//b/", "a-b"),
            ("/a b", "a\\x20b"),
        ] {
            assert_eq!(escape_path(path), name);
        }
    }

    #[test]
    fn foreign_lines_of_fstab_stay_as_they_are() {
        let before = "/dev/vda1 / ext4 defaults 0 1\n\n  # spaces stay\n/dev/xvdf /data xfs defaults 0 0";
        let one = fstab(before, &[entry("/data")], &[]);
        assert!(
            one.starts_with(&format!("{before}\n{FSTAB_BEGIN}\nUUID=")),
            "{one}"
        );
        assert!(one.contains(" /data xfs noatime,nofail 0 0\n"), "{one}");
        assert_eq!(fstab(&one, &[entry("/data")], &[]), one);
        assert_eq!(fstab(&one, &[], &[]), format!("{before}\n"));
        assert_eq!(fstab(&one, &[], &["/data"]), one);
        assert_eq!(our_points(&one), ["/data"]);
        assert_eq!(our_points(before), [""; 0]);
        assert_eq!(
            fstab(&one, &[entry("/b")], &["/data"]).matches("UUID=").count(),
            2
        );
        assert_eq!(foreign_lines(&one, "/data"), [4]);
        assert_eq!(foreign_lines(&one, "/other"), [0; 0]);
        assert_eq!(fstab("", &[], &[]), "");
    }

    #[test]
    fn nomad_requires_every_mount() {
        let disk = |point: &str| DiskSpec::new(DiskSource::Device("/dev/sdf".to_owned()), point);
        let request = Request {
            disks: vec![disk("/z"), disk("/a")],
            ..Request::default()
        };
        let (path, content) = nomad_drop_in(&request).unwrap();
        assert!(path.starts_with("/etc/systemd/system/nomad.service.d/"));
        assert!(content.ends_with("RequiresMountsFor=/a /z\n"), "{content}");
        assert!(nomad_drop_in(&Request::default()).is_none());
    }

    proptest! {
        /// Any text is kept; what was written is found and written again as it was.
        #[test]
        fn fstab_converges(before in "([ -~\t]{0,20}\n?){0,5}") {
            let once = fstab(&before, &[entry("/a"), entry("/b")], &[]);
            prop_assert_eq!(&fstab(&once, &[entry("/a"), entry("/b")], &[]), &once);
            let gone = fstab(&once, &[], &[]);
            let ended = format!("{before}\n");
            prop_assert!(gone == before || gone == ended);
        }
    }

    /// Our names and systemd's own, over paths of all printable characters.
    #[test]
    fn names_are_those_of_systemd_escape() {
        let asked = |arguments: Vec<&str>| {
            RealPrograms.run(&Invocation::new(
                "systemd-escape",
                arguments,
                std::time::Duration::from_secs(30),
            ))
        };
        if asked(vec!["--version"]).is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "systemd-escape is not installed"
            );
            eprintln!("SKIPPED: systemd-escape is not installed");
            return;
        }
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let part = "[ -.0-~]{1,8}";
        let path = prop::collection::vec(part, 1..5).prop_map(|parts| format!("/{}", parts.join("/")));
        let mut paths = vec![
            "/".to_owned(),
            "/data".to_owned(),
            "/ä/ö".to_owned(),
            "/a/./b".to_owned(),
        ];
        while paths.len() < 2000 {
            let path = path.new_tree(&mut runner).unwrap().current();
            // systemd refuses paths that go up.
            if !path.split('/').any(|part| part == "..") {
                paths.push(path);
            }
        }
        let mut arguments = vec!["--path", "--suffix=mount", "--"];
        arguments.extend(paths.iter().map(String::as_str));
        let answer = asked(arguments).unwrap();
        let ours: Vec<String> = paths
            .iter()
            .map(|path| format!("{}.mount", escape_path(path)))
            .collect();
        assert_eq!(answer.status, Some(0), "{}", answer.stderr);
        // Names hold no space of their own, so the answer is one name after the other.
        let theirs: Vec<&str> = answer.stdout.split_whitespace().collect();
        assert_eq!(ours.len(), theirs.len());
        for ((path, ours), theirs) in paths.iter().zip(&ours).zip(theirs) {
            assert_eq!(ours, theirs, "{path}");
        }
    }
}
