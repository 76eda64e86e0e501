//! A request's turn: from the moment that its body is whole to the end of its answer.
//!
//! Not from its head on: who has sent a head and one byte of a body waits for nothing, and a thousand such
//! would keep everybody else waiting for as long as a body may take.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use axum::body::{Body, Bytes};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use super::quiet::{Busy, Seat};

/// Keeps a connection from being ended once its request is whole.
pub(super) struct Turn {
    seat: Arc<Seat>,
    busy: OnceLock<Busy>,
}

impl Turn {
    pub(super) fn of(seat: Arc<Seat>, body: &Incoming) -> Arc<Turn> {
        let turn = Turn {
            seat,
            busy: OnceLock::new(),
        };
        if body.is_end_stream() {
            turn.begin();
        }
        Arc::new(turn)
    }

    fn begin(&self) {
        self.busy.get_or_init(|| self.seat.busy());
    }
}

/// A request's body on its way.
pub(super) struct Question {
    pub(super) body: Incoming,
    pub(super) turn: Arc<Turn>,
}

impl hyper::body::Body for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Err(_)) => (),
            Some(Ok(_)) if !self.body.is_end_stream() => self.turn.seat.stir(),
            _ => self.turn.begin(),
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

/// An answer that keeps its connection until it is sent.
pub(super) struct Answer {
    pub(super) body: Body,
    pub(super) _turn: Arc<Turn>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
