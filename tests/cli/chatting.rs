//! The chat page of `serve` in a real browser: what a person does there, and that it is safe.

use serde_json::{Value, json};

use crate::{chromium::Browser, server::Server, skipped::skipped, speaking::talker};

/// The answers on the page, as they are seen.
fn answers(browser: &mut Browser) -> Vec<String> {
    let texts = browser.ask("[...document.querySelectorAll('.answer')].map(one => one.innerText)");
    serde_json::from_value(texts).unwrap()
}

fn set(browser: &mut Browser, field: &str, value: &str) {
    let value = json!(value);
    browser.ask(&format!(
        "document.getElementById('{field}').value = {value}"
    ));
}

fn say(browser: &mut Browser, text: &str) {
    set(browser, "text", text);
    browser.ask("document.getElementById('form').requestSubmit()");
}

/// Waits for the end of what is being said.
#[track_caller]
fn done(browser: &mut Browser) {
    browser.until(|browser, _| {
        let send = browser.ask("document.getElementById('send').textContent");
        (send == "Send").then_some(())
    });
}

fn click(browser: &mut Browser, name: &str) {
    browser.touch(&format!(
        "[...document.querySelectorAll('button')].filter(one => one.textContent === '{name}').at(-1).click()"
    ));
}

#[test]
fn a_person_talks_on_the_page_and_it_is_safe() {
    const EVIL: &str = "<img src=x onerror=owned=1>";
    let project = talker();
    let server = Server::start(&project, &["serve", "model", "@last/model", "--port", "0"]);
    let home = format!("http://{}", server.addr);
    let Some(mut browser) = Browser::start() else {
        skipped("no chromium answers here");
        return;
    };
    browser.resize(1_200, 800);
    browser.visit(&home, &home);
    browser.until(|browser, _| {
        let n = browser.ask("document.getElementById('model').options.length");
        (n == 2).then_some(())
    });
    for (field, value) in [("seed", "3"), ("max_tokens", "8"), ("temperature", "1.5")] {
        set(&mut browser, field, value);
    }
    say(&mut browser, EVIL);
    done(&mut browser);
    let first = answers(&mut browser);
    assert_eq!(first.len(), 1);
    assert_eq!(
        browser.ask("document.querySelector('.user').textContent"),
        EVIL
    );
    assert_eq!(browser.ask("window.owned === undefined"), true);
    assert_eq!(browser.ask("document.images.length"), 0);
    let tip = browser.ask("(() => { const token = document.querySelector('.token'); token.dispatchEvent(new PointerEvent('pointerover', { bubbles: true })); return document.getElementById('tip').textContent; })()");
    assert_eq!(tip.as_str().unwrap().matches(" %").count(), 5, "{tip}");

    click(&mut browser, "Retry");
    done(&mut browser);
    assert_eq!(answers(&mut browser), first, "the same seed says the same");

    browser.ask("document.getElementById('other').selectedIndex = 2");
    say(&mut browser, "and you ?");
    done(&mut browser);
    let both = answers(&mut browser);
    assert_eq!((both.len(), &both[0]), (3, &first[0]));
    let without_name = |text: &str| text.split_once('\n').map(|(_, said)| said.to_owned());
    assert_eq!(
        without_name(&both[1]),
        without_name(&both[2]),
        "one model under two names"
    );

    click(&mut browser, "Edit");
    let text = browser.ask("document.getElementById('text').value");
    assert_eq!((text, answers(&mut browser).len()), (json!("and you ?"), 1));

    set(&mut browser, "temperature", "-1");
    say(&mut browser, "hi");
    done(&mut browser);
    let failed: Value = browser.ask("document.querySelectorAll('.answer.failed').length");
    assert_eq!(failed, 2, "a refusal is shown");
    assert!(answers(&mut browser)[1].contains("`temperature` must be"));
    // Which the browser itself writes into its log.
    browser
        .complaints
        .retain(|text| !text.contains("400 (Bad Request)"));

    browser.prefer("dark");
    let dark = browser.ask("getComputedStyle(document.body).backgroundColor");
    browser.prefer("light");
    let light = browser.ask("getComputedStyle(document.body).backgroundColor");
    assert_ne!(dark, light);
    browser.resize(390, 800);
    browser.until(|browser, _| {
        let wider = browser.ask("document.documentElement.scrollWidth > innerWidth");
        (wider == false).then_some(())
    });
    assert_eq!(browser.complaints, Vec::<String>::new());
}

#[test]
fn a_page_whose_server_asks_for_a_key_says_so_and_talks_once_it_has_it() {
    let project = talker();
    let server = Server::start(
        &project,
        &["serve", "model", "--port", "0", "--api-key", "sesame"],
    );
    let home = format!("http://{}", server.addr);
    let Some(mut browser) = Browser::start() else {
        skipped("no chromium answers here");
        return;
    };
    browser.visit(&home, &home);
    browser.until(|browser, _| {
        let said = browser.ask("document.getElementById('talk').textContent");
        (said == "This server asks for a key: write it under Settings.").then_some(())
    });
    assert_eq!(browser.ask("document.querySelector('details').open"), true);
    say(&mut browser, "hi");
    assert!(answers(&mut browser).is_empty());
    assert_eq!(browser.ask("document.getElementById('text').value"), "hi");
    set(&mut browser, "key", "sesame");
    browser.ask("document.getElementById('key').onchange()");
    browser.until(|browser, _| {
        let n = browser.ask("document.getElementById('model').options.length");
        (n == 1).then_some(())
    });
    set(&mut browser, "max_tokens", "4");
    say(&mut browser, "hi");
    done(&mut browser);
    assert_eq!(answers(&mut browser).len(), 1);
}
