//! Owns the command line: what can be asked, in which words, and how results are shown.
//! Touches standard output and error; each command calls one room.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::builder::{self, Booted, BuilderError, Check, InstallReport, Machine, SealReport, VerifyReport};
use crate::ecr::{self, EcrLoginArguments};
use crate::error::AgentError;
use crate::host::{Files, RealPrograms};
use crate::node::cli::{ApplyArguments, HealthArguments};
use crate::node::commands::{CheckArguments, ExplainArguments, RenderArguments, SchemaArguments};
use crate::node::disks::cli::DisksArguments;
use crate::node::doctor::DoctorArguments;
use crate::node::drain::cli::{DrainArguments, EligibleArguments, LeaveArguments};
use crate::node::reconcile::ReconcileArguments;
use crate::node::report::ReportArguments;
use crate::node::shims::{Shim, ShimArguments};
use crate::node::watch::cli::WatchArguments;
use crate::output;

/// A program that this binary is under another name.
pub type Personality = fn(&[OsString]) -> ExitCode;

/// The names, and what each is. A link of the name in the bundle makes it one (`bake/src/bundle/layout.rs`).
const PERSONALITIES: &[(&str, Personality)] = &[(ecr::NAME, ecr::main)];

/// What the binary is when it is called as `program` (`argv[0]`); none for the agent itself.
pub fn personality(program: &OsStr) -> Option<Personality> {
    let name = Path::new(program).file_name()?;
    let (_, run) = PERSONALITIES.iter().find(|(known, _)| name == *known)?;
    Some(*run)
}

/// Installs, verifies and seals a COS image; configures, proves and drains a COS node.
#[derive(Debug, Parser)]
#[command(name = "cos-agent", version, propagate_version = false)]
#[command(
    after_help = "Exit codes: 0 done, 2 wrong usage or configuration, 4 verification failed, \
    6 a step failed, 7 boot test failed."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install the bundle of a payload volume, each byte checked on its way.
    #[command(
        after_help = "Example: cos-agent install --payload /dev/nvme1n1 --bundle-sha256 \
        9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --json"
    )]
    Install(InstallArguments),
    /// Check every installed file against the manifest; with --booted also that this machine is a new one.
    #[command(after_help = "Example: cos-agent verify --manifest-sha256 \
        9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --booted --sealed-identity \"$REPORT\"")]
    Verify(VerifyArguments),
    /// Remove everything that identifies this machine, as the last command of a bake; print its identity.
    #[command(after_help = "Example: cos-agent seal\n\n\
        The machine is good for nothing but an image afterwards. Sealing again changes nothing.")]
    Seal(SealArguments),
    /// Make this instance the node that its configuration describes: files, units, services.
    #[command(after_help = "Example: cos-agent apply --dry-run\n\n\
        Called by user-data; running it again changes only what is not as it should be.")]
    Apply(ApplyArguments),
    /// Put right what is no longer what it should be, as far as nothing has to start or stop for it; tell the rest.
    #[command(after_help = "Example: cos-agent reconcile --dry-run\n\n\
        The watcher calls it every quarter of an hour, by which rotated certificates and tokens reach the node.")]
    Reconcile(ReconcileArguments),
    /// Check node configurations without an instance.
    #[command(
        after_help = "Example: cos-agent check node.yaml\n         cos-agent check --over node.yaml node.d/50-pool.yaml\n\n\
        User-data is checked for the documents that it holds, in whatever way they are packed."
    )]
    Check(CheckArguments),
    /// Tell which source says what about this node, and what holds where none does.
    #[command(
        after_help = "Example: cos-agent explain consul\n         cos-agent explain --facts sample --config node.yaml"
    )]
    Explain(ExplainArguments),
    /// Print what the files of a node would hold.
    #[command(
        after_help = "Example: cos-agent render /opt/consul/config/cos.json\n         \
        cos-agent render all --config node.yaml --facts sample --versions consul=1.21.5,nomad=1.11.0"
    )]
    Render(RenderArguments),
    /// Do what `run-consul` of older images did.
    #[command(after_help = "Example: cos-agent run-consul --help")]
    RunConsul(ShimArguments),
    /// Do what `run-nomad` of older images did.
    #[command(after_help = "Example: cos-agent run-nomad --help")]
    RunNomad(ShimArguments),
    /// Print NodeConfig as JSON Schema, for editors and pipelines.
    #[command(after_help = "Example: cos-agent schema >node.schema.json")]
    Schema(SchemaArguments),
    /// Prove that this node does its work: members, leaders, drivers.
    #[command(after_help = "Example: cos-agent health --deadline 120s")]
    Health(HealthArguments),
    /// Give logins for ECR registries, as docker-credential-ecr-login does under its own name.
    #[command(after_help = "Example: cos-agent ecr-login get\n\n\
        Reads a registry's host from standard input; Docker and Nomad call it by a link of that name.")]
    EcrLogin(EcrLoginArguments),
    /// Show what every disk of this machine holds, or mount disks, formatting only what is blank.
    #[command(
        after_help = "Example: cos-agent disks --dry-run --map /dev/sdf=/data --map vol-0123456789abcdef0=/opt/nomad/data:ext4\n\n\
        Without --map: each disk, what it is, and what would be done with it and why."
    )]
    Disks(DisksArguments),
    /// Find out what is wrong with this node, and what puts it right.
    #[command(after_help = "Example: cos-agent doctor\n\n\
        Changes nothing, and ends within ten seconds. Exit code 0: nothing is wrong; 6: something is.")]
    Doctor(DoctorArguments),
    /// Show what the last `apply` did, and how long each part of it took.
    #[command(after_help = "Example: cos-agent report")]
    Report(ReportArguments),
    /// Watch for notices that this node must go, and see to it: the service cos-agent-watch.
    #[command(after_help = "Example: cos-agent watch --once\n\n\
        Without --once it runs until it is told to stop.")]
    Watch(WatchArguments),
    /// Have this node's jobs moved away, and take no more.
    #[command(
        after_help = "Example: cos-agent drain --deadline 10m --reason \"disk swap\"\n\n\
        The node stays so, also over a reboot, until cos-agent eligible."
    )]
    Drain(DrainArguments),
    /// Make this node eligible again after drain or leave.
    #[command(after_help = "Example: cos-agent eligible")]
    Eligible(EligibleArguments),
    /// Drain this node, then leave Nomad and Consul; a server only if quorum survives it.
    #[command(after_help = "Example: cos-agent leave --deadline 5m")]
    Leave(LeaveArguments),
    /// Print the version and the architecture.
    #[command(after_help = "Example: cos-agent version")]
    Version,
}

