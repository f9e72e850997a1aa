use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn parse_words(words: &[&str]) -> Result<Words> {
    parse(&words.iter().map(|word| (*word).to_string()).collect::<Vec<_>>(), "mounts[0]")
}

#[test]
fn every_option_is_unique_and_can_be_undone() {
    let mut names = BTreeSet::new();
    for (name, change) in ATTRIBUTES {
        assert!(names.insert(*name), "`{name}` is listed twice");
        let undo = match *change {
            Set(bit) => Clear(bit),
            Clear(bit) => Set(bit),
            Times(mode) => NotTimes(mode),
            NotTimes(mode) => Times(mode),
        };
        assert!(ATTRIBUTES.iter().any(|(_, other)| *other == undo), "nothing undoes `{name}`");
        if let Set(bit) = change {
            assert!(bit.is_power_of_two() && bit & ATIME == 0, "`{name}` is not one bit of its own");
        }
    }
}

#[test]
fn no_word_means_two_things() {
    let all = all_words();
    let unique: BTreeSet<_> = all.iter().collect();
    assert_eq!(unique.len(), all.len(), "{all:?}");
    assert!(all.is_sorted());
}

/// Every word that config.md lists for Linux, and three of crun's.
#[test]
fn the_words_of_the_spec_are_known() {
    let words = "async atime bind copy-symlink defaults dest-nofollow dev diratime dirsync exec idmap iversion lazytime \
        loud mand noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind \
        rdev rdiratime relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid \
        rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared \
        silent slave src-nofollow strictatime suid symfollow sync tmpcopyup unbindable";
    assert_eq!(all_words(), words.split_whitespace().collect::<Vec<_>>());
}

/// A word that is listed must not end as data of the file system, which would refuse it.
#[test]
fn every_listed_word_is_acted_on() {
    for word in all_words() {
        let words = parse_words(&[&word]).unwrap();
        assert!(words.data.is_empty(), "`{word}` became data");
        let without_effect = words == Words::default();
        assert_eq!(without_effect, WITHOUT_EFFECT.contains(&&*word), "`{word}` does nothing");
    }
}

#[test]
fn the_last_word_wins() {
    for (options, set, clear) in [
        (&["ro"][..], RDONLY, 0),
        (&["ro", "rw"], 0, RDONLY),
        (&["rw", "ro"], RDONLY, 0),
        (&["nosuid", "nodev", "suid"], NODEV, NOSUID),
        (&["relatime"], 0, ATIME),
        (&["noatime"], NOATIME, ATIME),
        (&["noatime", "strictatime"], STRICTATIME, ATIME),
        (&["strictatime", "relatime"], 0, ATIME),
        (&["noatime", "atime"], 0, ATIME),
        (&["atime"], 0, ATIME),
        (&["norelatime"], 0, ATIME),
        (&["noatime", "nostrictatime"], NOATIME, ATIME),
        (&["strictatime", "norelatime", "atime"], STRICTATIME, ATIME),
        (&["noatime", "nodiratime", "ro"], NOATIME | NODIRATIME | RDONLY, ATIME),
    ] {
        assert_eq!(parse_words(options).unwrap().attributes, AttrChange { set, clear }, "{options:?}");
        let recursive: Vec<String> = options.iter().map(|word| format!("r{word}")).collect();
        let words = parse(&recursive, "mounts[0]").unwrap();
        assert_eq!((words.recursive, words.attributes), (AttrChange { set, clear }, AttrChange::default()));
    }
}

#[test]
fn the_rest_goes_to_its_group() {
    let words = parse_words(&[
        "rbind",
        "rslave",
        "private",
        "sync",
        "lazytime",
        "mode=755",
        "newinstance",
        "context=\"a,b\"",
        "",
        "size=",
        "X-a=b=c",
    ]);
    let words = words.unwrap();
    let kinds = [(Slave, true), (Private, false)];
    assert_eq!(words.propagation, kinds.map(|(kind, recursive)| Propagation { kind, recursive }));
    assert!(words.bind && words.recursive_bind && !words.remount && !words.copy_up);
    let flag = |name: &str| Parameter::Flag(name.into());
    let value = |key: &str, value: &str| Parameter::Value(key.into(), value.into());
    assert_eq!(words.superblock, [flag("sync"), flag("lazytime")]);
    let data =
        [value("mode", "755"), flag("newinstance"), value("context", "a,b"), value("size", ""), value("X-a", "b=c")];
    assert_eq!(words.data, data);
}

#[test]
fn what_cannot_work_is_refused() {
    let long = format!("upperdir={}", "u".repeat(256));
    for (word, want) in [
        ("idmap=uids=0-1-1", "mounts[0].options[1]: idmap=uids=0-1-1 holds maps; write idmap"),
        ("ridmap=", "mounts[0].options[1]: ridmap= holds maps"),
        ("=755", "mounts[0].options[1]: =755 has no name before the ="),
        (&long, "mounts[0].options[1]: upperdir=uu"),
    ] {
        let error = parse_words(&["ro", word]).unwrap_err().to_string();
        assert!(error.starts_with(want), "{word}: {error}");
    }
}

fn any_word() -> impl Strategy<Value = String> {
    let known: Vec<String> = all_words();
    prop_oneof![4 => prop::sample::select(known), 1 => "[a-z=,/ ]{0,12}"]
}

proptest! {
    /// Said in words and read again, a change is the same.
    #[test]
    fn words_come_back(options in prop::collection::vec(any_word(), 0..12)) {
        let Ok(parsed) = parse(&options, "mounts[0]") else { return Ok(()) };
        for change in [parsed.attributes, parsed.recursive] {
            prop_assert_eq!(change.set & change.clear & !ATIME, 0, "a bit both set and cleared");
            let said = words(&change);
            let again: Vec<String> = said.split(',').map(String::from).collect();
            prop_assert_eq!(parse(&again, "mounts[0]").unwrap().attributes, change, "{}", said);
        }
    }

    /// One more word at the end decides its own bit, whatever stood before.
    #[test]
    fn a_later_word_wins(options in prop::collection::vec(any_word(), 0..12), last in 0..ATTRIBUTES.len()) {
        let (name, change) = ATTRIBUTES[last];
        let options: Vec<String> = options.into_iter().chain([name.to_string()]).collect();
        let Ok(parsed) = parse(&options, "mounts[0]") else { return Ok(()) };
        match change {
            NotTimes(mode) => prop_assert!(!Times(mode).is_in(&parsed.attributes) || mode == RELATIME),
            change => prop_assert!(change.is_in(&parsed.attributes), "{:?}", options),
        }
    }

    #[test]
    fn any_option_is_taken_or_refused(options in prop::collection::vec(any::<String>(), 0..8)) {
        let _ = parse(&options, "mounts[0]");
    }
}
