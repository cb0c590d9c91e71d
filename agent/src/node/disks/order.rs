//! Owns the order of the steps of all mounts together. Touches nothing.

use std::collections::BTreeSet;

use super::observe::Observed;
use super::plan::{Decision, Draft};
use super::spec::Request;
use super::step::{Planned, Step};
use super::units::{self, Keeper, MountEntry};

/// All steps in order: join and format; write down; mount, folders above before those below; grow and owners.
pub(super) fn steps(request: &Request, observed: &Observed, drafts: &[Draft]) -> Vec<Planned> {
    let mut steps = Vec::new();
    for draft in drafts {
        let own = draft.before.iter().cloned();
        steps.extend(own.map(|step| Planned::of(&draft.mount.mount_point, step)));
    }
    let mut order: Vec<&Draft> = drafts
        .iter()
        .filter(|draft| draft.mount.entry.is_some())
        .collect();
    order.sort_by_key(|draft| &draft.mount.mount_point);
    steps.extend(match observed.keeper {
        Keeper::Systemd => unit_steps(request, observed, &order),
        Keeper::Fstab => fstab_steps(request, observed, &order),
    });
    for draft in order {
        let point = &draft.mount.mount_point;
        let Some(entry) = draft.mount.entry.as_ref() else {
            continue;
        };
        let seen = observed.points.get(point).cloned().unwrap_or_default();
        if draft.mount.decision != Decision::Keep {
            if !seen.exists {
                steps.push(Planned::of(point, Step::MakeFolder { path: point.clone() }));
            }
            let mount = Step::Mount {
                entry: entry.clone(),
                device: draft.device.clone(),
            };
            steps.push(Planned::of(point, mount));
        }
        steps.extend(draft.after.iter().cloned().map(|step| Planned::of(point, step)));
    }
    steps
}

fn unit_steps(request: &Request, observed: &Observed, order: &[&Draft]) -> Vec<Planned> {
    let mut written = Vec::new();
    let mut enabled = Vec::new();
    let mut mounts = false;
    for (draft, entry) in order
        .iter()
        .filter_map(|draft| Some((draft, draft.mount.entry.as_ref()?)))
    {
        let point = &draft.mount.mount_point;
        let (path, content) = (entry.unit_path(), entry.unit_content());
        if observed.units.get(&path) != Some(&content) {
            written.push(Planned::of(point, Step::Write { path, content }));
        }
        if !observed.enabled.contains(&entry.unit()) {
            enabled.push(Planned::of(point, Step::Enable { unit: entry.unit() }));
        }
        mounts |= draft.mount.decision != Decision::Keep;
    }
    // Units of mounts that nobody asks for any more go; those that are only refused today stay.
    let wanted: BTreeSet<String> = observed
        .points
        .keys()
        .map(|point| format!("{}.mount", units::escape_path(point)))
        .collect();
    let ours = observed
        .units
        .iter()
        .filter(|(_, content)| content.starts_with(units::HEADER));
    for (path, _) in ours {
        let unit = path.rsplit('/').next().unwrap_or_default().to_owned();
        if request.whole && !wanted.contains(&unit) {
            if observed.enabled.contains(&unit) {
                written.push(Planned::shared(Step::Disable { unit }));
            }
            written.push(Planned::shared(Step::Remove { path: path.clone() }));
        }
    }
    // A run may have died after writing a unit and before it was read: nothing is mounted without this.
    if !written.is_empty() || mounts {
        written.push(Planned::shared(Step::ReloadDefinitions));
    }
    written.extend(enabled);
    written
}

fn fstab_steps(request: &Request, observed: &Observed, order: &[&Draft]) -> Vec<Planned> {
    let entries: Vec<MountEntry> = order
        .iter()
        .filter_map(|draft| draft.mount.entry.clone())
        .collect();
    let written: Vec<&str> = entries.iter().map(|entry| entry.point.as_str()).collect();
    let mut keep: Vec<&str> = observed
        .points
        .keys()
        .map(String::as_str)
        .filter(|point| !written.contains(point))
        .collect();
    let other = units::our_points(&observed.fstab);
    if !request.whole {
        keep.extend(other.iter().copied().filter(|point| !written.contains(point)));
    }
    let content = units::fstab(&observed.fstab, &entries, &keep);
    if content == observed.fstab {
        return Vec::new();
    }
    vec![Planned::shared(Step::Write {
        path: units::FSTAB.to_owned(),
        content,
    })]
}
