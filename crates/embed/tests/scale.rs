//! Many watches at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test may fail.

mod common;

use common::{client, in_process};
use etcd_client::WatchOptions;

/// How many watches share a stream, and how many streams there are.
const WATCHES: usize = 1_000;
const STREAMS: usize = 5;

#[tokio::test]
async fn thousands_of_watches_hear_of_their_own_keys_and_of_no_others() {
    let server = in_process().await;
    let mut client = client(&server).await;
    let mut streams = Vec::new();
    for stream in 0..STREAMS {
        let mut messages =
            client.watch(format!("{stream}/0/"), Some(WatchOptions::new().with_prefix())).await.unwrap();
        assert!(messages.message().await.unwrap().unwrap().created());
        for watch in 1..WATCHES {
            messages
                .watch(format!("{stream}/{watch}/"), Some(WatchOptions::new().with_prefix()))
                .await
                .unwrap();
            let created = messages.message().await.unwrap().unwrap();
            assert_eq!(created.watch_id(), i64::try_from(watch).unwrap());
        }
        streams.push(messages);
    }
    assert_eq!((server.status().watches, server.status().watch_streams), (WATCHES * STREAMS, STREAMS));
    for stream in 0..STREAMS {
        for watch in 0..WATCHES {
            client.put(format!("{stream}/{watch}/x"), "", None).await.unwrap();
        }
    }
    for (stream, messages) in streams.iter_mut().enumerate() {
        for watch in 0..WATCHES {
            let message = messages.message().await.unwrap().unwrap();
            assert_eq!((message.watch_id(), message.events().len()), (i64::try_from(watch).unwrap(), 1));
            let key = message.events()[0].kv().unwrap().key().to_vec();
            assert_eq!(key, format!("{stream}/{watch}/x").into_bytes());
        }
    }
    drop(streams);
    common::eventually("nothing is left of them", async || server.status().watches == 0).await;
}
