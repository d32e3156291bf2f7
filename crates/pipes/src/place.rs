//! Where groups' sockets listen, and what members are told to dial.

use std::ops::RangeInclusive;

use sereno_core::chance;
use sereno_sp::Address;

use crate::error::{Error, Result};
use crate::options::DestinationOptions;

/// Where to listen, and the host to tell.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    listen: Address,
    advertise: Option<String>,
    ports: Option<RangeInclusive<u16>>,
}

impl Place {
    pub(crate) fn new(options: &DestinationOptions) -> Result<Self> {
        let listen: Address = options.listen.parse().map_err(Error::Socket)?;
        if let Address::Tcp { host, port } | Address::Tls { host, port } = &listen {
            if *port != 0 {
                let reason = "each group has a port of its own: 0, and `ports` for a choice of them";
                return Err(Error::option("listen", reason));
            }
            if options.advertise.is_none() && is_any(host) {
                let reason = "needed to listen on all interfaces: nobody can dial that address";
                return Err(Error::option("advertise", reason));
            }
        }
        let place = Self { listen, advertise: options.advertise.clone(), ports: options.ports.clone() };
        // What will be advertised must be an address, too.
        let example: Address = place.advertised(place.listen.clone());
        let _: Address = example.to_string().parse().map_err(Error::Socket)?;
        Ok(place)
    }

    /// The addresses to listen on, to be tried in this order.
    pub(crate) fn candidates(&self) -> Vec<Address> {
        // Paths and names that nobody else has; the listeners of the groups come and go.
        let suffix = || format!("{:08x}", chance::number() >> 32);
        match (&self.listen, &self.ports) {
            (Address::Ipc(path), _) => {
                let mut path = path.as_os_str().to_owned();
                path.push(".");
                path.push(suffix());
                vec![Address::Ipc(path.into())]
            }
            (Address::Inproc(name), _) => vec![Address::Inproc(format!("{name}.{}", suffix()))],
            (Address::Tcp { host, .. }, Some(ports)) => {
                rotated(ports).map(|port| Address::Tcp { host: host.clone(), port }).collect()
            }
            (Address::Tls { host, .. }, Some(ports)) => {
                rotated(ports).map(|port| Address::Tls { host: host.clone(), port }).collect()
            }
            (address, _) => vec![address.clone()],
        }
    }

    /// What members are told when the socket listens on `real`.
    pub(crate) fn advertised(&self, real: Address) -> Address {
        match (real, &self.advertise) {
            (Address::Tcp { port, .. }, Some(host)) => Address::Tcp { host: host.clone(), port },
            // Certificates are for names, so the name that was given stays.
            (Address::Tls { port, .. }, advertise) => match (advertise, &self.listen) {
                (Some(host), _) | (None, Address::Tls { host, .. }) => {
                    Address::Tls { host: host.clone(), port }
                }
                (None, _) => self.listen.clone(),
            },
            (real, _) => real,
        }
    }
}

/// All ports, beginning anywhere: several destinations with one range seldom try the same.
fn rotated(ports: &RangeInclusive<u16>) -> impl Iterator<Item = u16> {
    let count = usize::from(ports.end() - ports.start()) + 1;
    let first = chance::below(count);
    let start = ports.clone();
    ports.clone().skip(first).chain(start.take(first))
}

fn is_any(host: &str) -> bool {
    host == "*" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(options: DestinationOptions) -> Result<Place> {
        Place::new(&options)
    }

    fn refused(options: DestinationOptions) -> &'static str {
        match place(options).unwrap_err() {
            Error::Core(sereno_core::Error::InvalidOption { option, .. }) => option,
            Error::Socket(_) => "address",
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_nobody_could_dial_or_share_is_refused() {
        let options = DestinationOptions::default;
        assert_eq!(refused(options().listen("tcp://0.0.0.0:0")), "advertise");
        assert_eq!(refused(options().listen("tcp://*:0")), "advertise");
        assert_eq!(refused(options().listen("tcp://[::]:0")), "advertise");
        assert_eq!(refused(options().listen("tcp://127.0.0.1:5000")), "listen");
        assert_eq!(refused(options().listen("nonsense")), "address");
        assert_eq!(refused(options().advertise("a/b:c")), "address");
        assert_eq!(refused(options().advertise("")), "address");
    }

    #[test]
    fn the_host_is_the_advertised_one_and_the_port_the_real_one() {
        let options = DestinationOptions::default().listen("tcp://0.0.0.0:0").advertise("node-7.example");
        let real = "tcp://0.0.0.0:40123".parse().unwrap();
        assert_eq!(place(options).unwrap().advertised(real).to_string(), "tcp://node-7.example:40123");
        let plain = place(DestinationOptions::default()).unwrap();
        let real: Address = "tcp://127.0.0.1:40123".parse().unwrap();
        assert_eq!(plain.advertised(real.clone()), real);
    }

    #[test]
    fn a_range_of_ports_is_tried_as_a_whole_and_paths_differ() {
        let ranged = place(DestinationOptions::default().ports(7000..=7004)).unwrap();
        let mut ports: Vec<_> = ranged.candidates().iter().map(ToString::to_string).collect();
        ports.sort();
        assert_eq!(ports.len(), 5);
        assert_eq!((ports[0].as_str(), ports[4].as_str()), ("tcp://127.0.0.1:7000", "tcp://127.0.0.1:7004"));
        let files = place(DestinationOptions::default().listen("ipc:///tmp/x")).unwrap();
        assert_ne!(files.candidates(), files.candidates());
        assert!(files.candidates()[0].to_string().starts_with("ipc:///tmp/x."));
    }
}
