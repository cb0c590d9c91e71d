//! Owns the port `Cloud`: what a bake needs of EC2, EBS and Parameter Store, in COS's words.
//! Touches nothing; `aws` is the one real implementation, `fake` the one fake.

pub mod aws;
pub mod fake;
mod types;

use std::collections::BTreeMap;
use std::future::Future;

pub use types::*;

/// EC2, EBS and Parameter Store of one region and account.
///
/// Absence is `Ok(None)`; an error is a refusal or a failure. An implementation retries throttling, lost connections
/// and 5xx by itself, within bounds. Every call that creates takes its tags with it: no resource is ever untagged.
pub trait Cloud: Send + Sync {
    /// Id of the caller's account, twelve digits.
    fn account(&self) -> impl Future<Output = Result<String, CloudError>> + Send;

    /// Value of a Parameter Store parameter.
    fn parameter(&self, name: &str) -> impl Future<Output = Result<Option<String>, CloudError>> + Send;

    /// One image, deprecated ones included.
    fn image(&self, id: &ImageId) -> impl Future<Output = Result<Option<ImageFacts>, CloudError>> + Send;

    /// The caller's own image of that name, if there is one.
    fn image_named(&self, name: &str) -> impl Future<Output = Result<Option<ImageFacts>, CloudError>> + Send;

    /// Subnets that a machine can be launched into, sorted by zone and id.
    fn subnets(&self) -> impl Future<Output = Result<Vec<Subnet>, CloudError>> + Send;

    /// Availability zones that offer an instance type, sorted.
    fn zones_offering(
        &self,
        instance_type: &str,
    ) -> impl Future<Output = Result<Vec<String>, CloudError>> + Send;

    /// Asks whether `launch` would be permitted (DryRun), without doing it.
    fn may_launch(&self, spec: &LaunchSpec) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Launches one instance. The same token gives the same instance.
    fn launch(&self, spec: &LaunchSpec) -> impl Future<Output = Result<InstanceId, CloudError>> + Send;

    /// One instance; none if it does not exist, or does not show yet.
    fn instance(
        &self,
        id: &InstanceId,
    ) -> impl Future<Output = Result<Option<InstanceFacts>, CloudError>> + Send;

    /// Asks an instance to stop.
    fn stop(&self, id: &InstanceId) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Last 64 KB of the serial console, for error messages; empty if there is none.
    fn console(&self, id: &InstanceId) -> impl Future<Output = Result<String, CloudError>> + Send;

    /// Starts a snapshot whose blocks are then put. The same token gives the same snapshot.
    fn start_snapshot(
        &self,
        spec: &SnapshotSpec,
    ) -> impl Future<Output = Result<SnapshotId, CloudError>> + Send;

    /// Puts one block of 512 KiB into a started snapshot.
    fn put_block(
        &self,
        id: &SnapshotId,
        index: u32,
        data: Vec<u8>,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Ends a started snapshot. `changed_blocks` is the number of blocks put.
    fn complete_snapshot(
        &self,
        id: &SnapshotId,
        changed_blocks: u32,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// One snapshot.
    fn snapshot(
        &self,
        id: &SnapshotId,
    ) -> impl Future<Output = Result<Option<SnapshotFacts>, CloudError>> + Send;

    /// The caller's own completed snapshots with this tag, newest first.
    fn snapshots_tagged(
        &self,
        key: &str,
        value: &str,
    ) -> impl Future<Output = Result<Vec<SnapshotFacts>, CloudError>> + Send;

    /// Makes a volume from a snapshot. The same token gives the same volume.
    fn create_volume(&self, spec: &VolumeSpec) -> impl Future<Output = Result<VolumeId, CloudError>> + Send;

    /// One volume.
    fn volume(&self, id: &VolumeId) -> impl Future<Output = Result<Option<VolumeFacts>, CloudError>> + Send;

    /// Attaches a volume and sets it to be deleted with the instance.
    fn attach(
        &self,
        volume: &VolumeId,
        instance: &InstanceId,
        device: &str,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Makes an image of a stopped instance. There is no token: a name that is taken is an error of kind `Duplicate`.
    fn create_image(&self, spec: &ImageSpec) -> impl Future<Output = Result<ImageId, CloudError>> + Send;

    /// Sets tags (adds or overwrites).
    fn tag(
        &self,
        resource: &Resource,
        tags: &BTreeMap<String, String>,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Removes tags by key.
    fn untag(
        &self,
        resource: &Resource,
        keys: &[&str],
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Ends a resource: terminates, deletes or deregisters it. One that is gone already is no error.
    fn delete(&self, resource: &Resource) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// The caller's own instances, volumes, snapshots and images that carry a tag; with `value`, that value.
    /// Terminated and terminating instances are left out.
    fn tagged(
        &self,
        key: &str,
        value: Option<&str>,
    ) -> impl Future<Output = Result<Vec<Tagged>, CloudError>> + Send;
}
