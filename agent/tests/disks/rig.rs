//! Owns what the tests here stand on: loop devices, sparse images, a root with the real /dev, /sys and /proc.
//! Touches temporary folders and loop devices, and gives all of it back.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cos_agent::host::{Files, Programs, RealPrograms};
use cos_agent::node::disks::{DiskSource, DiskSpec, Environment, FileSystem, Report, Request, bring_up};
use nix::libc;
use nix::unistd::{Whence, lseek};

/// Whether a test that needs root and loop devices can run; in CI it must.
pub(crate) fn can_run(test: &str) -> bool {
    let missing = if !nix::unistd::geteuid().is_root() {
        "root"
    } else if !Path::new("/dev/loop-control").exists() {
        "loop devices"
    } else {
        return true;
    };
    skip(test, missing);
    false
}

/// Whether these programs are there; in CI they must be.
pub(crate) fn has(test: &str, programs: &[&str]) -> bool {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let there = |program: &&&str| {
        folders
            .iter()
            .any(|folder| Path::new(folder).join(program).exists())
    };
    let missing = programs.iter().find(|program| !there(program));
    missing.is_none_or(|program| {
        skip(test, program);
        false
    })
}

#[expect(clippy::print_stderr, reason = "a test that does not run says so, loudly")]
fn skip(test: &str, missing: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "{test} needs {missing}, and in CI it must run"
    );
    eprintln!("SKIPPED: {test}: needs {missing}");
}

/// Runs a program; its output is the error if it fails.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!(
        "{program} {}: {}{}",
        arguments.join(" "),
        text(&output.stdout),
        text(&output.stderr)
    ))
}

/// As [`run`], by a shell.
pub(crate) fn shell(script: &str) -> Result<String, String> {
    run("sh", &["-euc", script])
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// Two at once find the same free device, and the second claims it for a moment from the first.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A loop device; it goes with this.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(crate) path: String,
}

impl Loop {
    /// Attaches an image.
    pub(crate) fn attach(image: &Path) -> Self {
        Self::attach_with(image, &[])
    }

    /// Attaches an image with options of losetup.
    pub(crate) fn attach_with(image: &Path, options: &[&str]) -> Self {
        let image = image.to_str().unwrap();
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut arguments = vec!["--find", "--show"];
        arguments.extend(options);
        arguments.push(image);
        Self {
            path: run("losetup", &arguments).unwrap(),
        }
    }

    /// As a configuration names it.
    pub(crate) fn source(&self) -> DiskSource {
        DiskSource::Device(self.path.clone())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = run("losetup", &["--detach", &self.path]);
        if let Err(error) = detached
            && !std::thread::panicking()
        {
            panic!("{error}");
        }
    }
}

/// An empty sparse image.
pub(crate) fn sparse(path: &Path, mebibytes: u64) {
    File::create(path).unwrap().set_len(mebibytes << 20).unwrap();
}

/// The parts of a file that are not holes, as offset and length.
pub(crate) fn extents(file: &File) -> Vec<(u64, u64)> {
    let size = file.metadata().unwrap().len();
    let mut extents = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(start) = lseek(file, libc::off_t::try_from(at).unwrap(), Whence::SeekData) else {
            break;
        };
        let end = lseek(file, start, Whence::SeekHole).unwrap();
        extents.push((u64::try_from(start).unwrap(), u64::try_from(end - start).unwrap()));
        at = u64::try_from(end).unwrap();
    }
    extents
}

/// Copies a sparse image without its holes.
pub(crate) fn copy_sparse(from: &Path, to: &Path) {
    let (from, to) = (File::open(from).unwrap(), File::create(to).unwrap());
    to.set_len(from.metadata().unwrap().len()).unwrap();
    each_piece(&from, |offset, bytes| to.write_all_at(bytes, offset).unwrap());
}

/// Size, and a digest of everything that is not zero: holes and zeros are the same.
pub(crate) fn digest(image: &Path) -> (u64, u64) {
    let file = File::open(image).unwrap();
    let mut hasher = DefaultHasher::new();
    each_piece(&file, |offset, bytes| {
        for (index, block) in bytes.chunks(512).enumerate() {
            if block.iter().any(|byte| *byte != 0) {
                (offset / 512 + index as u64, block).hash(&mut hasher);
            }
        }
    });
    (file.metadata().unwrap().len(), hasher.finish())
}

