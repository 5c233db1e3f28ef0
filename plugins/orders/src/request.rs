//! What a task asks for: the pure step from argument text or JSON body to a checked request.

use serde::Deserialize;
use warren_plugin::{Failure, Task, reject};

/// The longest order number or stock-keeping unit taken, in bytes: longer ones are a mistake, not a name.
const MAX_NAME: usize = 64;
/// The most lines one order may have; the follow-up tasks touch each line in one transaction.
const MAX_ITEMS: usize = 1000;
/// The largest amount, in minor units, and the largest stock change.
const MAX_NUMBER: i64 = 1_000_000_000;
/// The largest quantity of one line. With it the dearest order, [`MAX_ITEMS`] × this × [`MAX_NUMBER`] = 10^18, still
/// fits an `i64`.
const MAX_QUANTITY: i64 = 1_000_000;

/// Which of the three kinds of task this is; decided by the prefix that routed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Order,
    Payment,
    Inventory,
}

/// A checked request: every name and number in it is inside its bounds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Order(Order),
    Payment(Payment),
    Inventory(Inventory),
}

/// An order to enter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) number: String,
    /// Empty: one piece of the default item.
    pub(crate) items: Vec<Item>,
    pub(crate) currency: Option<String>,
}

/// One line of an order; `price` is for one piece, in the currency's minor unit.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Item {
    pub(crate) sku: String,
    #[serde(default = "one")]
    pub(crate) quantity: i64,
    pub(crate) price: Option<i64>,
}

/// A payment to enter; without an amount it is the order's total.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) number: String,
    pub(crate) amount: Option<i64>,
    pub(crate) currency: Option<String>,
}

/// A change of the stock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inventory {
    /// Compare every item's stock with the sum of its moves and correct it.
    Recount,
    /// Take an order's items out of the stock.
    Order(String),
    /// Goods came in (positive) or were lost (negative).
    Change { sku: String, by: i64 },
    /// Somebody counted the shelf: from now on it is this many.
    Count { sku: String, quantity: i64 },
}

impl Request {
    /// Reads a task of this kind. Everything malformed is a reject: it will not get better by waiting.
    pub(crate) fn parse(kind: Kind, task: &Task<'_>) -> Result<Request, Failure> {
        let json = is_json(task.content_type(), task.body());
        let argument = task.argument();
        match (kind, json) {
            (Kind::Order, true) => order(task.json()?, argument).map(Request::Order),
            (Kind::Payment, true) => payment(task.json()?, argument).map(Request::Payment),
            (Kind::Inventory, true) => inventory(task.json()?, argument).map(Request::Inventory),
            (kind, false) => text(kind, argument),
        }
    }

    /// The request in a few words. A task id that comes back with other words was given to two different tasks.
    pub(crate) fn summary(&self) -> String {
        match self {
            Request::Order(order) => format!("order {}", order.number),
            Request::Payment(payment) => format!("payment {}", payment.number),
            Request::Inventory(Inventory::Recount) => "recount".into(),
            Request::Inventory(Inventory::Order(number)) => format!("inventory {number}"),
            Request::Inventory(Inventory::Change { sku, by }) => format!("change {sku} by {by}"),
            Request::Inventory(Inventory::Count { sku, quantity }) => format!("count {sku} as {quantity}"),
        }
    }
}

/// Whether this text is fit to name an order or an item.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether this text is shaped like an ISO 4217 code.
pub(crate) fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase())
}

/// Whether this is a price or an amount that sums cannot overflow.
pub(crate) fn is_amount(number: i64) -> bool {
    (0..=MAX_NUMBER).contains(&number)
}

/// Whether this is a stock level or change that sums cannot overflow.
pub(crate) fn is_stock(number: i64) -> bool {
    (-MAX_NUMBER..=MAX_NUMBER).contains(&number)
}

/// An order number in JSON: producers write both `1001` and `"1001"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Integer(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OrderBody {
    order: Option<Number>,
    #[serde(default)]
    items: Vec<Item>,
    currency: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PaymentBody {
    order: Option<Number>,
    amount: Option<i64>,
    currency: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InventoryBody {
    order: Option<Number>,
    sku: Option<String>,
    change: Option<i64>,
    count: Option<i64>,
}

/// A body routed by the message's `type` is JSON when it says so or looks like an object. A text task cannot: its
/// body begins with the prefix that routed it.
fn is_json(content_type: &str, body: &[u8]) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || body.trim_ascii_start().first() == Some(&b'{')
}

