//! Owns how disks can come to a bad end. Touches nothing.

use std::time::Duration;

use thiserror::Error;

use super::evidence::Objection;
use super::spec::SpecFault;
use super::uuid::Uuid;
use crate::host::{FileError, ProgramError};

/// A step could not be carried out.
#[derive(Debug, Error)]
pub enum StepError {
    /// A file could not be changed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A program failed.
    #[error("could not {step}")]
    Program {
        /// The step in words.
        step: String,
        /// Why.
        #[source]
        source: ProgramError,
    },
    /// A program refused for longer than a moment, since somebody has claimed the disk.
    #[error("could not {step}: {reason}")]
    Refused {
        /// The step in words.
        step: String,
        /// What it said last.
        reason: String,
    },
    /// The disk is not the one that was planned for.
    #[error("{path} is another disk than it was when this was planned")]
    Another {
        /// Path of the device.
        path: String,
    },
    /// The disk was blank when this was planned, and is not any more.
    #[error("{path} is not blank any more: {}", words(objections))]
    NotBlank {
        /// Path of the device.
        path: String,
        /// What speaks against it.
        objections: Vec<Objection>,
    },
    /// mkfs ended well, and what it should have made is not there.
    #[error("{path} has no file system {uuid} after mkfs")]
    NotMade {
        /// Path of the device.
        path: String,
        /// UUID that was asked for.
        uuid: Uuid,
    },
    /// Mounting ended well, and nothing, or something else, is mounted.
    #[error("what should be at {mount_point} is not there after mounting")]
    NotMounted {
        /// Mount point.
        mount_point: String,
    },
}

fn words(objections: &[Objection]) -> String {
    let words: Vec<String> = objections.iter().map(ToString::to_string).collect();
    words.join("; ")
}

/// Disks came to a bad end.
#[derive(Debug, Error)]
pub enum DisksError {
    /// What is asked for makes no sense.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Spec(Vec<SpecFault>),
    /// Another run does the same.
    #[error("another cos-agent has worked on the disks for {:.0} s", waited.as_secs_f64())]
    Locked {
        /// How long was waited.
        waited: Duration,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Disks are not mounted, for reasons that the plan gives.
    #[error("{} will not be mounted: {}", mounts.join(", "), reasons.join("; "))]
    Refused {
        /// Mount points.
        mounts: Vec<String>,
        /// Why, of all of them.
        reasons: Vec<String>,
    },
    /// Steps failed.
    #[error("disks: {failed} of {all} steps failed")]
    Steps {
        /// How many failed.
        failed: usize,
        /// How many there were.
        all: usize,
        /// The first one.
        #[source]
        first: Box<StepError>,
    },
}

impl DisksError {
    /// Exit code: 2 where what is asked for is at fault, 6 where a step failed.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Spec(_)) { 2 } else { 6 }
    }

    /// What the reader may do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Refused { .. } => {
                "cos-agent disks shows what every disk holds; a disk that may be emptied is made blank by a person, \
                 with blkdiscard or wipefs, never by COS"
            }
            Self::Steps { first, .. } => match first.as_ref() {
                StepError::Program {
                    source: ProgramError::Start { .. },
                    ..
                } => "install the tools of the file system: xfsprogs or e2fsprogs, and mdadm for RAID",
                StepError::Program { .. } => {
                    "run cos-agent disks --dry-run, and see the journal of the mount unit"
                }
                _ => "run it again: what is done is not done twice",
            },
            Self::Locked { .. } => "see which cos-agent runs; its steps are in /var/lib/cos-agent/disks.json",
            Self::Spec(_) | Self::File(_) => return None,
        };
        Some(text.to_owned())
    }
}
