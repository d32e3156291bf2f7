//! Where services are kept: the keys of etcd-discovery, below a root of one's choice (default `/`).
//!
//! ```text
//! /services/<name>/<uuid>     a host, JSON; leased by the registering session
//! /services_infos/<name>      what is said of the service as a whole, JSON; without a lease
//! ```

use sereno_core::{Error, Key, KeyError, Namespace, Prefix};

/// The two subtrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    hosts: Namespace,
    infos: Namespace,
}

impl Keys {
    /// `root` is `/`, or segments between slashes such as `/prod` or `prod/eu`; a slash at its end changes nothing.
    pub(crate) fn new(root: &str) -> Result<Self, KeyError> {
        let root = root.strip_suffix('/').unwrap_or(root);
        Ok(Self {
            hosts: Namespace::new(&format!("{root}/services"))?,
            infos: Namespace::new(&format!("{root}/services_infos"))?,
        })
    }

    /// The subtree of one service's hosts.
    pub(crate) fn hosts(&self, service: &str) -> Result<Prefix, Error> {
        Ok(self.hosts.prefix(service)?)
    }

    /// The key of one host.
    pub(crate) fn host(&self, service: &str, uuid: &str) -> Result<Key, Error> {
        Ok(self.hosts(service)?.key(uuid)?)
    }

    /// The key of what is said of the service as a whole.
    pub(crate) fn info(&self, service: &str) -> Result<Key, Error> {
        Ok(self.infos.root().key(service)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(root: &str) -> Result<[String; 2], KeyError> {
        let keys = Keys::new(root)?;
        let text = |key: Key| String::from_utf8(key.as_bytes().to_vec()).unwrap();
        Ok([text(keys.host("api", "u-1").unwrap()), text(keys.info("api").unwrap())])
    }

    #[test]
    fn keys_are_those_of_the_ancestor() {
        assert_eq!(shown("/").unwrap(), ["/services/api/u-1", "/services_infos/api"]);
        assert_eq!(shown("").unwrap(), ["/services/api/u-1", "/services_infos/api"]);
        assert_eq!(shown("/prod").unwrap(), ["/prod/services/api/u-1", "/prod/services_infos/api"]);
        assert_eq!(shown("prod/eu/").unwrap(), ["prod/eu/services/api/u-1", "prod/eu/services_infos/api"]);
        assert!(shown("//").is_err() && shown("a b").is_err());
    }

    #[test]
    fn no_name_leaves_its_service() {
        let keys = Keys::new("/").unwrap();
        assert_eq!(keys.host("a/b", "../c").unwrap().as_bytes(), b"/services/a%2Fb/%2E.%2Fc");
        assert!(!keys.hosts("svc").unwrap().contains(&keys.host("svc2", "u").unwrap()));
        assert!(keys.hosts("").is_err());
    }
}
