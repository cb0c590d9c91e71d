//! Owns the command `disks`: what every disk of the machine is, what would be done with it and why, and doing it.
//! Touches only the two streams it is given; the work is [`super::bring_up`]'s.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::bring_up::{self, Outcome};
use super::inventory::Inventory;
use super::observe::{Environment, Looked};
use super::plan::{Decision, MountPlan, Plan};
use super::spec::{DiskSource, DiskSpec, FileSystem, Format, Request};
use crate::host::{Files, RealPrograms};
use crate::node::NodeError;

/// Show what every disk of this machine holds, or mount disks, formatting only what is blank.
#[derive(Debug, Clone, Args)]
pub struct DisksArguments {
    /// Mount this disk there: SOURCE is a volume id, a device name, or `instance-store`; FS is xfs (default) or ext4.
    #[arg(long = "map", value_name = "SOURCE=MOUNT[:FS]", value_parser = parse_map)]
    pub maps: Vec<Map>,
    /// Refuse a blank disk instead of making a file system on it.
    #[arg(long)]
    pub never_format: bool,
    /// Leave file systems at the size they have.
    #[arg(long)]
    pub no_grow: bool,
    /// Join several instance-store disks as RAID 0.
    #[arg(long)]
    pub raid0: bool,
    /// Print what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Longest time to wait for disks that are not there.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
    /// Where the machine's files are.
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    pub root: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// One `--map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    source: String,
    mount_point: String,
    file_system: FileSystem,
}

fn parse_map(text: &str) -> Result<Map, String> {
    // A source may hold no `=`, a mount point may.
    let (source, target) = text.split_once('=').ok_or("SOURCE=MOUNT[:FS] has a `=`")?;
    let (mount_point, file_system) = match target.rsplit_once(':') {
        Some((point, "xfs")) => (point, FileSystem::Xfs),
        Some((point, "ext4")) => (point, FileSystem::Ext4),
        _ => (target, FileSystem::Xfs),
    };
    Ok(Map {
        source: source.to_owned(),
        mount_point: mount_point.to_owned(),
        file_system,
    })
}

/// What `disks` prints as JSON.
#[derive(Debug, Serialize)]
struct Survey<'a> {
    /// Whether anything was carried out.
    executed: bool,
    #[serde(flatten)]
    plan: &'a Plan,
}

impl DisksArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let files = Files::new(&self.root);
        let environment = Environment {
            files: &files,
            programs: &RealPrograms,
            deadline: if self.maps.is_empty() {
                Duration::ZERO
            } else {
                self.deadline
            },
        };
        if self.maps.is_empty() {
            return self.survey(&environment, out);
        }
        let request = self.request();
        if self.dry_run {
            let (_, plan) = bring_up::dry_run(&request, &environment)?;
            if self.json {
                print_json(
                    out,
                    &Survey {
                        executed: false,
                        plan: &plan,
                    },
                )?;
            } else {
                plan.mounts.iter().try_for_each(|mount| print_mount(out, mount))?;
                plan.steps
                    .iter()
                    .try_for_each(|planned| writeln!(out, "would {}", planned.step))?;
            }
            return Ok(bring_up::refused(&plan)?);
        }
        let report = bring_up::bring_up(&request, &environment, |planned| {
            // What was done counts, not whether somebody reads it.
            let _ = writeln!(talk, "{}", planned.step);
        })?;
        if self.json {
            print_json(out, &report)?;
        } else {
            report
                .plan
                .mounts
                .iter()
                .try_for_each(|mount| print_mount(out, mount))?;
            let done = report
                .steps
                .iter()
                .filter(|record| record.outcome == Outcome::Done)
                .count();
            writeln!(
                out,
                "{done} of {} steps done, {} formatted, {} ms",
                report.steps.len(),
                report.formatted(),
                report.milliseconds
            )?;
        }
        report.verdict()?;
        Ok(())
    }

    fn request(&self) -> Request {
        let disks = self.maps.iter().map(|map| {
            let source = if map.source.starts_with("vol-") {
                DiskSource::Volume(map.source.clone())
            } else if map.source == "instance-store" {
                DiskSource::InstanceStore { raid0: self.raid0 }
            } else {
                DiskSource::Device(map.source.clone())
            };
            DiskSpec {
                file_system: map.file_system,
                format: if self.never_format {
                    Format::Never
                } else {
                    Format::IfBlank
                },
                grow: !self.no_grow,
                ..DiskSpec::new(source, &map.mount_point)
            }
        });
        Request {
            disks: disks.collect(),
            efs: Vec::new(),
            whole: false,
        }
    }

    /// Each disk is judged as if the configuration named it: the same rules, the same words.
    fn survey(&self, environment: &Environment, out: &mut dyn Write) -> Result<(), NodeError> {
        let inventory = Inventory::read(environment.files);
        let devices = inventory.devices.iter();
        // Memory disks and compressed memory are no disks.
        let devices =
            devices.filter(|device| !device.name.starts_with("ram") && !device.name.starts_with("zram"));
        let request = |kinds: &[Option<FileSystem>]| Request {
            disks: devices
                .clone()
                .enumerate()
                .map(|(index, device)| DiskSpec {
                    file_system: kinds.get(index).copied().flatten().unwrap_or(FileSystem::Xfs),
                    ..DiskSpec::new(DiskSource::Device(device.path()), format!("/mnt/{}", device.name))
                })
                .collect(),
            efs: Vec::new(),
            whole: false,
        };
        let observed = super::observe::observe(&request(&[]), environment);
        let kind = |looked: &Looked| looked.evidence.file_system.as_ref().and_then(|found| found.kind);
        let kinds: Vec<Option<FileSystem>> = observed
            .disks
            .iter()
            .map(|disk| disk.looked.first().and_then(kind))
            .collect();
        let mut plan = super::plan::plan(&request(&kinds), &observed);
        plan.steps.clear();
        if self.json {
            return print_json(
                out,
                &Survey {
                    executed: false,
                    plan: &plan,
                },
            );
        }
        plan.mounts
            .iter()
            .try_for_each(|mount| print_disk(out, mount))
            .map_err(NodeError::Output)
    }
}

