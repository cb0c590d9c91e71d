//! Disks on real block devices: loop devices with everything on them that Debian's tools can make, whole and
//! damaged, and blank ones that are formatted, mounted, lost, found and grown.
//!
//! Needs root, loop devices, and these Debian packages (each names what it is for in `images.rs`):
//! apfsprogs bcache-tools btrfs-progs cryptsetup-bin dosfstools drbd-utils e2fsprogs erofs-utils exfatprogs f2fs-tools
//! fdisk gdisk genisoimage genromfs gfs2-utils hfsutils jfsutils lvm2 makefs mdadm mount mtd-utils nilfs-tools ntfs-3g
//! ocfs2-tools parted reiser4progs reiserfsprogs squashfs-tools systemd udftools util-linux util-linux-extra xfsprogs
//! zfs-fuse.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must end, with the place where it could not"
)]

mod attach;
mod blank;
mod by_hand;
mod claimed;
mod damage;
mod decide;
mod faults;
mod images;
mod kill;
mod never;
mod rig;
mod units;
