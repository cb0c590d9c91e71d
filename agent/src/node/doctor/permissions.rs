//! Owns which permissions the node's role lacks, and what a storm of booting nodes would meet.
//! Touches AWS through the port `CloudProbe`, and the products' logs.

use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::api::Api;
use super::{Case, Finding};
use crate::host::Invocation;
use crate::node::config::{self, NodeConfig, Role, SecretSource};
use crate::node::render::CONSUL_CONFIGURATION;
use crate::node::secrets::needs;
use crate::node::sources::{Imds, InstanceFacts, Sources, gather};

/// An action of IAM that a node may need, and that can be tried without changing anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// `ec2:DescribeInstances`: Consul finds its servers by a tag.
    DescribeInstances,
    /// `ecr:GetAuthorizationToken`: Docker pulls images.
    GetAuthorizationToken,
    /// `ssm:GetParameters` of this parameter, and `kms:Decrypt` with its key: secrets and further documents.
    GetParameters(String),
    /// `autoscaling:DescribeAutoScalingInstances`: hooks, and the size of the group.
    DescribeAutoScalingInstances,
}

impl Action {
    /// Its name in a policy.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::DescribeInstances => "ec2:DescribeInstances",
            Self::GetAuthorizationToken => "ecr:GetAuthorizationToken",
            Self::GetParameters(_) => "ssm:GetParameters",
            Self::DescribeAutoScalingInstances => "autoscaling:DescribeAutoScalingInstances",
        }
    }

    /// What it is needed for.
    const fn purpose(&self) -> &'static str {
        match self {
            Self::DescribeInstances => "Consul finds its servers by a tag",
            Self::GetAuthorizationToken => "Docker pulls images from ECR",
            Self::GetParameters(_) => "secrets and further documents are read from Parameter Store",
            Self::DescribeAutoScalingInstances => "lifecycle hooks and the size of the group",
        }
    }
}

/// What a call met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It is allowed.
    Allowed,
    /// The role may not.
    Denied {
        /// The action that is missing; a parameter's key has a permission of its own.
        missing: String,
        /// What AWS said.
        said: String,
        /// What allows it: the statement of a policy.
        fix: String,
    },
    /// It is allowed, and what was asked for is not there; what AWS said.
    Missing(String),
    /// No answer, throttled, or something else that says nothing about permissions.
    Unknown(String),
}

/// Calls to AWS with the node's own role, none of which changes anything.
pub trait CloudProbe {
    /// Tries an action, within three seconds.
    fn attempt(&self, action: &Action) -> Attempt;

    /// Whether Parameter Store has its higher throughput (service setting
    /// `/ssm/parameter-store/high-throughput-enabled`); none if that may not be asked.
    fn higher_throughput(&self) -> Option<bool>;
}

/// GetParameters per second and account and region without the higher throughput (AWS's service quotas).
const REQUESTS_PER_SECOND: usize = 40;
/// A boot of all nodes at once that is held up for longer than this is worth a word. (Nodes wait for longer.)
const WORTH_A_WORD: usize = 25;

pub(super) fn check(case: &Case) -> Vec<Finding> {
    let mut findings: Vec<Finding> = ["consul", "nomad", "docker"]
        .into_iter()
        .filter_map(|unit| refused_in_log(case, unit))
        .collect();
    let Some(cloud) = &case.patient.cloud else {
        return findings;
    };
    let actions = needed(case);
    // Side by side: each may take its three seconds.
    let attempts: Vec<(&Action, Attempt)> = thread::scope(|scope| {
        let asked: Vec<_> = actions
            .iter()
            .map(|action| (action, scope.spawn(|| cloud.attempt(action))))
            .collect();
        let join = |(action, asked): (_, thread::ScopedJoinHandle<'_, Attempt>)| {
            (
                action,
                asked
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            )
        };
        asked.into_iter().map(join).collect()
    });
    findings.extend(
        attempts
            .into_iter()
            .filter_map(|(action, attempt)| judge(action, attempt)),
    );
    if actions
        .iter()
        .any(|action| matches!(action, Action::GetParameters(_)))
    {
        let nodes = members(case);
        findings.extend(cloud.higher_throughput().and_then(|higher| storm(nodes, higher)));
    }
    findings
}

fn judge(action: &Action, attempt: Attempt) -> Option<Finding> {
    match attempt {
        Attempt::Allowed => None,
        Attempt::Denied { missing, said, fix } => Some(lacking(&missing, action.purpose(), said, fix)),
        Attempt::Missing(said) => Some(Finding::fault(
            "a parameter that the configuration names is not there",
            said,
            "aws ssm put-parameter --type SecureString --name NAME --value …, or another name in the configuration",
        )),
        Attempt::Unknown(said) => Some(Finding::note(
            format!("whether the role has {} is not known", action.name()),
            said,
            "a way to AWS: an endpoint of the VPC or a NAT gateway",
        )),
    }
}

fn lacking(action: &str, purpose: &str, evidence: String, fix: String) -> Finding {
    Finding::fault(format!("the role lacks {action}: {purpose}"), evidence, fix)
}

