//! The AMI baker, as a library. See `_docs/architecture.md`.
