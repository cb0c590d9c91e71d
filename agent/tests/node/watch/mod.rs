//! The watcher in a world of memory: what it does, how often it asks, and that it ends well wherever it is killed.

mod agents;
mod cluster;
mod day;
mod faults;
mod hooks;
mod nomads;
mod ports;
mod process;
mod real_agents;
mod stories;
mod upkeep;
mod world;
