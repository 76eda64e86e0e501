//! Laws of declared settings and choices.

use serde_json::{Value, json};

use crate::{Choice, Settings, Shape, choices, defaults, plain, settings, with_defaults};

choices! {
    /// How documents are compared.
    enum Method {
        Exact = "exact",
        MinHash = "minhash",
    }
}

settings! {
    /// The inner settings.
    struct Inner {
        /// A bound.
        #[range(above 0.0, 1.0)]
        pub bound: f64 = 0.5,
        /// Things.
        #[range(1)]
        pub n: Option<u16> = None,
    }
}

settings! {
    /// The outer settings.
    #[exclusive("a", "b")]
    struct Outer {
        /// How
        /// it works.
        pub method: Method = Method::Exact,
        /// One.
        pub a: Option<usize> = None,
        /// Other.
        pub b: Option<usize> = None => neutral None,
        /// Nested.
        pub inner: Inner = defaults(),
        /// Must be given.
        pub name: String,
    }
}

#[test]
fn spelling_out_a_default_changes_nothing() {
    let short = with_defaults(&Outer::list(), &json!({"name": "x", "inner": {}}));
    let long = with_defaults(
        &Outer::list(),
        &json!({"inner": {"bound": 0.5, "n": null}, "method": "exact", "name": "x", "a": null, "b": null}),
    );
    let without_group = with_defaults(&Outer::list(), &json!({"name": "x"}));
    assert_eq!(short, long);
    assert_eq!(short, without_group);
    let typed: Outer = serde_json::from_value(short.clone()).unwrap();
    assert_eq!(plain(&typed), short);
}

#[test]
fn what_has_no_default_is_left_for_typing_to_miss() {
    let filled = with_defaults(&Outer::list(), &json!({}));
    assert!(serde_json::from_value::<Outer>(filled).is_err());
}

#[test]
fn the_declaration_is_the_documentation() {
    let list = Outer::list();
    assert_eq!(list[0].about, "How it works.");
    assert!(matches!(&list[0].shape, Shape::Choice(words, _) if words == &["exact", "minhash"]));
    assert_eq!(list[2].neutral, Some(Value::Null));
    assert_eq!(Outer::EXCLUSIVE, &[&["a", "b"]]);
}

#[test]
fn a_range_is_part_of_the_shape() {
    let range = |idx: usize| match Inner::list()[idx].shape {
        Shape::Number(numbers) => numbers.range,
        _ => panic!("it is a number"),
    };
    let bound = range(0);
    assert_eq!(bound.to_string(), "above 0 and at most 1");
    let held = [0.0, 0.01, 1.0, 1.01, f64::NAN].map(|number| bound.holds(number));
    assert_eq!(held, [false, true, true, false, false]);
    // A lower bound by itself leaves the upper one open.
    assert_eq!(range(1).to_string(), "at least 1");
}

#[test]
fn a_choice_is_its_word() {
    assert_eq!(Method::ALL, [Method::Exact, Method::MinHash]);
    for method in Method::ALL {
        assert_eq!(plain(method), method.word());
        assert_eq!(Method::of_word(method.word()), Some(*method));
    }
    assert_eq!(Method::of_word("MinHash"), None);
}
