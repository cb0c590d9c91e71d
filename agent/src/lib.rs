//! The node agent, as a library: installs, verifies and seals an image; configures, proves and drains a node.
//! `_docs/architecture.md` says which room owns what.

pub mod aws;
pub mod builder;
pub mod bundle;
pub mod cli;
pub mod ecr;
pub mod error;
pub mod host;
pub mod node;
pub mod output;
pub mod world;
