//! Owns how a change that is not carried out is told: why it would be made, and what would be another in a file.
//! Touches files (reading). No secret is told: where one may be, its digest stands for it.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::unified;
use crate::host::{FileError, Files};
use crate::node::apply::{Change, Observed, ObservedFile};
use crate::node::disks::{self, Decision};
use crate::node::pipeline::Planned;
use crate::node::render::{self, CONSUL_CONFIGURATION, DesiredState, DesiredUnit, NOMAD_CONFIGURATION, Unit};

/// A change with its reason.
#[derive(Debug, Serialize)]
pub struct Told<'a> {
    /// The change.
    #[serde(flatten)]
    pub change: &'a Change,
    /// Why it is made.
    pub why: String,
    /// What is another in the file, as a unified diff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

impl Told<'_> {
    /// As people read it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let diff = self.diff.iter().flat_map(|diff| diff.lines());
        let first = format!("would {}: {}", self.change, self.why);
        [first]
            .into_iter()
            .chain(diff.map(|line| format!("    {line}")))
            .collect()
    }
}

/// Each change with its reason, in their order.
pub fn tell<'a>(planned: &'a Planned, files: &Files) -> Result<Vec<Told<'a>>, FileError> {
    let told = |change| {
        Ok(Told {
            why: why(change, &planned.desired, &planned.observed),
            diff: difference(change, &planned.observed, files)?.map(|diff| planned.redact(&diff)),
            change,
        })
    };
    planned.changes.0.iter().map(told).collect()
}

/// What happens to disks and why, as people read it: first what was decided for each mount point, then the steps.
pub(crate) fn disk_lines(plan: &disks::Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for mount in &plan.mounts {
        let device = mount
            .device
            .as_deref()
            .map_or(String::new(), |device| format!(" ({device})"));
        let decision = match mount.decision {
            Decision::Keep => "stays mounted",
            Decision::Mount => "is mounted",
            Decision::Format => "gets a file system, and is mounted",
            Decision::Join => "is joined of its disks, and then looked at",
            Decision::Refuse => "is left alone",
            Decision::Missing => "is not there",
        };
        lines.push(format!(
            "{} at {}{device}: {decision}",
            mount.source, mount.mount_point
        ));
        lines.extend(mount.reasons.iter().map(|reason| format!("    {reason}")));
        lines.extend(mount.notes.iter().map(|note| format!("    note: {note}")));
    }
    lines.extend(plan.steps.iter().map(|planned| format!("would {}", planned.step)));
    lines
}

/// Why a change is made, as the rest of a sentence about what it changes.
fn why(change: &Change, desired: &DesiredState, observed: &Observed) -> String {
    let seen = |unit: &Unit| observed.units.get(unit);
    let belongs = |unit: &Unit| !matches!(desired.units.get(unit), Some(DesiredUnit::Stopped) | None);
    match change {
        Change::Write {
            path,
            sha256,
            mode,
            uid,
            gid,
            ..
        } => match observed.files.get(path) {
            None => "it is not there".to_owned(),
            Some(seen) => differences(seen, sha256, *mode, (*uid, *gid)),
        },
        Change::MakeDirectory { path, .. } => match observed.directories.get(path) {
            None => "it is not there".to_owned(),
            Some(_) => "its owner or its mode is another".to_owned(),
        },
        Change::Link { path, .. } => match observed.links.get(path) {
            None => "it is not there".to_owned(),
            Some(target) => format!("it points to {target}"),
        },
        Change::MarkArriving => "it was never configured before".to_owned(),
        Change::Remove { .. } => "this node has no use for it".to_owned(),
        Change::Forget { unit } if belongs(unit) => "what it reads at its start changes".to_owned(),
        Change::Forget { .. } | Change::Stop { .. } | Change::Disable { .. } => {
            "this node has no use for it".to_owned()
        }
        Change::ReloadDefinitions => "a definition of a unit is not what it was".to_owned(),
        Change::Enable { unit } | Change::Start { unit } if seen(unit).is_none() => {
            "units of another root cannot be asked for".to_owned()
        }
        Change::Enable { .. } => "it does not start at boot".to_owned(),
        Change::Start { .. } => "it does not run".to_owned(),
        Change::Restart { unit } => match seen(unit).and_then(|seen| seen.started_with.as_ref()) {
            Some(_) => "it runs with another configuration or version".to_owned(),
            None => "it is not known what it runs with".to_owned(),
        },
        Change::ResetFailures { .. } => "it failed, and would not be started again".to_owned(),
        Change::Reload { .. } => "what it can read again changes".to_owned(),
        Change::Await { .. } => "it has yet to do its work".to_owned(),
        Change::Stamp { .. } => "so that the next run can tell whether it must be restarted".to_owned(),
    }
}

