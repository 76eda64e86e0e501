//! An answer as events, as it comes.
//!
//! Not even the head goes out before the first of it is there: until then what went wrong is an error of
//! HTTP's, which clients understand, and behind the head only an event, which many take for text. A client is
//! not kept waiting for that without a word, though: after some silence the head goes out anyway, and pings.

use std::{convert::Infallible, time::Duration};

use axum::{
    http::HeaderValue,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde_json::Value;
use tokio::{sync::mpsc, time::timeout};

use crate::error::ApiError;

/// Events that may wait for a slow reader.
const WAITING: usize = 64;

/// One end is the answers', the other the client's.
type Sent = Result<Event, ApiError>;
pub(super) struct Events(mpsc::Sender<Sent>);
pub(super) struct Waiting(mpsc::Receiver<Sent>);

pub(super) fn channel() -> (Events, Waiting) {
    let (events, waiting) = mpsc::channel(WAITING);
    (Events(events), Waiting(waiting))
}

impl Events {
    /// Each of these returns nothing when nobody listens any more.
    pub(super) async fn send(&self, value: &Value) -> Option<()> {
        let event = Event::default().data(value.to_string());
        self.0.send(Ok(event)).await.ok()
    }

    pub(super) async fn fail(&self, error: ApiError) -> Option<()> {
        self.0.send(Err(error)).await.ok()
    }

    pub(super) async fn done(&self) -> Option<()> {
        let event = Event::default().data("[DONE]");
        self.0.send(Ok(event)).await.ok()
    }

    /// Waits until nobody listens.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }
}

impl Waiting {
    /// Answers with what comes, or with what has gone wrong before anything came.
    pub(super) async fn response(mut self, silence: Duration) -> Result<Response, ApiError> {
        let first = match timeout(silence, self.0.recv()).await {
            Ok(Some(Err(error))) => return Err(error),
            Ok(first) => first,
            Err(_) => None,
        };
        let events = stream::unfold((first, self.0), |(first, mut waiting)| async move {
            let sent = match first {
                Some(sent) => sent,
                None => waiting.recv().await?,
            };
            let failed = |error: ApiError| Event::default().data(error.json().to_string());
            Some((
                Ok::<_, Infallible>(sent.unwrap_or_else(failed)),
                (None, waiting),
            ))
        });
        let ping = KeepAlive::new().interval(silence).text("ping");
        let mut response = Sse::new(events).keep_alive(ping).into_response();
        let headers = response.headers_mut();
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpStream},
    };

    use axum::{Router, http::StatusCode, routing::get};
    use serde_json::json;
    use tokio::{net::TcpListener, runtime::Runtime, time::sleep};

    use super::*;

    /// After so long a stream says that it is alive.
    const SILENCE: Duration = Duration::from_millis(50);
    /// No answer that speaks at once takes so long.
    const LONG_SILENCE: Duration = Duration::from_secs(30);

    /// An answer that says something at once or after a while, if it does not fail by then.
    async fn answer(is_late: bool, fails: bool) -> Result<Response, ApiError> {
        let (wait, silence) = match is_late {
            true => (20 * SILENCE, SILENCE),
            false => (Duration::ZERO, LONG_SILENCE),
        };
        let (events, waiting) = channel();
        tokio::spawn(async move {
            sleep(wait).await;
            match fails {
                true => {
                    let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "it is broken");
                    events.fail(error).await
                }
                false => events.send(&json!({ "said": 1 })).await,
            };
            events.done().await
        });
        waiting.response(silence).await
    }

    fn serve(runtime: &Runtime) -> SocketAddr {
        let router = Router::new()
            .route("/soon", get(|| answer(false, false)))
            .route("/late", get(|| answer(true, false)))
            .route("/soon-broken", get(|| answer(false, true)))
            .route("/late-broken", get(|| answer(true, true)));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        runtime.spawn(crate::accept(listener, router));
        addr
    }

    fn get_whole(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn an_error_is_one_of_http_until_something_was_sent_and_silence_is_broken_by_pings() {
        let runtime = Runtime::new().unwrap();
        let addr = serve(&runtime);
        let soon = get_whole(addr, "/soon");
        assert!(soon.starts_with("HTTP/1.1 200") && soon.contains("data: {\"said\":1}"));
        assert!(!soon.contains("ping"), "{soon}");
        let late = get_whole(addr, "/late");
        let (pings, said) = late.split_once("data: {\"said\":1}").unwrap();
        assert!(pings.matches(": ping\n").count() >= 2, "{late}");
        assert!(said.contains("data: [DONE]"), "{late}");

        let broken = get_whole(addr, "/soon-broken");
        assert!(broken.starts_with("HTTP/1.1 422"), "{broken}");
        assert!(broken.contains("x-should-retry: false"), "{broken}");
        let broken = get_whole(addr, "/late-broken");
        assert!(broken.starts_with("HTTP/1.1 200"), "{broken}");
        assert!(broken.contains("data: {\"error\":{\"message\":\"it is broken\""));
    }
}
