//! Owns what one node does of AWS at its boot: what `apply` does, from its sources to its secrets, and no more.
//! Touches its world.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use cos_agent::aws::{Client, Environment, PATIENCE, Settings};
use cos_agent::host::Files;
use cos_agent::node::config;
use cos_agent::node::report::Timeline;
use cos_agent::node::secrets::Fetched;
use cos_agent::node::sources::{Imds, InstanceFacts, Parameters, ParametersError, Sources};
use cos_agent::node::{NodeError, configure};
use cos_agent::world::World;

use crate::world::NodeWorld;

pub(crate) const REGION: &str = "eu-central-1";

const METADATA: &str = "http://169.254.169.254";

/// As `apply` has it.
const BUDGET: std::time::Duration = cos_agent::node::sources::BUDGET;

/// The agent's client, made when it is known where the instance is, and then kept.
struct Store {
    world: Arc<NodeWorld>,
    client: OnceLock<Client>,
}

impl Store {
    fn client(&self, facts: &InstanceFacts) -> &Client {
        self.client.get_or_init(|| {
            let world: Arc<dyn World> = self.world.clone();
            let settings = Settings {
                domain: Some(facts.domain.clone()),
                imds: Some(METADATA.to_owned()),
                world: Some(world),
                ..Settings::new(&facts.region, Environment::default())
            };
            Client::new(settings).patient(PATIENCE)
        })
    }
}

impl Parameters for Store {
    fn get(
        &self,
        names: &[&str],
        facts: &InstanceFacts,
    ) -> Result<BTreeMap<String, String>, ParametersError> {
        self.client(facts).get(names, facts)
    }
}

/// Configures a node; says how many secrets it has.
pub(crate) fn boot(world: &Arc<NodeWorld>, files: &Files) -> Result<usize, NodeError> {
    let store = Store {
        world: Arc::clone(world),
        client: OnceLock::new(),
    };
    let outside: Arc<dyn World> = world.clone();
    let imds = Imds::in_world(METADATA, BUDGET, outside);
    let sources = Sources {
        files,
        named: &[],
        imds: Some(&imds),
        parameters: Some(&store),
    };
    let (config, gathered) = configure(&sources, &Timeline::new(), &mut |_| Ok(()))?;
    let facts = gathered.facts.unwrap();
    let spec = config::resolve(&config, &facts, None)?;
    Fetched::fetch(&spec, store.client(&facts), files)?;
    Ok(cos_agent::node::secrets::needs(&spec).len())
}
