//! Owns the catalogue of everything that Debian's tools put on a disk. Touches image files, and loop devices for the
//! tools that insist on a block device.

use std::path::Path;

use crate::by_hand;
use crate::rig::{self, Loop, shell};

/// How an image is made.
pub(crate) enum Maker {
    /// A shell script; `$image` is a sparse file, `$source` a folder with some files.
    Script(&'static str),
    /// A shell script on a loop device, `$image`.
    OnLoop(&'static str),
    /// Bytes written by hand, where there is no tool.
    Bytes(by_hand::Pieces),
    /// Written by hand, where the tool needs a kernel module.
    Function(by_hand::Write),
}

/// An image: name, size in MiB, maker, and whether it is XFS or ext4 that may be mounted as such.
pub(crate) struct Image {
    pub(crate) name: &'static str,
    pub(crate) mebibytes: u64,
    pub(crate) maker: Maker,
    pub(crate) mountable: Option<&'static str>,
}

const fn script(name: &'static str, mebibytes: u64, script: &'static str) -> Image {
    Image {
        name,
        mebibytes,
        maker: Maker::Script(script),
        mountable: None,
    }
}

const fn on_loop(name: &'static str, script: &'static str) -> Image {
    Image {
        name,
        mebibytes: 64,
        maker: Maker::OnLoop(script),
        mountable: None,
    }
}

const fn mountable(name: &'static str, mebibytes: u64, kind: &'static str, script: &'static str) -> Image {
    Image {
        name,
        mebibytes,
        maker: Maker::Script(script),
        mountable: Some(kind),
    }
}

fn by_hand(name: &'static str, maker: Maker) -> Image {
    Image {
        name,
        mebibytes: by_hand::SIZE >> 20,
        maker,
        mountable: None,
    }
}

/// Everything; the comment names the Debian package.
pub(crate) fn catalogue() -> Vec<Image> {
    let mut images = vec![
        // e2fsprogs
        script("ext2", 64, "mkfs.ext2 -q $image"),
        script("ext3", 64, "mkfs.ext3 -q $image"),
        mountable("ext4", 64, "ext4", "mkfs.ext4 -q $image"),
        mountable("ext4, blocks of 1 KiB", 64, "ext4", "mkfs.ext4 -q -b 1024 $image"),
        mountable("ext4, blocks of 2 KiB", 64, "ext4", "mkfs.ext4 -q -b 2048 $image"),
        mountable("ext4 with files", 64, "ext4", "mkfs.ext4 -q -d $source $image"),
        mountable(
            "ext4, large and empty",
            20 << 10,
            "ext4",
            "mkfs.ext4 -q -E nodiscard $image",
        ),
        mountable(
            "ext4, blocks of 64 KiB",
            64,
            "ext4",
            "mkfs.ext4 -q -F -b 65536 $image",
        ),
        script("jbd", 64, "mke2fs -q -O journal_dev -b 4096 $image"),
        // xfsprogs
        mountable("xfs", 320, "xfs", "mkfs.xfs -q $image"),
        mountable(
            "xfs, blocks of 1 KiB",
            320,
            "xfs",
            "mkfs.xfs -q -b size=1024 $image",
        ),
        mountable(
            "xfs, sectors of 4 KiB",
            320,
            "xfs",
            "mkfs.xfs -q -s size=4096 $image",
        ),
        mountable("xfs, large and empty", 20 << 10, "xfs", "mkfs.xfs -q -K $image"),
        // btrfs-progs
        script("btrfs", 128, "mkfs.btrfs -q $image"),
        script("btrfs, large and empty", 20 << 10, "mkfs.btrfs -q -K $image"),
        // f2fs-tools
        script("f2fs", 64, "mkfs.f2fs -q $image"),
        // dosfstools
        script("fat12", 2, "mkfs.vfat -F 12 $image"),
        script("fat16", 64, "mkfs.vfat -F 16 $image"),
        script("fat32", 64, "mkfs.vfat -F 32 $image"),
        // exfatprogs, ntfs-3g
        script("exfat", 64, "mkfs.exfat $image"),
        script("ntfs", 64, "mkfs.ntfs -F -Q -q $image"),
        // jfsutils, reiserfsprogs, reiser4progs, nilfs-tools
        script("jfs", 64, "mkfs.jfs -q $image"),
        script("reiserfs", 64, "mkfs.reiserfs -q -f -f $image"),
        script("reiser4", 64, "mkfs.reiser4 -f -y $image"),
        script("nilfs2", 132, "mkfs.nilfs2 -q $image"),
        // udftools, genisoimage
        script("udf", 64, "mkfs.udf $image"),
        script("udf, blocks of 512 bytes", 64, "mkfs.udf --blocksize=512 $image"),
        script(
            "udf, hard disk",
            64,
            "mkfs.udf --media-type=hd --blocksize=4096 $image",
        ),
        script(
            "iso9660",
            64,
            "genisoimage -quiet -o $image.new $source && dd if=$image.new of=$image conv=notrunc",
        ),
        // squashfs-tools, erofs-utils, genromfs, mtd-utils
        script(
            "squashfs",
            64,
            "mksquashfs $source $image.new -quiet && dd if=$image.new of=$image conv=notrunc",
        ),
        script(
            "erofs",
            64,
            "mkfs.erofs --quiet $image.new $source && dd if=$image.new of=$image conv=notrunc",
        ),
        script(
            "romfs",
            64,
            "genromfs -f $image.new -d $source && dd if=$image.new of=$image conv=notrunc",
        ),
        script(
            "jffs2",
            64,
            "mkfs.jffs2 -r $source -o $image.new && dd if=$image.new of=$image conv=notrunc",
        ),
        script(
            "ubifs",
            64,
            "mkfs.ubifs -r $source -m 512 -e 15872 -c 100 -o $image.new && dd if=$image.new of=$image conv=notrunc",
        ),
        // util-linux-extra, util-linux
        script(
            "cramfs",
            64,
            "mkfs.cramfs $source $image.new && dd if=$image.new of=$image conv=notrunc",
        ),
        script("minix 1", 64, "mkfs.minix -1 $image"),
        script("minix 2", 64, "mkfs.minix -2 $image"),
        script("minix 3", 64, "mkfs.minix -3 $image"),
        script("bfs", 2, "mkfs.bfs $image"),
        script("swap", 64, "mkswap -q $image"),
        script("swap, pages of 64 KiB", 64, "mkswap -q -p 65536 $image"),
        // hfsutils, apfsprogs, makefs
        script("hfs", 64, "HOME=${image%/*} hformat -f $image"),
        script("apfs", 600, "mkapfs $image"),
        script(
            "ufs 1",
            16,
            "makefs -t ffs -s 16m $image.new $source && dd if=$image.new of=$image conv=notrunc",
        ),
        script(
            "ufs 2",
            16,
            "makefs -t ffs -o version=2 -s 16m $image.new $source && dd if=$image.new of=$image conv=notrunc",
        ),
        // gfs2-utils, ocfs2-tools
        script("gfs2", 128, "mkfs.gfs2 -q -O -p lock_nolock -j1 $image"),
        script(
            "ocfs2",
            128,
            "mkfs.ocfs2 -q -F --fs-feature-level=max-compat -M local $image",
        ),
        // cryptsetup-bin
        script(
            "luks 1",
            64,
            "printf x | cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 $image -",
        ),
        script(
            "luks 2",
            64,
            "printf x | cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $image -",
        ),
        script("dm-verity", 64, "veritysetup format $source/large $image"),
        // bcache-tools, drbd-utils, lvm2
        script("bcache, backing", 64, "make-bcache -B $image"),
        script("bcache, cache", 64, "make-bcache -C $image"),
        script("drbd 8", 64, "drbdmeta --force 0 v08 $image internal create-md"),
        script("drbd 9", 64, "drbdmeta --force 0 v09 $image internal create-md 1"),
        on_loop("lvm 2", "pvcreate -qq -y $image"),
        on_loop(
            "lvm 2, two metadata areas",
            "pvcreate -qq -y --pvmetadatacopies 2 $image",
        ),
        // zfs-fuse
        script("zfs", 128, by_hand::ZPOOL),
        // fdisk, gdisk, parted
        script(
            "gpt",
            64,
            "printf 'label: gpt\\nsize=10M\\nsize=+\\n' | sfdisk -q $image",
        ),
        script(
            "gpt, sectors of 4 KiB",
            64,
            "printf 'label: gpt\\n' | sfdisk -q --sector-size 4096 $image || by_parted=1; test -z \"${by_parted-}\" || parted -s $image mklabel gpt",
        ),
        script("gpt without partitions", 64, "parted -s $image mklabel gpt"),
        script("hybrid", 64, "sgdisk -n 1:0:+10M -t 1:8300 -h 1 $image"),
        script(
            "mbr",
            64,
            "printf 'label: dos\\nsize=10M,type=83\\n' | sfdisk -q $image",
        ),
        script("mbr without partitions", 64, "parted -s $image mklabel msdos"),
        script("sun", 64, "printf 'label: sun\\nsize=10M\\n' | sfdisk -q $image"),
        script("sgi", 64, "printf 'label: sgi\\nsize=10M\\n' | sfdisk -q $image"),
        script("bsd", 64, "parted -s $image mklabel bsd"),
        script("mac", 64, "parted -s $image mklabel mac"),
        script("amiga", 64, "parted -s $image mklabel amiga"),
        script("pc98", 64, "parted -s $image mklabel pc98"),
        script("atari", 64, "parted -s $image mklabel atari"),
        script("dvh", 64, "parted -s $image mklabel dvh"),
        script("loop label", 64, "parted -s $image mklabel loop"),
        script(
            "gpt, large",
            20 << 10,
            "parted -s $image mklabel gpt mkpart a xfs 1MiB 100%",
        ),
        // No file system: what a database or a person put there.
        script("text", 64, "echo 'hello' | dd of=$image conv=notrunc"),
        script(
            "tar",
            64,
            "tar -cf $image.new -C $source . && dd if=$image.new of=$image conv=notrunc",
        ),
        script(
            "noise",
            64,
            "dd if=/dev/urandom of=$image bs=1M count=2 seek=20 conv=notrunc",
        ),
        script(
            "ones",
            64,
            "tr '\\0' '\\377' </dev/zero | dd of=$image bs=1M count=8 iflag=fullblock conv=notrunc",
        ),
    ];
    let pieces = by_hand::PIECES.iter();
    images.extend(pieces.map(|(name, pieces)| by_hand(name, Maker::Bytes(pieces))));
    let raid = by_hand::RAID.iter();
    images.extend(raid.map(|(name, write)| by_hand(name, Maker::Function(*write))));
    images
}

/// Makes the image at `path`.
pub(crate) fn make(image: &Image, path: &Path, source: &Path) -> Result<(), String> {
    rig::sparse(path, image.mebibytes);
    let (path_text, source) = (path.to_str().unwrap(), source.to_str().unwrap());
    let with = |image: &str, script: &str| {
        shell(&format!(
            "image={image}\nsource={source}\n{{ {script}\n}} >/dev/null"
        ))
    };
    match &image.maker {
        Maker::Script(script) => with(path_text, script)?,
        Maker::OnLoop(script) => {
            let device = Loop::attach(path);
            with(&device.path, script)?
        }
        Maker::Bytes(pieces) => {
            for (offset, bytes) in *pieces {
                rig::poke(path, *offset, bytes);
            }
            String::new()
        }
        Maker::Function(write) => {
            write(path);
            String::new()
        }
    };
    Ok(())
}

/// Some files to put into file systems.
pub(crate) fn source(folder: &Path) {
    std::fs::create_dir_all(folder.join("below")).unwrap();
    std::fs::write(folder.join("small"), "some text\n").unwrap();
    std::fs::write(folder.join("below/more"), vec![b'x'; 10_000]).unwrap();
    let noise: Vec<u8> = (0..1u32 << 18)
        .flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    std::fs::write(folder.join("large"), noise).unwrap();
}
