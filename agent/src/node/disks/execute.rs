//! Owns carrying out one step: one effect, checked afterwards.
//! Touches disks by `mkfs`, `mdadm`, `mount`, `xfs_growfs`, `resize2fs`; files; systemd.

use std::ops::ControlFlow;
use std::time::Duration;

use super::error::StepError;
use super::evidence::{self, Objection};
use super::inventory::{BlockDevice, Inventory};
use super::observe::{self, Environment, Looked};
use super::spec::FileSystem;
use super::step::{DeviceRef, Step};
use super::units::{Keeper, MountEntry};
use super::uuid::Uuid;
use crate::error::one_line;
use crate::host::{Invocation, Output, ProgramError};
use crate::node::wait::{self, Backoff, WaitError};

/// mkfs writes little, but may discard a whole instance-store disk first.
const MAKE: Duration = Duration::from_mins(10);
/// systemd gives up on a device after 90 s; NFS tries for longer than that by itself.
const MOUNT: Duration = Duration::from_mins(3);
/// Growing ext4 by terabytes writes group tables.
const GROW: Duration = Duration::from_mins(10);
/// How long mkfs may go on refusing a blank disk.
const MOMENT: Duration = Duration::from_secs(5);
const QUICK: Duration = Duration::from_mins(1);

/// Carries out steps.
#[derive(Clone, Copy)]
pub struct Executor<'a> {
    environment: Environment<'a>,
    keeper: Keeper,
}

impl<'a> Executor<'a> {
    /// An executor for this machine.
    pub fn new(environment: Environment<'a>, keeper: Keeper) -> Self {
        Self { environment, keeper }
    }

    /// Looks again whether what a step will write on is still blank, and still the same: what the plan saw may be
    /// minutes old. Empty for steps that write on no disk.
    pub fn prove(&self, step: &Step) -> Result<Vec<Looked>, StepError> {
        let (devices, made_of): (&[DeviceRef], _) = match step {
            Step::Format { device, .. } => (std::slice::from_ref(device), device.slaves.as_slice()),
            Step::CreateArray { members } => (members, [].as_slice()),
            _ => return Ok(Vec::new()),
        };
        devices
            .iter()
            .map(|device| {
                let now = self.same(device)?;
                let looked = observe::look_at(&now, &self.environment);
                let objections = evidence::objections(&looked.device, &looked.evidence, made_of);
                if objections.is_empty() {
                    return Ok(looked);
                }
                Err(StepError::NotBlank {
                    path: device.path(),
                    objections,
                })
            })
            .collect()
    }

