use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

/// Plain directories stand in for cgroups: what is tested is what is made of the text of files.
fn source(dir: &Path, version: Version, files: &[(&str, &str)]) -> Source {
    files.iter().for_each(|(file, text)| fs::write(dir.join(file), text).unwrap());
    Source { directory: Directory::at(dir).unwrap().0, version }
}

fn told<T: Serialize>(version: Version, tell: fn(&Source) -> Result<T>, files: &[(&str, &str)]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    serde_json::to_value(tell(&source(dir.path(), version, files)).unwrap()).unwrap()
}

use Version::{V1, V2};

#[test]
fn numbers() {
    for (text, want) in [
        ("0\n", Some(0)),
        ("18446744073709551615\n", Some(u64::MAX)),
        ("max\n", Some(u64::MAX)),
        ("-1\n", Some(0)),
        ("18446744073709551616", None),
        ("", None),
        ("x", None),
    ] {
        assert_eq!(number(text), want, "{text:?}");
    }
    assert_eq!(
        table("a 1\nb  2\nc\nd x\ne max\n\n"),
        [("a".into(), 1), ("b".into(), 2), ("e".into(), u64::MAX)].into()
    );
}

#[test]
fn time_on_processors() {
    let v1 = [
        ("cpuacct.usage", "9530661\n"),
        ("cpuacct.stat", "user 3\nsystem 4\n"),
        ("cpuacct.usage_percpu", "6806474 2724187 \n"),
        ("cpuacct.usage_all", "cpu user system\n0 10 20\n1 30 40 50\n"),
    ];
    let want = json!({"total": 9530661, "percpu": [6806474, 2724187], "percpu_kernel": [20, 40], "percpu_user": [10, 30],
        "kernel": 40_000_000, "user": 30_000_000});
    assert_eq!(told(V1, cpu::usage, &v1), want);
    let v2 =
        [("cpu.stat", "usage_usec 7\nuser_usec 2\nsystem_usec 5\nnr_periods 3\nnr_throttled 2\nthrottled_usec 9\n")];
    assert_eq!(told(V2, cpu::usage, &v2), json!({"total": 7000, "kernel": 5000, "user": 2000}));
    let throttled = |time: u64| json!({"periods": 3, "throttledPeriods": 2, "throttledTime": time});
    assert_eq!(told(V2, cpu::throttling, &v2), throttled(9000));
    let v1 = [("cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 9\nnr_bursts 1\n")];
    assert_eq!(told(V1, cpu::throttling, &v1), throttled(9));
    for version in [V1, V2] {
        assert_eq!(told(version, cpu::usage, &[]), json!({"kernel": 0, "user": 0}));
        assert_eq!(told(version, cpu::throttling, &[]), json!({}));
    }
}

#[test]
fn processors_and_nodes() {
    let files = [
        ("cpuset.cpus", "0-2,7\n"),
        ("cpuset.mems", "0\n"),
        ("cpuset.sched_load_balance", "1\n"),
        ("cpuset.sched_relax_domain_level", "-1\n"),
        ("cpu_exclusive", "1\n"),
    ];
    let mut want = json!({"cpus": [0, 1, 2, 7], "cpu_exclusive": 1, "mems": [0], "mem_hardwall": 0, "mem_exclusive": 0,
        "memory_migrate": 0, "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
        "sched_load_balance": 1, "sched_relax_domain_level": -1});
    assert_eq!(told(V1, cpuset::cpuset, &files), want);
    for key in ["cpu_exclusive", "sched_load_balance", "sched_relax_domain_level"] {
        want[key] = json!(0);
    }
    ["cpus", "mems"].iter().for_each(|key| drop(want.as_object_mut().unwrap().remove(*key)));
    assert_eq!(told(V2, cpuset::cpuset, &files), want);
}

#[test]
fn memory_of_v1() {
    let files = [
        ("memory.stat", "cache 12\nrss 28\nhierarchical_memory_limit 9223372036854771712\n"),
        ("memory.usage_in_bytes", "70\n"),
        ("memory.max_usage_in_bytes", "80\n"),
        ("memory.failcnt", "2\n"),
        ("memory.limit_in_bytes", "90\n"),
        ("memory.memsw.usage_in_bytes", "75\n"),
        ("memory.memsw.limit_in_bytes", "99\n"),
        // without a limit on newer kernels
        ("memory.kmem.usage_in_bytes", "5\n"),
    ];
    let want = json!({
        "cache": 12,
        "usage": {"limit": 90, "usage": 70, "max": 80, "failcnt": 2},
        "swap": {"limit": 99, "usage": 75, "failcnt": 0},
        "kernel": {"limit": 0, "usage": 5, "failcnt": 0},
        "raw": {"cache": 12, "rss": 28, "hierarchical_memory_limit": 9223372036854771712u64},
    });
    assert_eq!(told(V1, memory::memory, &files), want);
    assert_eq!(told(V1, memory::memory, &[]), json!({}));
}

