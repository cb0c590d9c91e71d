//! Disks that hold nothing and belong to somebody: mounted, swapped on, partitioned, open, read-only.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use cos_agent::node::disks::{Decision, DiskSource, DiskSpec, Environment, FileSystem, bring_up, dry_run};
use nix::libc;

use crate::rig::{self, Loop, Root, can_run, one, request, run};

fn blank(root: &Root) -> (std::path::PathBuf, Loop) {
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let device = Loop::attach(&image);
    (image, device)
}

fn why(root: &Root, device: &Loop) -> String {
    let error = root
        .bring_up(&one(device, "/data", FileSystem::Ext4))
        .verdict()
        .unwrap_err();
    error.to_string()
}

#[test]
fn a_mounted_disk_is_left_where_it_is() {
    if !can_run("a_mounted_disk_is_left_where_it_is") {
        return;
    }
    let root = Root::new();
    let (_, device) = blank(&root);
    run("mkfs.ext4", &["-q", &device.path]).unwrap();
    fs::create_dir(root.at("/elsewhere")).unwrap();
    run("mount", &[&device.path, root.at("/elsewhere").to_str().unwrap()]).unwrap();
    assert!(
        why(&root, &device).contains("it is mounted at "),
        "{}",
        why(&root, &device)
    );
    // And what another disk has mounted at our place stays there.
    let second = root.image("second");
    rig::sparse(&second, 64);
    let second = Loop::attach(&second);
    let wanted = one(&second, "/elsewhere", FileSystem::Ext4);
    let error = root.bring_up(&wanted).verdict().unwrap_err().to_string();
    assert!(
        error.ends_with(&format!("{} is mounted there", device.path)),
        "{error}"
    );
    root.unmount_all();
}

#[test]
fn swap_in_use_is_no_disk() {
    if !can_run("swap_in_use_is_no_disk") {
        return;
    }
    // Swapping needs a file with blocks of its own.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = folder.path().join("swap");
    fs::write(&image, vec![0; 16 << 20]).unwrap();
    let root = Root::new();
    let device = Loop::attach(&image);
    run("mkswap", &["-q", &device.path]).unwrap();
    run("swapon", &[&device.path]).unwrap();
    let why = why(&root, &device);
    run("swapoff", &[&device.path]).unwrap();
    assert!(why.contains("it is swapped on"), "{why}");
}

#[test]
fn a_read_only_disk_is_not_formatted() {
    if !can_run("a_read_only_disk_is_not_formatted") {
        return;
    }
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let device = Loop::attach_with(&image, &["--read-only"]);
    assert!(why(&root, &device).contains("it is read-only"));
}

#[test]
fn a_disk_that_somebody_has_open_is_waited_for() {
    if !can_run("a_disk_that_somebody_has_open_is_waited_for") {
        return;
    }
    let root = Root::new();
    let (image, device) = blank(&root);
    let open = || {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .custom_flags(libc::O_EXCL)
            .open(&device.path)
            .unwrap()
    };
    let claimed = open();
    let text = why(&root, &device);
    assert!(text.contains("somebody has claimed it"), "{text}");
    assert!(rig::is_zero(&image));
    // Within the deadline it comes free: then it is taken.
    let environment = Environment {
        deadline: Duration::from_secs(20),
        ..root.environment()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            drop(claimed);
        });
        let wanted = one(&device, "/data", FileSystem::Ext4);
        let report = bring_up(&wanted, &environment, |_| {})
            .unwrap()
            .verdict()
            .unwrap();
        assert_eq!(report.formatted(), 1);
    });
    root.unmount_all();
}

#[test]
fn a_disk_with_partitions_is_not_formatted_and_a_partition_is_mounted() {
    let test = "a_disk_with_partitions_is_not_formatted_and_a_partition_is_mounted";
    if !can_run(test) || !rig::has(test, &["addpart", "delpart"]) {
        return;
    }
    let root = Root::new();
    let (image, device) = blank(&root);
    // Only the kernel knows of it: nothing is on the disk. No kernel here reads partition tables by itself.
    run("addpart", &[&device.path, "1", "2048", "65536"]).unwrap();
    let partition = format!("{}p1", device.path);
    assert!(Path::new(&partition).exists());
    let name = partition.trim_start_matches("/dev/");
    assert!(why(&root, &device).contains(&format!("it has partitions ({name})")));
    let wanted = request(vec![DiskSpec {
        file_system: FileSystem::Ext4,
        ..DiskSpec::new(DiskSource::Device(partition.clone()), "/data")
    }]);
    let (_, plan) = dry_run(&wanted, &root.environment()).unwrap();
    assert_eq!(plan.mounts[0].decision, Decision::Refuse);
    assert!(
        plan.mounts[0].reasons.contains(&"it is a partition".to_owned()),
        "{:?}",
        plan.mounts[0].reasons
    );
    assert!(rig::is_zero(&image));
    // Somebody else made a file system on it: that is mounted.
    run("mkfs.ext4", &["-q", &partition]).unwrap();
    let report = root.bring_up(&wanted).verdict().unwrap();
    assert_eq!((report.formatted(), root.mounts().len()), (0, 1));
    root.unmount_all();
    run("delpart", &[&device.path, "1"]).unwrap();
}

#[test]
fn two_names_of_one_disk_are_refused() {
    if !can_run("two_names_of_one_disk_are_refused") {
        return;
    }
    let root = Root::new();
    let (image, device) = blank(&root);
    let link = format!("/dev/cos-test-{}", std::process::id());
    std::os::unix::fs::symlink(&device.path, &link).unwrap();
    let spec = |path: &str, point: &str| DiskSpec::new(DiskSource::Device(path.to_owned()), point);
    let wanted = request(vec![spec(&device.path, "/a"), spec(&link, "/b")]);
    let report = root.bring_up(&wanted);
    fs::remove_file(&link).unwrap();
    let error = report.verdict().unwrap_err().to_string();
    assert!(
        error.contains(&format!("two sources name {}", device.path)),
        "{error}"
    );
    assert!(rig::is_zero(&image));
}
