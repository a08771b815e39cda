//! The console in a real browser, against the sandbox.

use crate::sandbox::Sandbox;

mod browser;

use browser::{Browser, Look};

fn signed_in(sandbox: &Sandbox, look: Look) -> Browser {
    let browser = Browser::start(sandbox.ready["url"].as_str().unwrap(), look);
    browser.go("/");
    browser.write("[name=login]", "admin");
    browser.write("[name=password]", "sandbox sandbox");
    browser.press("Sign in");
    browser.wait_for_text("What needs a person now");
    browser
}

#[test]
fn a_locked_device_is_found_and_unlocked() {
    let sandbox = Sandbox::start();
    let serial = sandbox.device_that_is("locked by its user");
    sandbox.wait_for_codes(&serial, 1);
    let browser = Browser::start(sandbox.ready["url"].as_str().unwrap(), Look::default());
    browser.go("/devices");
    browser.is_sound("sign-in");
    browser.write("[name=login]", "admin");
    browser.write("[name=password]", "wrong");
    browser.press("Sign in");
    browser.wait_for_text("is wrong");
    browser.is_sound("sign-in-wrong");
    browser.write("[name=password]", "sandbox sandbox");
    browser.press("Sign in");
    browser.wait_for_text("Heard of");
    browser.is_sound("devices");
    // The search is a key away, and finds while one types.
    browser.key("/");
    for letter in serial.to_lowercase().chars() {
        browser.key(&letter.to_string());
    }
    crate::support::wait_for("the search", || {
        (browser.path() == format!("/devices?search={}", serial.to_lowercase())).then_some(())
    });
    browser.click(&format!("//a[text()='{serial}']"));
    browser.wait_for_text("What Apple is told");
    browser.is_sound("device");
    browser.press("Turn the lock off");
    browser.wait_for_text("kept on record beside your name");
    browser.is_sound("unlock-ask");
    browser.write("[name=reason]", "ticket 7");
    browser.press("Turn the lock off");
    // The page follows by itself.
    browser.wait_for_text("Apple accepted a code.");
    browser.is_sound("unlock");
    browser.press("Approvals");
    browser.wait_for_text("Nobody waits.");
    browser.is_sound("approvals-none");
    browser.press("Audit");
    browser.wait_for_text("unlock.request");
    browser.is_sound("audit");
    browser.press("Connections");
    browser.press("Ask whether it takes commands");
    browser.wait_for_text("sandbox: ");
    browser.is_sound("connections");
    browser.press("People");
    browser.click("main details summary");
    browser.write("[name=login]", "kim");
    browser.write("[name=name]", "Kim Example");
    browser.press("Invite");
    browser.wait_for_text("kim is invited.");
    browser.is_sound("people");
    browser.press("System");
    browser.wait_for_text("Processes");
    browser.is_sound("system");
    browser.click("summary");
    browser.press("Sessions");
    browser.wait_for_text("Where you are signed in.");
    browser.is_sound("sessions");
    browser.press("Today");
    browser.wait_for_text("have their code held");
    browser.is_sound("today");
}

#[test]
fn a_code_is_shown_on_a_telephone_in_the_dark_and_goes_away() {
    let sandbox = Sandbox::start();
    let serial = sandbox.device_that_is("locked by its user");
    sandbox.wait_for_codes(&serial, 1);
    let look = Look {
        is_phone: true,
        is_dark: true,
        ..Look::default()
    };
    let browser = signed_in(&sandbox, look);
    browser.is_sound("today-phone");
    browser.go("/devices");
    browser.is_sound("devices-phone");
    browser.go(&format!("/devices/{serial}"));
    browser.is_sound("device-phone");
    browser.press("Show the code");
    browser.wait_for_text("It is shown for two minutes.");
    browser.is_sound("reveal-ask-phone");
    browser.write("[name=reason]", "in the storage room");
    browser.press("Show the code");
    browser.wait_for_text("leaves by itself after");
    assert!(browser.has("svg.qr"));
    browser.is_sound("reveal-phone");
    browser.go(&format!("/devices/{serial}"));
    browser.wait_for_text("Shown to admin");
    browser.go("/devices/NOTHERE0001");
    browser.wait_for_text("To the first page");
    browser.is_sound("problem-phone");
}

