//! What sockets do when all is well.

use bytes::Bytes;
use sereno_sp::{Pull, Push};

#[tokio::test]
async fn what_is_pushed_is_pulled_in_order() {
    let (push, pull) = (Push::new(), Pull::new());
    let address = push.listen("tcp://127.0.0.1:0").await.unwrap();
    pull.dial(&address).unwrap();
    for number in 0..10_000_u32 {
        push.send(Bytes::copy_from_slice(&number.to_be_bytes())).await.unwrap();
        if number % 100 == 99 {
            for expected in number - 99..=number {
                assert_eq!(pull.recv().await.unwrap(), expected.to_be_bytes().as_slice());
            }
        }
    }
    assert_eq!(push.close().await.undelivered, 0);
}
