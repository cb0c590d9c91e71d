//! Owns `FakeRemote`: answers scripts from a table or a closure, on the machines of a `FakeCloud`.
//! Touches nothing; its calls count and fail with those of the cloud, so one number names a point of a whole bake.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Remote, Script, ScriptOutput};
use crate::cloud::fake::{FakeCloud, refused};
use crate::cloud::{CloudError, CloudErrorKind, InstanceId};

type Answer = Arc<dyn Fn(&InstanceId, &Script) -> Option<ScriptOutput> + Send + Sync>;

#[derive(Default)]
struct Answers {
    by_name: BTreeMap<String, ScriptOutput>,
    by_closure: Option<Answer>,
    otherwise: ScriptOutput,
    asks_before_online: u32,
    ran: Vec<(InstanceId, Script)>,
}

/// Commands on the machines of a `FakeCloud`. Clones share one state.
#[derive(Clone)]
pub struct FakeRemote {
    cloud: FakeCloud,
    answers: Arc<Mutex<Answers>>,
}

impl FakeRemote {
    /// Commands on the machines of this cloud: online at the second ask, each script exits 0 and prints nothing.
    pub fn new(cloud: &FakeCloud) -> Self {
        let otherwise = ScriptOutput {
            status: Some(0),
            ..ScriptOutput::default()
        };
        let answers = Answers {
            otherwise,
            asks_before_online: 1,
            ..Answers::default()
        };
        Self {
            cloud: cloud.clone(),
            answers: Arc::new(Mutex::new(answers)),
        }
    }

    fn set(self, change: impl FnOnce(&mut Answers)) -> Self {
        self.with(change);
        self
    }

    fn with<T>(&self, look: impl FnOnce(&mut Answers) -> T) -> T {
        look(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A script of this name exits 0 and prints this.
    #[must_use]
    pub fn prints(self, name: &str, stdout: &str) -> Self {
        let output = ScriptOutput {
            status: Some(0),
            stdout: stdout.to_owned(),
            stderr: String::new(),
        };
        self.answers(name, output)
    }

    /// A script of this name leaves this behind.
    #[must_use]
    pub fn answers(self, name: &str, output: ScriptOutput) -> Self {
        self.set(|answers| {
            answers.by_name.insert(name.to_owned(), output);
        })
    }

    /// Asked first, before the table; none passes the script on. It may use the cloud, such as to end the machine.
    #[must_use]
    pub fn answers_with(
        self,
        answer: impl Fn(&InstanceId, &Script) -> Option<ScriptOutput> + Send + Sync + 'static,
    ) -> Self {
        self.set(|answers| answers.by_closure = Some(Arc::new(answer)))
    }

    /// What a script that nothing else names leaves behind.
    #[must_use]
    pub fn otherwise(self, output: ScriptOutput) -> Self {
        self.set(|answers| answers.otherwise = output)
    }

    /// Machines are online only after this many asks that say no; `u32::MAX` is never.
    #[must_use]
    pub fn online_after(self, asks: u32) -> Self {
        self.set(|answers| answers.asks_before_online = asks)
    }

    /// Scripts that ran, in order.
    pub fn ran(&self) -> Vec<(InstanceId, Script)> {
        self.with(|answers| answers.ran.clone())
    }
}

impl Remote for FakeRemote {
    async fn online(&self, instance: &InstanceId) -> Result<bool, CloudError> {
        self.cloud
            .call("ssm:DescribeInstanceInformation", instance, || {
                let asks = self.with(|answers| answers.asks_before_online);
                let online = self.cloud.running(instance).is_some_and(|asked| asked >= asks);
                self.cloud.asked_online(instance);
                Ok(online)
            })
            .await
    }

    async fn run(&self, instance: &InstanceId, script: &Script) -> Result<ScriptOutput, CloudError> {
        let subject = format!("{instance} {}", script.name);
        self.cloud
            .call("ssm:SendCommand", subject, || {
                let asks = self.with(|answers| answers.asks_before_online);
                if self.cloud.running(instance).is_none_or(|asked| asked < asks) {
                    let message = format!("instance {instance} is not in a valid state");
                    return Err(refused(
                        "ssm:SendCommand",
                        CloudErrorKind::Other,
                        "InvalidInstanceId",
                        message,
                    ));
                }
                let closure = self.with(|answers| {
                    answers.ran.push((instance.clone(), script.clone()));
                    answers.by_closure.clone()
                });
                let special = closure.and_then(|answer| answer(instance, script));
                Ok(special.unwrap_or_else(|| {
                    self.with(|answers| {
                        answers
                            .by_name
                            .get(&script.name)
                            .unwrap_or(&answers.otherwise)
                            .clone()
                    })
                }))
            })
            .await
    }
}