fn text(kind: Kind, argument: &str) -> Result<Request, Failure> {
    let number = || number(None, argument);
    Ok(match kind {
        Kind::Order => Request::Order(Order { number: number()?, items: Vec::new(), currency: None }),
        Kind::Payment => Request::Payment(Payment { number: number()?, amount: None, currency: None }),
        Kind::Inventory if argument.is_empty() => Request::Inventory(Inventory::Recount),
        Kind::Inventory => Request::Inventory(Inventory::Order(number()?)),
    })
}

fn order(body: OrderBody, argument: &str) -> Result<Order, Failure> {
    let number = number(body.order, argument)?;
    if body.items.len() > MAX_ITEMS {
        return Err(reject(
            "bad-order",
            format!("{} items, and an order has at most {MAX_ITEMS}", body.items.len()),
        ));
    }
    for item in &body.items {
        sku(&item.sku)?;
        if !(1..=MAX_QUANTITY).contains(&item.quantity) {
            return Err(reject(
                "bad-order",
                format!("item {}: quantity {} is not 1 to {MAX_QUANTITY}", item.sku, item.quantity),
            ));
        }
        if let Some(price) = item.price.filter(|price| !is_amount(*price)) {
            return Err(reject(
                "bad-order",
                format!("item {}: price {price} is not 0 to {MAX_NUMBER} minor units", item.sku),
            ));
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    if let Some(twice) = body.items.iter().find(|item| !seen.insert(&item.sku)) {
        return Err(reject(
            "bad-order",
            format!("item {} is listed twice; add up its quantities", twice.sku),
        ));
    }
    Ok(Order { number, items: body.items, currency: currency(body.currency)? })
}

fn payment(body: PaymentBody, argument: &str) -> Result<Payment, Failure> {
    let number = number(body.order, argument)?;
    if let Some(amount) = body.amount.filter(|amount| !is_amount(*amount)) {
        return Err(reject("bad-payment", format!("amount {amount} is not 0 to {MAX_NUMBER} minor units")));
    }
    Ok(Payment { number, amount: body.amount, currency: currency(body.currency)? })
}

fn inventory(body: InventoryBody, argument: &str) -> Result<Inventory, Failure> {
    let in_range = |n: i64| {
        is_stock(n)
            .then_some(n)
            .ok_or_else(|| reject("bad-inventory", format!("{n} is not within ±{MAX_NUMBER}")))
    };
    match (body.sku, body.change, body.count) {
        (None, None, None) if body.order.is_none() && argument.is_empty() => Ok(Inventory::Recount),
        (None, None, None) => number(body.order, argument).map(Inventory::Order),
        (Some(name), Some(by), None) if body.order.is_none() => {
            Ok(Inventory::Change { sku: sku(&name)?, by: in_range(by)? })
        }
        (Some(name), None, Some(quantity)) if body.order.is_none() => {
            Ok(Inventory::Count { sku: sku(&name)?, quantity: in_range(quantity)? })
        }
        _ => Err(reject(
            "bad-inventory",
            r#"give {"order": …}, or {"sku": …, "change": …}, or {"sku": …, "count": …}, or nothing for a recount"#,
        )),
    }
}

/// The order number of the body or of the argument; where both are given they must agree.
fn number(body: Option<Number>, argument: &str) -> Result<String, Failure> {
    let body = body.map(|number| match number {
        Number::Integer(number) => number.to_string(),
        Number::Text(text) => text,
    });
    let strip = |text: &str| text.trim().strip_prefix('#').unwrap_or(text.trim()).to_owned();
    let argument = Some(strip(argument)).filter(|text| !text.is_empty());
    let body = body.as_deref().map(strip);
    if let (Some(a), Some(b)) = (&argument, &body)
        && a != b
    {
        return Err(reject(
            "bad-order-number",
            "the order in the body is another one than in the task's text",
        ));
    }
    let number = body.or(argument).ok_or_else(|| {
        reject(
            "no-order-number",
            "the task names no order: write \"#1001\" after the prefix, or \"order\" in JSON",
        )
    })?;
    if is_name(&number) {
        Ok(number)
    } else {
        Err(reject(
            "bad-order-number",
            format!("an order number is 1 to {MAX_NAME} of A-Z a-z 0-9 - _ . with an optional # before it"),
        ))
    }
}

fn sku(text: &str) -> Result<String, Failure> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(reject("bad-sku", format!("a sku is 1 to {MAX_NAME} of A-Z a-z 0-9 - _ .")))
    }
}

