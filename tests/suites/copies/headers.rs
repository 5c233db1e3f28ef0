//! Our own headers from any producer, of any type: read for what they plainly mean, or a dead letter that says why not.

use std::time::Instant;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, DecimalValue};
use warren_tests::{Daemon, Home, Keys, Node};

use super::stage::{Stage, now_ms, text};

#[test]
fn a_due_time_of_any_type_is_waited_for() {
    let stage = Stage::new(Node::shared(), "headers_due", "workers = 4", "");
    let daemon = Daemon::start(&stage.home);
    let since = Instant::now();
    // The next but one whole second, for those types that have nothing smaller.
    let due = (now_ms() / 1000 + 2) * 1000;
    let left = due - now_ms();
    let table = [
        ("integer", AMQPValue::LongLongInt(due.cast_signed())),
        ("double", AMQPValue::Double(due as f64 - 0.5)),
        ("timestamp", AMQPValue::Timestamp(due / 1000)),
        ("text", text(&due.to_string())),
        ("text-with-fraction", text(&format!("{}.5", due - 1))),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(due.to_string().into_bytes()))),
    ];
    for (id, value) in &table {
        stage.publish(id, &[("x-warren-due", value.clone())], "Scenario ok");
    }
    stage.home.wait_ends(1);
    assert!(since.elapsed().as_millis() >= u128::from(left) - 1, "{:?} of {left} ms", since.elapsed());
    daemon.wait_count("done", table.len() as u64);
    assert_eq!(daemon.counts()["dead"], 0);
}

#[test]
fn what_cannot_be_meant_is_a_dead_letter_that_names_header_value_and_what_is_expected() {
    let stage = Stage::new(Node::shared(), "headers_malformed", "workers = 2", "");
    stage.broker.declare("headers_malformed.replies", &[]);
    let daemon = Daemon::start(&stage.home);
    let soon = now_ms() + 60_000;
    let table = [
        ("micro", "x-warren-due", AMQPValue::LongLongInt((soon * 1_000).cast_signed()), "microseconds"),
        ("nano", "x-warren-due", AMQPValue::LongLongInt((soon * 1_000_000).cast_signed()), "nanoseconds"),
        ("seconds", "x-warren-due", AMQPValue::LongInt((soon / 1000) as i32), "looks like seconds"),
        ("end", "x-warren-due", AMQPValue::LongLongInt(i64::MAX), "ten years"),
        // RabbitMQ itself refuses what is no number.
        ("huge", "x-warren-due", AMQPValue::Double(f64::MAX), "ten years"),
        ("before", "x-warren-due", AMQPValue::LongLongInt(-1), "before 1970"),
        ("words", "x-warren-due", text("tomorrow"), "tomorrow"),
        ("deadline", "x-warren-deadline", AMQPValue::Boolean(true), "true (Boolean)"),
        ("attempt", "x-warren-attempt", text("second"), "whole number"),
        ("redeliveries", "x-warren-redeliveries", AMQPValue::LongInt(-1), "negative"),
    ];
    for (id, name, value, _) in &table {
        let properties = BasicProperties::default().with_reply_to("headers_malformed.replies".into());
        stage.publish_as(properties, id, &[(name, value.clone()), ("tenant", text("acme"))], "Scenario ok");
    }
    daemon.wait_count("dead", table.len() as u64);
    for (id, name, _, part) in &table {
        let letter = stage.letter(id);
        let error = letter["error"].as_str().expect("an error");
        assert_eq!(letter["reason"], "malformed", "{id}");
        assert!(
            error.contains(name) && error.contains(part) && error.contains("expected is"),
            "{id}: {error}"
        );
        assert_eq!(letter["headers"]["tenant"], "acme");
    }
    assert_eq!(
        stage.broker.take("headers_malformed.replies").header("x-warren-outcome").as_deref(),
        Some("malformed")
    );
    assert!(stage.home.record().is_empty(), "none ran");
}

#[test]
fn negative_decimals_and_floats_reach_handlers_and_people_as_they_were_sent() {
    let node = Node::shared();
    let home = Home::new(&node.uri(), "headers_decimal");
    home.install("exec");
    let rest = "[handlers.exec]\nplugin = \"exec\"\nprefixes = [\"Show\"]\n\
                settings = { command = [\"/bin/sh\", \"-c\", \"echo $WARREN_TASK_HEADER_PRICE $WARREN_TASK_HEADER_RATIO\"] }\n";
    home.configure(Keys { rest, ..Keys::default() });
    let stage = Stage { broker: warren_tests::Broker::connect(&node.uri()), home };
    stage.broker.declare(stage.home.queue(), &[]);
    stage.broker.declare("headers_decimal.replies", &[]);
    let _daemon = Daemon::start(&stage.home);
    let price = DecimalValue { scale: 1, value: (-15_i32).cast_unsigned() };
    let fields = [("price", AMQPValue::DecimalValue(price)), ("ratio", AMQPValue::Float(0.1))];
    let properties = BasicProperties::default().with_reply_to("headers_decimal.replies".into());
    stage.publish_as(properties, "shown", &fields, "Show");
    assert_eq!(stage.broker.take("headers_decimal.replies").text.trim(), "-1.5 0.1");
    stage.publish("dead", &fields, "Nobody takes this");
    let letter = stage.letter("dead");
    assert_eq!((&letter["headers"]["price"], &letter["headers"]["ratio"]), (&(-1.5).into(), &0.1.into()));
}
