//! The devices: search, filters, pages.

use activation_lock::lock::OurLock;
use escrow::coverage::CoverageState;
use escrow::devices::{DeviceSummary, Filter};
use escrow::permit::{Permit, Read};
use url::form_urlencoded;

use super::*;
use crate::http::api::ConnectionNames;

/// Rows a page.
const PAGE: usize = 50;

#[derive(Template)]
#[template(path = "devices.html")]
pub(super) struct DevicesPage {
    frame: Frame,
    search: String,
    choices: Vec<Choice>,
    rows: Vec<Row>,
    /// The address of the next page.
    next: Option<String>,
    is_filtered: bool,
    /// The MDMs, where there are several.
    mdms: Vec<Mdm>,
    /// Where all that fit are done at once.
    every_one: String,
}

/// An MDM that can be chosen.
struct Mdm {
    name: String,
    link: String,
    is_chosen: bool,
}

/// A filter that can be chosen.
struct Choice {
    name: &'static str,
    link: String,
    is_chosen: bool,
}

/// A device of the list.
struct Row {
    device: DeviceSummary,
    connection: Option<String>,
}

impl Row {
    fn called(&self) -> &str {
        let device = &self.device;
        device
            .device_name
            .as_deref()
            .or(device.model_name.as_deref())
            .unwrap_or("")
    }

    fn badge(&self) -> Badge {
        Badge::of(&self.device)
    }
}

/// How it stands with a device's code, in a word and a colour.
pub(super) struct Badge {
    pub(super) word: &'static str,
    pub(super) class: &'static str,
}

impl Badge {
    pub(super) fn of(device: &DeviceSummary) -> Self {
        let (word, class) = match (device.coverage, device.window) {
            (CoverageState::Covered, _) => ("Code held", "good"),
            (CoverageState::Exempt, _) => ("No code needed", "calm"),
            (CoverageState::Missing, "closing") => ("Closing", "bad"),
            (CoverageState::Missing, "closed") => ("Too late", "bad"),
            (CoverageState::Missing, _) => ("No code yet", "warn"),
        };
        Self { word, class }
    }
}

/// What the address asks for.
#[derive(Clone, Default)]
pub(super) struct Asked {
    search: String,
    coverage: Option<CoverageState>,
    closing: bool,
    /// The identifier of an MDM connection.
    connection: Option<String>,
    product_type: Option<String>,
    lock: Option<OurLock>,
    cursor: Option<String>,
}

impl Asked {
    pub(super) fn read(query: &str) -> Self {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "search" => asked.search = value.trim().to_owned(),
                "coverage" => asked.coverage = serde_json::from_value((&*value).into()).ok(),
                "lock" => asked.lock = value.parse().ok(),
                "closing" => asked.closing = value == "true",
                "mdm" if !value.is_empty() => asked.connection = Some(value.into_owned()),
                "product_type" if !value.is_empty() => {
                    asked.product_type = Some(value.into_owned())
                }
                "cursor" => asked.cursor = Some(value.into_owned()),
                _ => {}
            }
        }
        asked
    }

    /// The same, as an address has it.
    fn pairs(&self) -> Vec<(&'static str, &str)> {
        let mut pairs = Vec::new();
        if !self.search.is_empty() {
            pairs.push(("search", self.search.as_str()));
        }
        pairs.extend(
            self.coverage
                .map(|coverage| ("coverage", coverage.as_str())),
        );
        if self.closing {
            pairs.push(("closing", "true"));
        }
        pairs.extend(self.connection.as_deref().map(|one| ("mdm", one)));
        pairs.extend(
            self.product_type
                .as_deref()
                .map(|one| ("product_type", one)),
        );
        pairs.extend(self.lock.map(|lock| ("lock", lock.as_str())));
        pairs.extend(self.cursor.as_deref().map(|one| ("cursor", one)));
        pairs
    }

    fn link(&self, frame: &Frame) -> String {
        frame.link("/devices", &self.pairs())
    }

    /// What is asked of the vault.
    pub(super) fn filter(&self) -> Filter {
        Filter {
            search: (!self.search.is_empty()).then(|| self.search.clone()),
            coverage: self.coverage,
            closing: self.closing,
            connection: self.connection.clone(),
            product_type: self.product_type.clone(),
            lock: self.lock,
        }
    }

    fn is_all(&self) -> bool {
        self.pairs().is_empty()
    }

    /// Which devices those are, as one says it.
    pub(super) fn in_words(&self) -> String {
        let mut words = vec!["Every device".to_owned()];
        if !self.search.is_empty() {
            words.push(format!("that \u{201c}{}\u{201d} is found in", self.search));
        }
        if let Some(product) = &self.product_type {
            words.push(format!("of the product type {product}"));
        }
        match self.coverage {
            Some(CoverageState::Covered) => words.push("whose code is held".to_owned()),
            Some(CoverageState::Missing) => words.push("without a code yet".to_owned()),
            Some(CoverageState::Exempt) => words.push("that needs no code".to_owned()),
            None => {}
        }
        if self.closing {
            words.push("whose days to give its code end soon".to_owned());
        }
        match self.lock {
            Some(OurLock::None) => words.push("that the organisation has not locked".to_owned()),
            Some(OurLock::Confirmed) => words.push("that the organisation locked".to_owned()),
            Some(OurLock::Unknown) => {
                words.push("on which a lock of the organisation may be".to_owned());
            }
            Some(OurLock::SomeoneElses) => words.push("that somebody else locked".to_owned()),
            None => {}
        }
        if self.connection.is_some() {
            words.push("of one MDM".to_owned());
        }
        format!("{}, as many as there are when you go on.", words.join(" "))
    }
}

