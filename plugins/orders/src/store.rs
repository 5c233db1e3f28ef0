//! The effects of tasks on the store: each in one transaction, once per task id and once per order number.

use crate::request::{Inventory, Item, Order, Payment, Request};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use warren_plugin::{Failure, reject, retry};

/// How many expired rows of `effects` one task removes: more than it adds, so the table shrinks to its bound.
const FORGET_PER_TASK: i64 = 10;

/// The store and what it takes where a task leaves something out.
pub(crate) struct Store {
    db: Connection,
    defaults: Defaults,
}

/// What a task that leaves it out means.
pub(crate) struct Defaults {
    pub(crate) currency: String,
    pub(crate) item: String,
    /// Minor units.
    pub(crate) price: i64,
    /// How long a task id is remembered.
    pub(crate) remember: Duration,
}

/// What a request did, or had done before.
#[derive(Debug)]
pub(crate) struct Effect {
    /// What to tell the producer: the first run's result where this task id was seen before.
    pub(crate) result: Value,
    /// Nothing was changed: this task id, or this order number, had its effect before.
    pub(crate) already: bool,
}

impl Store {
    /// Opens the store; see [`crate::schema::open`].
    pub(crate) fn open(
        path: &Path,
        busy_timeout: Duration,
        stock: &BTreeMap<String, i64>,
        defaults: Defaults,
        now: i64,
    ) -> Result<Self, Failure> {
        Ok(Self { db: crate::schema::open(path, busy_timeout, stock, now)?, defaults })
    }

    /// Carries out a request for a task, in one transaction. `now` is Unix time in seconds.
    pub(crate) fn apply(&mut self, request: &Request, task_id: &str, now: i64) -> Result<Effect, Failure> {
        self.transact(request, task_id, now).map_err(Refusal::into_failure)
    }

    fn transact(&mut self, request: &Request, task_id: &str, now: i64) -> Result<Effect, Refusal> {
        let what = request.summary();
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some(effect) = effect_of(&tx, task_id, &what)? {
            return Ok(effect);
        }
        let by = Origin { task_id, now };
        let effect = match request {
            Request::Order(order) => enter_order(&tx, order, &self.defaults, &by)?,
            Request::Payment(payment) => enter_payment(&tx, payment, &self.defaults, &by)?,
            Request::Inventory(Inventory::Recount) => recount(&tx)?,
            Request::Inventory(Inventory::Order(number)) => take_out(&tx, number, &by)?,
            Request::Inventory(Inventory::Change { sku, by: change }) => {
                let quantity = shift(&tx, sku, *change, None, "change", &by)?;
                Effect { result: json!({"sku": sku, "change": change, "stock": quantity}), already: false }
            }
            Request::Inventory(Inventory::Count { sku, quantity }) => {
                let change = quantity - stock_of(&tx, sku)?;
                shift(&tx, sku, change, None, "count", &by)?;
                Effect { result: json!({"sku": sku, "change": change, "stock": quantity}), already: false }
            }
        };
        tx.execute(
            "INSERT INTO effects (task_id, what, result, at) VALUES (?1, ?2, ?3, ?4)",
            params![task_id, what, effect.result.to_string(), now],
        )?;
        let oldest = now.saturating_sub_unsigned(self.defaults.remember.as_secs());
        tx.execute(
            "DELETE FROM effects WHERE task_id IN (SELECT task_id FROM effects WHERE at < ?1 ORDER BY at LIMIT ?2)",
            params![oldest, FORGET_PER_TASK],
        )?;
        tx.commit()?;
        Ok(effect)
    }
}

/// Which task made a change, and when.
struct Origin<'a> {
    task_id: &'a str,
    now: i64,
}

