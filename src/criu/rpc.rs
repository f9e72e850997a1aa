//! What rrun and CRIU say to each other, in the encoding of protocol buffers: as much of CRIU's images/rpc.proto as rrun
//! uses, by its numbers. Fields that it does not know are skipped by both sides. Texts that hold paths are bytes here, which
//! are written alike.

use prost::Message;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Kind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(int32, required, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, boxed, tag = "2")]
    pub options: Option<Box<Options>>,
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
    /// Another request follows. Taken for questions alone.
    #[prost(bool, optional, tag = "4")]
    pub keep_open: Option<bool>,
    #[prost(message, optional, tag = "5")]
    pub features: Option<Features>,
}

impl Request {
    pub fn of(kind: Kind) -> Self {
        Self { kind: kind as i32, ..Self::default() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct Options {
    /// Of the process at the other end of the socket, as the next two.
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub ext_unix_sk: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    pub evasive_devices: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    #[prost(message, optional, tag = "11")]
    pub page_server: Option<PageServer>,
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    #[prost(bytes = "vec", optional, tag = "13")]
    pub root: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "14")]
    pub parent_images: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "15")]
    pub track_mem: Option<bool>,
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    #[prost(message, repeated, tag = "23")]
    pub external_mounts: Vec<ExternalMount>,
    #[prost(bool, optional, tag = "24")]
    pub manage_cgroups: Option<bool>,
    #[prost(message, repeated, tag = "25")]
    pub cgroup_roots: Vec<CgroupRoot>,
    #[prost(bool, optional, tag = "26")]
    pub restore_sibling: Option<bool>,
    #[prost(message, repeated, tag = "27")]
    pub inherited_fds: Vec<InheritedFd>,
    #[prost(int32, optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    #[prost(uint32, optional, tag = "38")]
    pub empty_namespaces: Option<u32>,
    #[prost(message, repeated, tag = "39")]
    pub joined_namespaces: Vec<JoinedNamespace>,
    #[prost(bytes = "vec", optional, tag = "44")]
    pub freeze_cgroup: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    #[prost(bytes = "vec", optional, tag = "51")]
    pub config_file: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "52")]
    pub tcp_close: Option<bool>,
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
    #[prost(int32, optional, tag = "64")]
    pub network_lock: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct PageServer {
    #[prost(string, optional, tag = "1")]
    pub address: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub port: Option<i32>,
}

/// At a dump: a mountpoint inside, and the name it gets in the images. At a restore: that name, and what is bound there.
#[derive(Clone, PartialEq, Message)]
pub struct ExternalMount {
    #[prost(bytes = "vec", required, tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", required, tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct JoinedNamespace {
    #[prost(string, required, tag = "1")]
    pub namespace: String,
    #[prost(string, required, tag = "2")]
    pub file: String,
}

/// `fd` is one of CRIU's own, whose owner started it.
#[derive(Clone, PartialEq, Message)]
pub struct InheritedFd {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct CgroupRoot {
    #[prost(string, optional, tag = "1")]
    pub controller: Option<String>,
    #[prost(string, required, tag = "2")]
    pub path: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Features {
    #[prost(bool, optional, tag = "1")]
    pub mem_track: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    pub lazy_pages: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(int32, required, tag = "1")]
    pub kind: i32,
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    #[prost(message, optional, tag = "5")]
    pub notice: Option<Notice>,
    #[prost(int32, optional, tag = "7")]
    pub errno: Option<i32>,
    #[prost(message, optional, tag = "8")]
    pub features: Option<Features>,
    /// The first error of its log.
    #[prost(string, optional, tag = "9")]
    pub message: Option<String>,
    #[prost(message, optional, tag = "10")]
    pub version: Option<Version>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Notice {
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Version {
    #[prost(int32, required, tag = "1")]
    pub major: i32,
    #[prost(int32, required, tag = "2")]
    pub minor: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_protocol_buffers() {
        let options = Options {
            images_dir_fd: 5,
            pid: Some(300),
            root: Some(b"/r".to_vec()),
            external_mounts: vec![ExternalMount { key: b"/a".to_vec(), value: b"/b".to_vec() }],
            network_lock: Some(3),
            ..Options::default()
        };
        let request = Request { options: Some(Box::new(options)), ..Request::of(Kind::Dump) };
        let want = [
            &[0x08, 1, 0x12, 24][..],
            &[0x08, 5, 0x10, 0xac, 0x02],
            &[0x6a, 2, b'/', b'r'],
            &[0xba, 0x01, 8, 0x0a, 2, b'/', b'a', 0x12, 2, b'/', b'b'],
            &[0x80, 0x04, 3],
        ]
        .concat();
        let mut want = want;
        want[3] = (want.len() - 4) as u8;
        assert_eq!(request.encode_to_vec(), want);
        assert_eq!(Request::decode(want.as_slice()).unwrap(), request);
    }

    #[test]
    fn what_a_newer_criu_adds_is_skipped() {
        // type NOTIFY, success, notify { script, pid, field 99 }, status 11, field 100
        let said =
            [&[0x08, 6, 0x10, 1, 0x2a, 12, 0x0a, 4][..], b"x-y-", &[0x10, 7, 0x98, 0x06, 1, 0x58, 4], &[0xa0, 0x06, 9]]
                .concat();
        let mut said = said;
        said[5] = 4 + 2 + 2 + 3;
        let response = Response::decode(said.as_slice()).unwrap();
        let notice = Notice { script: Some("x-y-".into()), pid: Some(7) };
        assert_eq!((response.kind, response.success, response.notice), (Kind::Notify as i32, true, Some(notice)));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&[0x08][..], &[0x2a, 200, 1], &[0xff; 12]] {
            assert!(Response::decode(bytes).is_err(), "{bytes:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_taken_or_refused(bytes: Vec<u8>) {
            let _ = Response::decode(bytes.as_slice());
        }
    }
}
