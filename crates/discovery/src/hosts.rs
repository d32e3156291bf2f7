//! Several hosts, to be shown to people.

use std::borrow::Borrow;
use std::fmt;

use crate::host::Host;

/// Shows hosts as a list: of each the private hostname, or the hostname when there is none.
///
/// ```
/// use sereno_discovery::{Host, Hosts};
///
/// let hosts = [Host::new("api-1").private_hostname("10.0.0.7"), Host::new("api-2")];
/// assert_eq!(Hosts(&hosts).to_string(), "10.0.0.7, api-2");
/// ```
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "a way to show a slice, made of that slice alone")]
pub struct Hosts<'a, H>(pub &'a [H]);

impl<H: Borrow<Host>> fmt::Display for Hosts<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, host.borrow())?;
        }
        Ok(())
    }
}
