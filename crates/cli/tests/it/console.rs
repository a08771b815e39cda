//! The console in a real browser, against the sandbox.

use data_encoding::BASE32_NOPAD;
use seal::TotpSecret;

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
    browser.wait_for_text("Done, not all of it");
    browser.is_sound("batch");
    browser.click("[data-word=unlocked]");
    browser.wait_for_text("Erase the device soon");
    browser.press("Bulk");
    browser.wait_for_text("the end of the year");
    browser.is_sound("batches");
}

#[test]
fn a_code_is_seen_once_another_person_has_approved_it_in_a_browser_of_their_own() {
    let sandbox = Sandbox::start();
    let serial = sandbox.device_that_is("locked by its user");
    sandbox.wait_for_codes(&serial, 1);
    let admin = signed_in(&sandbox, Look::default());
    // A second person is invited, joins, and may approve.
    admin.press("People");
    admin.write("[name=login]", "kim");
    admin.write("[name=name]", "Kim Example");
    admin.press("Invite");
    admin.wait_for_text("kim is invited.");
    let invitation = admin.text_of("p.code.small");
    let kim = Browser::start(sandbox.ready["url"].as_str().unwrap(), Look::default());
    kim.go("/join");
    kim.is_sound("join");
    kim.write("[name=invitation]", &invitation);
    kim.write("[name=password]", "correct horse battery");
    kim.press("Join");
    kim.wait_for_text("Take an invitation");
    kim.write("[name=login]", "kim");
    kim.write("[name=password]", "correct horse battery");
    kim.press("Sign in");
    crate::support::wait_for("kim to be in", || (kim.path() != "/sign-in").then_some(()));
    kim.go("/second-factor");
    kim.is_sound("second-factor");
    kim.write("[name=password]", "correct horse battery");
    kim.press("Make a second factor");
    let secret = kim.text_of("code.code").replace(' ', "");
    let secret = BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let app = TotpSecret::from_bytes(&secret).unwrap();
    kim.is_sound("second-factor-made");
    let now = server::lifecycle::clock().now().0 / 1_000;
    kim.write("[name=code]", app.code_at(now).as_str());
    kim.press("Confirm");
    crate::support::wait_for("the second factor", || {
        (!kim.path().starts_with("/second-factor")).then_some(())
    });
    admin.press("People");
    admin.click("//li[contains(., 'kim')]//summary");
    admin.click("//li[contains(., 'kim')]//input[@name='approver']");
    admin.click("//li[contains(., 'kim')]//input[@name='viewer']");
    admin.click("//li[contains(., 'kim')]//button[normalize-space()='Set']");
    admin.wait_for_text("They may do that from now on");
    // From now on a code takes another person.
    admin.press("Policies");
    admin.wait_for_text("How many other people have to say yes");
    admin.is_sound("policies");
    admin.click("form[action='/policies/reveal'] input[name=people][value='1']");
    admin.click("form[action='/policies/reveal'] button.primary");
    admin.wait_for_text("It holds from now on.");
    admin.go(&format!("/devices/{serial}/reveal"));
    admin.write("[name=reason]", "ticket 7");
    admin.click("input[name=leave][value=ask]");
    admin.press("Show the code");
    admin.wait_for_text("Others are asked.");
    admin.is_sound("approvals-own");
    kim.go("/");
    kim.wait_for_text("1 request waits for an approval");
    kim.is_sound("today-approval");
    kim.press("Approvals");
    kim.wait_for_text("ticket 7");
    kim.is_sound("approvals");
    kim.press("Approve");
    kim.wait_for_text("It is on record that you said yes.");
    admin.press("Approvals");
    admin.press("Go on");
    admin.write("[name=reason]", "ticket 7");
    admin.press("Show the code");
    admin.wait_for_text("leaves by itself after");
    admin.is_sound("reveal");
    admin.go("/tokens");
    admin.is_sound("tokens");
    admin.go("/keys");
    admin.is_sound("keys");
}
