//! Owns what all stages of one bake share: ports, ledger, events, cancellation. `create` is the only way to make a
//! resource. Touches the ports and the ledger.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::cloud::{Cloud, CloudError, InstanceId, Resource};
use crate::error::BakeError;
use crate::events::{Event, Events, Stage};
use crate::ledger::{Ledger, LedgerError};
use crate::manifest::Phase;
use crate::remote::{Remote, Script, ScriptOutput};
use crate::wait::{self, Seen};

/// One bake that runs.
pub struct Run<'a, C, R> {
    /// AWS.
    pub cloud: &'a C,
    /// Commands on machines.
    pub remote: &'a R,
    /// Where it says what happens.
    pub events: Events,
    /// Ends waits early; never a create.
    pub cancel: CancellationToken,
    ledger: Mutex<Ledger>,
    phases: Mutex<Vec<Phase>>,
    logs: PathBuf,
    pause: Duration,
}

impl<'a, C: Cloud, R: Remote> Run<'a, C, R> {
    /// A bake over these ports. `logs` is a folder for the output of steps, made when it is first needed.
    pub fn new(
        cloud: &'a C,
        remote: &'a R,
        events: Events,
        cancel: CancellationToken,
        ledger: Ledger,
        logs: PathBuf,
    ) -> Self {
        Self {
            cloud,
            remote,
            events,
            cancel,
            ledger: Mutex::new(ledger),
            phases: Mutex::default(),
            logs,
            pause: wait::PAUSE,
        }
    }

    /// With another time between two polls, for tests on ports that need none.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Time between two polls.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// Makes a resource: refused once cancelled, recorded before it is waited for, never raced against cancel.
    pub async fn create<T>(
        &self,
        what: &str,
        make: impl Future<Output = Result<T, CloudError>>,
    ) -> Result<T, BakeError>
    where
        T: Into<Resource> + Clone,
    {
        if self.cancel.is_cancelled() {
            return Err(BakeError::Interrupted);
        }
        self.ledger().intend(what)?;
        let id = make.await.map_err(BakeError::cloud(format!("create {what}")))?;
        let resource: Resource = id.clone().into();
        let recorded = self.ledger().created(resource.clone());
        self.events.emit(Event::Created { resource });
        recorded?;
        Ok(id)
    }

    /// Records that a resource goes when the instance goes.
    pub fn hand_over(&self, resource: impl Into<Resource>, to: &InstanceId) -> Result<(), LedgerError> {
        self.ledger().handed_over(&resource.into(), to)
    }

    /// Records that a resource stays.
    pub fn keep(&self, resource: impl Into<Resource>) -> Result<(), LedgerError> {
        self.ledger().kept(&resource.into())
    }

    /// Ends one resource now; a failure is left to the cleanup at the end.
    pub async fn release(&self, resource: impl Into<Resource>) -> Result<(), LedgerError> {
        let resource = resource.into();
        if self.cloud.delete(&resource).await.is_ok() {
            self.ledger().released(&resource)?;
            self.events.emit(Event::Released { resource });
        }
        Ok(())
    }

    /// Polls `probe` until it is done, hopeless, past `deadline`, or cancelled.
    pub async fn until<T, F, P>(&self, what: &str, deadline: Duration, probe: P) -> Result<T, BakeError>
    where
        P: FnMut() -> F,
        F: Future<Output = Result<Seen<T>, BakeError>>,
    {
        wait::until(what, deadline, self.pause, &self.cancel, probe).await
    }

    /// Runs the body of a stage between its two events and notes how long it took.
    pub async fn stage<T>(
        &self,
        stage: Stage,
        body: impl Future<Output = Result<(T, String), BakeError>>,
    ) -> Result<T, BakeError> {
        if self.cancel.is_cancelled() {
            return Err(BakeError::Interrupted);
        }
        self.events.emit(Event::StageStarted { stage });
        let start = Instant::now();
        let (value, outcome) = body.await?;
        let seconds = start.elapsed().as_secs_f64();
        self.phases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Phase { stage, seconds });
        self.events.emit(Event::StageFinished {
            stage,
            seconds,
            outcome,
        });
        Ok(value)
    }

    /// Runs a script on a machine, keeps its output in the log folder, and returns it. Cancelling ends the wait only.
    pub async fn script(&self, instance: &InstanceId, script: &Script) -> Result<ScriptOutput, BakeError> {
        let output = tokio::select! {
            output = self.remote.run(instance, script) => output,
            () = self.cancel.cancelled() => return Err(BakeError::Interrupted),
        };
        let output = output.map_err(BakeError::cloud(format!("run `{}` on {instance}", script.name)))?;
        let text = format!(
            "status: {:?}\n--- standard output\n{}\n--- standard error\n{}\n",
            output.status, output.stdout, output.stderr
        );
        let path = self.save_log(&format!("{}.log", script.name.replace(' ', "-")), &text);
        if let (Some(path), true) = (path, output.status != Some(0)) {
            self.events.note(format!(
                "the output of `{}` is in {}",
                script.name,
                path.display()
            ));
        }
        Ok(output)
    }

    /// Keeps the console of a machine that failed, if it can be had, and says where.
    pub async fn save_console(&self, instance: &InstanceId) {
        let console = self.cloud.console(instance).await.unwrap_or_default();
        if !console.is_empty()
            && let Some(path) = self.save_log(&format!("{instance}-console.log"), &console)
        {
            self.events
                .note(format!("the console of {instance} is in {}", path.display()));
        }
    }

    /// Keeps a text in the log folder. A log that cannot be written is a warning, never a failed bake.
    fn save_log(&self, name: &str, text: &str) -> Option<PathBuf> {
        let path = self.logs.join(name);
        let saved = std::fs::create_dir_all(&self.logs).and_then(|()| std::fs::write(&path, text));
        if let Err(error) = saved {
            self.events
                .warn(format!("could not write {}: {error}", path.display()));
            return None;
        }
        Some(path)
    }

    /// How long each finished stage took, in order of finishing.
    pub fn phases(&self) -> Vec<Phase> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The ledger. The lock is never held over a wait.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