fn print_mount(out: &mut dyn Write, mount: &MountPlan) -> std::io::Result<()> {
    let device = mount.device.as_deref().filter(|device| *device != mount.source);
    let device = device.map_or(String::new(), |device| format!(" ({device})"));
    let verdict = match mount.decision {
        Decision::Keep => "is mounted",
        Decision::Mount => "mounted as it is",
        Decision::Format => "blank: formatted and mounted",
        Decision::Join => "joined first",
        Decision::Refuse => "NOT mounted",
        Decision::Missing => "MISSING",
    };
    writeln!(
        out,
        "{} at {}{device}: {verdict}",
        mount.source, mount.mount_point
    )?;
    print_reasons(out, mount)
}

fn print_reasons(out: &mut dyn Write, mount: &MountPlan) -> std::io::Result<()> {
    mount
        .reasons
        .iter()
        .try_for_each(|reason| writeln!(out, "  {reason}"))?;
    mount
        .notes
        .iter()
        .try_for_each(|note| writeln!(out, "  note: {note}"))
}

fn print_disk(out: &mut dyn Write, mount: &MountPlan) -> std::io::Result<()> {
    write!(out, "{}", mount.source)?;
    if let Some(Looked { device, evidence, .. }) = mount.looked.first() {
        write!(out, "  {}", size(device.size))?;
        let identity = &device.identity;
        for text in [
            Some(&identity.model).filter(|model| !model.is_empty()),
            identity.volume.as_ref(),
        ]
        .into_iter()
        .flatten()
        {
            write!(out, "  {text}")?;
        }
        if let Some(requested) = &identity.requested {
            write!(out, "  attached as {requested}")?;
        }
        if let Some(found) = &evidence.file_system {
            write!(out, "  {} {:?} {}", found.name, found.label, found.uuid)?;
        }
        if !device.mounts.is_empty() {
            return writeln!(out, ": mounted at {}", device.mounts.join(", "));
        }
    }
    let verdict = match mount.decision {
        Decision::Mount => "would be mounted as it is, never formatted",
        Decision::Format => "would be formatted if the configuration names it",
        _ => "would not be touched",
    };
    writeln!(out, ": {verdict}")?;
    print_reasons(out, mount)
}

fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| bytes >> shift > 0);
    unit.map_or(format!("{bytes} bytes"), |(shift, unit)| {
        let tenths = (u128::from(bytes) * 10) >> shift;
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    })
}

fn print_json(out: &mut dyn Write, value: &impl Serialize) -> Result<(), NodeError> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out).map_err(NodeError::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let map = parse_map("vol-0123=/data:ext4").unwrap();
        assert_eq!(
            (map.source.as_str(), map.mount_point.as_str(), map.file_system),
            ("vol-0123", "/data", FileSystem::Ext4)
        );
        let map = parse_map("/dev/sdf=/a=b:c").unwrap();
        assert_eq!(
            (map.mount_point.as_str(), map.file_system),
            ("/a=b:c", FileSystem::Xfs)
        );
        assert!(parse_map("/dev/sdf").is_err());
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(
            [size(0), size(512), size(1536 << 10), size(100 << 30)],
            ["0 bytes", "512 bytes", "1.5 MiB", "100.0 GiB"]
        );
    }
}
