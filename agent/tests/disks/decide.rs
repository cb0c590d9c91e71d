//! What is decided for what: instance-store disks, EFS, mounts that nobody asks for any more. Machines made of data.

use std::collections::{BTreeMap, BTreeSet};

use cos_agent::node::disks::evidence::{Blkid, Evidence, Exclusive};
use cos_agent::node::disks::identify::{INSTANCE_STORE_MODEL, Identity};
use cos_agent::node::disks::inventory::{BlockDevice, Inventory};
use cos_agent::node::disks::matching::Match;
use cos_agent::node::disks::mounts::Mount;
use cos_agent::node::disks::probe::{Class, FoundFileSystem, RaidMember, Signature};
use cos_agent::node::disks::uuid::Uuid;
use cos_agent::node::disks::zeros::Zeros;
use cos_agent::node::disks::{
    Decision, DiskSource, DiskSpec, EfsSpec, EfsTarget, FileSystem, Format, Keeper, Looked, Observed,
    ObservedDisk, ObservedPoint, Plan, Request, Step, plan, render_units, units,
};

fn blank() -> Evidence {
    Evidence {
        exclusive: Exclusive::Free,
        signatures: Vec::new(),
        file_system: None,
        raid: None,
        blkid: Blkid::Nothing,
        zeros: Some(Zeros {
            bytes_read: 1 << 30,
            places: 1,
            whole: true,
            first_data: None,
            milliseconds: 1,
        }),
        unreadable: None,
    }
}

fn xfs(uuid: Uuid, size: u64) -> Evidence {
    let signature = Signature {
        kind: "xfs",
        class: Class::FileSystem,
        offset: 0,
        backup: false,
    };
    Evidence {
        signatures: vec![signature],
        file_system: Some(FoundFileSystem {
            name: "xfs",
            kind: Some(FileSystem::Xfs),
            uuid,
            label: String::new(),
            size,
            log: 0,
            unfinished: false,
        }),
        blkid: Blkid::Found(vec!["TYPE=xfs".to_owned()]),
        zeros: None,
        ..blank()
    }
}

fn disk(name: &str, minor: u32) -> BlockDevice {
    BlockDevice {
        name: name.to_owned(),
        number: (259, minor),
        size: 1 << 30,
        identity: Identity {
            model: INSTANCE_STORE_MODEL.to_owned(),
            serial: format!("AWS{minor}"),
            ..Identity::default()
        },
        ..BlockDevice::default()
    }
}

fn looked(device: BlockDevice, evidence: Evidence) -> Looked {
    let proposed = Uuid::of_disk(&device.name);
    Looked {
        device,
        evidence,
        proposed,
    }
}

fn machine(keeper: Keeper, disks: Vec<ObservedDisk>) -> Observed {
    Observed {
        keeper,
        inventory: Inventory::default(),
        disks,
        points: BTreeMap::new(),
        units: BTreeMap::new(),
        enabled: BTreeSet::new(),
        fstab: String::new(),
        uuids: Vec::new(),
        users: BTreeMap::new(),
        groups: BTreeMap::new(),
        efs_helper: false,
        nfs_helper: true,
        heard: Vec::new(),
        waited_milliseconds: 0,
    }
}

fn store(raid0: bool) -> Request {
    Request {
        disks: vec![DiskSpec::new(DiskSource::InstanceStore { raid0 }, "/mnt/store")],
        efs: Vec::new(),
        whole: true,
    }
}

fn two(evidence: [Evidence; 2], array: Option<Looked>) -> ObservedDisk {
    let [first, second] = evidence;
    ObservedDisk {
        matched: Match::InstanceStore(vec!["nvme1n1".to_owned(), "nvme2n1".to_owned()]),
        looked: vec![
            looked(disk("nvme1n1", 1), first),
            looked(disk("nvme2n1", 2), second),
        ],
        array,
    }
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .map(|planned| planned.step.to_string())
        .collect()
}

#[test]
fn blank_instance_store_disks_are_joined_and_nothing_more_is_known_yet() {
    let observed = machine(Keeper::Systemd, vec![two([blank(), blank()], None)]);
    let decided = plan(&store(true), &observed);
    assert_eq!(decided.mounts[0].decision, Decision::Join);
    assert_eq!(steps(&decided), ["make a RAID 0 of /dev/nvme1n1, /dev/nvme2n1"]);
    // Not asked for, or not allowed: nothing.
    let mut never = store(true);
    never.disks[0].format = Format::Never;
    for request in [store(false), never] {
        let decided = plan(&request, &observed);
        assert_eq!(decided.mounts[0].decision, Decision::Refuse);
        assert_eq!(steps(&decided), [""; 0]);
    }
}

