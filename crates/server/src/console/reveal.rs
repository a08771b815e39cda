//! Showing a code to a person, once, with why; and how it is read out and typed.

use activation_lock::codes::Form as Written;
use activation_lock::device::SerialNumber;
use activation_lock::explain;
use axum::http::HeaderValue;
use escrow::devices::DeviceSummary;
use escrow::permit::{Permit, Reveal};
use qrcodegen::{QrCode, QrCodeEcc};
use zeroize::Zeroizing;

use super::form::Wish;
use super::*;
use crate::http::api;
use crate::http::extract::Path;

/// How long a code is shown.
const SHOWN_FOR: u64 = 120;
/// The margin of a QR code, modules.
const MARGIN: i32 = 4;

#[derive(Template)]
#[template(path = "reveal_ask.html")]
pub(super) struct AskPage {
    frame: Frame,
    device: DeviceSummary,
    wish: Wish,
}

impl AskPage {
    async fn of(visitor: &Visitor, serial: &SerialNumber, wish: Wish) -> Result<Self, Turned> {
        let (organisation, device) = device::of(visitor, serial).await?;
        let frame = visitor
            .frame(format!("Code of {serial}"), &organisation)
            .await?;
        Ok(Self {
            frame,
            device: device.summary,
            wish,
        })
    }
}

#[derive(Template)]
#[template(path = "reveal.html")]
pub(super) struct RevealPage {
    frame: Frame,
    device: DeviceSummary,
    codes: Vec<Shown>,
    how_to_type: String,
    afterwards: &'static str,
    seconds: u64,
}

/// A code as a person reads it.
struct Shown {
    text: Zeroizing<String>,
    /// In groups, where it can be read as a code.
    groups: Vec<Zeroizing<String>>,
    spoken: Zeroizing<String>,
    picture: Option<Picture>,
    current: bool,
    made_by: &'static str,
    seen_at: Timestamp,
}

pub(super) async fn ask(
    visitor: Visitor,
    Path(serial): Path<SerialNumber>,
    uri: Uri,
) -> super::Shown<AskPage> {
    let page = AskPage::of(&visitor, &serial, Wish::new(&uri)).await?;
    Ok(Page(StatusCode::OK, page))
}

pub(super) async fn reveal(
    visitor: Visitor,
    Path(serial): Path<SerialNumber>,
    form: Form,
) -> Result<Response, Turned> {
    let app = &visitor.app;
    let reason = match api::reason(form.text("reason")) {
        Ok(reason) => reason.to_owned(),
        Err(problem) => {
            let page = AskPage::of(&visitor, &serial, Wish::again(&form, &problem)).await?;
            return Ok(Page(StatusCode::BAD_REQUEST, page).into_response());
        }
    };
    let (organisation, device) = device::of(&visitor, &serial).await?;
    let device = device.summary;
    let frame = visitor
        .frame(format!("Code of {serial}"), &organisation)
        .await?;
    let actor = form::leave(&visitor, &form, &reason)?;
    let subject = format!("device {serial}");
    let permit: Permit<Reveal> = app.escrow.authorise(&actor, &organisation, subject).await?;
    let mut codes = app.escrow.codes().reveal(&permit, &serial, &reason).await?;
    codes.sort_by_key(|code| (!code.view.current, std::cmp::Reverse(code.view.seen_at)));
    let family = device.product_type.as_ref().map(|product| product.family());
    let codes = codes.iter().map(|code| {
        let text = code.text.in_form(Written::Canonical);
        Shown {
            groups: text
                .split('-')
                .map(|group| Zeroizing::new(group.to_owned()))
                .collect(),
            spoken: spoken(&text),
            picture: Picture::of(&text),
            current: code.view.current,
            made_by: device::made_by(&code.view),
            seen_at: code.view.seen_at,
            text,
        }
    });
    let page = RevealPage {
        codes: codes.collect(),
        how_to_type: explain::how_to_type(family),
        afterwards: explain::after_a_reveal(),
        seconds: SHOWN_FOR,
        device,
        frame,
    };
    let leave = format!("{SHOWN_FOR}; url=/devices/{serial}{}", page.frame.within);
    let mut response = Page(StatusCode::OK, page).into_response();
    // It goes away by itself, also from a browser without scripts.
    if let Ok(leave) = HeaderValue::try_from(leave) {
        response.headers_mut().insert(REFRESH, leave);
    }
    Ok(response)
}

/// A text as one reads it out over a telephone: a word for each letter, the digits as they are.
fn spoken(text: &str) -> Zeroizing<String> {
    const WORDS: [&str; 26] = [
        "Alfa", "Bravo", "Charlie", "Delta", "Echo", "Foxtrot", "Golf", "Hotel", "India",
        "Juliett", "Kilo", "Lima", "Mike", "November", "Oscar", "Papa", "Quebec", "Romeo",
        "Sierra", "Tango", "Uniform", "Victor", "Whiskey", "X-ray", "Yankee", "Zulu",
    ];
    const DIGITS: [&str; 10] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    ];
    // Its capacity is never exceeded, so that no unwiped copy is left behind.
    let mut said = Zeroizing::new(String::with_capacity(text.len() * 12));
    for letter in text.chars() {
        let word = match letter {
            'A'..='Z' => WORDS[usize::from(letter as u8 - b'A')],
            'a'..='z' => WORDS[usize::from(letter as u8 - b'a')],
            '0'..='9' => DIGITS[usize::from(letter as u8 - b'0')],
            '-' => "dash",
            _ => "other",
        };
        if !said.is_empty() {
            said.push(' ');
        }
        said.push_str(word);
    }
    said
}

/// A QR code as an SVG draws it, a unit a module.
pub(super) struct Picture {
    /// How wide and high, with the margin of four modules that readers want.
    pub(super) size: i32,
    /// The dark modules, as a path.
    pub(super) path: Zeroizing<String>,
}

impl Picture {
    /// `None` when the text is too long for one.
    pub(super) fn of(text: &str) -> Option<Self> {
        let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
        let mut path = Zeroizing::new(String::new());
        for y in 0..code.size() {
            for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
                path.push_str(&format!("M{} {}h1v1h-1z", x + MARGIN, y + MARGIN));
            }
        }
        Some(Self {
            size: code.size() + 2 * MARGIN,
            path,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_out_letter_by_letter() {
        assert_eq!(&*spoken("0A-Z"), "zero Alfa dash Zulu");
        let all = spoken("000H4-0R40M-30F2-0918-5HR3-8F17");
        assert!(all.starts_with("zero zero zero Hotel four dash zero Romeo"));
    }

    #[test]
    fn a_code_fits_into_a_picture() {
        let picture = Picture::of("000H4-0R40M-30F2-0918-5HR3-8F17").unwrap();
        assert!(picture.size == 33 && picture.path.starts_with("M4 4h1v1h-1z"));
        assert!(Picture::of(&"x".repeat(5000)).is_none());
    }
}
