//! `cos-agent`: parses the command line, runs one room, prints the error chain once, and exits with a documented code.

fn main() {}
