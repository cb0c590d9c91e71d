//! Owns `FakeCloud`: a stateful cloud in memory that can fail, lose replies, go dark or die at any call.
//! Touches nothing; for tests of this crate and of the end-to-end crate.

mod faults;
mod port;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{ImageFacts, ImageId, ImageState, InstanceId, LaunchSpec, Resource, SnapshotId, Subnet};
use faults::Script;
pub use faults::{Call, Fault};
pub(crate) use world::refused;
use world::{Image, Life, World};

/// A cloud in memory. Clones share one state, so a test keeps one and gives one away.
///
/// Nothing takes time: a transitional state lasts a number of looks (`patience`), never seconds. Each call yields to
/// the runtime before and after its effect, so a caller that drops a creating call loses its reply, as in life.
#[derive(Clone)]
pub struct FakeCloud {
    world: Arc<Mutex<World>>,
    script: Arc<Mutex<Script>>,
    dead: Arc<watch::Sender<bool>>,
}

impl Default for FakeCloud {
    fn default() -> Self {
        Self::new()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeCloud {
    /// An account with nothing in it: no parameter, no image, no network.
    pub fn new() -> Self {
        Self {
            world: Arc::default(),
            script: Arc::default(),
            dead: Arc::new(watch::Sender::new(false)),
        }
    }

    /// An account with a default subnet in each of two zones (`eu-central-1a`, `eu-central-1b`) and the public
    /// parameters and images of Amazon Linux 1, 2 and 2023 (root 8 GiB).
    pub fn standard() -> Self {
        let cloud = Self::new()
            .with_subnet("subnet-0000000a", "eu-central-1a", true)
            .with_subnet("subnet-0000000b", "eu-central-1b", true);
        let prefix = "/aws/service/ami-amazon-linux-latest";
        let bases = [
            ("amzn-ami-hvm-x86_64-gp2", "ami-0000000000000001a", "x86_64"),
            ("amzn2-ami-hvm-x86_64-gp2", "ami-0000000000000002a", "x86_64"),
            ("amzn2-ami-hvm-arm64-gp2", "ami-0000000000000002b", "arm64"),
            (
                "al2023-ami-kernel-default-x86_64",
                "ami-0000000000000003a",
                "x86_64",
            ),
            (
                "al2023-ami-kernel-default-arm64",
                "ami-0000000000000003b",
                "arm64",
            ),
        ];
        bases.into_iter().fold(cloud, |cloud, (name, id, architecture)| {
            cloud
                .with_parameter(&format!("{prefix}/{name}"), id)
                .with_image(Self::base_image(id, name, architecture))
        })
    }

    /// What an image of Amazon's looks like.
    pub fn base_image(id: &str, name: &str, architecture: &str) -> ImageFacts {
        ImageFacts {
            id: ImageId::from(id),
            name: name.to_owned(),
            description: format!("Amazon Linux, {name}"),
            state: ImageState::Available,
            reason: None,
            owner: "137112412989".to_owned(),
            owner_alias: None,
            architecture: architecture.to_owned(),
            created: "2026-10-01T00:00:00.000Z".to_owned(),
            root_device: "/dev/xvda".to_owned(),
            root_size_gib: 8,
            snapshots: Vec::new(),
            tags: BTreeMap::new(),
        }
    }

    fn set(self, change: impl FnOnce(&mut World)) -> Self {
        change(&mut locked(&self.world));
        self
    }

    /// Adds a Parameter Store parameter.
    #[must_use]
    pub fn with_parameter(self, name: &str, value: &str) -> Self {
        self.set(|world| {
            world.parameters.insert(name.to_owned(), value.to_owned());
        })
    }

    /// Adds an image.
    #[must_use]
    pub fn with_image(self, facts: ImageFacts) -> Self {
        self.set(|world| {
            let snapshots = facts.snapshots.clone();
            world.images.insert(
                facts.id.clone(),
                Image {
                    facts,
                    wait: 0,
                    snapshots,
                    doomed: false,
                },
            );
        })
    }

    /// Adds a subnet.
    #[must_use]
    pub fn with_subnet(self, id: &str, zone: &str, default_for_zone: bool) -> Self {
        self.set(|world| {
            world.subnets.push(Subnet {
                id: id.to_owned(),
                zone: zone.to_owned(),
                default_for_zone,
            });
            world
                .subnets
                .sort_by(|one, other| (&one.zone, &one.id).cmp(&(&other.zone, &other.id)));
        })
    }

    /// Offers an instance type in these zones only; a type without a word is offered in each subnet's zone.
    #[must_use]
    pub fn with_offering(self, instance_type: &str, zones: &[&str]) -> Self {
        self.set(|world| {
            let zones = zones.iter().map(|zone| (*zone).to_owned()).collect();
            world.offerings.insert(instance_type.to_owned(), zones);
        })
    }

    /// Launches in this zone fail with `InsufficientInstanceCapacity`.
    #[must_use]
    pub fn with_full_zone(self, zone: &str) -> Self {
        self.set(|world| world.full_zones.push(zone.to_owned()))
    }

    /// Launching is not permitted, neither asked (DryRun) nor done.
    #[must_use]
    pub fn with_launch_denied(self) -> Self {
        self.set(|world| world.launch_denied = true)
    }

    /// Images made from now on end as failed.
    #[must_use]
    pub fn with_failing_images(self) -> Self {
        self.set(|world| world.images_fail = true)
    }

    /// New instances do not show for this many looks (EC2 is eventually consistent).
    #[must_use]
    pub fn with_hidden_instances(self, looks: u32) -> Self {
        self.set(|world| world.hide_new_instances = looks)
    }

    /// Transitional states last this many looks more; 0, the default, means that one look sees each.
    #[must_use]
    pub fn with_patience(self, looks: u32) -> Self {
        self.set(|world| world.patience = looks)
    }

    /// Text of every serial console.
    #[must_use]
    pub fn with_console(self, text: &str) -> Self {
        self.set(|world| text.clone_into(&mut world.console))
    }

    /// What of this account still costs money and will not go by itself: a terminating instance and the volumes that
    /// go with it are left out.
    pub fn live(&self) -> Vec<Resource> {
        let world = locked(&self.world);
        let live = world.live().into_iter().map(|tagged| tagged.resource);
        live.filter(|resource| !world.goes_by_itself(resource)).collect()
    }

    /// Tags of a resource, if it exists.
    pub fn tags(&self, resource: &Resource) -> Option<BTreeMap<String, String>> {
        locked(&self.world).tags_of(resource).ok().cloned()
    }

    /// Blocks of a snapshot that were put, by index.
    pub fn blocks(&self, id: &SnapshotId) -> BTreeMap<u32, Vec<u8>> {
        locked(&self.world)
            .snapshots
            .get(id)
            .map(|snapshot| snapshot.blocks.clone())
            .unwrap_or_default()
    }

    /// What an instance was launched with.
    pub fn launched(&self, id: &InstanceId) -> Option<LaunchSpec> {
        locked(&self.world)
            .instances
            .get(id)
            .map(|instance| instance.spec.clone())
    }

    /// A shutdown from inside the machine: terminates or stops it, as it was launched.
    pub fn shut_down_inside(&self, id: &InstanceId) {
        locked(&self.world).shut_down_inside(id);
    }

    /// Whether the instance is running, and how often (this time not counted) its agent was asked for.
    pub(crate) fn running(&self, id: &InstanceId) -> Option<u32> {
        let mut world = locked(&self.world);
        let instance = world
            .instances
            .get_mut(id)
            .filter(|instance| instance.life == Life::Running)?;
        Some(instance.online_asked)
    }

    pub(crate) fn asked_online(&self, id: &InstanceId) {
        if let Some(instance) = locked(&self.world).instances.get_mut(id) {
            instance.online_asked += 1;
        }
    }
}