/// Whether an image holds nothing at all.
pub(crate) fn is_zero(image: &Path) -> bool {
    let mut zero = true;
    each_piece(&File::open(image).unwrap(), |_, bytes| {
        zero &= bytes.iter().all(|byte| *byte == 0);
    });
    zero
}

fn each_piece(file: &File, mut visit: impl FnMut(u64, &[u8])) {
    let mut buffer = vec![0; 256 << 10];
    for (offset, length) in extents(file) {
        let mut done = 0;
        while done < length {
            let piece = usize::try_from((length - done).min(buffer.len() as u64)).unwrap();
            file.read_exact_at(&mut buffer[..piece], offset + done).unwrap();
            visit(offset + done, &buffer[..piece]);
            done += piece as u64;
        }
    }
}

/// Writes bytes into an image.
pub(crate) fn poke(image: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new()
        .write(true)
        .open(image)
        .unwrap()
        .write_all_at(bytes, offset)
        .unwrap();
}

/// Makes a range of an image zero again.
pub(crate) fn punch(image: &Path, offset: u64, length: u64) {
    use nix::fcntl::{FallocateFlags, fallocate};
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let file = OpenOptions::new().write(true).open(image).unwrap();
    let (offset, length) = (i64::try_from(offset).unwrap(), i64::try_from(length).unwrap());
    fallocate(&file, flags, offset, length).unwrap();
}

/// A root of its own with this machine's devices: mounts are made below it, files are written below it.
pub(crate) struct Root {
    pub(crate) files: Files,
    pub(crate) folder: PathBuf,
    _temporary: tempfile::TempDir,
}

impl Root {
    pub(crate) fn new() -> Self {
        // Reports are synced, and thousands of images are written and dropped: memory does it at once.
        let memory = Path::new("/dev/shm");
        let temporary = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        }
        .unwrap();
        let folder = temporary.path().join("root");
        fs::create_dir(&folder).unwrap();
        for name in ["dev", "sys", "proc"] {
            std::os::unix::fs::symlink(format!("/{name}"), folder.join(name)).unwrap();
        }
        Self {
            files: Files::new(&folder),
            folder,
            _temporary: temporary,
        }
    }

    /// Where images may lie.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        self.folder.parent().unwrap().join(name)
    }

    pub(crate) fn environment(&self) -> Environment<'_> {
        self.with(&RealPrograms)
    }

    pub(crate) fn with<'a>(&'a self, programs: &'a dyn Programs) -> Environment<'a> {
        Environment {
            files: &self.files,
            programs,
            // The tests beside this one start programs all the time, and each has our open files for a moment.
            deadline: Duration::from_secs(5),
        }
    }

    pub(crate) fn bring_up(&self, request: &Request) -> Report {
        bring_up(request, &self.environment(), |_| {}).unwrap()
    }

    /// A path below the root.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.files.locate(path)
    }

    /// Unmounts everything below the root, the last mount first, as a shutdown does.
    pub(crate) fn unmount_all(&self) {
        for point in self.mounts().iter().rev() {
            run("umount", &[point]).unwrap();
        }
    }

    /// What is mounted below the root, in the order of mounting.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let below = points.filter(|point| Path::new(point).starts_with(&self.folder));
        below.map(str::to_owned).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for point in self.mounts().iter().rev() {
            let _ = run("umount", &[point]);
        }
    }
}

/// A request for one disk.
pub(crate) fn one(device: &Loop, point: &str, file_system: FileSystem) -> Request {
    request(vec![DiskSpec {
        file_system,
        ..DiskSpec::new(device.source(), point)
    }])
}

pub(crate) fn request(disks: Vec<DiskSpec>) -> Request {
    Request {
        disks,
        efs: Vec::new(),
        whole: true,
    }
}

/// UUID and type as blkid has them.
pub(crate) fn blkid(device: &str) -> io::Result<(String, String)> {
    let tag = |tag: &str| run("blkid", &["-p", "-s", tag, "-o", "value", device]).map_err(io::Error::other);
    Ok((tag("TYPE")?, tag("UUID")?))
}
