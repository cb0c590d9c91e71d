//! Owns finding the agent that goes into a bundle, and making sure that it can run there.
//! Touches the environment and the agent's file, for reading.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::on;
use crate::digest::Digest;
use crate::release::{Arch, ReleaseError};

/// An agent for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentBinary {
    /// The file.
    pub path: PathBuf,
    /// Who named it.
    pub origin: AgentOrigin,
}

/// Who named the agent's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentOrigin {
    /// `--agent PATH`.
    Argument,
    /// The environment variable of this name.
    Environment(&'static str),
    /// Nobody: it lies beside cos-bake, as after a development build.
    Beside,
}

impl AgentBinary {
    /// What the user should know, if the agent is not a release's own.
    pub fn notice(&self) -> Option<String> {
        let path = self.path.display();
        match self.origin {
            AgentOrigin::Argument => None,
            AgentOrigin::Environment(variable) => {
                Some(format!("the image gets the agent of {variable}: {path}"))
            }
            AgentOrigin::Beside => Some(format!(
                "this is a development build: the image gets the agent beside it, {path}"
            )),
        }
    }
}

impl fmt::Display for AgentBinary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.path.display(), formatter)
    }
}

/// Finds the agent for an architecture: `argument` (`--agent`), else the variable `COS_AGENT_X86_64` or
/// `COS_AGENT_ARM64`, else the file beside this program (`cos-agent-ARCH`, or `cos-agent` for this machine's).
pub fn agent_binary(arch: Arch, argument: Option<&Path>) -> Result<AgentBinary, ReleaseError> {
    let variable = match arch {
        Arch::X86_64 => "COS_AGENT_X86_64",
        Arch::Arm64 => "COS_AGENT_ARM64",
    };
    let named = std::env::var_os(variable).filter(|value| !value.is_empty());
    find(
        arch,
        argument,
        variable,
        named.map(PathBuf::from),
        std::env::current_exe().ok(),
    )
}

fn find(
    arch: Arch,
    argument: Option<&Path>,
    variable: &'static str,
    named: Option<PathBuf>,
    program: Option<PathBuf>,
) -> Result<AgentBinary, ReleaseError> {
    let chosen = argument.map(|path| (path.to_owned(), AgentOrigin::Argument));
    let chosen = chosen.or_else(|| named.map(|path| (path, AgentOrigin::Environment(variable))));
    if let Some((path, origin)) = chosen {
        check(&path, arch)?;
        return Ok(AgentBinary { path, origin });
    }
    let folder = program
        .as_deref()
        .and_then(Path::parent)
        .map(Path::to_owned)
        .unwrap_or_default();
    let mut beside = vec![folder.join(format!("cos-agent-{arch}"))];
    if is_native(arch) {
        beside.push(folder.join("cos-agent"));
    }
    if let Some(path) = beside.iter().find(|path| path.is_file()) {
        check(path, arch)?;
        return Ok(AgentBinary {
            path: path.clone(),
            origin: AgentOrigin::Beside,
        });
    }
    let looked = beside.iter().map(|path| path.display().to_string());
    let looked: Vec<_> = [variable.to_owned()].into_iter().chain(looked).collect();
    Err(ReleaseError::NoAgent {
        arch,
        looked: looked.join(", "),
    })
}

fn is_native(arch: Arch) -> bool {
    match arch {
        Arch::X86_64 => cfg!(target_arch = "x86_64"),
        Arch::Arm64 => cfg!(target_arch = "aarch64"),
    }
}

/// Digest and length of an agent, once its ELF header says that it runs on the architecture.
pub(super) fn check(path: &Path, arch: Arch) -> Result<(Digest, u64), ReleaseError> {
    let mut header = Vec::new();
    let file = File::open(path).map_err(on(path))?;
    (&file).take(20).read_to_end(&mut header).map_err(on(path))?;
    // ELF, 64 bits, little-endian; the machine is a 16-bit number at 18 (System V ABI, "ELF header").
    let reason = match (header.get(..6), header.get(18..20)) {
        (Some([0x7f, b'E', b'L', b'F', 2, 1]), Some(&[low, high])) => {
            match (u16::from_le_bytes([low, high]), arch) {
                (62, Arch::X86_64) | (183, Arch::Arm64) => None,
                (62, _) => Some("it is one for x86_64".to_owned()),
                (183, _) => Some("it is one for arm64".to_owned()),
                (other, _) => Some(format!("it is one for ELF machine {other}")),
            }
        }
        _ => Some("it is no 64-bit ELF file".to_owned()),
    };
    if let Some(reason) = reason {
        return Err(ReleaseError::WrongAgent {
            path: path.to_owned(),
            arch,
            reason,
        });
    }
    Digest::of_file(path).map_err(on(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::tests::elf;

    #[test]
    fn argument_goes_before_environment_and_environment_before_the_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, elf(Arch::X86_64, name.as_bytes())).unwrap();
            path
        };
        let (argument, named, beside) = (file("argument"), file("named"), file("cos-agent-x86_64"));
        let program = Some(folder.path().join("cos-bake"));
        let look =
            |argument: Option<&Path>, named| find(Arch::X86_64, argument, "VARIABLE", named, program.clone());
        let found = look(Some(&argument), Some(named.clone())).unwrap();
        assert_eq!((found.path, found.origin), (argument, AgentOrigin::Argument));
        let found = look(None, Some(named.clone())).unwrap();
        assert_eq!(
            (found.path, found.origin),
            (named, AgentOrigin::Environment("VARIABLE"))
        );
        let found = look(None, None).unwrap();
        assert!(found.notice().unwrap().contains("development build"));
        assert_eq!((found.path, found.origin), (beside.clone(), AgentOrigin::Beside));
        std::fs::remove_file(beside).unwrap();
        assert!(matches!(look(None, None), Err(ReleaseError::NoAgent { .. })));
    }

    #[test]
    fn an_agent_for_another_machine_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        for content in [
            elf(Arch::Arm64, b"x"),
            b"#!/bin/sh\n".to_vec(),
            b"\x7fELF".to_vec(),
            Vec::new(),
        ] {
            std::fs::write(&path, content).unwrap();
            assert!(matches!(
                check(&path, Arch::X86_64),
                Err(ReleaseError::WrongAgent { .. })
            ));
        }
    }
}
