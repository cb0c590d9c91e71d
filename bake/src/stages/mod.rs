//! Owns the stages of a bake, one module each. A stage's output is a type that only the stage can make, so a wrong
//! order does not compile. Touches nothing itself.

pub mod boot_test;
pub mod image;
pub mod launch;
pub mod payload;
pub mod provision;
pub mod publish;
pub mod seal;
pub mod verify;
