//! What the mount's user may do, asked for where something was refused: every user may ask that of itself.

use std::collections::BTreeSet;

use etcfs_client::ClientError;
use etcfs_proto::authpb::permission;
use etcfs_proto::etcdserverpb::{AuthRoleGetRequest, AuthUserGetRequest};
use etcfs_proto::key::{KeyRange, KeySet};

use super::Server;

/// The keys that a user may read, and those that he may write.
#[derive(Debug, Default)]
pub struct Rights {
    pub read: KeySet,
    pub write: KeySet,
    granted: BTreeSet<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Rights {
    /// True iff all of the range may be read, and written.
    pub fn cover(&self, range: &KeyRange, written: bool) -> bool {
        self.read.covers(range) && (!written || self.write.covers(range))
    }

    /// Ranges that may be read, as they were granted.
    pub fn readable(&self) -> impl Iterator<Item = KeyRange> {
        self.granted
            .iter()
            .map(|(start, end)| KeyRange { start: start.clone().into(), end: end.clone().map(Into::into) })
    }
}

impl Server {
    /// False for a mount that logs in as nobody.
    pub fn has_user(&self) -> bool {
        self.user.is_some()
    }

    /// The user's rights by all of its roles; `None` for a mount that is nobody, or root.
    pub async fn rights(&self) -> Result<Option<Rights>, ClientError> {
        let Some(user) = &self.user else { return Ok(None) };
        let auth = self.client.auth();
        let roles = auth.user_get(AuthUserGetRequest { name: user.clone() }).await?.roles;
        let mut rights = Rights::default();
        for role in roles {
            if role == "root" {
                return Ok(None);
            }
            for granted in auth.role_get(AuthRoleGetRequest { role }).await?.perm {
                let range = KeyRange::from_request(&granted.key, &granted.range_end);
                let kind = granted.perm_type();
                if kind != permission::Type::Write {
                    let end = range.end.as_ref().map(|end| end.to_vec());
                    rights.granted.insert((range.start.to_vec(), end));
                    rights.read.insert(&range);
                }
                if kind != permission::Type::Read {
                    rights.write.insert(&range);
                }
            }
        }
        Ok(Some(rights))
    }
}
