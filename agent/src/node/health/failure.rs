//! Owns what a check says when it does not pass: why, what may be done, and whether waiting may help.
//! Touches nothing.

/// Why a check did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was found.
    pub reason: String,
    /// What may be done about it.
    pub hint: Option<String>,
    /// Whether waiting is of no use.
    pub hard: bool,
}

impl Failure {
    /// It may pass by itself.
    pub fn passing(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            hint: None,
            hard: false,
        }
    }

    /// It will not pass by itself.
    pub fn hard(reason: impl Into<String>) -> Self {
        Self {
            hard: true,
            ..Self::passing(reason)
        }
    }

    /// With what may be done about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::passing(reason)
    }
}
