//! Who the broker is, and what that one can do. Pure.
//!
//! All that Warren decides by version is here; what differs and needs no decision is in the last column. The references
//! are RabbitMQ's release notes (`release-notes/` of its source) and guides (`www.rabbitmq.com/docs`).
//!
//! | since | what | reference | Warren |
//! | --- | --- | --- | --- |
//! | 3.10 | quorum queues take `x-message-ttl` and dead-letter at least once | 3.10.0; `quorum-queues#dead-lettering` | [`Server::has_lossless_delay`] |
//! | 4.0 | quorum queues drop or dead-letter after 20 returns; -1 lifts that | 4.0.1; `quorum-queues#poison-message-handling` | [`Server::takes_unlimited_deliveries`] |
//! | 4.0 | `x-death` of a publisher is ignored | 4.0.1; `dlx#effects` | every copy is without it (`publish/copy.rs`) |
//! | 4.0 | `max_message_size` is 16 MiB, was 128 | 4.0.1 | `daemon.max_task_bytes` is far below |
//! | 4.0 | a queue declared without a type shows `x-queue-type` among its arguments | `vhosts#default-queue-type` | a queue of others is only asked for one by one (`queues/declare.rs`) |
//! | 4.3 | returns count only when the delivery failed; not `basic.nack`; `x-acquired-count` beside `x-delivery-count` | 4.3.0 | attempts are in our own header, both are stripped |
//! | 4.3 | `consumer_timeout` is the quorum queue's, and ends the consumer rather than the channel | 4.3.0; `consumers#acknowledgement-timeout` | every end leads to a new subscription (`consume/link.rs`) |
//! | 4.3 | transient shared queues and global prefetch are refused; classic queues are all of version 2 | 4.3.0; `deprecated-features` | uses neither |
//! | 4.3 | metadata need a majority of the nodes: a declaration in a minority is not answered | 4.3.0; `metadata-store` | bounded, tried again (`queues/declare.rs`) |

use std::fmt;

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

/// Class, method and protocol version, before the server's properties.
const START_HEAD: usize = 6;

impl Server {
    /// Reads the payload of `connection.start`. Unnamed when it is not what the protocol says: lapin reads the same bytes
    /// and knows better what to say.
    pub(super) fn from_start(payload: &[u8]) -> Self {
        let table = payload.get(START_HEAD..).and_then(|table| parse_field_table(table).ok());
        table.map_or_else(Self::default, |(_, properties)| Self {
            product: text(&properties, "product"),
            version: text(&properties, "version"),
        })
    }

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

fn text(table: &FieldTable, name: &str) -> String {
    match table.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(fields: &[(&str, &str)]) -> Vec<u8> {
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
        payload
    }

    #[test]
    fn the_name_is_read_from_the_opening_method_and_nothing_else_names_anybody() {
        let payload = start(&[("version", "3.10.8"), ("product", "RabbitMQ")]);
        assert_eq!(Server::from_start(&payload).to_string(), "RabbitMQ 3.10.8");
        for bytes in [&payload[..payload.len() / 2], &[0, 10, 0, 10], &[]] {
            assert_eq!(Server::from_start(bytes), Server::default(), "{bytes:?}");
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
