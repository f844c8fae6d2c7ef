//! The daemon: `wpool serve`.
//!
//! ```text
//!   main thread ── runtime ── driver (births, pidfds, pipes, the pool)
//!       │                  ├─ http server (the control socket)
//!       │                  └─ signals, as they come
//!       ├─ signal thread   SIGTERM, SIGINT: finish what runs; SIGINT again: kill it; SIGHUP: read the config again
//!       └─ blocking threads: what would hold the driver up
//! ```
//!
//! # Invariants
//!
//! - The runtime runs on the main thread alone: workers are born from it and die with it.
//! - Of two daemons on one socket the second says so and exits; the first does not notice.
//! - When it ends, its socket is gone, unless that has become somebody else's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

use crate::birth::ids::Ids;
use crate::birth::{BinarySource, Nursery, NurseryPlan, ProfilePlan};
use crate::cgroup::Delegated;
use crate::config::{self, Config, Source, usable_cores};
use crate::diagnosis::{self, Course, Failure};
use crate::driver::{Driver, DriverEnd, Hopeless};
use crate::http::{Shared, server};
use crate::notify::Notifier;
use crate::resource_limits;

mod logging;
mod signals;
pub mod socket;

use signals::Signals;
use socket::ControlSocket;

/// How long blocking work may take to end when everything else has.
const LAST_BLOCKING: Duration = Duration::from_secs(1);

/// What somebody who was interrupted twice exits with.
const INTERRUPTED: u8 = 130;

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Where its config comes from.
    pub source: Source,
    /// Its control socket.
    pub socket: Option<PathBuf>,
    /// Where it keeps what is to survive it.
    pub state_dir: Option<PathBuf>,
}

/// Runs the daemon to its end, and says what to exit with. To be called on the main thread.
///
/// # Errors
///
/// One line that says what to do, if it cannot start.
pub fn serve(options: &ServeOptions) -> anyhow::Result<u8> {
    let config = config::load(&options.source)?;
    // Before there are threads: what is given up here, each of them would keep.
    let ids =
        Ids::claim(config.identity.into()).map_err(|refused| {
            match diagnosis::refused_ids(&refused) {
                Some(refused) => anyhow::Error::from(Hopeless::from(refused)),
                None => refused.into(),
            }
        })?;
    let _log = logging::start(config.log).map_err(|error| {
        let failure = Failure::of_thread("start the log", &error);
        match failure.course() {
            Course::Lasting => anyhow::Error::from(Hopeless::from(failure.explained())),
            Course::Passing => anyhow::Error::from(error).context("failed to start the log"),
        }
    })?;
    if let Some(dir) = &options.state_dir {
        tracing::warn!(dir = %dir.display(), "nothing is kept there yet: jobs and outcomes are in memory only");
    }
    // One more stands in while another is recycled.
    resource_limits::raise(config.pool.slots.saturating_add(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?;
    let end = runtime.block_on(run(options, config, ids));
    runtime.shutdown_timeout(LAST_BLOCKING);
    Ok(match end? {
        DriverEnd::Stopped => 0,
        DriverEnd::Interrupted => INTERRUPTED,
    })
}

async fn run(options: &ServeOptions, config: Config, ids: Ids) -> anyhow::Result<DriverEnd> {
    // Before anything is born: a second daemon must not even look at the first one's cgroup.
    let socket = ControlSocket::open(options.socket.clone(), config.http.group.as_deref()).await?;
    let signals = Signals::listen().context("failed to listen for signals")?;
    if let Some(reason) = ids.refused() {
        tracing::info!(%reason, "jobs have this user's own ids");
    }
    let nursery = Nursery::new(nursery_plan(&config, ids))?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        socket = %socket.path().display(),
        workers = config.pool.slots,
        identity = ?nursery.identity(),
        "wpool starts"
    );
    let (mut driver, handle) = Driver::new(config, Box::new(nursery), Notifier::from_environment());
    let (end, ending) = watch::channel(false);
    let (listener, access, guard) = socket.into_parts();
    let shared = Shared::new(handle.clone(), ending);
    let server = tokio::spawn(server::serve(listener, access, shared));
    let signals = tokio::spawn(signals.obey(handle, options.source.clone()));
    let driver_end = driver.run().await;
    // Whoever still asks gets an answer; then the socket goes.
    end.send_replace(true);
    if let Err(error) = driver.answer_until(server).await {
        tracing::error!(%error, "the control socket ended badly");
    }
    signals.abort();
    drop(guard);
    let driver_end = driver_end?;
    tracing::info!(end = ?driver_end, "wpool ends");
    Ok(driver_end)
}

fn nursery_plan(config: &Config, ids: Ids) -> NurseryPlan {
    let profiles = config.profile_names().into_iter().map(|name| {
        let profile = config.profiles.get(name);
        ProfilePlan {
            name: name.to_owned(),
            mounts: profile.map_or_else(Vec::new, |profile| profile.mounts.clone()),
        }
    });
    let cgroup = Delegated::find()
        .inspect_err(|unavailable| {
            tracing::info!(%unavailable, remedy = unavailable.remedy(), "limits are kept by sampling");
        })
        .ok();
    NurseryPlan {
        policy: config.isolation,
        profiles: profiles.collect(),
        stream_bytes: config.output_bytes_max(),
        cores: usable_cores().0,
        binary: BinarySource::SealedCopy,
        cgroup,
        ids,
    }
}
