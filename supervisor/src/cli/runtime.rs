//! The runtime of a command that speaks to the daemon: one thread, as long as the command lasts.

use anyhow::Context as _;

/// Runs `future` to its end.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(future)
}
