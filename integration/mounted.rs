//! The mounts of a container, by the lines of mountinfo as a program inside has read them.

/// One of them. By proc(5).
#[derive(Debug)]
pub struct Mounted {
    pub point: String,
    /// The directory of its file system that is mounted.
    pub root: String,
    /// Of this mount.
    pub options: Vec<String>,
    /// `shared:N`, `master:N`, `unbindable`.
    pub propagation: Vec<String>,
    pub fstype: String,
    pub source: String,
    /// Of the file system.
    pub super_options: Vec<String>,
}

impl Mounted {
    pub fn parse(mountinfo: &str) -> Vec<Self> {
        let words = |list: &str| list.split(',').map(String::from).collect();
        let line = |line: &str| {
            let (this, filesystem) = line.split_once(" - ").expect("a line of mountinfo");
            let (this, filesystem): (Vec<_>, Vec<_>) = (this.split(' ').collect(), filesystem.split(' ').collect());
            Self {
                root: this[3].into(),
                point: this[4].into(),
                options: words(this[5]),
                propagation: this[6..].iter().map(|field| field.to_string()).collect(),
                fstype: filesystem[0].into(),
                source: filesystem[1].into(),
                super_options: words(filesystem[2]),
            }
        };
        mountinfo.lines().map(line).collect()
    }

    pub fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    pub fn filesystem_has(&self, option: &str) -> bool {
        self.super_options.iter().any(|o| o == option)
    }
}

/// The mount that is seen at `point`: the last one made there.
#[track_caller]
pub fn mount_at<'a>(mounts: &'a [Mounted], point: &str) -> &'a Mounted {
    mounts.iter().rev().find(|mount| mount.point == point).unwrap_or_else(|| panic!("nothing at {point}: {mounts:#?}"))
}
