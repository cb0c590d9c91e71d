//! Owns the tree of metadata of one machine: which path answers what, and how folders are listed.
//! Touches nothing; a pure function of what the service knows.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::Subject;
use crate::machines::network::{block_of, host_name, mac};

/// All leaves of one machine, by path below the version.
pub(super) struct Tree {
    leaves: BTreeMap<String, String>,
}

impl Tree {
    /// The tree of a machine as it is now.
    pub(super) fn of(subject: &Subject) -> Self {
        let mut leaves = BTreeMap::new();
        let mut set = |path: &str, value: &str| {
            leaves.insert(path.to_owned(), value.to_owned());
        };
        let metadata = &subject.metadata;
        let address = subject.address.to_string();
        let name = host_name(subject.address, &metadata.region);
        let mac = mac(subject.address);
        let block = block_of(subject.address);
        let reservation = format!("r-{}", subject.id.trim_start_matches("i-"));

        set("meta-data/ami-id", &metadata.image);
        set("meta-data/ami-launch-index", "0");
        set("meta-data/ami-manifest-path", "(unknown)");
        set("meta-data/block-device-mapping/ami", "/dev/xvda");
        set("meta-data/block-device-mapping/root", "/dev/xvda");
        set("meta-data/hostname", &name);
        set("meta-data/instance-action", "none");
        set("meta-data/instance-id", &subject.id);
        set("meta-data/instance-life-cycle", "on-demand");
        set("meta-data/instance-type", &metadata.instance_type);
        set("meta-data/local-hostname", &name);
        set("meta-data/local-ipv4", &address);
        set("meta-data/mac", &mac);
        set("meta-data/profile", "default-hvm");
        set("meta-data/reservation-id", &reservation);
        set("meta-data/security-groups", "default");
        set("meta-data/services/domain", "amazonaws.com");
        set("meta-data/services/partition", "aws");
        set("meta-data/system", "nitro");
        set("meta-data/placement/availability-zone", &metadata.zone);
        set(
            "meta-data/placement/availability-zone-id",
            &zone_id(&metadata.region, &metadata.zone),
        );
        set("meta-data/placement/region", &metadata.region);

        let interface = |leaf: &str| format!("meta-data/network/interfaces/macs/{mac}/{leaf}");
        set(&interface("device-number"), "0");
        set(
            &interface("interface-id"),
            &format!("eni-{}", subject.id.trim_start_matches("i-")),
        );
        set(&interface("local-hostname"), &name);
        set(&interface("local-ipv4s"), &address);
        set(&interface("mac"), &mac);
        set(&interface("owner-id"), &metadata.account);
        set(&interface("security-groups"), "default");
        set(&interface("subnet-ipv4-cidr-block"), &block);
        set(&interface("vpc-ipv4-cidr-block"), &block);
        set(&interface("vpc-ipv4-cidr-blocks"), &block);

        if let Some(role) = &metadata.role {
            let now = Timestamp::now();
            let expires = now.checked_add(SignedDuration::from_hours(6)).unwrap_or(now);
            let info = json!({
                "Code": "Success",
                "LastUpdated": second(now),
                "InstanceProfileArn":
                    format!("arn:aws:iam::{}:instance-profile/{role}", metadata.account),
                "InstanceProfileId": "AIPASANDBOXSANDBOX000",
            });
            set("meta-data/iam/info", &info.to_string());
            // Known to nobody but the sandbox, which takes any key; the id says whose it is.
            let keys = json!({
                "Code": "Success",
                "LastUpdated": second(now),
                "Type": "AWS-HMAC",
                "AccessKeyId": "ASIASANDBOX000000000",
                "SecretAccessKey": "sandbox-secret-access-key-of-no-account",
                "Token": format!("sandbox-session-of-{}", subject.id),
                "Expiration": second(expires),
            });
            set(
                &format!("meta-data/iam/security-credentials/{role}"),
                &keys.to_string(),
            );
        }
        if metadata.instance_tags {
            for (key, value) in &metadata.tags {
                set(&format!("meta-data/tags/instance/{key}"), value);
            }
        }
        for (path, value) in &metadata.notices {
            set(&format!("meta-data/{path}"), value);
        }
        let document = json!({
            "accountId": metadata.account,
            "architecture": metadata.architecture,
            "availabilityZone": metadata.zone,
            "billingProducts": null,
            "devpayProductCodes": null,
            "imageId": metadata.image,
            "instanceId": subject.id,
            "instanceType": metadata.instance_type,
            "kernelId": null,
            "marketplaceProductCodes": null,
            "pendingTime": subject.pending_time,
            "privateIp": address,
            "ramdiskId": null,
            "region": metadata.region,
            "version": "2017-09-30",
        });
        set("dynamic/instance-identity/document", &format!("{document:#}"));
        if subject.metadata.user_data.is_some() {
            set("user-data", "");
        }
        Self { leaves }
    }

    /// What `path` answers: a leaf's value, or a folder's entries, one a line, folders with a slash.
    pub(super) fn get(&self, path: &str) -> Option<String> {
        let path = path.trim_end_matches('/');
        if let Some(value) = self.leaves.get(path) {
            return Some(value.clone());
        }
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let mut entries: Vec<String> = Vec::new();
        for below in self
            .leaves
            .keys()
            .filter_map(|leaf| leaf.strip_prefix(prefix.as_str()))
        {
            // The names of tags and roles are leaves whatever they hold.
            let whole = matches!(path, "meta-data/tags/instance");
            let entry = match below.split_once('/') {
                Some((folder, _)) if !whole => format!("{folder}/"),
                _ => below.to_owned(),
            };
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        }
        (!entries.is_empty()).then(|| entries.join("\n"))
    }
}

/// Whole seconds in UTC, as the service writes times.
fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Zone id in the manner of AWS: `use1-az1` for `us-east-1a`. Real accounts map letters at random.
fn zone_id(region: &str, zone: &str) -> String {
    let letter = zone
        .strip_prefix(region)
        .and_then(|rest| rest.bytes().next())
        .unwrap_or(b'a');
    let mut parts = region.split('-');
    let place = parts.next().unwrap_or_default();
    let direction: String = parts.next().unwrap_or_default().chars().take(1).collect();
    let number = parts.next().unwrap_or_default();
    format!("{place}{direction}{number}-az{}", letter.saturating_sub(b'a') + 1)
}
