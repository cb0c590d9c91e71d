//! Owns the agent's client of AWS: a handful of signed calls with deadlines, in the words that the node uses.
//! Touches AWS, the metadata service (credentials), trusted certificates and `getent`.
//!
//! ```no_run
//! use cos_agent::aws::{Client, Environment, Settings};
//! let client = Client::new(Settings::new("eu-central-1", Environment::of_process()));
//! let keys = client.get_parameters(["/cos/consul/gossip", "/cos/nomad/gossip"])?;
//! # Ok::<(), cos_agent::aws::AwsError>(())
//! ```

mod autoscaling;
mod client;
mod credentials;
mod ec2;
mod endpoint;
mod environment;
mod error;
mod json;
mod names;
mod partition;
mod query;
mod refusal;
mod retry;
mod secret;
mod sign;
mod transport;
mod trust;

pub use autoscaling::{Group, Held, LifecycleHook, LifecycleResult, Membership, Transition};
pub use client::{Client, DEADLINE, PATIENCE, Settings};
pub use credentials::{Credentials, CredentialsError, Source};
pub use ec2::Volume;
pub use endpoint::Variant;
pub use environment::Environment;
pub use error::{AwsError, Kind};
pub use json::{AuthorizationToken, Parameter};
pub use secret::Secret;

pub(crate) use endpoint::Service;
pub(crate) use partition::Partition;
