#!/usr/bin/env python3
"""Makes the plists of this folder with Python's plistlib, each as XML and as binary.

The keys are those of the contract sheet, sections 3 and 6. The codes are published test vectors, the devices are made up.
Run it in this folder: python3 make.py
"""

import pathlib
import plistlib

UDID = "00008101-000A2D3C0E10001E"
TOPIC = "com.apple.mgmt.External.51135151-5115-4115-8115-511351135113"
COMMAND = "0197a1de-7a4c-7000-8000-000000000001"


def report(status, **keys):
    return {"UDID": UDID, "CommandUUID": COMMAND, "Status": status, **keys}


def told(**responses):
    return report("Acknowledged", QueryResponses=responses)


def link(code, domain, english):
    return {
        "ErrorCode": code,
        "ErrorDomain": domain,
        "LocalizedDescription": "Das geht nicht.",
        "USEnglishDescription": english,
    }


PHONE = {
    "SerialNumber": "DMPTEST00002",
    "UDID": UDID,
    "ProductName": "iPhone17,3",
    "ModelName": "iPhone",
    "DeviceName": "Front desk \N{MOBILE PHONE} 2",
    "OSVersion": "26.1",
    "IsSupervised": True,
    "IsMultiUser": False,
    "IsActivationLockEnabled": True,
    "IsDeviceLocatorServiceEnabled": True,
    "AwaitingConfiguration": False,
    "MDMOptions": {"ActivationLockAllowedWhileSupervised": True},
}

SLOT_ONE = {
    "Slot": "CTSubscriptionSlotOne",
    "IMEI": "35 882334 083223 0",
    "MEID": "35882334083223",
    "EID": "89049032004008882600004821436874",
    "Label": "Primary",
    "IsDataPreferred": True,
    "CurrentCarrierNetwork": "Example",
}
SLOT_TWO = {
    "Slot": "CTSubscriptionSlotTwo",
    "IMEI": "35 882334 083224 8",
    "MEID": "35882334083224",
    "EID": "89049032004008882600004821436875",
}

NO_CODE = link(12021, "MCMDMErrorDomain", "\u201cActivationLockBypassCode\u201d is not a valid request type.")
UNSUPERVISED = link(29000, "MCChaperoneErrorDomain", "The device is not supervised.")
NO_ITEM = {
    "Item": "MDMOptions",
    "Status": "Error",
    "ErrorChain": [link(28000, "MCSettingsErrorDomain", "Unknown item.")],
}

