//! Owns how long AWS takes: one table of minimum times, each with its source.
//! Touches nothing.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Minimum times of what EC2 does. Real work that takes longer is never cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeline {
    name: &'static str,
    /// RunInstances or StartInstances until `running`.
    ///
    /// Source: Packer's and Terraform's waiters see `running` on their first or second poll of 10 to 15 s.
    pub pending: Duration,
    /// `running` until the SSM agent is listed as online.
    ///
    /// Source: the agent calls UpdateInstanceInformation as soon as it starts (amazon-ssm-agent,
    /// `agent/health`); what remains is the boot of Amazon Linux, 15 to 25 s on Nitro (estimate).
    pub online: Duration,
    /// StopInstances until `stopped`.
    ///
    /// Source: Packer's step "Waiting for the instance to stop" in public build logs, 30 to 60 s.
    pub stopping: Duration,
    /// TerminateInstances until `terminated`.
    ///
    /// Source: Terraform's "Destruction complete after 30s" to "1m" in public logs of aws_instance.
    pub shutting_down: Duration,
    /// CreateVolume until `available`.
    ///
    /// Source: Terraform's "Creation complete after 10s" for aws_ebs_volume: its first poll.
    pub creating: Duration,
    /// CreateSnapshot or CreateImage until a snapshot is `completed`.
    ///
    /// Source: lower end of what public Packer logs show for a small root volume (45 s to some minutes).
    pub snapshot: Duration,
    /// CompleteSnapshot (EBS direct) until `completed`.
    ///
    /// Source: coldsnap polls for it, and sees it after 10 to 30 s (estimate).
    pub sealing: Duration,
}

impl Timeline {
    /// Only real time: nothing waits for the sake of waiting.
    pub const INSTANT: Self = Self {
        name: "instant",
        pending: Duration::ZERO,
        online: Duration::ZERO,
        stopping: Duration::ZERO,
        shutting_down: Duration::ZERO,
        creating: Duration::ZERO,
        snapshot: Duration::ZERO,
        sealing: Duration::ZERO,
    };

    /// The minimum times of AWS itself.
    pub const AWS: Self = Self {
        name: "aws",
        pending: Duration::from_secs(10),
        online: Duration::from_secs(15),
        stopping: Duration::from_secs(30),
        shutting_down: Duration::from_secs(30),
        creating: Duration::from_secs(5),
        snapshot: Duration::from_secs(45),
        sealing: Duration::from_secs(15),
    };
}

impl fmt::Display for Timeline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl FromStr for Timeline {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "instant" => Ok(Self::INSTANT),
            "aws" => Ok(Self::AWS),
            other => Err(format!("unknown timeline '{other}': use instant or aws")),
        }
    }
}
