//! A copy always fits: exact sizes, and what is left out of one that would be too large.

use super::*;

/// The library's own encoder.
fn encoded(properties: &BasicProperties) -> usize {
    let mut buffer = vec![0; 1 << 20];
    let encoded =
        lapin::protocol::basic::gen_properties(properties)(std::io::Cursor::new(&mut buffer[..]).into());
    usize::try_from(encoded.expect("room for it").position).expect("in memory")
}

fn any_value() -> impl Strategy<Value = AMQPValue> {
    let scalar = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f32>().prop_map(AMQPValue::Float),
        any::<f64>().prop_map(AMQPValue::Double),
        (any::<u8>(), any::<u32>())
            .prop_map(|(scale, value)| AMQPValue::DecimalValue(lapin::types::DecimalValue { scale, value })),
        "\\PC{0,60}".prop_map(|text| AMQPValue::ShortString(text.as_str().into())),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| AMQPValue::LongString(bytes.into())),
        prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        Just(AMQPValue::Void),
    ];
    scalar.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(|items| AMQPValue::FieldArray(items.into())),
            prop::collection::btree_map("\\PC{0,20}", inner, 0..6).prop_map(|fields| {
                let mut table = FieldTable::default();
                for (name, value) in fields {
                    table.insert(name.as_str().into(), value);
                }
                AMQPValue::FieldTable(table)
            }),
        ]
    })
}

prop_compose! {
    /// Any properties that a producer can send, with headers of ours among them.
    fn any_properties()(
        texts in prop::collection::vec(prop::option::of("\\PC{0,63}"), 9),
        numbers in (any::<Option<u8>>(), any::<Option<u8>>(), any::<Option<u64>>()),
        headers in prop::option::of(prop::collection::btree_map("(x-warren-[a-z-]{1,20}|[a-z]{1,60})", any_value(), 0..20)),
    ) -> BasicProperties {
        let mut properties = BasicProperties::default();
        let mut texts = texts.into_iter().map(|text| text.map(|text| ShortString::from(text.as_str())));
        macro_rules! set {
            ($($setter:ident),*) => {
                $(if let Some(Some(text)) = texts.next() { properties = properties.$setter(text); })*
            };
        }
        set!(with_content_type, with_content_encoding, with_correlation_id, with_reply_to, with_expiration);
        set!(with_message_id, with_type, with_app_id, with_cluster_id);
        if let (Some(mode), Some(priority), Some(timestamp)) = numbers {
            properties = properties.with_delivery_mode(mode).with_priority(priority).with_timestamp(timestamp);
        }
        if let Some(headers) = headers {
            let mut table = FieldTable::default();
            for (name, value) in headers {
                table.insert(name.as_str().into(), value);
            }
            properties = properties.with_headers(table);
        }
        properties
    }
}

/// What the smallest frame has room for, on the way to a queue with the longest name.
const SMALLEST: usize = 4096 - 20 - 512 - 4 * 255;

proptest! {
    #[test]
    fn a_size_is_what_the_library_writes(properties in any_properties()) {
        prop_assert_eq!(encoded_len(&properties), encoded(&properties));
    }

    #[test]
    fn there_is_no_task_for_which_no_copy_can_be_made(original in any_properties(), limit in SMALLEST..20_000_usize) {
        let id = TaskId { text: "i".repeat(255).into(), generated: true };
        let message = "e".repeat(2 * MAX_TEXT_BYTES);
        let failure = Failure { handler: &message, code: &message, message: &message };
        let queue = "q".repeat(230);
        let dead_copy = DeadCopy { reason: DeadReason::Attempts, attempt: 5, redeliveries: 9, id: &id, failure };
        let again = RetryCopy { redeliveries: 9, ..copy(&id, Some(failure)) };
        for copy in [dead(seen(&original), &queue, &dead_copy, NOW), retry(seen(&original), &queue, &again, NOW)] {
            let fitted = fit(copy.clone(), limit);
            prop_assert!(encoded(&fitted) <= limit, "{} > {limit}", encoded(&fitted));
            prop_assert_eq!(fitted.kind(), copy.kind());
            prop_assert_eq!(fitted.reply_to(), copy.reply_to());
            prop_assert_eq!(identified(&fitted), identified(&copy));
            prop_assert_eq!(header(&fitted, HEADER_REASON), header(&copy, HEADER_REASON));
            if encoded(&copy) <= limit {
                prop_assert_eq!(fitted, copy);
            }
        }
    }
}

#[test]
fn what_does_not_fit_loses_the_producers_headers_the_largest_first_and_says_which() {
    let sized = |bytes: usize| text(&"x".repeat(bytes));
    let original = with_headers(&[
        ("big", sized(900)),
        ("bigger", sized(1_000)),
        ("biggest", sized(1_100)),
        ("small", sized(9)),
    ]);
    let id = given("o-1");
    let whole = retry(seen(&original), "tasks", &copy(&id, FAILED), NOW);
    let len = encoded_len(&whole);
    assert_eq!(fit(whole.clone(), len), whole, "to the byte");
    let dropped = |properties: &BasicProperties| own::note(properties, HEADER_DROPPED);
    let one = fit(whole.clone(), len - 1);
    assert_eq!(dropped(&one).as_deref(), Some("biggest"));
    assert!(header(&one, "bigger").is_some() && header(&one, HEADER_ERROR).is_some());
    // The next copy says it on, and adds what it lost itself; so does a replay.
    let next = retry(seen(&one), "tasks", &copy(&id, FAILED), NOW);
    assert_eq!(dropped(&next).as_deref(), Some("biggest"));
    let two = fit(next, encoded_len(&one) - 1);
    assert_eq!(dropped(&two).as_deref(), Some("biggest, bigger"));
    assert_eq!(dropped(&replay(&two)), dropped(&two));
    let bare = bare(two);
    assert_eq!(dropped(&bare).as_deref(), Some("biggest, bigger, big, small"));
    assert!(names(&bare).iter().all(|name| own::is_own(name)));
    // A handler is told.
    let told = crate::task::Headers::of(bare.headers().as_ref()).fields;
    assert_eq!(told, [(HEADER_DROPPED.to_owned(), "biggest, bigger, big, small".to_owned())]);
}

#[test]
fn so_many_headers_that_their_names_have_no_room_are_counted() {
    let names: Vec<String> = (0..9_900).map(|n| format!("h{n:05}")).collect();
    let fields: Vec<(&str, AMQPValue)> = names.iter().map(|name| (name.as_str(), AMQPValue::Void)).collect();
    let whole = with_headers(&fields);
    assert_eq!(encoded_len(&whole), 2 + 4 + 9_900 * 8);
    let fitted = fit(whole, 4_000);
    let note = own::note(&fitted, HEADER_DROPPED).expect("a note");
    assert!(
        encoded_len(&fitted) <= 4_000 && note.len() <= MAX_TEXT_BYTES,
        "{} {}",
        encoded_len(&fitted),
        note.len()
    );
    let kept = fitted.headers().as_ref().map_or(0, |table| table.inner().len()) - 1;
    let (named, more) = note.rsplit_once(" and ").expect("more than there is room for");
    let more: usize = more.strip_suffix(" more").and_then(|more| more.parse().ok()).expect("a number");
    assert_eq!(named.split(", ").count() + more + kept, 9_900);
}
