//! A check, made by the compiler, that no secret of this crate can be printed.

use std::fmt::{Debug, Display};

use crate::checkpoint::CheckpointKey;
use crate::{
    DataKey, Fingerprint, KeyEncryptionKey, Keyring, Mac, Password, PasswordHash, RecoveryKey,
    TokenHash, TotpSecret,
};

/// Does not compile when `$type` implements `$bound`: then two implementations could answer `mute`.
macro_rules! refuse {
    ($($type:ty: $bound:path;)*) => {$(
        const _: fn() = || {
            trait Ambiguous<Answer> {
                fn mute() {}
            }
            struct Prints;
            impl<T: ?Sized> Ambiguous<()> for T {}
            impl<T: ?Sized + $bound> Ambiguous<Prints> for T {}
            let _ = <$type as Ambiguous<_>>::mute;
        };
    )*};
}

refuse! {
    KeyEncryptionKey: Debug; KeyEncryptionKey: Display; KeyEncryptionKey: Clone;
    RecoveryKey: Debug; RecoveryKey: Display; RecoveryKey: Clone;
    DataKey: Debug; DataKey: Display; DataKey: Clone;
    Keyring: Debug; Keyring: Display; Keyring: Clone;
    CheckpointKey: Debug; CheckpointKey: Display; CheckpointKey: Clone;
    Fingerprint: Debug; Fingerprint: Display;
    Mac: Debug; Mac: Display;
    TokenHash: Debug; TokenHash: Display;
    Password: Debug; Password: Display; Password: Clone;
    PasswordHash: Debug; PasswordHash: Display;
    TotpSecret: Debug; TotpSecret: Display; TotpSecret: Clone;
}
