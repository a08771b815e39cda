//! What is built to break a reader of plists.

use std::fmt::Write as _;

use activation_lock::observation::ReportedCode;
use apple::mdm::{PlistError, answer, check_in};

/// A binary plist: the objects with their bytes as given, references being one byte wide; the first is the root.
fn binary(objects: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"bplist00".to_vec();
    let mut offsets = Vec::new();
    for object in objects {
        offsets.push(u16::try_from(bytes.len()).unwrap());
        bytes.extend_from_slice(object);
    }
    let table = bytes.len() as u64;
    for offset in offsets {
        bytes.extend_from_slice(&offset.to_be_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 2, 1]);
    for number in [objects.len() as u64, 0, table] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes
}

fn refused(bytes: &[u8]) -> PlistError {
    let error = answer(bytes).err().expect("it is refused");
    assert_eq!(check_in(bytes).err().as_ref(), Some(&error));
    error
}

fn xml(inside: &str) -> Vec<u8> {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<plist version=\"1.0\">{inside}</plist>\n")
        .into_bytes()
}

/// As many values as this, keys not counted, the dictionaries included.
fn with_values(count: usize) -> Vec<u8> {
    let items = "<true/>".repeat(count - 3);
    xml(&format!(
        "<dict><key>Status</key><string>NotNow</string><key>More</key><array>{items}</array></dict>"
    ))
}

/// With so many levels of lists inside the dictionary.
fn with_lists(deep: usize) -> Vec<u8> {
    let (open, close) = ("<array>".repeat(deep), "</array>".repeat(deep));
    xml(&format!(
        "<dict><key>Status</key><string>NotNow</string><key>More</key>{open}{close}</dict>"
    ))
}

#[test]
fn bomb_an_xml_of_780_kilobytes_of_open_lists_does_not_overflow_the_stack() {
    let bomb = xml(&"<array>".repeat(780 * 1024 / 7));
    assert!(bomb.len() > 780 * 1000);
    assert_eq!(refused(&bomb), PlistError::TooDeep);
    let hidden = xml(&format!(
        "<dict><key>Status</key><string>Idle</string><key>More</key>{}",
        "<dict><key>a</key>".repeat(40_000)
    ));
    assert_eq!(refused(&hidden), PlistError::TooDeep);
}

#[test]
fn bomb_a_binary_of_370_bytes_of_lists_that_share_lists_ends_at_once() {
    // 15 levels of lists, each naming the next one 12 times: 12^15 values, if all were walked.
    let levels = 15;
    let mut objects: Vec<Vec<u8>> = (1..=levels)
        .map(|next| {
            let mut list = vec![0xac];
            list.extend([next; 12]);
            list
        })
        .collect();
    objects.push(vec![0x09]);
    let bomb = binary(&objects);
    assert!(bomb.len() < 370, "{} bytes", bomb.len());
    assert_eq!(refused(&bomb), PlistError::TooMany);
}

#[test]
fn bomb_a_binary_whose_values_share_one_long_text_is_not_unfolded() {
    // A list of a thousand times the same text of 30,000 bytes: 30 MB.
    let mut list = vec![0xaf, 0x11];
    list.extend_from_slice(&1000_u16.to_be_bytes());
    list.extend([1; 1000]);
    let mut text = vec![0x5f, 0x11];
    text.extend_from_slice(&30_000_u16.to_be_bytes());
    text.extend([b'a'; 30_000]);
    assert_eq!(refused(&binary(&[list, text])), PlistError::TooLarge);
}

#[test]
fn a_binary_list_that_holds_itself_is_refused() {
    assert_eq!(refused(&binary(&[vec![0xa1, 0]])), PlistError::Unreadable);
    let dictionary = vec![0xd1, 1, 0];
    let key = vec![0x51, b'a'];
    assert_eq!(refused(&binary(&[dictionary, key])), PlistError::Unreadable);
}

#[test]
fn a_list_that_claims_more_than_there_may_be_is_refused_before_its_parts_are_read() {
    let mut list = vec![0xaf, 0x11];
    list.extend_from_slice(&10_001_u16.to_be_bytes());
    list.extend(vec![1; 10_001]);
    assert_eq!(refused(&binary(&[list, vec![0x09]])), PlistError::TooMany);
}

