//! Owns whether the node still is what its configuration says, and whether the last `apply` came to a good end.
//! Touches what a dry run touches, without the products' validators.

use std::time::Duration;

use super::{Case, Finding};
use crate::node::apply::diff;
use crate::node::pipeline;
use crate::node::report::{BootReport, Outcome};
use crate::node::services;
use crate::node::sources::Imds;

/// The metadata service answers at once or is a finding of its own.
const BUDGET: Duration = Duration::from_secs(4);
/// More changes than this are counted only.
const TOLD: usize = 5;

pub(super) fn check(case: &Case) -> Vec<Finding> {
    let mut findings: Vec<Finding> = last_apply(case).into_iter().collect();
    let manager = services::detect(case.files(), case.programs());
    let imds = Imds::new(&case.patient.imds, BUDGET);
    let compared = pipeline::compare(
        case.files(),
        manager.as_deref(),
        case.patient.programs.as_ref(),
        &imds,
    );
    match compared.map(|compared| diff(&compared.desired, &compared.observed)) {
        Ok(changes) if changes.0.is_empty() => {}
        Ok(changes) => {
            let told: Vec<String> = changes.0.iter().take(TOLD).map(ToString::to_string).collect();
            let more = match changes.0.len().saturating_sub(TOLD) {
                0 => String::new(),
                more => format!("\nand {more} more"),
            };
            findings.push(Finding::warning(
                "the node is not what its configuration says",
                format!("apply would {}{more}", told.join("\n")),
                "cos-agent apply --dry-run; cos-agent apply",
            ));
        }
        Err(error) => findings.push(Finding::note(
            "whether the node is what its configuration says is not known",
            crate::error::chain(&error),
            error
                .hint()
                .unwrap_or_else(|| "cos-agent apply --dry-run".to_owned()),
        )),
    }
    findings
}

fn last_apply(case: &Case) -> Option<Finding> {
    match BootReport::read(case.files()) {
        Ok(Some(BootReport {
            outcome: Outcome::Failed { reason, hint },
            began,
            ..
        })) => Some(Finding::fault(
            "the last apply did not come to a good end",
            format!("{began}: {reason}"),
            hint.unwrap_or_else(|| "cos-agent apply".to_owned()),
        )),
        _ => None,
    }
}
