//! `cos-sandbox`: starts, lists and ends the local EC2.
fn main() {}
