//! The changes of a service of a fake world.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::FakeWorld;
use crate::changes::Change;
use crate::error::Result;
use crate::mailbox::Mailbox;
use crate::query::Query;
use crate::telling::Telling;

#[derive(Debug)]
pub(super) struct FakeChanges {
    world: FakeWorld,
    service: String,
    mailbox: Arc<Mailbox>,
    telling: Telling,
}

impl FakeChanges {
    pub(super) fn new(world: FakeWorld, query: &Query) -> Self {
        let (mailbox, picture) = {
            let mut world = world.lock();
            let known = world.known(&query.service);
            (known.subscribe(), known.picture())
        };
        Self { world, service: query.service.clone(), mailbox, telling: Telling::new(query, picture) }
    }
}

impl Stream for FakeChanges {
    type Item = Result<Change>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { world, service, mailbox, telling } = self.get_mut();
        telling.poll(mailbox, || world.lock().known(service).picture(), cx)
    }
}
