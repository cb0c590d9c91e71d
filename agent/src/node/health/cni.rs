//! Owns whether the CNI plug-ins that Nomad's bridge networks need are there and run.
//! Touches the plug-ins: each is asked for its versions, which changes nothing.

use std::time::Duration;

use serde::Deserialize;

use super::failure::Failure;
use crate::host::{Files, Invocation, ProgramError, Programs};

/// Where the image has them, and where Nomad is told to look.
const FOLDER: &str = "/opt/cni/bin";
/// What a network of mode `bridge` is made of.
const NEEDED: [&str; 5] = ["bridge", "firewall", "host-local", "loopback", "portmap"];
const PATIENCE: Duration = Duration::from_secs(5);

/// What a plug-in answers to `CNI_COMMAND=VERSION`.
#[derive(Deserialize)]
struct Versions {
    #[serde(rename = "supportedVersions")]
    supported: Vec<String>,
}

pub(super) fn check(files: &Files, programs: &dyn Programs) -> Result<String, Failure> {
    let mut newest = None;
    for name in NEEDED {
        let path = files.locate(format!("{FOLDER}/{name}"));
        if !path.is_file() {
            return Err(broken(format!("there is no CNI plug-in {FOLDER}/{name}")));
        }
        let path = path.to_string_lossy();
        // By env(1): a program here takes arguments only.
        let invocation = Invocation::new("/usr/bin/env", ["CNI_COMMAND=VERSION", &path], PATIENCE);
        let said = programs.check(&invocation).map_err(|error| match error {
            ProgramError::Deadline { .. } => Failure::passing(error.to_string()),
            _ => broken(format!("the CNI plug-in {name} does not run: {error}")),
        })?;
        let versions: Versions = serde_json::from_str(&said.stdout).map_err(|error| {
            broken(format!(
                "the CNI plug-in {name} does not tell its versions: {error}"
            ))
        })?;
        newest = versions.supported.into_iter().next_back();
    }
    Ok(format!(
        "{} plug-ins run, CNI {}",
        NEEDED.len(),
        newest.unwrap_or_default()
    ))
}

/// They belong to the image: what is wrong with them stays wrong.
fn broken(reason: String) -> Failure {
    Failure::hard(reason).hint("cos-agent verify checks the image's files; bake it anew if one differs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::RealPrograms;

    fn machine(plug_in: &str) -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        for name in NEEDED {
            files
                .write_atomic(format!("{FOLDER}/{name}"), plug_in.as_bytes(), 0o755)
                .unwrap();
        }
        (folder, files)
    }

    const GOOD: &str = "#!/bin/sh\n[ \"$CNI_COMMAND\" = VERSION ] && \
                        echo '{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.4.0\",\"1.1.0\"]}'\n";

    #[test]
    fn plug_ins_that_answer_are_good() {
        let (_folder, files) = machine(GOOD);
        assert_eq!(check(&files, &RealPrograms).unwrap(), "5 plug-ins run, CNI 1.1.0");
    }

    #[test]
    fn what_is_missing_or_does_not_run_is_no_matter_of_waiting() {
        let (_folder, files) = machine(GOOD);
        files.remove("/opt/cni/bin/portmap").unwrap();
        let failure = check(&files, &RealPrograms).unwrap_err();
        assert_eq!(failure.reason, "there is no CNI plug-in /opt/cni/bin/portmap");
        assert!(failure.hard && failure.hint.is_some());
        for (text, word) in [
            ("#!/bin/sh\nexit 3\n", "does not run"),
            ("#!/bin/sh\necho x\n", "does not tell"),
        ] {
            let (_folder, files) = machine(text);
            let failure = check(&files, &RealPrograms).unwrap_err();
            assert!(failure.hard && failure.reason.contains(word), "{failure:?}");
        }
    }
}
