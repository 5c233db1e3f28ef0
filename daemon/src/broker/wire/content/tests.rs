use lapin::protocol::basic::{AMQPProperties, parse_properties};
use lapin::types::{AMQPValue, ShortString};
use proptest::prelude::*;

use super::*;

const FRAME_MAX: usize = 4096;

fn string(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn payload(flags: u16, values: &[u8]) -> Vec<u8> {
    [&[0, 60, 0, 0][..], &9_u64.to_be_bytes(), &flags.to_be_bytes(), values].concat()
}

fn with_headers(table: &[u8]) -> Vec<u8> {
    payload(0x2000, &long(table))
}

/// As lapin reads it; `None`: it ends the connection.
fn read(payload: &[u8]) -> Option<AMQPProperties> {
    parse_properties(&payload[HEAD..]).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, read)| read)
}

fn repaired(payload: &[u8]) -> (AMQPProperties, Alteration) {
    assert_eq!(read(payload), None, "lapin reads it as it is");
    let (new, alteration) = repair(payload, FRAME_MAX).expect("a change");
    assert_eq!(body_size(&new), Some(9));
    (read(&new).expect("lapin reads it"), alteration)
}

fn depth(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::FieldArray(items) => 1 + items.as_slice().iter().map(depth).max().unwrap_or(0),
        AMQPValue::FieldTable(table) => {
            1 + table.into_iter().map(|(_, value)| depth(value)).max().unwrap_or(0)
        }
        _ => 0,
    }
}

#[test]
fn every_short_string_property_may_hold_any_bytes() {
    for (index, (name, kind)) in PROPERTIES.iter().enumerate() {
        if *kind != Kind::ShortString {
            continue;
        }
        // What `uuid.bytes` gives in pika.
        let id = [0x9f, 0xe2, 0, 0x41, 0xff, 0x80, 0xc3, 0x28, 1, 2, 3, 4, 5, 6, 7, 8];
        let (read, alteration) = repaired(&payload(1 << (15 - index), &string(&id)));
        assert!(format!("{read:?}").contains("\\u{9f}\u{e2}"), "{name}: {read:?}");
        assert_eq!(
            alteration.description,
            format!("{name} was not UTF-8 (hex 9fe20041ff80c3280102030405060708)")
        );
        assert!(!alteration.lossy, "{name}");
    }
}

#[test]
fn a_header_name_at_any_depth_may_hold_any_bytes() {
    let inner = [string(b"caf\xe9"), b"t\x01".to_vec()].concat();
    let table = [string(b"outer"), b"F".to_vec(), long(&inner), string(b"\xff"), b"V".to_vec()].concat();
    let (read, alteration) = repaired(&with_headers(&table));
    let headers = read.headers().clone().expect("headers");
    assert_eq!(headers.inner().len(), 2);
    let AMQPValue::FieldTable(outer) = &headers.inner()["outer"] else { panic!("{headers:?}") };
    assert_eq!(outer.inner()["caf\u{e9}"], AMQPValue::Boolean(true));
    assert_eq!(
        alteration.description,
        "a header's name was not UTF-8 (hex 636166e9); a header's name was not UTF-8 (hex ff)"
    );
    assert!(!alteration.lossy);
}

#[test]
fn nesting_deeper_than_the_bound_becomes_bytes() {
    let nested = |depth: usize| {
        let mut value = b"V".to_vec();
        for _ in 0..depth {
            value = [b"A".to_vec(), long(&value)].concat();
        }
        with_headers(&[string(b"deep"), value].concat())
    };
    assert_eq!(repair(&nested(MAX_DEPTH), FRAME_MAX), None);
    for levels in [MAX_DEPTH + 1, 500] {
        let (new, alteration) = repair(&nested(levels), FRAME_MAX).expect("a change");
        let read = read(&new).expect("lapin reads it");
        assert_eq!(depth(&read.headers().as_ref().expect("headers").inner()["deep"]), MAX_DEPTH);
        assert_eq!(alteration.description, "headers nested deeper than 64 levels became bytes");
        assert!(!alteration.lossy);
        assert_eq!(new.len(), nested(levels).len());
    }
}

#[test]
fn what_cannot_be_read_is_left_out_and_the_rest_is_kept() {
    let unknown = [string(b"good"), b"t\x01".to_vec(), string(b"bad"), b"Zxxx".to_vec()].concat();
    let (read, alteration) = repaired(&with_headers(&unknown));
    assert_eq!(read.headers().as_ref().expect("headers").inner().len(), 1);
    assert_eq!(alteration.description, "8 bytes of headers cannot be read and were left out");
    assert!(alteration.lossy);

    // content_type and a priority that is not there.
    let (read, alteration) = repaired(&payload(0x8800, &string(b"text/plain")));
    assert_eq!(read.content_type().as_ref().map(ShortString::as_str), Some("text/plain"));
    assert_eq!(alteration.description, "the properties from priority on cannot be read and were left out");
    assert!(alteration.lossy);

    let (_, alteration) = repaired(&payload(0, b"abc"));
    assert_eq!(alteration.description, "3 bytes behind the last property were left out");
    assert!(alteration.lossy);
}

