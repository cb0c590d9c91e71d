//! Owns the programs that are built from Go modules: Nomad, Consul and the CNI plug-ins.
//! Touches a cache folder and Go's module proxy.
//!
//! The module files are in `tests/go/`. Nomad and Consul are under the Business Source Licence: they are test
//! parts, never shipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{PartsError, Say, hex, run};
use crate::work_folder;

/// One Go module of `tests/go/` and how it is built.
#[derive(Debug)]
pub(super) struct Program {
    /// Name of the product, as its archives have it.
    pub name: &'static str,
    /// Version without a leading `v`.
    pub version: &'static str,
    /// Module that the product is.
    module: &'static str,
    /// Files of the folder in `tests/go/`.
    files: &'static [(&'static str, &'static str)],
    cgo: bool,
    ldflags: &'static str,
    /// What `go build` is asked for: the folder itself, or the tools of `go.mod`.
    target: &'static str,
    /// Arguments that make a built program print its version, and what must stand in the answer.
    check: Option<(&'static str, &'static str)>,
}

/// A program that is built.
#[derive(Debug)]
pub(super) struct Built {
    /// Which.
    pub program: &'static Program,
    /// Folder with nothing but the executables.
    pub executables: PathBuf,
    /// The product's licence text.
    pub license: PathBuf,
}

/// The programs of the mirror.
///
/// Nomad needs cgo (its executor enters namespaces before Go starts). It is linked statically, so that a
/// machine with a newer C library than the stand-ins' can build it.
pub(super) const PROGRAMS: &[Program] = &[
    Program {
        name: "cni-plugins",
        version: "1.8.0",
        module: "github.com/containernetworking/plugins",
        files: &[
            ("go.mod", include_str!("../../go/cni-plugins/go.mod")),
            ("go.sum", include_str!("../../go/cni-plugins/go.sum")),
        ],
        cgo: false,
        ldflags: "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v1.8.0",
        target: "tool",
        check: None,
    },
    Program {
        name: "consul",
        version: "1.21.0",
        module: "github.com/hashicorp/consul",
        files: &[
            ("go.mod", include_str!("../../go/consul-1.21.0/go.mod")),
            ("go.sum", include_str!("../../go/consul-1.21.0/go.sum")),
            ("main.go", include_str!("../../go/consul-1.21.0/main.go")),
        ],
        cgo: false,
        ldflags: "-s -w",
        target: ".",
        check: Some(("version", "Consul v1.21.0\n")),
    },
    Program {
        name: "nomad",
        version: "1.11.0",
        module: "github.com/hashicorp/nomad",
        files: &[
            ("go.mod", include_str!("../../go/nomad-1.11.0/go.mod")),
            ("go.sum", include_str!("../../go/nomad-1.11.0/go.sum")),
            ("main.go", include_str!("../../go/nomad-1.11.0/main.go")),
        ],
        cgo: true,
        ldflags: "-s -w -linkmode=external -extldflags=-static",
        target: ".",
        check: Some(("version", "Nomad v1.11.0\n")),
    },
];

/// Older versions, whose validators judge what the agent writes for them. No mirror has them: nothing is baked of them.
pub(super) const OLDER: &[Program] = &[
    Program {
        name: "consul",
        version: "1.11.4",
        module: "github.com/hashicorp/consul",
        files: &[
            ("go.mod", include_str!("../../go/consul-1.11.4/go.mod")),
            ("go.sum", include_str!("../../go/consul-1.11.4/go.sum")),
            ("main.go", include_str!("../../go/consul-1.11.4/main.go")),
        ],
        cgo: false,
        ldflags: "-s -w",
        target: ".",
        check: Some(("version", "Consul v1.11.4")),
    },
    Program {
        name: "nomad",
        version: "1.10.0",
        module: "github.com/hashicorp/nomad",
        files: &[
            ("go.mod", include_str!("../../go/nomad-1.10.0/go.mod")),
            ("go.sum", include_str!("../../go/nomad-1.10.0/go.sum")),
            ("main.go", include_str!("../../go/nomad-1.10.0/main.go")),
        ],
        cgo: true,
        ldflags: "-s -w -linkmode=external -extldflags=-static",
        target: ".",
        check: Some(("version", "Nomad v1.10.0")),
    },
];

