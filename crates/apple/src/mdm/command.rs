//! Commands, as plists.

use plist::{Dictionary, Value};

/// A command for a device (contract sheet 3a to 3d).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// `ActivationLockBypassCode`.
    ActivationLockBypassCode,
    /// `DeviceInformation` with the queries that an unlock and the guard need (contract sheet 3d).
    DeviceInformation,
    /// `SecurityInfo`.
    SecurityInfo,
    /// `Settings` with `MDMOptions.ActivationLockAllowedWhileSupervised` (contract sheet 3.20).
    AllowActivationLock(bool),
}

/// What is asked of DeviceInformation: every field of [`DeviceInformation`](activation_lock::observation::DeviceInformation).
/// A device leaves out what it does not know or may not tell. `IMEI` and `MEID` are for systems before 26 (contract sheet
/// 3d).
const QUERIES: &[&str] = &[
    "SerialNumber",
    "UDID",
    "ProductName",
    "ModelName",
    "DeviceName",
    "OSVersion",
    "IsSupervised",
    "IsMultiUser",
    "IsActivationLockSupported",
    "IsActivationLockEnabled",
    "IsDeviceLocatorServiceEnabled",
    "AwaitingConfiguration",
    "MDMOptions",
    "ServiceSubscriptions",
    "IMEI",
    "MEID",
];

impl Command {
    /// Its `RequestType`.
    fn request_type(self) -> &'static str {
        match self {
            Self::ActivationLockBypassCode => "ActivationLockBypassCode",
            Self::DeviceInformation => "DeviceInformation",
            Self::SecurityInfo => "SecurityInfo",
            Self::AllowActivationLock(_) => "Settings",
        }
    }

    /// The command as an XML plist, under our CommandUUID.
    #[must_use]
    pub fn to_plist(self, command_uuid: &str) -> Vec<u8> {
        let mut command = dictionary([("RequestType", self.request_type().into())]);
        match self {
            Self::ActivationLockBypassCode | Self::SecurityInfo => {}
            Self::DeviceInformation => {
                let queries = QUERIES.iter().map(|query| Value::from(*query));
                command.insert("Queries".to_owned(), Value::Array(queries.collect()));
            }
            Self::AllowActivationLock(allowed) => {
                let options =
                    dictionary([("ActivationLockAllowedWhileSupervised", allowed.into())]);
                let item = dictionary([
                    ("Item", "MDMOptions".into()),
                    ("MDMOptions", Value::Dictionary(options)),
                ]);
                let items = Value::Array(vec![Value::Dictionary(item)]);
                command.insert("Settings".to_owned(), items);
            }
        }
        let whole = dictionary([
            ("CommandUUID", command_uuid.into()),
            ("Command", Value::Dictionary(command)),
        ]);
        let mut xml = Vec::new();
        Value::Dictionary(whole)
            .to_writer_xml(&mut xml)
            .expect("strings, truths and lists are written to memory without failing");
        xml
    }
}

fn dictionary<const N: usize>(pairs: [(&str, Value); N]) -> Dictionary {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(command: Command, uuid: &str) -> Dictionary {
        let xml = command.to_plist(uuid);
        assert!(xml.starts_with(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>"));
        let mut whole = Value::from_reader_xml(xml.as_slice())
            .unwrap()
            .into_dictionary()
            .unwrap();
        assert_eq!(whole.get("CommandUUID"), Some(&Value::from(uuid)));
        assert_eq!(whole.len(), 2, "nothing but the UUID and the command");
        whole.remove("Command").unwrap().into_dictionary().unwrap()
    }

    #[test]
    fn t19_the_bypass_code_is_asked_for_without_parameters() {
        let command = read_back(Command::ActivationLockBypassCode, "0191-A");
        assert_eq!(
            command,
            dictionary([("RequestType", "ActivationLockBypassCode".into())])
        );
        let command = read_back(Command::SecurityInfo, "0191-B");
        assert_eq!(
            command,
            dictionary([("RequestType", "SecurityInfo".into())])
        );
    }

    #[test]
    fn t27_device_information_asks_for_slots_and_for_the_old_keys() {
        let command = read_back(Command::DeviceInformation, "0191-C");
        assert_eq!(command.len(), 2);
        let queries: Vec<&str> = command["Queries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|query| query.as_string().unwrap())
            .collect();
        assert_eq!(queries, QUERIES);
        for needed in ["ServiceSubscriptions", "IMEI", "MEID", "ProductName"] {
            assert!(queries.contains(&needed), "{needed}");
        }
    }

    #[test]
    fn r7_the_permission_is_one_item_of_settings() {
        for allowed in [true, false] {
            let command = read_back(Command::AllowActivationLock(allowed), "0191-D");
            let options = dictionary([("ActivationLockAllowedWhileSupervised", allowed.into())]);
            let item = dictionary([
                ("Item", "MDMOptions".into()),
                ("MDMOptions", Value::Dictionary(options)),
            ]);
            let wanted = dictionary([
                ("RequestType", "Settings".into()),
                ("Settings", Value::Array(vec![Value::Dictionary(item)])),
            ]);
            assert_eq!(command, wanted);
        }
    }

    #[test]
    fn a_uuid_cannot_break_out_of_its_string() {
        read_back(Command::SecurityInfo, "</string><true/>&amp;\"");
    }
}
