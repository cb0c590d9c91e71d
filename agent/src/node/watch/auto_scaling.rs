//! Owns speaking to Auto Scaling about this instance: the real side of `LifecycleActions`.
//! Touches AWS, and the metadata service once, for the region.

use std::cell::OnceCell;
use std::time::Duration;

use super::hook::{ActionResult, CallError, GroupInstance, LifecycleActions, LifecycleHook, Transition};
use crate::aws::{self, AwsError, Client, Held, Kind, LifecycleResult};
use crate::node::cloud::client;
use crate::node::sources::Imds;

/// A call that takes longer comes too late for a hook.
const DEADLINE: Duration = Duration::from_secs(10);

/// The metadata service has told the region in the same moment as the notice; the watcher waits for nothing longer.
const FACTS: Duration = Duration::from_secs(5);

/// Auto Scaling, as this instance sees it.
pub(crate) struct AutoScaling<'a> {
    imds: &'a str,
    instance: &'a str,
    client: OnceCell<Client>,
}

impl<'a> AutoScaling<'a> {
    /// Asks nothing until it is used.
    pub(crate) fn new(imds: &'a str, instance: &'a str) -> Self {
        let client = OnceCell::new();
        Self {
            imds,
            instance,
            client,
        }
    }

    fn client(&self) -> Result<&Client, CallError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let facts = Imds::new(self.imds, FACTS)
            .facts()
            .map_err(|error| CallError::Passing(error.to_string()))?;
        let client = client(self.imds, &facts).within(DEADLINE);
        Ok(self.client.get_or_init(|| client))
    }

    fn held<'b>(&'b self, group: &'b str, hook: &'b str) -> Held<'b> {
        let instance = self.instance;
        Held {
            group,
            hook,
            instance,
        }
    }
}

impl LifecycleActions for AutoScaling<'_> {
    fn instance(&self) -> Result<Option<GroupInstance>, CallError> {
        let member = self.client()?.describe_auto_scaling_instance(self.instance);
        let member = member.map_err(failed)?;
        Ok(member.map(|member| GroupInstance {
            group: member.group,
            state: member.lifecycle_state,
        }))
    }

    fn hooks(&self, group: &str) -> Result<Vec<LifecycleHook>, CallError> {
        let hooks = self.client()?.describe_lifecycle_hooks(group).map_err(failed)?;
        let hook = |hook: aws::LifecycleHook| LifecycleHook {
            name: hook.name,
            transition: match hook.transition {
                aws::Transition::Launching => Transition::Launching,
                aws::Transition::Terminating => Transition::Terminating,
            },
            heartbeat_timeout: hook.heartbeat_timeout,
        };
        Ok(hooks.into_iter().map(hook).collect())
    }

    fn complete(&self, group: &str, hook: &str, result: ActionResult) -> Result<(), CallError> {
        let result = match result {
            ActionResult::Continue => LifecycleResult::Continue,
            ActionResult::Abandon => LifecycleResult::Abandon,
        };
        let completed = self
            .client()?
            .complete_lifecycle_action(self.held(group, hook), result);
        completed.map_err(failed)
    }

    fn heartbeat(&self, group: &str, hook: &str) -> Result<(), CallError> {
        let beat = self
            .client()?
            .record_lifecycle_action_heartbeat(self.held(group, hook));
        beat.map_err(failed)
    }
}

/// What an error means to whoever waits at a hook.
fn failed(error: AwsError) -> CallError {
    let said = crate::error::chain(&error);
    let mut said = said.trim_start_matches("error: ").to_owned();
    if let Some(hint) = error.hint() {
        said = format!("{said} ({hint})");
    }
    match &error.kind {
        _ if error.is_nothing_held() => CallError::NoAction(said),
        Kind::Denied { .. } => CallError::Denied(said),
        _ => CallError::Passing(said),
    }
}
