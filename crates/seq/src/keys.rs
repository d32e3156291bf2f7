//! Where a group is kept.
//!
//! ```text
//! sereno/seq/<group>/
//!   seats/<seat>      a member; value: the group's assignment; the order of creation is the order of the members
//!                     or what keeps a late copy of a seat from coming back; value: "gone"; no member
//!   slots/<slot>      stable assignment only; value: who has it, "<seat> <epoch>"
//!   claims/<index>    value: which claim it is, "<epoch>-<serial>"
//! ```
//! All of them are on the lease of the member's session. One watch of the group sees everything; nothing but seats is
//! counted.

use sereno_core::{Client, Error, Key, Prefix};

/// The value of a seat that is none.
pub(crate) const GONE: &str = "gone";

/// The keys of one group.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    pub(crate) group: Prefix,
    seats: Prefix,
    slots: Prefix,
    claims: Prefix,
}

/// What a key of the group is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Seat(String),
    Slot(usize),
    Claim(usize),
}

impl Keys {
    pub(crate) fn new(client: &Client, group: &str) -> Result<Self, Error> {
        let group = client.namespace().prefix("seq")?.join(group)?;
        let (seats, slots, claims) = (group.join("seats")?, group.join("slots")?, group.join("claims")?);
        Ok(Self { group, seats, slots, claims })
    }

    pub(crate) fn seat(&self, name: &str) -> Result<Key, Error> {
        Ok(self.seats.key(name)?)
    }

    pub(crate) fn slot(&self, slot: usize) -> Result<Key, Error> {
        Ok(self.slots.key(slot.to_string())?)
    }

    pub(crate) fn claim(&self, index: usize) -> Result<Key, Error> {
        Ok(self.claims.key(index.to_string())?)
    }

    /// `None` for what no member wrote.
    pub(crate) fn parse(&self, key: &Key) -> Option<Entry> {
        if let Some(name) = self.seats.child(key) {
            return Some(Entry::Seat(name));
        }
        if let Some(slot) = self.slots.child(key) {
            return number(&slot).map(Entry::Slot);
        }
        number(&self.claims.child(key)?).map(Entry::Claim)
    }
}

/// A number as this crate writes it, and no other spelling of it.
fn number(text: &str) -> Option<usize> {
    let number: u32 = text.parse().ok()?;
    (number.to_string() == text).then(|| usize::try_from(number).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use sereno_core::{ConnectOptions, Namespace};

    #[tokio::test]
    async fn every_key_is_what_it_was_made_as_and_nothing_else_is_a_key_of_the_group() {
        let options = ConnectOptions::default().namespace(Namespace::new("ns").unwrap());
        let client = Client::lazy(["http://127.0.0.1:1"], options).unwrap();
        let keys = Keys::new(&client, "g").unwrap();
        assert_eq!(keys.parse(&keys.seat("a-1").unwrap()), Some(Entry::Seat("a-1".into())));
        assert_eq!(keys.parse(&keys.slot(7).unwrap()), Some(Entry::Slot(7)));
        assert_eq!(keys.parse(&keys.claim(0).unwrap()), Some(Entry::Claim(0)));
        let group = client.namespace().prefix("seq").unwrap().join("g").unwrap();
        for (folder, name) in
            [("slots", "07"), ("slots", "+7"), ("slots", "x"), ("claims", "-1"), ("other", "1")]
        {
            let foreign = group.join(folder).unwrap().key(name).unwrap();
            assert_eq!(keys.parse(&foreign), None, "{folder}/{name}");
        }
        for other in ["g2", "g/seats", "seats"] {
            let sibling = Keys::new(&client, other).unwrap();
            assert_eq!(keys.parse(&sibling.seat("a").unwrap()), None, "{other}");
            assert!(!keys.group.contains(&sibling.seat("a").unwrap()), "{other}");
        }
    }
}
