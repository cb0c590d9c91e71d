//! The node agent, as a library. See `_docs/architecture.md`.
