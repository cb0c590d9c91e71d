//! Owns what an instance's metadata tells of its end, for as long as the instance lives.
//! Touches the metadata service through the port `Machines`.

use std::collections::BTreeMap;

use super::instances::unknown;
use super::{Executor, Refusal};
use crate::machines::Machines;

impl<M: Machines> Executor<M> {
    /// Sets what the metadata tells at a path below `meta-data/`; without a document it is not found any more.
    pub async fn set_notice(&self, id: &str, path: &str, document: Option<String>) -> Result<(), Refusal> {
        let known = self.change(id, |it| match document {
            Some(document) => drop(it.metadata.notices.insert(path.to_owned(), document)),
            None => drop(it.metadata.notices.remove(path)),
        });
        if !known {
            return Err(unknown(id));
        }
        self.tell_notices(id).await
    }

    /// Lets the metadata service know what is told of an instance.
    pub(super) async fn tell_notices(&self, id: &str) -> Result<(), Refusal> {
        let notices = self.read(id, |it| it.metadata.notices.clone())?;
        self.machines.set_notices(id, notices).await;
        Ok(())
    }
}

/// What is still told when an instance starts again: its interruption, and maintenance of the host that it left, are
/// over; what its group wants of it is not.
pub(super) fn after_a_stop(notices: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut kept = notices.clone();
    kept.retain(|path, _| path.starts_with("autoscaling/"));
    kept
}