fn differences(seen: &ObservedFile, sha256: &str, mode: u32, owner: (u32, u32)) -> String {
    let mut differences = Vec::new();
    if seen.digest != sha256 {
        differences.push("its content is another".to_owned());
    }
    if seen.mode != mode {
        differences.push(format!("its mode is {:04o}", seen.mode));
    }
    if (seen.uid, seen.gid) != owner {
        differences.push(format!("it belongs to {}:{}", seen.uid, seen.gid));
    }
    differences.join(", ")
}

/// A unified diff; none where no content changes.
fn difference(change: &Change, observed: &Observed, files: &Files) -> Result<Option<String>, FileError> {
    let (path, new) = match change {
        Change::Write {
            path, mode, content, ..
        } => (path, Some((*mode, content.0.as_slice()))),
        Change::Remove { path } => (path, None),
        _ => return Ok(None),
    };
    let seen = observed.files.get(path);
    let old = match seen {
        Some(_) => files.read(path)?,
        None => None,
    };
    if old.as_deref() == new.map(|(_, content)| content) {
        return Ok(None);
    }
    // What one of the two hides, both hide.
    let mode = [seen.map(|seen| seen.mode), new.map(|(mode, _)| mode)]
        .into_iter()
        .flatten()
        .fold(0o777, |both, mode| both & mode);
    let side = |content: Option<&[u8]>| {
        content
            .map(|content| shown(path, mode, content))
            .unwrap_or_default()
    };
    let name = |there: bool| if there { path.as_str() } else { "/dev/null" };
    let (old_text, new_text) = (side(old.as_deref()), side(new.map(|(_, content)| content)));
    let names = (name(old.is_some()), name(new.is_some()));
    let text = unified::difference(&old_text, &new_text, names);
    Ok(Some(text))
}

/// What of a file may be seen: all of it if everybody may read it; of the products' configurations all but values that
/// are secrets; of others a digest.
pub(super) fn shown(path: &str, mode: u32, content: &[u8]) -> String {
    let text = match std::str::from_utf8(content) {
        Ok(text) if mode & 0o004 != 0 => return text.to_owned(),
        Ok(text) if [CONSUL_CONFIGURATION, NOMAD_CONFIGURATION].contains(&path) => text,
        _ => return format!("(sha256 {}, {} bytes)\n", render::digest(content), content.len()),
    };
    let mut masked = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        mask(line, &mut masked);
    }
    masked
}

/// A line of JSON or HCL with a digest in the place of each text that is, or looks like, a secret.
fn mask(line: &str, masked: &mut String) {
    let mut key = "";
    let mut rest = line;
    while let Some(start) = rest.find('"') {
        let (before, quoted) = rest.split_at(start + 1);
        masked.push_str(before);
        // The word before a `=` is HCL's key; JSON's key was the quoted text before.
        if let Some((name, _)) = before.trim_end_matches('"').trim_end().rsplit_once('=') {
            key = name.trim().rsplit([' ', '{', ',']).next().unwrap_or_default();
        }
        let end = end(quoted);
        let (value, behind) = quoted.split_at(end);
        let is_key = behind
            .get(1..)
            .is_some_and(|behind| behind.trim_start().starts_with([':', '=']));
        if is_key {
            key = value;
            masked.push_str(value);
        } else if is_secret_key(key) || looks_secret(value) {
            let _ = write!(masked, "sha256 {}", &render::digest(value.as_bytes())[..12]);
        } else {
            masked.push_str(value);
        }
        rest = behind;
        if let Some(behind) = rest.strip_prefix('"') {
            masked.push('"');
            rest = behind;
        }
    }
    masked.push_str(rest);
}

/// Where a quoted text ends.
fn end(quoted: &str) -> usize {
    let mut escaped = false;
    let end = quoted.find(|character| match character {
        '\\' => {
            escaped = !escaped;
            false
        }
        '"' => !std::mem::take(&mut escaped),
        _ => {
            escaped = false;
            false
        }
    });
    end.unwrap_or(quoted.len())
}

/// Keys of Consul and Nomad that hold secrets.
fn is_secret_key(key: &str) -> bool {
    const KEYS: [&str; 9] = [
        "encrypt",
        "agent",
        "agent_master",
        "agent_recovery",
        "default",
        "initial_management",
        "master",
        "replication",
        "license",
    ];
    KEYS.contains(&key)
        || ["token", "secret", "password"]
            .iter()
            .any(|word| key.contains(word))
}

