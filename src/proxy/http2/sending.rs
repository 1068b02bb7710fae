//! The body of a request on its way into a stream.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body as _;
use tokio::task::JoinHandle;

use crate::proxy::upload::Upload;

/// A body being sent. It has a task of its own where it can't be sent at once: it has to go on however slowly
/// the client takes the answer. Dropping it resets the stream, unless the body has come to its end.
pub(super) struct Sending {
    pump: Rc<RefCell<Pump>>,
    task: Option<JoinHandle<()>>,
}

impl Sending {
    /// Sends as much of `upload` as can be sent now, and sees to the rest.
    pub(super) async fn begin(upload: Upload, stream: SendStream<Bytes>) -> Self {
        let pump = Rc::new(RefCell::new(Pump::new(upload, stream)));
        let done = poll_fn(|cx| Poll::Ready(pump.borrow_mut().poll(cx).is_ready())).await;
        let moving = pump.clone();
        let task = (!done).then(|| {
            tokio::task::spawn_local(async move { poll_fn(|cx| moving.borrow_mut().poll(cx)).await })
        });
        Self { pump, task }
    }

    /// The body as it was before, if all that was sent is still known.
    pub(super) fn take_back(self) -> Option<Upload> {
        let mut pump = self.pump.borrow_mut();
        let taken = pump.taken.take()?;
        Some(pump.upload.take()?.rewound(taken.bytes))
    }

    /// The answer has begun: this request will not be sent again.
    pub(super) fn settle(&self) {
        self.pump.borrow_mut().taken = None;
    }

    pub(super) fn is_over(&self) -> bool {
        self.pump.borrow().over
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        // Not borrowed: whoever polls it does not drop it meanwhile.
        if let Ok(mut pump) = self.pump.try_borrow_mut() {
            pump.cancel();
        }
    }
}

struct Pump {
    upload: Option<Upload>,
    stream: SendStream<Bytes>,
    /// Taken from the body, and waiting for the peer to make room.
    chunk: Bytes,
    /// What was taken so far, as long as it is little.
    taken: Option<Taken>,
    /// The end was sent, or the stream is reset.
    over: bool,
}

/// What was taken from a body, for another attempt.
#[derive(Default)]
struct Taken {
    bytes: VecDeque<Bytes>,
    length: usize,
}

/// Most bytes of a request that are kept for a second attempt, until its answer begins.
const MAX_TAKEN_BYTES: usize = 64 * 1024;

/// Most pieces that they may be in.
const MAX_TAKEN_PIECES: usize = 64;

impl Pump {
    fn new(upload: Upload, stream: SendStream<Bytes>) -> Self {
        Self { upload: Some(upload), stream, chunk: Bytes::new(), taken: Some(Taken::default()), over: false }
    }

    /// Sends what there is. Ready: there will be no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.over {
            if ready!(self.poll_step(cx)).is_err() {
                // The stream is gone. Whoever waits for the answer is told why.
                self.over = true;
            }
        }
        Poll::Ready(())
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        if let Poll::Ready(reset) = self.stream.poll_reset(cx) {
            return Poll::Ready(reset.and_then(|reason| Err(reason.into())));
        }
        if !self.chunk.is_empty() {
            return self.poll_send(cx);
        }
        let Some(upload) = &mut self.upload else {
            self.over = true;
            return Poll::Ready(Ok(()));
        };
        // Room is asked for only with something to put there: room that is kept is missing on other streams.
        match ready!(Pin::new(upload).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.remember(&data);
                    self.stream.reserve_capacity(data.len());
                    self.chunk = data;
                    // An empty piece can be the last one, and is sent as such.
                    if self.chunk.is_empty() { self.finish_if_last() } else { Poll::Ready(Ok(())) }
                }
                Err(frame) => {
                    // Can't be put back before the end of the body.
                    self.taken = None;
                    self.over = true;
                    match frame.into_trailers() {
                        Ok(trailers) => Poll::Ready(self.stream.send_trailers(trailers)),
                        Err(_) => Poll::Ready(self.stream.send_data(Bytes::new(), true)),
                    }
                }
            },
            Some(Err(_)) => {
                // An end would make half a body look whole.
                self.cancel();
                Poll::Ready(Ok(()))
            }
            None => {
                self.over = true;
                Poll::Ready(self.stream.send_data(Bytes::new(), true))
            }
        }
    }

    /// Sends as much of the chunk as the peer has room for.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Err(Reason::CANCEL.into())),
            }
        }
        let room = self.stream.capacity().min(self.chunk.len());
        let part = self.chunk.split_to(room);
        let last = self.chunk.is_empty() && self.is_last();
        self.over = last;
        Poll::Ready(self.stream.send_data(part, last))
    }

    fn finish_if_last(&mut self) -> Poll<Result<(), h2::Error>> {
        if !self.is_last() {
            return Poll::Ready(Ok(()));
        }
        self.over = true;
        Poll::Ready(self.stream.send_data(Bytes::new(), true))
    }

    fn is_last(&self) -> bool {
        self.upload.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn remember(&mut self, data: &Bytes) {
        let Some(taken) = &mut self.taken else { return };
        taken.length += data.len();
        // A copy: a body whose pieces are kept could have to wait for them to go.
        taken.bytes.push_back(Bytes::copy_from_slice(data));
        if taken.length > MAX_TAKEN_BYTES || taken.bytes.len() > MAX_TAKEN_PIECES {
            self.taken = None;
        }
    }

    /// Gives the stream up.
    fn cancel(&mut self) {
        if !self.over {
            self.stream.send_reset(Reason::CANCEL);
            self.over = true;
        }
        self.upload = None;
        self.chunk = Bytes::new();
        self.taken = None;
    }
}