/// Arguments of `install`.
#[derive(Debug, Args)]
pub struct InstallArguments {
    /// Payload volume, or a file with the same bytes.
    #[arg(long, value_name = "DEVICE")]
    pub payload: PathBuf,
    /// SHA-256 of the bundle on the volume.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub bundle_sha256: String,
    /// Where and how.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// SHA-256 of the manifest, at /opt/cos/manifest.json.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    pub manifest_sha256: String,
    /// Also make the boot test's checks: new identity, no traces of the builder, docker works.
    #[arg(long, requires = "sealed_identity")]
    pub booted: bool,
    /// What `cos-agent seal` printed on the builder.
    #[arg(long, value_name = "JSON", requires = "booted")]
    pub sealed_identity: Option<String>,
    /// Where and how.
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of `seal`.
#[derive(Debug, Args)]
pub struct SealArguments {
    /// Where the machine's files are.
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    pub root: PathBuf,
    /// Print JSON. Always so; the option is there because the other commands have it.
    #[arg(long)]
    pub json: bool,
}

/// Arguments that several commands share.
#[derive(Debug, Args)]
pub struct Common {
    /// Where the machine's files are.
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    pub root: PathBuf,
    /// Print the report as one line of JSON on standard output.
    #[arg(long)]
    pub json: bool,
}

fn sha256(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err("a SHA-256 has 64 hexadecimal digits".to_owned())
    }
}

