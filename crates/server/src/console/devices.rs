//! The devices: search, filters, pages.

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
struct Asked {
    search: String,
    coverage: Option<CoverageState>,
    closing: bool,
    product_type: Option<String>,
    cursor: Option<String>,
}

impl Asked {
    fn read(query: &str) -> Self {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "search" => asked.search = value.trim().to_owned(),
                "coverage" => asked.coverage = serde_json::from_value((&*value).into()).ok(),
                "closing" => asked.closing = value == "true",
                "product_type" if !value.is_empty() => {
                    asked.product_type = Some(value.into_owned())
                }
                "cursor" => asked.cursor = Some(value.into_owned()),
                _ => {}
            }
        }
        asked
    }

    /// The address of a list, from the frame's organisation on.
    fn link(&self, within: &str) -> String {
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        if !self.search.is_empty() {
            pairs.append_pair("search", &self.search);
        }
        if let Some(coverage) = self.coverage {
            pairs.append_pair("coverage", coverage.as_str());
        }
        if self.closing {
            pairs.append_pair("closing", "true");
        }
        if let Some(product) = &self.product_type {
            pairs.append_pair("product_type", product);
        }
        if let Some(cursor) = &self.cursor {
            pairs.append_pair("cursor", cursor);
        }
        let pairs = pairs.finish();
        let mut parts = [within.trim_start_matches('?'), &pairs]
            .into_iter()
            .filter(|part| !part.is_empty());
        match (parts.next(), parts.next()) {
            (Some(one), Some(other)) => format!("/devices?{one}&{other}"),
            (Some(one), None) => format!("/devices?{one}"),
            _ => "/devices".to_owned(),
        }
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
    let filter = Filter {
        search: (!asked.search.is_empty()).then(|| asked.search.clone()),
        coverage: asked.coverage,
        closing: asked.closing,
        connection: None,
        product_type: asked.product_type.clone(),
    };
    let devices = app.escrow.devices();
    let page = devices
        .list(&permit, &filter, asked.cursor.as_deref(), PAGE)
        .await?;
    let names = ConnectionNames::read(app, &permit).await?;
    let frame = visitor.frame("Devices", &organisation).await?;
    let first = Asked {
        cursor: None,
        ..asked.clone()
    };
    let choice = |name, coverage, closing| Choice {
        name,
        is_chosen: first.coverage == coverage && first.closing == closing,
        link: Asked {
            coverage,
            closing,
            ..first.clone()
        }
        .link(&frame.within),
    };
    let choices = vec![
        choice("All", None, false),
        choice("Code held", Some(CoverageState::Covered), false),
        choice("No code yet", Some(CoverageState::Missing), false),
        choice("Closing soon", None, true),
        choice("No code needed", Some(CoverageState::Exempt), false),
    ];
    let next = page.next.map(|cursor| {
        Asked {
            cursor: Some(cursor),
            ..asked.clone()
        }
        .link(&frame.within)
    });
    let rows = page.items.into_iter().map(|device| Row {
        connection: device.connection.as_deref().map(|id| names.of(id)),
        device,
    });
    let is_filtered = !asked.search.is_empty()
        || asked.coverage.is_some()
        || asked.closing
        || asked.product_type.is_some()
        || asked.cursor.is_some();
    Ok(Page(
        StatusCode::OK,
        DevicesPage {
            search: asked.search,
            rows: rows.collect(),
            choices,
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
            product_type: Some("iPad4,1".to_owned()),
            cursor: Some("x/y".to_owned()),
        };
        let link = asked.link("?organisation=A%20B");
        let (path, query) = link.split_once('?').unwrap();
        assert_eq!(path, "/devices");
        assert!(query.starts_with("organisation=A%20B&"));
        assert_eq!(Asked::read(query).link(""), asked.link(""));
        assert_eq!(Asked::default().link(""), "/devices");
        assert_eq!(
            Asked::default().link("?organisation=A"),
            "/devices?organisation=A"
        );
    }
}
