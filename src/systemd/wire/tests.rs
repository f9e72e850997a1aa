use proptest::prelude::*;

use super::*;

fn call(signature: &str, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let call = Call { destination: Some("d.e"), path: "/p", interface: "i.f", member: "M", signature };
    call.message(7, body)
}

/// A message as systemd or a bus would send it.
fn message(kind: u8, big: bool, fields: &[(u8, &str, &str)], signature: &str, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer(vec![b'l', kind, 0, VERSION]);
    writer.u32(body.len() as u32);
    writer.u32(9);
    writer.array(8, |to| {
        for (number, kind, text) in fields {
            to.align(8);
            to.0.push(*number);
            to.signature(kind);
            match *kind {
                "u" => to.u32(text.parse().unwrap()),
                _ => to.text(text),
            }
        }
        if !signature.is_empty() {
            to.align(8);
            to.0.push(SIGNATURE);
            to.signature("g");
            to.signature(signature);
        }
    });
    writer.align(8);
    writer.0.extend(body);
    assert!(!big, "written by hand below");
    writer.0
}

fn body(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    fill(&mut writer);
    writer.0
}

#[test]
fn a_call_as_the_specification_has_it() {
    let message = call("su", |body| {
        body.text("ab");
        body.u32(5);
    });
    #[rustfmt::skip]
    let want: &[u8] = &[
        b'l', 1, 0, 1, 12, 0, 0, 0, 7, 0, 0, 0, 72, 0, 0, 0,
        1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'p', 0, 0, 0, 0, 0, 0,
        2, 1, b's', 0, 3, 0, 0, 0, b'i', b'.', b'f', 0, 0, 0, 0, 0,
        3, 1, b's', 0, 1, 0, 0, 0, b'M', 0, 0, 0, 0, 0, 0, 0,
        6, 1, b's', 0, 3, 0, 0, 0, b'd', b'.', b'e', 0, 0, 0, 0, 0,
        8, 1, b'g', 0, 2, b's', b'u', 0,
        2, 0, 0, 0, b'a', b'b', 0, 0, 5, 0, 0, 0,
    ];
    assert_eq!(message, want);
    assert_eq!(length(&message).unwrap(), Some(message.len()));
}

