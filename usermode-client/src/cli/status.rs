//! `fwbctl status`.

use protocol::Phase;
use serde::Serialize;

use super::output::{Output, facts};
use crate::{Client, Error};

#[derive(Serialize)]
pub(super) struct Status {
    driver: Driver,
    limits: Limits,
    staged: Staged,
}

#[derive(Serialize)]
struct Driver {
    version: String,
    protocol: u16,
    policy: String,
    session: u64,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the protocol")]
struct Limits {
    max_request_bytes: u32,
    max_read_bytes: u32,
    max_image_bytes: u64,
    max_name_bytes: u32,
    max_handles_per_session: u32,
    max_staged_bytes: u64,
}

#[derive(Serialize)]
struct Staged {
    images: usize,
    bytes: u64,
}

pub(super) fn status(client: &mut Client) -> Result<Status, Error> {
    let images = client.list()?;
    let ready = || images.iter().filter(|image| image.phase == Phase::Ready.code());
    let hello = client.limits();
    let [major, minor, patch] = hello.driver;
    Ok(Status {
        driver: Driver {
            version: format!("{major}.{minor}.{patch}"),
            protocol: hello.version,
            policy: hello.policy().map_or_else(|| format!("unknown ({})", hello.policy), |p| p.name().into()),
            session: hello.session_id,
        },
        limits: Limits {
            max_request_bytes: hello.max_request_bytes,
            max_read_bytes: hello.max_read_bytes,
            max_image_bytes: hello.max_image_bytes,
            max_name_bytes: hello.max_name_bytes,
            max_handles_per_session: hello.max_handles_per_session,
            max_staged_bytes: hello.max_staged_bytes,
        },
        staged: Staged { images: ready().count(), bytes: ready().fold(0, |sum, image| sum.saturating_add(image.size)) },
    })
}

impl Output for Status {
    fn text(&self) -> String {
        facts(&[
            ("driver", format!("fwbroker {}", self.driver.version)),
            ("protocol", self.driver.protocol.to_string()),
            ("policy", self.driver.policy.clone()),
            ("session", self.driver.session.to_string()),
            (
                "staged",
                format!(
                    "{} images, {} of {} bytes",
                    self.staged.images, self.staged.bytes, self.limits.max_staged_bytes
                ),
            ),
            ("largest image", format!("{} bytes", self.limits.max_image_bytes)),
            ("largest read", format!("{} bytes", self.limits.max_read_bytes)),
            ("largest request", format!("{} bytes", self.limits.max_request_bytes)),
            ("longest name", format!("{} bytes", self.limits.max_name_bytes)),
            ("handles per session", self.limits.max_handles_per_session.to_string()),
        ])
    }
}
