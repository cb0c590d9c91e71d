//! Owns the answer to who runs this program: Run Command, and as which command, or somebody else.
//! Touches `/proc`, read-only.

use super::machine::Machine;

/// Whether Run Command runs this program, and as which command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RunCommand {
    /// No: everything of the SSM agent can go.
    None,
    /// Yes, as the command of this id.
    Id(String),
    /// Yes, but its id cannot be told from the processes above this one.
    Unknown,
}

/// Looks at the processes above this one; in a tree of files nothing runs.
pub(crate) fn running_command(machine: &Machine<'_>) -> RunCommand {
    if machine.is_running() {
        command_of(&clues())
    } else {
        RunCommand::None
    }
}

/// What may tell who runs this program: where its output goes, and the command lines of the processes above
/// it, nearest first.
fn clues() -> Vec<String> {
    let processes = crate::host::Files::new("/proc");
    let output = ["/self/fd/1", "/self/fd/2", "/self/cwd"];
    let mut clues: Vec<String> = output
        .iter()
        .filter_map(|path| processes.link_target(path).ok().flatten())
        .collect();
    let mut process = nix::unistd::getppid().as_raw();
    while process > 1 && clues.len() < 64 {
        let line = processes
            .read(format!("/{process}/cmdline"))
            .ok()
            .flatten()
            .unwrap_or_default();
        clues.push(String::from_utf8_lossy(&line).replace('\0', " "));
        let status = processes
            .read(format!("/{process}/status"))
            .ok()
            .flatten()
            .unwrap_or_default();
        let parent = String::from_utf8_lossy(&status).lines().find_map(|line| {
            line.strip_prefix("PPid:")
                .and_then(|number| number.trim().parse().ok())
        });
        process = parent.unwrap_or(0);
    }
    clues
}

/// The SSM agent starts a script as `sh -c …/document/orchestration/COMMAND-ID/…/_script.sh` below
/// `ssm-document-worker COMMAND-ID`, its output beside the script. A script that ends in `exec` is itself gone.
fn command_of(clues: &[String]) -> RunCommand {
    let script = |clue: &String| {
        let (_, rest) = clue.split_once("/document/orchestration/")?;
        rest.split('/').next().filter(|id| is_id(id)).map(str::to_owned)
    };
    let worker = |clue: &String| {
        let (_, rest) = clue.split_once("ssm-document-worker ")?;
        rest.split_whitespace()
            .next()
            .filter(|id| is_id(id))
            .map(str::to_owned)
    };
    match clues
        .iter()
        .find_map(script)
        .or_else(|| clues.iter().find_map(worker))
    {
        Some(id) => RunCommand::Id(id),
        None if clues.iter().any(|clue| clue.contains("ssm-document-worker")) => RunCommand::Unknown,
        None => RunCommand::None,
    }
}

/// Command ids are UUIDs.
fn is_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_told_from_the_processes_above() {
        let id = "7d2f1c3e-1b2c-4d5e-8f90-a1b2c3d4e5f6";
        let script = format!(
            "sh -c /var/lib/amazon/ssm/i-0b/document/orchestration/{id}/awsrunShellScript/0/_script.sh "
        );
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let worker = format!("/usr/bin/ssm-document-worker {id} ");
        let unknown = "/usr/bin/ssm-document-worker --other words ";
        assert_eq!(
            command_of(&lines(&["sh x", &script, unknown])),
            RunCommand::Id(id.to_owned())
        );
        assert_eq!(
            command_of(&lines(&["pipe:[1]", &worker])),
            RunCommand::Id(id.to_owned())
        );
        assert_eq!(command_of(&lines(&["pipe:[1]", unknown])), RunCommand::Unknown);
        assert_eq!(command_of(&lines(&["-bash", "sshd: root"])), RunCommand::None);
        assert_eq!(
            command_of(&clues()),
            RunCommand::None,
            "the tests do not run under Run Command"
        );
    }
}
