//! Owns driving systemd (219 of Amazon Linux 2 and later) by `systemctl`.
//! Touches `systemctl` and `journalctl`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Activity, Condition, ServiceManager};
use crate::host::{Invocation, ProgramError, Programs};

/// Requests that only queue a job, or ask.
const QUICK: Duration = Duration::from_secs(30);
/// Stopping: systemd itself kills after the unit's `TimeoutStopSec`, 90 s by default.
const STOP: Duration = Duration::from_secs(330);

/// What tells how a unit fares.
const PROPERTIES: [&str; 6] = [
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "UnitFileState",
    "Job",
];

/// systemd.
pub struct Systemd<'a> {
    programs: &'a dyn Programs,
}

impl<'a> Systemd<'a> {
    /// systemd of this machine.
    pub fn new(programs: &'a dyn Programs) -> Self {
        Self { programs }
    }

    fn run<'b>(
        &self,
        arguments: impl IntoIterator<Item = &'b str>,
        deadline: Duration,
    ) -> Result<String, ProgramError> {
        self.programs
            .check(&Invocation::new("systemctl", arguments, deadline))
            .map(|output| output.stdout)
    }

    /// After too many failures systemd refuses to start a unit until they are forgotten.
    fn forget_failures(&self, service: &str) {
        let _ = self.run(["reset-failed", &unit(service)], QUICK);
    }
}

fn unit(service: &str) -> String {
    format!("{service}.service")
}

impl ServiceManager for Systemd<'_> {
    fn reload_definitions(&self) -> Result<(), ProgramError> {
        self.run(["daemon-reload"], Duration::from_secs(90)).map(drop)
    }

    fn enable(&self, service: &str) -> Result<(), ProgramError> {
        self.run(["enable", "--quiet", &unit(service)], QUICK).map(drop)
    }

    fn disable(&self, service: &str) -> Result<(), ProgramError> {
        self.run(["disable", "--quiet", &unit(service)], QUICK).map(drop)
    }

    fn start(&self, service: &str) -> Result<(), ProgramError> {
        self.forget_failures(service);
        self.run(["start", "--no-block", &unit(service)], QUICK).map(drop)
    }

    fn restart(&self, service: &str) -> Result<(), ProgramError> {
        self.forget_failures(service);
        self.run(["restart", "--no-block", &unit(service)], QUICK)
            .map(drop)
    }

    fn reload(&self, service: &str) -> Result<(), ProgramError> {
        // It only sends a signal, so its end can be waited for.
        self.run(["reload", &unit(service)], QUICK).map(drop)
    }

    fn stop(&self, service: &str) -> Result<(), ProgramError> {
        self.run(["stop", &unit(service)], STOP).map(drop)
    }

    fn condition(&self, service: &str) -> Result<Condition, ProgramError> {
        let unit = unit(service);
        let mut arguments = vec!["show"];
        // systemd 219 takes one property at a time.
        arguments.extend(PROPERTIES.iter().flat_map(|property| ["-p", property]));
        arguments.push(&unit);
        Ok(parse(&self.run(arguments, QUICK)?))
    }

    fn conditions(&self, services: &[&str]) -> Result<Vec<Condition>, ProgramError> {
        let units: Vec<String> = services.iter().map(|service| unit(service)).collect();
        let mut arguments = vec!["show", "-p", "Id"];
        arguments.extend(PROPERTIES.iter().flat_map(|property| ["-p", property]));
        arguments.extend(units.iter().map(String::as_str));
        let shown = self.run(arguments, QUICK)?;
        // One paragraph for each unit; by its id, since a unit may have been asked for by another name.
        let paragraphs: Vec<&str> = shown.split("\n\n").collect();
        let of = |index: usize| {
            let id = format!("Id={}", units[index]);
            let named = paragraphs
                .iter()
                .find(|paragraph| paragraph.lines().any(|line| line == id));
            let by_place = || paragraphs.get(index).filter(|_| paragraphs.len() == units.len());
            named.or_else(by_place).copied().unwrap_or_default()
        };
        Ok((0..units.len()).map(|index| parse(of(index))).collect())
    }

    fn enable_all(&self, services: &[&str]) -> Result<(), ProgramError> {
        let units: Vec<String> = services.iter().map(|service| unit(service)).collect();
        // Without this option each call has systemd read all its definitions anew.
        let arguments = ["enable", "--no-reload", "--quiet"].into_iter();
        self.run(arguments.chain(units.iter().map(String::as_str)), QUICK)
            .map(drop)
    }

    fn start_all(&self, services: &[&str]) -> Result<(), ProgramError> {
        let units: Vec<String> = services.iter().map(|service| unit(service)).collect();
        let arguments = ["start", "--no-block"].into_iter();
        self.run(arguments.chain(units.iter().map(String::as_str)), QUICK)
            .map(drop)
    }

    fn has_read(&self, services: &[&str]) -> bool {
        if services.is_empty() {
            return true;
        }
        let units: Vec<String> = services.iter().map(|service| unit(service)).collect();
        let arguments = ["show", "-p", "LoadState", "-p", "NeedDaemonReload"];
        let arguments = arguments.into_iter().chain(units.iter().map(String::as_str));
        self.run(arguments, QUICK).is_ok_and(|shown| {
            // Counted, so that an answer of another shape is none.
            let has = |line: &str| shown.lines().filter(|told| *told == line).count() == units.len();
            has("LoadState=loaded") && has("NeedDaemonReload=no")
        })
    }

    fn reset_failures(&self, service: &str) -> Result<(), ProgramError> {
        self.run(["reset-failed", &unit(service)], QUICK).map(drop)
    }

    fn last_words(&self, service: &str) -> Vec<String> {
        let unit = unit(service);
        let arguments = ["--unit", &unit, "--lines", "10", "--output", "cat", "--no-pager"];
        let said = self
            .programs
            .check(&Invocation::new("journalctl", arguments, QUICK));
        said.map(|said| said.stdout.lines().map(str::to_owned).collect())
            .unwrap_or_default()
    }
}

