//! The stream of a member's positions.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::place::{Place, Told};
use crate::position::Standing;

type News = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A member's latest positions: [`Member::positions`](crate::Member::positions).
///
/// It begins with the present one and skips to the newest: whoever is slow misses positions in between, and nothing waits
/// for them. Two things are never missed: the last item, and that the position was invalid between two stays, even when
/// the member had rejoined before anybody looked. An invalid position does not end the stream unless none can follow.
/// Dropping it does nothing else.
#[must_use = "streams do nothing unless polled"]
pub struct Positions {
    place: Arc<Place>,
    news: News,
    last: Option<Standing>,
    ended: bool,
}

impl Positions {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        let news = news(place.clone());
        Self { place, news, last: None, ended: false }
    }

    /// The next position that differs from the last one, or why there is none; `None` after the last one.
    ///
    /// # Errors
    /// [`Invalid`](crate::Invalid) is news like any other: positions can follow unless the stream ends.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Standing> {
        std::future::poll_fn(|cx| self.poll_standing(cx)).await
    }

    fn poll_standing(&mut self, cx: &mut Context<'_>) -> Poll<Option<Standing>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            // First, so that nothing is missed that changes from here on.
            let rung = self.news.as_mut().poll(cx).is_ready();
            if rung {
                self.news = news(self.place.clone());
                continue;
            }
            let Told { standing, over } = self.place.look();
            if let Some(item) = self.differs(standing, over) {
                self.last = Some(item.clone());
                return Poll::Ready(Some(item));
            }
            if over {
                self.ended = true;
                continue;
            }
            return Poll::Pending;
        }
    }

    /// What is to be told next, if anything.
    fn differs(&self, now: Standing, over: bool) -> Option<Standing> {
        match (&self.last, now) {
            (None, now) => Some(now),
            (Some(Ok(before)), Ok(now)) if !before.same_stay(&now) => Some(Err(self.place.lost())),
            (Some(Ok(before)), Ok(now)) => (*before != now).then_some(Ok(now)),
            (Some(Err(before)), Err(now)) => (over && *before != now).then_some(Err(now)),
            (Some(_), now) => Some(now),
        }
    }
}

fn news(place: Arc<Place>) -> News {
    Box::pin(async move { place.news().await })
}

impl Stream for Positions {
    type Item = Standing;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_standing(cx)
    }
}

impl fmt::Debug for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Positions")
            .field("last", &self.last)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
