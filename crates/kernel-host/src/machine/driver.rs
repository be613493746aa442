//! A loaded driver.


/// A loaded driver image.
#[derive(Debug)]
pub struct Driver {
    /// Image file name, such as `fwbroker.sys`.
    pub name: String,
}

impl Driver {
    /// A driver that exists in name only, for unit tests of exports.
    #[cfg(test)]
    pub(crate) fn without_image(name: &str) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self { name: name.to_owned() })
    }
}
