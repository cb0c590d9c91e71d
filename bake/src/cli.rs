//! Owns the command line: clap types only.
//! Touches nothing.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};

use crate::base::Base;
use crate::lock::LOCK_NAME;
use crate::plan::is_bake_id;
use crate::release::Arch;

const EXIT_CODES: &str = "\
Exit codes:
  0 done · 2 wrong usage or configuration · 3 refused at plan · 4 verification failed
  5 the cloud refused or failed · 6 a step on the builder failed · 7 boot test failed
  8 leftovers remain · 130 interrupted";

/// Bakes Amazon machine images with Nomad, Consul, Docker and CNI, verified from release signature to booted file.
#[derive(Debug, Parser)]
#[command(name = "cos-bake", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bake an image.
    #[command(
        after_help = "Examples:\n  cos-bake ami --base al2023\n  cos-bake ami --base al2023 --arch arm64 --name nomad-1 --tag team=platform --json"
    )]
    Ami(BakeArguments),
    /// Show what `ami` would do, with every choice made. Changes nothing.
    #[command(after_help = "Example:\n  cos-bake plan --base al2 --json")]
    Plan(BakeArguments),
    /// Resolve and verify versions, and write them to cos.lock.
    #[command(after_help = "Examples:\n  cos-bake lock\n  cos-bake lock --nomad 1.11.0 --consul 1.21.0")]
    Lock(LockArguments),
    /// Remove what dead bakes left behind: by their ledgers on this machine, and by expired tags.
    #[command(
        after_help = "Examples:\n  cos-bake sweep\n  cos-bake sweep --dry-run\n  cos-bake sweep --bake-id cos-20261123081500-0a1b2c"
    )]
    Sweep(SweepArguments),
}

/// Arguments of `ami` and `plan`.
#[derive(Debug, Args)]
pub struct BakeArguments {
    /// Amazon Linux to bake on.
    #[arg(long, value_enum)]
    pub base: Base,
    /// Architecture: x86_64 or arm64.
    #[arg(long, default_value = "x86_64")]
    pub arch: Arch,
    /// Region; the profile's or AWS_REGION's where it is not named.
    #[arg(long)]
    pub region: Option<String>,
    /// Name of the image, 3 to 128 characters; made of base, architecture and time where it is not named.
    #[arg(long)]
    pub name: Option<String>,
    /// Tag of the image and its snapshots. May be repeated.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = key_value)]
    pub tags: Vec<(String, String)>,
    /// Instance type of builder and boot test.
    #[arg(long, env = "COS_INSTANCE_TYPE", value_parser = NonEmptyStringValueParser::new())]
    pub instance_type: Option<String>,
    /// Subnet of builder and boot test; a default subnet where it is not named.
    #[arg(long, env = "COS_SUBNET", value_parser = NonEmptyStringValueParser::new())]
    pub subnet: Option<String>,
    /// Security group of builder and boot test. May be repeated. No inbound rule is needed.
    #[arg(long = "security-group", value_name = "SG", value_parser = NonEmptyStringValueParser::new())]
    pub security_groups: Vec<String>,
    /// Instance profile of builder and boot test, with AmazonSSMManagedInstanceCore.
    #[arg(long, env = "COS_INSTANCE_PROFILE", value_parser = NonEmptyStringValueParser::new())]
    pub instance_profile: Option<String>,
    /// Size of the root volume in GiB; the base's where it is not named.
    #[arg(long, value_name = "GIB")]
    pub root_size: Option<u32>,
    /// Keep the payload snapshot for the next bake of the same bundle.
    #[arg(long)]
    pub keep_payload: bool,
    /// The agent's binary; COS_AGENT_X86_64 or COS_AGENT_ARM64, else the one beside cos-bake where it is not named.
    #[arg(long, value_name = "FILE")]
    pub agent: Option<PathBuf>,
    /// Print JSON on standard output.
    #[arg(long)]
    pub json: bool,
    /// Where releases come from.
    #[command(flatten)]
    pub releases: ReleaseArguments,
    /// Where ledgers are.
    #[command(flatten)]
    pub ledger: LedgerArgument,
}

/// Arguments of `lock`.
#[derive(Debug, Args)]
pub struct LockArguments {
    /// Version of Nomad; the newest stable one where it is not named.
    #[arg(long, value_name = "VERSION")]
    pub nomad: Option<String>,
    /// Version of Consul.
    #[arg(long, value_name = "VERSION")]
    pub consul: Option<String>,
    /// Version of Docker.
    #[arg(long, value_name = "VERSION")]
    pub docker: Option<String>,
    /// Version of the CNI plug-ins.
    #[arg(long, value_name = "VERSION")]
    pub cni: Option<String>,
    /// Take the newest versions of everything that is not named, whatever the lock says now.
    #[arg(long)]
    pub update: bool,
    /// Print JSON on standard output.
    #[arg(long)]
    pub json: bool,
    /// Where releases come from.
    #[command(flatten)]
    pub releases: ReleaseArguments,
}

/// Arguments of `sweep`.
#[derive(Debug, Args)]
pub struct SweepArguments {
    /// Region; the profile's or AWS_REGION's where it is not named.
    #[arg(long)]
    pub region: Option<String>,
    /// Only this bake, whether it expired or not.
    #[arg(long, value_name = "ID", value_parser = bake_id)]
    pub bake_id: Option<String>,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON on standard output.
    #[arg(long)]
    pub json: bool,
    /// Where ledgers are.
    #[command(flatten)]
    pub ledger: LedgerArgument,
}

/// Where releases come from, and which are locked.
#[derive(Debug, Args)]
pub struct ReleaseArguments {
    /// The lock file.
    #[arg(long, default_value = LOCK_NAME, value_name = "FILE")]
    pub lock: PathBuf,
    /// A mirror to download from instead of upstream (layout: _docs/architecture.md).
    #[arg(long, env = "COS_MIRROR", value_name = "URL")]
    pub mirror: Option<String>,
    /// An OpenPGP key to trust besides HashiCorp's. For tests and for mirrors that sign anew.
    #[arg(long, env = "COS_TRUST_KEY", value_name = "FILE")]
    pub trust_key: Option<PathBuf>,
    /// Folder of downloaded archives and built bundles; the user's cache folder where it is not named.
    #[arg(long, env = "COS_CACHE", value_name = "FOLDER")]
    pub cache: Option<PathBuf>,
}

/// Where ledgers are.
#[derive(Debug, Args)]
pub struct LedgerArgument {
    /// Folder of ledgers; the user's state folder where it is not named.
    #[arg(long, env = "COS_LEDGER", value_name = "FOLDER")]
    pub ledger: Option<PathBuf>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn bake_id(text: &str) -> Result<String, String> {
    if is_bake_id(text) {
        return Ok(text.to_owned());
    }
    Err("it has not the form of one, such as cos-20261123081500-0a1b2c".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_that_can_only_be_slips_are_refused() {
        for arguments in [
            ["sweep", "--bake-id", "cos-2026"],
            ["sweep", "--bake-id", "i-0123"],
            ["ami", "--instance-profile", ""],
            ["ami", "--subnet", ""],
            ["ami", "--cache", ""],
        ] {
            let error = Cli::command()
                .try_get_matches_from(["cos-bake"].into_iter().chain(arguments))
                .unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(arguments[1]), "{error}");
        }
    }
}
