//! Owns the calls of Auto Scaling: where an instance stands in its group, and what its lifecycle hooks wait for.
//! Touches AWS.

use std::time::Duration;

use roxmltree::Node;

use super::client::Client;
use super::endpoint::Service;
use super::error::{AwsError, Kind};
use super::query::{Form, child, field, list, number, seconds};

const VERSION: &str = "2011-01-01";

/// An instance as its Auto Scaling group sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Instance id.
    pub instance: String,
    /// Name of the group; empty where the group itself was asked.
    pub group: String,
    /// Such as `Pending:Wait`, `InService` or `Terminating:Wait`.
    pub lifecycle_state: String,
    /// Such as `Healthy`.
    pub health: String,
    /// Availability zone.
    pub zone: String,
}

/// An Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Instances that it should have.
    pub desired: u32,
    /// Fewest that it may have.
    pub smallest: u32,
    /// Most that it may have.
    pub largest: u32,
    /// Those that it has, whatever their state.
    pub instances: Vec<Membership>,
}

/// A lifecycle hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifecycleHook {
    /// Name.
    pub name: String,
    /// When it holds an instance.
    pub transition: Transition,
    /// How long it waits after the last sign of life.
    pub heartbeat_timeout: Duration,
    /// How long it waits at most: 48 hours or a hundred heartbeat timeouts, whichever is less.
    pub global_timeout: Duration,
    /// What it takes silence for.
    pub default_result: LifecycleResult,
}

/// When a hook holds an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// After its launch.
    Launching,
    /// Before its end.
    Terminating,
}

/// What a held instance comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleResult {
    /// Goes on: into service, or to its end after the other hooks.
    Continue,
    /// Ends, at once.
    Abandon,
}

impl LifecycleResult {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }
}

/// An instance that a hook holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<'a> {
    /// Name of the group.
    pub group: &'a str,
    /// Name of the hook.
    pub hook: &'a str,
    /// Instance id.
    pub instance: &'a str,
}

impl Client {
    /// DescribeAutoScalingInstances for one instance; none if it belongs to no group.
    pub fn describe_auto_scaling_instance(&self, instance: &str) -> Result<Option<Membership>, AwsError> {
        let form = Form::new("DescribeAutoScalingInstances", VERSION).with("InstanceIds.member.1", instance);
        let (members, _) = self.query(
            Service::AutoScaling,
            "autoscaling:DescribeAutoScalingInstances",
            &form,
            |root| {
                let result = child(root, "DescribeAutoScalingInstancesResult")?;
                let members = list(result, "AutoScalingInstances", "member");
                members.into_iter().map(membership).collect::<Option<Vec<_>>>()
            },
        )?;
        Ok(members.into_iter().find(|member| member.instance == instance))
    }

    /// DescribeAutoScalingGroups for one group; none if there is no such group.
    pub fn describe_auto_scaling_group(&self, name: &str) -> Result<Option<Group>, AwsError> {
        let form =
            Form::new("DescribeAutoScalingGroups", VERSION).with("AutoScalingGroupNames.member.1", name);
        let (groups, _) = self.query(
            Service::AutoScaling,
            "autoscaling:DescribeAutoScalingGroups",
            &form,
            |root| {
                let result = child(root, "DescribeAutoScalingGroupsResult")?;
                let groups = list(result, "AutoScalingGroups", "member");
                groups.into_iter().map(group).collect::<Option<Vec<_>>>()
            },
        )?;
        Ok(groups.into_iter().find(|group| group.name == name))
    }

    /// DescribeLifecycleHooks: all hooks of a group.
    pub fn describe_lifecycle_hooks(&self, group: &str) -> Result<Vec<LifecycleHook>, AwsError> {
        let form = Form::new("DescribeLifecycleHooks", VERSION).with("AutoScalingGroupName", group);
        let (hooks, _) = self.query(
            Service::AutoScaling,
            "autoscaling:DescribeLifecycleHooks",
            &form,
            |root| {
                let result = child(root, "DescribeLifecycleHooksResult")?;
                let hooks = list(result, "LifecycleHooks", "member");
                hooks.into_iter().map(hook).collect::<Option<Vec<_>>>()
            },
        )?;
        Ok(hooks)
    }

