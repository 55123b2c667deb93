//! The Auth service: there is no authentication yet, and it says so.

use std::sync::Arc;

use etcfs_proto::etcdserverpb::AuthStatusResponse;

use super::Headers;
use crate::mvcc::Store;

#[derive(Clone, Debug)]
pub struct Auth {
    pub store: Arc<Store>,
    pub headers: Headers,
}

impl Auth {
    pub fn status(&self) -> AuthStatusResponse {
        // etcd's auth revision starts at 1.
        AuthStatusResponse {
            header: self.headers.at(self.store.revision()),
            enabled: false,
            auth_revision: 1,
        }
    }
}
