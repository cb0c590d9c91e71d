//! Owns sandboxes between commands: the file that says where one answers, its start in the background, its end.
//! Touches the state folder and the sandbox's process.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a start may take: base disks may have to be made first.
const START: Duration = Duration::from_mins(30);
/// How long an orderly end may take before it is one by force.
const END: Duration = Duration::from_mins(1);

/// What a sandbox that answers writes down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// Its process.
    pub process: i32,
    /// Start time of the process in clock ticks since boot, so that a reused number is not taken for it.
    pub born: u64,
    /// Where it answers.
    pub address: SocketAddr,
    /// Region of its base images.
    pub region: String,
    /// Folder of its mirror.
    pub mirror: Option<PathBuf>,
}

impl Session {
    /// The session of this process.
    pub fn of_this_process(address: SocketAddr, region: &str, mirror: Option<&Path>) -> Self {
        let process = i32::try_from(std::process::id()).unwrap_or_default();
        Self {
            process,
            born: born(process).unwrap_or_default(),
            address,
            region: region.to_owned(),
            mirror: mirror.map(Path::to_owned),
        }
    }

    /// The session of a sandbox, if its process lives.
    pub fn find(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(file(folder)).ok()?;
        let session: Self = serde_json::from_str(&text).ok()?;
        (born(session.process) == Some(session.born)).then_some(session)
    }

    /// Writes it down, as the last step of a start.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        let (path, part) = (file(folder), folder.join(".sandbox.json"));
        fs::write(&part, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&part, &path))
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// URL of the control API.
    pub fn control(&self) -> String {
        format!("http://{}/_sandbox", self.address)
    }

    /// Lines for `eval`, that make AWS's tools and COS's talk to it.
    pub fn exports(&self) -> Vec<String> {
        let mut exports = vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_REGION", self.region.clone()),
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("AWS_ACCESS_KEY_ID", "cos-sandbox".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "cos-sandbox".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            ("COS_SANDBOX", self.control()),
            // As in an account: without a role the SSM agent of a machine never comes online.
            ("COS_INSTANCE_PROFILE", "cos-builder".to_owned()),
        ];
        if let Some(mirror) = &self.mirror {
            exports.push(("COS_MIRROR", format!("{}/mirror", self.control())));
            exports.push(("COS_TRUST_KEY", mirror.join("test-key.asc").display().to_string()));
        }
        exports
            .into_iter()
            .map(|(name, value)| format!("export {name}={}", quoted(&value)))
            .collect()
    }
}

fn quoted(value: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./:=".contains(it);
    if value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("sandbox.json")
}

/// The sandbox's log.
pub fn log(folder: &Path) -> PathBuf {
    folder.join("sandbox.log")
}

/// Start time of a process that lives (field 22 of `/proc/PID/stat`); none for a zombie.
fn born(process: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Starts this program again in the background with `arguments`, and waits until its sandbox answers. What it says
/// meanwhile goes to `say`.
pub fn detach(folder: &Path, arguments: &[String], mut say: impl FnMut(&str)) -> Result<Session> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let _ = fs::remove_file(file(folder));
    let log_path = log(folder);
    let log_file =
        File::create(&log_path).with_context(|| format!("{} cannot be written", log_path.display()))?;
    let program = std::env::current_exe().context("this program's path is not known")?;
    // A session of its own, so that neither the end of a terminal nor its interrupt reaches it. The child leads no
    // process group yet, so setsid does not fork: it becomes the sandbox, and its number is the sandbox's.
    let mut child = Command::new("setsid")
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_file)
        .spawn()
        .context("setsid cannot be run")?;
    let begun = Instant::now();
    let mut log = File::open(&log_path)?;
    let mut pending = String::new();
    loop {
        let ended = child.try_wait()?;
        log.read_to_string(&mut pending)?;
        while let Some((line, rest)) = pending.split_once('\n') {
            say(line);
            pending = rest.to_owned();
        }
        if let Some(status) = ended {
            bail!("the sandbox ended at its start ({status}); the lines above say why");
        }
        if let Some(session) = Session::find(folder) {
            return Ok(session);
        }
        if begun.elapsed() > START {
            bail!(
                "the sandbox did not answer within {} min; its log is {}",
                START.as_secs() / 60,
                log_path.display()
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Ends the process of a sandbox, in order if it can. Says whether there was one.
pub fn end(folder: &Path) -> Result<bool> {
    let Some(session) = Session::find(folder) else {
        return Ok(false);
    };
    let process = Pid::from_raw(session.process);
    for (signal, patience) in [(Signal::SIGTERM, END), (Signal::SIGKILL, Duration::from_secs(10))] {
        match kill(process, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("process {process} of the sandbox cannot be ended"));
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if born(session.process) != Some(session.born) {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    bail!("process {process} of the sandbox does not end")
}

/// Keys of what a sandbox that does not run any more still holds on this host: the names of the fleet's records.
pub fn left_by_a_crash(folder: &Path) -> Vec<String> {
    let records = fs::read_dir(folder.join("held")).into_iter().flatten().flatten();
    let mut keys: Vec<String> = records
        .filter_map(|it| it.file_name().into_string().ok())
        .collect();
    keys.sort();
    keys
}

/// Removes what a sandbox wrote into its folder, but for its logs.
pub fn remove_files(folder: &Path) -> Result<()> {
    for name in ["disks", "plugin", "machines"] {
        let path = folder.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} cannot be removed", path.display()));
            }
            _ => {}
        }
    }
    for path in [file(folder), folder.join("plugin.sock")] {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// The last bytes of a log, from the start of a line.
pub fn tail(path: &Path, bytes: u64) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("there is no log at {}", path.display()))?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(if length > bytes {
        text.split_once('\n')
            .map_or(text.clone(), |(_, rest)| rest.to_owned())
    } else {
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lives_as_long_as_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut session =
            Session::of_this_process(([127, 0, 0, 1], 1).into(), "us-east-1", Some(Path::new("/m n")));
        session.keep(folder.path()).unwrap();
        assert_eq!(Session::find(folder.path()).unwrap().process, session.process);
        let exports = session.exports();
        assert!(
            exports.contains(&"export COS_MIRROR=http://127.0.0.1:1/_sandbox/mirror".to_owned()),
            "{exports:?}"
        );
        assert!(
            exports.contains(&"export COS_TRUST_KEY='/m n/test-key.asc'".to_owned()),
            "{exports:?}"
        );
        session.born += 1;
        session.keep(folder.path()).unwrap();
        assert!(Session::find(folder.path()).is_none());
    }
}
