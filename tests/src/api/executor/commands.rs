//! Owns Run Command: what was sent to which instance, and what became of it.
//! Touches machines, by running scripts on them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tokio::task::AbortHandle;

use super::{Executor, Refusal};
use crate::api::wire::CommandReport;
use crate::machines::{MachineState, Machines};

/// Characters of standard output that GetCommandInvocation shows (MaxStdoutLength of the SSM agent).
const STDOUT: usize = 24_000;
/// Characters of standard error that it shows (MaxStderrLength).
const STDERR: usize = 8_000;

#[derive(Debug)]
pub(super) struct Command {
    report: CommandReport,
    task: Option<AbortHandle>,
}

impl Command {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.report.status, "Pending" | "InProgress")
    }
}

impl<M: Machines> Executor<M> {
    pub(super) fn send_command(
        self: &Arc<Self>,
        command: String,
        instance: String,
        script: String,
        delivery: u64,
        execution: u64,
    ) -> Result<Value, Refusal> {
        if !self.read(&instance, |it| it.online).unwrap_or(false) {
            let message = format!("Instances [[{instance}]] not in a valid state for account");
            return Err(Refusal::new("InvalidInstanceId", message));
        }
        let report = CommandReport {
            status: "Pending",
            details: "Pending",
            code: -1,
            stdout: String::new(),
            stderr: String::new(),
            started: None,
            ended: None,
        };
        let key = (command, instance);
        self.state()
            .commands
            .insert(key.clone(), Command { report, task: None });
        let (executor, name) = (Arc::clone(self), key.clone());
        let task = tokio::spawn(async move {
            let limits = (Duration::from_secs(delivery), Duration::from_secs(execution));
            executor.run(&name, &script, limits).await;
        });
        if let Some(command) = self.state().commands.get_mut(&key) {
            command.task = Some(task.abort_handle());
        }
        Ok(Value::Null)
    }

    async fn run(&self, key: &(String, String), script: &str, (delivery, execution): (Duration, Duration)) {
        let instance = &key.1;
        let Ok(workers) = self.read(instance, |it| Arc::clone(&it.workers)) else {
            return;
        };
        // The agent takes only so many at once; the rest wait, but not for ever.
        let Ok(Ok(_worker)) = tokio::time::timeout(delivery, workers.acquire_owned()).await else {
            self.end(key, "TimedOut", "DeliveryTimedOut", -1, "", "");
            return;
        };
        self.report(key, |report| {
            report.status = "InProgress";
            report.details = "InProgress";
            report.started = Some(now());
        });
        let started = Instant::now();
        match self.machines.exec(instance, script, execution).await {
            Ok(output) => {
                let (status, details) = if output.status == 0 {
                    ("Success", "Success")
                } else {
                    ("Failed", "Failed")
                };
                let (stdout, stderr) = (head(&output.stdout, STDOUT), head(&output.stderr, STDERR));
                self.end(key, status, details, output.status, &stdout, &stderr);
            }
            Err(_) if started.elapsed() >= execution => {
                self.end(key, "TimedOut", "ExecutionTimedOut", 137, "", "");
            }
            Err(error) if self.machines.state(instance).await == Some(MachineState::Online) => {
                self.end(
                    key,
                    "Failed",
                    "Failed",
                    1,
                    "",
                    &format!("the sandbox could not run it: {error:#}"),
                );
            }
            Err(_) => {
                // The machine went away in the middle: nobody reports, so it stays in progress until its time is up.
                tokio::time::sleep(execution.saturating_sub(started.elapsed())).await;
                self.end(key, "TimedOut", "ExecutionTimedOut", -1, "", "");
            }
        }
    }

    pub(super) fn command_report(&self, command: &str, instance: &str) -> Result<Value, Refusal> {
        let state = self.state();
        let found = state.commands.get(&(command.to_owned(), instance.to_owned()));
        let found = found.ok_or_else(|| {
            Refusal::new(
                "InvocationDoesNotExist",
                format!("command {command} was not sent to {instance}"),
            )
        })?;
        serde_json::to_value(&found.report).map_err(|error| Refusal::internal(error.to_string()))
    }

    /// Cancels a command. As with the real agent this is best effort: what the script started may go on.
    pub(super) fn cancel_command(&self, command: &str, instance: &str) {
        let key = (command.to_owned(), instance.to_owned());
        let task = self
            .state()
            .commands
            .get(&key)
            .filter(|it| it.is_open())
            .and_then(|it| it.task.clone());
        if let Some(task) = task {
            task.abort();
            self.end(&key, "Cancelled", "Cancelled", -1, "", "");
        }
    }

    /// Ends the commands of an instance that is gone.
    pub(super) fn abandon_commands(&self, instance: &str) {
        let open: Vec<_> = {
            let state = self.state();
            let open = state
                .commands
                .iter()
                .filter(|(key, command)| key.1 == instance && command.is_open());
            open.map(|(key, command)| (key.clone(), command.task.clone()))
                .collect()
        };
        for (key, task) in open {
            if let Some(task) = task {
                task.abort();
            }
            self.end(&key, "Failed", "Undeliverable", -1, "", "");
        }
    }

    fn end(
        &self,
        key: &(String, String),
        status: &'static str,
        details: &'static str,
        code: i32,
        stdout: &str,
        stderr: &str,
    ) {
        self.report(key, |report| {
            report.status = status;
            report.details = details;
            report.code = code;
            stdout.clone_into(&mut report.stdout);
            stderr.clone_into(&mut report.stderr);
            report.ended = Some(now());
        });
    }

    fn report(&self, key: &(String, String), change: impl FnOnce(&mut CommandReport)) {
        if let Some(command) = self.state().commands.get_mut(key)
            && command.is_open()
        {
            change(&mut command.report);
        }
    }
}

/// The first characters, as AWS keeps the head of an output and not its tail.
fn head(bytes: &[u8], characters: usize) -> String {
    String::from_utf8_lossy(bytes).chars().take(characters).collect()
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::head;

    #[test]
    fn the_head_counts_characters_and_survives_broken_text() {
        assert_eq!(head("äöü".as_bytes(), 2), "äö");
        assert_eq!(head(b"a\xff", 9), "a\u{fffd}");
    }
}
