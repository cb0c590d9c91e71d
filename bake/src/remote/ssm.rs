//! Owns the real `Remote`: scripts through Run Command of Systems Manager, their fate and their output.
//! Touches AWS, through the clients of `cloud/aws`.

use std::time::{Duration, Instant};

use aws_sdk_ssm::operation::get_command_invocation::GetCommandInvocationOutput;
use aws_sdk_ssm::types::{CommandInvocationStatus, InstanceInformationStringFilter, PingStatus};

use super::{Remote, Script, ScriptOutput};
use crate::cloud::aws::{AwsCloud, other, pause, present, transient};
use crate::cloud::{CloudError, CloudErrorKind, InstanceId};

/// The document that runs lines with `sh`; it exists in every region.
const DOCUMENT: &str = "AWS-RunShellScript";

/// How long a command may wait to be started, in seconds (30 is the least). Not the time that it may run.
const DELIVERY_SECONDS: i32 = 60;

/// What `executionTimeout` may be, in seconds. The agent takes anything else for 3,600 without a word.
const EXECUTION_SECONDS: std::ops::RangeInclusive<u64> = 5..=172_800;

/// How long after a script's own deadline its fate may stay unknown.
const GRACE: Duration = Duration::from_mins(1);

/// How long Systems Manager may deny a machine that it has just called online, or a command that it has just taken.
const SETTLING: Duration = Duration::from_mins(1);

/// Time between two looks, on average.
const LOOK_SECONDS: std::ops::Range<f64> = 0.8..1.2;

/// Longest comment that SendCommand takes, in characters.
const COMMENT_LIMIT: usize = 100;

/// Commands on machines through Systems Manager.
#[derive(Clone)]
pub struct SsmRemote {
    cloud: AwsCloud,
    grace: Duration,
}

/// What became of a command.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Running,
    Ended(ScriptOutput),
    /// It never ran, and why.
    NotRun(String),
}

impl SsmRemote {
    /// Commands on the machines of this region and account.
    pub fn new(cloud: &AwsCloud) -> Self {
        Self {
            cloud: cloud.clone(),
            grace: GRACE,
        }
    }

    /// Sends a command and returns its id.
    ///
    /// SendCommand takes no token, so a retry after a lost answer could run a script twice. Each try of a script has
    /// one comment that no other has: after a lost answer the command is looked up by it, and only if it is not
    /// there the script is sent again. The list may lag, or be denied, so a script may still run twice, even at once:
    /// scripts of this crate are written to bear that.
    async fn send(&self, instance: &InstanceId, script: &Script) -> Result<String, CloudError> {
        const OPERATION: &str = "ssm:SendCommand";
        const ATTEMPTS: u32 = 6;
        let seconds = script
            .deadline
            .as_secs()
            .clamp(*EXECUTION_SECONDS.start(), *EXECUTION_SECONDS.end());
        let comment = unique_comment(&script.name);
        let end = Instant::now() + SETTLING;
        let mut attempt = 0;
        loop {
            let sent = self.cloud.send_once(OPERATION, |clients| {
                clients
                    .ssm
                    .send_command()
                    .document_name(DOCUMENT)
                    .instance_ids(&instance.0)
                    .parameters("commands", vec![script.text.clone()])
                    .parameters("executionTimeout", vec![seconds.to_string()])
                    .timeout_seconds(DELIVERY_SECONDS)
                    .comment(&comment)
                    .send()
            });
            let error = match sent.await {
                Ok(answer) => {
                    let id = answer.command.and_then(|command| command.command_id);
                    return present(OPERATION, "Command.CommandId", id);
                }
                Err(error) => error,
            };
            // A machine that is online in one list may be none in another for a moment.
            let not_yet = error.code.as_deref() == Some("InvalidInstanceId") && Instant::now() < end;
            if !not_yet && (attempt >= ATTEMPTS || !transient(&error)) {
                return Err(error);
            }
            pause(attempt, Duration::from_secs(5)).await;
            attempt += 1;
            if !not_yet
                && error.kind != CloudErrorKind::Throttled
                && let Some(id) = self.look_up(instance, &comment).await
            {
                return Ok(id);
            }
        }
    }

