//! Owns asking an NVMe disk who it is: the one ioctl of the agent.
//! Touches one open device.
//!
//! No crate offers this call safely: nix and rustix have macros for it whose result is `unsafe`, and a crate of its
//! own would bring the same line. Run against QEMU's NVMe disks, whose pages have another vendor than Amazon's: what
//! Amazon puts into its own area rests on amazon-ec2-utils alone, and is read by [`super::identify`].

use std::fs::File;
use std::os::fd::AsRawFd;

use super::identify::PAGE;

/// Opcode of Identify.
const IDENTIFY: u8 = 6;

/// What the kernel calls `struct nvme_passthru_cmd` (`linux/nvme_ioctl.h`): 72 bytes.
#[repr(C)]
#[derive(Debug, Default)]
pub(super) struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved_1: u16,
    namespace: u32,
    words_2: u32,
    words_3: u32,
    metadata: u64,
    address: u64,
    metadata_length: u32,
    length: u32,
    word_10: u32,
    words_11: [u32; 5],
    timeout_milliseconds: u32,
    result: u32,
}

nix::ioctl_readwrite!(admin_command, b'N', 0x41, AdminCommand);

/// What to identify.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject {
    /// The controller.
    Controller,
    /// A namespace by number, from 1.
    Namespace(u32),
}

/// Asks; none if the disk does not answer, which is so for everything that is not NVMe.
pub(super) fn identify(disk: &File, subject: Subject) -> Option<Box<[u8; PAGE]>> {
    let mut page = Box::new([0; PAGE]);
    let (namespace, word_10) = match subject {
        Subject::Controller => (0, 1),
        Subject::Namespace(number) => (number, 0),
    };
    let mut command = AdminCommand {
        opcode: IDENTIFY,
        namespace,
        word_10,
        address: page.as_mut_ptr() as u64,
        length: u32::try_from(PAGE).ok()?,
        timeout_milliseconds: 5000,
        ..AdminCommand::default()
    };
    #[expect(
        unsafe_code,
        reason = "the kernel writes at most `length` bytes at `address`, which is the page, alive until the end"
    )]
    let done = unsafe { admin_command(disk.as_raw_fd(), &raw mut command) };
    done.ok().filter(|status| *status == 0).map(|_| page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_the_kernels_size() {
        assert_eq!(size_of::<AdminCommand>(), 72);
        assert_eq!(std::mem::offset_of!(AdminCommand, address), 24);
        assert_eq!(std::mem::offset_of!(AdminCommand, word_10), 40);
    }

    /// Run where there is an NVMe disk, as root; the sandbox's virtual machines have emulated ones.
    #[test]
    #[ignore = "needs an NVMe disk, and root"]
    fn every_nvme_disk_of_this_machine_answers() {
        let names = std::fs::read_dir("/sys/class/block").unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let disks: Vec<String> = names
            .filter(|name| name.starts_with("nvme") && !name.contains('p'))
            .collect();
        assert!(!disks.is_empty(), "this machine has no NVMe disk");
        for name in disks {
            let disk = File::open(format!("/dev/{name}")).unwrap();
            let page = identify(&disk, Subject::Controller).unwrap();
            let serial = std::fs::read_to_string(format!("/sys/class/block/{name}/device/serial")).unwrap();
            let said = String::from_utf8_lossy(&page[4..24]).trim().to_owned();
            assert_eq!(said, serial.trim(), "{name}");
            assert!(identify(&disk, Subject::Namespace(1)).is_some(), "{name}");
        }
    }

    #[test]
    fn what_is_not_nvme_does_not_answer() {
        let file = tempfile::tempfile().unwrap();
        assert!(identify(&file, Subject::Controller).is_none());
        assert!(identify(&File::open("/dev/null").unwrap(), Subject::Namespace(1)).is_none());
    }
}
