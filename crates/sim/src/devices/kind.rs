//! What kinds of devices there are, and the numbers that identify one.

use rand::{Rng, RngExt};

use crate::{AppleDevice, DepDevice, OrgDevice, nanomdm::EnrollmentKind};

/// What a device is, which decides what it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A supervised iPhone with one SIM.
    Iphone,
    /// A supervised iPhone with two.
    IphoneDualSim,
    /// A supervised iPad without cellular.
    IpadWifi,
    /// A supervised iPad with cellular.
    IpadCellular,
    /// A supervised Mac whose lock can be managed.
    Mac,
    /// A Mac whose lock cannot be managed.
    UnmanageableMac,
    /// A Shared iPad: bypass commands are forbidden.
    SharedIpad,
    /// An Apple TV: knows no bypass commands.
    AppleTv,
    /// An iPhone that is not supervised.
    UnsupervisedIphone,
    /// A private iPhone with a managed account: no serial number, no UDID.
    UserEnrollment,
}

/// How the devices of a kind present themselves.
pub(super) struct Make {
    pub(super) product_name: &'static str,
    pub(super) model_name: &'static str,
    pub(super) model: &'static str,
    pub(super) device_name: &'static str,
    pub(super) build: &'static str,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Iphone,
        Self::IphoneDualSim,
        Self::IpadWifi,
        Self::IpadCellular,
        Self::Mac,
        Self::UnmanageableMac,
        Self::SharedIpad,
        Self::AppleTv,
        Self::UnsupervisedIphone,
        Self::UserEnrollment,
    ];

    pub(super) fn make(self) -> Make {
        let (product_name, model_name, model, device_name, build) = match self {
            Self::Iphone => ("iPhone12,8", "iPhone", "MHGQ3ZD", "iPhone", "23A341"),
            Self::UnsupervisedIphone | Self::UserEnrollment => {
                ("iPhone12,8", "iPhone", "MHGQ3ZD", "iPhone", "23A341")
            }
            Self::IphoneDualSim => ("iPhone15,3", "iPhone", "MQ9P3ZD", "iPhone", "23A341"),
            Self::IpadWifi | Self::SharedIpad => ("iPad4,1", "iPad", "MD785FD", "iPad", "23A341"),
            Self::IpadCellular => ("iPad13,19", "iPad", "MPQ03FD", "iPad", "23A341"),
            Self::Mac => (
                "MacBookPro17,1",
                "MacBook Pro",
                "MacBookPro17,1",
                "MacBook Pro",
                "25A354",
            ),
            Self::UnmanageableMac => (
                "MacBookAir7,2",
                "MacBook Air",
                "MacBookAir7,2",
                "MacBook Air",
                "21G115",
            ),
            Self::AppleTv => ("AppleTV14,1", "Apple TV", "MN873FD", "Apple TV", "23J353"),
        };
        Make {
            product_name,
            model_name,
            model,
            device_name,
            build,
        }
    }

    /// The name people say, as the enrolment service tells it.
    fn spoken_model(self) -> &'static str {
        match self {
            Self::Iphone | Self::UnsupervisedIphone | Self::UserEnrollment => {
                "iPhone SE (2nd generation)"
            }
            Self::IphoneDualSim => "iPhone 14 Pro Max",
            Self::IpadWifi | Self::SharedIpad => "iPad Air",
            Self::IpadCellular => "iPad (10th generation)",
            Self::Mac => "MacBook Pro (13-inch, M1, 2020)",
            Self::UnmanageableMac => "MacBook Air (13-inch, 2017)",
            Self::AppleTv => "Apple TV 4K (3rd generation)",
        }
    }

    /// Whether it runs macOS.
    pub fn is_mac(self) -> bool {
        matches!(self, Self::Mac | Self::UnmanageableMac)
    }

    /// Whether it is supervised.
    pub fn is_supervised(self) -> bool {
        !matches!(self, Self::UnsupervisedIphone | Self::UserEnrollment)
    }

    /// How many SIM slots it has.
    pub fn slots(self) -> usize {
        match self {
            Self::IphoneDualSim => 2,
            Self::Iphone | Self::IpadCellular | Self::UnsupervisedIphone | Self::UserEnrollment => {
                1
            }
            _ => 0,
        }
    }

    /// What NanoMDM calls its device channel.
    pub fn enrollment_kind(self) -> EnrollmentKind {
        if self == Self::UserEnrollment {
            EnrollmentKind::UserEnrollmentDevice
        } else {
            EnrollmentKind::Device
        }
    }
}

/// How the slots of a device are listed in `ServiceSubscriptions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotOrder {
    /// Slot one first.
    #[default]
    InOrder,
    /// Slot two first: the place in the array says nothing.
    Reversed,
    /// The second entry has no `Slot`, as an inactive eSIM may.
    SecondUnnamed,
}

