//! Programs that fail: a mount that fails is an error and nothing else, and the next run goes on from there.

use std::cell::RefCell;
use std::fs;

use cos_agent::host::{Invocation, Output, ProgramError, Programs, RealPrograms};
use cos_agent::node::disks::{FileSystem, Outcome, bring_up};

use crate::rig::{self, Loop, Root, blkid, can_run, one};

/// The real programs, but for one that fails.
struct Failing {
    program: &'static str,
    ran: RefCell<Vec<String>>,
}

impl Failing {
    fn new(program: &'static str) -> Self {
        Self {
            program,
            ran: RefCell::default(),
        }
    }

    fn count(&self, program: &str) -> usize {
        let ran = self.ran.borrow();
        ran.iter()
            .filter(|ran| ran.rsplit('/').next() == Some(program))
            .count()
    }
}

impl Programs for Failing {
    fn run(&self, invocation: &Invocation) -> Result<Output, ProgramError> {
        self.ran.borrow_mut().push(invocation.program.clone());
        if invocation.program.rsplit('/').next() == Some(self.program) {
            return Ok(Output {
                status: Some(32),
                stderr: "wrong fs type, bad option, bad superblock".to_owned(),
                ..Output::default()
            });
        }
        RealPrograms.run(invocation)
    }
}

#[test]
fn a_mount_that_fails_is_never_answered_by_formatting() {
    if !can_run("a_mount_that_fails_is_never_answered_by_formatting") {
        return;
    }
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let device = Loop::attach(&image);
    let wanted = one(&device, "/data", FileSystem::Ext4);
    let failing = Failing::new("mount");
    let mut uuids = Vec::new();
    for attempt in 0..3 {
        let report = bring_up(&wanted, &root.with(&failing), |_| {}).unwrap();
        assert_eq!(report.formatted(), usize::from(attempt == 0));
        let last = report.steps.last().unwrap();
        assert!(
            matches!(&last.outcome, Outcome::Failed(why) if why.contains("bad superblock")),
            "{last:?}"
        );
        let error = report.verdict().unwrap_err();
        assert_eq!(error.exit_code(), 6);
        uuids.push(blkid(&device.path).unwrap());
    }
    assert_eq!(failing.count("mkfs.ext4"), 1);
    uuids.dedup();
    assert_eq!(uuids.len(), 1);
    root.bring_up(&wanted).verdict().unwrap();
    root.unmount_all();
}

#[test]
fn a_file_system_that_cannot_be_mounted_stays_as_it_is() {
    if !can_run("a_file_system_that_cannot_be_mounted_stays_as_it_is") {
        return;
    }
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let path = image.to_str().unwrap();
    rig::run("mkfs.ext4", &["-q", "-O", "^metadata_csum", path]).unwrap();
    // A feature that no kernel knows: the superblock is fine, and mount refuses it.
    let incompatible = 1024 + 96 + 3;
    rig::poke(&image, incompatible, b"\x40");
    let before = rig::digest(&image);
    let device = Loop::attach(&image);
    for _ in 0..3 {
        let report = root.bring_up(&one(&device, "/data", FileSystem::Ext4));
        assert_eq!(report.formatted(), 0);
        report.verdict().unwrap_err();
    }
    drop(device);
    assert_eq!(rig::digest(&image), before);
    assert!(root.mounts().is_empty());
}

#[test]
fn a_disk_that_fails_hinders_no_other() {
    if !can_run("a_disk_that_fails_hinders_no_other") {
        return;
    }
    let root = Root::new();
    let images: Vec<_> = ["a", "b"].iter().map(|name| root.image(name)).collect();
    rig::sparse(&images[0], 320);
    rig::sparse(&images[1], 64);
    let devices: Vec<Loop> = images.iter().map(|image| Loop::attach(image)).collect();
    let mut wanted = one(&devices[0], "/a", FileSystem::Xfs);
    wanted
        .disks
        .extend(one(&devices[1], "/b", FileSystem::Ext4).disks);
    let failing = Failing::new("mkfs.xfs");
    let report = bring_up(&wanted, &root.with(&failing), |_| {}).unwrap();
    let left_out = report
        .steps
        .iter()
        .filter(|record| record.outcome == Outcome::LeftOut)
        .count();
    assert!(left_out > 0);
    assert_eq!(root.mounts().len(), 1);
    let error = report.verdict().unwrap_err();
    assert!(error.to_string().starts_with("disks: 1 of "), "{error}");
    assert!(rig::is_zero(&images[0]));
    root.bring_up(&wanted).verdict().unwrap();
    assert_eq!(root.mounts().len(), 2);
    root.unmount_all();
}

#[test]
fn the_report_holds_the_evidence_for_every_format() {
    if !can_run("the_report_holds_the_evidence_for_every_format") {
        return;
    }
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let device = Loop::attach(&image);
    let failing = Failing::new("mkfs.ext4");
    bring_up(
        &one(&device, "/data", FileSystem::Ext4),
        &root.with(&failing),
        |_| {},
    )
    .unwrap();
    let report = fs::read(root.at("/var/lib/cos-agent/disks.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    let step = &report["steps"][0];
    assert_eq!(step["step"], "format", "{report:#}");
    assert!(step["outcome"]["failed"].is_string(), "{report:#}");
    let zeros = &step["proof"][0]["evidence"]["zeros"];
    assert_eq!(zeros["bytes_read"], 64 << 20);
    assert!(zeros["first_data"].is_null());
    assert_eq!(step["proof"][0]["evidence"]["blkid"], "nothing");
    // And for good, under the name of the file system, whatever later runs do.
    root.bring_up(&one(&device, "/data", FileSystem::Ext4))
        .verdict()
        .unwrap();
    root.bring_up(&one(&device, "/data", FileSystem::Ext4))
        .verdict()
        .unwrap();
    let (_, uuid) = blkid(&device.path).unwrap();
    let proof = fs::read(root.at(&format!("/var/lib/cos-agent/formatted/{uuid}.json"))).unwrap();
    let proof: serde_json::Value = serde_json::from_slice(&proof).unwrap();
    assert_eq!(proof["proof"][0]["evidence"]["zeros"]["whole"], true, "{proof:#}");
    root.unmount_all();
}
