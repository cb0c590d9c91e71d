//! Owns what the agent does on the builder and in the boot test: install, verify, seal. Touches `host` only.
