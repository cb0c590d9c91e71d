//! Owns sandboxes between commands: the files that say which process one is and where it answers, its start in the
//! background, its end. Touches the state folder and the sandbox's process.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

/// How long a start may take: base disks may have to be made first.
const START: Duration = Duration::from_mins(30);
/// How long an orderly end may take before it is one by force.
const END: Duration = Duration::from_mins(1);

/// The process that is a sandbox, from the first moment of its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    number: i32,
    /// Start time in clock ticks since boot, so that a reused number is not taken for it.
    born: u64,
}

impl Process {
    fn own() -> Self {
        let number = nix::unistd::getpid().as_raw();
        Self {
            number,
            born: born(number).unwrap_or_default(),
        }
    }

    /// Writes down that this process is the sandbox of the folder, so that it can be ended before it answers.
    pub fn keep(folder: &Path) -> Result<()> {
        write(folder, PROCESS, &Self::own())
    }

    /// The process of the folder's sandbox, if it lives.
    pub fn find(folder: &Path) -> Option<Self> {
        let process: Self = read(folder, PROCESS)?;
        process.lives().then_some(process)
    }

    fn lives(self) -> bool {
        born(self.number) == Some(self.born)
    }
}

/// What a sandbox that answers writes down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Session {
    /// Its process.
    pub process: Process,
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
        Self {
            process: Process::own(),
            address,
            region: region.to_owned(),
            mirror: mirror.map(Path::to_owned),
        }
    }

    /// The session of a sandbox, if its process lives.
    pub fn find(folder: &Path) -> Option<Self> {
        let session: Self = read(folder, SESSION)?;
        session.process.lives().then_some(session)
    }

    /// Writes it down, as the last step of a start.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        write(folder, SESSION, self)
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
            .map(|(name, value)| export_line(name, &value))
            .collect()
    }
}

/// A line that gives a shell a variable.
pub fn export_line(name: &str, value: &str) -> String {
    format!("export {name}={}", quoted(value))
}

fn quoted(value: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./:=".contains(it);
    if value.chars().all(plain) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\'', r"'\''"))
    }
}

/// The name and value of a line that [`export_line`] made; none of another line.
pub fn export(line: &str) -> Option<(String, String)> {
    let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
    let quoted = value
        .strip_prefix('\'')
        .and_then(|value| value.strip_suffix('\''));
    let value = quoted.map_or_else(|| value.to_owned(), |value| value.replace(r"'\''", "'"));
    Some((name.to_owned(), value))
}

/// File that names the process, from the start on.
const PROCESS: &str = "process.json";
/// File that says where the sandbox answers.
const SESSION: &str = "sandbox.json";

fn read<T: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    serde_json::from_str(&fs::read_to_string(folder.join(name)).ok()?).ok()
}

fn write(folder: &Path, name: &str, what: &impl Serialize) -> Result<()> {
    let (path, part) = (folder.join(name), folder.join(format!(".{name}")));
    fs::write(&part, serde_json::to_vec_pretty(what)?)
        .and_then(|()| fs::rename(&part, &path))
        .with_context(|| format!("{} cannot be written", path.display()))
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
/// meanwhile goes to `say`. If that takes too long, or `interrupted` comes first, the process is ended again.
pub async fn detach(
    folder: &Path,
    arguments: &[String],
    say: impl FnMut(&str),
    interrupted: impl Future<Output = ()>,
) -> Result<Session> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let _ = fs::remove_file(folder.join(SESSION));
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
    let failed = tokio::select! {
        answered = answers(&mut child, folder, &log_path, say) => match answered {
            Ok(session) => return Ok(session),
            Err(error) => error,
        },
        () = interrupted => anyhow::anyhow!(super::real::INTERRUPTED),
    };
    end_child(&mut child).await;
    Err(failed)
}

/// Waits until the child's sandbox answers, and hands on what it says.
async fn answers(
    child: &mut Child,
    folder: &Path,
    log_path: &Path,
    mut say: impl FnMut(&str),
) -> Result<Session> {
    let begun = Instant::now();
    let mut log = File::open(log_path)?;
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
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Tells a child to end, waits until it has cleaned up, and kills it if that takes too long.
async fn end_child(child: &mut Child) {
    let process = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(process) = process {
        let _gone = kill(Pid::from_raw(process), Signal::SIGTERM);
    }
    if tokio::time::timeout(END, child.wait()).await.is_err() {
        let _gone = child.kill().await;
    }
}

/// Ends the process of a sandbox, in order if it can. Says whether there was one.
pub fn end(folder: &Path) -> Result<bool> {
    let Some(process) = Process::find(folder) else {
        return Ok(false);
    };
    let number = Pid::from_raw(process.number);
    for (signal, patience) in [(Signal::SIGTERM, END), (Signal::SIGKILL, Duration::from_secs(10))] {
        match kill(number, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("process {number} of the sandbox cannot be ended"));
            }
        }
        let begun = Instant::now();
        while begun.elapsed() < patience {
            if !process.lives() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    bail!("process {number} of the sandbox does not end")
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
    for name in [SESSION, PROCESS, "plugin.sock"] {
        let _ = fs::remove_file(folder.join(name));
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
        assert_eq!(
            exports.iter().filter_map(|line| export(line)).next_back(),
            Some(("COS_TRUST_KEY".to_owned(), "/m n/test-key.asc".to_owned()))
        );
        session.process.born += 1;
        session.keep(folder.path()).unwrap();
        assert!(Session::find(folder.path()).is_none());
    }

    #[test]
    fn an_export_is_read_as_it_was_written() {
        for value in ["", "a=b", "it's", "two words", "'"] {
            let line = export_line("NAME", value);
            assert_eq!(
                export(&line),
                Some(("NAME".to_owned(), value.to_owned())),
                "{line}"
            );
        }
        assert_eq!(export("PATH=/bin"), None);
    }

    #[test]
    fn a_sandbox_that_does_not_answer_yet_is_ended_too() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!end(folder.path()).unwrap());
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let number = i32::try_from(child.id()).unwrap();
        let process = Process {
            number,
            born: born(number).unwrap(),
        };
        write(folder.path(), PROCESS, &process).unwrap();
        assert!(end(folder.path()).unwrap());
        assert!(!child.wait().unwrap().success());
        assert!(Process::find(folder.path()).is_none());
    }
}
