//! Killed after every step, and in the middle of them, the next run converges: formatted once, nothing lost.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use cos_agent::host::RealPrograms;
use cos_agent::node::disks::{DiskSpec, Environment, Executor, FileSystem, RootAccess, Step, dry_run};

use crate::rig::{self, Loop, Root, blkid, can_run, request};

/// Carries out the first `steps` steps and dies; tells whether that were all.
fn die_after(root: &Root, wanted: &cos_agent::node::disks::Request, steps: usize) -> bool {
    let environment = root.environment();
    let (observed, plan) = dry_run(wanted, &environment).unwrap();
    let executor = Executor::new(environment, observed.keeper);
    for planned in plan.steps.iter().take(steps) {
        executor.prove(&planned.step).unwrap();
        executor.carry_out(&planned.step).unwrap();
    }
    steps >= plan.steps.len()
}

#[test]
fn killed_after_every_step_the_next_run_converges() {
    if !can_run("killed_after_every_step_the_next_run_converges") {
        return;
    }
    let mut deaths = 0;
    for (file_system, mebibytes) in [(FileSystem::Xfs, 320), (FileSystem::Ext4, 64)] {
        for boot in [false, true] {
            for steps in 0.. {
                let root = Root::new();
                let (first, second) = (root.image("first"), root.image("second"));
                rig::sparse(&first, mebibytes);
                rig::sparse(&second, mebibytes);
                let attach = || (Loop::attach(&first), Loop::attach(&second));
                let wanted = |disks: &(Loop, Loop)| {
                    let spec = |device: &Loop, point: &str| DiskSpec {
                        file_system,
                        root: RootAccess {
                            mode: Some(0o711),
                            ..RootAccess::default()
                        },
                        ..DiskSpec::new(device.source(), point)
                    };
                    request(vec![spec(&disks.0, "/data"), spec(&disks.1, "/data/more")])
                };
                let mut disks = attach();
                let whole = die_after(&root, &wanted(&disks), steps);
                let uuid = blkid(&disks.0.path).ok();
                if root.at("/data").is_dir() {
                    let _ = fs::write(root.at("/data/written"), "between");
                }
                let on_disk = root.mounts().iter().any(|point| point.ends_with("/data"));
                if boot {
                    root.unmount_all();
                    drop(disks);
                    disks = attach();
                }
                let story = format!("{file_system}, died after {steps} steps, boot: {boot}");
                let report = root.bring_up(&wanted(&disks)).verdict().unwrap();
                let (_, after) = blkid(&disks.0.path).unwrap();
                assert!(
                    uuid.is_none_or(|(_, uuid)| uuid == after),
                    "formatted twice: {story}"
                );
                assert!(report.formatted() <= 2 - steps.min(2), "{story}");
                assert_eq!(root.mounts().len(), 2, "{story}");
                if on_disk {
                    assert_eq!(
                        fs::read_to_string(root.at("/data/written")).unwrap(),
                        "between",
                        "{story}"
                    );
                }
                let again = root.bring_up(&wanted(&disks)).verdict().unwrap();
                assert_eq!(again.steps.len(), 0, "{story}: {:?}", again.steps);
                root.unmount_all();
                deaths += 1;
                if whole {
                    break;
                }
            }
        }
    }
    assert!(deaths > 30, "only {deaths} deaths");
}

/// The real command, killed by signal at growing distances: whatever it was in the middle of.
#[test]
fn the_command_killed_at_any_time_converges() {
    if !can_run("the_command_killed_at_any_time_converges") {
        return;
    }
    let agent = env!("CARGO_BIN_EXE_cos-agent");
    let root = Root::new();
    let image = root.image("disk");
    rig::sparse(&image, 64);
    let mut device = Loop::attach(&image);
    let mut seen: Option<String> = None;
    let mut killed = 0;
    let start = |device: &Loop| {
        Command::new(agent)
            .args([
                "disks",
                "--root",
                root.folder.to_str().unwrap(),
                "--json",
                "--map",
            ])
            .arg(format!("{}=/data:ext4", device.path))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for attempt in 0..40 {
        let mut run = start(&device);
        std::thread::sleep(Duration::from_millis(attempt * 5));
        killed += usize::from(run.try_wait().unwrap().is_none());
        let _ = run.kill();
        run.wait().unwrap();
        if attempt % 4 == 3 {
            // What a killed run left behind (mkfs, mount) ends by itself.
            let quiet = || rig::run("fuser", &["-s", &device.path]).is_err();
            (0..100)
                .take_while(|_| !quiet())
                .for_each(|_| std::thread::sleep(Duration::from_millis(20)));
            root.unmount_all();
            if let Ok((_, uuid)) = blkid(&device.path) {
                assert!(seen.is_none_or(|seen| seen == uuid), "formatted twice");
                seen = Some(uuid);
            }
            drop(device);
            device = Loop::attach(&image);
        }
    }
    let output = start(&device).wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (_, uuid) = blkid(&device.path).unwrap();
    assert!(seen.is_none_or(|seen| seen == uuid), "formatted twice");
    assert_eq!(root.mounts().len(), 1);
    assert!(killed > 3, "only {killed} runs were alive when they were killed");
    root.unmount_all();
}

/// mkfs itself killed at each of its first writes: the half-made file system is never taken for blank or for whole.
#[test]
fn a_half_made_file_system_is_left_to_a_person() {
    let test = "a_half_made_file_system_is_left_to_a_person";
    if !can_run(test) || !rig::has(test, &["strace"]) {
        return;
    }
    let mut outcomes = std::collections::BTreeMap::new();
    for (file_system, mebibytes, mkfs) in [
        (
            FileSystem::Xfs,
            320,
            "mkfs.xfs -q -m uuid=c0c0c0c0-0000-4000-8000-000000000001",
        ),
        (
            FileSystem::Ext4,
            64,
            "mkfs.ext4 -q -U c0c0c0c0-0000-4000-8000-000000000001",
        ),
    ] {
        for writes in [1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 22, 30, 40, 60, 100, 1000] {
            let root = Root::new();
            let image = root.image("disk");
            rig::sparse(&image, mebibytes);
            let device = Loop::attach(&image);
            let killed = rig::shell(&format!(
                "! strace -qq -o /dev/null -f -e trace=pwrite64,write -e inject=pwrite64:signal=KILL:when={writes} {mkfs} {} 2>/dev/null",
                device.path
            ));
            let wanted = request(vec![DiskSpec {
                file_system,
                ..DiskSpec::new(device.source(), "/data")
            }]);
            let environment = Environment {
                files: &root.files,
                programs: &RealPrograms,
                deadline: Duration::from_secs(5),
            };
            let (_, plan) = dry_run(&wanted, &environment).unwrap();
            let decision = plan.mounts[0].decision;
            let formats = plan
                .steps
                .iter()
                .any(|planned| matches!(planned.step, Step::Format { .. }));
            assert_eq!(
                formats,
                rig::is_zero(&image),
                "{file_system} after {writes} writes: {:?}",
                plan.mounts[0].reasons
            );
            *outcomes.entry(format!("{file_system} {decision:?}")).or_insert(0) += 1;
            if killed.is_err() {
                break;
            }
        }
    }
    eprintln!("half-made: {outcomes:?}");
}
