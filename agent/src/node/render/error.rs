//! Owns what a machine cannot do of what a spec asks for.
//! Touches nothing.

use thiserror::Error;

use super::{Product, Version};

/// A spec asks for what is not possible on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenderError {
    /// The version is older than the setting.
    #[error("{setting} needs {product} {}, installed is {}", product.write(*needed), product.write(*installed))]
    TooOld {
        /// Setting in the user's words.
        setting: String,
        /// Product.
        product: Product,
        /// First version that knows it.
        needed: Version,
        /// What is installed.
        installed: Version,
    },
    /// The version is newer than the setting.
    #[error(
        "{setting} was removed from {product} in {}, installed is {}",
        product.write(*removed),
        product.write(*installed)
    )]
    RemovedIn {
        /// Setting in the user's words.
        setting: String,
        /// Product.
        product: Product,
        /// First version that no longer knows it.
        removed: Version,
        /// What is installed.
        installed: Version,
    },
    /// A user is not on the machine.
    #[error("{setting} is {user}, and this machine has no such user with a group")]
    NoUser {
        /// Setting in the user's words.
        setting: String,
        /// User.
        user: String,
    },
    /// Settings of a service, where a script starts it.
    #[error(
        "the service of {product} cannot have settings of its own here: this machine runs System V scripts"
    )]
    NoSettings {
        /// Product.
        product: Product,
    },
    /// A secret was not fetched before: a defect of COS, not of the input.
    #[error("the secret at {0} was not fetched")]
    Secret(String),
    /// HCL could not be written: a defect of COS, not of the input.
    #[error("the configuration of Nomad could not be written as HCL: {0}")]
    Hcl(String),
    /// JSON could not be written: a defect of COS, not of the input.
    #[error("a configuration could not be written as JSON: {0}")]
    Json(String),
}