#[test]
fn the_limits_are_where_they_are_said_to_be() {
    assert!(answer(&with_values(10_000)).is_ok());
    assert_eq!(refused(&with_values(10_001)), PlistError::TooMany);
    assert!(answer(&with_lists(15)).is_ok());
    assert_eq!(refused(&with_lists(16)), PlistError::TooDeep);

    let mut large = with_values(10);
    large.resize(1024 * 1024, b'\n');
    assert!(answer(&large).is_ok());
    large.push(b'\n');
    assert_eq!(refused(&large), PlistError::TooLarge);
}

#[test]
fn what_is_not_whole_or_more_than_one_plist_is_refused() {
    let whole = with_values(20);
    let text = String::from_utf8(whole).unwrap();
    for (bad, why) in [
        (text.replace("</dict>", ""), "an open dictionary"),
        (
            text.replace("</dict>", "</array>"),
            "closed by another name",
        ),
        (text.replace("</dict>", "</dict><true/>"), "two roots"),
        (
            text.replace(
                "</plist>",
                "<dict><key>Status</key><string>Idle</string></dict></plist>",
            ),
            "two messages",
        ),
        (text.replace("<key>More</key>", ""), "a value without a key"),
        (
            text.replace("<key>More</key>", "<key>More</key><key>"),
            "odd",
        ),
        (text.replace("NotNow", "Not&nbsp Now"), "a broken entity"),
        (
            text.replace("NotNow", "<![CDATA[NotNow]]>"),
            "a section whose text the reader skips",
        ),
        (format!("{text}more"), "something behind the end"),
    ] {
        assert!(answer(bad.as_bytes()).is_err(), "{why}");
    }
    assert!(answer(text.as_bytes()).is_ok());
}

#[test]
fn every_prefix_of_a_binary_plist_is_refused_without_a_panic() {
    let whole = include_bytes!("../../data/plists/information-dual-sim-reversed.bin");
    for end in 0..whole.len() {
        assert!(answer(&whole[..end]).is_err());
    }
    assert!(answer(whole).is_ok());
}

#[test]
fn error_chains_are_limited_in_number_and_length() {
    let mut links = String::new();
    for code in 0..100 {
        write!(
            links,
            "<dict><key>ErrorCode</key><integer>{code}</integer><key>ErrorDomain</key><string>{}</string>\
             <key>LocalizedDescription</key><string>{}</string></dict>",
            "x".repeat(1000),
            "\u{e9}".repeat(2000),
        )
        .unwrap();
    }
    let chain = format!("<key>ErrorChain</key><array>{links}</array>");
    let bytes = xml(&format!(
        "<dict><key>Status</key><string>Error</string>{chain}<key>Settings</key><array>\
         <dict><key>Status</key><string>Error</string>{chain}</dict></array></dict>"
    ));
    let report = answer(&bytes).ok().unwrap().report.unwrap();
    assert_eq!(report.errors.len(), 16);
    assert_eq!(report.errors[15].code, 15);
    assert_eq!(report.errors[0].domain.len(), 200);
    assert_eq!(report.errors[0].description.chars().count(), 500);
    assert_eq!(report.failed_settings.unwrap().len(), 16);
}

#[test]
fn r23_the_words_of_a_device_are_kept_without_what_looks_like_a_code() {
    let bytes = xml(
        "<dict><key>Status</key><string>Error</string><key>ErrorChain</key><array><dict>\
         <key>LocalizedDescription</key><string>the code\n3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4 is stale</string>\
         </dict></array><key>QueryResponses</key><dict>\
         <key>DeviceName</key><string>3um43puyvyqyd1uvcchehjfka4\u{202e}</string>\
         <key>UDID</key><string>line\nbreak</string></dict></dict>",
    );
    let report = answer(&bytes).ok().unwrap().report.unwrap();
    assert_eq!(report.errors[0].description, "the code [code] is stale");
    let told = report.device_information.unwrap();
    assert_eq!(told.device_name.as_deref(), Some("[code]"));
    assert_eq!(told.udid, None);
    assert!(matches!(report.bypass_code, ReportedCode::Absent));
}

#[test]
fn of_two_values_for_one_key_the_last_one_counts() {
    let bytes = xml(
        "<dict><key>Status</key><string>Error</string><key>Status</key><string>Idle</string></dict>",
    );
    assert!(answer(&bytes).ok().unwrap().report.is_none());
}
