//! A checksum of versions, in an order: the same ones give the same one, but not etcd's.

use etcd_client::proto::PbKeyValue;

/// FNV-1a, 64 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    pub(crate) fn add(&mut self, version: &PbKeyValue) {
        for bytes in [&version.key, &version.value] {
            self.eat(&bytes.len().to_be_bytes());
            self.eat(bytes);
        }
        for number in [version.create_revision, version.mod_revision, version.version, version.lease] {
            self.eat(&number.to_be_bytes());
        }
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }

    fn eat(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(versions: &[(&str, &str, i64)]) -> u64 {
        let mut checksum = Checksum::default();
        for (key, value, mod_revision) in versions {
            let (key, value) = (key.as_bytes().to_vec(), value.as_bytes().to_vec());
            checksum.add(&PbKeyValue { key, value, mod_revision: *mod_revision, ..PbKeyValue::default() });
        }
        checksum.value()
    }

    #[test]
    fn every_part_and_the_order_count() {
        let base = of(&[("a", "1", 2), ("b", "2", 3)]);
        assert_eq!(base, of(&[("a", "1", 2), ("b", "2", 3)]));
        for other in [
            of(&[("b", "2", 3), ("a", "1", 2)]),
            of(&[("a", "1", 2), ("b", "2", 4)]),
            of(&[("a1", "", 2), ("b", "2", 3)]),
            of(&[("a", "1", 2)]),
        ] {
            assert_ne!(base, other);
        }
    }
}
