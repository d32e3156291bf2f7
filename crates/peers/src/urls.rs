//! One address or several.

use sereno_sp::Address;

use crate::error::{Error, Result};

/// One address or several, such as `"tcp://10.0.0.1:5007"`, `["tcp://10.0.0.1:5007", "tcp://10.0.0.2:5007"]`, a `Vec` of
/// strings, or an [`Address`]. They are read when they are used. `tcp://`, `ipc://`, `inproc://` and, with the feature
/// `tls`, `tls+tcp://`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urls(Vec<String>);

impl Urls {
    /// Reads them; each counts once.
    pub(crate) fn addresses(&self) -> Result<Vec<Address>> {
        let mut addresses: Vec<Address> = Vec::with_capacity(self.0.len());
        for url in &self.0 {
            let address = url.parse()?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(Error::NoAddress) } else { Ok(addresses) }
    }
}

impl From<&str> for Urls {
    fn from(url: &str) -> Self {
        Self(vec![url.to_owned()])
    }
}

impl From<&String> for Urls {
    fn from(url: &String) -> Self {
        Self(vec![url.clone()])
    }
}

impl From<String> for Urls {
    fn from(url: String) -> Self {
        Self(vec![url])
    }
}

impl From<&Address> for Urls {
    fn from(address: &Address) -> Self {
        Self(vec![address.to_string()])
    }
}

impl From<Address> for Urls {
    fn from(address: Address) -> Self {
        Self::from(&address)
    }
}

impl<T: ToString> From<&[T]> for Urls {
    fn from(urls: &[T]) -> Self {
        Self(urls.iter().map(ToString::to_string).collect())
    }
}

impl<T: ToString> From<Vec<T>> for Urls {
    fn from(urls: Vec<T>) -> Self {
        Self::from(urls.as_slice())
    }
}

impl<T: ToString> From<&Vec<T>> for Urls {
    fn from(urls: &Vec<T>) -> Self {
        Self::from(urls.as_slice())
    }
}

impl<T: ToString, const N: usize> From<[T; N]> for Urls {
    fn from(urls: [T; N]) -> Self {
        Self::from(urls.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_several_of_any_kind_are_read_once_each() {
        let address: Address = "tcp://a:1".parse().unwrap();
        for urls in [
            Urls::from("tcp://a:1"),
            "tcp://a:1".to_owned().into(),
            (&address).into(),
            ["tcp://a:1", "tcp://a:1"].into(),
            vec![address.clone()].into(),
        ] {
            assert_eq!(urls.addresses().unwrap(), std::slice::from_ref(&address));
        }
        assert!(matches!(Urls::from(Vec::<String>::new()).addresses(), Err(Error::NoAddress)));
        let bad = Urls::from(["tcp://a:1", "nonsense"]).addresses();
        assert!(matches!(bad, Err(Error::Socket(sereno_sp::Error::BadAddress { .. }))), "{bad:?}");
    }
}
