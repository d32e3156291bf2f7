//! What a member counts about itself.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One scrape of `/metrics`.
///
/// Useful names: `grpc_server_started_total` by `grpc_method`, `etcd_debugging_mvcc_watch_stream_total`,
/// `etcd_debugging_mvcc_watcher_total`, `etcd_server_proposals_committed_total`, `process_resident_memory_bytes`.
#[derive(Debug, Clone)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// Scrapes a plain-HTTP address such as `127.0.0.1:2379`. Two seconds at most.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn scrape(address: &str) -> Self {
        let text = get(address, "/metrics").await;
        Self { text: text.unwrap_or_else(|why| panic!("no metrics at {address}: {why}")) }
    }

    /// The value of a metric, summed over its labels. `None` when there is no such metric.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        sum(self.lines(name))
    }

    /// The value of a metric, summed over the lines with that label. `None` when there is no such line.
    #[must_use]
    pub fn get_where(&self, name: &str, label: &str, value: &str) -> Option<f64> {
        let wanted = format!("{label}=\"{value}\"");
        sum(self.lines(name).filter(|line| line.contains(&wanted)))
    }

    /// A label of a metric's first line.
    #[must_use]
    pub fn label(&self, name: &str, label: &str) -> Option<&str> {
        let line = self.lines(name).next()?;
        let (_, rest) = line.split_once(&format!("{label}=\""))?;
        rest.split_once('"').map(|(value, _)| value)
    }

    fn lines<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter(move |line| line.split(['{', ' ']).next() == Some(name))
    }
}

fn sum<'a>(lines: impl Iterator<Item = &'a str>) -> Option<f64> {
    let values: Vec<f64> =
        lines.filter_map(|line| line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok())).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

/// Scrapes the member behind a plain-HTTP endpoint URL and returns one metric, summed over its labels.
///
/// For members of the harness prefer [`Member::metrics`](crate::Member::metrics), which works with TLS too.
///
/// # Panics
/// When nobody answers or there is no such metric.
pub async fn metrics(endpoint: &str, name: &str) -> f64 {
    let address = endpoint.trim_start_matches("http://").trim_end_matches('/');
    let scrape = Metrics::scrape(address).await;
    scrape.get(name).unwrap_or_else(|| panic!("{endpoint} has no metric {name}"))
}

/// The body of a plain GET. HTTP/1.0, so that the answer is neither chunked nor kept open.
pub(crate) async fn get(address: &str, path: &str) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = match tokio::time::timeout(Duration::from_secs(2), exchange).await {
        Ok(answer) => answer.map_err(|error| error.to_string())?,
        Err(_) => return Err("no answer within two seconds".to_owned()),
    };
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no end of headers")?;
    if head.split(' ').nth(1) == Some("200") { Ok(body.to_owned()) } else { Err(head.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn values_are_summed_over_labels_and_names_match_whole() {
        let text = "# HELP a x\na 1\na_total{m=\"x\"} 2\na_total{m=\"y\"} 3.5\nv{v=\"3.5.1\"} 1\n".to_owned();
        let metrics = Metrics { text };
        assert_eq!(metrics.get("a"), Some(1.0));
        assert_eq!(metrics.get("a_total"), Some(5.5));
        assert_eq!(metrics.get("b"), None);
        assert_eq!(metrics.get_where("a_total", "m", "y"), Some(3.5));
        assert_eq!(metrics.get_where("a_total", "m", "z"), None);
        assert_eq!(metrics.label("v", "v"), Some("3.5.1"));
    }
}
