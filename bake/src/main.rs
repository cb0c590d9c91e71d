//! `cos-bake`: the command.
fn main() {}