    /// CompleteLifecycleAction: lets the instance go its way. A try whose answer was lost may have done it already;
    /// then the next one finds nothing to complete, and that is success.
    pub fn complete_lifecycle_action(&self, held: Held<'_>, result: LifecycleResult) -> Result<(), AwsError> {
        let form = form("CompleteLifecycleAction", held).with("LifecycleActionResult", result.as_str());
        let done = self.query(
            Service::AutoScaling,
            "autoscaling:CompleteLifecycleAction",
            &form,
            |_| Some(()),
        );
        match done {
            Err(error) if error.tries > 1 && nothing_held(&error) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// RecordLifecycleActionHeartbeat: starts the hook's heartbeat timeout again.
    pub fn record_lifecycle_action_heartbeat(&self, held: Held<'_>) -> Result<(), AwsError> {
        let form = form("RecordLifecycleActionHeartbeat", held);
        let done = self.query(
            Service::AutoScaling,
            "autoscaling:RecordLifecycleActionHeartbeat",
            &form,
            |_| Some(()),
        );
        done.map(|_| ())
    }
}

impl AwsError {
    /// Whether a lifecycle call failed because no hook holds the instance (any more): it was completed, or the hook
    /// took silence for an answer.
    pub fn is_nothing_held(&self) -> bool {
        nothing_held(self)
    }
}

/// Auto Scaling has no code of its own for it: `ValidationError`, "No active Lifecycle Action found with instance ID …".
fn nothing_held(error: &AwsError) -> bool {
    matches!(&error.kind, Kind::Rejected { code, message, .. }
        if code == "ValidationError" && message.to_ascii_lowercase().contains("no active lifecycle action"))
}

fn form(operation: &str, held: Held<'_>) -> Form {
    Form::new(operation, VERSION)
        .with("AutoScalingGroupName", held.group)
        .with("LifecycleHookName", held.hook)
        .with("InstanceId", held.instance)
}

fn membership(node: Node<'_, '_>) -> Option<Membership> {
    Some(Membership {
        instance: field(node, "InstanceId")?,
        group: field(node, "AutoScalingGroupName").unwrap_or_default(),
        lifecycle_state: field(node, "LifecycleState")?,
        health: field(node, "HealthStatus")?,
        zone: field(node, "AvailabilityZone")?,
    })
}

fn group(node: Node<'_, '_>) -> Option<Group> {
    let instances = list(node, "Instances", "member");
    Some(Group {
        name: field(node, "AutoScalingGroupName")?,
        desired: number(node, "DesiredCapacity")?,
        smallest: number(node, "MinSize")?,
        largest: number(node, "MaxSize")?,
        instances: instances.into_iter().map(membership).collect::<Option<_>>()?,
    })
}

fn hook(node: Node<'_, '_>) -> Option<LifecycleHook> {
    let transition = match field(node, "LifecycleTransition")?.as_str() {
        "autoscaling:EC2_INSTANCE_LAUNCHING" => Transition::Launching,
        "autoscaling:EC2_INSTANCE_TERMINATING" => Transition::Terminating,
        _ => return None,
    };
    let default_result = match field(node, "DefaultResult").as_deref() {
        Some("CONTINUE") => LifecycleResult::Continue,
        // The API's own default.
        Some("ABANDON") | None => LifecycleResult::Abandon,
        Some(_) => return None,
    };
    let heartbeat_timeout = seconds(node, "HeartbeatTimeout").unwrap_or(Duration::from_hours(1));
    Some(LifecycleHook {
        name: field(node, "LifecycleHookName")?,
        transition,
        heartbeat_timeout,
        global_timeout: seconds(node, "GlobalTimeout")
            .unwrap_or_else(|| (heartbeat_timeout * 100).min(Duration::from_hours(48))),
        default_result,
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
            text in r"(</?(member|Instances|MinSize|DesiredCapacity|HeartbeatTimeout|InstanceId)>|-?[0-9]{1,20}|[a-zA-Z:_ ]{1,9}|&amp;){0,40}",
        ) {
            if let Ok(document) = Document::parse(&format!("<member>{text}</member>")) {
                let root = document.root_element();
                let _ = (membership(root), group(root), hook(root));
            }
        }

        #[test]
        fn a_group_is_read_whatever_its_numbers(desired in any::<u64>(), least in any::<u32>(), most in any::<u32>()) {
            let text = format!(
                "<member><AutoScalingGroupName>g</AutoScalingGroupName><MinSize>{least}</MinSize>\
                 <MaxSize>{most}</MaxSize><DesiredCapacity>{desired}</DesiredCapacity></member>"
            );
            let document = Document::parse(&text).unwrap();
            let read = group(document.root_element()).map(|group| group.desired);
            prop_assert_eq!(read, u32::try_from(desired).ok());
        }

        #[test]
        fn a_hook_never_waits_longer_than_aws_lets_it(heartbeat in any::<u32>()) {
            let text = format!(
                "<member><LifecycleHookName>h</LifecycleHookName><HeartbeatTimeout>{heartbeat}</HeartbeatTimeout>\
                 <LifecycleTransition>autoscaling:EC2_INSTANCE_LAUNCHING</LifecycleTransition></member>"
            );
            let document = Document::parse(&text).unwrap();
            let hook = hook(document.root_element()).unwrap();
            prop_assert!(hook.global_timeout <= Duration::from_hours(48));
            prop_assert_eq!(hook.default_result, LifecycleResult::Abandon);
        }
    }
}
