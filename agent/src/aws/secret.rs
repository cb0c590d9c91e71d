//! Owns values that nobody may see: their `Debug` says nothing, and their memory is wiped when they go.
//! Touches nothing.

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroizing;

/// A text that never appears in logs, errors or reports. It has no `Display` and no `Serialize` on purpose: who
/// hands it on calls [`Secret::expose`], and that word can be searched for.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text into custody.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_says_nothing_of_the_text() {
        let secret = Secret::new("gossip".to_owned());
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(…) Secret(…)");
        let read: Secret = serde_json::from_str("\"gossip\"").unwrap();
        assert_eq!(read, secret);
        assert_eq!(read.expose(), "gossip");
    }
}
