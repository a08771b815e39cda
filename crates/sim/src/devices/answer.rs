//! What a device answers to each command.

use plist::{Dictionary, Value};

use super::{
    ErrorItem, SettingsForm, State,
    kind::{Kind, SlotOrder, spaced},
};
use crate::{
    nanomdm::Command,
    plists::{dictionary, text},
};

/// The `Status` of an answer and the keys beside it.
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) keys: Dictionary,
}

fn acknowledged(keys: Dictionary) -> Answer {
    Answer {
        status: "Acknowledged",
        keys,
    }
}

fn error(items: &[ErrorItem]) -> Answer {
    Answer {
        status: "Error",
        keys: dictionary([("ErrorChain", chain(items))]),
    }
}

fn chain(items: &[ErrorItem]) -> Value {
    let item = |item: &ErrorItem| {
        Value::Dictionary(dictionary([
            ("ErrorCode", Value::Integer(item.code.into())),
            ("ErrorDomain", Value::String(item.domain.clone())),
            ("LocalizedDescription", Value::String(item.text.clone())),
            ("USEnglishDescription", Value::String(item.text.clone())),
        ]))
    };
    Value::Array(items.iter().map(item).collect())
}

impl State {
    /// Does what the command says, and answers.
    pub(super) fn answer(&mut self, command: &Command) -> Answer {
        let kind = command.request_type.as_str();
        if self.not_now > 0 {
            self.not_now -= 1;
            return Answer {
                status: "NotNow",
                keys: Dictionary::new(),
            };
        }
        let scripted = |(request_type, _): &(Option<String>, Vec<ErrorItem>)| {
            request_type.as_deref().is_none_or(|wanted| wanted == kind)
        };
        if let Some(index) = self.errors.iter().position(scripted) {
            let (_, items) = self
                .errors
                .remove(index)
                .expect("the index was found just now");
            return error(&items);
        }
        match kind {
            "ActivationLockBypassCode" => self.bypass_code(),
            "DeviceInformation" => self.device_information(&command.body),
            "SecurityInfo" => acknowledged(dictionary([(
                "SecurityInfo",
                Value::Dictionary(self.security_info()),
            )])),
            "Settings" => self.settings(&command.body),
            "ClearActivationLockBypassCode" => {
                self.new_code();
                acknowledged(Dictionary::new())
            }
            _ => error(&[ErrorItem::invalid_request_type()]),
        }
    }

    fn bypass_code(&mut self) -> Answer {
        let refusal = match self.spec.kind {
            Kind::UnsupervisedIphone => Some(ErrorItem::not_supervised()),
            Kind::SharedIpad | Kind::AppleTv | Kind::UserEnrollment | Kind::UnmanageableMac => {
                Some(ErrorItem::invalid_request_type())
            }
            _ => None,
        };
        if let Some(item) = refusal {
            return error(&[item]);
        }
        if self.missing_key > 0 {
            self.missing_key -= 1;
            return acknowledged(Dictionary::new());
        }
        let code = if self.empty_code > 0 {
            self.empty_code -= 1;
            String::new()
        } else {
            self.told_code = true;
            self.code.clone()
        };
        acknowledged(dictionary([(
            "ActivationLockBypassCode",
            Value::String(code),
        )]))
    }

    /// Only what is asked for, and of that only what this device has.
    fn device_information(&self, command: &Dictionary) -> Answer {
        let queries = command
            .get("Queries")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let told = queries.iter().filter_map(|query| {
            let query = query.as_string()?;
            Some((query.to_owned(), self.query(query)?))
        });
        acknowledged(dictionary([(
            "QueryResponses",
            Value::Dictionary(told.collect()),
        )]))
    }

    fn query(&self, name: &str) -> Option<Value> {
        let kind = self.spec.kind;
        let make = kind.make();
        let string = |text: &str| Some(Value::String(text.to_owned()));
        let withheld = kind == Kind::UserEnrollment;
        let is_ios = !kind.is_mac() && kind != Kind::AppleTv;
        match name {
            "UDID" if !withheld => string(&self.udid),
            "SerialNumber" if !withheld => {
                string(self.reported_serial.as_deref().unwrap_or(&self.spec.serial))
            }
            "ProductName" => string(make.product_name),
            "ModelName" => string(make.model_name),
            "Model" => string(make.model),
            "DeviceName" => string(make.device_name),
            "BuildVersion" => string(make.build),
            "OSVersion" => Some(Value::String(format!("{}.0", self.spec.os_major))),
            "IsSupervised" => Some(Value::Boolean(kind.is_supervised())),
            "IsMultiUser" if is_ios => Some(Value::Boolean(kind == Kind::SharedIpad)),
            "IsActivationLockEnabled" => {
                Some(Value::Boolean(self.reported_lock.unwrap_or(self.find_my)))
            }
            "IsActivationLockSupported" if kind.is_mac() => Some(Value::Boolean(kind == Kind::Mac)),
            "IsDeviceLocatorServiceEnabled" if is_ios => Some(Value::Boolean(self.find_my)),
            "AwaitingConfiguration" => Some(Value::Boolean(self.awaiting)),
            "MDMOptions" if !withheld => Some(Value::Dictionary(dictionary([(
                "ActivationLockAllowedWhileSupervised",
                Value::Boolean(self.allowed),
            )]))),
            "IMEI" if self.tells_top_level() => string(&spaced(self.radio.imeis.first()?)),
            "MEID" if self.tells_top_level() => string(self.radio.meid.as_ref()?),
            "ServiceSubscriptions" if is_ios && !withheld => {
                Some(Value::Array(self.subscriptions()))
            }
            _ => None,
        }
    }

