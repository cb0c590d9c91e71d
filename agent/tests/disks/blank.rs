//! Blank disks: formatted once, mounted, written to, lost and found at a boot, grown.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cos_agent::node::disks::uuid::Uuid;
use cos_agent::node::disks::{Decision, DiskSpec, FileSystem, Format, Request, RootAccess, dry_run, execute};
use nix::sys::statvfs::statvfs;

use crate::rig::{self, Loop, Root, blkid, can_run, one, request};

/// Sizes in MiB: mkfs.xfs makes nothing smaller than 300. 20 GiB is looked at by samples.
const CASES: [(FileSystem, u64); 4] = [
    (FileSystem::Xfs, 320),
    (FileSystem::Ext4, 64),
    (FileSystem::Xfs, 20 << 10),
    (FileSystem::Ext4, 20 << 10),
];

#[test]
fn a_blank_disk_is_formatted_once_and_found_at_every_boot() {
    if !can_run("a_blank_disk_is_formatted_once_and_found_at_every_boot") {
        return;
    }
    for (file_system, mebibytes) in CASES {
        let root = Root::new();
        let image = root.image("disk");
        rig::sparse(&image, mebibytes);
        let device = Loop::attach(&image);
        let mut wanted = one(&device, "/srv/data", file_system);
        wanted.disks[0].label = Some("cos-test".to_owned());
        wanted.disks[0].options = vec!["noatime".to_owned()];
        let report = root.bring_up(&wanted).verdict().unwrap();
        assert_eq!(report.formatted(), 1);
        let (kind, uuid) = blkid(&device.path).unwrap();
        assert_eq!(kind, file_system.name());
        let fstab = fs::read_to_string(root.at("/etc/fstab")).unwrap();
        assert!(
            fstab.contains(&format!("UUID={uuid} /srv/data {kind} noatime,nofail 0 0\n")),
            "{fstab}"
        );
        fs::write(root.at("/srv/data/file"), "not to be lost").unwrap();
        // Nothing is left to do, and nothing is done.
        let again = root.bring_up(&wanted).verdict().unwrap();
        assert_eq!(again.steps.len(), 0, "{:?}", again.steps);
        assert_eq!(again.plan.mounts[0].decision, Decision::Keep);

        // The next boot: another device, since the kernel numbers disks as they come.
        root.unmount_all();
        assert!(!root.at("/srv/data/file").exists());
        {
            // With the old one still there, a mount by UUID could take either.
            let twin = Loop::attach(&image);
            let mut wanted = wanted.clone();
            wanted.disks[0].source = twin.source();
            let (_, plan) = dry_run(&wanted, &root.environment()).unwrap();
            let reasons = plan.mounts[0].reasons.join("; ");
            assert!(reasons.contains("has the same UUID"), "{reasons}");
        }
        drop(device);
        let device = Loop::attach(&image);
        wanted.disks[0].source = device.source();
        let report = root.bring_up(&wanted).verdict().unwrap();
        assert_eq!(report.formatted(), 0);
        assert_eq!(report.plan.mounts[0].decision, Decision::Mount);
        assert_eq!(
            fs::read_to_string(root.at("/srv/data/file")).unwrap(),
            "not to be lost"
        );
        assert_eq!(blkid(&device.path).unwrap().1, uuid);
        root.unmount_all();
    }
}

fn nothing_to_do(root: &Root, wanted: &Request) {
    let report = root.bring_up(wanted).verdict().unwrap();
    assert_eq!(report.steps, [], "{report:#?}");
}

/// Growing a mounted ext4 takes CAP_SYS_RESOURCE, number 24, which root may be without in a container or a sandbox.
fn may_resize_ext4() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap() & 1 << 24 != 0
}