    /// Carries out a step. Steps that write on a disk are to be proved right before.
    pub fn carry_out(&self, step: &Step) -> Result<(), StepError> {
        let files = self.environment.files;
        match step {
            Step::CreateArray { members } => {
                let paths: Vec<String> = members.iter().map(|member| self.node(member)).collect();
                let count = format!("--raid-devices={}", members.len());
                // Without --run: mdadm asks where it finds anything on a disk, gets no answer, and makes nothing.
                let mut arguments = vec![
                    "--create",
                    "/dev/md/cos-instance-store",
                    "--metadata=1.2",
                    "--level=0",
                    "--name=cos-instance-store",
                    &count,
                ];
                arguments.extend(paths.iter().map(String::as_str));
                self.run(step, "mdadm", &arguments, MAKE).map(drop)
            }
            Step::AssembleArray { members, array } => {
                let paths: Vec<String> = members.iter().map(|member| self.node(member)).collect();
                let uuid = format!("--uuid={}", mdadm_uuid(*array));
                let mut arguments = vec!["--assemble", "/dev/md/cos-instance-store", &uuid];
                arguments.extend(paths.iter().map(String::as_str));
                self.run(step, "mdadm", &arguments, MAKE).map(drop)
            }
            Step::Format {
                device,
                file_system,
                uuid,
                label,
            } => self.format(step, device, *file_system, *uuid, label.as_deref()),
            Step::Write { path, content } => {
                let mode = files.mode(path)?.unwrap_or(0o644);
                Ok(files.write_atomic(path, content.as_bytes(), mode)?)
            }
            Step::Remove { path } => Ok(files.remove(path)?),
            Step::ReloadDefinitions => self.run(step, "systemctl", &["daemon-reload"], QUICK).map(drop),
            Step::Enable { unit } => self
                .run(step, "systemctl", &["enable", "--quiet", unit], QUICK)
                .map(drop),
            Step::Disable { unit } => self
                .run(step, "systemctl", &["disable", "--quiet", unit], QUICK)
                .map(drop),
            Step::MakeFolder { path } => Ok(files.make_directory(path, 0o755)?),
            Step::Mount { entry, device } => self.mount(step, entry, device.as_ref()),
            Step::Grow {
                device,
                file_system,
                mount_point,
            } => {
                self.same(device)?;
                let point = files.locate(mount_point).to_string_lossy().into_owned();
                match file_system {
                    FileSystem::Xfs => self.run(step, "xfs_growfs", &[&point], GROW),
                    FileSystem::Ext4 => self.run(step, "resize2fs", &[&self.node(device)], GROW),
                }
                .map(drop)
            }
            Step::SetAccess {
                mount_point,
                user,
                group,
                mode,
            } => {
                if let Some((old_user, old_group)) = files.owner(mount_point)? {
                    files.set_owner(mount_point, user.unwrap_or(old_user), group.unwrap_or(old_group))?;
                }
                // After the owner: changing that takes set-id bits away.
                mode.map_or(Ok(()), |mode| Ok(files.make_directory(mount_point, mode)?))
            }
        }
    }

    fn format(
        &self,
        step: &Step,
        device: &DeviceRef,
        file_system: FileSystem,
        uuid: Uuid,
        label: Option<&str>,
    ) -> Result<(), StepError> {
        let path = device.path();
        // Neither ever gets the option that overwrites: mkfs.xfs by itself refuses where it finds anything.
        let (program, set_uuid) = match file_system {
            FileSystem::Xfs => ("mkfs.xfs", ["-m".to_owned(), format!("uuid={uuid}")]),
            FileSystem::Ext4 => ("mkfs.ext4", ["-U".to_owned(), uuid.to_string()]),
        };
        let mut arguments = vec!["-q", &set_uuid[0], &set_uuid[1]];
        if let Some(label) = label {
            arguments.extend(["-L", label]);
        }
        let node = self.node(device);
        arguments.push(&node);
        self.patiently(step, Some(device), |again| {
            // Not without proof, at no attempt: the first was proved by whoever called.
            if again {
                self.prove(step)?;
            }
            self.run(step, program, &arguments, MAKE)
        })?;
        let now = self.same(device)?;
        let found = observe::look_at(&now, &self.environment).evidence.file_system;
        match found {
            Some(found) if found.uuid == uuid && found.kind == Some(file_system) && !found.unfinished => {
                Ok(())
            }
            _ => Err(StepError::NotMade { path, uuid }),
        }
    }

    fn mount(&self, step: &Step, entry: &MountEntry, device: Option<&DeviceRef>) -> Result<(), StepError> {
        if let Some(device) = device {
            self.same(device)?;
        }
        let files = self.environment.files;
        let point = files.locate(&entry.point).to_string_lossy().into_owned();
        self.patiently(step, device, |_| match self.keeper {
            Keeper::Systemd => {
                let unit = entry.unit();
                // A unit that failed before is not refused for having failed too often.
                let _ = self.run(step, "systemctl", &["reset-failed", &unit], QUICK);
                self.run(step, "systemctl", &["start", &unit], MOUNT)
            }
            Keeper::Fstab => {
                // Not as at boot: `nofail` would call it a success if there were no such disk, and a search by
                // UUID could take another disk than the one that was looked at.
                let options = entry.options.join(",");
                let source = device.map_or_else(|| entry.source(), |device| self.node(device));
                let mut arguments = vec!["-t", &entry.kind, &source, &point];
                if !options.is_empty() {
                    arguments.extend(["-o", &options]);
                }
                self.run(step, "mount", &arguments, MOUNT)
            }
        })?;
        let inventory = Inventory::read(files);
        match observe::mounted_at(&entry.point, files, &inventory) {
            Some(mount) if device.is_none_or(|device| device.number == mount.number) => Ok(()),
            _ => Err(StepError::NotMounted {
                mount_point: entry.point.clone(),
            }),
        }
    }

