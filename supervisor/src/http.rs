//! The control socket: HTTP/1.1 and JSON for whoever may.
//!
//! | route | answer |
//! | --- | --- |
//! | `POST /v1/jobs` (`?wait=30s`) | 201 and the id; 200 and the outcome or 202 and the state |
//! | `POST /v1/jobs/batch` (`?wait=`) | NDJSON both ways, each answer with the number of its line |
//! | `GET /v1/jobs` (`?state= &tenant= &before= &limit=`) | a page, youngest first |
//! | `GET /v1/jobs/{id}`, `DELETE` | how it is or ended; ends it or forgets how it ended |
//! | `GET /v1/jobs/{id}/result` (`?wait=`) | 200 and the outcome, 202 and the state |
//! | `GET /v1/jobs/{id}/output` (`?stream= &follow=`) | what it wrote: raw bytes of a stream, or NDJSON of both |
//! | `GET /v1/jobs/{id}/explain`, `/v1/pool/explain` | why it is so |
//! | `POST /v1/jobs/{id}/release`, `/discard` | tries a quarantined job again, or lets go of it |
//! | `GET /v1/status`, `PATCH /v1/pool`, `POST /v1/pool/drain`, `/clear`, `/recycle` | the pool |
//! | `GET /healthz`, `/readyz` | whether it lives, whether it works |
//!
//! Files: `server` (connections and their bounds: `connections`, `patient`, `explained`), `peer` (who is there), `body` and
//! `answer` (JSON in and out), `refusal` (why not), `wait`, and the routes: `jobs`, `batch`, `output`, `pool`.
//!
//! # Invariants
//!
//! - Everything a client can make us hold has a bound in `[http]`: connections, heads, bodies, waiters.
//! - A slow or dead client holds its own connection and nothing else, and that not for ever.
//! - The driver is asked, never waited in: parsing, reading files and writing large answers happen on other threads.

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, patch, post};
use tokio::sync::{Semaphore, watch};

use crate::driver::command::Handle;

mod answer;
mod batch;
mod body;
mod connections;
mod explained;
mod jobs;
mod output;
mod patient;
pub mod peer;
mod pool;
mod quarantine;
mod refusal;
pub mod server;
mod wait;

use body::Budget;

/// What all requests share.
#[derive(Clone, Debug)]
pub struct Shared {
    handle: Handle,
    /// Requests that may wait.
    waiters: Arc<Semaphore>,
    /// Bytes of bodies that may be in memory, of one user and of all.
    budget: Budget,
    ending: Ending,
}

/// Tells when the supervisor is about to go.
#[derive(Clone, Debug)]
struct Ending(watch::Receiver<bool>);

impl Ending {
    /// Resolves when it is.
    async fn has_come(&mut self) {
        // Without anybody who could tell, it has come too.
        drop(self.0.wait_for(|ending| *ending).await);
    }
}

impl Shared {
    /// What all requests share, by the config of the start: waiters and bytes are counted from then on.
    pub fn new(handle: Handle, ending: watch::Receiver<bool>) -> Self {
        let config = handle.config();
        Self {
            waiters: Arc::new(Semaphore::new(config.http.waiters_max)),
            budget: Budget::new(config.http.bodies_bytes_max, config.http.body_bytes_max),
            handle,
            ending: Ending(ending),
        }
    }

    /// The same for the requests of another user, who has a budget of their own within that of all.
    fn of_another_user(&self) -> Self {
        Self {
            budget: self.budget.of_another_user(),
            ..self.clone()
        }
    }
}

/// The routes.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/jobs", post(jobs::submit).get(jobs::list))
        .route("/v1/jobs/batch", post(batch::batch))
        .route("/v1/jobs/{id}", get(jobs::show).delete(jobs::delete))
        .route("/v1/jobs/{id}/result", get(jobs::result))
        .route("/v1/jobs/{id}/output", get(output::output))
        .route("/v1/jobs/{id}/explain", get(jobs::explain))
        .route("/v1/jobs/{id}/release", post(quarantine::release))
        .route("/v1/jobs/{id}/discard", post(quarantine::discard))
        .route("/v1/pool/explain", get(pool::explain))
        .route("/v1/status", get(pool::status))
        .route("/v1/pool", patch(pool::change))
        .route("/v1/pool/drain", post(pool::drain))
        .route("/v1/pool/recycle", post(pool::recycle))
        .route("/v1/pool/clear", post(pool::clear))
        .route("/healthz", get(pool::healthz))
        .route("/readyz", get(pool::readyz))
        .fallback(refusal::no_route)
        .method_not_allowed_fallback(refusal::no_method)
        .with_state(shared)
}

#[cfg(test)]
mod tests;
