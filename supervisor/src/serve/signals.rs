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

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::mpsc;

use crate::config::{self, Reload, Source};
use crate::driver::command::{Handle, Stopped};

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
        while let Some(signal) = self.came.recv().await {
            let obeyed = match signal {
                SIGHUP => reload(&handle, &source).await,
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

async fn reload(handle: &Handle, source: &Source) -> Result<(), Stopped> {
    let (old, source) = (handle.config(), source.clone());
    let read = tokio::task::spawn_blocking(move || -> Result<Box<Reload>, config::ConfigError> {
        Ok(Box::new(old.reloaded(config::load(&source)?)))
    });
    let reload = match read.await {
        Ok(Ok(reload)) => Ok(reload),
        Ok(Err(error)) => Err(format!("{:#}", anyhow::Error::from(error))),
        Err(error) => Err(error.to_string()),
    };
    handle.configure(reload).await
}
