//! Owns having big programs read from disk before they are started: a fresh volume fetches each page from afar when it
//! is first read, and does so while the metadata service answers. Touches nothing but the page cache.

use std::fs::File;
use std::thread;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::config::{Role, Roles};
use super::render::Product;
use crate::host::Files;

/// The kernel reads no more than this for one piece of advice (its readahead window, unless somebody raised it).
const PIECE: i64 = 128 * 1024;

/// Docker's programs, in the order in which they start.
const DOCKER: [&str; 2] = ["/opt/docker/bin/containerd", "/opt/docker/bin/dockerd"];

/// Has Consul read ahead: every node runs it.
pub(crate) fn consul(files: &Files) {
    ahead(files, &[Product::Consul.binary()]);
}

/// Has read ahead what else a node of these roles starts, in the order in which it does; not what it never runs, which
/// would only take the volume's bandwidth.
pub(crate) fn others(files: &Files, roles: &Roles) {
    let mut programs = Vec::new();
    if roles.has(Role::NomadClient) {
        programs.extend(DOCKER);
    }
    if roles.has_nomad() {
        programs.push(Product::Nomad.binary());
    }
    ahead(files, &programs);
}

/// Advises the kernel from a thread of its own, since advice on a slow volume may block. It is not waited for: what
/// was read ahead helps, and what was not is read when it is needed. A program that is not there is nobody's concern
/// here.
fn ahead(files: &Files, programs: &[&str]) {
    let paths: Vec<_> = programs.iter().map(|program| files.locate(program)).collect();
    thread::spawn(move || {
        for path in paths {
            if let Ok(file) = File::open(path) {
                advise(&file);
            }
        }
    });
}

/// Advises piece by piece, until the kernel refuses.
fn advise(file: &File) {
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let mut place = 0;
    while place < size {
        if posix_fadvise(file, place, PIECE, PosixFadviseAdvice::POSIX_FADV_WILLNEED).is_err() {
            return;
        }
        place += PIECE;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;

    /// Bytes of a file that are in the page cache.
    fn cached(path: &std::path::Path) -> Option<u64> {
        let told = Command::new("fincore")
            .args(["--bytes", "--noheadings", "--output", "RES"])
            .arg(path)
            .output()
            .ok()?;
        String::from_utf8_lossy(&told.stdout).trim().parse().ok()
    }

    #[test]
    fn what_was_not_in_memory_is_there_after_the_advice() {
        // Not /tmp, which may be memory itself.
        let mut file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let size = 8 * 1024 * 1024;
        file.write_all(&vec![7; size]).unwrap();
        file.as_file().sync_all().unwrap();
        posix_fadvise(file.as_file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        let size = size as u64;
        let Some(before) = cached(file.path()).filter(|before| *before < size) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have fincore, and a disk below /var/tmp"
            );
            eprintln!("SKIPPED: what_was_not_in_memory_is_there_after_the_advice: no fincore, or no disk");
            return;
        };
        let ahead = std::fs::File::open(file.path()).unwrap();
        advise(&ahead);
        let start = Instant::now();
        while cached(file.path()) != Some(size) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{before} bytes of {size} before, {:?} after",
                cached(file.path())
            );
        }
    }
}
