//! `idmap`, `ridmap`, `uidMappings` and `gidMappings` of a mount: whose ids it shows. Pure.
//!
//! The options ask for a map, the two lists say which; without lists it is that of the container's user namespace. Lists
//! alone are applied too: managers that know no option write only them.

use anyhow::{Result, bail, ensure};

use super::id_maps::{self, IdMaps, User, same};
use super::mount_options::Words;
use super::{MountIds, MountMaps, Source, spec};

/// What is known of the container's user namespace.
pub struct Container<'a> {
    pub user: User,
    /// Of a new one; of one that is joined where the config gives them.
    pub maps: Option<&'a IdMaps>,
    pub rootless: bool,
}

pub fn plan(
    mount: &spec::Mount,
    words: &Words,
    source: &Source,
    field: &str,
    container: &Container,
) -> Result<Option<MountIds>> {
    let lists = [("uidMappings", &mount.uid_mappings), ("gidMappings", &mount.gid_mappings)];
    let asked = match (words.idmap, lists.iter().find(|(_, list)| !list.is_empty())) {
        (false, None) => return Ok(None),
        (true, _) if words.recursive_idmap => "options: ridmap",
        (true, _) => "options: idmap",
        (false, Some((name, _))) => name,
    };
    ensure!(
        matches!(source, Source::Bind { .. }),
        "{field}.{asked}: only of a new bind mount ids can be mapped; remove it"
    );
    ensure!(
        !container.rootless,
        "{field}.{asked}: mapping the ids of a mount takes root's rights over its file system, which rrun does not have \
         here; remove it, or run rrun as root"
    );
    Ok(Some(MountIds { maps: maps(mount, field, asked, container)?, recursive: words.recursive_idmap }))
}

fn maps(mount: &spec::Mount, field: &str, asked: &str, container: &Container) -> Result<MountMaps> {
    let uids = id_maps::ranges(&format!("{field}.uidMappings"), &mount.uid_mappings)?;
    let gids = id_maps::ranges(&format!("{field}.gidMappings"), &mount.gid_mappings)?;
    match (uids.is_empty(), gids.is_empty()) {
        (true, true) if container.user == User::Shared => bail!(
            "{field}.{asked}: there is no map: give uidMappings and gidMappings of the mount, or the container a user \
             namespace"
        ),
        (true, true) => Ok(MountMaps::Container),
        (true, false) => bail!("{field}.uidMappings: missing; gidMappings cannot stand alone"),
        (false, true) => bail!("{field}.gidMappings: missing; uidMappings cannot stand alone"),
        (false, false) => {
            let equal = |maps: &&IdMaps| same(&maps.uids.ranges, &uids) && same(&maps.gids.ranges, &gids);
            Ok(match container.maps.filter(equal) {
                Some(_) => MountMaps::Container,
                None => MountMaps::Own { uids, gids },
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::mount_options;
    use super::*;
    use crate::host::Host;
    use crate::plan::SourceLink;
    use crate::plan::id_maps::IdRange;
    use crate::plan::spec::Linux;

    fn container_maps() -> IdMaps {
        let map =
            json!([{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 10, "hostID": 1010, "size": 5}]);
        let linux: Linux = serde_json::from_value(json!({"uidMappings": map, "gidMappings": map})).unwrap();
        id_maps::plan(&linux, User::New, &Host::default()).unwrap().unwrap()
    }

    fn planned(mount: &Value, user: User, rootless: bool) -> Result<Option<MountIds>, String> {
        let mount: spec::Mount = serde_json::from_value(mount.clone()).unwrap();
        let words = mount_options::parse(&mount.options, "m").unwrap();
        let source = match words.remount {
            true => Source::Remount { parameters: Vec::new() },
            false => Source::Bind { from: "/s".into(), recursive: true, symlink: SourceLink::Followed },
        };
        let maps = container_maps();
        let container = Container { user, maps: (user == User::New).then_some(&maps), rootless };
        plan(&mount, &words, &source, "m", &container).map_err(|error| error.to_string())
    }

    fn entry(container: u32, host: u32, size: u32) -> Value {
        json!([{"containerID": container, "hostID": host, "size": size}])
    }

    #[test]
    fn whose_ids_and_how_far() {
        let own = |host| MountMaps::Own {
            uids: vec![IdRange { container: 0, host, size: 7 }],
            gids: vec![IdRange { container: 5, host, size: 7 }],
        };
        let both =
            |options: Value| json!({"options": options, "uidMappings": entry(0, 9, 7), "gidMappings": entry(5, 9, 7)});
        for (mount, user, want) in [
            (json!({"options": ["bind"]}), User::New, None),
            (json!({"options": ["idmap"]}), User::New, Some((MountMaps::Container, false))),
            (json!({"options": ["idmap"]}), User::Joined, Some((MountMaps::Container, false))),
            (json!({"options": ["rbind", "ridmap"]}), User::New, Some((MountMaps::Container, true))),
            (json!({"options": ["ridmap", "idmap"]}), User::New, Some((MountMaps::Container, false))),
            (both(json!(["idmap"])), User::Shared, Some((own(9), false))),
            (both(json!(["ridmap"])), User::New, Some((own(9), true))),
            (both(json!(["rbind"])), User::Joined, Some((own(9), false))),
            // the container's own, in other words
            (
                json!({"uidMappings": entry(0, 1000, 15), "gidMappings": entry(0, 1000, 15)}),
                User::New,
                Some((MountMaps::Container, false)),
            ),
        ] {
            let want = want.map(|(maps, recursive)| MountIds { maps, recursive });
            assert_eq!(planned(&mount, user, false), Ok(want), "{mount} {user:?}");
        }
    }

    #[test]
    fn what_cannot_be_mapped() {
        for (mount, user, rootless, want) in [
            (json!({"options": ["idmap"]}), User::Shared, false, "m.options: idmap: there is no map"),
            (json!({"options": ["ridmap"]}), User::Shared, false, "m.options: ridmap: there is no map"),
            (
                json!({"options": ["idmap"]}),
                User::New,
                true,
                "m.options: idmap: mapping the ids of a mount takes root's",
            ),
            (json!({"uidMappings": entry(0, 1, 1)}), User::New, false, "m.gidMappings: missing"),
            (json!({"gidMappings": entry(0, 1, 1)}), User::Shared, false, "m.uidMappings: missing"),
            (
                json!({"uidMappings": entry(0, 1, 0), "gidMappings": entry(0, 1, 1)}),
                User::Shared,
                false,
                "m.uidMappings[0].size: 0",
            ),
            (
                json!({"uidMappings": entry(0, 1, 1), "gidMappings": [{"hostID": 1, "size": 1}]}),
                User::Shared,
                false,
                "m.gidMappings[0].containerID: missing",
            ),
            (
                json!({"options": ["remount", "bind", "idmap"]}),
                User::New,
                false,
                "m.options: idmap: only of a new bind mount",
            ),
        ] {
            let error = planned(&mount, user, rootless).unwrap_err();
            assert!(error.starts_with(want), "{mount}: {error}");
        }
    }
}
