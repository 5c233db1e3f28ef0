//! The link to the broker and the queue at its other end.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, ConnectionProperties, ErrorKind};
use warren::config::{Config, Queue, QueueType};

use crate::exit::{Code, Failure};

/// Connects, and declares the queue as configured if it does not exist.
pub(super) async fn open(config: &Config, queue: &Queue) -> Result<Connection, Failure> {
    let link = connect(config).await?;
    let declared = tokio::time::timeout(config.broker.connect_timeout, declare(&link, queue)).await;
    match declared {
        Ok(Ok(())) => Ok(link),
        Ok(Err(error)) => {
            let text = format!("cannot declare queue `{}`: {error}", queue.name);
            Err(Failure::text(Code::Unavailable, text))
        }
        Err(_) => Err(Failure::text(Code::Unavailable, "the broker does not answer a queue declaration")),
    }
}

async fn connect(config: &Config) -> Result<Connection, Failure> {
    let mut why = String::new();
    for uri in &config.broker.uris {
        let properties = ConnectionProperties::default().with_connection_name("warrenctl publish".into());
        let attempt = Connection::connect(&uri.0, properties);
        match tokio::time::timeout(config.broker.connect_timeout, attempt).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => why = error.to_string(),
            Err(elapsed) => why = elapsed.to_string(),
        }
    }
    Err(Failure::text(Code::Unavailable, format!("cannot connect to the broker: {why}; see `broker.uri`")))
}

async fn declare(link: &Connection, queue: &Queue) -> lapin::Result<()> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let channel = link.create_channel().await?;
    let name = queue.name.to_string();
    match channel.queue_declare(name.as_str().into(), passive, FieldTable::default()).await {
        Ok(_) => {
            let _ = channel.close(200, "seen".into()).await;
            Ok(())
        }
        Err(error) if is_missing(&error) => {
            let mut arguments = FieldTable::default();
            if let Some(kind) = queue.queue_type {
                let kind = if kind == QueueType::Quorum { "quorum" } else { "classic" };
                arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
            }
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            link.create_channel()
                .await?
                .queue_declare(name.as_str().into(), durable, arguments)
                .await
                .map(drop)
        }
        Err(error) => Err(error),
    }
}

fn is_missing(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(said) if said.get_id() == 404)
}
