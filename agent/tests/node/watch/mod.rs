//! The watcher in a world of memory: what it does, how often it asks, and that it ends well wherever it is killed.

mod day;
mod faults;
mod stories;
mod world;
