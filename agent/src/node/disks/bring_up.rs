//! Owns one whole run over a node's disks: look, decide, carry out, and the record of it.
//! Touches what the steps touch, one lock and one report.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::{DisksError, StepError};
use super::execute::Executor;
use super::observe::{self, Environment, Looked, Observed};
use super::plan::{self, Decision, Plan};
use super::spec::Request;
use super::step::{Planned, Step};
use crate::error::one_line;
use crate::host::{FileError, FileLock, Files};
use crate::node::lock::{self, LockError};

/// Where the record of the last run is.
pub const REPORT: &str = "/var/lib/cos-agent/disks.json";
/// Folder of what proved each formatted disk blank, for good: one file for each file system, by its UUID.
pub const PROOFS: &str = "/var/lib/cos-agent/formatted";
/// A run joins disks, then formats what they are together, then mounts it.
const ROUNDS: usize = 3;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was begun; if this is in a report, the run died in it.
    Begun,
    /// It is done.
    Done,
    /// It failed, and why.
    Failed(String),
    /// An earlier step of the same mount failed.
    LeftOut,
}

/// A step that was carried out, or tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepRecord {
    /// The step.
    #[serde(flatten)]
    pub planned: Planned,
    /// How it ended.
    pub outcome: Outcome,
    /// Milliseconds that it took.
    pub milliseconds: u128,
    /// What proved that the disks were blank right before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub proof: Vec<Looked>,
}

/// What a run found, decided and did.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was found and decided, in the last round.
    pub plan: Plan,
    /// What was done, in order.
    pub steps: Vec<StepRecord>,
    /// Milliseconds for all of it.
    pub milliseconds: u128,
    /// What failed.
    #[serde(skip)]
    errors: Vec<StepError>,
}

impl Report {
    /// Whether every mount of the request is there.
    pub fn verdict(mut self) -> Result<Self, DisksError> {
        let (failed, all) = (self.errors.len(), self.steps.len());
        if failed > 0 {
            let first = Box::new(self.errors.swap_remove(0));
            return Err(DisksError::Steps { failed, all, first });
        }
        refused(&self.plan)?;
        Ok(self)
    }

    /// How many disks were formatted.
    pub fn formatted(&self) -> usize {
        let format = |record: &&StepRecord| matches!(record.planned.step, Step::Format { .. });
        let done = self.steps.iter().filter(format);
        done.filter(|record| record.outcome == Outcome::Done).count()
    }
}

/// An error if the plan leaves a mount of the request out.
pub fn refused(plan: &Plan) -> Result<(), DisksError> {
    let mounts: Vec<String> = plan.refused().map(|mount| mount.mount_point.clone()).collect();
    if mounts.is_empty() {
        return Ok(());
    }
    let reasons = plan.refused().flat_map(|mount| mount.reasons.iter().cloned());
    Err(DisksError::Refused {
        mounts,
        reasons: reasons.collect(),
    })
}

/// Faults of a request as an error.
pub fn check(request: &Request) -> Result<(), DisksError> {
    let faults = request.faults();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(DisksError::Spec(faults))
    }
}

/// Looks and decides; changes nothing.
pub fn dry_run(request: &Request, environment: &Environment) -> Result<(Observed, Plan), DisksError> {
    check(request)?;
    let observed = observe::observe(request, environment);
    let plan = plan::plan(request, &observed);
    Ok((observed, plan))
}

/// Makes every disk of the request a mounted file system. `tell` hears of each step before it is carried out. What
/// is refused or fails is in the report ([`Report::verdict`]); it keeps no other mount from being made.
pub fn bring_up(
    request: &Request,
    environment: &Environment,
    mut tell: impl FnMut(&Planned),
) -> Result<Report, DisksError> {
    let start = Instant::now();
    check(request)?;
    let _lock = lock(environment.files, environment.deadline)?;
    let mut steps: Vec<StepRecord> = Vec::new();
    let mut errors = Vec::new();
    for round in 1.. {
        let observed = observe::observe(request, environment);
        let plan = plan::plan(request, &observed);
        let again = plan.mounts.iter().any(|mount| mount.decision == Decision::Join);
        let mut report = Report {
            plan,
            steps,
            milliseconds: start.elapsed().as_millis(),
            errors,
        };
        if !report.plan.steps.is_empty() {
            carry_out(&mut report, environment, &observed, &mut tell)?;
        }
        report.milliseconds = start.elapsed().as_millis();
        if !again || round == ROUNDS || !report.errors.is_empty() {
            write(environment.files, &report)?;
            return Ok(report);
        }
        (steps, errors) = (report.steps, report.errors);
    }
    unreachable!("the rounds are counted")
}

