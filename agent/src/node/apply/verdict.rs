//! Owns which products must judge a configuration before anything happens, and what they said of it before.
//! Touches one file, and reads what the products would read.
//!
//! The rule: nothing that runs is touched for a configuration that was not judged. A product that does not run yet has
//! nothing to lose: it judges its configuration itself when it starts, by the same code as its validator, and what it
//! refuses never runs. Why this is so and what it costs: `_docs/decisions/0010-start-is-the-first-judgement.md`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::judge::{JudgeError, configuration, neighbours};
use super::observe::Observed;
use crate::host::{FileError, Files};
use crate::node::render::{self, DesiredState, FileIdentity, Product, Unit};
use crate::node::services::Activity;

/// Where is kept what was accepted.
const VERDICTS: &str = "/var/lib/cos-agent/verdicts.json";

/// When a product judges a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It has: this binary accepted exactly this.
    Accepted,
    /// Before anything is changed.
    Before,
    /// By starting with it: nothing runs that could suffer.
    ByStart,
}

impl Judgement {
    /// What it rests on, in words.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Accepted => "this binary accepted exactly this before",
            Self::Before => "it runs, and must not be restarted with what it does not take",
            Self::ByStart => "it does not run yet, and judges what it starts with itself",
        }
    }

    /// In one word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Accepted => "not again",
            Self::Before => "before any change",
            Self::ByStart => "by its start",
        }
    }

    fn of(accepted: bool, may_start_first: bool) -> Self {
        match (accepted, may_start_first) {
            (true, _) => Self::Accepted,
            (false, true) => Self::ByStart,
            (false, false) => Self::Before,
        }
    }
}

/// What each product with a configuration has to say.
#[derive(Debug)]
pub(crate) struct Verdicts {
    judgements: BTreeMap<Product, Judgement>,
    digests: BTreeMap<Product, String>,
}

/// What is on disk: digests of what was accepted last, by product.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Kept(BTreeMap<String, String>);

impl Verdicts {
    /// Finds out. `all_before` wants everything judged that was not accepted yet, whether it runs or not.
    pub(crate) fn find(
        desired: &DesiredState,
        observed: &Observed,
        files: &Files,
        all_before: bool,
    ) -> Result<Self, JudgeError> {
        let kept = files.read(VERDICTS)?.unwrap_or_default();
        // Unreadable is as good as none: everything is judged again.
        let kept: Kept = serde_json::from_slice(&kept).unwrap_or_default();
        let mut verdicts = Self {
            judgements: BTreeMap::new(),
            digests: BTreeMap::new(),
        };
        for product in [Product::Consul, Product::Nomad] {
            let written = |path: &&str| matches!(desired.files.get(*path), Some(Some(_)));
            let Some(ours) = configuration(product).filter(written) else {
                continue;
            };
            let digest = digest(product, ours, desired, files)?;
            let accepted = digest.is_some() && kept.0.get(&key(product)) == digest.as_ref();
            let seen = unit(product).and_then(|unit| observed.units.get(&unit));
            let runs = seen.is_some_and(|seen| {
                !matches!(seen.condition.activity, Activity::Inactive | Activity::Failed(_))
            });
            verdicts
                .judgements
                .insert(product, Judgement::of(accepted, !runs && !all_before));
            verdicts.digests.extend(digest.map(|digest| (product, digest)));
        }
        Ok(verdicts)
    }

    /// Every product and when it judges.
    pub(crate) fn judgements(&self) -> impl Iterator<Item = (Product, Judgement)> {
        self.judgements
            .iter()
            .map(|(product, judgement)| (*product, *judgement))
    }

    /// Products that judge at this point.
    pub(crate) fn products(&self, judgement: Judgement) -> Vec<Product> {
        self.judgements()
            .filter(|(_, other)| *other == judgement)
            .map(|(product, _)| product)
            .collect()
    }

    /// The product that judges by starting this unit.
    pub(crate) fn judged_by_start(&self, of: Unit) -> Option<Product> {
        self.products(Judgement::ByStart)
            .into_iter()
            .find(|product| unit(*product) == Some(of))
    }

    /// Keeps that all of it was accepted, if that is not known yet.
    pub(crate) fn keep(&self, files: &Files) -> Result<(), FileError> {
        if self
            .judgements()
            .all(|(_, judgement)| judgement == Judgement::Accepted)
        {
            return Ok(());
        }
        let digests = self.digests.iter();
        let kept = Kept(
            digests
                .map(|(product, digest)| (key(*product), digest.clone()))
                .collect(),
        );
        let text = serde_json::to_vec_pretty(&kept).unwrap_or_default();
        files.write_atomic(VERDICTS, &text, 0o600)
    }
}

const fn unit(product: Product) -> Option<Unit> {
    match product {
        Product::Consul => Some(Unit::Consul),
        Product::Nomad => Some(Unit::Nomad),
        Product::Systemd => None,
    }
}

fn key(product: Product) -> String {
    product.to_string().to_lowercase()
}