impl Command {
    /// Does what was asked.
    pub fn run(self) -> Result<(), AgentError> {
        match self {
            Self::Install(arguments) => Ok(install(&arguments)?),
            Self::Verify(arguments) => Ok(verify(&arguments)?),
            Self::Seal(arguments) => Ok(seal(&arguments)?),
            Self::Apply(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Reconcile(arguments) => Ok(arguments.run(&mut io::stdout())?),
            Self::Check(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::RunConsul(arguments) => {
                Ok(arguments.run(Shim::Consul, &mut io::stdout(), &mut io::stderr())?)
            }
            Self::RunNomad(arguments) => {
                Ok(arguments.run(Shim::Nomad, &mut io::stdout(), &mut io::stderr())?)
            }
            Self::Explain(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Render(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Schema(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Health(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::EcrLogin(arguments) => Ok(arguments.run()?),
            Self::Disks(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Doctor(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Report(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Watch(arguments) => {
                let socket = std::env::var("NOTIFY_SOCKET").ok();
                Ok(arguments.run(socket.as_deref(), &mut io::stdout(), &mut io::stderr())?)
            }
            Self::Drain(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Eligible(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Leave(arguments) => Ok(arguments.run(&mut io::stdout(), &mut io::stderr())?),
            Self::Version => {
                output::data(&format!(
                    "cos-agent {} {}",
                    env!("CARGO_PKG_VERSION"),
                    std::env::consts::ARCH
                ));
                Ok(())
            }
        }
    }
}

fn install(arguments: &InstallArguments) -> Result<(), BuilderError> {
    let files = Files::new(&arguments.common.root);
    let machine = Machine {
        files: &files,
        programs: &RealPrograms,
    };
    let report = builder::install(&machine, &arguments.payload, &arguments.bundle_sha256)?;
    say_installed(&report);
    if arguments.common.json {
        output::json(&report);
    }
    Ok(())
}

fn say_installed(report: &InstallReport) {
    for phase in &report.phases {
        output::talk(&format!("{:24} {:8.3} s", phase.name, phase.seconds));
    }
    for package in &report.packages {
        output::talk(&format!("installed {package} from the base's repositories"));
    }
    output::talk(&format!(
        "installed {} files ({} bytes), {} links; manifest {}",
        report.files, report.bytes, report.links, report.manifest_sha256
    ));
}

fn verify(arguments: &VerifyArguments) -> Result<(), BuilderError> {
    let files = Files::new(&arguments.common.root);
    let machine = Machine {
        files: &files,
        programs: &RealPrograms,
    };
    let booted = match arguments.sealed_identity.as_deref().filter(|_| arguments.booted) {
        Some(json) => {
            let sealed: SealReport = serde_json::from_str(json).map_err(BuilderError::SealedIdentity)?;
            Some(Booted { sealed })
        }
        None => None,
    };
    let report = builder::verify(&machine, &arguments.manifest_sha256, booted.as_ref())?;
    if arguments.common.json {
        output::json(&report);
    }
    say_verified(&report)
}

fn say_verified(report: &VerifyReport) -> Result<(), BuilderError> {
    let failed: Vec<&Check> = report.failed().collect();
    for check in &failed {
        output::talk(&format!(
            "failed: {}\n  expected: {}\n  found:    {}",
            check.name, check.expected, check.found
        ));
    }
    let total = report.checks.len();
    output::talk(&format!(
        "{} of {total} checks passed in {:.3} s",
        total - failed.len(),
        report.seconds
    ));
    if failed.is_empty() {
        return Ok(());
    }
    let failed = failed.iter().map(|check| check.name.clone()).collect();
    Err(BuilderError::Checks {
        failed,
        total,
        booted: report.booted,
    })
}

fn seal(arguments: &SealArguments) -> Result<(), BuilderError> {
    let files = Files::new(&arguments.root);
    let machine = Machine {
        files: &files,
        programs: &RealPrograms,
    };
    let report = builder::seal(&machine)?;
    output::talk(&format!(
        "sealed: {} traces removed in {:.3} s",
        report.removed, report.seconds
    ));
    for path in &report.kept {
        output::talk(&format!("kept until shutdown, for the running command: {path}"));
    }
    output::json(&report);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_has_help_and_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            let after = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                after.contains(&format!("Example: cos-agent {}", command.get_name())),
                "{}",
                command.get_name()
            );
        }
    }

    #[test]
    fn a_name_makes_a_program() {
        for program in [
            "docker-credential-ecr-login",
            "/usr/local/bin/docker-credential-ecr-login",
        ] {
            assert!(personality(OsStr::new(program)).is_some(), "{program}");
        }
        for program in ["cos-agent", "/opt/cos/bin/cos-agent", "", "/"] {
            assert!(personality(OsStr::new(program)).is_none(), "{program}");
        }
    }

    #[test]
    fn a_digest_must_be_one() {
        assert!(sha256(&"aB".repeat(32)).unwrap().starts_with("abab"));
        assert!(sha256("abc").is_err());
        assert!(sha256(&"g".repeat(64)).is_err());
    }
}