#[test]
fn a_file_system_grows_with_its_disk() {
    if !can_run("a_file_system_grows_with_its_disk") {
        return;
    }
    for (file_system, mebibytes, grown) in [
        (FileSystem::Xfs, 320, 640),
        (FileSystem::Ext4, 64, 256),
        (FileSystem::Ext4, 1024, 20 << 10),
    ] {
        let root = Root::new();
        let image = root.image("disk");
        rig::sparse(&image, mebibytes);
        let device = Loop::attach(&image);
        let mut wanted = one(&device, "/data", file_system);
        root.bring_up(&wanted).verdict().unwrap();
        fs::write(root.at("/data/file"), "not to be lost").unwrap();
        let size = || {
            let stat = statvfs(&root.at("/data")).unwrap();
            stat.blocks() * stat.fragment_size()
        };
        let before = size();
        // While it is mounted: the volume is modified and the kernel hears of it.
        fs::OpenOptions::new()
            .write(true)
            .open(&image)
            .unwrap()
            .set_len(grown << 20)
            .unwrap();
        rig::run("losetup", &["--set-capacity", &device.path]).unwrap();
        wanted.disks[0].grow = false;
        nothing_to_do(&root, &wanted);
        wanted.disks[0].grow = true;
        let report = root.bring_up(&wanted);
        assert_eq!(report.steps.len(), 1, "{:?}", report.steps);
        if file_system == FileSystem::Ext4 && !may_resize_ext4() {
            // Then it is told, nothing is lost, and the disk stays mounted.
            let outcome = format!("{:?}", report.steps[0].outcome);
            assert!(outcome.contains("Permission denied"), "{outcome}");
            assert_eq!(report.verdict().unwrap_err().exit_code(), 6);
            assert_eq!((size(), root.mounts().len()), (before, 1));
            assert_eq!(
                fs::read_to_string(root.at("/data/file")).unwrap(),
                "not to be lost"
            );
            root.unmount_all();
            continue;
        }
        report.verdict().unwrap();
        let after = size();
        assert!(
            after > before && after > (grown << 20) / 10 * 8,
            "{file_system}: {before} to {after}"
        );
        nothing_to_do(&root, &wanted);
        assert_eq!(
            fs::read_to_string(root.at("/data/file")).unwrap(),
            "not to be lost"
        );
        root.unmount_all();
    }
}

#[test]
fn a_blank_disk_that_may_not_be_formatted_stays_blank() {
    if !can_run("a_blank_disk_that_may_not_be_formatted_stays_blank") {
        return;
    }
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let device = Loop::attach(&image);
    let mut wanted = one(&device, "/data", FileSystem::Ext4);
    wanted.disks[0].format = Format::Never;
    let error = root.bring_up(&wanted).verdict().unwrap_err();
    assert_eq!(
        error.to_string(),
        "/data will not be mounted: it is blank, and the configuration says that it is never formatted"
    );
    assert_eq!(error.exit_code(), 6);
    assert!(error.hint().unwrap().contains("cos-agent disks"));
    assert!(rig::is_zero(&image));
}

#[test]
fn a_label_that_differs_is_another_disk() {
    if !can_run("a_label_that_differs_is_another_disk") {
        return;
    }
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    rig::run("mkfs.ext4", &["-q", "-L", "theirs", image.to_str().unwrap()]).unwrap();
    let device = Loop::attach(&image);
    let mut wanted = one(&device, "/data", FileSystem::Ext4);
    wanted.disks[0].label = Some("ours".to_owned());
    let error = root.bring_up(&wanted).verdict().unwrap_err().to_string();
    assert!(
        error.ends_with("its label is \"theirs\", and \"ours\" is configured"),
        "{error}"
    );
    wanted.disks[0].label = Some("theirs".to_owned());
    root.bring_up(&wanted).verdict().unwrap();
    root.unmount_all();
}

#[test]
fn owner_group_and_mode_are_those_of_the_mounted_root() {
    if !can_run("owner_group_and_mode_are_those_of_the_mounted_root") {
        return;
    }
    let root = Root::new();
    root.files
        .write_atomic(
            "/etc/passwd",
            b"root:x:0:0::/:/bin/sh\nnomad:x:1234:1235::/:/bin/false\n",
            0o644,
        )
        .unwrap();
    root.files
        .write_atomic("/etc/group", b"root:x:0:\njobs:x:4321:\n", 0o644)
        .unwrap();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let device = Loop::attach(&image);
    let access = |owner: &str, mode| RootAccess {
        owner: Some(owner.to_owned()),
        group: Some("jobs".to_owned()),
        mode: Some(mode),
    };
    let wanted = |access| {
        request(vec![DiskSpec {
            file_system: FileSystem::Ext4,
            root: access,
            ..DiskSpec::new(device.source(), "/data")
        }])
    };
    let error = root
        .bring_up(&wanted(access("nobody-here", 0o750)))
        .verdict()
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("this machine has no user nobody-here"), "{error}");
    assert!(rig::is_zero(&image));
    let seen = || {
        let metadata = fs::metadata(root.at("/data")).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
    };
    root.bring_up(&wanted(access("nomad", 0o2770))).verdict().unwrap();
    assert_eq!(seen(), (1234, 4321, 0o2770));
    assert_eq!(
        root.bring_up(&wanted(access("nomad", 0o2770)))
            .verdict()
            .unwrap()
            .steps
            .len(),
        0
    );
    root.bring_up(&wanted(access("root", 0o700))).verdict().unwrap();
    assert_eq!(seen(), (0, 4321, 0o700));
    root.unmount_all();
    assert_ne!(seen(), (0, 4321, 0o700), "the folder below was changed instead");
}