    fn tells_top_level(&self) -> bool {
        self.spec.os_major < 26 && self.spec.kind != Kind::UserEnrollment
    }

    fn subscriptions(&self) -> Vec<Value> {
        const SLOTS: [&str; 2] = ["CTSubscriptionSlotOne", "CTSubscriptionSlotTwo"];
        let mut entries = Vec::new();
        for (index, imei) in self.radio.imeis.iter().enumerate() {
            let mut entry = dictionary([
                ("IMEI", Value::String(spaced(imei))),
                (
                    "EID",
                    Value::String(format!(
                        "8904903200000000000000{:010}",
                        self.spec.seed % 10_000_000_000
                    )),
                ),
                (
                    "Label",
                    Value::String(if index == 0 { "Primary" } else { "Secondary" }.to_owned()),
                ),
                ("IsDataPreferred", Value::Boolean(index == 0)),
            ]);
            if !(index == 1 && self.spec.slot_order == SlotOrder::SecondUnnamed) {
                entry.insert("Slot".to_owned(), Value::String(SLOTS[index].to_owned()));
            }
            // The second slot reports one too on some devices; it must not be used.
            if let Some(meid) = &self.radio.meid {
                let meid = if index == 0 {
                    meid.clone()
                } else {
                    imei[..14].to_owned()
                };
                entry.insert("MEID".to_owned(), Value::String(meid));
            }
            entries.push(Value::Dictionary(entry));
        }
        if self.spec.slot_order == SlotOrder::Reversed {
            entries.reverse();
        }
        entries
    }

    fn security_info(&self) -> Dictionary {
        let kind = self.spec.kind;
        let mut status = dictionary([
            ("EnrolledViaDEP", Value::Boolean(kind.is_supervised())),
            (
                "IsUserEnrollment",
                Value::Boolean(kind == Kind::UserEnrollment),
            ),
        ]);
        if kind.is_mac() {
            status.insert("UserApprovedEnrollment".to_owned(), Value::Boolean(true));
            status.insert(
                "IsActivationLockManageable".to_owned(),
                Value::Boolean(kind == Kind::Mac),
            );
        }
        dictionary([("ManagementStatus", Value::Dictionary(status))])
    }

    /// `Acknowledged` even where an item fails, as devices do.
    fn settings(&mut self, command: &Dictionary) -> Answer {
        let items = command
            .get("Settings")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let results: Vec<Dictionary> = items.iter().map(|item| self.setting(item)).collect();
        let result = match self.settings_form {
            SettingsForm::Array => {
                Value::Array(results.into_iter().map(Value::Dictionary).collect())
            }
            SettingsForm::Dictionary => {
                Value::Dictionary(results.into_iter().next().unwrap_or_default())
            }
        };
        acknowledged(dictionary([("Settings", result)]))
    }

    fn setting(&mut self, item: &Value) -> Dictionary {
        let name = item
            .as_dictionary()
            .and_then(|item| text(item, "Item"))
            .unwrap_or_default()
            .to_owned();
        let allowed = item
            .as_dictionary()
            .and_then(|item| item.get("MDMOptions")?.as_dictionary())
            .and_then(|options| {
                options
                    .get("ActivationLockAllowedWhileSupervised")?
                    .as_boolean()
            });
        let mut result = dictionary([("Item", Value::String(name.clone()))]);
        let failure = match allowed {
            _ if self.settings_errors > 0 => {
                self.settings_errors -= 1;
                Some(ErrorItem::new(
                    "MCSettingsErrorDomain",
                    28001,
                    "The setting could not be applied.",
                ))
            }
            Some(allowed) if name == "MDMOptions" => {
                // Without supervision the option is taken and ignored.
                self.allowed = allowed && self.spec.kind.is_supervised();
                None
            }
            _ => Some(ErrorItem::new(
                "MCSettingsErrorDomain",
                28000,
                "Unknown setting item.",
            )),
        };
        let status = if failure.is_some() {
            "Error"
        } else {
            "Acknowledged"
        };
        result.insert("Status".to_owned(), Value::String(status.to_owned()));
        if let Some(item) = failure {
            result.insert("ErrorChain".to_owned(), chain(&[item]));
        }
        result
    }
}