/// Over everything that the verdict depends on: which file the binary is, what COS puts below the product's folder,
/// and what operators put beside it. None where there is no binary to identify.
fn digest(
    product: Product,
    ours: &str,
    desired: &DesiredState,
    files: &Files,
) -> Result<Option<String>, JudgeError> {
    let Some(binary) = FileIdentity::of(files, product.binary()) else {
        return Ok(None);
    };
    let folder = format!("/opt/{}/", key(product));
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (path, file) in desired.files.iter().filter(|(path, _)| path.starts_with(&folder)) {
        if let Some(file) = file {
            all.insert(path.clone(), render::digest(&file.content));
        }
    }
    for (path, content) in neighbours(desired, files, Path::new(ours))? {
        let path = path.to_string_lossy().into_owned();
        // What COS writes over is not read any more.
        all.entry(path).or_insert_with(|| render::digest(&content));
    }
    let together = serde_json::to_vec(&(binary, all)).unwrap_or_default();
    Ok(Some(render::digest(&together)))
}

#[cfg(test)]
mod tests {
    use super::super::observe::ObservedUnit;
    use super::*;
    use crate::node::accounts::Accounts;
    use crate::node::config::{self, Role};
    use crate::node::render::{Init, Installed, Version, Versions};
    use crate::node::secrets::Fetched;
    use crate::node::services::Condition;
    use crate::node::sources::InstanceFacts;

    fn desired() -> DesiredState {
        let config = crate::node::sample(Role::NomadClient).unwrap();
        let spec = config::resolve(&config, &InstanceFacts::sample(), None).unwrap();
        let versions = Versions {
            consul: Version::new(1, 21, 5),
            nomad: Version::new(1, 11, 0),
            init: Init::Unknown,
        };
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        let passwd = b"root:x:0:0::/root:/bin/sh\nconsul:x:990:990::/:/bin/false\n";
        files.write_atomic("/etc/passwd", passwd, 0o644).unwrap();
        let group = b"root:x:0:\nconsul:x:990:\nnomad:x:991:\n";
        files.write_atomic("/etc/group", group, 0o644).unwrap();
        let installed = Installed {
            versions,
            accounts: Accounts::read(&files).unwrap(),
        };
        render::render(&spec, &installed, &Fetched::default()).unwrap()
    }

    fn observed(activity: &Activity) -> Observed {
        let mut observed = Observed::default();
        for unit in [Unit::Consul, Unit::Nomad] {
            let condition = Condition {
                enabled: true,
                activity: activity.clone(),
            };
            observed.units.insert(
                unit,
                ObservedUnit {
                    condition,
                    started_with: None,
                    reloaded: None,
                },
            );
        }
        observed
    }

    fn machine() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path());
        for product in [Product::Consul, Product::Nomad] {
            files.write_atomic(product.binary(), b"binary", 0o755).unwrap();
        }
        (folder, files)
    }

    fn judgements(observed: &Observed, files: &Files, all_before: bool) -> Vec<Judgement> {
        let verdicts = Verdicts::find(&desired(), observed, files, all_before).unwrap();
        verdicts.judgements().map(|(_, judgement)| judgement).collect()
    }

    #[test]
    fn only_what_does_not_run_may_start_first() {
        let (_folder, files) = machine();
        let table = [
            (Activity::Inactive, Judgement::ByStart),
            (Activity::Failed("exit-code".to_owned()), Judgement::ByStart),
            (Activity::Active, Judgement::Before),
            (Activity::Activating("auto-restart".to_owned()), Judgement::Before),
            (Activity::Changing, Judgement::Before),
        ];
        for (activity, expected) in table {
            assert_eq!(
                judgements(&observed(&activity), &files, false),
                [expected; 2],
                "{activity:?}"
            );
            assert_eq!(
                judgements(&observed(&activity), &files, true),
                [Judgement::Before; 2]
            );
        }
        // Where nothing could be looked at, nothing is known to run.
        assert_eq!(
            judgements(&Observed::default(), &files, false),
            [Judgement::ByStart; 2]
        );
    }

    #[test]
    fn what_was_accepted_is_not_judged_again_until_anything_of_it_changes() {
        let (_folder, files) = machine();
        let running = observed(&Activity::Active);
        let verdicts = Verdicts::find(&desired(), &running, &files, false).unwrap();
        verdicts.keep(&files).unwrap();
        assert_eq!(files.mode(VERDICTS).unwrap(), Some(0o600));
        assert_eq!(judgements(&running, &files, false), [Judgement::Accepted; 2]);
        assert_eq!(judgements(&running, &files, true), [Judgement::Accepted; 2]);
        // An operator's file beside Consul's, then another Nomad, then a broken note.
        files
            .write_atomic("/opt/consul/config/zz.json", b"{}", 0o640)
            .unwrap();
        assert_eq!(
            judgements(&running, &files, false),
            [Judgement::Before, Judgement::Accepted]
        );
        files
            .write_atomic(Product::Nomad.binary(), b"another", 0o755)
            .unwrap();
        assert_eq!(judgements(&running, &files, false), [Judgement::Before; 2]);
        files.write_atomic(VERDICTS, b"[]", 0o600).unwrap();
        assert_eq!(judgements(&running, &files, false), [Judgement::Before; 2]);
    }

    #[test]
    fn without_a_binary_nothing_is_ever_taken_as_accepted() {
        let (_folder, files) = machine();
        files.remove(Product::Nomad.binary()).unwrap();
        let running = observed(&Activity::Active);
        let verdicts = Verdicts::find(&desired(), &running, &files, false).unwrap();
        verdicts.keep(&files).unwrap();
        assert_eq!(
            judgements(&running, &files, false),
            [Judgement::Accepted, Judgement::Before]
        );
    }
}