/// Carries out one plan of what was just observed, under the lock. Where the plan joins disks, what is done with
/// their array is for the next plan: [`bring_up`] does that.
pub fn execute(
    plan: Plan,
    observed: &Observed,
    environment: &Environment,
    mut tell: impl FnMut(&Planned),
) -> Result<Report, DisksError> {
    let start = Instant::now();
    let _lock = lock(environment.files, environment.deadline)?;
    let mut report = Report {
        plan,
        steps: Vec::new(),
        milliseconds: 0,
        errors: Vec::new(),
    };
    carry_out(&mut report, environment, observed, &mut tell)?;
    report.milliseconds = start.elapsed().as_millis();
    write(environment.files, &report)?;
    Ok(report)
}

fn carry_out(
    report: &mut Report,
    environment: &Environment,
    observed: &Observed,
    tell: &mut dyn FnMut(&Planned),
) -> Result<(), DisksError> {
    let executor = Executor::new(*environment, observed.keeper);
    let mut given_up: BTreeSet<String> = BTreeSet::new();
    for planned in report.plan.steps.clone() {
        let mut record = StepRecord {
            outcome: Outcome::Begun,
            milliseconds: 0,
            proof: Vec::new(),
            planned,
        };
        let planned = record.planned.clone();
        if planned
            .mount_point
            .as_ref()
            .is_some_and(|point| below_any(point, &given_up))
        {
            record.outcome = Outcome::LeftOut;
            report.steps.push(record);
            continue;
        }
        tell(&planned);
        let start = Instant::now();
        let done = executor.prove(&planned.step).and_then(|proof| {
            record.proof = proof;
            report.steps.push(record.clone());
            // What is written on a disk is told before: after a crash the report says what was begun, and why.
            if !record.proof.is_empty() {
                write_proof(environment.files, report, &record)?;
            }
            executor.carry_out(&planned.step)
        });
        if report.steps.last().map(|last| &last.planned) != Some(&planned) {
            report.steps.push(record);
        }
        if let Some(last) = report.steps.last_mut() {
            last.milliseconds = start.elapsed().as_millis();
            last.outcome = match &done {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Failed(one_line(error)),
            };
        }
        if let Err(error) = done {
            given_up.extend(planned.mount_point);
            report.errors.push(error);
        }
        write(environment.files, report)?;
    }
    Ok(())
}

/// What lies below a mount that failed would be made on the wrong disk.
fn below_any(point: &str, given_up: &BTreeSet<String>) -> bool {
    given_up.iter().any(|above| {
        let rest = point.strip_prefix(above.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn write_proof(files: &Files, report: &Report, record: &StepRecord) -> Result<(), StepError> {
    write(files, report)?;
    if let Step::Format { uuid, .. } = &record.planned.step {
        write_json(files, &format!("{PROOFS}/{uuid}.json"), record)?;
    }
    Ok(())
}

fn write(files: &Files, report: &Report) -> Result<(), FileError> {
    write_json(files, REPORT, report)
}

fn write_json(files: &Files, path: &str, value: &impl Serialize) -> Result<(), FileError> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|source| FileError {
        action: "write",
        path: files.locate(path),
        source: source.into(),
    })?;
    json.push(b'\n');
    files.write_atomic(path, &json, 0o644)
}

/// Waits for another run to end, no longer than `deadline`. The kernel takes the lock back when its holder dies.
fn lock(files: &Files, deadline: Duration) -> Result<FileLock, DisksError> {
    lock::wait(files, lock::DISKS, deadline).map_err(|error| match error {
        LockError::File(error) => DisksError::File(error),
        LockError::Held { .. } => DisksError::Locked { waited: deadline },
    })
}
