//! Reading: linearizable, paged, at one revision.

use etcd_client::GetOptions;

use crate::call::Kind;
use crate::client::{Client, Range};
use crate::error::{Error, Result};
use crate::key::{Key, Prefix};
use crate::kv::{KeyValue, Snapshot};

/// Keys per page of keys without values, of which a page can be large; etcd walks the rest of the range for each.
const KEYS_PAGE: i64 = 10_000;
/// Keys per page; halved when a page of large values exceeds the decode limit.
const PAGE: i64 = 1000;

impl Client {
    /// Reads one key, linearizably. One RPC.
    ///
    /// # Errors
    /// As any read: [`Error::Unavailable`], [`Error::Timeout`], refusals.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        Ok(self.page(&Range::from(key), GetOptions::new()).await?.entries.into_iter().next())
    }

    /// Reads all keys of a range as of one revision, linearizably. One RPC per 1,000 keys, all within the client's
    /// deadline.
    ///
    /// # Errors
    /// As [`Client::get`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn range(&self, range: impl Into<Range>) -> Result<Snapshot> {
        self.as_one(self.pages(range.into(), 0, false)).await
    }

    /// As [`Client::range`], without the values.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn range_keys(&self, range: impl Into<Range>) -> Result<Snapshot> {
        self.as_one(self.pages(range.into(), 0, true)).await
    }

    /// As [`Client::range`], as of an earlier revision.
    ///
    /// # Errors
    /// As [`Client::get`]; [`Error::Compacted`] when that revision's history is gone.
    pub async fn range_at(&self, range: impl Into<Range>, revision: i64) -> Result<Snapshot> {
        self.as_one(self.pages(range.into(), revision, false)).await
    }

    /// The key of a range that was created first, if any, without its value. One RPC.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn oldest(&self, range: impl Into<Range>) -> Result<Option<KeyValue>> {
        let options = GetOptions::new()
            .with_keys_only()
            .with_limit(1)
            .with_sort(etcd_client::SortTarget::Create, etcd_client::SortOrder::Ascend);
        Ok(self.page(&range.into(), options).await?.entries.into_iter().next())
    }

    /// Counts the keys below a prefix, linearizably; also gives the store's revision. One RPC.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn count(&self, prefix: &Prefix) -> Result<(i64, i64)> {
        let page = self.page(&Range::from(prefix), GetOptions::new().with_count_only()).await?;
        Ok((page.count, page.revision))
    }

    async fn pages(&self, range: Range, at: i64, keys_only: bool) -> Result<Snapshot> {
        let mut limit = if keys_only { KEYS_PAGE } else { PAGE };
        let mut revision = at;
        let mut from = range.clone();
        let mut entries: Vec<KeyValue> = Vec::new();
        loop {
            let mut options = GetOptions::new().with_limit(limit);
            if revision > 0 {
                options = options.with_revision(revision);
            }
            if keys_only {
                options = options.with_keys_only();
            }
            let page = match self.page(&from, options).await {
                Err(Error::TooLarge { .. }) if limit > 1 => {
                    limit /= 2;
                    continue;
                }
                // Compacted between two pages: what was read so far is of no use.
                Err(Error::Compacted { .. }) if at == 0 && revision > 0 => {
                    revision = 0;
                    from = range.clone();
                    entries.clear();
                    continue;
                }
                page => page?,
            };
            if revision == 0 {
                revision = page.revision;
            }
            let last = page.entries.last().map(|kv| kv.key.as_bytes().to_vec());
            entries.extend(page.entries);
            match last {
                Some(mut next) if page.more => {
                    next.push(0);
                    from.start = next;
                }
                _ => return Ok(Snapshot { revision, entries }),
            }
        }
    }

    async fn page(&self, range: &Range, options: GetOptions) -> Result<Page> {
        let limit = self.inner.options.decode_limit;
        let call = |connection: crate::picker::Connection| {
            let mut options = options.clone();
            if let Some(end) = &range.end {
                options = options.with_range(end.clone());
            }
            let floor = self.inner.floor();
            async move {
                let mut kv = connection.client.kv_client().max_decoding_message_size(limit);
                Ok((kv.get(range.start.clone(), Some(options)).await?, floor))
            }
        };
        let (response, floor) = self.call(Kind::Idempotent, self.deadline(), call).await?;
        let response = response.0;
        let (cluster, revision) = response.header.as_ref().map_or((0, 0), |h| (h.cluster_id, h.revision));
        self.inner.observe(cluster, revision, floor)?;
        Ok(Page {
            revision,
            count: response.count,
            more: response.more,
            entries: response.kvs.into_iter().map(KeyValue::from_proto).collect(),
        })
    }
}

struct Page {
    revision: i64,
    count: i64,
    more: bool,
    entries: Vec<KeyValue>,
}
