//! Owns where the user's files are: the folders of the XDG base directory specification.
//! Touches the environment.

use std::ffi::OsString;
use std::path::PathBuf;

/// What may be made again: `$XDG_CACHE_HOME/cos-bake`, else `~/.cache/cos-bake`. None if neither variable is set.
pub(crate) fn cache() -> Option<PathBuf> {
    below(
        std::env::var_os("XDG_CACHE_HOME"),
        std::env::var_os("HOME"),
        ".cache",
    )
}

/// What must last: `$XDG_STATE_HOME/cos-bake`, else `~/.local/state/cos-bake`. None if neither variable is set.
pub(crate) fn state() -> Option<PathBuf> {
    below(
        std::env::var_os("XDG_STATE_HOME"),
        std::env::var_os("HOME"),
        ".local/state",
    )
}

/// The specification has relative paths ignored.
fn below(named: Option<OsString>, home: Option<OsString>, usual: &str) -> Option<PathBuf> {
    let named = named.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.filter(|home| !home.is_empty()).map(PathBuf::from);
    let base = named.or_else(|| home.map(|home| home.join(usual)))?;
    Some(base.join("cos-bake"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_goes_before_the_usual_one_if_it_is_absolute() {
        let folder = |named: Option<&str>, home: Option<&str>| {
            below(named.map(OsString::from), home.map(OsString::from), ".cache")
        };
        let usual = Some(PathBuf::from("/home/me/.cache/cos-bake"));
        assert_eq!(
            folder(Some("/named"), Some("/home/me")),
            Some("/named/cos-bake".into())
        );
        assert_eq!(folder(None, Some("/home/me")), usual);
        assert_eq!(folder(Some("relative"), Some("/home/me")), usual);
        assert_eq!(folder(Some(""), Some("/home/me")), usual);
        assert_eq!(folder(None, Some("")), None);
        assert_eq!(folder(None, None), None);
    }
}
