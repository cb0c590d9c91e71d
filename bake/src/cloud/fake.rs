//! Owns `FakeCloud`: a stateful cloud in memory that can fail, lose replies, go dark or die at any call.
//! Touches nothing; for tests of this crate and of the end-to-end crate.

#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{
    Cloud, CloudError, CloudErrorKind, ImageFacts, ImageId, ImageSpec, ImageState, InstanceFacts, InstanceId,
    LaunchSpec, Resource, SnapshotFacts, SnapshotId, SnapshotSpec, Subnet, Tagged, VolumeFacts, VolumeId,
    VolumeSpec,
};
pub(crate) use world::refused;
use world::{Image, Life, World};

/// Where in a call a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Before the effect: nothing happened.
    Before,
    /// After the effect: it happened, and the caller does not learn of it.
    After,
}

/// One call that reached the fake, through either port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its number, from 0, over both ports.
    pub index: usize,
    /// Operation, such as `ec2:RunInstances`.
    pub operation: &'static str,
    /// What it was about: an id, a name, a script.
    pub subject: String,
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.index, self.operation, self.subject)
    }
}

type Hook = Arc<dyn Fn(&Call) + Send + Sync>;

#[derive(Default)]
struct Script {
    calls: Vec<Call>,
    faults: BTreeMap<usize, (Fault, CloudErrorKind)>,
    kills: BTreeMap<usize, Fault>,
    hook: Option<Hook>,
    dark: bool,
}

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

    /// Makes call `index` fail, as a server or a network does.
    pub fn fail_at(&self, index: usize, fault: Fault) {
        let kind = match fault {
            Fault::Before => CloudErrorKind::Other,
            Fault::After => CloudErrorKind::Unreachable,
        };
        self.fail_at_with(index, fault, kind);
    }

    /// Makes call `index` fail with this kind of error.
    pub fn fail_at_with(&self, index: usize, fault: Fault, kind: CloudErrorKind) {
        locked(&self.script).faults.insert(index, (fault, kind));
    }

    /// Kills the caller at call `index`: this call and all later ones never return. See `until_killed`.
    pub fn kill_at(&self, index: usize, fault: Fault) {
        locked(&self.script).kills.insert(index, fault);
    }

    /// Kills the caller now.
    pub fn kill(&self) {
        self.dead.send_replace(true);
    }

    /// Runs the caller under test until it ends (its output) or is killed (none): then it is dropped where it stands,
    /// and not one line of it runs again, as after SIGKILL.
    pub async fn until_killed<T>(&self, caller: impl Future<Output = T>) -> Option<T> {
        let mut dead = self.dead.subscribe();
        tokio::select! {
            biased;
            _ = dead.wait_for(|dead| *dead) => None,
            output = caller => Some(output),
        }
    }

    /// Every later call fails as unreachable until `heal`.
    pub fn go_dark(&self) {
        locked(&self.script).dark = true;
    }

    /// Ends faults, darkness and death; what was made stays. A new caller may begin.
    pub fn heal(&self) {
        let mut script = locked(&self.script);
        script.faults.clear();
        script.kills.clear();
        script.hook = None;
        script.dark = false;
        self.dead.send_replace(false);
    }

    /// Calls this at each call, before its effect, so that a test can cancel or kill. It may use the fake.
    pub fn on_call(&self, hook: impl Fn(&Call) + Send + Sync + 'static) {
        locked(&self.script).hook = Some(Arc::new(hook));
    }

    /// All calls so far, of both ports.
    pub fn calls(&self) -> Vec<Call> {
        locked(&self.script).calls.clone()
    }

    /// Number of calls so far, of both ports.
    pub fn call_count(&self) -> usize {
        locked(&self.script).calls.len()
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

    /// One call: counted, hooked, faulted, with its effect in the middle.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        subject: impl fmt::Display,
        effect: impl FnOnce() -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let subject = subject.to_string();
        let (call, hook) = {
            let mut script = locked(&self.script);
            let call = Call {
                index: script.calls.len(),
                operation,
                subject,
            };
            script.calls.push(call.clone());
            (call, script.hook.clone())
        };
        if let Some(hook) = hook {
            hook(&call);
        }
        self.gate(&call, Fault::Before).await?;
        let result = effect();
        self.gate(&call, Fault::After).await?;
        result
    }

    async fn gate(&self, call: &Call, moment: Fault) -> Result<(), CloudError> {
        tokio::task::yield_now().await;
        let (fault, kill, dark) = {
            let script = locked(&self.script);
            let fault = script.faults.get(&call.index).copied();
            (fault, script.kills.get(&call.index) == Some(&moment), script.dark)
        };
        if kill {
            self.kill();
        }
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
        if dark && moment == Fault::Before {
            let message = "the fake is dark";
            return Err(refused(
                call.operation,
                CloudErrorKind::Unreachable,
                "Unreachable",
                message,
            ));
        }
        match fault {
            Some((at, kind)) if at == moment => {
                let message = match moment {
                    Fault::Before => format!("injected before the effect of call {call}"),
                    Fault::After => format!("injected: the reply of call {call} was lost"),
                };
                Err(refused(call.operation, kind, "InjectedFault", message))
            }
            _ => Ok(()),
        }
    }

    async fn world<T>(
        &self,
        operation: &'static str,
        subject: impl fmt::Display,
        effect: impl FnOnce(&mut World) -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        self.call(operation, subject, || effect(&mut locked(&self.world)))
            .await
    }
}

