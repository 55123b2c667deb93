//! A comparison as etcdctl spells it: `mod("key") > "0"`.

use etcfs_proto::etcdserverpb::{
    Compare,
    compare::{CompareResult, CompareTarget, TargetUnion},
};

use crate::{
    error::{CliError, Kind},
    words,
};

/// Parses `target("key") operator "operand"`.
pub(super) fn parse(line: &str) -> Result<Compare, CliError> {
    let malformed = || CliError::new(Kind::Input, format!("malformed comparison: {line}"));
    let (target, rest) = line.split_once('(').ok_or_else(malformed)?;
    let (key, rest) = words::unquote(rest.trim_start()).ok_or_else(malformed)?;
    let rest = rest.trim_start().strip_prefix(')').ok_or_else(malformed)?.trim_start();
    let (operator, rest) = rest.split_once(|c: char| c.is_whitespace() || c == '"').ok_or_else(malformed)?;
    let at = rest.len() + 1;
    let (operand, rest) = words::unquote(line[line.len() - at..].trim_start()).ok_or_else(malformed)?;
    if !rest.trim().is_empty() {
        return Err(malformed());
    }
    let result = match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(malformed().hint("the operators are =, !=, < and >")),
    };
    let number = |radix| {
        let text = std::str::from_utf8(&operand).ok();
        text.and_then(|text| i64::from_str_radix(text, radix).ok())
            .ok_or_else(|| CliError::new(Kind::Input, format!("invalid txn compare request: {line}")))
    };
    let (target, union) = match target.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(operand.into())),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        other => {
            let message = format!("malformed comparison: {line} (unknown target {other})");
            return Err(CliError::new(Kind::Input, message));
        }
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        ..Compare::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_takes_its_operand() {
        for (line, union) in [
            (r#"mod("a") > "3""#, TargetUnion::ModRevision(3)),
            (r#"m("a")>"3""#, TargetUnion::ModRevision(3)),
            (r#"ver("a") = "1""#, TargetUnion::Version(1)),
            (r#"create("a") != "0""#, TargetUnion::CreateRevision(0)),
            (r#"value("a") < "x)(\n""#, TargetUnion::Value("x)(\n".into())),
            (r#"lease("a") = "1f""#, TargetUnion::Lease(0x1f)),
        ] {
            let compare = parse(line).unwrap();
            assert_eq!((compare.key.as_ref(), compare.target_union), (&b"a"[..], Some(union)), "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            r#"foo("a") > "0""#,
            "mod(a) > 0",
            r#"mod("a") ! "0""#,
            r#"mod("a") > "x""#,
            "get a",
            r#"mod("a") > "0" x"#,
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
