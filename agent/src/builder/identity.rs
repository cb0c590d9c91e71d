//! Owns what tells one machine from another: machine-id, SSH host keys, instance ids in local state.
//! Touches files, read-only.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use super::digest::sha256;
use super::error::BuilderError;
use crate::host::Files;

/// Where systemd keeps the machine's identity.
pub(crate) const MACHINE_ID: &str = "/etc/machine-id";

const STEP: &str = "read the identity of this machine";

/// SHA-256 of the machine-id without its newline; none if there is none, or it is empty.
/// The id itself never leaves the machine: machine-id(5) asks to keep it confidential.
pub(crate) fn machine_id_sha256(files: &Files) -> Result<Option<String>, BuilderError> {
    let content = files
        .read(MACHINE_ID)
        .map_err(BuilderError::file(STEP))?
        .unwrap_or_default();
    let id = content.trim_ascii();
    Ok((!id.is_empty()).then(|| sha256(id)))
}

/// Fingerprints of the SSH host keys as `ssh-keygen -l` prints them, sorted.
pub(crate) fn ssh_host_key_fingerprints(files: &Files) -> Result<Vec<String>, BuilderError> {
    let mut fingerprints = Vec::new();
    for name in files.entries("/etc/ssh").map_err(BuilderError::file(STEP))? {
        if !name.starts_with("ssh_host_") || !name.ends_with("_key.pub") {
            continue;
        }
        let path = format!("/etc/ssh/{name}");
        let content = files
            .read(&path)
            .map_err(BuilderError::file(STEP))?
            .unwrap_or_default();
        fingerprints.extend(fingerprint(&String::from_utf8_lossy(&content)));
    }
    fingerprints.sort();
    Ok(fingerprints)
}

/// Fingerprint of a public key line such as `ssh-ed25519 AAAA… comment`; none if it is no such line.
fn fingerprint(line: &str) -> Option<String> {
    let key = STANDARD.decode(line.split_whitespace().nth(1)?).ok()?;
    Some(format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key))))
}

/// Instance ids under which cloud-init and the SSM agent keep state, sorted, each once.
pub(crate) fn instance_ids(files: &Files) -> Result<Vec<String>, BuilderError> {
    let mut ids = files
        .entries("/var/lib/cloud/instances")
        .map_err(BuilderError::file(STEP))?;
    let ssm = files
        .entries("/var/lib/amazon/ssm")
        .map_err(BuilderError::file(STEP))?;
    ids.extend(
        ssm.into_iter()
            .filter(|name| name.starts_with("i-") || name.starts_with("mi-")),
    );
    ids.sort();
    ids.dedup();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_that_of_ssh_keygen() {
        // Made once with `ssh-keygen -t ed25519`, fingerprint as `ssh-keygen -lf` printed it.
        let line = include_str!("../../tests/host-key/ssh_host_ed25519_key.pub");
        let expected = include_str!("../../tests/host-key/fingerprint");
        assert_eq!(fingerprint(line).unwrap(), expected.trim());
        assert_eq!(fingerprint("ssh-ed25519"), None);
    }
}
