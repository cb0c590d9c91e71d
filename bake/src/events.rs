//! Owns what a bake says while it runs, as data.
//! Touches nothing; `display.rs` turns events into lines.

use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::cloud::Resource;

/// Stages of a bake, in the words of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Settling every choice and checking what can be checked.
    Plan,
    /// Building the bundle.
    Bundle,
    /// Uploading the bundle as a snapshot.
    Payload,
    /// Launching the builder and waiting until it takes commands.
    Launch,
    /// Installing on the builder.
    Provision,
    /// Checking every installed file on the builder.
    Verify,
    /// Removing the builder's own identity and stopping it.
    Seal,
    /// Making the image.
    Image,
    /// Starting a machine from the image and letting it prove itself.
    BootTest,
    /// Making the image a lasting one.
    Publish,
    /// Removing what was only needed for the bake.
    Cleanup,
}

impl Stage {
    /// Name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Bundle => "bundle",
            Self::Payload => "payload",
            Self::Launch => "launch",
            Self::Provision => "provision",
            Self::Verify => "verify",
            Self::Seal => "seal",
            Self::Image => "image",
            Self::BootTest => "boot test",
            Self::Publish => "publish",
            Self::Cleanup => "cleanup",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A stage began.
    StageStarted {
        /// Which.
        stage: Stage,
    },
    /// A stage ended well.
    StageFinished {
        /// Which.
        stage: Stage,
        /// How long it took.
        seconds: f64,
        /// What came out, in a few words.
        outcome: String,
    },
    /// Something a stage does takes long; how far it is.
    Progress {
        /// Which stage.
        stage: Stage,
        /// What is counted, such as `blocks`.
        unit: &'static str,
        /// Done so far.
        done: u64,
        /// To do in all.
        total: u64,
    },
    /// A fact worth a line.
    Note {
        /// The line.
        message: String,
    },
    /// Something that the user should act on one day.
    Warning {
        /// The line.
        message: String,
    },
    /// A resource was made and recorded.
    Created {
        /// What.
        #[serde(flatten)]
        resource: Resource,
    },
    /// A resource was ended.
    Released {
        /// What.
        #[serde(flatten)]
        resource: Resource,
    },
    /// A resource could not be ended.
    Leftover {
        /// What.
        #[serde(flatten)]
        resource: Resource,
        /// Why.
        reason: String,
    },
}

/// Where events go. Cheap to clone; every clone feeds the same listener.
#[derive(Clone)]
pub struct Events(Arc<dyn Fn(Event) + Send + Sync>);

impl Events {
    /// Events that go to `listener`, which must not block.
    pub fn new(listener: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    /// Events that are kept, for tests.
    pub fn kept() -> (Self, Arc<Mutex<Vec<Event>>>) {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let inner = Arc::clone(&kept);
        let events = Self::new(move |event| {
            if let Ok(mut events) = inner.lock() {
                events.push(event);
            }
        });
        (events, kept)
    }

    /// Says that something happened.
    pub fn emit(&self, event: Event) {
        (self.0)(event);
    }

    /// A fact worth a line.
    pub fn note(&self, message: impl Into<String>) {
        self.emit(Event::Note {
            message: message.into(),
        });
    }

    /// Something to act on.
    pub fn warn(&self, message: impl Into<String>) {
        self.emit(Event::Warning {
            message: message.into(),
        });
    }
}