/// Why a transaction was not committed.
enum Refusal {
    Sql(rusqlite::Error),
    Failure(Failure),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Refusal {
    /// The store's troubles pass (a lock, a full disk): retry, and the bounded attempts tell if they do not.
    fn into_failure(self) -> Failure {
        match self {
            Refusal::Failure(failure) => failure,
            Refusal::Sql(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => retry(
                    "store-busy",
                    "another process holds the store's write lock longer than settings.busy_timeout",
                ),
                Some(ErrorCode::DiskFull) => {
                    retry("store-full", "the disk with settings.database is full; make room there")
                }
                _ => retry("store", format!("the store refused: {error}")),
            },
        }
    }
}

/// What this task id did before, if it did.
fn effect_of(tx: &Transaction<'_>, task_id: &str, what: &str) -> Result<Option<Effect>, Refusal> {
    let before: Option<(String, String)> = tx
        .query_row("SELECT what, result FROM effects WHERE task_id = ?1", [task_id], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    match before {
        None => Ok(None),
        Some((before, result)) if before == what => {
            let result = serde_json::from_str(&result).unwrap_or(Value::Null);
            Ok(Some(Effect { result, already: true }))
        }
        // To call it done would lose a task; to do it would break "once per task id" for the next repetition.
        Some((before, _)) => Err(Refusal::Failure(reject(
            "task-id-reused",
            format!(
                "task id {task_id} already did \"{before}\", this one says \"{what}\": the producer gives one id to different tasks"
            ),
        ))),
    }
}

fn enter_order(
    tx: &Transaction<'_>,
    order: &Order,
    or: &Defaults,
    by: &Origin<'_>,
) -> Result<Effect, Refusal> {
    if let Some(effect) = same_order_before(tx, order)? {
        return Ok(effect);
    }
    let currency = order.currency.as_deref().unwrap_or(&or.currency);
    let items: Vec<(&str, i64, i64)> = if order.items.is_empty() {
        vec![(&or.item, 1, or.price)]
    } else {
        let price = |item: &Item| item.price.unwrap_or(or.price);
        order.items.iter().map(|item| (item.sku.as_str(), item.quantity, price(item))).collect()
    };
    let total: i64 = items.iter().map(|(_, quantity, price)| quantity * price).sum();
    tx.execute(
        "INSERT INTO orders (number, currency, total, task_id, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![order.number, currency, total, by.task_id, by.now],
    )?;
    for (sku, quantity, price) in &items {
        tx.execute(
            "INSERT INTO order_items (number, sku, quantity, price) VALUES (?1, ?2, ?3, ?4)",
            params![order.number, sku, quantity, price],
        )?;
    }
    // A payment that came before its order did not know the amount.
    tx.execute(
        "UPDATE payments SET amount = ?2, currency = ?3 WHERE number = ?1 AND amount IS NULL",
        params![order.number, total, currency],
    )?;
    Ok(Effect {
        result: json!({"order": order.number, "items": items.len(), "total": total, "currency": currency}),
        already: false,
    })
}

/// The order of this number, if it was entered before. One that says something else is another order under the same
/// number: a mistake for people to look at, not a repetition to be called done.
fn same_order_before(tx: &Transaction<'_>, order: &Order) -> Result<Option<Effect>, Refusal> {
    let number = &order.number;
    let Some((total, currency)) = order_in_store(tx, number)? else { return Ok(None) };
    let items: BTreeMap<String, (i64, i64)> = tx
        .prepare("SELECT sku, quantity, price FROM order_items WHERE number = ?1")?
        .query_map([number], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
        .collect::<Result<_, _>>()?;
    let same_item = |item: &Item| {
        items.get(&item.sku).is_some_and(|(quantity, price)| {
            *quantity == item.quantity && item.price.is_none_or(|given| given == *price)
        })
    };
    let same = (order.items.is_empty() || order.items.len() == items.len())
        && order.items.iter().all(same_item)
        && order.currency.as_ref().is_none_or(|given| *given == currency);
    if !same {
        return Err(Refusal::Failure(reject(
            "order-differs",
            format!(
                "order {number} is in the store with other items or another currency; numbers are given once"
            ),
        )));
    }
    let result = json!({"order": number, "items": items.len(), "total": total, "currency": currency});
    Ok(Some(Effect { result, already: true }))
}

/// Total and currency of an order.
fn order_in_store(tx: &Transaction<'_>, number: &str) -> rusqlite::Result<Option<(i64, String)>> {
    tx.query_row("SELECT total, currency FROM orders WHERE number = ?1", [number], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
    .optional()
}

fn enter_payment(
    tx: &Transaction<'_>,
    payment: &Payment,
    or: &Defaults,
    by: &Origin<'_>,
) -> Result<Effect, Refusal> {
    let number = &payment.number;
    let order = order_in_store(tx, number)?;
    let known_order = order.is_some();
    let (total, order_currency) = order.unzip();
    let amount = payment.amount.or(total);
    let currency = payment.currency.clone().or(order_currency).unwrap_or_else(|| or.currency.clone());
    let changed = tx.execute(
        "INSERT INTO payments (number, amount, currency, task_id, at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (number) DO UPDATE SET amount = excluded.amount, currency = excluded.currency
             WHERE amount IS NULL AND excluded.amount IS NOT NULL",
        params![number, amount, currency, by.task_id, by.now],
    )?;
    let (paid, paid_currency): (Option<i64>, String) =
        tx.query_row("SELECT amount, currency FROM payments WHERE number = ?1", [number], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if payment.amount.is_some_and(|given| paid != Some(given))
        || payment.currency.as_ref().is_some_and(|given| *given != paid_currency)
    {
        return Err(Refusal::Failure(reject(
            "already-paid",
            format!(
                "order {number} is paid with another amount or currency; there is one payment for an order"
            ),
        )));
    }
    Ok(Effect {
        result: json!({"order": number, "amount": paid, "currency": paid_currency, "known_order": known_order}),
        already: changed == 0,
    })
}

/// Takes an order's items out of the stock, once per order whichever task asks. Stock below zero is allowed: it is
/// what has been sold and must be bought.
fn take_out(tx: &Transaction<'_>, number: &str, by: &Origin<'_>) -> Result<Effect, Refusal> {
    let known = tx.query_row("SELECT 1 FROM orders WHERE number = ?1", [number], |_| Ok(())).optional()?;
    if known.is_none() {
        return Err(Refusal::Failure(retry(
            "unknown-order",
            format!(
                "order {number} is not in the store, so what it takes out is not known; it may still be on its way"
            ),
        )));
    }
    let items: Vec<(String, i64)> = tx
        .prepare(
            "SELECT sku, quantity FROM order_items AS i WHERE number = ?1 AND NOT EXISTS
                 (SELECT 1 FROM stock_moves AS m WHERE m.number = i.number AND m.sku = i.sku)",
        )?
        .query_map([number], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut short = Vec::new();
    for (sku, quantity) in &items {
        if shift(tx, sku, -quantity, Some(number), "order", by)? < 0 {
            short.push(sku);
        }
    }
    Ok(Effect {
        result: json!({"order": number, "items": items.len(), "short": short}),
        already: items.is_empty(),
    })
}

/// Makes every item's stock what its moves add up to. It differs only if something else wrote to the store.
fn recount(tx: &Transaction<'_>) -> Result<Effect, Refusal> {
    tx.execute("INSERT OR IGNORE INTO stock (sku, quantity) SELECT DISTINCT sku, 0 FROM stock_moves", [])?;
    let corrected = tx.execute(
        "UPDATE stock SET quantity = counted.total FROM
             (SELECT s.sku, coalesce(sum(m.change), 0) AS total
              FROM stock AS s LEFT JOIN stock_moves AS m ON m.sku = s.sku GROUP BY s.sku) AS counted
         WHERE counted.sku = stock.sku AND counted.total <> stock.quantity",
        [],
    )?;
    let (items, pieces, short): (i64, i64, i64) = tx.query_row(
        "SELECT count(*), coalesce(sum(quantity), 0), count(*) FILTER (WHERE quantity < 0) FROM stock",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    Ok(Effect {
        result: json!({"items": items, "pieces": pieces, "short": short, "corrected": corrected}),
        already: false,
    })
}

/// Enters one move and gives the item's new stock.
fn shift(
    tx: &Transaction<'_>,
    sku: &str,
    change: i64,
    number: Option<&str>,
    reason: &str,
    by: &Origin<'_>,
) -> rusqlite::Result<i64> {
    tx.prepare(
        "INSERT INTO stock_moves (sku, change, number, reason, task_id, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![sku, change, number, reason, by.task_id, by.now])?;
    tx.prepare(
        "INSERT INTO stock (sku, quantity) VALUES (?1, ?2)
         ON CONFLICT (sku) DO UPDATE SET quantity = quantity + excluded.quantity RETURNING quantity",
    )?
    .query_row(params![sku, change], |row| row.get(0))
}

fn stock_of(tx: &Transaction<'_>, sku: &str) -> rusqlite::Result<i64> {
    let quantity =
        tx.query_row("SELECT quantity FROM stock WHERE sku = ?1", [sku], |row| row.get(0)).optional()?;
    Ok(quantity.unwrap_or(0))
}
