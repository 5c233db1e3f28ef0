//! Warren handler: orders, payments and inventory in one SQLite store.
//!
//! | task | what it does |
//! | --- | --- |
//! | `Process order #1001` | enters the order and publishes `Process payment #1001` and `Update inventory #1001` |
//! | `Process payment #1001` | enters the payment of an order; the order may be unknown, and may come later |
//! | `Update inventory #1001` | takes the order's items out of the stock; retries while the order is unknown |
//! | `Update inventory` | recounts: every item's stock becomes the sum of its moves |
//!
//! An order number is 1 to 64 of `A-Z a-z 0-9 - _ .`, with or without `#`. The same tasks with details are JSON,
//! routed by the message's AMQP `type` (`Process order`, …). Prices and amounts are in the minor unit (cents):
//!
//! ```json
//! {"order": 1001, "currency": "EUR", "items": [{"sku": "lamp", "quantity": 2, "price": 1250}]}
//! {"order": 1001, "amount": 2500, "currency": "EUR"}
//! {"order": 1001}     {"sku": "lamp", "change": 40}     {"sku": "lamp", "count": 38}     {}
//! ```
//!
//! # Settings
//!
//! ```toml
//! [handlers.orders]
//! plugin = "orders"
//!
//! [handlers.orders.settings]
//! database      = "/var/lib/warren/orders.db"  # required; made if missing, a file of its own
//! busy_timeout  = "5s"          # how long to wait for another writer, before the task is retried
//! currency      = "EUR"         # where an order or a payment names none
//! default_item  = "item"        # what an order without items is for: one piece of this
//! default_price = 0             # of an item without a price, in the minor unit
//! remember      = "90d"         # how long task ids are remembered
//! follow_up_queue = "payments"  # where payment and inventory tasks go; the order's own queue if left out
//!
//! [handlers.orders.settings.stock]  # initial stock, entered once for an item that the store has never seen
//! lamp = 100
//!
//! [handlers.orders.settings.prefixes]  # where the handler's `prefixes` are others than these
//! order     = "Process order"
//! payment   = "Process payment"
//! inventory = "Update inventory"
//! ```
//!
//! # Once
//!
//! A task runs again when its outcome did not reach the broker. Every effect is therefore one transaction, written
//! through to the disk before the task is done, and guarded twice:
//!
//! - by the task's id: a repetition changes nothing and is done with the first run's result and `"already": true`.
//!   An id that comes back with another request is rejected as `task-id-reused`. An id is remembered for `remember`;
//! - by the order number: an order is entered once, paid once, and taken out of the stock once, whichever task says
//!   so. One that says something else (other items, another amount) is rejected, not called done.
//!
//! The order's follow-ups are published on a repetition too. The first run may have died between its commit and
//! their publication, and a second copy of them does nothing: from the same task they have the same ids
//! (`<task id>/1`, `<task id>/2`), and from another task the order number guards them.
//!
//! A producer that gives no message id can only be guarded by the order number: Warren's own id stays with a retried
//! or dead-lettered copy, but a redelivery after a crash, or the same text sent twice, is a new task. Results say
//! `"task_id": "generated"` then, and the log says it once. It matters for stock changes and counts, which have no
//! order number: their producers should set `message_id`.

mod request;
mod schema;
mod store;

use request::{Kind, Request, is_amount, is_currency, is_name, is_stock};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::{Defaults, Effect, Store};
use warren_plugin::{Call, Done, Failure, Handler, Host, Message, Outcome, Task, reject, retry};

/// The handler: the open store, and what its tasks are called here.
pub struct Orders {
    store: Store,
    prefixes: Prefixes,
    follow_up_queue: Option<String>,
    said_that_ids_are_generated: bool,
}

/// `[handlers.NAME.settings]`; the crate's documentation says what each is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    database: PathBuf,
    #[serde(default = "five_seconds", with = "warren_plugin::duration")]
    busy_timeout: Duration,
    #[serde(default = "euro")]
    currency: String,
    #[serde(default = "item")]
    default_item: String,
    #[serde(default)]
    default_price: i64,
    #[serde(default = "ninety_days", with = "warren_plugin::duration")]
    remember: Duration,
    follow_up_queue: Option<String>,
    #[serde(default)]
    stock: BTreeMap<String, i64>,
    #[serde(default)]
    prefixes: Prefixes,
}

/// What the three kinds of task are called.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Prefixes {
    order: String,
    payment: String,
    inventory: String,
}

warren_plugin::export_plugin!(
    Orders,
    name = "orders",
    prefixes = ["Process order", "Process payment", "Update inventory"],
    timeout = "30s",
    settings = [
        "database",
        "busy_timeout",
        "currency",
        "default_item",
        "default_price",
        "remember",
        "follow_up_queue",
        "stock",
        "prefixes",
    ],
    stores = ["database"],
);

impl Handler for Orders {
    type Settings = Settings;

