//! Owns what suites that run COS's programs need from outside: where they are, where what is slow to make is kept, and
//! what a user's environment holds. Touches the environment.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// What the suite needs from outside, which `./dev test` names.
pub(crate) struct Parts {
    pub(crate) python: PathBuf,
    pub(crate) mirror: PathBuf,
    pub(crate) bin: PathBuf,
    pub(crate) cache: PathBuf,
}

impl Parts {
    /// None, loudly, where something is missing outside CI.
    pub(crate) fn find(test: &str) -> Option<Self> {
        let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
        let found = (
            named("COS_TESTS_PYTHON"),
            named("COS_TESTS_MIRROR"),
            named("COS_TESTS_BIN"),
            named("COS_TESTS_CACHE"),
        );
        let (Some(python), Some(mirror), Some(bin), Some(cache)) = found else {
            assert!(
                std::env::var_os("CI").is_none(),
                "COS_TESTS_… are not set: run ./dev test"
            );
            skipped(test);
            return None;
        };
        Some(Self {
            python,
            mirror,
            bin,
            cache,
        })
    }

    /// `cos-bake` in the folder of a user who has this environment, and nothing of this machine's own.
    pub(crate) fn cos_bake<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &self,
        arguments: &[&str],
        home: &Path,
        environment: impl IntoIterator<Item = (K, V)>,
    ) -> Command {
        let mut command = Command::new(self.bin.join("cos-bake"));
        command
            .args(arguments)
            .current_dir(home)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", home)
            .env("COS_CACHE", self.cache.join("cos-bake"))
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Arguments of `cos-sandbox up` for a sandbox in this folder.
    #[allow(dead_code, reason = "not every suite starts the sandbox by its command")]
    pub(crate) fn up(&self, state: &Path) -> Vec<String> {
        let pairs = [
            ("--mirror", &self.mirror),
            ("--python", &self.python),
            ("--cache", &self.cache),
            ("--state", &state.to_owned()),
        ];
        pairs
            .into_iter()
            .flat_map(|(name, path)| [name.to_owned(), path.display().to_string()])
            .collect()
    }
}

#[expect(clippy::print_stderr, reason = "a test that does not run says so")]
fn skipped(test: &str) {
    eprintln!("SKIPPED {test}: COS_TESTS_PYTHON, _MIRROR, _BIN and _CACHE are not set; ./dev test sets them");
}
