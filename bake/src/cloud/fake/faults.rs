//! Owns the faults of the fake: which call fails, loses its reply, or kills its caller; and the list of all calls.
//! Touches nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::{FakeCloud, locked, refused};
use crate::cloud::{CloudError, CloudErrorKind};

/// Where in a call a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Before the effect: nothing happened.
    Before,
    /// After the effect: it happened, and the caller does not learn of it.
    After,
}

/// One call that reached the fake, through either port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its number, from 0, over both ports.
    pub index: usize,
    /// Operation, such as `ec2:RunInstances`.
    pub operation: &'static str,
    /// What it was about: an id, a name, a script.
    pub subject: String,
}

impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.index, self.operation, self.subject)
    }
}

type Hook = Arc<dyn Fn(&Call) + Send + Sync>;

#[derive(Default)]
pub(super) struct Script {
    calls: Vec<Call>,
    faults: BTreeMap<usize, (Fault, CloudErrorKind)>,
    kills: BTreeMap<usize, Fault>,
    hook: Option<Hook>,
    dark: bool,
}

impl FakeCloud {
    /// Makes call `index` fail, as a server or a network does.
    pub fn fail_at(&self, index: usize, fault: Fault) {
        let kind = match fault {
            Fault::Before => CloudErrorKind::Other,
            Fault::After => CloudErrorKind::Unreachable,
        };
        self.fail_at_with(index, fault, kind);
    }

    /// Makes call `index` fail with this kind of error.
    pub fn fail_at_with(&self, index: usize, fault: Fault, kind: CloudErrorKind) {
        locked(&self.script).faults.insert(index, (fault, kind));
    }

    /// Kills the caller at call `index`: this call and all later ones never return. See `until_killed`.
    pub fn kill_at(&self, index: usize, fault: Fault) {
        locked(&self.script).kills.insert(index, fault);
    }

    /// Kills the caller now.
    pub fn kill(&self) {
        self.dead.send_replace(true);
    }

    /// Runs the caller under test until it ends (its output) or is killed (none): then it is dropped where it stands,
    /// and not one line of it runs again, as after SIGKILL.
    pub async fn until_killed<T>(&self, caller: impl Future<Output = T>) -> Option<T> {
        let mut dead = self.dead.subscribe();
        tokio::select! {
            biased;
            _ = dead.wait_for(|dead| *dead) => None,
            output = caller => Some(output),
        }
    }

    /// Every later call fails as unreachable until `heal`.
    pub fn go_dark(&self) {
        locked(&self.script).dark = true;
    }

    /// Ends faults, darkness and death; what was made stays. A new caller may begin.
    pub fn heal(&self) {
        let mut script = locked(&self.script);
        script.faults.clear();
        script.kills.clear();
        script.hook = None;
        script.dark = false;
        self.dead.send_replace(false);
    }

    /// Calls this at each call, before its effect, so that a test can cancel or kill. It may use the fake.
    pub fn on_call(&self, hook: impl Fn(&Call) + Send + Sync + 'static) {
        locked(&self.script).hook = Some(Arc::new(hook));
    }

    /// All calls so far, of both ports.
    pub fn calls(&self) -> Vec<Call> {
        locked(&self.script).calls.clone()
    }

    /// Number of calls so far, of both ports.
    pub fn call_count(&self) -> usize {
        locked(&self.script).calls.len()
    }

    /// One call: counted, hooked, faulted, with its effect in the middle.
    pub(crate) async fn call<T>(
        &self,
        operation: &'static str,
        subject: impl fmt::Display,
        effect: impl FnOnce() -> Result<T, CloudError>,
    ) -> Result<T, CloudError> {
        let subject = subject.to_string();
        let (call, hook) = {
            let mut script = locked(&self.script);
            let call = Call {
                index: script.calls.len(),
                operation,
                subject,
            };
            script.calls.push(call.clone());
            (call, script.hook.clone())
        };
        if let Some(hook) = hook {
            hook(&call);
        }
        self.gate(&call, Fault::Before).await?;
        let result = effect();
        self.gate(&call, Fault::After).await?;
        result
    }

    async fn gate(&self, call: &Call, moment: Fault) -> Result<(), CloudError> {
        tokio::task::yield_now().await;
        let (fault, kill, dark) = {
            let script = locked(&self.script);
            let fault = script.faults.get(&call.index).copied();
            (fault, script.kills.get(&call.index) == Some(&moment), script.dark)
        };
        if kill {
            self.kill();
        }
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
        if dark && moment == Fault::Before {
            let message = "the fake is dark";
            return Err(refused(
                call.operation,
                CloudErrorKind::Unreachable,
                "Unreachable",
                message,
            ));
        }
        match fault {
            Some((at, kind)) if at == moment => {
                let message = match moment {
                    Fault::Before => format!("injected before the effect of call {call}"),
                    Fault::After => format!("injected: the reply of call {call} was lost"),
                };
                Err(refused(call.operation, kind, "InjectedFault", message))
            }
            _ => Ok(()),
        }
    }
}