#[test]
fn one_used_instance_store_disk_keeps_all_from_being_joined() {
    let used = xfs(Uuid::of_disk("x"), 1 << 30);
    let observed = machine(Keeper::Systemd, vec![two([blank(), used], None)]);
    let decided = plan(&store(true), &observed);
    assert_eq!(decided.mounts[0].decision, Decision::Refuse);
    let reasons = decided.mounts[0].reasons.join("; ");
    assert!(
        reasons.contains("nvme2n1: it has a signature of xfs"),
        "{reasons}"
    );
    assert_eq!(decided.steps, []);
}

fn member(array: u8, members: u32, level: i32) -> Evidence {
    let signature = Signature {
        kind: "linux_raid_member",
        class: Class::Member,
        offset: 4096,
        backup: false,
    };
    Evidence {
        signatures: vec![signature],
        raid: Some(RaidMember {
            array: Uuid([array; 16]),
            level,
            members,
        }),
        blkid: Blkid::Found(vec!["TYPE=linux_raid_member".to_owned()]),
        zeros: None,
        ..blank()
    }
}

#[test]
fn an_array_that_does_not_run_is_started_if_it_is_all_there() {
    let cases = [
        ([member(7, 2, 0), member(7, 2, 0)], true),
        // Another array, one of three, a mirror, and one that lost its superblock.
        ([member(7, 2, 0), member(8, 2, 0)], false),
        ([member(7, 3, 0), member(7, 3, 0)], false),
        ([member(7, 2, 1), member(7, 2, 1)], false),
        ([member(7, 2, 0), blank()], false),
    ];
    for (members, starts) in cases {
        let observed = machine(Keeper::Systemd, vec![two(members, None)]);
        let decided = plan(&store(true), &observed);
        let is_start = |step: &Step| matches!(step, Step::AssembleArray { .. });
        assert_eq!(decided.steps.len(), usize::from(starts), "{:?}", decided.steps);
        assert!(
            decided.steps.iter().all(|planned| is_start(&planned.step)),
            "{:?}",
            decided.steps
        );
    }
}

#[test]
fn a_running_array_is_a_disk_like_any_other() {
    let array = |evidence| {
        let device = BlockDevice {
            name: "md127".to_owned(),
            number: (9, 127),
            size: 2 << 30,
            slaves: vec!["nvme1n1".to_owned(), "nvme2n1".to_owned()],
            ..BlockDevice::default()
        };
        looked(device, evidence)
    };
    let mut held = [member(7, 2, 0), member(7, 2, 0)];
    held[0].exclusive = Exclusive::Busy;
    held[1].exclusive = Exclusive::Busy;
    let observed = machine(Keeper::Systemd, vec![two(held.clone(), Some(array(blank())))]);
    let decided = plan(&store(true), &observed);
    assert_eq!(
        decided.mounts[0].decision,
        Decision::Format,
        "{:?}",
        decided.mounts[0].reasons
    );
    assert!(
        steps(&decided)[0].starts_with("make xfs on /dev/md127 (UUID "),
        "{:?}",
        steps(&decided)
    );
    let there = xfs(Uuid::of_disk("md"), 2 << 30);
    let observed = machine(Keeper::Systemd, vec![two(held, Some(array(there)))]);
    let decided = plan(&store(true), &observed);
    assert_eq!(
        decided.mounts[0].decision,
        Decision::Mount,
        "{:?}",
        decided.mounts[0].reasons
    );
}

fn efs(tls: bool) -> EfsSpec {
    EfsSpec {
        target: EfsTarget::Id {
            id: "fs-0123".to_owned(),
            region: "eu-west-1".to_owned(),
            domain: "amazonaws.com".to_owned(),
        },
        access_point: tls.then(|| "fsap-9".to_owned()),
        mount_point: "/efs".to_owned(),
        tls,
        iam: tls,
        options: vec!["noatime".to_owned()],
    }
}

fn only_efs(tls: bool) -> Request {
    Request {
        disks: Vec::new(),
        efs: vec![efs(tls)],
        whole: true,
    }
}

