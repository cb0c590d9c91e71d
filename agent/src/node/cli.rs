//! Owns the arguments of `apply` and `health`, and what each prints.
//! Touches the two streams it is given, `out` for data and `talk` for people, and the log.

use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::bootstrap::Network;
use super::cloud::ParameterStore;
use super::commands::{self, print_json, told};
use super::config::NodeSpec;
use super::error::NodeError;
use super::health::{self, Ecr, LocalApis, LocalConsul, Probes, System};
use super::lock;
use super::log::{Defaults, Log};
use super::pipeline::{self, Applied, Environment, Mode};
use super::render::{RECORD, Record};
use super::report::{BootReport, Timeline};
use super::sources::{Gathered, Imds, InstanceFacts, Sources, imds};
use super::{services, warm};
use crate::aws;
use crate::host::{Files, RealPrograms};

/// Make this instance the node that its configuration describes.
#[derive(Debug, Clone, Args)]
pub struct ApplyArguments {
    /// Print what would change, have it judged by Consul and Nomad, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The node's configuration, instead of all other sources; several are laid over each other.
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// The instance metadata service.
    #[arg(long, value_name = "URL", default_value = imds::DEFAULT_URL)]
    pub imds: String,
    /// Where the machine's files are; another root than / goes with --dry-run only.
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    pub root: PathBuf,
    /// Longest time for all services together to come up.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
    /// Consul's API on this machine.
    #[arg(long, value_name = "URL", default_value = health::CONSUL_URL)]
    pub consul: String,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Longest time for all services together to come up, where it cannot be said.
pub(super) const DEADLINE: Duration = Duration::from_mins(5);

impl ApplyArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let nothing = Arguments {
            adapt: &mut |_| Ok(()),
            accepted: &mut || Ok(()),
            log: Defaults::Both,
        };
        self.run_with(nothing, out, talk)
    }

    /// Runs it with what the arguments of another command say besides.
    pub(super) fn run_with(
        self,
        besides: Arguments,
        out: &mut dyn Write,
        talk: &mut dyn Write,
    ) -> Result<(), NodeError> {
        let files = Files::new(&self.root);
        let mut log = Log::new(talk);
        let ended = self.apply(besides, &files, out, &mut log);
        if let Err(error) = &ended {
            // Standard error hears it from whoever called.
            log.note(&crate::error::chain(error));
            if let Some(hint) = error.hint() {
                log.note(&format!("hint: {hint}"));
            }
        }
        ended
    }

    fn apply(
        &self,
        besides: Arguments,
        files: &Files,
        out: &mut dyn Write,
        log: &mut Log,
    ) -> Result<(), NodeError> {
        let mode = if self.dry_run { Mode::DryRun } else { Mode::Execute };
        if mode == Mode::Execute && self.root != std::path::Path::new("/") {
            let message =
                "--root other than / goes with --dry-run only: services of another root cannot be started";
            return Err(NodeError::Usage(message.to_owned()));
        }
        let _lock = match mode {
            Mode::Execute => Some(lock::wait(files, lock::APPLY, self.deadline)?),
            Mode::DryRun => None,
        };
        let timeline = Timeline::new();
        let ended = self.pass(mode, besides, files, &timeline, log);
        if mode == Mode::Execute {
            let applied = ended.as_ref().map(|passed| &passed.applied);
            let report = BootReport::new(&timeline, applied, files);
            // A node that cannot keep its report may still do its work.
            if let Err(error) = report.write(files) {
                let _ = writeln!(log, "note: {error}: {}", error.source);
            }
        }
        self.show(&ended?, out, log)
    }

    /// One pass over the node.
    fn pass(
        &self,
        mode: Mode,
        besides: Arguments,
        files: &Files,
        timeline: &Timeline,
        log: &mut Log,
    ) -> Result<Passed, NodeError> {
        let start = Instant::now();
        if mode == Mode::Execute {
            warm::consul(files);
        }
        let programs = RealPrograms;
        // Units of another root cannot be asked for: all of them count as absent.
        let own = self.root == std::path::Path::new("/");
        let manage = || {
            if own {
                services::detect(files, &programs)
            } else {
                None
            }
        };
        let imds = Imds::new(&self.imds, imds::BUDGET);
        let parameters = ParameterStore::new(&self.imds, aws::PATIENCE);
        let sources = Sources {
            files,
            named: &self.config,
            imds: Some(&imds),
            parameters: Some(&parameters),
        };
        // The machine is looked at while the metadata service answers.
        let (configured, outlook) = thread::scope(|scope| {
            let outlook = scope.spawn(|| {
                let manager = manage();
                pipeline::look_ahead(files, manager.as_deref(), &programs, timeline)
            });
            let configured = pipeline::configure(&sources, timeline, besides.adapt);
            let outlook = outlook
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (configured, outlook)
        });
        // A log for what went wrong before it is known where it should be.
        let logged = configured.as_ref().map(|(config, _)| config.log.clone());
        if mode == Mode::Execute {
            log.open(files, &logged.unwrap_or_default(), besides.log);
        }
        let (config, gathered) = configured.map_err(|error| told(error, log))?;
        for note in &gathered.notes {
            let _ = writeln!(log, "note: {note}");
        }
        if mode == Mode::Execute {
            (besides.accepted)()?;
            warm::others(files, &config.role);
        }
        // Without a metadata service there was an error above.
        let facts = gathered.facts.unwrap_or_else(InstanceFacts::sample);
        let aws = parameters.client(&facts);
        let manager = manage();
        if mode == Mode::Execute && manager.is_none() {
            return Err(NodeError::NoServiceManager);
        }
        let outlook = outlook?;
        let spec = pipeline::spec_of(&config, &facts, aws, &outlook)?;
        let consul = LocalConsul::new(&self.consul);
        let environment = Environment {
            files,
            programs: &programs,
            manager: manager.as_deref(),
            consul: &consul,
            neighbours: Some(&Network { aws, consul: &consul }),
            secrets: aws,
            deadline: self.deadline,
            timeline,
            outlook: Some(&outlook),
        };
        if mode == Mode::DryRun {
            return dry_run(&spec, &environment, start);
        }
        let (applied, last_words) =
            pipeline::apply_spec_with_last_words(&spec, &environment, mode, |effect| {
                // What was done counts, not whether somebody reads it.
                let _ = writeln!(log, "{effect}");
            });
        for line in last_words {
            writeln!(log, "  {line}")?;
        }
        Ok(Passed {
            applied: applied?,
            told: None,
        })
    }

    /// Shows what was done, or would be and why.
    fn show(&self, passed: &Passed, out: &mut dyn Write, log: &mut Log) -> Result<(), NodeError> {
        let Passed { applied, told } = passed;
        for note in &applied.notes {
            let _ = writeln!(log, "note: {note}");
        }
        log.note(&summary(applied));
        if self.json {
            let mut printed = serde_json::to_value(applied).map_err(std::io::Error::from)?;
            if let Some(told) = told {
                printed["changes"] = told.changes.clone();
                printed["disks"] = told.disks.clone();
            }
            return print_json(out, &printed);
        }
        for line in told.iter().flat_map(|told| &told.lines) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", summary(applied)).map_err(NodeError::Output)
    }
}

