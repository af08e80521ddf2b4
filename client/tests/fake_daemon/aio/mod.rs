//! The client for futures, on runtimes of both kinds.

/// The names and types that programs use.
mod api;
/// Futures dropped at any moment: late results are given back.
mod cancel;
/// Connections and runtimes that end.
mod loss;
/// Texts while they are generated.
mod stream;
/// Usual conversations.
mod talk;

use crate::daemon::{Daemon, builder, once};
use emberd_client::aio::Client;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use tokio::runtime::{Builder, Runtime};

/// One of each kind.
fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_current_thread().enable_io().build().unwrap(),
        Builder::new_multi_thread().worker_threads(2).enable_io().build().unwrap(),
    ]
}

/// A client that sends each request once.
async fn client<T: Send + 'static>(daemon: &Daemon<T>) -> Client {
    once().connect_to_async(daemon.path()).await.unwrap()
}

async fn patient_client<T: Send + 'static>(daemon: &Daemon<T>) -> Client {
    builder().connect_to_async(daemon.path()).await.unwrap()
}

/// Polls once, with a waker that does nothing.
fn poll_once<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}