/// What a device is made from.
#[derive(Clone, Debug)]
pub struct DeviceSpec {
    /// The serial number; begins with `SIM` when the world makes it.
    pub serial: String,
    /// What it is.
    pub kind: Kind,
    /// The first part of its system's version. From 26 on, iOS does not tell IMEI and MEID outside `ServiceSubscriptions`.
    pub os_major: u32,
    /// How its slots are listed.
    pub slot_order: SlotOrder,
    /// Whether its first TokenUpdate says that Setup Assistant waits.
    pub awaiting_configuration: bool,
    /// Whether it makes a new code when Find My goes on, as a field report has it (contract sheet 3.5).
    pub rotates_on_find_my: bool,
    /// The seed of its numbers, codes and identifiers.
    pub seed: u64,
}

impl DeviceSpec {
    /// A device of this kind with usual habits.
    pub fn new(serial: impl Into<String>, kind: Kind, seed: u64) -> Self {
        Self {
            serial: serial.into(),
            kind,
            os_major: 26,
            slot_order: SlotOrder::InOrder,
            awaiting_configuration: true,
            rotates_on_find_my: false,
            seed,
        }
    }

    /// With this system version.
    #[must_use]
    pub fn with_os_major(mut self, major: u32) -> Self {
        self.os_major = major;
        self
    }

    /// With its slots listed so.
    #[must_use]
    pub fn with_slot_order(mut self, order: SlotOrder) -> Self {
        self.slot_order = order;
        self
    }

    /// One that makes a new code when Find My goes on.
    #[must_use]
    pub fn rotating_on_find_my(mut self) -> Self {
        self.rotates_on_find_my = true;
        self
    }
}

/// The numbers of a device's radio, which an erase does not change.
#[derive(Clone, Default)]
pub(super) struct Radio {
    /// 15 digits each, in the order of the slots.
    pub(super) imeis: Vec<String>,
    /// 14 hexadecimal digits, of the first slot.
    pub(super) meid: Option<String>,
}

impl Radio {
    pub(super) fn make(slots: usize, rng: &mut impl Rng) -> Self {
        let imeis: Vec<String> = (0..slots).map(|_| imei(rng)).collect();
        // An MEID is the IMEI without its check digit, as on real devices.
        let meid = imeis.first().map(|imei| imei[..14].to_owned());
        Self { imeis, meid }
    }

    pub(super) fn apple_device(&self, serial: &str, kind: Kind) -> AppleDevice {
        AppleDevice {
            serial: serial.to_owned(),
            product_type: kind.make().product_name.to_owned(),
            imei: self.imeis.first().cloned(),
            imei2: self.imeis.get(1).cloned(),
            meid: self.meid.clone(),
        }
    }

    /// The IMEIs as lists without slots have them: in an order that says nothing.
    fn listed(&self, spec: &DeviceSpec) -> Vec<String> {
        let mut imeis = self.imeis.clone();
        if spec.slot_order == SlotOrder::Reversed {
            imeis.reverse();
        }
        imeis
    }

    pub(super) fn dep_device(&self, spec: &DeviceSpec) -> DepDevice {
        DepDevice::new(&spec.serial, spec.kind.spoken_model())
            .with_imeis(self.listed(spec))
            .with_meids(self.meid.clone())
    }

    pub(super) fn org_device(&self, spec: &DeviceSpec) -> OrgDevice {
        let make = spec.kind.make();
        let device = OrgDevice {
            device_model: spec.kind.spoken_model().to_owned(),
            part_number: make.model.to_owned(),
            ..OrgDevice::new(&spec.serial, make.product_name)
        };
        device
            .with_imeis(self.listed(spec))
            .with_meids(self.meid.clone())
    }
}

/// 15 digits with a check digit.
fn imei(rng: &mut impl Rng) -> String {
    let mut digits = vec![3, 5];
    digits.extend((0..12).map(|_| rng.random_range(0..10u32)));
    let sum: u32 = digits
        .iter()
        .enumerate()
        .map(|(place, digit)| {
            if place % 2 == 1 {
                digit * 2 / 10 + digit * 2 % 10
            } else {
                *digit
            }
        })
        .sum();
    digits.push((10 - sum % 10) % 10);
    digits
        .into_iter()
        .map(|digit| char::from(b'0' + digit as u8))
        .collect()
}

/// As devices print an IMEI: `35 882334 083223 0`.
pub(super) fn spaced(imei: &str) -> String {
    format!(
        "{} {} {} {}",
        &imei[..2],
        &imei[2..8],
        &imei[8..14],
        &imei[14..]
    )
}
