//! Who may do what on the control socket: whoever may open it may look, and some may change things.

use nix::unistd::{Gid, Uid, User, getgrouplist};

/// What a connection may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything.
    Change,
    /// What changes nothing.
    Look,
    /// Health and metrics only: a TCP connection, which nobody's name is known of.
    Monitor,
}

/// Those who may change things: root, the daemon's user, and the members of the socket's group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owners {
    pub(super) user: u32,
    pub(super) group: u32,
}

impl Owners {
    /// What a peer with this user and primary group may do. Its other groups are those that the user database gives its
    /// user now: the kernel does not tell them with the connection.
    pub(super) fn access(self, user: u32, group: u32) -> Access {
        if user == 0 || user == self.user || group == self.group || self.is_member(user, group) {
            Access::Change
        } else {
            Access::Look
        }
    }

    fn is_member(self, user: u32, group: u32) -> bool {
        let Ok(Some(entry)) = User::from_uid(Uid::from_raw(user)) else { return false };
        let Ok(name) = std::ffi::CString::new(entry.name) else { return false };
        let groups = getgrouplist(&name, Gid::from_raw(group)).unwrap_or_default();
        entry.gid.as_raw() == self.group || groups.contains(&Gid::from_raw(self.group))
    }
}

impl Access {
    /// Whether a request with this method and path is allowed.
    pub(super) fn allows(self, is_get: bool, path: &str) -> bool {
        match self {
            Self::Change => true,
            // It is a question with a body.
            Self::Look => is_get || path == "/v1/route",
            Self::Monitor => is_get && matches!(path, "/healthz" | "/readyz" | "/metrics"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_the_owner_and_the_group_may_change_things_and_others_only_look() {
        // Numbers that no user database has.
        let owners = Owners { user: 3_999_000_001, group: 3_999_000_002 };
        for (user, group, access) in [
            (0, 0, Access::Change),
            (3_999_000_001, 5, Access::Change),
            (3_999_000_009, 3_999_000_002, Access::Change),
            (3_999_000_009, 3_999_000_009, Access::Look),
        ] {
            assert_eq!(owners.access(user, group), access, "{user} {group}");
        }
    }

    #[test]
    fn a_further_group_of_the_user_counts() {
        // Root's group in every user database, while the process that connected has switched to another one.
        let owners = Owners { user: 3_999_000_001, group: 0 };
        assert!(owners.is_member(0, 3_999_000_009));
        assert!(!owners.is_member(3_999_000_009, 3_999_000_009), "nobody of that number is known");
    }

    #[test]
    fn only_what_changes_nothing_is_open_to_those_who_may_look() {
        for (get, path, look, monitor) in [
            (true, "/v1/status", true, false),
            (true, "/metrics", true, true),
            (true, "/readyz", true, true),
            (false, "/v1/route", true, false),
            (false, "/v1/reload", false, false),
            (false, "/v1/pause", false, false),
            (false, "/v1/cancel", false, false),
            (false, "/metrics", false, false),
        ] {
            assert_eq!(Access::Look.allows(get, path), look, "{path}");
            assert_eq!(Access::Monitor.allows(get, path), monitor, "{path}");
            assert!(Access::Change.allows(get, path));
        }
    }
}
