//! Who a device is: the five values Apple's unlock request names it by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod marketing;

/// Why a text is not the identifier it was offered as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct IdentifierError {
    what: &'static str,
    problem: &'static str,
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text, in its normal form.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdentifierError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }
    };
}

identifier! {
    /// A serial number: 1 to 32 ASCII letters and digits, kept in upper case. Devices are keyed by it
    /// within an organisation (R5).
    SerialNumber
}

identifier! {
    /// The hardware identifier Apple calls `productType`, such as `iPad4,1` or `MacBookPro17,1`
    /// (contract sheet 1.8): letters, digits, one comma, digits. It is `ProductName` in an MDM answer, and
    /// neither `Model` nor `ModelName`.
    ProductType
}

identifier! {
    /// An IMEI: 14 to 16 digits. Spaces and dashes that devices and people write are dropped
    /// (contract sheet 3d).
    Imei
}

identifier! {
    /// An MEID: 14 to 18 hexadecimal digits, kept in upper case. Spaces and dashes are dropped.
    Meid
}

impl FromStr for SerialNumber {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let problem = if text.is_empty() {
            "is empty"
        } else if text.len() > 32 {
            "is longer than 32 characters"
        } else if !text.bytes().all(|b| b.is_ascii_alphanumeric()) {
            "holds something other than letters and digits"
        } else {
            return Ok(Self(text.to_ascii_uppercase()));
        };
        Err(IdentifierError {
            what: "the serial number",
            problem,
        })
    }
}

impl FromStr for ProductType {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let fits = text.split_once(',').is_some_and(|(family, minor)| {
            let name_ends = family.trim_end_matches(|c: char| c.is_ascii_digit());
            !name_ends.is_empty()
                && name_ends.len() < family.len()
                && name_ends.bytes().all(|b| b.is_ascii_alphabetic())
                && !minor.is_empty()
                && minor.bytes().all(|b| b.is_ascii_digit())
        });
        if fits && text.len() <= 32 {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdentifierError {
                what: "the product type",
                problem: "is not of the form iPad4,1 (a name, a number, a comma, a number)",
            })
        }
    }
}

/// What a product type says about the kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProductFamily {
    /// iPhone, iPad, iPod touch.
    Mobile,
    /// Any Mac.
    Mac,
    /// Apple Vision Pro.
    Vision,
    /// Apple TV, which has no bypass code (contract sheet 3f).
    Tv,
    /// Apple Watch, which has no MDM command for one (contract sheet 3f).
    Watch,
    /// A name not known here; treated like a device that may have a code.
    Unknown,
}

impl ProductType {
    /// The family that the leading name belongs to.
    #[must_use]
    pub fn family(&self) -> ProductFamily {
        let name = self
            .0
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == ',');
        match name {
            "iPhone" | "iPad" | "iPod" => ProductFamily::Mobile,
            "AppleTV" => ProductFamily::Tv,
            "Watch" => ProductFamily::Watch,
            "RealityDevice" => ProductFamily::Vision,
            "VirtualMac" => ProductFamily::Mac,
            _ if name.contains("Mac") => ProductFamily::Mac,
            _ => ProductFamily::Unknown,
        }
    }
}

impl FromStr for Imei {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kept = without_separators(text);
        if (14..=16).contains(&kept.len()) && kept.bytes().all(|b| b.is_ascii_digit()) {
            Ok(Self(kept))
        } else {
            Err(IdentifierError {
                what: "the IMEI",
                problem: "is not 14 to 16 digits",
            })
        }
    }
}

impl FromStr for Meid {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let kept = without_separators(text);
        if (14..=18).contains(&kept.len()) && kept.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(kept.to_ascii_uppercase()))
        } else {
            Err(IdentifierError {
                what: "the MEID",
                problem: "is not 14 to 18 hexadecimal digits",
            })
        }
    }
}

fn without_separators(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace() && *c != '-')
        .collect()
}

/// The values of Apple's unlock request that name a device (contract sheet 1.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceIdentity {
    /// The serial number.
    pub serial: SerialNumber,
    /// The product type; without it no unlock can be asked for (R15).
    pub product_type: ProductType,
    /// IMEI of slot one, or the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imei: Option<Imei>,
    /// IMEI of slot two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imei2: Option<Imei>,
    /// MEID of slot one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meid: Option<Meid>,
}