#[test]
fn efs_by_nfs_has_the_recommended_options() {
    let decided = plan(&only_efs(false), &machine(Keeper::Systemd, Vec::new()));
    let unit = &render_units(&decided)[0];
    assert_eq!(unit.0, "/etc/systemd/system/efs.mount");
    for line in [
        "What=fs-0123.efs.eu-west-1.amazonaws.com:/",
        "Type=nfs4",
        "Options=nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport,_netdev,noatime",
        "Wants=network-online.target",
    ] {
        assert!(
            unit.1.lines().any(|of_unit| of_unit == line),
            "{line} is not in {}",
            unit.1
        );
    }
    let expected = [
        "write /etc/systemd/system/efs.mount",
        "reload the service manager's definitions",
        "enable efs.mount",
        "make the folder /efs",
        "mount fs-0123.efs.eu-west-1.amazonaws.com:/ at /efs",
    ];
    assert_eq!(steps(&decided), expected);
}

#[test]
fn efs_by_tls_needs_its_helper() {
    let mut observed = machine(Keeper::Systemd, Vec::new());
    let decided = plan(&only_efs(true), &observed);
    assert_eq!(
        decided.mounts[0].reasons,
        ["tls is configured, and amazon-efs-utils (mount.efs) is not installed on this machine"]
    );
    assert_eq!(decided.steps, []);
    observed.efs_helper = true;
    observed.nfs_helper = false;
    let decided = plan(&only_efs(true), &observed);
    let content = &render_units(&decided)[0].1;
    assert!(
        content.contains("What=fs-0123:/\nWhere=/efs\nType=efs\n"),
        "{content}"
    );
    assert!(
        content.contains("Options=tls,iam,accesspoint=fsap-9,_netdev,noatime\n"),
        "{content}"
    );
    let decided = plan(&only_efs(false), &observed);
    assert!(
        decided.mounts[0].reasons[0].contains("nfs-utils"),
        "{:?}",
        decided.mounts[0].reasons
    );
}

#[test]
fn efs_that_is_mounted_stays_and_what_is_there_instead_is_told() {
    let mounted = |kind: &str, source: &str| ObservedPoint {
        exists: true,
        mounted: Some(Mount {
            number: (0, 50),
            root: "/".to_owned(),
            point: "/efs".to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
        }),
        ..ObservedPoint::default()
    };
    let cases = [
        (
            false,
            "nfs4",
            "fs-0123.efs.eu-west-1.amazonaws.com:/",
            Decision::Keep,
        ),
        (true, "nfs4", "127.0.0.1:/", Decision::Keep),
        (
            false,
            "nfs4",
            "fs-9999.efs.eu-west-1.amazonaws.com:/",
            Decision::Refuse,
        ),
        (false, "xfs", "/dev/nvme1n1", Decision::Refuse),
    ];
    for (tls, kind, source, decision) in cases {
        let mut observed = machine(Keeper::Systemd, Vec::new());
        observed.efs_helper = true;
        observed.points.insert("/efs".to_owned(), mounted(kind, source));
        assert_eq!(
            plan(&only_efs(tls), &observed).mounts[0].decision,
            decision,
            "{source}"
        );
    }
}

#[test]
fn a_mount_that_nobody_asks_for_any_more_goes_from_the_next_boot() {
    let mut observed = machine(Keeper::Systemd, Vec::new());
    let old = format!("{}\n[Mount]\nWhere=/old\n", units::HEADER);
    observed
        .units
        .insert("/etc/systemd/system/old.mount".to_owned(), old);
    let foreign = "[Mount]\nWhere=/theirs\n".to_owned();
    observed
        .units
        .insert("/etc/systemd/system/theirs.mount".to_owned(), foreign);
    observed.enabled.insert("old.mount".to_owned());
    let mut request = Request {
        whole: true,
        ..Request::default()
    };
    let expected = [
        "disable old.mount",
        "remove /etc/systemd/system/old.mount",
        "reload the service manager's definitions",
    ];
    assert_eq!(steps(&plan(&request, &observed)), expected);
    request.whole = false;
    assert_eq!(plan(&request, &observed).steps, []);
}