FILES = {
    "authenticate-ipad": {
        "MessageType": "Authenticate",
        "Topic": TOPIC,
        "UDID": UDID,
        "SerialNumber": "DMPTEST00001",
        "ProductName": "iPad8,12",
        "Model": "MXNE2LL",
        "ModelName": "iPad",
        "DeviceName": "iPad",
        "OSVersion": "17.2",
        "BuildVersion": "21C62",
        "IMEI": "35 882334 083223 0",
        "MEID": "a0000009123456",
    },
    "authenticate-user-enrollment": {
        "MessageType": "Authenticate",
        "Topic": TOPIC,
        "EnrollmentID": "0A1B2C3D-ENROLLMENT",
        "ProductName": "iPhone17,3",
        "OSVersion": "18.0",
    },
    "token-update-awaiting": {
        "MessageType": "TokenUpdate",
        "Topic": TOPIC,
        "UDID": UDID,
        "Token": bytes(range(32)),
        "PushMagic": "3E5B8C2A-0F3D-4E9F-9E7B-2D1C0B9A8F7E",
        "UnlockToken": bytes(range(200)),
        "AwaitingConfiguration": True,
    },
    "token-update-user": {
        "MessageType": "TokenUpdate",
        "Topic": TOPIC,
        "UDID": UDID,
        "Token": bytes(range(32)),
        "PushMagic": "3E5B8C2A-0F3D-4E9F-9E7B-2D1C0B9A8F7E",
        "UserID": "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "UserShortName": "anna@example.org",
        "UserLongName": "Anna",
        "NotOnConsole": False,
    },
    "check-out": {"MessageType": "CheckOut", "Topic": TOPIC, "UDID": UDID},
    "set-bootstrap-token": {"MessageType": "SetBootstrapToken", "UDID": UDID, "BootstrapToken": b"\0\1\2"},
    "idle": {"UDID": UDID, "Status": "Idle"},
    "code": report("Acknowledged", ActivationLockBypassCode="3UM43-PUYVY-QYD1-UVCC-HEHJ-FKA4"),
    "code-empty": report("Acknowledged", ActivationLockBypassCode=""),
    "code-missing": report("Acknowledged"),
    "code-opaque": report("Acknowledged", ActivationLockBypassCode=" not a code: \N{LATIN SMALL LETTER E WITH ACUTE}<&> "),
    "error-12021": report("Error", ErrorChain=[NO_CODE]),
    "error-29000": report("Error", ErrorChain=[UNSUPERVISED, NO_CODE]),
    "command-format-error": report("CommandFormatError"),
    "not-now": report("NotNow"),
    "information-dual-sim-reversed": told(**PHONE, ServiceSubscriptions=[SLOT_TWO, SLOT_ONE]),
    "information-slot-unnamed": told(
        **PHONE, ServiceSubscriptions=[{k: v for k, v in SLOT_TWO.items() if k != "Slot"}, SLOT_ONE]
    ),
    "information-wifi": told(
        SerialNumber="DMPTEST00001", UDID=UDID, ProductName="iPad4,1", ModelName="iPad", OSVersion="12.5.7", IsSupervised=True
    ),
    "information-top-level": told(
        **PHONE | {"OSVersion": "15.8"}, IMEI="35 882334 083223 0", MEID="35882334083223"
    ),
    "information-mac": told(
        SerialNumber="C02TEST00003",
        UDID="4C4C4544-0000-2010-8020-80C04F202020",
        ProductName="MacBookPro17,1",
        ModelName="MacBook Pro",
        OSVersion="15.1",
        IsSupervised=True,
        IsActivationLockEnabled=False,
        IsActivationLockSupported=True,
        AwaitingConfiguration=False,
    ),
    "information-odd": told(
        SerialNumber=17,
        UDID=["no"],
        ProductName="MXNE2LL/A",
        ModelName={"no": "no"},
        OSVersion=17.2,
        IsSupervised="true",
        IMEI="35 88x334 083223 0",
        MEID="",
        MDMOptions=[],
        ServiceSubscriptions={"Slot": "CTSubscriptionSlotOne"},
    ),
    "security-mac": report(
        "Acknowledged",
        SecurityInfo={
            "FDE_Enabled": True,
            "ManagementStatus": {
                "EnrolledViaDEP": True,
                "IsActivationLockManageable": True,
                "IsUserEnrollment": False,
                "UserApprovedEnrollment": True,
            },
        },
    ),
    "security-flat": report(
        "Acknowledged", SecurityInfo={"IsActivationLockManageable": False, "EnrolledViaDEP": False}
    ),
    "settings-done": report("Acknowledged", Settings=[{"Item": "MDMOptions", "Status": "Acknowledged"}]),
    "settings-failed-array": report(
        "Acknowledged", Settings=[{"Item": "DeviceName", "Status": "Acknowledged"}, NO_ITEM]
    ),
    "settings-failed-dictionary": report("Acknowledged", Settings=NO_ITEM),
    "settings-failed-by-name": report("Acknowledged", Settings={"MDMOptions": NO_ITEM}),
    "settings-failed-without-reason": report("Acknowledged", Settings=[{"Item": "MDMOptions", "Status": "Error"}]),
}

folder = pathlib.Path(__file__).parent
for name, content in FILES.items():
    (folder / f"{name}.xml").write_bytes(plistlib.dumps(content, fmt=plistlib.FMT_XML, sort_keys=False))
    (folder / f"{name}.bin").write_bytes(plistlib.dumps(content, fmt=plistlib.FMT_BINARY, sort_keys=False))