#[test]
fn everything_can_be_done_without_scripts() {
    let sandbox = Sandbox::start();
    let serial = sandbox.device_that_is("locked by its user");
    sandbox.wait_for_codes(&serial, 1);
    let look = Look {
        without_scripts: true,
        ..Look::default()
    };
    let browser = signed_in(&sandbox, look);
    browser.press("Devices");
    browser.write("#search", &serial);
    browser.press("Search");
    browser.press(&serial);
    browser.press("Turn the lock off");
    browser.write("[name=reason]", "ticket 8");
    browser.press("Turn the lock off");
    crate::support::wait_for("the unlock to end", || {
        if browser.text().contains("Apple accepted a code.") {
            return Some(());
        }
        let path = browser.path();
        browser.go(&path);
        None
    });
    browser.click("summary");
    browser.press("Sign out");
    browser.wait_for_text("Code of the second factor");
}

#[test]
fn an_ipad_that_is_lost_is_locked_and_the_page_follows() {
    let sandbox = Sandbox::start();
    let serial = sandbox.device_that_is("an iPad that nobody locked");
    sandbox.wait_for_codes(&serial, 1);
    let browser = signed_in(&sandbox, Look::default());
    // It can be locked once Apple's list has been read.
    crate::support::wait_for("the device to be listed", || {
        browser.go(&format!("/devices/{serial}"));
        browser.text().contains("Lock it").then_some(())
    });
    browser.press("Lock it");
    browser.wait_for_text("put away twice");
    browser.is_sound("lock-ask");
    browser.write("[name=reason]", "left in a train");
    browser.write("[name=message]", "Example School, please call");
    browser.press("Lock it");
    browser.wait_for_text("Locked");
    browser.wait_for_text("Calls to Apple");
    browser.is_sound("lock");
    browser.press(&serial);
    browser.wait_for_text("Made here, for a lock of the organisation");
    browser.is_sound("device-locked");
}

#[test]
fn five_hundred_are_brought_in_a_file_looked_at_and_unlocked() {
    let sandbox = Sandbox::start_with(&["--devices", "480"]);
    let locked = sandbox.device_that_is("locked by its user");
    sandbox.wait_for_codes(&locked, 1);
    let serials = sandbox.ready["devices"].as_array().unwrap();
    crate::support::wait_for("every code", || {
        let report = sandbox.run(&["coverage", "--json"]).json();
        let all = report["devices"].as_i64()? >= 480 && report["missing"].as_i64()? == 0;
        all.then_some(())
    });
    let mut lines = vec!["Asset;Serial Number".to_owned()];
    let known = serials
        .iter()
        .map(|serial| serial.as_str().unwrap().to_owned());
    let unknown = (1..=20).map(|number| format!("NOTHERE{number:05}"));
    lines.extend(known.chain(unknown).map(|serial| format!("7;{serial}")));
    let list = sandbox.write("serials.csv", &lines.join("\r\n"));
    let browser = signed_in(&sandbox, Look::default());
    browser.press("Bulk");
    browser.wait_for_text("No batch yet.");
    browser.is_sound("batches-none");
    browser.press("Many devices at once");
    browser.wait_for_text("Each line is looked at first.");
    browser.is_sound("batch-new");
    browser.put("[name=file]", &list);
    browser.write("[name=reason]", "the end of the year");
    browser.press("Look at every line");
    browser.wait_for_text(" of 500 lines will be done.");
    browser.wait_for_text("Not known here 20");
    browser.is_sound("batch-draft");
    browser.click("form[action$='/start'] button.primary");
    // The page follows by itself.
    browser.wait_for_text("under way");
    browser.is_sound("batch-running");
    browser.wait_for_text("Done, not all of it");
    browser.is_sound("batch");
    browser.click("[data-word=unlocked]");
    browser.wait_for_text("Erase the device soon");
    browser.press("Bulk");
    browser.wait_for_text("the end of the year");
    browser.is_sound("batches");
}