/// Builds what the cache has not.
pub(super) fn build_all(
    programs: &'static [Program],
    cache: &Path,
    say: Say<'_>,
) -> Result<Vec<Built>, PartsError> {
    programs
        .iter()
        .map(|program| program.ensure(cache, say))
        .collect()
}

impl Program {
    /// Digest of the module files and of the flags.
    pub(super) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{}\0{}\0{}\0", self.name, self.cgo, self.ldflags));
        for (name, text) in self.files {
            hash.update(format!("{name}\0{}\0{text}", text.len()));
        }
        hex(&hash.finalize())
    }

    fn ensure(&'static self, cache: &Path, say: Say<'_>) -> Result<Built, PartsError> {
        let folder = cache.join(format!("{}-{}-{}", self.name, self.version, &self.digest()[..16]));
        if !folder.is_dir() {
            let work = work_folder::make(cache, "go-building-");
            let work = work.map_err(PartsError::io("make a folder in", cache))?;
            self.build(work.path(), say)?;
            std::fs::rename(work.path().join("out"), &folder).map_err(PartsError::io("publish", &folder))?;
        }
        Ok(Built {
            program: self,
            executables: folder.join("bin"),
            license: folder.join("LICENSE.txt"),
        })
    }

    fn build(&self, work: &Path, say: Say<'_>) -> Result<(), PartsError> {
        let source = work.join("source");
        let bin = work.join("out/bin");
        for folder in [&source, &bin] {
            std::fs::create_dir_all(folder).map_err(PartsError::io("make the folder", folder))?;
        }
        for (name, text) in self.files {
            let path = source.join(name);
            std::fs::write(&path, text).map_err(PartsError::io("write", &path))?;
        }
        let what = format!("go build of {} {}", self.name, self.version);
        say(&format!("{what}: minutes, if Go's caches are empty"));
        let output = if self.target == "." {
            bin.join(self.name)
        } else {
            bin.clone()
        };
        let mut command = self.go(&source);
        // `go mod tidy` fails on imports of Nomad's tests; -mod=mod does without it.
        command.args([
            "build",
            "-v",
            "-mod=mod",
            "-trimpath",
            "-buildvcs=false",
            "-tags=osusergo,netgo,release",
        ]);
        command
            .arg(format!("-ldflags={}", self.ldflags))
            .arg("-o")
            .arg(output)
            .arg(self.target);
        run::watched(&what, "modules and packages", &mut command, say)?;

        let list = ["list", "-mod=mod", "-m", "-f", "{{.Dir}}", self.module];
        let module = run::output("go list", self.go(&source).args(list))?;
        let license = Path::new(module.trim()).join("LICENSE");
        let copy = work.join("out/LICENSE.txt");
        // Read and written, because a copy would inherit the module cache's read-only mode.
        let text = std::fs::read(&license).map_err(PartsError::io("read", &license))?;
        std::fs::write(&copy, text).map_err(PartsError::io("write", &copy))?;
        self.check_version(&bin)
    }

    fn check_version(&self, bin: &Path) -> Result<(), PartsError> {
        let Some((argument, expected)) = self.check else {
            return Ok(());
        };
        let said = run::output(
            &format!("{} {argument}", self.name),
            Command::new(bin.join(self.name)).arg(argument),
        )?;
        if said.starts_with(expected) {
            return Ok(());
        }
        Err(PartsError::Unfit(format!(
            "the {} that was built says `{}`",
            self.name,
            said.lines().next().unwrap_or("")
        )))
    }

    fn go(&self, folder: &Path) -> Command {
        let mut command = Command::new("go");
        command
            .current_dir(folder)
            .env_remove("GOFLAGS")
            .env("GOWORK", "off");
        command
            .env("GOOS", "linux")
            .env("GOARCH", "amd64")
            .env("CGO_ENABLED", if self.cgo { "1" } else { "0" });
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_files_name_the_versions_that_the_archives_have() {
        for program in PROGRAMS.iter().chain(OLDER) {
            let (_, text) = program.files.iter().find(|(name, _)| *name == "go.mod").unwrap();
            let line = format!("{} v{}", program.module, program.version);
            assert!(
                text.lines()
                    .any(|found| found.trim().trim_start_matches("require ") == line),
                "{line}"
            );
        }
    }
}