fn parse(shown: &str) -> Condition {
    let properties: BTreeMap<&str, &str> = shown.lines().filter_map(|line| line.split_once('=')).collect();
    let property = |name| properties.get(name).copied().unwrap_or_default();
    // A queued job (0 or absent: none) means that the state is not the last word.
    let job = !matches!(property("Job"), "" | "0");
    // `auto-restart` with a result that is not `success` is a service that ends as soon as it starts.
    let fares = || format!("{}, result {}", property("SubState"), property("Result"));
    let activity = match (property("LoadState"), property("ActiveState")) {
        ("not-found", _) => Activity::Absent,
        (_, "active" | "reloading") if job => Activity::Changing,
        (_, "active" | "reloading") => Activity::Active,
        (_, "activating") => Activity::Activating(fares()),
        (_, "deactivating") => Activity::Changing,
        _ if job => Activity::Activating("its job is queued".to_owned()),
        (_, "failed") => Activity::Failed(fares()),
        _ => Activity::Inactive,
    };
    let enabled = matches!(
        property("UnitFileState"),
        "enabled" | "enabled-runtime" | "static" | "alias"
    );
    Condition { enabled, activity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Output;

    #[test]
    fn an_active_unit_with_a_queued_restart_is_not_there_yet() {
        let shown = "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\n\
                     UnitFileState=enabled\nJob=1234\n";
        assert_eq!(parse(shown).activity, Activity::Changing);
        assert_eq!(parse(&shown.replace("1234", "0")).activity, Activity::Active);
        assert!(parse(shown).enabled);
    }

    #[test]
    fn a_failure_says_how() {
        let shown = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nUnitFileState=disabled\n";
        let condition = parse(shown);
        assert_eq!(
            condition.activity,
            Activity::Failed("failed, result exit-code".to_owned())
        );
        assert!(!condition.enabled);
        assert_eq!(
            parse("LoadState=not-found\nActiveState=inactive\n").activity,
            Activity::Absent
        );
    }

    #[test]
    fn a_unit_is_read_only_if_systemd_says_so_of_every_one() {
        struct Says(&'static str);
        impl Programs for Says {
            fn run(&self, _: &Invocation) -> Result<Output, ProgramError> {
                Ok(Output {
                    status: Some(0),
                    stdout: self.0.to_owned(),
                    ..Output::default()
                })
            }
        }
        let read = |said, services: &[&str]| Systemd::new(&Says(said)).has_read(services);
        let one = "LoadState=loaded\nNeedDaemonReload=no\n";
        assert!(read(one, &["consul"]) && read("", &[]));
        assert!(!read(one, &["consul", "nomad"]) && !read("", &["consul"]));
        assert!(!read("LoadState=loaded\nNeedDaemonReload=yes\n", &["consul"]));
        assert!(!read("LoadState=not-found\nNeedDaemonReload=no\n", &["consul"]));
    }
}