/// A UUID, as tokens are, or the base64 of 16, 24 or 32 bytes, as gossip keys are.
fn looks_secret(value: &str) -> bool {
    let groups: Vec<&str> = value.split('-').collect();
    let hexadecimal = |group: &&str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    let uuid = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(hexadecimal);
    let key = matches!(value.len(), 24 | 32 | 44)
        && value.contains(|character: char| character.is_ascii_uppercase())
        && STANDARD.decode(value).is_ok();
    uuid || key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(text: &str) -> String {
        shown(CONSUL_CONFIGURATION, 0o640, text.as_bytes())
    }

    #[test]
    fn secrets_are_masked_and_the_rest_is_not() {
        let json = r#"{
  "datacenter": "eu-central-1",
  "encrypt": "hunter2",
  "retry_join": ["provider=aws tag_value=\"live servers\"", "192.0.2.1"],
  "acl": {"tokens": {"agent": "a", "default": "b"}, "default_policy": "deny"},
  "key_file": "/opt/consul/tls/key.pem"
}
"#;
        let shown = masked(json);
        assert_eq!(shown.lines().count(), json.lines().count());
        for kept in [
            "eu-central-1",
            r#"tag_value=\"live servers\"""#,
            "192.0.2.1",
            "deny",
            "key.pem",
        ] {
            assert!(shown.contains(kept), "{kept} is gone from\n{shown}");
        }
        for gone in ["hunter2", r#""a""#, r#""b""#] {
            assert!(!shown.contains(gone), "{gone} is in\n{shown}");
        }
        let hcl = "server {\n  encrypt = \"hunter2\"\n  enabled = true\n}\nconsul {\n  token = \"t\"\n  address = \"127.0.0.1:8500\"\n}\n";
        let shown = masked(hcl);
        assert!(!shown.contains("hunter2") && !shown.contains("\"t\""), "{shown}");
        assert!(shown.contains("127.0.0.1:8500"), "{shown}");
    }

    #[test]
    fn what_looks_like_a_secret_is_masked_under_any_key() {
        for secret in [
            "b1gs33cr-3t00-0000-0000-000000000000",
            "6b7d2f5e-5f3b-4a7f-9f53-1f2a3b4c5d6e",
            "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=",
        ] {
            let hidden = !masked(&format!("{{\"x\": \"{secret}\"}}")).contains(secret);
            assert_eq!(hidden, !secret.starts_with("b1gs"), "{secret}");
        }
    }

    #[test]
    fn each_mount_is_told_with_its_reasons() {
        let mount = |decision, reason: &str| disks::MountPlan {
            mount_point: "/data".to_owned(),
            source: "/dev/sdf".to_owned(),
            device: Some("/dev/nvme1n1".to_owned()),
            decision,
            reasons: vec![reason.to_owned()],
            notes: vec!["grown".to_owned()],
            entry: None,
            looked: Vec::new(),
        };
        let plan = disks::Plan {
            mounts: vec![
                mount(Decision::Refuse, "it holds LVM"),
                mount(Decision::Keep, "it is xfs"),
            ],
            steps: Vec::new(),
        };
        assert_eq!(
            disk_lines(&plan),
            [
                "/dev/sdf at /data (/dev/nvme1n1): is left alone",
                "    it holds LVM",
                "    note: grown",
                "/dev/sdf at /data (/dev/nvme1n1): stays mounted",
                "    it is xfs",
                "    note: grown",
            ]
        );
    }

    #[test]
    fn a_file_of_few_readers_is_told_by_its_digest() {
        assert_eq!(shown("/a", 0o644, b"open\n"), "open\n");
        let told = shown("/a", 0o600, b"hidden");
        assert!(
            told.starts_with("(sha256 ") && told.ends_with(", 6 bytes)\n"),
            "{told}"
        );
        assert!(shown(CONSUL_CONFIGURATION, 0o640, b"\xff").starts_with("(sha256 "));
    }

    proptest! {
        #[test]
        fn masking_any_text_does_not_panic(text in "\\PC{0,200}", noise in "[\"\\\\=: a{,\n]{0,60}") {
            masked(&text);
            masked(&noise);
        }

        #[test]
        fn a_secret_under_its_key_never_shows(secret in "[a-z]{6,12}", behind in "[ -~]{0,20}") {
            let json = serde_json::json!({"encrypt": format!("{secret}{behind}")}).to_string();
            prop_assert!(!masked(&json).contains(&secret), "{}", masked(&json));
        }
    }
}