    /// A command by its comment; none if it is not there or the list cannot be had.
    async fn look_up(&self, instance: &InstanceId, comment: &str) -> Option<String> {
        let list = self.cloud.send("ssm:ListCommands", |clients| {
            clients
                .ssm
                .list_commands()
                .instance_id(&instance.0)
                .max_results(20)
                .send()
        });
        let commands = list.await.ok()?.commands.unwrap_or_default();
        commands
            .into_iter()
            .find(|command| command.comment() == Some(comment))?
            .command_id
    }

    async fn cancel(&self, instance: &InstanceId, command: &str) {
        let cancel = self.cloud.send("ssm:CancelCommand", |clients| {
            clients
                .ssm
                .cancel_command()
                .command_id(command)
                .instance_ids(&instance.0)
                .send()
        });
        // Nobody waits for it: the caller has given up, and the machine is ended next.
        drop(cancel.await);
    }
}

impl Remote for SsmRemote {
    async fn online(&self, instance: &InstanceId) -> Result<bool, CloudError> {
        const OPERATION: &str = "ssm:DescribeInstanceInformation";
        let filter = InstanceInformationStringFilter::builder()
            .key("InstanceIds")
            .values(&instance.0)
            .build()
            .map_err(|error| other(OPERATION, error.to_string()))?;
        let answer = self
            .cloud
            .send(OPERATION, |clients| {
                clients
                    .ssm
                    .describe_instance_information()
                    .filters(filter.clone())
                    .send()
            })
            .await?;
        let machines = answer.instance_information_list.unwrap_or_default();
        Ok(machines.iter().any(|machine| {
            machine.instance_id() == Some(&instance.0) && machine.ping_status() == Some(&PingStatus::Online)
        }))
    }

