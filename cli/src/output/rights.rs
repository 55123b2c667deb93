//! Users, roles and what they may touch.

use std::io::{self, Write};

use etcfs_proto::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{
        AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse, AuthUserGetResponse,
        AuthUserListResponse,
    },
    key::{TO_END, prefix_end},
};

use super::{Output, fields, json};
use crate::{error::CliError, words::quoted};

impl Output {
    pub(crate) fn auth_status(self, answer: &AuthStatusResponse) -> Result<(), CliError> {
        let (enabled, revision) = (answer.enabled, answer.auth_revision);
        self.write(
            answer,
            |out, _| writeln!(out, "Authentication Status: {enabled}\nAuthRevision: {revision}"),
            |out, answer| {
                fields::header(out, answer.header.as_ref())?;
                writeln!(out, "\"Enabled\" : {enabled}\n\"AuthRevision\" : {revision}")
            },
            |answer| {
                let object = json::headed(answer.header.as_ref());
                object.with("enabled", enabled).with("authRevision", revision).done()
            },
        )
    }

    pub(crate) fn role(self, name: &str, answer: &AuthRoleGetResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| self.rights(out, name, &answer.perm),
            |out, answer| {
                fields::header(out, answer.header.as_ref())?;
                answer.perm.iter().try_for_each(|permission| {
                    let kind = permission.perm_type().as_str_name();
                    writeln!(out, "\"PermType\" :  {kind}")?;
                    writeln!(out, "\"Key\" : {}", quoted(&permission.key))?;
                    writeln!(out, "\"RangeEnd\" : {}", quoted(&permission.range_end))
                })
            },
            |answer| {
                let permissions = answer.perm.iter().map(json::permission).collect::<serde_json::Value>();
                json::headed(answer.header.as_ref()).with("perm", permissions).done()
            },
        )
    }

    pub(crate) fn roles(self, answer: &AuthRoleListResponse) -> Result<(), CliError> {
        self.names(answer, answer.header.as_ref(), "roles", "Roles", &answer.roles)
    }

    pub(crate) fn user(self, name: &str, answer: &AuthUserGetResponse) -> Result<(), CliError> {
        self.write(
            answer,
            |out, answer| writeln!(out, "User: {name}\nRoles: {}", answer.roles.join(" ")),
            |out, answer| {
                fields::header(out, answer.header.as_ref())?;
                fields::names(out, "Roles", &answer.roles)
            },
            |answer| json::headed(answer.header.as_ref()).with("roles", answer.roles.clone()).done(),
        )
    }

    pub(crate) fn users(self, answer: &AuthUserListResponse) -> Result<(), CliError> {
        self.names(answer, answer.header.as_ref(), "users", "Users", &answer.users)
    }

    /// Keys as a permission names them: `key k`, `range [a, b)`.
    pub(crate) fn permitted(self, key: &[u8], range_end: &[u8]) -> String {
        let (key, end) = (self.key(key), self.key(range_end));
        let (key, end) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&end));
        match range_end {
            b"" => format!("key {key}"),
            TO_END => format!("range [{key}, <open ended>"),
            _ => format!("range [{key}, {end})"),
        }
    }

    fn rights(self, out: &mut impl Write, name: &str, permissions: &[Permission]) -> io::Result<()> {
        writeln!(out, "Role {name}")?;
        for (title, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
            writeln!(out, "{title}")?;
            let allowed = permissions
                .iter()
                .filter(|permission| [kind, Type::Readwrite].contains(&permission.perm_type()));
            for permission in allowed {
                out.write_all(b"\t")?;
                self.right(out, permission)?;
            }
        }
        Ok(())
    }

    fn right(self, out: &mut impl Write, permission: &Permission) -> io::Result<()> {
        let Permission { key, range_end, .. } = permission;
        if range_end.is_empty() {
            out.write_all(&self.key(key))?;
            return writeln!(out);
        }
        let what = self.permitted(key, range_end);
        write!(out, "{}", what.trim_start_matches("range "))?;
        if !key.is_empty() && *range_end == prefix_end(key) {
            write!(out, " (prefix ")?;
            out.write_all(&self.key(key))?;
            write!(out, ")")?;
        }
        writeln!(out)
    }
}
