//! Owns the packet filter that dockerd needs: found, installed from the base's own repositories, or refused.
//! Touches the machine's package manager.
//!
//! Amazon Linux 2023 ships neither iptables nor nft; dockerd looks for a program named `iptables` and does
//! not start without one. The distribution's repositories are S3 buckets that a builder without internet
//! reaches through a gateway endpoint; packages are verified with the distribution's own key.

use std::time::Duration;

use super::error::BuilderError;
use super::machine::Machine;

/// Longest time for the package manager: metadata of Amazon Linux 2023 is some 30 MB.
const INSTALL_DEADLINE: Duration = Duration::from_mins(3);

/// Longest time to list what is installed.
const LIST_DEADLINE: Duration = Duration::from_mins(1);

const STEP: &str = "provide the packet filter (iptables) that docker needs";

/// Package managers, the newer first: Amazon Linux 2023 has a `yum` that is `dnf` by another name.
/// The last argument is the package whose files include a program named `iptables`.
const MANAGERS: [(&str, &[&[&str]]); 3] = [
    (
        "dnf",
        &[&[
            "dnf",
            "install",
            "-y",
            "--setopt=install_weak_deps=False",
            "iptables-nft",
        ]],
    ),
    ("yum", &[&["yum", "install", "-y", "iptables"]]),
    (
        "apt-get",
        &[
            &["apt-get", "-q", "update"],
            &[
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "-q",
                "install",
                "-y",
                "--no-install-recommends",
                "iptables",
            ],
        ],
    ),
];

/// Makes sure of a program named `iptables`; returns the packages that came for it.
pub(crate) fn ensure(machine: &Machine<'_>) -> Result<Vec<String>, BuilderError> {
    if machine.find_program("iptables").is_some() {
        return Ok(Vec::new());
    }
    let Some((_, commands)) = MANAGERS
        .iter()
        .find(|(name, _)| machine.find_program(name).is_some())
    else {
        let reason = "it is not installed, and none of dnf, yum, apt-get is there to install it".to_owned();
        return Err(BuilderError::Step {
            step: STEP.to_owned(),
            reason,
        });
    };
    let before = installed(machine)?;
    for command in *commands {
        machine
            .check(command[0], &command[1..], INSTALL_DEADLINE)
            .map_err(BuilderError::program(STEP))?;
    }
    if machine.find_program("iptables").is_none() {
        let reason = format!(
            "`{}` succeeded, but there is no program named iptables",
            commands[0].join(" ")
        );
        return Err(BuilderError::Step {
            step: STEP.to_owned(),
            reason,
        });
    }
    Ok(installed(machine)?
        .into_iter()
        .filter(|package| !before.contains(package))
        .collect())
}

/// Every installed package, sorted.
fn installed(machine: &Machine<'_>) -> Result<Vec<String>, BuilderError> {
    let arguments: (&str, &[&str]) = if machine.find_program("dpkg-query").is_some() {
        (
            "dpkg-query",
            &["-W", "-f=${Package}.${Architecture} ${Version}\\n"],
        )
    } else {
        (
            "rpm",
            &["-qa", "--qf", "%{NAME}.%{ARCH} %{VERSION}-%{RELEASE}\\n"],
        )
    };
    let listed = machine
        .check(arguments.0, arguments.1, LIST_DEADLINE)
        .map_err(BuilderError::program("list the installed packages"))?;
    let mut packages: Vec<String> = listed.stdout.lines().map(str::to_owned).collect();
    packages.sort();
    Ok(packages)
}