    async fn run(&self, instance: &InstanceId, script: &Script) -> Result<ScriptOutput, CloudError> {
        const OPERATION: &str = "ssm:GetCommandInvocation";
        let command = self.send(instance, script).await?;
        let sent = Instant::now();
        let end = sent + script.deadline + self.grace;
        loop {
            tokio::time::sleep(Duration::from_secs_f64(jittered(LOOK_SECONDS))).await;
            let look = self.cloud.send(OPERATION, |clients| {
                clients
                    .ssm
                    .get_command_invocation()
                    .command_id(&command)
                    .instance_id(&instance.0)
                    .send()
            });
            match look.await {
                Ok(answer) => match fate(answer) {
                    Fate::Running => {}
                    Fate::Ended(output) => return Ok(output),
                    Fate::NotRun(reason) => {
                        let name = &script.name;
                        return Err(other(
                            "ssm:SendCommand",
                            format!("`{name}` did not run on {instance}: {reason} (command {command})"),
                        ));
                    }
                },
                // The command is there already, its place on the machine not yet.
                Err(error) if error.kind == CloudErrorKind::NotFound && sent.elapsed() < SETTLING => {}
                // The script runs on, whether we can see it or not.
                Err(error) if transient(&error) && Instant::now() < end => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= end {
                self.cancel(instance, &command).await;
                return Ok(ScriptOutput::default());
            }
        }
    }
}

fn jittered(range: std::ops::Range<f64>) -> f64 {
    use rand::Rng;
    rand::rng().random_range(range)
}

/// The script's name and a few letters that no other command has.
fn unique_comment(name: &str) -> String {
    let mark: String = uuid::Uuid::new_v4()
        .simple()
        .to_string()
        .chars()
        .take(8)
        .collect();
    let name: String = name.chars().take(COMMENT_LIMIT - mark.len() - 3).collect();
    format!("{name} [{mark}]")
}

/// What Systems Manager says of a command on one machine. Source: 'Understanding command statuses'; the API writes
/// the details as one word (`DeliveryTimedOut`), the console as several.
fn fate(answer: GetCommandInvocationOutput) -> Fate {
    let details: String = answer
        .status_details
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let output = |status| {
        Fate::Ended(ScriptOutput {
            status,
            stdout: answer.standard_output_content.unwrap_or_default(),
            stderr: answer.standard_error_content.unwrap_or_default(),
        })
    };
    match answer.status {
        Some(CommandInvocationStatus::Success) => output(Some(0)),
        Some(CommandInvocationStatus::TimedOut) if details == "DeliveryTimedOut" => {
            Fate::NotRun("the agent did not take it in time".to_owned())
        }
        Some(CommandInvocationStatus::TimedOut) => output(None),
        Some(CommandInvocationStatus::Failed) => match details.as_str() {
            "Undeliverable" | "Terminated" | "InvalidPlatform" | "AccessDenied" => Fate::NotRun(details),
            "ExecutionTimedOut" => output(None),
            // -1 stands for 'not started, or no status received'; as an exit status it would be 255.
            _ if answer.response_code == -1 => Fate::NotRun(format!("no exit status ({details})")),
            _ => output(Some(answer.response_code)),
        },
        Some(CommandInvocationStatus::Cancelled) => Fate::NotRun("somebody cancelled it".to_owned()),
        _ => Fate::Running,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::aws::replay::{Answer, cloud};

    fn script() -> Script {
        let deadline = Duration::from_secs(90);
        Script {
            name: "install".to_owned(),
            text: "cos-agent install".to_owned(),
            deadline,
        }
    }

    fn json(body: &str) -> Answer {
        Answer::Reply(200, body.to_owned())
    }

    fn refusal(code: &str) -> Answer {
        Answer::Reply(400, format!(r#"{{"__type":"{code}","message":"no"}}"#))
    }

    /// The comment in the text of a SendCommand.
    fn comment(request: &str) -> String {
        let body = request.split_once("\r\n\r\n").unwrap().1;
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["Comment"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_script_runs_once_though_its_machine_was_not_ready_and_the_answer_was_lost() {
        let sent = std::sync::Mutex::new(String::new());
        let (cloud, seen) = cloud(move |number, request| {
            let operation = request
                .split_once("AmazonSSM.")
                .unwrap()
                .1
                .split_once("\r\n")
                .unwrap()
                .0;
            match (operation, number) {
                ("SendCommand", 0) => refusal("InvalidInstanceId"),
                ("SendCommand", _) => {
                    *sent.lock().unwrap() = comment(request);
                    Answer::HangUp
                }
                ("ListCommands", _) => {
                    let comment = sent.lock().unwrap();
                    json(&format!(
                        r#"{{"Commands":[{{"CommandId":"c-0","Comment":"other"}},
                            {{"CommandId":"c-1","Comment":"{comment}"}}]}}"#
                    ))
                }
                ("GetCommandInvocation", 3) => refusal("InvocationDoesNotExist"),
                ("GetCommandInvocation", 4) => {
                    json(r#"{"Status":"InProgress","StatusDetails":"InProgress","ResponseCode":-1}"#)
                }
                ("GetCommandInvocation", _) => json(
                    r#"{"Status":"Failed","StatusDetails":"Failed","ResponseCode":4,
                        "StandardOutputContent":"{}","StandardErrorContent":"digest differs"}"#,
                ),
                _ => refusal("Unexpected"),
            }
        })
        .await;
        let output = SsmRemote::new(&cloud)
            .run(&InstanceId::from("i-1"), &script())
            .await
            .unwrap();
        assert_eq!((output.status, output.stdout.as_str()), (Some(4), "{}"));
        assert_eq!(output.stderr, "digest differs");
        let requests = seen.lock().unwrap().clone();
        let sends: Vec<&String> = requests
            .iter()
            .filter(|text| text.contains("AmazonSSM.SendCommand"))
            .collect();
        assert_eq!(sends.len(), 2, "refused, lost; then found in the list");
        assert_eq!(comment(sends[0]), comment(sends[1]));
        let body: serde_json::Value =
            serde_json::from_str(sends[1].split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body["DocumentName"], "AWS-RunShellScript");
        assert_eq!(body["Parameters"]["commands"][0], "cos-agent install");
        assert_eq!(body["Parameters"]["executionTimeout"][0], "90");
        assert_eq!(body["TimeoutSeconds"], 60);
        assert!(requests.last().unwrap().contains(r#""CommandId":"c-1""#));
    }

    #[tokio::test]
    async fn a_command_that_never_ends_is_cancelled_after_its_deadline() {
        let (cloud, seen) = cloud(|_, request| {
            if request.contains("AmazonSSM.SendCommand") {
                json(r#"{"Command":{"CommandId":"c-1"}}"#)
            } else {
                json(r#"{"Status":"InProgress","StatusDetails":"InProgress","ResponseCode":-1}"#)
            }
        })
        .await;
        let remote = SsmRemote {
            cloud,
            grace: Duration::ZERO,
        };
        let script = Script {
            deadline: Duration::from_secs(2),
            ..script()
        };
        let output = remote.run(&InstanceId::from("i-1"), &script).await.unwrap();
        assert_eq!(output.status, None);
        assert!(
            seen.lock()
                .unwrap()
                .last()
                .unwrap()
                .contains("AmazonSSM.CancelCommand")
        );
    }

    #[tokio::test]
    async fn a_refusal_to_send_is_final() {
        let (cloud, seen) = cloud(|_, _| refusal("AccessDeniedException")).await;
        let error = SsmRemote::new(&cloud)
            .run(&InstanceId::from("i-1"), &script())
            .await
            .unwrap_err();
        assert_eq!(error.kind, CloudErrorKind::Denied);
        assert_eq!(seen.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn only_the_machine_itself_and_only_online_counts() {
        for (id, status, expected) in [
            ("i-1", "Online", true),
            ("i-1", "ConnectionLost", false),
            ("i-2", "Online", false),
        ] {
            let (cloud, _) = cloud(move |_, _| {
                json(&format!(
                    r#"{{"InstanceInformationList":[{{"InstanceId":"{id}","PingStatus":"{status}"}}]}}"#
                ))
            })
            .await;
            let online = SsmRemote::new(&cloud)
                .online(&InstanceId::from("i-1"))
                .await
                .unwrap();
            assert_eq!(online, expected, "{id} {status}");
        }
    }

    fn answer(status: &str, details: &str, code: i32) -> GetCommandInvocationOutput {
        GetCommandInvocationOutput::builder()
            .status(status.into())
            .status_details(details)
            .response_code(code)
            .standard_output_content("out")
            .standard_error_content("err")
            .build()
    }

    #[test]
    fn each_status_has_its_fate() {
        let ended = |status| {
            let (stdout, stderr) = ("out".to_owned(), "err".to_owned());
            Fate::Ended(ScriptOutput {
                status,
                stdout,
                stderr,
            })
        };
        for (status, details, code, expected) in [
            ("Pending", "Pending", -1, Fate::Running),
            ("InProgress", "InProgress", -1, Fate::Running),
            ("Delayed", "Delayed", -1, Fate::Running),
            ("Cancelling", "Cancelling", -1, Fate::Running),
            ("Success", "Success", 0, ended(Some(0))),
            ("Failed", "Failed", 4, ended(Some(4))),
            ("TimedOut", "ExecutionTimedOut", 137, ended(None)),
            ("TimedOut", "Execution Timed Out", 137, ended(None)),
            ("Failed", "ExecutionTimedOut", 137, ended(None)),
        ] {
            assert_eq!(
                fate(answer(status, details, code)),
                expected,
                "{status} {details}"
            );
        }
        for (status, details) in [
            ("TimedOut", "DeliveryTimedOut"),
            ("TimedOut", "Delivery Timed Out"),
            ("Failed", "Undeliverable"),
            ("Failed", "Terminated"),
            ("Failed", "AccessDenied"),
            ("Failed", "Invalid Platform"),
            ("Failed", "Failed"),
            ("Cancelled", "Cancelled"),
        ] {
            let fate = fate(answer(status, details, -1));
            assert!(matches!(fate, Fate::NotRun(_)), "{status} {details}: {fate:?}");
        }
    }

    #[test]
    fn comments_fit_and_differ() {
        let long = "ä".repeat(300);
        assert!(unique_comment(&long).chars().count() <= COMMENT_LIMIT);
        assert_ne!(unique_comment("install"), unique_comment("install"));
        assert!(unique_comment("install").starts_with("install ["));
    }
}