/// Finds out what would be done, and why.
fn dry_run(spec: &NodeSpec, environment: &Environment, start: Instant) -> Result<Passed, NodeError> {
    let planned = pipeline::plan_spec(spec, environment, Mode::DryRun)?;
    let told = commands::tell(&planned, environment.files)?;
    let of_disks = planned.disks.iter().flat_map(commands::disk_lines);
    let lines = of_disks.chain(told.iter().flat_map(commands::Told::lines));
    let dry_run = DryRun {
        changes: serde_json::to_value(&told).map_err(std::io::Error::from)?,
        disks: serde_json::to_value(&planned.disks).map_err(std::io::Error::from)?,
        lines: lines.collect(),
    };
    Ok(Passed {
        applied: Applied::new(spec, planned, Mode::DryRun, start),
        told: Some(dry_run),
    })
}

/// What came of a pass.
struct Passed {
    applied: Applied,
    /// In a dry run, what would be done and why.
    told: Option<DryRun>,
}

/// A dry run, ready to be printed.
struct DryRun {
    changes: serde_json::Value,
    disks: serde_json::Value,
    lines: Vec<String>,
}

/// One line that says what came of it.
fn summary(applied: &Applied) -> String {
    let count = match applied.changes.0.len() {
        0 => "nothing to change".to_owned(),
        1 => "1 change".to_owned(),
        many => format!("{many} changes"),
    };
    let seconds =
        Duration::from_millis(u64::try_from(applied.milliseconds).unwrap_or(u64::MAX)).as_secs_f64();
    format!(
        "{} {} in {}: {count}{}, {seconds:.1} s",
        applied.roles,
        applied.name,
        applied.datacenter,
        if applied.executed { "" } else { ", not carried out" },
    )
}

/// What the arguments of another command than `apply` say of the node.
pub(super) struct Arguments<'a> {
    /// Lays it over what the sources say.
    pub(super) adapt: &'a mut dyn FnMut(&mut Gathered) -> Result<(), NodeError>,
    /// Keeps it, once it is known to be valid and before anything changes.
    pub(super) accepted: &'a mut dyn FnMut() -> Result<(), NodeError>,
    /// Whether there is a log that nobody asked for.
    pub(super) log: Defaults,
}

/// Prove that this node does its work.
#[derive(Debug, Clone, Args)]
pub struct HealthArguments {
    /// Longest time until every check must have passed.
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
    /// Where the machine's files are.
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    pub root: PathBuf,
    /// Consul's API on this machine.
    #[arg(long, value_name = "URL", default_value = health::CONSUL_URL)]
    pub consul: String,
    /// Nomad's API on this machine.
    #[arg(long, value_name = "URL", default_value = health::NOMAD_URL)]
    pub nomad: String,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

impl HealthArguments {
    /// Runs it. A check that fails is a result and is printed; the error says how many there were.
    pub fn run(self, out: &mut dyn Write, _talk: &mut dyn Write) -> Result<(), NodeError> {
        let files = Files::new(&self.root);
        let record = files.read(RECORD)?.ok_or(NodeError::NeverApplied)?;
        let record: Record = serde_json::from_slice(&record).map_err(NodeError::Record)?;
        let apis = LocalApis::new(&self.consul, &self.nomad, files.locate(health::DOCKER_SOCKET));
        let probes = Probes {
            apis: &apis,
            files: &files,
            programs: &RealPrograms,
            system: System::Configured,
            registries: Some(&Ecr::new(&files)),
        };
        let health = health::prove(&record, &probes, self.deadline);
        if self.json {
            print_json(out, &health)?;
        } else {
            for outcome in &health.checks {
                let verdict = if outcome.healthy { "ok  " } else { "FAIL" };
                writeln!(
                    out,
                    "{verdict} {:<15} {}",
                    outcome.check.to_string(),
                    outcome.reason
                )?;
                if let Some(hint) = &outcome.hint {
                    writeln!(out, "{:21}hint: {hint}", "")?;
                }
            }
        }
        if health.healthy {
            return Ok(());
        }
        let failed = health.checks.iter().filter(|outcome| !outcome.healthy).count();
        Err(NodeError::Unhealthy {
            failed,
            all: health.checks.len(),
            deadline: self.deadline,
        })
    }
}
