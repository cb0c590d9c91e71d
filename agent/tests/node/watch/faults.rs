//! Wherever the watcher is killed, and whichever effect fails, the story ends as it would have.

use cos_agent::node::watch::{
    ActionResult, Journal, Posture, Progress, Shutdown, Transition, WatchSpec, hold_back,
};

use proptest::prelude::*;

use super::stories::{aim, event, request, spot};
use super::world::{Api, REBALANCE, SCHEDULED, SPOT, World, go_down, hook, job, second, servers, system_job};

/// What counts at the end.
#[derive(Debug, PartialEq, Eq)]
struct End {
    eligible: bool,
    nomad_runs: bool,
    consul_runs: bool,
    consul_maintenance: bool,
    jobs_left: usize,
    completed: Vec<(String, ActionResult)>,
    arriving: bool,
    request: bool,
    expired: bool,
}

fn end(world: &World) -> End {
    world.read(|inner| End {
        eligible: inner.eligible,
        nomad_runs: inner.nomad_runs,
        consul_runs: inner.consul_runs,
        consul_maintenance: inner.consul_maintenance,
        jobs_left: inner.jobs.iter().filter(|job| job.ended.is_none()).count(),
        completed: inner.completed.clone(),
        arriving: world.journal().is_arriving().unwrap(),
        request: world.journal().request().unwrap().is_some(),
        expired: inner.expired,
    })
}

struct Story {
    name: &'static str,
    spec: WatchSpec,
    seconds: u64,
    begin: fn(&World),
}

