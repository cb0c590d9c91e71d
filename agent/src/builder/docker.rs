//! Owns the proof that docker works on a machine: a container runs from an image made of the agent itself.
//! Touches docker's units, one image, one container, one file in `/run`; all are gone afterwards.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::AGENT_PATH;
use super::machine::Machine;
use super::report::Check;
use crate::error::one_line;

const NAME: &str = "docker";
const EXPECTED: &str = "a container runs `cos-agent --version` and prints the version";

/// The image's archive, for `docker import`.
const ARCHIVE: &str = "/run/cos-agent/self-test-image.tar";
const IMAGE: &str = "cos-agent-self-test:boot";

/// Longest time for docker's first start: it makes its storage, its bridge and its packet filter rules.
const START: Duration = Duration::from_mins(3);

/// Longest time for each docker command.
const COMMAND: Duration = Duration::from_mins(2);

/// Starts docker, runs a container, removes what it made, stops docker.
pub(crate) fn check(machine: &Machine<'_>) -> Check {
    let systemd = matches!(machine.files.mode("/run/systemd/system"), Ok(Some(_)));
    let units = |verb: &str| {
        let (program, arguments) = if systemd {
            ("systemctl", [verb, "docker.service"])
        } else {
            ("service", ["docker", verb])
        };
        machine.check(program, &arguments, START).map(|_| ())
    };
    let ran = match units("start") {
        Ok(()) => run_container(machine),
        Err(error) => Err(journal(machine, systemd, one_line(&error))),
    };
    let _ = machine.run("docker", &["image", "rm", "--force", IMAGE], COMMAND);
    let _ = machine.files.remove(ARCHIVE);
    let stopped = units("stop");
    if systemd {
        // Started because docker requires it, and not stopped with it.
        let _ = machine.run("systemctl", &["stop", "containerd.service"], START);
    }
    let expected_output = concat!("cos-agent ", env!("CARGO_PKG_VERSION"));
    match (ran, stopped) {
        (Err(reason), _) => Check::failed(NAME, EXPECTED, reason),
        (Ok(output), _) if output.trim() != expected_output => {
            Check::failed(NAME, format!("{EXPECTED}: `{expected_output}`"), output.trim())
        }
        (Ok(_), Err(error)) => Check::failed(NAME, "docker stops when told to", one_line(&error)),
        (Ok(_), Ok(())) => Check::none(NAME, EXPECTED, &[]),
    }
}

fn run_container(machine: &Machine<'_>) -> Result<String, String> {
    let archive = image_archive(machine).map_err(|error| format!("the image could not be made: {error}"))?;
    machine
        .files
        .write_atomic(ARCHIVE, &archive, 0o600)
        .map_err(|error| error.to_string())?;
    let docker = |arguments: &[&str]| {
        machine
            .check("docker", arguments, COMMAND)
            .map_err(|error| one_line(&error))
    };
    docker(&["import", ARCHIVE, IMAGE])?;
    Ok(docker(&["run", "--rm", IMAGE, "/cos-agent", "--version"])?.stdout)
}

/// An image's root file system: the agent, and the libraries that this very process of it has loaded.
fn image_archive(machine: &Machine<'_>) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        archive.append_data(&mut header, path, content)
    };
    add("cos-agent", &std::fs::read(machine.files.locate(AGENT_PATH))?)?;
    for library in libraries()? {
        let content = std::fs::read(&library)?;
        for name in names_of(&library)? {
            // The loader's path is in the binary: below /lib64 on x86_64, /lib on arm64. It searches both.
            add(&format!("lib/{name}"), &content)?;
            add(&format!("lib64/{name}"), &content)?;
        }
    }
    archive.into_inner()
}

/// Shared libraries in this process, the loader included; none if the agent is static.
fn libraries() -> io::Result<Vec<PathBuf>> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut libraries: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/') && path.contains(".so"))
        .map(PathBuf::from)
        .collect();
    libraries.sort();
    libraries.dedup();
    Ok(libraries)
}

/// Every name under which a library's folder has it: glibc 2.26 keeps `libc-2.26.so`, asked for as `libc.so.6`.
fn names_of(library: &Path) -> io::Result<Vec<String>> {
    let directory = library.parent().unwrap_or(Path::new("/"));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.to_string_lossy().contains(".so")
            && std::fs::canonicalize(&path).is_ok_and(|path| path == library)
        {
            names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Why docker did not start: the end of what it said.
fn journal(machine: &Machine<'_>, systemd: bool, error: String) -> String {
    let units = [
        "--no-pager",
        "-o",
        "cat",
        "-n",
        "20",
        "-u",
        "docker.service",
        "-u",
        "containerd.service",
    ];
    let said = if systemd {
        machine.run("journalctl", &units, COMMAND)
    } else {
        machine.run("tail", &["-n", "20", "/var/log/docker.log"], COMMAND)
    };
    match said {
        Ok(output) if !output.stdout.trim().is_empty() => {
            format!("{error}; it said: {}", output.stdout.trim())
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::sample::Tree;
    use super::*;

    /// The image's root file system must be enough for a program that is linked as the agent is. What is
    /// put in as the agent is this test program, which is.
    #[test]
    fn the_image_is_complete() {
        if !nix::unistd::getuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "CI must run this as root");
            eprintln!("SKIPPED: the_image_is_complete needs root for chroot");
            return;
        }
        let tree = Tree::new();
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        tree.files.write_atomic(AGENT_PATH, &program, 0o755).unwrap();
        let image = tempfile::tempdir().unwrap();
        let archive = image_archive(&tree.machine()).unwrap();
        tar::Archive::new(archive.as_slice())
            .unpack(image.path())
            .unwrap();
        let output = Command::new("chroot")
            .arg(image.path())
            .args(["/cos-agent", "--list"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(String::from_utf8_lossy(&output.stdout).contains("the_image_is_complete"));
    }

    #[test]
    fn the_image_carries_the_loader_and_libc_of_a_dynamic_agent() {
        let libraries = libraries().unwrap();
        if libraries.is_empty() {
            eprintln!("skipped: this test program is static");
            return;
        }
        let names: Vec<String> = libraries
            .iter()
            .flat_map(|library| names_of(library).unwrap())
            .collect();
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("ld-linux")), "{names:?}");
    }
}
