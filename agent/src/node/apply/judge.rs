//! Owns asking the products themselves whether they would take a configuration, before anything is changed.
//! Touches a private temporary folder, and runs `consul validate` and `nomad config validate`.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use crate::host::{FileError, Files, Invocation, Output, ProgramError, Programs};
use crate::node::render::{
    CONSUL_CONFIGURATION, DesiredState, Feature, NOMAD_CONFIGURATION, Product, Versions,
};
use crate::node::secrets::Fetched;

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
/// Returns what the reader should know all the same: warnings of the products, and who was not judged.
pub fn judge(
    desired: &DesiredState,
    versions: &Versions,
    secrets: &Fetched,
    files: &Files,
    programs: &(dyn Programs + Sync),
    products: &[Product],
) -> Result<Vec<String>, JudgeError> {
    let stage = stage(files)?;
    let below = Files::new(stage.path());
    for ours in products.iter().copied().filter_map(configuration) {
        for (path, content) in neighbours(desired, files, Path::new(ours))? {
            below.write_atomic(&path, &content, 0o600)?;
        }
    }
    write_tree(desired, stage.path())?;
    // Side by side: each takes a second or more to be read from a fresh volume.
    let judged: Vec<_> = thread::scope(|scope| {
        let ask = |(product, invocation): (Product, Invocation)| {
            scope.spawn(move || match programs.check(&invocation) {
                Ok(output) => Ok(warnings(product, &output, secrets)),
                Err(source) => Err(JudgeError::Refused {
                    product,
                    source: redacted(source, secrets),
                }),
            })
        };
        let asked: Vec<_> = validators(desired, versions, files, stage.path())
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
    let mut notes = Vec::new();
    let asked = products.contains(&Product::Nomad) && managed(desired, NOMAD_CONFIGURATION);
    if asked && !Feature::NomadConfigValidate.known_by(versions.nomad) {
        notes.push(format!(
            "nobody judged Nomad's configuration: Nomad {} cannot (`nomad config validate` came with {})",
            versions.nomad,
            Feature::NomadConfigValidate.row().from
        ));
    }
    for said in judged {
        notes.extend(said?);
    }
    Ok(notes)
}

/// A folder for root alone. What lies in `/run` never reaches a disk, so that a run that dies leaves no secrets.
fn stage(files: &Files) -> Result<tempfile::TempDir, JudgeError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("cos-agent-");
    let volatile = files.locate("/run");
    if volatile.is_dir()
        && let Ok(stage) = builder.tempdir_in(volatile)
    {
        return Ok(stage);
    }
    builder.tempdir().map_err(|source| JudgeError::Stage {
        path: std::env::temp_dir(),
        source,
    })
}

/// What a validator says of a configuration that it takes, but for what it says of every one.
fn warnings(product: Product, output: &Output, secrets: &Fetched) -> Vec<String> {
    const USUAL: [&str; 4] = [
        "Configuration is valid!",
        "bootstrap_expect > 0: expecting",
        "BootstrapExpect is set to 1; this is the same as Bootstrap mode.",
        "bootstrap = true: do not enable unless necessary",
    ];
    let lines = output.stdout.lines().chain(output.stderr.lines()).map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !USUAL.iter().any(|usual| line.starts_with(usual)))
        .map(|line| format!("{product} says: {}", secrets.redact(line)))
        .collect()
}

/// A validator may repeat what it did not understand.
fn redacted(error: ProgramError, secrets: &Fetched) -> ProgramError {
    match error {
        ProgramError::Failed {
            invocation,
            status,
            message,
        } => ProgramError::Failed {
            invocation,
            status,
            message: secrets.redact(&message),
        },
        other => other,
    }
}

fn managed(desired: &DesiredState, path: &str) -> bool {
    matches!(desired.files.get(path), Some(Some(_)))
}

/// The file that COS writes for a product, if it has one of its own.
pub(super) const fn configuration(product: Product) -> Option<&'static str> {
    match product {
        Product::Consul => Some(CONSUL_CONFIGURATION),
        Product::Nomad => Some(NOMAD_CONFIGURATION),
        Product::Systemd => None,
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
pub fn validators(
    desired: &DesiredState,
    versions: &Versions,
    files: &Files,
    directory: &Path,
) -> Vec<(Product, Invocation)> {
    let nomad = Feature::NomadConfigValidate.known_by(versions.nomad);
    let rows = [
        (Product::Consul, CONSUL_CONFIGURATION, &["validate"][..], true),
        (
            Product::Nomad,
            NOMAD_CONFIGURATION,
            &["config", "validate"][..],
            nomad,
        ),
    ];
    rows.into_iter()
        .filter(|(_, path, _, able)| *able && managed(desired, path))
        .map(|(product, path, words, _)| {
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
pub(super) fn neighbours(
    desired: &DesiredState,
    files: &Files,
    ours: &Path,
) -> Result<Vec<(PathBuf, Vec<u8>)>, JudgeError> {
    let Some(folder) = ours.parent() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for name in files.entries(folder)? {
        let path = folder.join(name);
        let read = path
            .extension()
            .is_some_and(|extension| extension == "json" || extension == "hcl");
        // COS's own are not what they will be, or will not be at all.
        let own = path.to_str().is_some_and(|path| desired.files.contains_key(path));
        if !read || own || files.locate(&path).is_dir() {
            continue;
        }
        if let Some(content) = files.read(&path)? {
            found.push((path, content));
        }
    }
    Ok(found)
}