#[test]
fn headers_that_do_not_fit_into_a_frame_are_left_out_largest_first_and_warrens_own_last() {
    let header =
        |name: &str, len: usize| [string(name.as_bytes()), b"S".to_vec(), long(&vec![b'a'; len])].concat();
    let table =
        [header("small", 10), header("x-warren-error", 1500), header("large", 3000), header("x-death", 1000)];
    let (new, alteration) = repair(&with_headers(&table.concat()), FRAME_MAX).expect("a change");
    assert!(new.len() + FRAME_OVERHEAD <= FRAME_MAX);
    let kept = read(&new).expect("lapin reads it").headers().clone().expect("headers");
    let names: Vec<&str> = kept.inner().keys().map(ShortString::as_str).collect();
    assert_eq!(names, ["small", "x-warren-error"]);
    assert_eq!(
        alteration.description,
        "header x-death of 1013 bytes was left out: the headers do not fit into a frame; \
         header large of 3011 bytes was left out: the headers do not fit into a frame"
    );
    assert!(alteration.lossy);

    let table = [header("large", 3900), header("x-death", 300)];
    let (_, alteration) = repair(&with_headers(&table.concat()), FRAME_MAX).expect("a change");
    assert!(!alteration.lossy, "the broker's record is nothing that its producer sent: {alteration:?}");
}

#[test]
fn a_hundred_thousand_small_headers_are_fitted_in_linear_time() {
    let header = [string(b"n"), b"V".to_vec()].concat().repeat(100_000);
    let (new, _) = repair(&with_headers(&header), FRAME_MAX).expect("a change");
    assert!(new.len() + FRAME_OVERHEAD <= FRAME_MAX);
}

/// A value of every type, nested, with names of any bytes.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![any::<[u8; 3]>().prop_map(|name| string(&name)), Just(string(b"name"))];
    let fixed = (prop::sample::select(b"VtbBsUuIifDLldTZ".to_vec()), any::<[u8; 8]>())
        .prop_map(|(tag, bytes)| [&[tag][..], &bytes[..size_of(tag).unwrap_or(0)]].concat());
    let text = (prop::sample::select(b"Sx".to_vec()), prop::collection::vec(any::<u8>(), 0..40))
        .prop_map(|(tag, bytes)| [vec![tag], long(&bytes)].concat());
    prop_oneof![fixed, text].prop_recursive(6, 64, 5, move |inner| {
        let array = prop::collection::vec(inner.clone(), 0..5)
            .prop_map(|items| [b"A".to_vec(), long(&items.concat())].concat());
        let table = prop::collection::vec((name.clone(), inner), 0..5).prop_map(|fields| {
            [
                b"F".to_vec(),
                long(
                    &fields.into_iter().flat_map(|(name, value)| [name, value]).collect::<Vec<_>>().concat(),
                ),
            ]
            .concat()
        });
        prop_oneof![array, table]
    })
}

/// A payload, whole or with bytes of it changed, added or cut off.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let field = (any::<[u8; 2]>(), value());
    (any::<u16>(), prop::collection::vec(field, 0..6), prop::collection::vec(any::<u8>(), 0..20))
        .prop_flat_map(|(flags, fields, text)| {
            let table: Vec<u8> =
                fields.into_iter().flat_map(|(name, value)| [string(&name), value].concat()).collect();
            let mut values = Vec::new();
            for (index, (_, kind)) in PROPERTIES.iter().enumerate() {
                if flags & (1 << (15 - index)) != 0 {
                    values.extend(match kind {
                        Kind::ShortString => string(&text),
                        Kind::Octet => vec![2],
                        Kind::Timestamp => vec![0; 8],
                        Kind::Table => long(&table),
                    });
                }
            }
            let whole = payload(flags, &values);
            let changes = prop::collection::vec((HEAD..whole.len(), any::<u8>()), 0..3);
            (Just(whole), changes, any::<prop::sample::Index>(), any::<bool>())
        })
        .prop_map(|(mut whole, changes, cut, cuts)| {
            for (at, byte) in changes {
                whole[at] = byte;
            }
            if cuts {
                let len = whole.len();
                whole.truncate(HEAD + 2 + cut.index(len - HEAD - 1));
            }
            whole
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn lapin_reads_every_payload_afterwards(payload in any_payload()) {
        let before = read(&payload);
        match repair(&payload, FRAME_MAX) {
            None => prop_assert!(before.is_some() && payload.len() + FRAME_OVERHEAD <= FRAME_MAX),
            Some((new, alteration)) => {
                prop_assert!(before.is_none() || payload.len() + FRAME_OVERHEAD > FRAME_MAX, "a needless change");
                prop_assert!(read(&new).is_some(), "{new:?}");
                prop_assert!(new.len() + FRAME_OVERHEAD <= FRAME_MAX.max(13 * 256));
                prop_assert!(!alteration.description.is_empty());
                prop_assert_eq!(repair(&new, FRAME_MAX), None);
            }
        }
    }
}
