//! Signals to the daemon, and what follows from each.
//!
//! | signal | first | again |
//! | --- | --- | --- |
//! | SIGTERM | finish what runs within the grace, then exit | nothing more |
//! | SIGINT | the same | kill what runs, tell how it ended, exit; a third time: exit |
//! | SIGHUP | read the config again; a bad one is refused and the old one kept | |
//!
//! # Invariants
//!
//! - Nothing is done in a signal handler but to wake a thread, which passes the signal on.

use std::io;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{self, Reload, Source};
use crate::driver::command::{Handle, Stopped};

/// How long reading the config may take: past it the old one holds, and what was read is dropped.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Signals that may wait; more of them mean no more.
const SIGNALS_MAX: usize = 8;

/// The signals that have come.
#[derive(Debug)]
pub(super) struct Signals {
    came: mpsc::Receiver<i32>,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let (tell, came) = mpsc::channel(SIGNALS_MAX);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    // The receiver goes when the daemon does.
                    if tell.blocking_send(signal).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { came })
    }

    /// Does what they ask, until the driver has stopped.
    pub(super) async fn obey(mut self, handle: Handle, source: Source) {
        let mut is_stopping = false;
        let mut reloading: Option<JoinHandle<()>> = None;
        while let Some(signal) = self.came.recv().await {
            let obeyed = match signal {
                // The others are heard meanwhile, however long a file takes that lies on a network.
                SIGHUP if reloading.as_ref().is_some_and(|task| !task.is_finished()) => {
                    tracing::warn!("the config is being read already");
                    Ok(())
                }
                SIGHUP => {
                    let reload = reload(handle.clone(), source.clone());
                    reloading = Some(tokio::spawn(reload));
                    Ok(())
                }
                SIGINT if is_stopping => handle.stop_at_once().await,
                _ if is_stopping => Ok(()),
                _ => {
                    is_stopping = true;
                    handle.shut_down().await
                }
            };
            if obeyed == Err(Stopped) {
                return;
            }
        }
    }
}

/// Reads the config again, and has what it says put in force.
async fn reload(handle: Handle, source: Source) {
    let old = handle.config();
    let read = tokio::task::spawn_blocking(move || -> Result<Box<Reload>, config::ConfigError> {
        Ok(Box::new(old.reloaded(config::load(&source)?)))
    });
    let reload = match tokio::time::timeout(READ_WITHIN, read).await {
        Ok(Ok(Ok(reload))) => Ok(reload),
        Ok(Ok(Err(error))) => Err(format!("{:#}", anyhow::Error::from(error))),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it could not be read in time".to_owned()),
    };
    // If the driver has stopped, there is nobody to be told.
    handle.configure(reload).await.unwrap_or(());
}
