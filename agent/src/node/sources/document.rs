//! Owns what every source gives: bytes, and where they came from.
//! Touches files (reading).

use std::fmt;
use std::path::{Path, PathBuf};

use crate::host::{FileError, Files};

/// Where a document came from; every message about it begins with this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A tag of the instance, by its key.
    Tag(String),
    /// A parameter of Systems Manager, by its name.
    Parameter(String),
    /// The instance's user-data, read from the metadata service.
    UserData,
    /// A part of the user-data.
    UserDataPart {
        /// Its place, from 1, counting every part that holds no others.
        number: usize,
        /// Its file name, if it has one.
        name: Option<String>,
    },
    /// A file on this machine.
    File(PathBuf),
    /// A file of the drop-in folder.
    DropIn(PathBuf),
    /// The arguments of a command, by its name.
    CommandLine(&'static str),
    /// COS's own example of a node, which the boot test has judged.
    Sample,
}

impl Origin {
    /// Whether a user sees lines and columns where this came from.
    pub(crate) const fn has_places(&self) -> bool {
        !matches!(self, Self::Tag(_) | Self::CommandLine(_))
    }

    /// Whether a document must say of which version it is. A tag is one value, and an included document is part of
    /// the one that includes it.
    pub(crate) const fn needs_version(&self) -> bool {
        !matches!(self, Self::Tag(_) | Self::Parameter(_))
    }

    /// The kind of source, as a word for machines.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tag(_) => "tag",
            Self::Parameter(_) => "parameter",
            Self::UserData => "user-data",
            Self::UserDataPart { .. } => "user-data-part",
            Self::File(_) => "file",
            Self::DropIn(_) => "drop-in",
            Self::CommandLine(_) => "command-line",
            Self::Sample => "sample",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(key) => write!(formatter, "tag {key}"),
            Self::Parameter(name) => write!(formatter, "parameter {name}"),
            Self::UserData => formatter.write_str("user-data"),
            Self::UserDataPart { number, name: None } => write!(formatter, "user-data part {number}"),
            Self::UserDataPart {
                number,
                name: Some(name),
            } => write!(formatter, "user-data part {number} ({name})"),
            Self::File(path) | Self::DropIn(path) => write!(formatter, "{}", path.display()),
            Self::CommandLine(command) => write!(formatter, "arguments of {command}"),
            Self::Sample => formatter.write_str("the sample"),
        }
    }
}

/// Bytes and where they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it came from.
    pub origin: Origin,
    /// What it says, uninterpreted.
    pub bytes: Vec<u8>,
}

impl Document {
    /// A file below the root; none if it does not exist.
    pub fn from_file(files: &Files, path: &Path) -> Result<Option<Self>, FileError> {
        let origin = Origin::File(path.to_owned());
        Ok(files.read(path)?.map(|bytes| Self { origin, bytes }))
    }

    /// The files of a drop-in folder whose names end in `.yaml`, `.yml` or `.json`, sorted by name. Hidden ones,
    /// which editors and package managers leave behind, are not read.
    pub fn drop_ins(files: &Files, folder: &Path) -> Result<Vec<Self>, FileError> {
        let mut documents = Vec::new();
        for name in files.entries(folder)? {
            let path = folder.join(&name);
            let extension = path.extension().and_then(|extension| extension.to_str());
            if name.starts_with('.') || !matches!(extension, Some("yaml" | "yml" | "json")) {
                continue;
            }
            if let Some(bytes) = files.read(&path)? {
                let origin = Origin::DropIn(path);
                documents.push(Self { origin, bytes });
            }
        }
        Ok(documents)
    }
}
