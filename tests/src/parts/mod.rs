//! Owns the mirror folder: real archives of the products that a bake installs, signed by a test key.
//! Touches a cache folder, Go's module proxy and Debian's archive; needs no root.
//!
//! The folder has the layout of `_docs/architecture.md`. The binaries are the real ones, built from the
//! products' own sources or taken from Debian, because the publishers' sites cannot be reached everywhere.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use crate::work_folder;

mod archive;
mod debian;
mod error;
mod golang;
mod layout;
mod run;
mod signing;

pub use debian::NEEDED_PACKAGES;
pub use error::PartsError;

/// Changes whenever the code of this module makes other archives from the same sources.
const FORMAT: &str = "cos-parts-1";

/// Where one line of progress goes.
pub type Say<'a> = &'a dyn Fn(&str);

/// A mirror folder that is complete.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// The folder to serve.
    pub folder: PathBuf,
    /// Public key that signed the digest lists: what `--trust-key` is given.
    pub trust_key: PathBuf,
    /// How long it took to make; none if it came from the cache.
    pub built_in: Option<Duration>,
}

/// Gives the mirror folder of this build's parts, and makes it in `cache` if it is not there.
///
/// The folder is named by a digest of its inputs and appears under that name only when it is complete.
/// `say` gets a line for each step. Fails if a tool is missing, a build fails, or a registry is unreachable.
pub fn prepare(cache: &Path, say: Say<'_>) -> Result<Mirror, PartsError> {
    let parts = cache.join("parts");
    let folder = parts.join(format!("mirror-{}", &digest()[..16]));
    let mirror = |built_in| Mirror {
        trust_key: folder.join("test-key.asc"),
        folder: folder.clone(),
        built_in,
    };
    if folder.is_dir() {
        return Ok(mirror(None));
    }
    if std::env::consts::ARCH != "x86_64" {
        return Err(PartsError::Machine(std::env::consts::ARCH));
    }
    let began = Instant::now();
    std::fs::create_dir_all(&parts).map_err(PartsError::io("make the folder", &parts))?;
    let held = lock(&parts, say)?;
    if folder.is_dir() {
        return Ok(mirror(None));
    }

    let programs = golang::build_all(golang::PROGRAMS, &parts, say)?;
    let docker = debian::docker(&parts, say)?;
    let signer = signing::Signer::load_or_make(&parts.join("test-key"), say)?;
    say("writing the archives");
    let work = work_folder::make(&parts, "mirror-making-");
    let work = work.map_err(PartsError::io("make a folder in", &parts))?;
    layout::write(work.path(), &programs, &docker, &signer)?;
    // Readable for whoever serves it: tempfile makes folders for their owner only.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(work.path(), open).map_err(PartsError::io("open", work.path()))?;
    std::fs::rename(work.path(), &folder).map_err(PartsError::io("publish", &folder))?;
    drop(held);
    say(&format!(
        "the mirror is ready ({:.0} s)",
        began.elapsed().as_secs_f64()
    ));
    Ok(mirror(Some(began.elapsed())))
}

/// Gives a folder of older Consuls and Nomads, `PRODUCT-VERSION/PRODUCT`, and makes it in `cache` if it is not there:
/// the agent's tests have their validators judge what it writes for them.
pub fn older_products(cache: &Path, say: Say<'_>) -> Result<PathBuf, PartsError> {
    let parts = cache.join("parts");
    let mut hash = Sha256::new();
    hash.update(debian::old_digest());
    for program in golang::OLDER {
        hash.update(program.digest());
    }
    let folder = parts.join(format!("products-{}", &hex(&hash.finalize())[..16]));
    if folder.is_dir() {
        return Ok(folder);
    }
    std::fs::create_dir_all(&parts).map_err(PartsError::io("make the folder", &parts))?;
    let held = lock(&parts, say)?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let work = work_folder::make(&parts, "products-making-");
    let work = work.map_err(PartsError::io("make a folder in", &parts))?;
    let place = |name: &str, version: &str| {
        let folder = work.path().join(format!("{name}-{version}"));
        std::fs::create_dir(&folder).map_err(PartsError::io("make the folder", &folder))?;
        Ok::<_, PartsError>(folder.join(name))
    };
    debian::old_consul(&parts, &place("consul", debian::OLD_CONSUL)?, say)?;
    for built in golang::build_all(golang::OLDER, &parts, say)? {
        let to = place(built.program.name, built.program.version)?;
        let from = built.executables.join(built.program.name);
        std::fs::copy(&from, to).map_err(PartsError::io("take", &from))?;
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(work.path(), open).map_err(PartsError::io("open", work.path()))?;
    std::fs::rename(work.path(), &folder).map_err(PartsError::io("publish", &folder))?;
    drop(held);
    Ok(folder)
}

/// Held by the process that makes parts.
fn lock(parts: &Path, say: Say<'_>) -> Result<Flock<std::fs::File>, PartsError> {
    let lock = parts.join("lock");
    let file = std::fs::File::create(&lock).map_err(PartsError::io("make the file", &lock))?;
    let held = Flock::lock(file, FlockArg::LockExclusiveNonblock).or_else(|(file, _)| {
        say("another process is making the parts: waiting for it");
        Flock::lock(file, FlockArg::LockExclusive)
    });
    held.map_err(|(_, errno)| PartsError::io("lock", &lock)(io::Error::from(errno)))
}

/// Digest of all that decides the mirror, but for the state of Debian's archive and the Go toolchain.
fn digest() -> String {
    let mut hash = Sha256::new();
    hash.update(FORMAT);
    for program in golang::PROGRAMS {
        hash.update(program.digest());
    }
    hash.update(debian::digest());
    hex(&hash.finalize())
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
