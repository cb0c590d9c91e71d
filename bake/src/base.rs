//! Owns the three bases: where their images are found, what they need, when they end.
//! Touches nothing.

use clap::ValueEnum;
use serde::Serialize;

use crate::release::Arch;

/// An Amazon Linux to bake on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// Amazon Linux (2018.03).
    Al1,
    /// Amazon Linux 2.
    Al2,
    /// Amazon Linux 2023.
    Al2023,
}

impl Base {
    /// Name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Al1 => "al1",
            Self::Al2 => "al2",
            Self::Al2023 => "al2023",
        }
    }

    /// Name as Amazon writes it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Al1 => "Amazon Linux (2018.03)",
            Self::Al2 => "Amazon Linux 2",
            Self::Al2023 => "Amazon Linux 2023",
        }
    }

    /// The public parameter that holds the newest image's id
    /// (<https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-public-parameters-ami.html>);
    /// none where Amazon never made an image.
    pub fn parameter(self, arch: Arch) -> Option<String> {
        let name = match (self, arch) {
            (Self::Al1, Arch::X86_64) => "amzn-ami-hvm-x86_64-gp2".to_owned(),
            (Self::Al1, Arch::Arm64) => return None,
            (Self::Al2, arch) => format!("amzn2-ami-hvm-{}-gp2", arch.name()),
            (Self::Al2023, arch) => format!("al2023-ami-kernel-default-{}", arch.name()),
        };
        Some(format!("/aws/service/ami-amazon-linux-latest/{name}"))
    }

    /// Day on which Amazon's support ends or ended, ISO 8601.
    ///
    /// Amazon Linux: <https://aws.amazon.com/amazon-linux-ami/faqs/> (maintenance, not verified). Amazon Linux 2:
    /// <https://aws.amazon.com/amazon-linux-2/faqs/>. Amazon Linux 2023:
    /// <https://docs.aws.amazon.com/linux/al2023/ug/release-cadence.html>.
    pub fn end_of_life(self) -> &'static str {
        match self {
            Self::Al1 => "2023-12-31",
            Self::Al2 => "2026-06-30",
            Self::Al2023 => "2029-06-30",
        }
    }

    /// Instance type of the builder where the user names none. Amazon Linux's last kernel (4.14) has drivers for the
    /// fifth generation; the others boot on the newest that every region has.
    pub fn instance_type(self, arch: Arch) -> &'static str {
        match (self, arch) {
            (Self::Al1, _) => "m5.large",
            (_, Arch::X86_64) => "m6i.large",
            (_, Arch::Arm64) => "m6g.large",
        }
    }

    /// Whether the builder's metadata service may demand session tokens: the last SSM agent of Amazon Linux may not
    /// know them.
    pub fn token_required(self) -> bool {
        self != Self::Al1
    }
}