fn stories() -> Vec<Story> {
    let client = WatchSpec::client;
    let story = |name, seconds, begin| Story {
        name,
        spec: client(),
        seconds,
        begin,
    };
    vec![
        story("spot", 260, |world| {
            world.change(|inner| inner.jobs = vec![job(20), job(45), system_job()]);
            world.at(60, |inner| {
                inner.documents.insert(SPOT, spot("terminate", 180));
            });
        }),
        story("rebalance and back", 400, |world| {
            world.at(50, |inner| {
                inner
                    .documents
                    .insert(REBALANCE, format!(r#"{{"noticeTime": "{}"}}"#, second(50)));
            });
            world.at(200, |inner| {
                inner.documents.remove(REBALANCE);
            });
        }),
        story("scheduled and cancelled during the drain", 4000, |world| {
            world.change(|inner| {
                inner.jobs = vec![job(600)];
                inner
                    .documents
                    .insert(SCHEDULED, event("instance-stop", 1, "active"));
            });
            world.at(3000, |inner| {
                inner.documents.insert(SCHEDULED, "[]".to_owned());
            });
        }),
        story("termination with a hook", 900, |world| {
            world.change(|inner| {
                inner.jobs = vec![job(200), system_job()];
                inner.hooks = vec![hook("down", Transition::Terminating, 120)];
            });
            world.at(50, |inner| {
                aim(inner, "Terminated");
                inner.wait_at("Terminating:Wait", Transition::Terminating);
            });
        }),
        story("standby and back", 900, |world| {
            world.change(|inner| {
                aim(inner, "InService");
                inner.jobs = vec![job(20)];
                inner.hooks = vec![hook("up", Transition::Launching, 120)];
            });
            world.at(50, |inner| aim(inner, "Standby"));
            world.at(300, |inner| {
                aim(inner, "InService");
                inner.wait_at("Pending:Wait", Transition::Launching);
            });
        }),
        story("first boot", 500, |world| {
            hold_back(&world.files).unwrap();
            world.change(|inner| {
                inner.ready_at = Some(40);
                inner.hooks = vec![hook("up", Transition::Launching, 120)];
                inner.wait_at("Pending:Wait", Transition::Launching);
            });
        }),
        story("first boot in vain", 700, |world| {
            hold_back(&world.files).unwrap();
            world.change(|inner| {
                inner.hopeless = true;
                inner.hooks = vec![hook("up", Transition::Launching, 120)];
                inner.wait_at("Pending:Wait", Transition::Launching);
            });
        }),
        story("warm pool", 900, |world| {
            world.change(|inner| {
                aim(inner, "Warmed:Running");
                inner.nomad_runs = false;
                inner.consul_runs = false;
            });
            world.at(300, |inner| aim(inner, "InService"));
        }),
        story("the node's own identity", 600, |world| {
            world.change(|inner| {
                inner.api = Api::Own;
                inner.jobs = vec![job(20), system_job()];
            });
            world.at(50, |inner| aim(inner, "Standby"));
            world.at(300, |inner| aim(inner, "InService"));
        }),
        story("a power-off", 400, |world| {
            world.change(|inner| inner.jobs = vec![job(20)]);
            world.at(50, |inner| go_down(inner, Shutdown::PowerOff));
        }),
        story("an operator", 700, |world| {
            world.journal().ask(&request(Posture::Gone, 0, 400)).unwrap();
            world.change(|inner| inner.jobs = vec![job(30)]);
            let files = world.files.clone();
            world.at(300, move |_| {
                Journal::new(&files)
                    .ask(&request(Posture::Serving, 300, 300))
                    .unwrap();
            });
        }),
        Story {
            name: "maintenance mode",
            spec: WatchSpec {
                consul_maintenance: true,
                ..client()
            },
            seconds: 500,
            begin: |world| {
                world.at(50, |inner| aim(inner, "Standby"));
                world.at(200, |inner| aim(inner, "InService"));
            },
        },
        Story {
            name: "servers",
            spec: WatchSpec {
                nomad_client: false,
                nomad_server: Some(3),
                consul_server: Some(3),
                ..client()
            },
            seconds: 900,
            begin: |world| {
                world.change(|inner| {
                    inner.raft = Some(servers(&[true, true, false]));
                    inner.hooks = vec![hook("down", Transition::Terminating, 120)];
                });
                world.at(50, |inner| {
                    aim(inner, "Terminated");
                    inner.wait_at("Terminating:Wait", Transition::Terminating);
                });
                world.at(200, |inner| inner.raft = Some(servers(&[true, true, true])));
            },
        },
    ]
}

fn run(story: &Story, change: impl FnOnce(&World)) -> (World, End) {
    let world = World::new();
    (story.begin)(&world);
    change(&world);
    world.watch(&story.spec, story.seconds);
    let end = end(&world);
    (world, end)
}

#[test]
fn killed_at_any_effect_the_story_ends_the_same() {
    let mut kills = 0;
    for story in stories() {
        let (world, expected) = run(&story, |_| {});
        let effects = world.effects();
        assert!(effects > 0, "{}", story.name);
        for effect in 0..effects {
            for after in [false, true] {
                let (world, end) = run(&story, |world| {
                    world.change(|inner| inner.kill = Some((effect, after)));
                });
                let told = world.read(|inner| inner.log.join("\n"));
                assert_eq!(
                    end,
                    expected,
                    "{}: killed {} effect {effect}\n{told}",
                    story.name,
                    if after { "after" } else { "before" }
                );
                kills += 1;
            }
        }
    }
    eprintln!("{kills} kills");
    assert!(kills > 100, "only {kills} kills");
}

#[test]
fn an_effect_that_fails_once_or_a_few_times_changes_nothing_about_the_end() {
    let mut failures = 0;
    for story in stories() {
        let (world, expected) = run(&story, |_| {});
        for effect in 0..world.effects() {
            for times in [1, 3] {
                let (world, end) = run(&story, |world| {
                    world.change(|inner| inner.fail = Some((effect, times)));
                });
                let told = world.read(|inner| inner.log.join("\n"));
                assert_eq!(
                    end, expected,
                    "{}: effect {effect} failed {times} times\n{told}",
                    story.name
                );
                failures += 1;
            }
        }
    }
    eprintln!("{failures} failures");
}

#[test]
fn drains_are_never_longer_than_they_were_promised() {
    let story = &stories()[3];
    let (world, _) = run(story, |_| {});
    let first = world.read(|inner| inner.drain.as_ref().unwrap().deadline);
    for effect in 0..world.effects() {
        for after in [false, true] {
            let (world, _) = run(story, |world| {
                world.change(|inner| inner.kill = Some((effect, after)));
            });
            let deadline = world.read(|inner| inner.drain.as_ref().unwrap().deadline);
            // The watcher that is started again five seconds later knows when the notice came.
            assert!(deadline <= first, "effect {effect}: {deadline} after {first}");
        }
    }
}

#[test]
fn a_signal_is_given_once_wherever_the_watcher_is_killed() {
    let begin = |world: &World| {
        world.change(|inner| {
            inner.api = Api::Denies;
            inner.jobs = vec![job(30)];
        });
        world.at(50, |inner| {
            inner.documents.insert(SPOT, spot("terminate", 170));
        });
    };
    let world = World::new();
    begin(&world);
    world.watch(&WatchSpec::client(), 300);
    for effect in 0..world.effects() {
        for after in [false, true] {
            let world = World::new();
            begin(&world);
            world.change(|inner| inner.kill = Some((effect, after)));
            world.watch(&WatchSpec::client(), 300);
            // The world itself refuses a second one. Killed between the journal and the signal there is none:
            // then Nomad is stopped when the time is over, and the node is gone all the same.
            let signals = world
                .deeds()
                .iter()
                .filter(|deed| *deed == "signal nomad")
                .count();
            assert!(
                signals == 1 || (effect == 0 && !after && signals == 0),
                "effect {effect}, after {after}: {signals}"
            );
            assert!(world.read(|inner| !inner.nomad_runs && !inner.consul_runs));
        }
    }
}

/// Something that may happen to a node at any time.
#[derive(Debug, Clone)]
enum Chance {
    Target(&'static str),
    SpotIn(u64),
    NoSpot,
    Rebalance(bool),
    Api(Api),
    Metadata(bool),
    /// Nomad is away for a minute.
    NomadCrash,
    Ask(Posture),
    Jobs(u64),
    PowerOff,
}

fn chance() -> impl Strategy<Value = Chance> {
    let targets = [
        "InService",
        "Standby",
        "Terminated",
        "Detached",
        "Warmed:Stopped",
        "Odd",
    ];
    prop_oneof![
        prop::sample::select(targets.to_vec()).prop_map(Chance::Target),
        (10_u64..200).prop_map(Chance::SpotIn),
        Just(Chance::NoSpot),
        any::<bool>().prop_map(Chance::Rebalance),
        prop::sample::select(vec![Api::Well, Api::Own, Api::Denies, Api::Fails]).prop_map(Chance::Api),
        any::<bool>().prop_map(Chance::Metadata),
        Just(Chance::NomadCrash),
        prop::sample::select(vec![
            Posture::Serving,
            Posture::Ineligible,
            Posture::Drained,
            Posture::Gone
        ])
        .prop_map(Chance::Ask),
        (1_u64..400).prop_map(Chance::Jobs),
        Just(Chance::PowerOff),
    ]
}

fn happen(world: &World, at: u64, chance: Chance) {
    let files = world.files.clone();
    if matches!(chance, Chance::NomadCrash) {
        world.at(at + 60, |inner| inner.set_nomad(true));
    }
    world.at(at, move |inner| match chance {
        Chance::Target(target) => aim(inner, target),
        Chance::SpotIn(seconds) => {
            inner.documents.insert(SPOT, spot("terminate", at + seconds));
        }
        Chance::NoSpot => {
            inner.documents.remove(SPOT);
        }
        Chance::Rebalance(true) => {
            inner
                .documents
                .insert(REBALANCE, format!(r#"{{"noticeTime": "{}"}}"#, second(at)));
        }
        Chance::Rebalance(false) => {
            inner.documents.remove(REBALANCE);
        }
        Chance::Api(api) => inner.api = api,
        Chance::Metadata(well) => inner.metadata_fails = !well,
        Chance::NomadCrash => inner.set_nomad(false),
        Chance::Ask(posture) => Journal::new(&files).ask(&request(posture, at, at + 120)).unwrap(),
        Chance::Jobs(takes) => inner.jobs.push(job(takes)),
        Chance::PowerOff => go_down(inner, Shutdown::PowerOff),
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order, wherever the watcher is killed: it never turns without end, asks Nomad
    /// for nothing that it refuses, signals no process twice, stops no unit in a shutdown; and when all is over and
    /// well again, the node serves as before.
    #[test]
    fn whatever_happens_the_node_serves_again_when_it_is_over(
        chances in prop::collection::vec((1_u64..2000, chance()), 0..14),
        kill in prop::option::of((0_u32..12, any::<bool>())),
        arriving: bool,
    ) {
        let world = World::new();
        if arriving {
            hold_back(&world.files).unwrap();
        }
        world.change(|inner| inner.kill = kill);
        let power_off = chances.iter().any(|(_, chance)| matches!(chance, Chance::PowerOff));
        for (at, chance) in chances {
            happen(&world, at, chance);
        }
        let files = world.files.clone();
        world.at(3000, move |inner| {
            inner.documents.clear();
            inner.metadata_fails = false;
            inner.api = Api::Well;
            aim(inner, "InService");
            Journal::new(&files).withdraw().unwrap();
        });
        let spec = WatchSpec::client();
        world.watch(&spec, 6000);
        if power_off {
            // It stopped with the machine; the next boot goes on.
            world.files.write_atomic("/proc/sys/kernel/random/boot_id", b"boot-2", 0o444).unwrap();
            world.files.remove("/run").unwrap();
            world.change(|inner| {
                inner.shutdown = None;
                inner.drop_happenings();
                inner.documents.clear();
                inner.metadata_fails = false;
                inner.api = Api::Well;
                inner.set_nomad(true);
                inner.consul_runs = true;
                aim(inner, "InService");
            });
            world.journal().withdraw().unwrap();
            world.watch(&spec, 9000);
        }
        let said = world.read(|inner| format!("{}\n{}", inner.log.join("\n"), inner.said.join("\n")));
        prop_assert!(world.read(|inner| inner.nomad_runs && inner.consul_runs), "not a member\n{}", said);
        prop_assert!(world.read(|inner| inner.eligible), "not eligible\n{}", said);
        prop_assert!(!world.journal().is_arriving().unwrap(), "still arriving\n{}", said);
        let state = world.journal().load().unwrap().0;
        prop_assert_eq!(state.progress, Progress::default(), "{}", said);
    }
}
