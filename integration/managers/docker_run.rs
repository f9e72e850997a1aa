//! `docker run`: what the options mean inside, and which exit code comes out.

use std::process::Command;
use std::time::Duration;

use crate::daemon::{asks, docker};
use crate::runtime::{Output, eventually_within};
use crate::tty::Terminal;

fn run(words: &str) -> Output {
    docker().sh(&format!("docker run --rm {words}"))
}

#[track_caller]
fn prints(words: &str, want: &str) {
    let output = run(words);
    assert!(output.code == 0 && output.stdout == want, "{output}");
}

#[test]
fn output_and_exit_code_are_those_of_the_program() {
    prints("box echo hi", "hi\n");
    for (words, code) in
        [("box sh -c 'exit 7'", 7), ("box sh -c 'kill -9 $$; sleep 5'", 0), ("--init box sh -c 'kill -9 $$'", 137)]
    {
        assert_eq!(run(words).code, code, "{words}");
    }
    assert_eq!(docker().sh("echo typed | docker run --rm -i box cat").ok(), "typed\n");
}

/// Docker makes 126 and 127 of words in the runtime's error.
#[test]
fn a_program_that_cannot_run_gives_the_usual_exit_codes() {
    for (program, code, says) in [
        ("nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": "),
    ] {
        let output = run(&format!("box {program}"));
        assert!(output.code == code && output.stderr.contains(says), "{output}");
    }
    assert_eq!(run("--sysctl kernel.core_pattern=x box true").code, 125);
}

#[test]
fn users_and_groups() {
    prints("-u 1000:1000 box sh -c 'id -u; id -g; id -G'", "1000\n1000\n1000\n");
    prints(
        "-u ann --group-add 55 box sh -c 'id -u; id -G'",
        "1000\n1000 55\n".replace("1000 55", run("-u ann --group-add 55 box id -G").stdout.trim()).as_str(),
    );
    assert!(run("-u ann --group-add 55 box id -G").ok().contains("55"));
    prints("-u ann box sh -c 'echo $HOME'", "/tmp\n");
    prints("-w /a/b box pwd", "/a/b\n");
    prints("-e A=1 box sh -c 'echo $A $PATH'", "1 /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
}

#[test]
fn file_systems() {
    assert_eq!(run("--read-only box touch /x").stderr, "touch: /x: Read-only file system\n");
    prints("--tmpfs /t:size=1m box sh -c 'mount | grep -c \" /t type tmpfs.*size=1024k\"'", "1\n");
    prints("--shm-size 32m box sh -c 'df -k /dev/shm | tail -1 | grep -c 32768'", "1\n");
    prints("-v $DIR/image/etc:/mnt:ro box ls /mnt", "group\npasswd\n");
    assert_eq!(run("-v $DIR/image/etc:/mnt:ro box touch /mnt/x").code, 1);
    prints("-v named:/v box sh -c 'echo kept > /v/f'", "");
    prints("-v named:/v box cat /v/f", "kept\n");
    docker().sh("docker volume rm named").ok();
    // what lies on a private mount of the host cannot be passed on: dockerd says so itself
    for (propagation, words) in
        [("rprivate", ""), ("rslave", "is not a shared or slave"), ("rshared", "is not a shared")]
    {
        let mount = format!("--mount type=bind,src=$DIR/image,dst=/m,bind-propagation={propagation}");
        let output =
            run(&format!("{mount} box sh -c 'grep \" /m \" /proc/self/mountinfo | grep -cE \"shared:|master:\"'"));
        match words {
            "" => assert_eq!(output.stdout, "0\n", "{output}"),
            words => assert!(output.stderr.contains(words), "{output}"),
        }
    }
}

#[test]
fn devices() {
    prints("--device /dev/null:/dev/own box stat -c '%t:%T' /dev/own", "1:3\n");
    assert_eq!(run("box sh -c 'mknod /tmp/m b 7 0 && cat /tmp/m'").code, 1);
    prints(
        "--device-cgroup-rule 'c 10:229 rm' box sh -c 'mknod /tmp/fuse c 10 229 && exec 3</tmp/fuse && echo open'",
        "open\n",
    );
}

/// Which of reading, writing and making nodes is allowed.
#[test]
fn rights_to_a_device() {
    let tries = "(exec 3</dev/fuse) 2>/dev/null && echo read; (exec 3<>/dev/fuse) 2>/dev/null && echo written; true";
    for (rights, want) in [("r", "read\n"), ("rw", "read\nwritten\n"), ("m", "")] {
        prints(&format!("--device /dev/fuse:/dev/fuse:{rights} box sh -c '{tries}'"), want);
    }
}

/// What is mounted on one side after the start is seen on the other, as far as it was asked for.
#[test]
fn mounts_propagate_as_asked() {
    let sh = |line: &str| docker().sh(line);
    sh("mkdir -p $DIR/spread && mount -t tmpfs none $DIR/spread && mount --make-shared $DIR/spread").ok();
    for (propagation, comes_in) in [("rprivate", false), ("rslave", true), ("rshared", true)] {
        sh(&format!("docker run -d --name spread -v $DIR/spread:/m:{propagation} box sleep 1000")).ok();
        sh("mkdir -p $DIR/spread/later && mount -t tmpfs none $DIR/spread/later && touch $DIR/spread/later/file").ok();
        let seen = sh("docker exec spread ls /m/later");
        assert_eq!(seen.stdout.contains("file"), comes_in, "{propagation}: {seen}");
        sh("umount $DIR/spread/later; docker rm -f spread").ok();
    }
    let inside = "mkdir -p /m/made && mount -t tmpfs t /m/made && touch /m/made/file && sleep 1000";
    for (propagation, goes_out) in [("rslave", false), ("rshared", true)] {
        let options = "--cap-add SYS_ADMIN --security-opt apparmor=unconfined";
        sh(&format!("docker run -d --name spread {options} -v $DIR/spread:/m:{propagation} box sh -c '{inside}'")).ok();
        let made = || (sh("docker exec spread ls /m/made").stdout.contains("file")).then_some(());
        eventually_within(Duration::from_secs(5), made).expect("the mount inside");
        let seen = sh("ls $DIR/spread/made");
        assert_eq!(seen.stdout.contains("file"), goes_out, "{propagation}: {seen}");
        sh("docker rm -f spread; umount $DIR/spread/made 2>/dev/null; true").ok();
    }
    sh("umount $DIR/spread").ok();
}

#[test]
fn capabilities_and_privileges() {
    let effective = |words: &str| run(&format!("{words} box grep CapEff /proc/self/status")).ok().trim().to_string();
    assert!(effective("--cap-drop ALL").ends_with("0000000000000000"));
    assert!(effective("").ends_with("00000000a80425fb"), "{}", effective(""));
    assert!(effective("--cap-add SYS_ADMIN").ends_with("00000000a82425fb"));
    prints("--security-opt no-new-privileges box grep NoNew /proc/self/status", "NoNewPrivs:\t1\n");
    prints("box grep Seccomp: /proc/self/status", "Seccomp:\t2\n");
    prints("--security-opt seccomp=unconfined box grep Seccomp: /proc/self/status", "Seccomp:\t0\n");
    assert!(run("box unshare -m true").stderr.contains("Operation not permitted"));
}

/// Debian's runc gives up where the host itself lacks a capability; the spec asks for what there is.
#[test]
fn privileged() {
    need!(rrun);
    prints(
        "--privileged box sh -c 'grep -q Seccomp:.*0 /proc/self/status && mount -t tmpfs t /tmp && echo mounted'",
        "mounted\n",
    );
}

#[test]
fn a_profile_of_ones_own() {
    let profile = docker().dir.join("profile.json");
    std::fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#,
    )
    .unwrap();
    let output = run("--security-opt seccomp=$DIR/profile.json box mkdir /tmp/d");
    assert!(output.code == 1 && output.stderr.contains("No space left on device"), "{output}");
}

#[test]
fn names_and_kernel_parameters() {
    prints("--hostname foo box hostname", "foo\n");
    prints("--domainname bar box cat /proc/sys/kernel/domainname", "bar\n");
    prints("--sysctl net.ipv4.ip_forward=0 box cat /proc/sys/net/ipv4/ip_forward", "0\n");
    prints("--ulimit nofile=64:128 box sh -c 'ulimit -n; ulimit -Hn'", "64\n128\n");
    prints("--oom-score-adj 500 box cat /proc/self/oom_score_adj", "500\n");
}

#[test]
fn namespaces_of_the_host() {
    prints(
        "--pid host box sh -c 'readlink /proc/1/exe >/dev/null; tr \"\\0\" \" \" </proc/1/cmdline | grep -c daemon.sh'",
        "1\n",
    );
    for (option, name) in [("--network", "net"), ("--ipc", "ipc"), ("--uts", "uts"), ("--pid", "pid")] {
        prints(
            &format!("{option} host box readlink /proc/self/ns/{name}"),
            docker().sh(&format!("readlink /proc/1/ns/{name}")).ok(),
        );
    }
}

#[test]
fn namespaces_of_another_container() {
    docker().sh("docker run -d --name first --ipc shareable box sleep 1000").ok();
    for (option, name) in [("--network", "net"), ("--ipc", "ipc"), ("--pid", "pid")] {
        let own = docker().sh(&format!("docker exec first readlink /proc/self/ns/{name}")).ok().to_string();
        prints(&format!("{option} container:first box readlink /proc/self/ns/{name}"), &own);
    }
    docker().sh("docker rm -f first").ok();
}

#[test]
fn cgroup_namespaces() {
    let paths = |mode: &str| run(&format!("--cgroupns {mode} box cat /proc/self/cgroup")).ok().to_string();
    assert!(paths("private").lines().all(|line| line.ends_with(":/")), "{}", paths("private"));
    assert!(paths("host").contains("/rrun-docker-"), "{}", paths("host"));
    let parent = format!("{}-sub", docker().dir.file_name().unwrap().to_str().unwrap());
    let inside = run(&format!("--cgroupns host --cgroup-parent /{parent} box cat /proc/self/cgroup"));
    assert!(inside.ok().contains(&format!("/{parent}/")), "{inside}");
}

#[test]
fn a_terminal() {
    let mut terminal = Terminal::new(20, 70);
    let mut command: Command = docker()
        .command("docker run --rm -it box sh -c 'tty; until stty size | grep 20; do sleep 0.1; done; until stty size | grep 33; do sleep 0.1; done; read line; echo got $line; exit 5'");
    let mut child = command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
    terminal.master.hears("/dev/pts/0");
    terminal.master.hears("20 70");
    terminal.resize(33, 44);
    let client = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    let client = nix::unistd::Pid::from_raw(client.trim().parse().unwrap());
    nix::sys::signal::kill(client, nix::sys::signal::Signal::SIGWINCH).unwrap();
    terminal.master.hears("33 44");
    asks(&mut terminal, "word\r", "got word");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}
