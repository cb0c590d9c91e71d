//! Owns the benches: what COS must reach, measured on this machine, line by line.
//! Touches a sandbox as the demo does; writes nothing outside of it.

mod agent;
mod line;
mod node;
mod record;

pub use agent::{Settings, agent};
pub use line::{Line, print, print_json};
