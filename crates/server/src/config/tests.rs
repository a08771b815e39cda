use super::*;

fn config(text: &str) -> Result<Config, (usize, String)> {
    Config::parse(text)
}

#[test]
fn the_least_is_a_data_folder() {
    let config = config("[data]\nfolder = \"/srv/lockwarden\"\n").unwrap();
    let settings = config.settings().unwrap();
    assert!(settings.listen.ip().is_loopback());
    assert_eq!(settings.in_flight, 8);
    assert!((settings.pace.per_second - 5.0).abs() < f64::EPSILON);
    assert!(!config.process.core_dumps);
    assert!(matches!(config.key_source(None), Err(ConfigError::NoKey)));
}

#[test]
fn a_database_is_named_once_and_its_password_is_in_a_file() {
    let of = |lines: &str| {
        let text = format!("[data]\nfolder = \"x\"\n[database]\n{lines}\n");
        config(&text).unwrap().database()
    };
    assert!(matches!(of(""), Ok(Database::Embedded)));
    let open = of("address = \"postgres://u:secret@h/d\"").unwrap_err();
    assert!(matches!(open, ConfigError::OpenPassword));
    assert!(!open.to_string().contains("secret"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("address");
    std::fs::write(&file, "postgres://u:secret@h/d\n").unwrap();
    let file = format!("address_file = \"{}\"", file.display());
    let Ok(Database::Postgres(address)) = of(&file) else {
        panic!("a server is named")
    };
    assert_eq!(address.to_string(), "postgres://u@h:5432/d");
    let twice = of(&format!("{file}\naddress = \"postgres://u@h/d\""));
    assert!(matches!(twice, Err(ConfigError::TwoAddresses)));
    let text = "[data]\nfolder = \"x\"\n[database]\nallow = [\"fsync\", \"sync\"]\n";
    let bad = config(text).unwrap().settings().unwrap_err();
    assert!(matches!(bad, ConfigError::Allow));
}

#[test]
fn a_misspelt_key_is_refused_and_named() {
    let (line, says) =
        config("[data]\nfolder = \"x\"\n[listen]\nadress = \"127.0.0.1:1\"\n").unwrap_err();
    assert_eq!(line, 4);
    assert!(says.contains("adress"), "{says}");
}

#[test]
fn r23_no_value_is_repeated() {
    for lines in [
        "[keys]\nkey = \"a-secret, expected a-secret\"",
        "[keys]\nkey_file = [\"a-secret\"]",
        "[work]\nin_flight = \"a-secret, expected a-secret\"",
        "[log]\nformat = \"a-secret\"",
        "[listen]\naddress = \"a-secret\"",
        "[listen]\npublic_url = \"a-secret\"",
        "[keys]\nkey_file = \"a-secret",
        "[keys]\nkey_file = a-secret",
        "[keys]\na-secret",
        "a-secret",
    ] {
        let (line, says) = config(&format!("[data]\nfolder = \"x\"\n{lines}\n")).unwrap_err();
        assert!(!says.contains("a-secret"), "{lines}: {says}");
        assert!(line >= 3 && !says.contains('\n'), "{lines}: {line}: {says}");
    }
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() {
    for (lines, why) in [
        ("[listen]\ncertificate_file = \"a.pem\"", "both"),
        ("[listen]\npublic_url = \"https://me@host/\"", "public_url"),
        ("[apple]\nurl = \"https://apple.com/path\"", "path"),
        ("[apple]\nurl = \"http://apple.com\"", "https"),
        (
            "[apple]\nenrolment_url = \"http://apple.com\"",
            "enrolment_url",
        ),
        ("[apple]\ntoken_url = \"http://apple.com/t\"", "token_url"),
        (
            "[single_sign_on]\nissuer = \"http://id.example.org\"\nclient_id = \"x\"\ngroups = []",
            if cfg!(feature = "oidc") {
                "issuer"
            } else {
                "oidc"
            },
        ),
        ("[apple]\nlist_minutes = 0", "list_minutes"),
        ("[apple]\ntimeout_seconds = 0", "timeout"),
        ("[work]\nin_flight = 1", "in_flight"),
        ("[work]\ncalls_per_second = -1.0", "calls_per_second"),
    ] {
        let config = config(&format!("[data]\nfolder = \"x\"\n{lines}\n")).unwrap();
        let error = config.settings().unwrap_err().to_string();
        assert!(error.contains(why), "{lines}: {error}");
    }
}
