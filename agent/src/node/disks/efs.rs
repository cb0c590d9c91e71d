//! Owns what is done with a file system of Amazon EFS: by plain NFS, or by amazon-efs-utils where TLS is asked for.
//! Touches nothing.

use super::observe::Observed;
use super::plan::{Decision, Draft, also_in_fstab, hides};
use super::spec::EfsSpec;
use super::units::{MountEntry, What};

/// Options that Amazon recommends for plain NFS (EFS user guide, "Recommended NFS mount options").
const NFS: [&str; 7] = [
    "nfsvers=4.1",
    "rsize=1048576",
    "wsize=1048576",
    "hard",
    "timeo=600",
    "retrans=2",
    "noresvport",
];

pub(super) fn draft(spec: &EfsSpec, observed: &Observed) -> Draft {
    let mut draft = Draft::new(&spec.mount_point, spec.target.to_string());
    if spec.tls && !observed.efs_helper {
        return draft.refuse([
            "tls is configured, and amazon-efs-utils (mount.efs) is not installed on this machine".to_owned(),
        ]);
    }
    if !spec.tls && !observed.nfs_helper {
        return draft.refuse([
            "NFS cannot be mounted: nfs-utils (mount.nfs4) is not installed on this machine".to_owned(),
        ]);
    }
    also_in_fstab(&mut draft, observed);
    let entry = entry(spec);
    let point = observed
        .points
        .get(&spec.mount_point)
        .cloned()
        .unwrap_or_default();
    if let Some(mounted) = &point.mounted {
        // By the helper the kernel sees the local end of the tunnel only.
        let host = if spec.tls {
            "127.0.0.1".to_owned()
        } else {
            spec.target.host()
        };
        if !mounted.kind.starts_with("nfs") || !mounted.source.starts_with(&format!("{host}:")) {
            return draft.refuse([format!("{} is mounted there", mounted.source)]);
        }
        draft.mount.decision = Decision::Keep;
        draft.mount.reasons.push("it is mounted".to_owned());
    } else {
        draft.mount.decision = Decision::Mount;
        draft.mount.reasons.push(if spec.tls {
            "by amazon-efs-utils, through TLS".to_owned()
        } else {
            "by NFS 4.1, in clear".to_owned()
        });
        hides(&mut draft, &point);
    }
    draft.mount.entry = Some(entry);
    draft
}

fn entry(spec: &EfsSpec) -> MountEntry {
    let mut options: Vec<String> = Vec::new();
    let (kind, name) = if spec.tls {
        options.push("tls".to_owned());
        if spec.iam {
            options.push("iam".to_owned());
        }
        options.extend(
            spec.access_point
                .iter()
                .map(|point| format!("accesspoint={point}")),
        );
        ("efs", spec.target.helper_name().to_owned())
    } else {
        options.extend(NFS.map(str::to_owned));
        ("nfs4", spec.target.host())
    };
    options.push("_netdev".to_owned());
    options.extend(spec.options.iter().cloned());
    MountEntry {
        what: What::Network(format!("{name}:/")),
        point: spec.mount_point.clone(),
        kind: kind.to_owned(),
        options,
    }
}
