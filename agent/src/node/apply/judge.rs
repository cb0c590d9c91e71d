//! Owns asking the products themselves whether they would take a configuration, before anything is changed.
//! Touches a private temporary folder, and runs `consul validate` and `nomad config validate`.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::host::{FileError, Files, Invocation, ProgramError, Programs};
use crate::node::render::{CONSUL_CONFIGURATION, DesiredState, NOMAD_CONFIGURATION, Product};

/// Validating reads a binary of more than 100 MB, which on a fresh volume takes its time.
const DEADLINE: Duration = Duration::from_mins(2);

/// A configuration was not taken, or could not be judged.
#[derive(Debug, Error)]
pub enum JudgeError {
    /// The product refuses it. What it says is in the source.
    #[error("{product} refuses the configuration of this node; nothing was changed")]
    Refused {
        /// Product.
        product: Product,
        /// The validator's words.
        #[source]
        source: ProgramError,
    },
    /// The product refused it when it was started for the first time.
    #[error(
        "{product} refuses the configuration of this node; it was stopped again and does not start at boot"
    )]
    RefusedAtStart {
        /// Product.
        product: Product,
        /// The validator's words.
        #[source]
        source: ProgramError,
    },
    /// The temporary folder could not be filled.
    #[error("could not put the configuration into {} to have it judged", path.display())]
    Stage {
        /// Folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An operator's file beside COS's could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Has `products` judge what they would read after the change: COS's files together with the operators' beside them.
pub fn judge(
    desired: &DesiredState,
    files: &Files,
    programs: &(dyn Programs + Sync),
    products: &[Product],
) -> Result<(), JudgeError> {
    let stage = tempfile::Builder::new()
        .prefix("cos-agent-")
        .tempdir()
        .map_err(|source| JudgeError::Stage {
            path: std::env::temp_dir(),
            source,
        })?;
    let below = Files::new(stage.path());
    for product in products {
        for (path, content) in neighbours(files, Path::new(configuration(*product)))? {
            below.write_atomic(&path, &content, 0o600)?;
        }
    }
    write_tree(desired, stage.path())?;
    // Side by side: each takes a second or more to be read from a fresh volume.
    let judged: Vec<_> = thread::scope(|scope| {
        let ask = |(product, invocation): (Product, Invocation)| {
            scope.spawn(move || {
                let judged = programs.check(&invocation);
                judged
                    .map(drop)
                    .map_err(|source| JudgeError::Refused { product, source })
            })
        };
        let asked: Vec<_> = validators(desired, files, stage.path())
            .into_iter()
            .filter(|(product, _)| products.contains(product))
            .map(ask)
            .collect();
        let join = |asked: thread::ScopedJoinHandle<'_, _>| {
            asked
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        asked.into_iter().map(join).collect()
    });
    judged.into_iter().collect()
}

/// The file that COS writes for a product.
pub(super) const fn configuration(product: Product) -> &'static str {
    match product {
        Product::Consul => CONSUL_CONFIGURATION,
        Product::Nomad => NOMAD_CONFIGURATION,
    }
}

/// Writes every file of a desired state below a folder that is not the machine's root.
pub fn write_tree(desired: &DesiredState, directory: &Path) -> Result<(), JudgeError> {
    let below = Files::new(directory);
    for (path, file) in &desired.files {
        if let Some(file) = file {
            below.write_atomic(path, &file.content, file.mode)?;
        }
    }
    Ok(())
}

/// The validators that judge what [`write_tree`] wrote: the machine's own binaries, over that folder.
pub fn validators(desired: &DesiredState, files: &Files, directory: &Path) -> Vec<(Product, Invocation)> {
    let rows = [
        (Product::Consul, CONSUL_CONFIGURATION, &["validate"][..]),
        (Product::Nomad, NOMAD_CONFIGURATION, &["config", "validate"][..]),
    ];
    rows.into_iter()
        .filter(|(_, path, _)| matches!(desired.files.get(*path), Some(Some(_))))
        .map(|(product, path, words)| {
            let binary = files.locate(product.binary());
            let staged = Files::new(directory).locate(path);
            let staged = staged
                .parent()
                .unwrap_or(directory)
                .to_string_lossy()
                .into_owned();
            let arguments = words.iter().copied().chain([staged.as_str()]);
            (
                product,
                Invocation::new(&binary.to_string_lossy(), arguments, DEADLINE),
            )
        })
        .collect()
}

/// The operators' `.json` and `.hcl` files that the product reads together with ours, sorted by path.
pub(super) fn neighbours(files: &Files, ours: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, JudgeError> {
    let Some(folder) = ours.parent() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for name in files.entries(folder)? {
        let path = folder.join(name);
        let read = path
            .extension()
            .is_some_and(|extension| extension == "json" || extension == "hcl");
        if !read || path == ours || files.locate(&path).is_dir() {
            continue;
        }
        if let Some(content) = files.read(&path)? {
            found.push((path, content));
        }
    }
    Ok(found)
}
