//! The AMI baker, as a library. `_docs/architecture.md` says which room owns what.

pub mod base;
mod blocking;
pub mod bundle;
pub mod cleanup;
pub mod cli;
pub mod cloud;
pub mod commands;
pub mod digest;
pub mod display;
pub mod error;
pub mod events;
mod folders;
pub mod ledger;
pub mod lock;
pub mod manifest;
pub mod payload;
pub mod pipeline;
pub mod plan;
pub mod recipe;
pub mod release;
pub mod remote;
pub mod run;
pub mod stages;
pub mod sweep;
pub mod wait;
