//! Owns whether the node's services run, and whether dockerd finds a packet filter.
//! Touches the service manager (asking), Docker's socket, and the programs' folders.

use super::{Case, Finding};
use crate::node::config::Role;
use crate::node::health::LocalApis;
use crate::node::render::Unit;
use crate::node::services::{self, Activity, Condition, ServiceManager};

pub(super) fn check(case: &Case) -> Vec<Finding> {
    let Some(roles) = case.roles() else {
        return Vec::new();
    };
    let mut units = vec![Unit::Consul];
    if case.is_watched() {
        units.push(Unit::Watch);
    }
    if case.has(Role::NomadClient) {
        units.extend([Unit::Containerd, Unit::Docker]);
    }
    if roles.has_nomad() {
        units.push(Unit::Nomad);
    }
    let Some(manager) = services::detect(case.files(), case.programs()) else {
        return vec![Finding::fault(
            "nothing starts services here",
            "neither systemd nor System V scripts were found",
            "cos-agent configures instances of images that cos-bake made",
        )];
    };
    let names: Vec<&str> = units.iter().map(|unit| unit.name()).collect();
    let conditions = match manager.conditions(&names) {
        Ok(conditions) => conditions,
        Err(error) => {
            return vec![Finding::fault(
                "the service manager does not answer",
                error.to_string(),
                "systemctl status; a reboot, if PID 1 hangs",
            )];
        }
    };
    let mut findings: Vec<Finding> = names
        .iter()
        .zip(&conditions)
        .flat_map(|(name, condition)| judge(name, condition, manager.as_ref()))
        .collect();
    let docker = units.iter().position(|unit| *unit == Unit::Docker);
    if docker.is_some_and(|index| conditions[index].activity == Activity::Active) {
        let apis = LocalApis::new(
            &case.patient.consul,
            &case.patient.nomad,
            case.patient.docker.clone(),
        );
        if let Err(reason) = apis.docker_ping() {
            findings.push(Finding::fault(
                "Docker runs and does not answer",
                reason,
                "journalctl --unit docker --unit containerd --lines 50; systemctl restart docker",
            ));
        }
    }
    findings
}

fn judge(name: &str, condition: &Condition, manager: &dyn ServiceManager) -> Vec<Finding> {
    let mut findings = Vec::new();
    let fix = format!("journalctl --unit {name} --lines 50; then: cos-agent apply");
    let state = match &condition.activity {
        Activity::Activating(how) if condition.activity.ended_badly() => {
            Some((format!("{name} ends and is started again and again"), how.clone()))
        }
        // Consul is up before it has joined others.
        Activity::Active | Activity::Activating(_) | Activity::Changing => None,
        Activity::Failed(how) => Some((format!("{name} failed"), how.clone())),
        Activity::Inactive => Some((format!("{name} does not run"), "inactive".to_owned())),
        Activity::Absent => Some((format!("there is no service {name}"), "not found".to_owned())),
    };
    if let Some((fact, how)) = state {
        let said = manager.last_words(name);
        let said = said
            .last()
            .map_or(String::new(), |line| format!("\nlast said: {line}"));
        findings.push(Finding::fault(fact, format!("{how}{said}"), fix));
    } else if !condition.enabled {
        findings.push(Finding::warning(
            format!("{name} runs and does not start at boot"),
            "it is not enabled",
            "cos-agent apply",
        ));
    }
    findings
}

/// dockerd looks for `iptables` and does not start without one.
pub(super) fn packet_filter(case: &Case) -> Vec<Finding> {
    if !case.has(Role::NomadClient) {
        return Vec::new();
    }
    let folders = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    let there = |name: &str| {
        folders
            .iter()
            .any(|folder| case.files().locate(format!("{folder}/{name}")).is_file())
    };
    if there("iptables") {
        return Vec::new();
    }
    let evidence = if there("nft") {
        "there is nft, and no program named iptables"
    } else {
        "there is neither iptables nor nft"
    };
    vec![Finding::fault(
        "dockerd finds no packet filter and does not start",
        evidence,
        "dnf install iptables-nft (Amazon Linux 2023), yum install iptables; cos-bake puts it into the image",
    )]
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;
    use crate::host::{Invocation, Output, ProgramError, Programs};

    struct Journal;

    impl Programs for Journal {
        fn run(&self, _: &Invocation) -> Result<Output, ProgramError> {
            Ok(Output {
                status: Some(0),
                stdout: "first\nbind: address in use\n".to_owned(),
                stderr: String::new(),
            })
        }
    }

    #[test]
    fn each_condition_is_judged() {
        let systemd = services::Systemd::new(&Journal);
        let told = |enabled, activity| -> Vec<(Severity, String, String)> {
            let findings = judge("consul", &Condition { enabled, activity }, &systemd);
            findings
                .into_iter()
                .map(|finding| (finding.severity, finding.fact, finding.evidence))
                .collect()
        };
        assert_eq!(told(true, Activity::Active), []);
        assert_eq!(
            told(true, Activity::Activating("start, result success".to_owned())),
            []
        );
        let [(severity, fact, evidence)] = &told(true, Activity::Failed("result exit-code".to_owned()))[..]
        else {
            panic!()
        };
        assert_eq!((*severity, fact.as_str()), (Severity::Fault, "consul failed"));
        assert_eq!(evidence, "result exit-code\nlast said: bind: address in use");
        let restless = told(
            true,
            Activity::Activating("auto-restart, result exit-code".to_owned()),
        );
        assert_eq!(restless[0].1, "consul ends and is started again and again");
        assert_eq!(told(false, Activity::Active)[0].0, Severity::Warning);
        assert_eq!(told(false, Activity::Absent)[0].1, "there is no service consul");
    }
}