impl Cloud for FakeCloud {
    async fn account(&self) -> Result<String, CloudError> {
        self.world("sts:GetCallerIdentity", "caller", |_| {
            Ok("123456789012".to_owned())
        })
        .await
    }

    async fn parameter(&self, name: &str) -> Result<Option<String>, CloudError> {
        self.world("ssm:GetParameter", name, |world| {
            Ok(world.parameters.get(name).cloned())
        })
        .await
    }

    async fn image(&self, id: &ImageId) -> Result<Option<ImageFacts>, CloudError> {
        self.world("ec2:DescribeImages", id, |world| Ok(world.image(id)))
            .await
    }

    async fn image_named(&self, name: &str) -> Result<Option<ImageFacts>, CloudError> {
        self.world("ec2:DescribeImages", name, |world| Ok(world.image_named(name)))
            .await
    }

    async fn subnets(&self) -> Result<Vec<Subnet>, CloudError> {
        self.world("ec2:DescribeSubnets", "", |world| Ok(world.subnets.clone()))
            .await
    }

    async fn zones_offering(&self, instance_type: &str) -> Result<Vec<String>, CloudError> {
        self.world("ec2:DescribeInstanceTypeOfferings", instance_type, |world| {
            let mut zones = world
                .offerings
                .get(instance_type)
                .cloned()
                .unwrap_or_else(|| world.zones());
            zones.sort();
            Ok(zones)
        })
        .await
    }

    async fn may_launch(&self, spec: &LaunchSpec) -> Result<(), CloudError> {
        self.world("ec2:RunInstances", format!("{} (DryRun)", spec.image), |world| {
            world.launchable(spec).map(drop)
        })
        .await
    }

    async fn launch(&self, spec: &LaunchSpec) -> Result<InstanceId, CloudError> {
        self.world("ec2:RunInstances", &spec.image, |world| world.launch(spec))
            .await
    }

    async fn instance(&self, id: &InstanceId) -> Result<Option<InstanceFacts>, CloudError> {
        self.world("ec2:DescribeInstances", id, |world| Ok(world.instance(id)))
            .await
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), CloudError> {
        self.world("ec2:StopInstances", id, |world| world.stop(id)).await
    }

    async fn console(&self, id: &InstanceId) -> Result<String, CloudError> {
        self.world("ec2:GetConsoleOutput", id, |world| Ok(world.console.clone()))
            .await
    }

