//! Owns what the environment says to every AWS tool: a snapshot of its variables, of which an empty one counts as unset.
//! Touches the process's environment, once, in [`Environment::of_process`].

use std::collections::BTreeMap;
use std::fmt;

/// Variables by name; values may be secret, so `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process. Values that are not UTF-8 count as unset.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// A variable; none if it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Whether a variable says `true`, in any case, as AWS's tools read their switches.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A variable under its name in lower or upper case, as proxies are named.
    pub(super) fn in_either_case(&self, name: &str) -> Option<&str> {
        self.get(&name.to_ascii_lowercase())
            .or_else(|| self.get(&name.to_ascii_uppercase()))
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let told = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self(told.filter(|(_, value)| !value.is_empty()).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_unset_and_values_are_not_shown() {
        let environment = Environment::from_iter([
            ("AWS_SECRET_ACCESS_KEY", "planted"),
            ("AWS_SESSION_TOKEN", ""),
            ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True"),
            ("HTTPS_PROXY", "http://upper"),
            ("https_proxy", "http://lower"),
        ]);
        assert_eq!(environment.get("AWS_SESSION_TOKEN"), None);
        assert!(environment.is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"));
        assert_eq!(environment.in_either_case("https_proxy"), Some("http://lower"));
        let shown = format!("{environment:?}");
        assert!(
            shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("planted"),
            "{shown}"
        );
    }
}
