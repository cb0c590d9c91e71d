//! The COS sandbox: a local EC2 whose instances are real machines. See `_docs/architecture.md`.

pub mod api;
pub mod base;
pub mod bench;
pub mod demo;
pub mod machines;
pub mod parts;
pub mod sandbox;
mod work_folder;
