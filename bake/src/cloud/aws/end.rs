//! Owns the end of resources: machines, volumes, snapshots, and images with what stands behind them.
//! Touches AWS.

use std::time::Duration;

use super::client::{AwsCloud, pause};
use super::{convert, found};
use crate::cloud::{Cloud, CloudError, CloudErrorKind, ImageId, Resource, SnapshotId};

impl AwsCloud {
    pub(super) async fn end(&self, resource: &Resource) -> Result<(), CloudError> {
        match resource {
            Resource::Instance(id) => {
                let ended = self.settled(&id.0, || {
                    self.send("ec2:TerminateInstances", |clients| {
                        clients.ec2.terminate_instances().instance_ids(&id.0).send()
                    })
                });
                found(ended.await)?;
            }
            Resource::Volume(id) => {
                let ended = self.settled(&id.0, || {
                    self.send("ec2:DeleteVolume", |clients| {
                        clients.ec2.delete_volume().volume_id(&id.0).send()
                    })
                });
                found(ended.await)?;
            }
            Resource::Snapshot(id) => self.delete_snapshot(id).await?,
            Resource::Image(id) => self.delete_image(id).await?,
        }
        Ok(())
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<(), CloudError> {
        self.digests().remove(id);
        let ended = self.settled(&id.0, || {
            self.send("ec2:DeleteSnapshot", |clients| {
                clients.ec2.delete_snapshot().snapshot_id(&id.0).send()
            })
        });
        found(ended.await).map(drop)
    }

    /// Deregisters an image and deletes its snapshots. They are looked up first: afterwards nothing leads to them, so
    /// a failure in between is made good by a second call only through their own tags or this description. (EC2 can do
    /// both in one call, `DeleteAssociatedSnapshots`, but skips snapshots without an error where it cannot.)
    async fn delete_image(&self, id: &ImageId) -> Result<(), CloudError> {
        let facts = self.image(id).await?;
        let mut snapshots = facts.map(|facts| facts.snapshots).unwrap_or_default();
        for snapshot in self.snapshots_made_for(id).await? {
            if !snapshots.contains(&snapshot) {
                snapshots.push(snapshot);
            }
        }
        let ended = self.settled(&id.0, || {
            self.send("ec2:DeregisterImage", |clients| {
                clients.ec2.deregister_image().image_id(&id.0).send()
            })
        });
        match found(ended.await) {
            // EC2's word for an image that is deregistered already but still shows.
            Err(error) if error.code.as_deref() == Some("InvalidAMIID.Unavailable") => {}
            ended => {
                ended?;
            }
        }
        for snapshot in snapshots {
            self.delete_snapshot_of_image(&snapshot).await?;
        }
        Ok(())
    }

    /// Snapshots that CreateImage made for an image. A pending image does not show them; their description does,
    /// which EC2 writes as 'Created by CreateImage(i-…) for ami-…'.
    async fn snapshots_made_for(&self, id: &ImageId) -> Result<Vec<SnapshotId>, CloudError> {
        let description = format!("Created by CreateImage*for {}*", id.0);
        let snapshots = self
            .own_snapshots(vec![convert::filter("description", &description)])
            .await?;
        Ok(snapshots
            .into_iter()
            .filter_map(|snapshot| snapshot.snapshot_id)
            .map(SnapshotId)
            .collect())
    }

    /// Right after DeregisterImage, EC2 may still hold the snapshot for in use.
    async fn delete_snapshot_of_image(&self, id: &SnapshotId) -> Result<(), CloudError> {
        const ATTEMPTS: u32 = 6;
        let mut attempt = 0;
        loop {
            match self.delete_snapshot(id).await {
                Err(error) if error.kind == CloudErrorKind::InUse && attempt < ATTEMPTS => {
                    pause(attempt, Duration::from_secs(4)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }
}