#[test]
fn memory_of_v2_is_told_as_v1_would() {
    let stat = ("memory.stat", "anon 3\nfile 12\n");
    let events = ("memory.events", "low 0\nhigh 0\nmax 6\noom 1\noom_kill 1\n");
    for (current, limit, swap, usage, swapped) in [
        (
            "70",
            "90",
            Some(("5", "10")),
            json!({"limit": 90, "usage": 70, "max": 80, "failcnt": 6}),
            json!({"limit": 100, "usage": 75, "failcnt": 0}),
        ),
        (
            "70",
            "max",
            Some(("0", "10")),
            json!({"limit": u64::MAX, "usage": 70, "max": 80, "failcnt": 6}),
            json!({"limit": u64::MAX, "usage": 70, "failcnt": 0}),
        ),
        (
            "70",
            "90",
            Some(("1", "max")),
            json!({"limit": 90, "usage": 70, "max": 80, "failcnt": 6}),
            json!({"limit": u64::MAX, "usage": 71, "failcnt": 0}),
        ),
        // swap is not counted
        (
            "70",
            "90",
            None,
            json!({"limit": 90, "usage": 70, "max": 80, "failcnt": 6}),
            json!({"limit": 90, "usage": 70, "failcnt": 0}),
        ),
    ] {
        let mut files = vec![stat, events, ("memory.current", current), ("memory.max", limit), ("memory.peak", "80")];
        files.extend(swap.iter().flat_map(|(now, max)| [("memory.swap.current", *now), ("memory.swap.max", *max)]));
        let want = json!({"cache": 12, "usage": usage, "swap": swapped, "raw": {"anon": 3, "file": 12}});
        assert_eq!(told(V2, memory::memory, &files), want, "{limit} {swap:?}");
    }
    assert_eq!(told(V2, memory::memory, &[]), json!({}), "a cgroup without the controller");
}

#[test]
fn processes() {
    for (files, want) in [
        (&[("pids.current", "3\n"), ("pids.max", "99\n")][..], json!({"current": 3, "limit": 99})),
        (&[("pids.current", "3\n"), ("pids.max", "max\n")], json!({"current": 3})),
        (&[("pids.current", "0\n"), ("pids.max", "0\n")], json!({})),
        (&[("cgroup.threads", "17\n18\n")], json!({"current": 2})),
        (&[], json!({})),
    ] {
        assert_eq!(told(V2, pids::pids, files), want, "{files:?}");
    }
}

#[test]
fn disks_of_v1_are_counted_by_who_is_at_work() {
    let of = |op: &str, value: u64| match op {
        "" => json!({"major": 8, "value": value}),
        op => json!({"major": 8, "minor": 16, "op": op, "value": value}),
    };
    let bytes = ("blkio.throttle.io_service_bytes_recursive", "8:16 Read 4096\n8:16 Total 4096\nTotal 4096\n");
    let serviced = ("blkio.throttle.io_serviced_recursive", "8:16 Read 1\nTotal 1\n");
    let throttled = json!({"ioServiceBytesRecursive": [of("Read", 4096), of("Total", 4096)],
        "ioServicedRecursive": [of("Read", 1)]});
    let bfq = [
        ("blkio.bfq.io_serviced_recursive", "8:16 Write 5\n"),
        ("blkio.bfq.io_service_bytes_recursive", "8:16 Write 6\n"),
    ];
    let bfq_told = json!({"ioServiceBytesRecursive": [of("Write", 6)], "ioServicedRecursive": [of("Write", 5)]});
    let cfq = [("blkio.sectors_recursive", "8:0 9\n"), ("blkio.io_queued_recursive", "8:16 Read 2\n")];
    let cfq_told = json!({"sectorsRecursive": [of("", 9)], "ioQueueRecursive": [of("Read", 2)]});
    for (files, want) in [
        (vec![serviced, bytes], throttled.clone()),
        ([&bfq[..], &[serviced, bytes]].concat(), bfq_told),
        ([&cfq[..], &[serviced, bytes]].concat(), cfq_told),
        // its files are there, and no disk has that scheduler
        (vec![("blkio.bfq.io_serviced_recursive", "Total 0\n"), serviced, bytes], throttled),
        (vec![("blkio.throttle.io_serviced", "8:16 Read 1\n")], json!({"ioServicedRecursive": [of("Read", 1)]})),
        (vec![("blkio.throttle.io_serviced", "what\n8 Read 1\n8:x Read 1\n8:1 Read x\n")], json!({})),
        (vec![], json!({})),
    ] {
        assert_eq!(told(V1, blkio::blkio, &files), want, "{files:?}");
    }
}

