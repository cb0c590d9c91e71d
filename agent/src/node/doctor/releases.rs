//! Owns which releases of Consul and Nomad are known to harm a node of ours: one table with its sources.
//! Touches nothing.

use super::{Case, Finding, Severity};
use crate::node::config::Role;
use crate::node::render::{Product, Version};

/// A release, or a range of them, that is known to be bad.
struct Bad {
    product: Product,
    /// First bad release.
    first: Version,
    /// First good release after it.
    fixed: Version,
    severity: Severity,
    /// Role that it harms; every one if none.
    role: Option<Role>,
    fact: &'static str,
}

const fn nomad(
    first: (u32, u32, u32),
    fixed: (u32, u32, u32),
    severity: Severity,
    role: Option<Role>,
    fact: &'static str,
) -> Bad {
    Bad {
        product: Product::Nomad,
        first: Version::new(first.0, first.1, first.2),
        fixed: Version::new(fixed.0, fixed.1, fixed.2),
        severity,
        role,
        fact,
    }
}

/// Source: the products' changelogs. A fix that was carried back to older lines has a row for each line.
const BAD: [Bad; 10] = [
    nomad(
        (1, 7, 0),
        (1, 7, 2),
        Severity::Fault,
        None,
        "1.7.0 and 1.7.1 are to be skipped",
    ),
    nomad((1, 9, 2), (1, 9, 3), Severity::Fault, None, "1.9.2 was withdrawn"),
    nomad(
        (1, 11, 0),
        (1, 11, 1),
        Severity::Warning,
        Some(Role::NomadClient),
        "a client may not drain itself when it stops: its jobs are lost instead of moved",
    ),
    nomad(
        (1, 7, 0),
        (1, 7, 16),
        Severity::Warning,
        None,
        "retry_join gives up after its first failure",
    ),
    nomad(
        (1, 8, 0),
        (1, 8, 8),
        Severity::Warning,
        None,
        "retry_join gives up after its first failure",
    ),
    nomad(
        (1, 9, 0),
        (1, 9, 4),
        Severity::Warning,
        None,
        "retry_join gives up after its first failure",
    ),
    nomad(
        (1, 8, 0),
        (1, 8, 15),
        Severity::Warning,
        Some(Role::NomadClient),
        "under systemd a graceful stop ends early: a drain is cut off",
    ),
    nomad(
        (1, 9, 0),
        (1, 9, 11),
        Severity::Warning,
        Some(Role::NomadClient),
        "under systemd a graceful stop ends early: a drain is cut off",
    ),
    nomad(
        (1, 10, 0),
        (1, 10, 3),
        Severity::Warning,
        Some(Role::NomadClient),
        "under systemd a graceful stop ends early: a drain is cut off",
    ),
    nomad(
        (1, 3, 0),
        (1, 5, 4),
        Severity::Warning,
        Some(Role::NomadClient),
        "it does not know drain_on_shutdown: its jobs stay until they are lost",
    ),
];

pub(super) fn check(case: &Case) -> Vec<Finding> {
    let Some(record) = &case.record else {
        return Vec::new();
    };
    let mut findings: Vec<Finding> = judge(Product::Consul, record.consul, case);
    if record.roles.has_nomad() {
        findings.extend(judge(Product::Nomad, record.nomad, case));
    }
    findings
}

fn judge(product: Product, version: Version, case: &Case) -> Vec<Finding> {
    bad(product, version)
        .filter(|bad| bad.role.is_none_or(|role| case.has(role)))
        .map(|bad| {
            Finding::new(
                bad.severity,
                format!("{product} {version}: {}", bad.fact),
                format!("{product} {version} is installed"),
                format!("bake an image with {product} {} or later (cos.lock)", bad.fixed),
            )
        })
        .collect()
}

fn bad(product: Product, version: Version) -> impl Iterator<Item = &'static Bad> {
    BAD.iter()
        .filter(move |bad| bad.product == product && (bad.first..bad.fixed).contains(&version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bad_releases_are_known() {
        let facts = |version: (u32, u32, u32)| {
            let version = Version::new(version.0, version.1, version.2);
            bad(Product::Nomad, version).count()
        };
        for (version, count) in [
            ((1, 3, 0), 1),
            ((1, 5, 4), 0),
            ((1, 7, 0), 2),
            ((1, 7, 2), 1),
            ((1, 8, 15), 0),
            ((1, 9, 2), 3),
            ((1, 10, 2), 1),
            ((1, 11, 0), 1),
            ((1, 11, 1), 0),
            ((2, 0, 5), 0),
        ] {
            assert_eq!(facts(version), count, "{version:?}");
        }
        assert_eq!(bad(Product::Consul, Version::new(1, 11, 0)).count(), 0);
    }
}
