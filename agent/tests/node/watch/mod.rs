//! The watcher in a world of memory: what it does, how often it asks, and that it ends well wherever it is killed.

mod agents;
mod agents_process;
mod cluster;
mod day;
mod faults;
mod process;
mod stories;
mod world;
