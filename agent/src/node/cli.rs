//! Owns the arguments of `apply`, `check` and `health`, and what each prints.
//! Touches only the two streams it is given: `out` is data, `talk` is for people.

use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;

use super::apply::Change;
use super::config;
use super::error::NodeError;
use super::health::{self, LocalApis, LocalConsul, Probes, System};
use super::pipeline::{self, Applied, Environment, Mode};
use super::render::{RECORD, Record};
use super::report::{BootReport, Timeline};
use super::sources::{Document, Imds, InstanceFacts, Sources, imds};
use super::{services, warm};
use crate::aws::{self, Client, Settings};
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

impl ApplyArguments {
    /// Runs it.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let mode = if self.dry_run { Mode::DryRun } else { Mode::Execute };
        if mode == Mode::Execute && self.root != std::path::Path::new("/") {
            let message =
                "--root other than / goes with --dry-run only: services of another root cannot be started";
            return Err(NodeError::Usage(message.to_owned()));
        }
        let files = Files::new(&self.root);
        let timeline = Timeline::new();
        let ended = self.pass(mode, &files, &timeline, talk);
        if mode == Mode::Execute {
            let report = BootReport::new(&timeline, ended.as_ref(), &files);
            // A node that cannot keep its report may still do its work.
            if let Err(error) = report.write(&files) {
                let _ = writeln!(talk, "note: {error}: {}", error.source);
            }
        }
        self.show(mode, &ended?, out, talk)
    }

    /// One pass over the node.
    fn pass(
        &self,
        mode: Mode,
        files: &Files,
        timeline: &Timeline,
        talk: &mut dyn Write,
    ) -> Result<Applied, NodeError> {
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
        let sources = Sources {
            files,
            named: &self.config,
            imds: Some(&imds),
            parameters: None,
        };
        // The machine is looked at while the metadata service answers.
        let (configured, resolver) = thread::scope(|scope| {
            let resolver = scope.spawn(|| {
                let manager = manage();
                pipeline::look_at_resolver(files, manager.as_deref(), &programs, timeline)
            });
            let configured = pipeline::configure(&sources, timeline);
            let resolver = resolver
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (configured, resolver)
        });
        let (config, gathered) = match configured {
            Err(NodeError::Configuration(faults)) => {
                tell_faults(&faults, talk)?;
                return Err(NodeError::Configuration(faults));
            }
            other => other?,
        };
        if mode == Mode::Execute {
            warm::others(files, &config.role);
        }
        let facts = gathered.facts.unwrap_or_else(InstanceFacts::sample);
        let mut spec = config::resolve(&config, &facts, None)?;
        let manager = manage();
        if mode == Mode::Execute && manager.is_none() {
            return Err(NodeError::NoServiceManager);
        }
        spec.settle_dns(&resolver?)?;
        let aws = Client::new(Settings {
            domain: Some(facts.domain.clone()),
            imds: Some(self.imds.clone()),
            ..Settings::new(&facts.region, aws::Environment::of_process())
        });
        let environment = Environment {
            files,
            programs: &programs,
            manager: manager.as_deref(),
            consul: &LocalConsul::new(&self.consul),
            secrets: &aws,
            deadline: self.deadline,
            timeline,
        };
        let tell = |change: &Change| {
            // What was done counts, not whether somebody reads it.
            let _ = writeln!(talk, "{change}");
        };
        let (applied, last_words) = pipeline::apply_spec_with_last_words(&spec, &environment, mode, tell);
        for line in last_words {
            writeln!(talk, "  {line}")?;
        }
        applied
    }

    /// Shows what was done, or would be.
    fn show(
        &self,
        mode: Mode,
        applied: &Applied,
        out: &mut dyn Write,
        talk: &mut dyn Write,
    ) -> Result<(), NodeError> {
        for note in &applied.notes {
            let _ = writeln!(talk, "note: {note}");
        }
        if self.json {
            return print_json(out, applied);
        }
        for change in applied.changes.0.iter().filter(|_| mode == Mode::DryRun) {
            writeln!(out, "would {change}")?;
        }
        let count = match applied.changes.0.len() {
            0 => "nothing to change".to_owned(),
            1 => "1 change".to_owned(),
            many => format!("{many} changes"),
        };
        let seconds =
            Duration::from_millis(u64::try_from(applied.milliseconds).unwrap_or(u64::MAX)).as_secs_f64();
        writeln!(
            out,
            "{} {} in {}: {count}{}, {seconds:.1} s",
            applied.roles,
            applied.name,
            applied.datacenter,
            if applied.executed { "" } else { ", not carried out" },
        )?;
        Ok(())
    }
}

/// Check configurations without an instance.
#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// Documents to check.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

impl CheckArguments {
    /// Runs it: all faults of all documents.
    pub fn run(self, out: &mut dyn Write, talk: &mut dyn Write) -> Result<(), NodeError> {
        let mut faulty = 0;
        for path in &self.files {
            let absent = || NodeError::NoFile(path.clone());
            // Told as it was named; read from where it is.
            let mut document =
                Document::from_file(&Files::new("/"), &std::path::absolute(path)?)?.ok_or_else(absent)?;
            document.origin = super::sources::Origin::File(path.clone());
            match config::read(&[document]) {
                Ok(config) => writeln!(out, "{}: {} is valid", path.display(), config.role)?,
                Err(faults) => {
                    faulty += 1;
                    tell_faults(&faults, talk)?;
                }
            }
        }
        if faulty > 0 {
            return Err(NodeError::Check {
                faulty,
                all: self.files.len(),
            });
        }
        Ok(())
    }
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
            registries: None,
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

fn tell_faults(faults: &config::Faults, talk: &mut dyn Write) -> Result<(), NodeError> {
    faults
        .0
        .iter()
        .try_for_each(|fault| writeln!(talk, "{fault}"))
        .map_err(NodeError::Output)
}

fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), NodeError> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    writeln!(out).map_err(NodeError::Output)
}