#[test]
fn disks_below_disks_are_mounted_in_order() {
    if !can_run("disks_below_disks_are_mounted_in_order") {
        return;
    }
    let root = Root::new();
    let disks: Vec<Loop> = ["a", "b", "c"]
        .iter()
        .map(|name| {
            let image = root.image(name);
            rig::sparse(&image, 64);
            Loop::attach(&image)
        })
        .collect();
    // Named from below to above.
    let points = ["/a/b/c", "/a/b", "/a"];
    let specs = disks.iter().zip(points).map(|(device, point)| DiskSpec {
        file_system: FileSystem::Ext4,
        ..DiskSpec::new(device.source(), point)
    });
    let wanted = request(specs.collect());
    let report = root.bring_up(&wanted).verdict().unwrap();
    assert_eq!(report.formatted(), 3);
    let number = |path: &str| fs::metadata(root.at(path)).unwrap().dev();
    let numbers = [number("/"), number("/a"), number("/a/b"), number("/a/b/c")];
    assert!(
        (0..4).all(|one| (0..one).all(|other| numbers[one] != numbers[other])),
        "{numbers:?}"
    );
    root.unmount_all();
    root.bring_up(&wanted).verdict().unwrap();
    assert_eq!(numbers[1..], [number("/a"), number("/a/b"), number("/a/b/c")]);
    root.unmount_all();
}

#[test]
fn the_command_shows_every_disk_and_why() {
    if !can_run("the_command_shows_every_disk_and_why") {
        return;
    }
    let root = Root::new();
    let images: Vec<_> = ["blank", "used"].iter().map(|name| root.image(name)).collect();
    for image in &images {
        rig::sparse(image, 64);
    }
    rig::run("mkswap", &["-q", images[1].to_str().unwrap()]).unwrap();
    let disks: Vec<Loop> = images.iter().map(|image| Loop::attach(image)).collect();
    let agent = env!("CARGO_BIN_EXE_cos-agent");
    let folder = root.folder.to_str().unwrap();
    let survey = rig::run(agent, &["disks", "--root", folder, "--json"]).unwrap();
    let survey: serde_json::Value = serde_json::from_str(&survey).unwrap();
    assert_eq!(
        (&survey["executed"], &survey["steps"]),
        (&false.into(), &serde_json::json!([]))
    );
    let of = |path: &str| {
        let mounts = survey["mounts"].as_array().unwrap();
        mounts
            .iter()
            .find(|mount| mount["source"] == path)
            .unwrap()
            .clone()
    };
    assert_eq!(of(&disks[0].path)["decision"], "format");
    let used = of(&disks[1].path);
    assert_eq!(used["decision"], "refuse");
    assert_eq!(used["looked"][0]["evidence"]["signatures"][0]["kind"], "swap");
    let text = rig::run(agent, &["disks", "--root", folder]).unwrap();
    assert!(
        text.contains("would be formatted if the configuration names it"),
        "{text}"
    );
    // A dry run of a map says the same as the run would, with the exit code of the run.
    let map = format!("{}=/data:ext4", disks[0].path);
    let text = rig::run(agent, &["disks", "--root", folder, "--dry-run", "--map", &map]).unwrap();
    assert!(
        text.contains("would make ext4 on") && text.contains(" at /data"),
        "{text}"
    );
    let map = format!("{}=/data:ext4", disks[1].path);
    let error = rig::run(agent, &["disks", "--root", folder, "--dry-run", "--map", &map]).unwrap_err();
    assert!(error.contains("a signature of swap at byte 4086"), "{error}");
    assert!(rig::is_zero(&images[0]));
}

#[test]
fn one_plan_is_carried_out_as_it_was_shown() {
    if !can_run("one_plan_is_carried_out_as_it_was_shown") {
        return;
    }
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let device = Loop::attach(&image);
    let wanted = one(&device, "/data", FileSystem::Ext4);
    let (observed, plan) = dry_run(&wanted, &root.environment()).unwrap();
    let shown = plan.steps.clone();
    let mut told = Vec::new();
    let report = execute(plan, &observed, &root.environment(), |planned| {
        told.push(planned.clone());
    })
    .unwrap();
    assert_eq!((report.formatted(), told), (1, shown));
    report.verdict().unwrap();
    root.unmount_all();
}

#[test]
fn a_disk_without_a_name_of_its_own_gets_a_drawn_uuid() {
    if !can_run("a_disk_without_a_name_of_its_own_gets_a_drawn_uuid") {
        return;
    }
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let device = Loop::attach(&image);
    let proposed = || -> Uuid {
        let (observed, _) = dry_run(&one(&device, "/data", FileSystem::Ext4), &root.environment()).unwrap();
        observed.disks[0].looked[0].proposed
    };
    assert_ne!(proposed(), proposed());
    assert!(Path::new(&device.path).exists());
}
