//! The eight bytes with which both sides of a connection begin, and the protocol numbers in them.

use crate::stats::Refusal;

pub(crate) const PUB: u16 = 0x20;
pub(crate) const SUB: u16 = 0x21;
pub(crate) const REQ: u16 = 0x30;
pub(crate) const REP: u16 = 0x31;
pub(crate) const PUSH: u16 = 0x50;
pub(crate) const PULL: u16 = 0x51;
pub(crate) const OLD_SURVEYOR: u16 = 0x60;
pub(crate) const OLD_RESPONDENT: u16 = 0x61;
pub(crate) const SURVEYOR: u16 = 0x62;
pub(crate) const RESPONDENT: u16 = 0x63;

/// How many bytes a hello has.
pub(crate) const LEN: usize = 8;

/// The hello of a socket that speaks `protocol`.
pub(crate) fn encode(protocol: u16) -> [u8; LEN] {
    let [high, low] = protocol.to_be_bytes();
    [0, b'S', b'P', 0, high, low, 0, 0]
}

/// The protocol a hello names.
///
/// # Errors
/// Whatever is no hello of version 0 with its reserved bytes zero.
pub(crate) fn decode(hello: [u8; LEN]) -> Result<u16, Refusal> {
    match hello {
        [0, b'S', b'P', 0, high, low, 0, 0] => Ok(u16::from_be_bytes([high, low])),
        [0, b'S', b'P', 0, ..] => Err(Refusal::Reserved),
        [0, b'S', b'P', ..] => Err(Refusal::Version),
        _ => Err(Refusal::NotSp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_has_the_bytes_that_nanomsg_sends() {
        assert_eq!(encode(PUSH), [0x00, 0x53, 0x50, 0x00, 0x00, 0x50, 0x00, 0x00]);
        assert_eq!(encode(SURVEYOR), [0x00, 0x53, 0x50, 0x00, 0x00, 0x62, 0x00, 0x00]);
    }

    #[test]
    fn every_protocol_is_read_back() {
        for protocol in [PUB, SUB, REQ, REP, PUSH, PULL, OLD_SURVEYOR, OLD_RESPONDENT, SURVEYOR, RESPONDENT] {
            assert_eq!(decode(encode(protocol)), Ok(protocol));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = encode(PULL);
        for index in 0..LEN {
            let mut bad = good;
            bad[index] ^= 1;
            let expected = match index {
                0..=2 => Err(Refusal::NotSp),
                3 => Err(Refusal::Version),
                4 => Ok(PULL ^ 0x100),
                5 => Ok(PULL ^ 1),
                _ => Err(Refusal::Reserved),
            };
            assert_eq!(decode(bad), expected, "byte {index}");
        }
        assert_eq!(decode(*b"GET / HT"), Err(Refusal::NotSp));
    }
}
