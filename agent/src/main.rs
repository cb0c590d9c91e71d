//! `cos-agent`: the command.
fn main() {}
