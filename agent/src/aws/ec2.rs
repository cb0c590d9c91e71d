//! Owns the calls of EC2: tags of a resource, volumes of an instance, instances by a tag and whether those may be told.
//! Touches AWS. Nodes need none in the usual case: the metadata service tells tags, devices tell their volumes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use roxmltree::Node;

use super::client::Client;
use super::endpoint::Service;
use super::error::{AwsError, Kind};
use super::query::{Form, field, list, number};

const VERSION: &str = "2016-11-15";

/// An EBS volume that is attached to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Volume id, `vol-…`.
    pub id: String,
    /// Snapshot that it was made of; such a volume is never blank.
    pub snapshot: Option<String>,
    /// Size in GiB.
    pub gib: u32,
    /// Such as `in-use`.
    pub state: String,
    /// Device name that the attachment asked for, such as `/dev/sdf`.
    pub device: Option<String>,
    /// State of the attachment, such as `attached`.
    pub attachment: Option<String>,
}

impl Client {
    /// DescribeTags of one resource: values by key.
    pub fn describe_tags(&self, resource: &str) -> Result<BTreeMap<String, String>, AwsError> {
        let form = filter(Form::new("DescribeTags", VERSION), "resource-id", resource);
        let tags = self.pages(Service::Ec2, "ec2:DescribeTags", &form, "NextToken", |root| {
            let tags = list(root, "tagSet", "item");
            let pair = |node| Some((field(node, "key")?, field(node, "value").unwrap_or_default()));
            tags.into_iter().map(pair).collect()
        })?;
        Ok(tags.into_iter().collect())
    }

    /// Whether DescribeInstances is allowed, by which Consul finds its servers: a dry run, which EC2 answers with an error
    /// in either case.
    pub fn may_describe_instances(&self) -> Result<(), AwsError> {
        const ACTION: &str = "ec2:DescribeInstances";
        let form = Form::new("DescribeInstances", VERSION).with("DryRun", "true");
        match self.query(Service::Ec2, ACTION, &form, |_| Some(())) {
            Ok(_) => Ok(()),
            Err(error) => match &error.kind {
                Kind::Rejected { code, .. } if code == "DryRunOperation" => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// DescribeInstances that run or are about to, with this tag: their private addresses.
    pub fn describe_instances_by_tag(&self, key: &str, value: &str) -> Result<Vec<Ipv4Addr>, AwsError> {
        let form = filter(
            Form::new("DescribeInstances", VERSION),
            &format!("tag:{key}"),
            value,
        );
        let form = form
            .with("Filter.2.Name", "instance-state-name")
            .with("Filter.2.Value.1", "pending")
            .with("Filter.2.Value.2", "running");
        self.pages(
            Service::Ec2,
            "ec2:DescribeInstances",
            &form,
            "NextToken",
            |root| {
                let reservations = list(root, "reservationSet", "item").into_iter();
                let instances =
                    reservations.flat_map(|reservation| list(reservation, "instancesSet", "item"));
                // One that is pending may have none yet.
                let addresses = instances.filter_map(|instance| field(instance, "privateIpAddress"));
                addresses.map(|address| address.parse().ok()).collect()
            },
        )
    }

    /// DescribeVolumes that are attached, or being attached, to one instance.
    pub fn describe_volumes(&self, instance: &str) -> Result<Vec<Volume>, AwsError> {
        let form = filter(
            Form::new("DescribeVolumes", VERSION),
            "attachment.instance-id",
            instance,
        );
        self.pages(Service::Ec2, "ec2:DescribeVolumes", &form, "NextToken", |root| {
            let volumes = list(root, "volumeSet", "item");
            volumes.into_iter().map(|node| volume(node, instance)).collect()
        })
    }
}

fn filter(form: Form, name: &str, value: &str) -> Form {
    form.with("Filter.1.Name", name).with("Filter.1.Value.1", value)
}

fn volume(node: Node<'_, '_>, instance: &str) -> Option<Volume> {
    let attachment = list(node, "attachmentSet", "item")
        .into_iter()
        .find(|attachment| field(*attachment, "instanceId").as_deref() == Some(instance));
    Some(Volume {
        id: field(node, "volumeId")?,
        snapshot: field(node, "snapshotId").filter(|id| !id.is_empty()),
        gib: number(node, "size")?,
        state: field(node, "status")?,
        device: attachment.and_then(|attachment| field(attachment, "device")),
        attachment: attachment.and_then(|attachment| field(attachment, "status")),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roxmltree::Document;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_brings_it_down(
            text in r"(</?(item|attachmentSet|volumeId|size|status|instanceId|snapshotId)/?>|-?[0-9]{1,20}|[a-z:_ -]{1,9}){0,40}",
        ) {
            if let Ok(document) = Document::parse(&format!("<item>{text}</item>")) {
                let _ = volume(document.root_element(), "i-1");
            }
        }
    }
}
