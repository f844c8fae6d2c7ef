//! What the service manager is told (`sd_notify(3)`): nothing where there is none.
//!
//! # Invariants
//!
//! - The watchdog is fed from the driver's own loop: if that hangs, nobody feeds it.
//! - What cannot be told is no reason to stop working: it is logged once and forgotten.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;
use wpool_protocol::status::PoolState;

/// Tells the service manager.
#[derive(Debug)]
pub struct Notifier {
    /// How often the watchdog wants to be fed, if it is there.
    watchdog: Option<Duration>,
    feed_at: Instant,
    told: Option<PoolState>,
    /// Whether there is anybody to tell.
    listens: bool,
}

impl Notifier {
    /// Tells whoever the environment names.
    pub fn from_environment() -> Self {
        // Half of what is allowed, as sd_watchdog_enabled(3) advises.
        let watchdog = sd_notify::watchdog_enabled().map(|allowed| allowed / 2);
        Self {
            feed_at: Instant::now() + watchdog.unwrap_or_default(),
            watchdog,
            told: None,
            listens: std::env::var_os("NOTIFY_SOCKET").is_some(),
        }
    }

    /// Tells nobody.
    pub fn silent() -> Self {
        Self {
            watchdog: None,
            feed_at: Instant::now(),
            told: None,
            listens: false,
        }
    }

    /// The first worker is ready.
    pub fn ready(&mut self) {
        self.notify(&[NotifyState::Ready]);
    }

    /// What the pool does, if that has changed.
    pub fn tell_state(&mut self, state: PoolState) {
        if self.told != Some(state) {
            self.told = Some(state);
            let text = format!("the pool is {state}");
            self.notify(&[NotifyState::Status(&text)]);
        }
    }

    /// The config is about to be read again.
    pub fn reloading(&mut self) {
        // Type=notify-reload wants to know since when.
        if let Ok(since) = NotifyState::monotonic_usec_now() {
            self.notify(&[NotifyState::Reloading, since]);
        }
    }

    /// It was read, or refused.
    pub fn reloaded(&mut self) {
        self.notify(&[NotifyState::Ready]);
    }

    /// The supervisor shuts down and may take so long.
    pub fn stopping(&mut self, grace: Duration) {
        /// Past the grace: killing, answering, cleaning up.
        const REST: Duration = Duration::from_secs(10);
        let micros = u32::try_from((grace + REST).as_micros()).unwrap_or(u32::MAX);
        self.notify(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(micros),
        ]);
    }

    /// Resolves when the watchdog wants to be fed; never where there is none.
    pub async fn watchdog_due(&self) {
        match self.watchdog {
            Some(_) => tokio::time::sleep_until(self.feed_at).await,
            None => std::future::pending().await,
        }
    }

    /// Feeds it.
    pub fn feed_watchdog(&mut self) {
        if let Some(every) = self.watchdog {
            self.feed_at = Instant::now() + every;
            self.notify(&[NotifyState::Watchdog]);
        }
    }

    fn notify(&mut self, states: &[NotifyState<'_>]) {
        if !self.listens {
            return;
        }
        if let Err(error) = sd_notify::notify(states) {
            tracing::warn!(%error, "the service manager cannot be told anything");
            self.listens = false;
        }
    }
}