#[test]
fn disks_of_v2() {
    let of = |minor: u64, op: &str, value: u64| match minor {
        0 => json!({"major": 8, "op": op, "value": value}),
        minor => json!({"major": 8, "minor": minor, "op": op, "value": value}),
    };
    for (text, want) in [
        (
            "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7\n8:16 rbytes=8\n",
            json!({"ioServiceBytesRecursive": [of(0, "Read", 1), of(0, "Write", 2), of(16, "Read", 8)],
                "ioServicedRecursive": [of(0, "Read", 3), of(0, "Write", 4)]}),
        ),
        ("8:0\n", json!({})),
        ("8:0 \n(unknown) rbytes=1\n8:0 rbytes=x\n", json!({})),
        ("", json!({})),
    ] {
        assert_eq!(told(V2, blkio::blkio, &[("io.stat", text)]), want, "{text:?}");
    }
}

#[test]
fn huge_pages_by_their_size() {
    let v1 = [
        ("hugetlb.2MB.usage_in_bytes", "1"),
        ("hugetlb.2MB.rsvd.usage_in_bytes", "2"),
        ("hugetlb.2MB.max_usage_in_bytes", "3"),
        ("hugetlb.2MB.rsvd.max_usage_in_bytes", "4"),
        ("hugetlb.2MB.failcnt", "5"),
        ("hugetlb.2MB.rsvd.failcnt", "6"),
        // before Linux 5.7
        ("hugetlb.1GB.usage_in_bytes", "7"),
        ("hugetlb.1GB.max_usage_in_bytes", "8"),
        ("hugetlb.1GB.failcnt", "9"),
    ];
    let want = json!({"2MB": {"usage": 2, "max": 4, "failcnt": 6}, "1GB": {"usage": 7, "max": 8, "failcnt": 9}});
    assert_eq!(told(V1, hugetlb::hugetlb, &v1), want);
    let v2 = [
        ("hugetlb.2MB.current", "1"),
        ("hugetlb.2MB.rsvd.current", "2"),
        ("hugetlb.2MB.max", "max"),
        ("hugetlb.2MB.events", "max 3\n"),
        ("hugetlb.1GB.current", "0"),
    ];
    let want = json!({"2MB": {"usage": 2, "failcnt": 3}, "1GB": {"failcnt": 0}});
    assert_eq!(told(V2, hugetlb::hugetlb, &v2), want);
}

#[test]
fn pressure_is_told_as_the_kernel_does() {
    let tell: fn(&Source) -> _ = |source| pressure::pressure(source, "cpu.pressure");
    let zero = json!({"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0});
    for (text, want) in [
        (
            "some avg10=1.50 avg60=0.25 avg300=100.00 total=18446744073709551615\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
            json!({"some": {"avg10": 1.5, "avg60": 0.25, "avg300": 100.0, "total": u64::MAX},
                "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 7}}),
        ),
        // of the processor, before Linux 5.13
        ("some avg10=NaN avg60=x total=-1\nmore avg10=1\n", json!({"some": zero, "full": zero})),
    ] {
        assert_eq!(told(V2, tell, &[("cpu.pressure", text)]), want, "{text:?}");
    }
    assert_eq!(told(V2, tell, &[]), Value::Null);
}

#[test]
fn devices_of_rdma_and_resources_of_misc() {
    let files = [
        ("rdma.max", "mlx5_0 hca_handle=2 hca_object=max\nmlx5_1 hca_handle=max hca_object=max\n"),
        ("rdma.current", "mlx5_0 hca_handle=1 hca_object=0\nnothing\n"),
    ];
    let want = json!({
        "rdma_limit": [{"device": "mlx5_0", "hca_handles": 2, "hca_objects": u32::MAX},
            {"device": "mlx5_1", "hca_handles": u32::MAX, "hca_objects": u32::MAX}],
        "rdma_current": [{"device": "mlx5_0", "hca_handles": 1}],
    });
    for version in [V1, V2] {
        assert_eq!(told(version, more::rdma, &files), want);
    }
    let files = [("misc.current", "sev 3\nsev_es 0\n"), ("misc.events", "sev.max 4\nsev_es.max 0\nodd 1\n")];
    assert_eq!(told(V2, more::misc, &files), json!({"sev": {"usage": 3, "events": 4}, "sev_es": {}}));
}

#[test]
fn keys_stand_in_the_order_that_readers_know() {
    let text = serde_json::to_string(&Stats::default()).unwrap();
    let want = r#"{"cpu":{},"cpuset":{"cpu_exclusive":0,"mem_hardwall":0,"mem_exclusive":0,"memory_migrate":0,"memory_spread_page":0,"memory_spread_slab":0,"memory_pressure":0,"sched_load_balance":0,"sched_relax_domain_level":0},"memory":{},"pids":{},"blkio":{},"hugetlb":{},"intel_rdt":{},"network_interfaces":null}"#;
    assert_eq!(text, want);
}
