//! The listener, and one task for each connection.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use super::connections::{Connections, NoPlace, Place, Receiving};
use super::explained::Explained;
use super::patient::Patient;
use super::peer::{Access, Credentials, Peer};
use super::{Ending, Shared, router};
use crate::config::HttpBounds;
use crate::request::{Caller, Role};

/// The pause after a connection could not be accepted: there are no descriptors, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the server goes on, at most, when the supervisor goes.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long nobody must have been there for it to end before: a client that was just told that its job has
/// ended asks next how.
const LEFT_ALONE: Duration = Duration::from_millis(250);

/// How many clients at one time are told that there is no place for them, and how long that may take.
const FAREWELLS: usize = 64;
const FAREWELL: Duration = Duration::from_millis(500);

/// What a client is told that finds no place; it may be too impatient to hear it.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 168\r\n\r\n\
    {\"type\":\"urn:wpool:busy\",\"title\":\"too much is going on\",\"status\":503,\
    \"detail\":\"all connections that this user may have are busy; try again later\",\"retry_after_ms\":1000}";

/// Answers on a socket until the supervisor goes, and then until everybody has heard what became of their jobs.
pub async fn serve(listener: Listener, access: Access, shared: Shared) {
    let connections = Connections::new();
    let mut ending = shared.ending.clone();
    let server = Server {
        access,
        users: Arc::new(Users::of(shared.clone())),
        shared,
        connections: connections.clone(),
        farewells: Arc::new(Semaphore::new(FAREWELLS)),
    };
    server.admit_until(&listener, ending.has_come()).await;
    let alone = tokio::time::timeout(LAST_WORDS, connections.left_alone(LEFT_ALONE));
    if server.admit_until(&listener, alone).await.is_err() {
        tracing::debug!("connections were cut off");
    }
}

type Routes = TowerToHyperService<axum::Router>;

/// The routes for each user who has ever been let in.
struct Users {
    shared: Shared,
    routes: Mutex<HashMap<u32, Routes>>,
}

impl Users {
    fn of(shared: Shared) -> Self {
        Self {
            shared,
            routes: Mutex::default(),
        }
    }

    fn routes(&self, uid: u32) -> Routes {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = routes.entry(uid).or_insert_with(|| {
            let shared = self.shared.of_another_user();
            TowerToHyperService::new(router(shared))
        });
        of_user.clone()
    }
}

struct Server {
    access: Access,
    users: Arc<Users>,
    shared: Shared,
    connections: Connections,
    /// Who may be told that there is no place for them.
    farewells: Arc<Semaphore>,
}

impl Server {
    /// Gives whoever connects a task, until `done` is.
    async fn admit_until<F: Future>(&self, listener: &Listener, done: F) -> F::Output {
        tokio::pin!(done);
        loop {
            tokio::select! {
                output = done.as_mut() => return output,
                accepted = listener.accept() => match accepted {
                    Ok(stream) => self.admit(stream),
                    Err(error) => {
                        tracing::warn!(%error, "failed to accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    /// Gives a new connection its place and its task, or closes it.
    fn admit(&self, stream: Stream) {
        let Some(credentials) = Credentials::of(&stream) else {
            tracing::debug!("a peer of whom nothing is known was turned away");
            return;
        };
        let bounds = self.shared.handle.config();
        match self.connections.take_place(credentials.uid, &bounds.http) {
            Ok(place) => {
                let connection = Connection {
                    place: Arc::new(place),
                    credentials,
                    tenant: bounds.tenant_of(credentials.uid),
                    access: self.access,
                    users: Arc::clone(&self.users),
                    ending: self.shared.ending.clone(),
                };
                let bounds = bounds.http.clone();
                drop(tokio::spawn(connection.serve(stream, bounds)));
            }
            Err(NoPlace) => {
                // Those who are too many are not even told.
                if let Ok(permit) = Arc::clone(&self.farewells).try_acquire_owned() {
                    drop(tokio::spawn(async move {
                        drop(tokio::time::timeout(FAREWELL, turn_away(stream)).await);
                        drop(permit);
                    }));
                }
            }
        }
    }
}

/// Says why, and waits for a moment for the client to have heard: closing a socket on which something is unread takes back
/// what was said.
async fn turn_away(mut stream: Stream) {
    if stream.write_all(NO_PLACE).await.is_ok() {
        let mut unread = [0; 4_096];
        while let Ok(1..) = stream.read(&mut unread).await {}
    }
}

struct Connection {
    place: Arc<Place>,
    credentials: Credentials,
    /// Whose jobs theirs are.
    tenant: Arc<str>,
    access: Access,
    users: Arc<Users>,
    ending: Ending,
}

impl Connection {
    async fn serve(self, stream: Stream, bounds: HttpBounds) {
        let Some(role) = self.role().await else {
            tracing::info!(
                uid = self.credentials.uid,
                "a user who may not was turned away"
            );
            return;
        };
        let peer = Peer {
            caller: Caller {
                tenant: Arc::clone(&self.tenant),
                role,
            },
        };
        let service = {
            let routes = self.users.routes(self.credentials.uid);
            let place = Arc::clone(&self.place);
            service_fn(move |request| answer(request, peer.clone(), &place, &routes))
        };
        let stream = Explained::new(Patient::new(stream, bounds.body_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.header_timeout)
            .max_header_size(bounds.header_bytes_max)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let place = Arc::clone(&self.place);
        let farewell = self.farewell();
        tokio::select! {
            // How a client goes away is its own affair.
            _ = connection.as_mut() => return,
            () = place.close.notified() => return,
            () = farewell => connection.as_mut().graceful_shutdown(),
        }
        tokio::select! {
            _ = connection => {}
            () = place.close.notified() => {}
        }
    }

    /// Resolves when the supervisor goes and nothing is asked on this connection any more: hyper closes one on
    /// which nothing was asked yet, and whoever has just come is to be heard.
    async fn farewell(mut self) {
        self.ending.has_come().await;
        drop(tokio::time::timeout(LEFT_ALONE, self.place.asked.notified()).await);
    }

    async fn role(&self) -> Option<Role> {
        let (access, credentials) = (self.access, self.credentials);
        if access.administers(credentials) {
            return Some(Role::Admin);
        }
        // The user database may be on the network.
        tokio::task::spawn_blocking(move || access.role(credentials))
            .await
            .ok()
            .flatten()
    }
}

/// A body on its way in.
struct Received {
    body: Incoming,
    receiving: Receiving,
}

impl hyper::body::Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match frame {
            Some(_) if !self.body.is_end_stream() => self.receiving.got_some(),
            Some(_) | None => self.receiving.got_all(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Answers one request; once it has come whole, and until the answer is written whole, its connection is busy.
fn answer(
    request: Request<Incoming>,
    peer: Peer,
    place: &Place,
    routes: &Routes,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    let (busy, mut request) = if request.body().is_end_stream() {
        (place.busy(), request.map(Body::new))
    } else {
        let (busy, receiving) = place.receiving();
        let received = |body| Body::new(Received { body, receiving });
        (busy, request.map(received))
    };
    request.extensions_mut().insert(peer);
    let response = hyper::service::Service::call(routes, request);
    async move {
        let response = response.await?;
        Ok(response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                // Held by the body, and let go with it.
                let _held = &busy;
                frame
            }))
        }))
    }
}
