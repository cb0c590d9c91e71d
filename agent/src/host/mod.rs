//! Owns the port to this machine: files below a root path, programs, and nothing else.
//! Touches the file system and child processes; every other module of the agent goes through here to change anything.

mod file;
mod lock;
mod owned;
mod program;

pub use file::{FileError, Files};
pub use lock::FileLock;
pub use owned::Plain;
pub use program::{Invocation, Output, ProgramError, Programs, RealPrograms};
