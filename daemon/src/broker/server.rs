//! Who the broker is, and what that one can do. Pure.
//!
//! All that Warren decides by version is here; what differs and needs no decision is in the last column. The references
//! are RabbitMQ's release notes (`release-notes/` of its source) and guides (`www.rabbitmq.com/docs`).
//!
//! | since | what | reference | Warren |
//! | --- | --- | --- | --- |
//! | 3.10 | quorum queues take `x-message-ttl` and dead-letter at least once | 3.10.0; `quorum-queues#dead-lettering` | [`Server::has_lossless_delay`] |
//! | 4.0 | quorum queues drop or dead-letter after 20 returns; -1 lifts that | 4.0.1; `quorum-queues#poison-message-handling` | [`Server::takes_unlimited_deliveries`] |
//! | 4.0 | `x-death` of a publisher is ignored | 4.0.1; `dlx#effects` | every copy is without it (`copy.rs`) |
//! | 4.0 | `max_message_size` is 16 MiB, was 128 | 4.0.1 | `daemon.max_task_bytes` is far below |
//! | 4.0 | a queue declared without a type shows `x-queue-type` among its arguments | `vhosts#default-queue-type` | a queue of others is only asked for one by one (`declare.rs`) |
//! | 4.3 | returns count only when the delivery failed; not `basic.nack`; `x-acquired-count` beside `x-delivery-count` | 4.3.0 | attempts are in our own header, both are stripped |
//! | 4.3 | `consumer_timeout` is the quorum queue's, and ends the consumer rather than the channel | 4.3.0; `consumers#acknowledgement-timeout` | every end leads to a new subscription (`link.rs`) |
//! | 4.3 | transient shared queues and global prefetch are refused; classic queues are all of version 2 | 4.3.0; `deprecated-features` | uses neither |
//! | 4.3 | metadata need a majority of the nodes: a declaration in a minority is not answered | 4.3.0; `metadata-store` | bounded, tried again (`declare.rs`) |

use std::fmt;
use std::task::Poll;

use lapin::types::parsing::parse_field_table;
use lapin::types::{AMQPValue, FieldTable};

/// The broker as it names itself in `connection.start`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Server {
    /// `RabbitMQ`, usually; empty when it gave none.
    pub product: String,
    /// Its version as it gives it; empty when it gave none.
    pub version: String,
}

/// Collects the first frame that the broker sends, `connection.start`.
#[derive(Debug, Default)]
pub(super) struct Opening(Vec<u8>);

/// A longer opening frame is passed by unread. `RabbitMQ`'s is about 500 bytes.
const MAX_OPENING: usize = 16 * 1024;
/// Frame type, channel and size.
const FRAME_HEAD: usize = 7;
/// Class, method, protocol version, before the server's properties.
const START_HEAD: usize = 6;

impl Server {
    /// Major and minor version of a `RabbitMQ`; `None` for every other product and for text that is no version.
    pub fn rabbitmq(&self) -> Option<(u32, u32)> {
        let mut parts = self.version.split('.').map(str::parse);
        match (self.product.as_str(), parts.next(), parts.next()) {
            ("RabbitMQ", Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            _ => None,
        }
    }

    /// Quorum queues with message TTL and at-least-once dead-lettering: `RabbitMQ` 3.10, release notes 3.10.0.
    pub fn has_lossless_delay(&self) -> bool {
        self.rabbitmq().is_some_and(|version| version >= (3, 10))
    }

    /// `x-delivery-limit=-1` means no limit: `RabbitMQ` 4.0, release notes 4.0.1. Before, there is no limit by default,
    /// and -1 loses the message at its first requeue.
    pub fn takes_unlimited_deliveries(&self) -> bool {
        self.rabbitmq().is_some_and(|version| version >= (4, 0))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.product.as_str(), self.version.as_str()) {
            ("", _) => f.write_str("an unnamed broker"),
            (product, "") => f.write_str(product),
            (product, version) => write!(f, "{product} {version}"),
        }
    }
}

impl Opening {
    /// Takes the next bytes; ready with the broker's name, or with an empty one when the frame is not what the
    /// protocol says. Never an error: lapin reads the same bytes and knows better what to say.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Poll<Server> {
        self.0.extend_from_slice(bytes);
        let Some(head) = self.0.first_chunk::<FRAME_HEAD>() else { return Poll::Pending };
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        // 1: a method frame. Anything else, `AMQP` with the broker's protocol version for one, carries no name.
        if head[0] != 1 || size > MAX_OPENING {
            return Poll::Ready(Server::default());
        }
        match self.0.get(FRAME_HEAD + START_HEAD..FRAME_HEAD + size) {
            Some(table) => Poll::Ready(parse_field_table(table).map_or_else(
                |_| Server::default(),
                |(_, properties)| Server {
                    product: text(&properties, "product"),
                    version: text(&properties, "version"),
                },
            )),
            None if size < START_HEAD => Poll::Ready(Server::default()),
            None => Poll::Pending,
        }
    }
}

fn text(table: &FieldTable, name: &str) -> String {
    match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut table = Vec::new();
        for (name, value) in fields {
            table.push(name.len() as u8);
            table.extend_from_slice(name.as_bytes());
            table.push(b'S');
            table.extend_from_slice(&(value.len() as u32).to_be_bytes());
            table.extend_from_slice(value.as_bytes());
        }
        let mut payload = vec![0, 10, 0, 10, 0, 9];
        payload.extend_from_slice(&(table.len() as u32).to_be_bytes());
        payload.extend_from_slice(&table);
        payload.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0]);
        let mut frame = vec![1, 0, 0];
        frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        frame.extend_from_slice(&payload);
        frame.push(0xce);
        frame
    }

    #[test]
    fn the_name_is_read_wherever_the_bytes_are_split() {
        let frame = opening(&[("version", "3.10.8"), ("product", "RabbitMQ")]);
        for split in 1..frame.len() - 1 {
            let mut first = Opening::default();
            let server = match first.take(&frame[..split]) {
                Poll::Ready(server) => server,
                Poll::Pending => match first.take(&frame[split..]) {
                    Poll::Ready(server) => server,
                    Poll::Pending => panic!("still waiting after the whole frame, split at {split}"),
                },
            };
            assert_eq!(server.to_string(), "RabbitMQ 3.10.8");
        }
    }

    #[test]
    fn what_is_no_opening_frame_names_nobody() {
        for bytes in
            [&b"AMQP\x00\x00\x09\x01"[..], b"HTTP/1.1 400", &[1, 0, 0, 255, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 1]]
        {
            assert_eq!(Opening::default().take(bytes), Poll::Ready(Server::default()), "{bytes:?}");
        }
    }

    #[test]
    fn abilities_follow_the_version() {
        let table = [
            ("RabbitMQ", "3.9.27", false, false),
            ("RabbitMQ", "3.10.8", true, false),
            ("RabbitMQ", "3.13.7", true, false),
            ("RabbitMQ", "4.0.2", true, true),
            ("RabbitMQ", "10.1.0-rc.1", true, true),
            ("LavinMQ", "4.0.0", false, false),
            ("RabbitMQ", "", false, false),
        ];
        for (product, version, delay, unlimited) in table {
            let server = Server { product: product.into(), version: version.into() };
            assert_eq!(
                (server.has_lossless_delay(), server.takes_unlimited_deliveries()),
                (delay, unlimited),
                "{server}"
            );
        }
    }
}
