//! Bodies of fuzz targets, as plain functions: each takes any bytes, and panics when something is not as it must always be.

use crate::bypass_code::BypassCode;
use crate::codes::{CodeText, TextShape};

/// A text that may be a bypass code.
pub fn bypass_code(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let lenient = BypassCode::parse_lenient(text);
    let strict = BypassCode::parse(text);
    if let Ok(code) = &strict {
        assert!(*code.to_text() == *text, "the exact form is the only one");
    }
    match &lenient {
        Ok(code) => {
            let canonical = code.to_text();
            assert!(BypassCode::parse(&canonical).is_ok_and(|again| again == *code));
            assert!(BypassCode::from_raw(*code.raw()) == *code);
            // Nothing is forgiven but the case, white space and dashes.
            let symbols = |text: &str| -> Vec<char> {
                text.chars()
                    .filter(|c| *c != '-' && !c.is_whitespace())
                    .map(|c| c.to_ascii_uppercase())
                    .collect()
            };
            assert!(symbols(text) == symbols(&canonical));
        }
        Err(error) => {
            assert!(strict.is_err(), "lenient reading takes what strict takes");
            assert!(!error.to_string().is_empty());
        }
    }
    let Some(kept) = CodeText::new(text.to_owned()) else {
        assert!(text.trim().is_empty());
        return;
    };
    assert!(kept.expose() == text, "kept byte for byte");
    assert!(kept.is_same_code(&kept.clone()));
    assert_eq!(kept.shape() == TextShape::Canonical, strict.is_ok());
    assert_eq!(kept.shape() == TextShape::Opaque, lenient.is_err());
}
