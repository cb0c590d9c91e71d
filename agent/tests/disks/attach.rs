//! Disks that come after the agent has begun to look.

use std::thread;
use std::time::{Duration, Instant};

use cos_agent::host::RealPrograms;
use cos_agent::node::disks::{
    Decision, DiskSource, DiskSpec, Environment, FileSystem, Uevents, bring_up, dry_run,
};

use crate::rig::{self, Root, can_run, request, run};

/// Numbers that losetup does not reach by itself, so that no other test has the device.
fn device(number: u32) -> String {
    format!("/dev/loop{number}")
}

fn wanted(path: &str) -> cos_agent::node::disks::Request {
    request(vec![DiskSpec {
        file_system: FileSystem::Ext4,
        ..DiskSpec::new(DiskSource::Device(path.to_owned()), "/data")
    }])
}

#[test]
fn a_disk_that_comes_later_is_heard_and_not_polled_for() {
    if !can_run("a_disk_that_comes_later_is_heard_and_not_polled_for") {
        return;
    }
    let path = device(201);
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    // The kernel makes the device now, without content: that is not the disk.
    run("losetup", &[&path, image.to_str().unwrap()]).unwrap();
    run("losetup", &["--detach", &path]).unwrap();
    let environment = Environment {
        deadline: Duration::from_secs(30),
        ..root.environment()
    };
    let attached = thread::scope(|scope| {
        let attacher = scope.spawn(|| {
            thread::sleep(Duration::from_millis(400));
            run("losetup", &[&path, image.to_str().unwrap()]).unwrap();
            Instant::now()
        });
        let (observed, plan) = dry_run(&wanted(&path), &environment).unwrap();
        let seen = Instant::now();
        assert_eq!(
            plan.mounts[0].decision,
            Decision::Format,
            "{:?}",
            plan.mounts[0].reasons
        );
        assert!(
            observed.waited_milliseconds >= 300,
            "{}",
            observed.waited_milliseconds
        );
        if Uevents::listen().hears() {
            let heard = observed.heard.join(", ");
            assert!(heard.contains("loop201"), "{heard}");
        }
        (attacher.join().unwrap(), seen)
    });
    // Looking at it takes its time too; a second would mean that it was found by looking again.
    let late = attached.1.saturating_duration_since(attached.0);
    eprintln!("planned {late:?} after the disk came");
    let report = bring_up(&wanted(&path), &environment, |_| {})
        .unwrap()
        .verdict()
        .unwrap();
    assert_eq!(report.formatted(), 1);
    root.unmount_all();
    run("losetup", &["--detach", &path]).unwrap();
}

#[test]
fn a_disk_that_never_comes_ends_the_wait_and_the_error_says_what_was_there() {
    if !can_run("a_disk_that_never_comes_ends_the_wait_and_the_error_says_what_was_there") {
        return;
    }
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let other = rig::Loop::attach(&image);
    let environment = Environment {
        files: &root.files,
        programs: &RealPrograms,
        deadline: Duration::from_millis(300),
    };
    let start = Instant::now();
    let mut both = wanted("/dev/sdzz");
    both.disks.push(DiskSpec {
        file_system: FileSystem::Ext4,
        ..DiskSpec::new(other.source(), "/there")
    });
    let error = bring_up(&both, &environment, |_| {})
        .unwrap()
        .verdict()
        .unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(20));
    let text = error.to_string();
    assert!(
        text.starts_with("/data will not be mounted: /dev/sdzz is not there after 0."),
        "{text}"
    );
    assert!(text.contains(other.path.trim_start_matches("/dev/")), "{text}");
    // The other disk does not wait for ever for one that is not there.
    assert_eq!(root.mounts().len(), 1);
    root.unmount_all();
}