    /// Acts again for a moment while a disk is claimed. mkfs and mount refuse a disk that anybody has open for
    /// himself, be it a program that another thread just started, which has our own open file until it runs.
    fn patiently(
        &self,
        step: &Step,
        device: Option<&DeviceRef>,
        mut act: impl FnMut(bool) -> Result<Output, StepError>,
    ) -> Result<(), StepError> {
        let claimed =
            |device: &DeviceRef| evidence::is_claimed(&self.environment.files.locate(device.path()));
        let mut attempts = 0;
        let done = wait::until(MOMENT, Backoff::LOCAL, || {
            attempts += 1;
            let Err(error) = act(attempts > 1) else {
                return Ok(ControlFlow::Break(()));
            };
            // Whoever claimed it may be gone when we look: so it is tried twice in any case.
            let passes = match &error {
                StepError::Program {
                    source: ProgramError::Failed { .. },
                    ..
                } => device.is_some_and(|device| attempts == 1 || claimed(device)),
                StepError::NotBlank { objections, .. } => {
                    objections.iter().all(|objection| *objection == Objection::Busy)
                }
                _ => false,
            };
            if passes {
                Ok(ControlFlow::Continue(one_line(&error)))
            } else {
                Err(error)
            }
        });
        done.map_err(|error| match error {
            WaitError::Probe(error) => error,
            WaitError::Deadline { last_reason, .. } => StepError::Refused {
                step: step.to_string(),
                reason: last_reason,
            },
        })
    }

    /// Path of a device's node, as a program takes it.
    fn node(&self, device: &DeviceRef) -> String {
        self.environment
            .files
            .locate(device.path())
            .to_string_lossy()
            .into_owned()
    }

    /// The device as it is now, if it is still the one that was planned for.
    fn same(&self, device: &DeviceRef) -> Result<BlockDevice, StepError> {
        let inventory = Inventory::read(self.environment.files);
        let now = inventory
            .get(&device.name)
            .filter(|now| DeviceRef::of(now) == *device);
        now.cloned()
            .ok_or_else(|| StepError::Another { path: device.path() })
    }

    /// Runs a program by its name, then at its usual place: `PATH` of a boot script may be without /sbin.
    fn run(
        &self,
        step: &Step,
        program: &str,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Output, StepError> {
        let programs = self.environment.programs;
        let run =
            |program: &str| programs.check(&Invocation::new(program, arguments.iter().copied(), deadline));
        let done = match run(program) {
            Err(ProgramError::Start { .. }) => run(&format!("/usr/sbin/{program}")),
            other => other,
        };
        done.map_err(|source| StepError::Program {
            step: step.to_string(),
            source,
        })
    }
}

/// mdadm writes UUIDs as four words with colons.
fn mdadm_uuid(uuid: Uuid) -> String {
    let digits = uuid.to_string().replace('-', "");
    let words: Vec<&str> = (0..4)
        .filter_map(|word| digits.get(word * 8..word * 8 + 8))
        .collect();
    words.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mdadm_gets_its_own_form_of_a_uuid() {
        let uuid = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
        assert_eq!(mdadm_uuid(uuid), "00112233:44556677:8899aabb:ccddeeff");
    }
}