    fn new(settings: Settings, _host: &Host) -> Result<Self, Failure> {
        settings.check()?;
        let Settings { database, busy_timeout, stock, prefixes, follow_up_queue, .. } = settings;
        let defaults = Defaults {
            currency: settings.currency,
            item: settings.default_item,
            price: settings.default_price,
            remember: settings.remember,
        };
        let store = Store::open(&database, busy_timeout, &stock, defaults, unix_now())?;
        Ok(Self { store, prefixes, follow_up_queue, said_that_ids_are_generated: false })
    }

    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
        let kind = self.prefixes.kind(task.prefix())?;
        let request = Request::parse(kind, task)?;
        if task.id_is_generated() && !self.said_that_ids_are_generated {
            self.said_that_ids_are_generated = true;
            call.logger().info(
                "tasks come without a message id: a repetition is recognised by its order number only, and \
                 a stock change not at all; let the producer set message_id",
            );
        }
        call.check()?;
        let effect = self.store.apply(&request, task.id(), unix_now())?;
        if let Request::Order(order) = &request {
            for prefix in [&self.prefixes.payment, &self.prefixes.inventory] {
                let follow_up = Message::new(format!("{prefix} #{}", order.number));
                call.publish(match &self.follow_up_queue {
                    Some(queue) => follow_up.queue(queue),
                    None => follow_up,
                })?;
            }
        }
        Done::json(&result(effect, task.id_is_generated()))
    }
}

impl Settings {
    fn check(&self) -> Result<(), Failure> {
        let problem = if !self.database.is_absolute() {
            Some("database must be an absolute path, such as \"/var/lib/warren/orders.db\"".to_owned())
        } else if self.busy_timeout > Duration::from_secs(60) {
            Some(
                "busy_timeout must be at most 60s; a store that is busy for longer is better retried"
                    .to_owned(),
            )
        } else if !is_currency(&self.currency) {
            Some("currency must be three capital letters, such as \"EUR\"".to_owned())
        } else if !is_name(&self.default_item) {
            Some("default_item must be 1 to 64 of A-Z a-z 0-9 - _ .".to_owned())
        } else if !is_amount(self.default_price) {
            Some("default_price must be 0 to 1000000000, in the currency's minor unit".to_owned())
        } else if self.remember < Duration::from_secs(3600) {
            Some("remember must be at least 1h: retries of a task may be that far apart".to_owned())
        } else if self.follow_up_queue.as_ref().is_some_and(|queue| queue.is_empty() || queue.len() > 255) {
            Some("follow_up_queue must be a queue's name; leave it out for the order's own queue".to_owned())
        } else {
            self.stock.iter().find_map(|(sku, quantity)| {
                (!is_name(sku) || !is_stock(*quantity)).then(|| {
                    format!("stock.{sku}: an item is 1 to 64 of A-Z a-z 0-9 - _ . and its stock within ±1000000000")
                })
            })
        };
        match problem.or_else(|| self.prefixes.problem()) {
            Some(problem) => Err(reject("bad-settings", format!("settings.{problem}"))),
            None => Ok(()),
        }
    }
}

impl Default for Prefixes {
    fn default() -> Self {
        Self {
            order: "Process order".into(),
            payment: "Process payment".into(),
            inventory: "Update inventory".into(),
        }
    }
}

impl Prefixes {
    fn problem(&self) -> Option<String> {
        let all = [&self.order, &self.payment, &self.inventory];
        let blank = all.iter().any(|prefix| prefix.trim().is_empty() || prefix.trim() != prefix.as_str());
        (blank || all[0] == all[1] || all[1] == all[2] || all[0] == all[2]).then(|| {
            "prefixes: order, payment and inventory must be three different texts without blanks round them".into()
        })
    }

    /// The kind of task this prefix stands for.
    fn kind(&self, prefix: &str) -> Result<Kind, Failure> {
        match prefix {
            _ if prefix == self.order => Ok(Kind::Order),
            _ if prefix == self.payment => Ok(Kind::Payment),
            _ if prefix == self.inventory => Ok(Kind::Inventory),
            // Retry: the task is sound, the configuration is not, and it can be put right meanwhile.
            _ => Err(retry(
                "unknown-prefix",
                format!("the handler's prefix \"{prefix}\" is none of settings.prefixes; name it there"),
            )),
        }
    }
}

/// The effect's result for the log and the producer.
fn result(effect: Effect, id_is_generated: bool) -> serde_json::Value {
    let mut result = effect.result;
    if let Some(fields) = result.as_object_mut() {
        fields.insert("already".into(), effect.already.into());
        if id_is_generated {
            fields.insert("task_id".into(), "generated".into());
        }
    }
    result
}

fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn ninety_days() -> Duration {
    Duration::from_secs(90 * 24 * 3600)
}

fn euro() -> String {
    "EUR".into()
}

fn item() -> String {
    "item".into()
}