impl DeviceIdentity {
    /// The same device with the two IMEIs exchanged, tried once when they came from a list that does not
    /// name slots (R18). `None` when there are not two different ones.
    #[must_use]
    pub fn with_imeis_swapped(&self) -> Option<Self> {
        (self.imei2.is_some() && self.imei != self.imei2).then(|| Self {
            imei: self.imei2.clone(),
            imei2: self.imei.clone(),
            ..self.clone()
        })
    }
}

/// Where a value of an identity came from; a better source is not replaced by a worse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// A list without slots: an import, or Apple's device lists. The order of IMEIs is a guess (R18).
    List,
    /// Top-level values of an Authenticate or DeviceInformation, which do not name a slot.
    Device,
    /// `ServiceSubscriptions` by slot name (contract sheet 1.6).
    Slots,
    /// A person typed it.
    Person,
}

impl IdentitySource {
    /// The stable text kept in the database and shown in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Device => "device",
            Self::Slots => "slots",
            Self::Person => "person",
        }
    }
}

/// The IMEIs and the MEID of a device, as one report gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellularIdentity {
    /// IMEI of slot one, or the only one.
    pub imei: Option<Imei>,
    /// IMEI of slot two.
    pub imei2: Option<Imei>,
    /// MEID of slot one.
    pub meid: Option<Meid>,
}

impl CellularIdentity {
    /// True when nothing is known: a device without a modem, or a report without the keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.imei.is_none() && self.imei2.is_none() && self.meid.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r18_imei_keeps_digits_and_meid_keeps_hexadecimal() {
        assert_eq!(
            "35 882334 083223 0".parse::<Imei>().unwrap().as_str(),
            "358823340832230"
        );
        assert_eq!(
            "a0-0000 0912 3456".parse::<Meid>().unwrap().as_str(),
            "A0000009123456"
        );
        assert!("35 88x334 083223 0".parse::<Imei>().is_err());
        assert!("".parse::<Imei>().is_err());
    }

    #[test]
    fn product_types_are_hardware_identifiers_not_names() {
        for good in [
            "iPad4,1",
            "MacBookPro17,1",
            "Mac14,2",
            "iPhone17,3",
            "RealityDevice14,1",
        ] {
            assert_eq!(good.parse::<ProductType>().unwrap().as_str(), good);
        }
        for bad in [
            "iPad",
            "iPhone XR",
            "MTXQ2LL/A",
            "iPad4",
            ",1",
            "4,1",
            "iPad4,",
            "iPad4%2C1",
            "iPad4,1,2",
        ] {
            assert!(bad.parse::<ProductType>().is_err(), "{bad}");
        }
        assert_eq!(
            "AppleTV11,1".parse::<ProductType>().unwrap().family(),
            ProductFamily::Tv
        );
        assert_eq!(
            "MacBookAir10,1".parse::<ProductType>().unwrap().family(),
            ProductFamily::Mac
        );
        assert_eq!(
            "iPod9,1".parse::<ProductType>().unwrap().family(),
            ProductFamily::Mobile
        );
    }

    #[test]
    fn serials_are_one_form() {
        assert_eq!(
            " dmpabc123xyz ".parse::<SerialNumber>().unwrap().as_str(),
            "DMPABC123XYZ"
        );
        assert!("ABC 123".parse::<SerialNumber>().is_err());
        assert!("".parse::<SerialNumber>().is_err());
    }

    #[test]
    fn swapping_needs_two_different_imeis() {
        let mut identity = DeviceIdentity {
            serial: "SERIAL1".parse().unwrap(),
            product_type: "iPhone14,5".parse().unwrap(),
            imei: "358823340832230".parse().ok(),
            imei2: None,
            meid: None,
        };
        assert!(identity.with_imeis_swapped().is_none());
        identity.imei2 = "358823340832248".parse().ok();
        let swapped = identity.with_imeis_swapped().unwrap();
        assert_eq!(swapped.imei, identity.imei2);
        assert_eq!(swapped.imei2, identity.imei);
    }
}