    async fn start_snapshot(&self, spec: &SnapshotSpec) -> Result<SnapshotId, CloudError> {
        self.world("ebs:StartSnapshot", &spec.description, |world| {
            world.start_snapshot(spec)
        })
        .await
    }

    async fn put_block(&self, id: &SnapshotId, index: u32, data: Vec<u8>) -> Result<(), CloudError> {
        self.world("ebs:PutSnapshotBlock", format!("{id} block {index}"), |world| {
            world.put_block(id, index, data)
        })
        .await
    }

    async fn complete_snapshot(&self, id: &SnapshotId, changed_blocks: u32) -> Result<(), CloudError> {
        self.world("ebs:CompleteSnapshot", id, |world| {
            world.complete_snapshot(id, changed_blocks)
        })
        .await
    }

    async fn snapshot(&self, id: &SnapshotId) -> Result<Option<SnapshotFacts>, CloudError> {
        self.world("ec2:DescribeSnapshots", id, |world| Ok(world.snapshot(id)))
            .await
    }

    async fn snapshots_tagged(&self, key: &str, value: &str) -> Result<Vec<SnapshotFacts>, CloudError> {
        self.world("ec2:DescribeSnapshots", format!("{key}={value}"), |world| {
            Ok(world.snapshots_tagged(key, value))
        })
        .await
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<VolumeId, CloudError> {
        self.world("ec2:CreateVolume", &spec.snapshot, |world| {
            world.create_volume(spec)
        })
        .await
    }

    async fn volume(&self, id: &VolumeId) -> Result<Option<VolumeFacts>, CloudError> {
        self.world("ec2:DescribeVolumes", id, |world| Ok(world.volume(id)))
            .await
    }

    async fn attach(&self, volume: &VolumeId, instance: &InstanceId, device: &str) -> Result<(), CloudError> {
        let subject = format!("{volume} to {instance}");
        self.world("ec2:AttachVolume", subject, |world| {
            world.attach(volume, instance, device)
        })
        .await?;
        // In life this is a second request: if the reply of the first is lost, it never leaves, and the volume
        // outlives its instance.
        locked(&self.world).delete_on_termination(volume, instance);
        Ok(())
    }

    async fn create_image(&self, spec: &ImageSpec) -> Result<ImageId, CloudError> {
        self.world("ec2:CreateImage", &spec.name, |world| world.create_image(spec))
            .await
    }

    async fn tag(&self, resource: &Resource, tags: &BTreeMap<String, String>) -> Result<(), CloudError> {
        self.world("ec2:CreateTags", resource, |world| {
            world.tags_of(resource).map(|found| found.extend(tags.clone()))
        })
        .await
    }

    async fn untag(&self, resource: &Resource, keys: &[&str]) -> Result<(), CloudError> {
        self.world("ec2:DeleteTags", resource, |world| {
            world
                .tags_of(resource)
                .map(|found| found.retain(|key, _| !keys.contains(&key.as_str())))
        })
        .await
    }

    async fn delete(&self, resource: &Resource) -> Result<(), CloudError> {
        let operation = match resource {
            Resource::Instance(_) => "ec2:TerminateInstances",
            Resource::Volume(_) => "ec2:DeleteVolume",
            Resource::Snapshot(_) => "ec2:DeleteSnapshot",
            Resource::Image(_) => "ec2:DeregisterImage",
        };
        self.world(operation, resource, |world| world.delete(resource))
            .await
    }

    async fn tagged(&self, key: &str, value: Option<&str>) -> Result<Vec<Tagged>, CloudError> {
        let subject = format!("{key}={}", value.unwrap_or("*"));
        self.world("ec2:DescribeTagged", subject, |world| {
            let fits = |tagged: &Tagged| {
                tagged
                    .tags
                    .get(key)
                    .is_some_and(|found| value.is_none_or(|value| found == value))
            };
            Ok(world.live().into_iter().filter(fits).collect())
        })
        .await
    }
}
