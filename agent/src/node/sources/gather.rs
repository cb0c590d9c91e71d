//! Owns which sources there are and which of them wins: tags, then parameters, user-data, the file, drop-ins.
//! Touches files (reading), the metadata service and, where `include` asks for it, Systems Manager.

use std::path::{Path, PathBuf};
use std::thread;

use thiserror::Error;

use super::{Document, Imds, ImdsError, InstanceFacts, Origin, Parameters, ParametersError, tags, user_data};
use crate::host::{FileError, Files};
use crate::node::config::{self, Fault, Faults};

/// Where cloud-init puts the node's configuration.
pub const CONFIGURATION: &str = "/etc/cos/node.yaml";
/// Folder of files that are laid over it, in the order of their names.
pub const DROP_INS: &str = "/etc/cos/node.d";

/// The sources could not be read.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A file is there and cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that was named does not exist.
    #[error("there is no file {}", .0.display())]
    NoFile(PathBuf),
    /// The metadata service could not be asked.
    #[error(transparent)]
    Imds(#[from] ImdsError),
    /// Systems Manager could not be asked.
    #[error(transparent)]
    Parameters(#[from] ParametersError),
    /// `include` names parameters where nobody can be asked for them.
    #[error("include names parameter {name}, and Systems Manager cannot be asked here")]
    NoParameters {
        /// The first of them.
        name: String,
    },
    /// What a source says cannot be understood; each fault is told by itself.
    #[error(transparent)]
    Faults(#[from] Faults),
}

/// Where to look.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Files of the machine.
    pub files: &'a Files,
    /// Files that speak instead of everything else; usually none.
    pub named: &'a [PathBuf],
    /// The metadata service; none where there is no instance.
    pub imds: Option<&'a Imds>,
    /// Systems Manager; none where it cannot be asked.
    pub parameters: Option<&'a dyn Parameters>,
}

/// What the sources say.
#[derive(Debug, Clone, Default)]
pub struct Gathered {
    /// Documents, the lowest first. Defaults are below all of them.
    pub documents: Vec<Document>,
    /// What the machine is; none if there was no metadata service to ask.
    pub facts: Option<InstanceFacts>,
    /// What user-data holds beside documents, in words.
    pub others: Vec<String>,
    /// What the reader should know though it is no fault.
    pub notes: Vec<String>,
}

/// Reads every source.
pub fn gather(sources: &Sources) -> Result<Gathered, SourceError> {
    let mut gathered = Gathered::default();
    let mut faults = Vec::new();
    // Parameters belong behind the tags and before the rest.
    let mut behind_tags = 0;
    if sources.named.is_empty() {
        if let Some(imds) = sources.imds {
            let told = ask(imds)?;
            gathered.facts = Some(told.facts);
            gathered.documents = told.tags;
            behind_tags = gathered.documents.len();
            faults = told.faults;
            let found = user_data::read(&told.user_data);
            gathered.documents.extend(found.documents);
            gathered.others = found.others;
            faults.extend(found.faults);
        }
        let files = sources.files;
        gathered
            .documents
            .extend(Document::from_file(files, Path::new(CONFIGURATION))?);
        gathered
            .documents
            .extend(Document::drop_ins(files, Path::new(DROP_INS))?);
    } else {
        gathered.documents = named(sources.named)?;
        gathered.facts = sources.imds.map(Imds::facts).transpose()?;
    }
    include(
        &mut gathered.documents,
        behind_tags,
        sources.parameters,
        gathered.facts.as_ref(),
        &mut faults,
    )?;
    if faults.is_empty() {
        return Ok(gathered);
    }
    // The others are found as well, so that all of them are told at once.
    if let Err(others) = config::read(&gathered.documents) {
        faults.extend(others.0);
    }
    Err(Faults(faults).into())
}

/// Files as they are named on a command line.
pub fn named(paths: &[PathBuf]) -> Result<Vec<Document>, SourceError> {
    let read = |path: &PathBuf| {
        // A name on the command line is the caller's, not below the root.
        let absolute = std::path::absolute(path).map_err(|source| FileError {
            action: "find",
            path: path.clone(),
            source,
        })?;
        let document = Document::from_file(&Files::new("/"), &absolute)?;
        let document = document.ok_or_else(|| SourceError::NoFile(path.clone()))?;
        // Told as it was named; read from where it is.
        let origin = Origin::File(path.clone());
        Ok(Document { origin, ..document })
    };
    paths.iter().map(read).collect()
}

/// Puts the parameters that `include` names into the documents at `place`, in the order in which they are named.
pub fn include(
    documents: &mut Vec<Document>,
    place: usize,
    parameters: Option<&dyn Parameters>,
    facts: Option<&InstanceFacts>,
    faults: &mut Vec<Fault>,
) -> Result<(), SourceError> {
    let included = config::included(documents);
    let Some(first) = included.first() else {
        return Ok(());
    };
    let parameters = parameters.ok_or_else(|| SourceError::NoParameters {
        name: first.name.clone(),
    })?;
    let mut names: Vec<&str> = included.iter().map(|included| included.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    // Without an instance there are files only, which are in no region.
    let sample = InstanceFacts::sample();
    let mut values = parameters.get(&names, facts.unwrap_or(&sample))?;
    let mut found = Vec::new();
    for included in &included {
        match values.remove(&included.name) {
            Some(value) => found.push(Document {
                origin: Origin::Parameter(included.name.clone()),
                bytes: value.into_bytes(),
            }),
            None => faults.push(included.absent.clone()),
        }
    }
    documents.splice(place..place, found);
    Ok(())
}

/// What the metadata service tells at a boot.
struct Told {
    facts: InstanceFacts,
    tags: Vec<Document>,
    user_data: Vec<u8>,
    faults: Vec<Fault>,
}

/// Asks for everything side by side, with one token.
fn ask(imds: &Imds) -> Result<Told, SourceError> {
    imds.open()?;
    let (facts, user_data, tags) = thread::scope(|scope| {
        let user_data = scope.spawn(|| imds.user_data());
        let tags = scope.spawn(|| tagged(imds));
        (imds.facts(), join(user_data), join(tags))
    });
    let (tags, faults) = tags?;
    Ok(Told {
        facts: facts?,
        tags,
        user_data: user_data?.unwrap_or_default(),
        faults,
    })
}

fn tagged(imds: &Imds) -> Result<(Vec<Document>, Vec<Fault>), ImdsError> {
    let keys = imds.tag_keys()?;
    let settings = match tags::settings(&keys) {
        Ok(settings) => settings,
        Err(fault) => return Ok((Vec::new(), vec![fault])),
    };
    let values: Vec<_> = thread::scope(|scope| {
        let ask = |key: &&str| {
            let key = (*key).to_owned();
            scope.spawn(move || imds.tag(&key).map(|value| (key, value)))
        };
        let asked: Vec<_> = settings.iter().map(ask).collect();
        asked.into_iter().map(join).collect()
    });
    let (mut documents, mut faults) = (Vec::new(), Vec::new());
    for value in values {
        // A tag that went away between the list and the question says nothing.
        if let (key, Some(value)) = value? {
            match tags::document(&key, &value) {
                Ok(document) => documents.push(document),
                Err(fault) => faults.push(fault),
            }
        }
    }
    Ok((documents, faults))
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