#[test]
fn properties_of_every_kind() {
    for (value, signature, bytes) in [
        (Value::text("x"), "s", vec![1, 0, 0, 0, b'x', 0]),
        (Value::Bool(true), "b", vec![1, 0, 0, 0]),
        (Value::Byte(7), "y", vec![7]),
        (Value::I16(-2), "n", vec![0xfe, 0xff]),
        (Value::U16(2), "q", vec![2, 0]),
        (Value::I32(-1), "i", vec![0xff; 4]),
        (Value::U32(3), "u", vec![3, 0, 0, 0]),
        (Value::I64(-1), "x", vec![0xff; 8]),
        (Value::U64(u64::MAX), "t", vec![0xff; 8]),
        (Value::Double(1.0), "d", vec![0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
        (Value::Bytes(vec![1, 2]), "ay", vec![2, 0, 0, 0, 1, 2]),
        (Value::texts(["a", "b"]), "as", vec![14, 0, 0, 0, 1, 0, 0, 0, b'a', 0, 0, 0, 1, 0, 0, 0, b'b', 0]),
        (Value::List("u", vec![Value::U32(9)]), "au", vec![4, 0, 0, 0, 9, 0, 0, 0]),
        (
            Value::List("(st)", vec![Value::Pair("a".into(), Box::new(Value::U64(2)))]),
            "a(st)",
            vec![16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'a', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        ),
    ] {
        assert_eq!(value.signature(), signature);
        assert_eq!(body(|to| to.value(&value)), bytes, "{value:?}");
    }
    // the length of an array leaves the padding before its first element out
    let one = body(|to| to.properties(&[("P".into(), Value::Bool(true))]));
    assert_eq!(one[..8], [16, 0, 0, 0, 0, 0, 0, 0], "{one:?}");
    assert_eq!(one[8..], [1, 0, 0, 0, b'P', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn what_is_heard() {
    let text = |text: &str| body(|to| to.text(text));
    let variant = body(|to| to.variant(&Value::text("252.1")));
    let job = body(|to| {
        to.u32(17);
        ["/job/17", "c1.scope", "done"].into_iter().for_each(|word| to.text(word));
    });
    let reply = (REPLY_SERIAL, "u", "7");
    let name = (ERROR_NAME, "s", "a.b.NoSuchUnit");
    let answer = |text: Option<&str>| Heard::Answer { to: 7, text: text.map(String::from) };
    let removed = Heard::JobRemoved { job: "/job/17".into(), result: "done".into() };
    let refusal = |text: &str| Heard::Refusal { to: 7, name: "a.b.NoSuchUnit".into(), text: text.into() };
    let member = (MEMBER, "s", "JobRemoved");
    for (bytes, want) in [
        (message(METHOD_RETURN, false, &[reply], "", &[]), answer(None)),
        (message(METHOD_RETURN, false, &[(7, "s", ":1.5"), reply], "o", &text("/job/1")), answer(Some("/job/1"))),
        (message(METHOD_RETURN, false, &[reply], "v", &variant), answer(Some("252.1"))),
        (message(METHOD_RETURN, false, &[reply], "u", &[1, 0, 0, 0]), answer(None)),
        (message(METHOD_RETURN, false, &[], "", &[]), Heard::Other),
        (message(ERROR, false, &[name, reply], "s", &text("no")), refusal("no")),
        (message(ERROR, false, &[name, reply], "", &[]), refusal("")),
        (message(SIGNAL, false, &[(PATH, "o", "/x"), member], "uoss", &job), removed),
        (message(SIGNAL, false, &[member], "uos", &job), Heard::Other),
        (message(SIGNAL, false, &[(MEMBER, "s", "JobNew")], "uoss", &job), Heard::Other),
        (message(0, false, &[reply], "", &[]), Heard::Other),
        (call("", |_| ()), Heard::Other),
    ] {
        assert_eq!(length(&bytes).unwrap(), Some(bytes.len()));
        assert_eq!(parse(&bytes).unwrap(), want);
    }
}

#[test]
fn the_other_order_of_bytes() {
    #[rustfmt::skip]
    let bytes = [
        b'B', 2, 0, 1, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 16,
        5, 1, b'u', 0, 0, 0, 0, 7, 8, 1, b'g', 0, 1, b's', 0, 0,
        0, 0, 0, 1, b'x', 0,
    ];
    // of the fields 15 bytes count: the last one is padding
    let bytes = [&bytes[..15], &[15], &bytes[16..]].concat();
    assert_eq!(length(&bytes).unwrap(), Some(bytes.len()));
    assert_eq!(parse(&bytes).unwrap(), Heard::Answer { to: 7, text: Some("x".into()) });
}

#[test]
fn what_is_no_message() {
    let good = message(METHOD_RETURN, false, &[(REPLY_SERIAL, "u", "7")], "s", &body(|to| to.text("x")));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    assert_eq!(length(&good[..15]).unwrap(), None, "too short to tell");
    for (bytes, says) in [
        (with(0, b'x'), "does not speak D-Bus"),
        (with(3, 2), "speaks version 2"),
        (with(7, 1), "says more at once"),
        (with(15, 1), "says more at once"),
    ] {
        assert!(length(&bytes).unwrap_err().to_string().contains(says), "{says}");
    }
    for (bytes, says) in [
        (with(12, 200), "ends too early"),
        (good[..good.len() - 1].to_vec(), "ends too early"),
        (with(18, b'a'), "a header that D-Bus does not have"),
        (with(good.len() - 1, 1), "a text without its end"),
    ] {
        assert!(parse(&bytes).unwrap_err().to_string().contains(says), "{says}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let text = "[a-z/:.\\-é]{0,12}";
    prop_oneof![
        text.prop_map(Value::Text),
        any::<bool>().prop_map(Value::Bool),
        any::<u64>().prop_map(Value::U64),
        any::<i32>().prop_map(Value::I32),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        proptest::collection::vec(text, 0..4).prop_map(Value::texts),
    ]
}

proptest! {
    /// What comes is anything.
    #[test]
    fn nothing_that_comes_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = length(&bytes);
        if bytes.len() >= PRELUDE {
            let _ = parse(&bytes);
        }
    }

    /// Or nearly right.
    #[test]
    fn nor_does_a_message_with_wrong_bytes(changes in proptest::collection::vec((0usize..200, any::<u8>()), 1..6), cut in 16usize..200) {
        let fields = [(REPLY_SERIAL, "u", "7"), (ERROR_NAME, "s", "a.b"), (MEMBER, "s", "JobRemoved")];
        let content = body(|to| {
            to.u32(1);
            ["/job/1", "u", "done"].into_iter().for_each(|word| to.text(word));
        });
        let mut bytes = message(SIGNAL, false, &fields, "uoss", &content);
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(cut.max(PRELUDE));
        let _ = length(&bytes);
        let _ = parse(&bytes);
    }

    /// The length that is told is the length that was written, and alignment holds for whatever comes before.
    #[test]
    fn what_is_written_has_the_length_it_tells(values in proptest::collection::vec(("[A-Za-z]{1,9}", value()), 0..6), name in "[a-z.]{1,20}") {
        let message = call("sa(sv)", |body| {
            body.text(&name);
            body.properties(&values);
        });
        prop_assert_eq!(length(&message).unwrap(), Some(message.len()));
        prop_assert_eq!(parse(&message).unwrap(), Heard::Other);
    }
}
