//! Nothing that holds anything is ever formatted: every image, whole and damaged in every way, with a configuration
//! that allows formatting.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cos_agent::node::disks::{
    Decision, Executor, FileSystem, Keeper, Looked, Planned, Request, Step, StepError, bring_up, dry_run,
    step::DeviceRef,
};

use crate::damage::{self, Damage};
use crate::images::{self, Image};
use crate::rig::{self, Loop, Root, one};

#[derive(Debug, Default)]
struct Counts {
    images: AtomicUsize,
    disks: AtomicUsize,
    formatted: AtomicUsize,
    refused: AtomicUsize,
    mounted: AtomicUsize,
    blank_by_damage: AtomicUsize,
    not_applicable: AtomicUsize,
}

#[test]
fn of_everything_that_holds_anything_0_are_formatted() {
    let test = "of_everything_that_holds_anything_0_are_formatted";
    if !rig::can_run(test) {
        return;
    }
    let catalogue = images::catalogue();
    let next = AtomicUsize::new(0);
    let counts = Counts::default();
    let unmade: Mutex<Vec<String>> = Mutex::default();
    let kinds: Mutex<BTreeMap<String, usize>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let root = Root::new();
                let source = root.image("source");
                images::source(&source);
                while let Some(image) = catalogue.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let whole = root.image("whole");
                    if let Err(why) = images::make(image, &whole, &source) {
                        unmade.lock().unwrap().push(format!("{}: {why}", image.name));
                        continue;
                    }
                    assert!(!rig::is_zero(&whole), "{}: nothing was made", image.name);
                    counts.images.fetch_add(1, Ordering::Relaxed);
                    let seed = counts.images.load(Ordering::Relaxed) as u64 * 1000;
                    for damage in damage::all(seed) {
                        let story = format!("{} ({damage:?})", image.name);
                        try_one(&root, image, damage, &whole, &counts, &kinds, &story);
                    }
                    let _ = std::fs::remove_file(root.image("whole.new"));
                }
            });
        }
    });
    let unmade = unmade.into_inner().unwrap();
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    eprintln!(
        "{} kinds of content, {} disks: {} formatted, {} refused, {} mounted as they are; {} damages left nothing at \
         all, {} mean nothing on a large disk",
        count(&counts.images),
        count(&counts.disks),
        count(&counts.formatted),
        count(&counts.refused),
        count(&counts.mounted),
        count(&counts.blank_by_damage),
        count(&counts.not_applicable),
    );
    eprintln!("first objections: {:?}", kinds.into_inner().unwrap());
    for why in &unmade {
        eprintln!("NOT MADE: {why}");
    }
    assert_eq!(count(&counts.formatted), 0);
    let all_made = unmade.is_empty() || std::env::var_os("CI").is_none();
    assert!(all_made, "{} images could not be made", unmade.len());
    assert!(count(&counts.disks) > 500, "only {} disks", count(&counts.disks));
}

fn try_one(
    root: &Root,
    image: &Image,
    damage: Damage,
    whole: &Path,
    counts: &Counts,
    kinds: &Mutex<BTreeMap<String, usize>>,
    story: &str,
) {
    let path = root.image("damaged");
    rig::copy_sparse(whole, &path);
    if !damage::inflict(damage, &path) {
        counts.not_applicable.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if rig::is_zero(&path) {
        counts.blank_by_damage.fetch_add(1, Ordering::Relaxed);
        return;
    }
    counts.disks.fetch_add(1, Ordering::Relaxed);
    let before = rig::digest(&path);
    let device = Loop::attach(&path);
    let mut carried_out = false;
    for file_system in [FileSystem::Xfs, FileSystem::Ext4] {
        let request = one(&device, "/data", file_system);
        let (observed, plan) = dry_run(&request, &root.environment()).unwrap();
        let mount = &plan.mounts[0];
        match mount.decision {
            Decision::Refuse => {
                counts.refused.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut carried_out, true) {
                    carry_out(root, &request, story);
                    forged(root, &observed.disks[0].looked[0], file_system, story);
                }
            }
            Decision::Mount => {
                let kind = file_system.name();
                assert_eq!(image.mountable, Some(kind), "{story} is taken for {kind}");
                counts.mounted.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                counts.formatted.fetch_add(1, Ordering::Relaxed);
                panic!("{story} would be formatted as {file_system}: {:?}", mount.reasons);
            }
        }
        if let Some(reason) = mount.reasons.get(1) {
            let words: Vec<&str> = reason
                .split(" at byte")
                .next()
                .unwrap_or_default()
                .split(':')
                .collect();
            *kinds.lock().unwrap().entry(words[0].to_owned()).or_default() += 1;
        }
    }
    assert!(carried_out, "{story}");
    drop(device);
    assert_eq!(rig::digest(&path), before, "{story} was written on");
}

/// The whole run, as `cos-agent` does it.
fn carry_out(root: &Root, request: &Request, story: &str) {
    let told = |planned: &Planned| assert!(!writes_on_disks(&planned.step), "{story}: {}", planned.step);
    let report = bring_up(request, &root.environment(), told).unwrap();
    assert_eq!(report.formatted(), 0, "{story}");
    assert!(report.verdict().is_err(), "{story}");
    assert!(root.mounts().is_empty(), "{story}");
}

fn writes_on_disks(step: &Step) -> bool {
    !matches!(step, Step::Write { .. })
}

/// Even if a plan said that the disk is to be formatted: the step itself looks again.
fn forged(root: &Root, looked: &Looked, file_system: FileSystem, story: &str) {
    let step = Step::Format {
        device: DeviceRef::of(&looked.device),
        file_system,
        uuid: looked.proposed,
        label: None,
    };
    let proof = Executor::new(root.environment(), Keeper::Fstab).prove(&step);
    assert!(
        matches!(proof, Err(StepError::NotBlank { .. })),
        "{story}: {proof:?}"
    );
}