/// What the configuration asks of AWS.
fn needed(case: &Case) -> Vec<Action> {
    let consul = case
        .files()
        .read(CONSUL_CONFIGURATION)
        .ok()
        .flatten()
        .unwrap_or_default();
    let mut actions = Vec::new();
    if String::from_utf8_lossy(&consul).contains("provider=aws") {
        actions.push(Action::DescribeInstances);
    }
    if case.has(Role::NomadClient) {
        actions.push(Action::GetAuthorizationToken);
    }
    if let Some((config, facts)) = configuration(case) {
        actions.extend(parameter(&config, &facts).map(Action::GetParameters));
        if config::asks_for_group(&config) {
            actions.push(Action::DescribeAutoScalingInstances);
        }
    }
    actions
}

/// What the node's sources say, without what Parameter Store holds; none if they cannot be read, which is told by
/// another check.
fn configuration(case: &Case) -> Option<(NodeConfig, InstanceFacts)> {
    let imds = Imds::new(&case.patient.imds, Duration::from_secs(2));
    let sources = Sources {
        files: case.files(),
        named: &[],
        imds: Some(&imds),
        parameters: None,
    };
    let gathered = gather(&sources).ok()?;
    Some((config::read(&gathered.documents).ok()?, gathered.facts?))
}

/// One of the parameters that it names: the role may read all of them or, in all likelihood, none.
fn parameter(config: &NodeConfig, facts: &InstanceFacts) -> Option<String> {
    if let Some(document) = config.include.first() {
        return Some(document.to_string());
    }
    // How large the group is makes no difference to the secrets.
    let spec = config::resolve(config, facts, Some(3)).ok()?;
    needs(&spec).into_iter().find_map(|need| match need.source {
        SecretSource::Parameter(name) => Some(name.to_string()),
        SecretSource::File(_) => None,
    })
}

/// A refusal that a product wrote down: `… is not authorized to perform: ec2:DescribeInstances …`.
fn refused_in_log(case: &Case, unit: &str) -> Option<Finding> {
    let service = format!("{unit}.service");
    let journal = [
        "--unit",
        &service,
        "--lines",
        "200",
        "--output",
        "cat",
        "--no-pager",
    ];
    let said = case
        .programs()
        .check(&Invocation::new("journalctl", journal, Duration::from_secs(4)))
        .ok()?;
    let (action, line) = said
        .stdout
        .lines()
        .rev()
        .find_map(|line| Some((refused(line)?, line)))?;
    let evidence: String = line.trim().chars().take(300).collect();
    let statement = format!("{{\"Effect\": \"Allow\", \"Action\": \"{action}\", \"Resource\": \"*\"}}");
    Some(lacking(
        action,
        &format!("{unit} was refused"),
        evidence,
        statement,
    ))
}

fn refused(line: &str) -> Option<&str> {
    let (_, after) = line.split_once("not authorized to perform: ")?;
    let end =
        after.find(|character: char| !(character.is_ascii_alphanumeric() || matches!(character, ':' | '-')));
    let action = &after[..end.unwrap_or(after.len())];
    action.contains(':').then_some(action)
}

#[derive(Deserialize)]
struct Member {}

/// How many nodes Consul knows: as many may boot at once.
fn members(case: &Case) -> usize {
    let members: Result<Vec<Member>, _> = Api::new(&case.patient.consul).get("/v1/agent/members");
    members.map_or(0, |members| members.len())
}

fn storm(nodes: usize, higher: bool) -> Option<Finding> {
    (!higher && nodes > REQUESTS_PER_SECOND * WORTH_A_WORD).then(|| {
        Finding::warning(
            "Parameter Store would hold up a boot of all nodes at once",
            format!(
                "{nodes} nodes ask once each, {REQUESTS_PER_SECOND} requests a second are answered: {} s",
                nodes / REQUESTS_PER_SECOND
            ),
            "aws ssm update-service-setting --setting-id \
             arn:aws:ssm:REGION:ACCOUNT:servicesetting/ssm/parameter-store/high-throughput-enabled --setting-value true",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_action() {
        let line = "discover-aws: DescribeInstancesInput failed: UnauthorizedOperation: You are not authorized to \
                    perform: ec2:DescribeInstances because no identity-based policy allows it";
        assert_eq!(
            refused(&line.replace("to                     perform", "to perform")),
            Some("ec2:DescribeInstances")
        );
        assert_eq!(
            refused("is not authorized to perform: ecr:GetAuthorizationToken on resource: *"),
            Some("ecr:GetAuthorizationToken")
        );
        assert_eq!(refused("is not authorized to perform: this"), None);
        assert_eq!(refused("agent: Synced node info"), None);
    }

    #[test]
    fn a_storm_is_told_before_it_is_one() {
        assert!(storm(5000, true).is_none());
        assert!(storm(100, false).is_none());
        let told = storm(5000, false).unwrap();
        assert!(told.evidence.ends_with("125 s"), "{told:?}");
        assert!(told.fix.contains("high-throughput-enabled"));
    }
}
