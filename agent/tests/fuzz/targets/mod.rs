//! Owns the list of all readers of what comes from outside. Touches nothing.

mod aws;
mod config;
mod disks;
mod local;
mod metadata;

use crate::target::Target;

/// All of them, the slow ones last: the last are taken first.
pub(crate) fn all() -> Vec<Target> {
    let mut all = disks::targets();
    all.extend(aws::targets());
    all.extend(metadata::targets());
    all.extend(config::targets());
    all.extend(local::targets());
    all
}
