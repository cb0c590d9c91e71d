//! Owns what the agent does on a node: apply, check, health. Touches `host`, the metadata service and local HTTP.
