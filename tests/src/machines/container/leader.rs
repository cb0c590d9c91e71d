//! Owns finding PID 1 of a container from outside, and reading how a process ended.
//! Touches `/proc` only.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// The number, in the host's eyes, of PID 1 of the container that `nspawn` runs; none before it runs systemd.
pub(super) fn of(nspawn: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .find(|pid| is_leader(*pid))
}

fn is_leader(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .unwrap_or_default();
    let first_inside =
        numbers.split_whitespace().count() > 1 && numbers.split_whitespace().last() == Some("1");
    // Before it becomes systemd it is still nspawn's own code that sets up the mounts.
    first_inside
        && status
            .lines()
            .next()
            .is_some_and(|line| line != "Name:\t(sd-inner)" && line.contains("systemd"))
        && !status.starts_with("Name:\tsystemd-nspawn")
}

/// Exit status as a shell tells it: a signal counts 128 on top.
pub(super) fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| signal + 128))
        .unwrap_or(-1)
}
