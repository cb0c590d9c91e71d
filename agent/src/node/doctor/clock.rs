//! Owns whether the clock is right, and whether somebody keeps it right.
//! Touches the metadata service (its Date), and asks chrony, ntpd or systemd.

use std::time::{Duration, SystemTime};

use super::{Case, Finding};
use crate::host::{Invocation, ProgramError, Programs};
use crate::node::http;

/// Signature Version 4 lets a request be five minutes old "in most cases" (IAM user guide, signing of API requests).
const REFUSED: Duration = Duration::from_mins(5);
/// A Date has whole seconds, and an answer takes its time.
const TOLERATED: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn check(case: &Case) -> Vec<Finding> {
    let skew = skew(&case.patient.imds).and_then(|(here, there)| judge(here, there));
    skew.into_iter().chain(keeper(case.programs())).collect()
}

/// The time here and there at the same moment; none if nobody tells it. Any answer has a Date, also a refusal.
fn skew(imds: &str) -> Option<(SystemTime, SystemTime)> {
    let agent = http::client(Duration::from_secs(1), Duration::from_secs(2));
    let date = http::date(&agent, imds)?;
    Some((SystemTime::now(), httpdate::parse_http_date(&date).ok()?))
}

fn judge(here: SystemTime, there: SystemTime) -> Option<Finding> {
    let (apart, word) = match here.duration_since(there) {
        Ok(apart) => (apart, "ahead"),
        Err(error) => (error.duration(), "behind"),
    };
    if apart <= TOLERATED {
        return None;
    }
    let fact = format!("the clock is {} s {word}", apart.as_secs());
    let evidence = format!(
        "it is {} here, and {} at the metadata service",
        humantime::format_rfc3339_seconds(here),
        humantime::format_rfc3339_seconds(there)
    );
    let fix = "chronyc makestep; systemctl enable --now chronyd";
    Some(if apart >= REFUSED {
        Finding::fault(format!("{fact}: AWS refuses its requests"), evidence, fix)
    } else {
        Finding::warning(fact, evidence, fix)
    })
}

/// The first of these that is installed is the one that is asked.
fn keeper(programs: &dyn Programs) -> Option<Finding> {
    let ask = |program: &str, words: &[&str]| {
        programs.run(&Invocation::new(program, words.iter().copied(), PATIENCE))
    };
    let absent = |error: &ProgramError| matches!(error, ProgramError::Start { .. });
    match ask("chronyc", &["-c", "tracking"]) {
        Ok(told) => return chrony(told.status, &told.stdout, told.stderr.trim()),
        Err(error) if !absent(&error) => return Some(silent("chronyd", &error.to_string())),
        Err(_) => {}
    }
    // Of Amazon Linux 1: status 0 is in step, 1 is not, 2 is that ntpd does not answer.
    match ask("ntpstat", &[]) {
        Ok(told) if told.status == Some(0) => return None,
        Ok(told) => return Some(silent("ntpd", told.stdout.lines().next().unwrap_or_default())),
        Err(error) if !absent(&error) => return Some(silent("ntpd", &error.to_string())),
        Err(_) => {}
    }
    let told = ask("timedatectl", &["show", "-p", "NTPSynchronized", "--value"]);
    match told.map(|told| told.stdout.trim().to_owned()) {
        Ok(word) if word == "yes" => None,
        Ok(word) if word == "no" => Some(silent("the time service", "timedatectl: NTPSynchronized=no")),
        _ => Some(Finding::note(
            "nobody tells whether the clock is kept right",
            "neither chronyc nor ntpstat nor timedatectl is here",
            "install chrony; the time service of a VPC is 169.254.169.123",
        )),
    }
}

fn silent(name: &str, evidence: &str) -> Finding {
    Finding::warning(
        format!("{name} does not keep the clock right"),
        evidence,
        "systemctl enable --now chronyd; chronyc sources (the time service of a VPC is 169.254.169.123)",
    )
}

/// One line of fourteen fields: the fifth is how far the clock is off, the last whether it is in step (chronyc(1)).
fn chrony(status: Option<i32>, stdout: &str, stderr: &str) -> Option<Finding> {
    let fields: Vec<&str> = stdout.trim().split(',').collect();
    let (Some(offset), Some(leap)) = (fields.get(4), fields.get(13)) else {
        let said = if stderr.is_empty() { stdout.trim() } else { stderr };
        let status = status.map_or("a signal".to_owned(), |status| format!("status {status}"));
        return Some(silent(
            "chronyd",
            &format!("chronyc tracking ended with {status}: {said}"),
        ));
    };
    let in_step = matches!(*leap, "Normal" | "Insert second" | "Delete second");
    (!in_step).then(|| silent("chronyd", &format!("chronyc tracking: {leap}, offset {offset} s")))
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn seconds_are_tolerated_and_minutes_are_not() {
        let there = SystemTime::now();
        let told = |seconds: u64, ahead: bool| {
            let apart = Duration::from_secs(seconds);
            let here = if ahead { there + apart } else { there - apart };
            judge(here, there).map(|finding| (finding.severity, finding.fact))
        };
        assert_eq!(told(5, true), None);
        assert_eq!(
            told(60, true),
            Some((Severity::Warning, "the clock is 60 s ahead".to_owned()))
        );
        let refused = "the clock is 301 s behind: AWS refuses its requests".to_owned();
        assert_eq!(told(301, false), Some((Severity::Fault, refused)));
    }

    #[test]
    fn chrony_is_in_step_or_it_is_told() {
        let line = |leap| {
            format!(
                "A9FEA97B,169.254.169.123,4,1764034569.1,0.000001,0.000001,0.00001,1.2,0.0,0.1,0.0004,0.0001,16.1,{leap}\n"
            )
        };
        assert_eq!(chrony(Some(0), &line("Normal"), ""), None);
        let found = chrony(Some(0), &line("Not synchronised"), "").unwrap();
        assert_eq!(
            found.evidence,
            "chronyc tracking: Not synchronised, offset 0.000001 s"
        );
        let found = chrony(Some(1), "506 Cannot talk to daemon\n", "").unwrap();
        assert_eq!(
            found.evidence,
            "chronyc tracking ended with status 1: 506 Cannot talk to daemon"
        );
    }
}
