//! Owns the way to work that blocks: hashing, reading and writing large files.
//! Touches threads of the runtime.

/// Runs work on a thread of its own. A panic of the work goes on as one.
pub(crate) async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "a bug of ours")]
    async fn a_panic_stays_one() {
        on_thread(|| panic!("a bug of ours")).await;
    }
}
