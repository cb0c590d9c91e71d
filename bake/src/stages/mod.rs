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

#[cfg(test)]
mod tests {
    use crate::plan::EXPIRY;

    #[test]
    fn a_bake_ends_before_what_it_made_expires() {
        let start = super::launch::RUNNING_DEADLINE + super::launch::ONLINE_DEADLINE;
        let longest = [
            start.max(super::payload::SNAPSHOT_DEADLINE),
            super::provision::VOLUME_DEADLINE + super::provision::INSTALL_DEADLINE,
            super::verify::VERIFY_DEADLINE,
            super::seal::SEAL_DEADLINE + super::seal::STOP_DEADLINE,
            super::image::IMAGE_DEADLINE,
            start + super::boot_test::BOOT_TEST_DEADLINE,
        ];
        let longest: std::time::Duration = longest.into_iter().sum();
        assert!(longest < EXPIRY.unsigned_abs(), "{longest:?}");
    }
}
