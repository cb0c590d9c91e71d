//! Owns putting the real ports together, for the daemon and for commands by hand.
//! Touches what the ports touch.

use std::path::{Path, PathBuf};

use clap::Args;

use super::clock::RealClock;
use super::effects::Ports;
use super::engine::Engine;
use super::error::WatchError;
use super::event::Tell;
use super::gate::HealthGate;
use super::hook::LifecycleActions;
use super::journal::Journal;
use super::machine::SystemMachine;
use super::notify::Notify;
use super::source::NoticeSource;
use super::spec::WatchSpec;
use super::upkeep::{OwnProcess, Upkeep};
use crate::host::{Files, RealPrograms};
use crate::node::NodeError;
use crate::node::drain::{ConsulAgent, ManagedServices, NOMAD_DATA, NomadAgent};
use crate::node::health::{self, LocalApis};
use crate::node::render::{RECORD, Record};
use crate::node::services;
use crate::node::sources::{Imds, imds};

/// Where the node's files and agents are.
#[derive(Debug, Clone, Args)]
pub struct NodeArguments {
    /// Where the machine's files are.
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    pub root: PathBuf,
    /// Consul's API on this machine.
    #[arg(long, value_name = "URL", default_value = health::CONSUL_URL)]
    pub consul: String,
    /// Nomad's API on this machine.
    #[arg(long, value_name = "URL", default_value = health::NOMAD_URL)]
    pub nomad: String,
    /// File with a token for Nomad (policy: node write, all namespaces read, operator read on servers); without it a
    /// client acts with its own identity.
    #[arg(long, value_name = "FILE")]
    pub nomad_token_file: Option<PathBuf>,
    /// File with a token for Consul (policy: agent write, operator read on servers).
    #[arg(long, value_name = "FILE")]
    pub consul_token_file: Option<PathBuf>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// This node, as `apply` left it.
pub(crate) struct ThisNode<'a> {
    pub(crate) arguments: &'a NodeArguments,
    pub(crate) files: Files,
    pub(crate) spec: WatchSpec,
    record: Record,
}

impl<'a> ThisNode<'a> {
    pub(crate) fn find(arguments: &'a NodeArguments) -> Result<Self, NodeError> {
        let files = Files::new(&arguments.root);
        let record = files.read(RECORD)?.ok_or(NodeError::NeverApplied)?;
        let record: Record = serde_json::from_slice(&record).map_err(NodeError::Record)?;
        Ok(Self {
            arguments,
            files,
            spec: WatchSpec::of(&record),
            record,
        })
    }

    /// Name of the node: the instance id.
    pub(crate) fn name(&self) -> &str {
        &self.record.name
    }

    /// Makes an engine with the real ports and lets `act` use it. It hears the metadata service at `imds`, or,
    /// without one, only what the journal remembers.
    pub(crate) fn with_engine<T>(
        &self,
        imds: Option<&str>,
        lifecycle: Option<&dyn LifecycleActions>,
        notify: &Notify,
        tell: &mut dyn Tell,
        act: impl FnOnce(&mut Engine) -> T,
    ) -> Result<T, NodeError> {
        let programs = RealPrograms;
        // Before anything starts a thread.
        let mut clock = RealClock::start().map_err(WatchError::Signals)?;
        let manager = services::detect(&self.files, &programs).ok_or(NodeError::NoServiceManager)?;
        let name = &self.record.name;
        let arguments = self.arguments;
        let nomad_token = arguments.nomad_token_file.as_deref();
        let nomad = NomadAgent::new(
            &arguments.nomad,
            &self.files,
            name,
            nomad_token,
            Path::new(NOMAD_DATA),
        );
        let consul = ConsulAgent::new(
            &arguments.consul,
            &self.files,
            name,
            arguments.consul_token_file.as_deref(),
        );
        let docker = self.files.locate(health::DOCKER_SOCKET);
        let gate = HealthGate::new(
            &self.record,
            LocalApis::new(&arguments.consul, &arguments.nomad, docker),
            &self.files,
        );
        let mut source: Box<dyn NoticeSource> =
            Box::new(Imds::new(imds.unwrap_or(imds::DEFAULT_URL), imds::BUDGET));
        let mut upkeep = OwnProcess::new(imds.unwrap_or(imds::DEFAULT_URL), &arguments.consul);
        let ports = Ports {
            source: source.as_mut(),
            nomad: &nomad,
            consul: &consul,
            services: &ManagedServices::new(manager.as_ref(), &programs, &self.files),
            lifecycle,
            upkeep: imds.is_some().then_some(&mut upkeep as &mut dyn Upkeep),
            gate: &gate,
            machine: &SystemMachine::new(&self.files, &programs),
            clock: &mut clock,
            tell,
            notify,
        };
        let mut engine =
            Engine::new(&self.spec, ports, Journal::new(&self.files)).map_err(WatchError::File)?;
        if imds.is_none() {
            engine.ask_nobody();
        }
        Ok(act(&mut engine))
    }
}