fn currency(code: Option<String>) -> Result<Option<String>, Failure> {
    match code {
        Some(code) if !is_currency(&code) => {
            Err(reject("bad-currency", "a currency is three capital letters, such as EUR"))
        }
        code => Ok(code),
    }
}

fn one() -> i64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        let failure = result.expect_err("refused");
        assert!(
            failure.is_reject(),
            "a malformed task does not get better by waiting: {}",
            failure.message()
        );
        failure.code().to_owned()
    }

    #[test]
    fn an_order_number_is_taken_with_or_without_its_hash() {
        for (argument, expected) in
            [("#1001", "1001"), ("1001", "1001"), (" #7 ", "7"), ("#A-7_b.c", "A-7_b.c")]
        {
            assert_eq!(number(None, argument).ok().as_deref(), Some(expected), "{argument:?}");
        }
    }

    #[test]
    fn malformed_numbers_are_rejected_with_the_reason() {
        let long = "9".repeat(MAX_NAME + 1);
        for (argument, expected) in [
            ("", "no-order-number"),
            ("#", "no-order-number"),
            ("#1001; drop table orders", "bad-order-number"),
            ("#10 01", "bad-order-number"),
            ("##1", "bad-order-number"),
            ("# 1", "bad-order-number"),
            ("#ü", "bad-order-number"),
            (long.as_str(), "bad-order-number"),
        ] {
            assert_eq!(code(number(None, argument)), expected, "{argument:?}");
        }
    }

    #[test]
    fn a_body_and_a_text_that_name_different_orders_are_refused() {
        assert_eq!(code(number(Some(Number::Integer(2)), "#1")), "bad-order-number");
        assert_eq!(number(Some(Number::Integer(1)), "#1").ok().as_deref(), Some("1"));
    }

    #[test]
    fn an_inventory_body_says_exactly_one_thing() {
        let read = |json: &str| inventory(serde_json::from_str(json).expect("test JSON"), "");
        assert_eq!(read("{}").ok(), Some(Inventory::Recount));
        assert_eq!(read(r#"{"order": 7}"#).ok(), Some(Inventory::Order("7".into())));
        assert_eq!(
            read(r#"{"sku": "a", "change": -3}"#).ok(),
            Some(Inventory::Change { sku: "a".into(), by: -3 })
        );
        assert_eq!(
            read(r#"{"sku": "a", "count": 9}"#).ok(),
            Some(Inventory::Count { sku: "a".into(), quantity: 9 })
        );
        for json in [
            r#"{"sku": "a"}"#,
            r#"{"change": 1}"#,
            r#"{"sku": "a", "change": 1, "count": 1}"#,
            r#"{"order": 7, "sku": "a", "count": 1}"#,
            r#"{"sku": "a", "change": 1000000001}"#,
        ] {
            assert_eq!(code(read(json)), "bad-inventory", "{json}");
        }
    }

    #[test]
    fn an_order_body_is_bounded_in_every_number() {
        let read = |json: &str| order(serde_json::from_str(json).expect("test JSON"), "#1");
        for json in [
            r#"{"items": [{"sku": "a", "quantity": 0}]}"#,
            r#"{"items": [{"sku": "a", "quantity": 1000000001}]}"#,
            r#"{"items": [{"sku": "a", "price": -1}]}"#,
            r#"{"items": [{"sku": "a"}, {"sku": "a"}]}"#,
        ] {
            assert_eq!(code(read(json)), "bad-order", "{json}");
        }
        assert_eq!(code(read(r#"{"items": [{"sku": "a b"}]}"#)), "bad-sku");
        assert_eq!(code(read(r#"{"currency": "euro"}"#)), "bad-currency");
        assert!(read(r#"{"items": [{"sku": "a"}], "currency": "EUR"}"#).is_ok());
    }

    #[test]
    fn json_is_told_by_its_type_or_its_first_byte() {
        assert!(is_json("application/json; charset=utf-8", b""));
        assert!(is_json("", b"  {\"order\": 1}"));
        assert!(!is_json("text/plain", b"Task 1: Process order #1001"));
    }
}