#[test]
fn the_line_of_a_disk_that_is_not_there_today_stays() {
    let missing = ObservedDisk {
        matched: Match::Missing,
        looked: Vec::new(),
        array: None,
    };
    let mut observed = machine(Keeper::Fstab, vec![missing]);
    let entry = |point: &str| units::MountEntry {
        what: units::What::Uuid(Uuid::of_disk(point)),
        point: point.to_owned(),
        kind: "xfs".to_owned(),
        options: Vec::new(),
    };
    observed.fstab = units::fstab("# mine\n", &[entry("/mnt/store"), entry("/old")], &[]);
    observed
        .points
        .insert("/mnt/store".to_owned(), ObservedPoint::default());
    let decided = plan(&store(true), &observed);
    assert_eq!(decided.mounts[0].decision, Decision::Missing);
    assert!(decided.mounts[0].reasons[0].starts_with("instance-store is not there after 0.0 s"));
    let Step::Write { content, .. } = &decided.steps[0].step else {
        panic!("{:?}", decided.steps)
    };
    assert!(
        content.contains(" /mnt/store xfs ") && !content.contains(" /old "),
        "{content}"
    );
}

type Change = &'static dyn Fn(&mut Looked);

#[test]
fn a_volume_id_on_a_machine_that_tells_none_gets_a_hint() {
    let missing = ObservedDisk {
        matched: Match::Missing,
        looked: Vec::new(),
        array: None,
    };
    let mut observed = machine(Keeper::Systemd, vec![missing]);
    observed.inventory.devices.push(disk("xvdf", 1));
    let volume = DiskSource::Volume("vol-0123456789abcdef0".to_owned());
    let request = Request {
        disks: vec![DiskSpec::new(volume, "/data")],
        ..Request::default()
    };
    let reason = &plan(&request, &observed).mounts[0].reasons[0];
    assert!(reason.ends_with("as on Xen: name the device instead"), "{reason}");
    let identity = &mut observed.inventory.devices[0].identity;
    identity.volume = Some("vol-0fedcba9876543210".to_owned());
    let reason = &plan(&request, &observed).mounts[0].reasons[0];
    assert!(
        reason.contains("xvdf (vol-0fedcba9876543210)") && reason.ends_with("no disk came"),
        "{reason}"
    );
}

/// Damaged, truncated, or part of something else: the right superblock alone is not enough.
#[test]
fn a_file_system_that_may_not_be_mounted_says_why() {
    let uuid = Uuid::of_disk("x");
    let there = || xfs(uuid, 1 << 30);
    let with = |change: &dyn Fn(&mut Looked)| {
        let mut one = looked(disk("nvme1n1", 1), there());
        change(&mut one);
        let disks = vec![ObservedDisk {
            matched: Match::One("nvme1n1".to_owned()),
            looked: vec![one],
            array: None,
        }];
        let request = Request {
            disks: vec![DiskSpec::new(DiskSource::Device("/dev/sdf".to_owned()), "/data")],
            ..Request::default()
        };
        plan(&request, &machine(Keeper::Systemd, disks))
    };
    assert_eq!(with(&|_| {}).mounts[0].decision, Decision::Mount);
    let cases: [(&str, Change); 6] = [
        ("did not come to its end", &|one| {
            one.evidence.file_system.as_mut().unwrap().unfinished = true;
        }),
        ("and the disk only", &|one| one.device.size = 1 << 29),
        ("md127 is made of it", &|one| {
            one.device.holders.push("md127".to_owned());
        }),
        ("it is swapped on", &|one| one.device.swap = true),
        ("several things", &|one| one.evidence.blkid = Blkid::Ambivalent),
        ("a signature of linux_raid_member", &|one| {
            one.evidence.signatures.push(member(1, 2, 1).signatures.remove(0));
        }),
    ];
    for (reason, change) in cases {
        let decided = with(change);
        assert_eq!(decided.mounts[0].decision, Decision::Refuse, "{reason}");
        let reasons = decided.mounts[0].reasons.join("; ");
        assert!(reasons.contains(reason), "{reasons}");
        assert_eq!(decided.steps, [], "{reason}");
    }
    // What is left of a partition table from before does not matter: the file system is the whole disk.
    let leftover = with(&|one| {
        one.evidence.signatures.push(Signature {
            kind: "gpt",
            class: Class::PartitionTable,
            offset: (1 << 30) - 512,
            backup: true,
        });
    });
    assert_eq!(leftover.mounts[0].decision, Decision::Mount);
}