pub(super) async fn list(visitor: Visitor, uri: Uri) -> Shown<DevicesPage> {
    let app = &visitor.app;
    let organisation = visitor.caller.organisation(app).await?;
    let actor = &visitor.caller.actor;
    let permit: Permit<Read> = app
        .escrow
        .authorise(actor, &organisation, "devices")
        .await?;
    let asked = Asked::read(uri.query().unwrap_or_default());
    let devices = app.escrow.devices();
    let page = devices
        .list(&permit, &asked.filter(), asked.cursor.as_deref(), PAGE)
        .await?;
    let names = ConnectionNames::read(app, &permit).await?;
    let frame = visitor.frame("Devices", &organisation).await?;
    let first = Asked {
        cursor: None,
        ..asked.clone()
    };
    let choice = |name, coverage, closing, lock| Choice {
        name,
        is_chosen: first.coverage == coverage && first.closing == closing && first.lock == lock,
        link: Asked {
            coverage,
            closing,
            lock,
            ..first.clone()
        }
        .link(&frame),
    };
    let choices = vec![
        choice("All", None, false, None),
        choice("Code held", Some(CoverageState::Covered), false, None),
        choice("No code yet", Some(CoverageState::Missing), false, None),
        choice("Closing soon", None, true, None),
        choice("No code needed", Some(CoverageState::Exempt), false, None),
        choice("Locked by us", None, false, Some(OurLock::Confirmed)),
        choice("Lock in doubt", None, false, Some(OurLock::Unknown)),
    ];
    let next = page.next.map(|cursor| {
        Asked {
            cursor: Some(cursor),
            ..asked.clone()
        }
        .link(&frame)
    });
    let of_mdm = |connection: Option<&str>, name: String| Mdm {
        is_chosen: first.connection.as_deref() == connection,
        link: Asked {
            connection: connection.map(str::to_owned),
            ..first.clone()
        }
        .link(&frame),
        name,
    };
    let known = app.escrow.connections().list(&permit).await?;
    let mut mdms = Vec::new();
    if known.len() > 1 || first.connection.is_some() {
        mdms.push(of_mdm(None, "Every MDM".to_owned()));
        mdms.extend(known.into_iter().map(|one| of_mdm(Some(&one.id), one.name)));
    }
    let all_of_them = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(first.pairs())
        .finish();
    let every_one = frame.link("/batches/new", &[("filter", &all_of_them)]);
    let rows = page.items.into_iter().map(|device| Row {
        connection: device.connection.as_deref().map(|id| names.of(id)),
        device,
    });
    let is_filtered = !asked.is_all();
    Ok(Page(
        StatusCode::OK,
        DevicesPage {
            search: asked.search,
            rows: rows.collect(),
            choices,
            mdms,
            every_one,
            next,
            frame,
            is_filtered,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        let asked = Asked {
            search: "a & b=c".to_owned(),
            coverage: Some(CoverageState::Missing),
            closing: true,
            connection: Some("c".to_owned()),
            product_type: Some("iPad4,1".to_owned()),
            lock: Some(OurLock::Unknown),
            cursor: Some("x/y".to_owned()),
        };
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(asked.pairs())
            .finish();
        assert_eq!(Asked::read(&query).pairs(), asked.pairs());
        assert!(Asked::read("").is_all());
    }
}
