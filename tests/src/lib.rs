//! The COS sandbox: a local EC2 whose instances are real machines. See `_docs/architecture.md`.

pub mod machines;
