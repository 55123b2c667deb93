//! Which branch a transaction takes.
//!
//! As in etcd the branches of nested transactions are chosen before anything
//! is done: their compares see the state before the whole transaction.

use std::{cmp::Ordering, ops::ControlFlow};

use etcfs_proto::{
    etcdserverpb::{
        Compare, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
    },
    mvccpb::KeyValue,
};

use super::{
    ReadError, View,
    read::{Bounds, Need},
    row,
};

/// The branch that a transaction takes.
#[derive(Debug)]
pub struct Branch<'a> {
    pub succeeded: bool,
    pub ops: &'a [RequestOp],
    /// The branches of the nested transactions among `ops`, in order.
    pub nested: Vec<Self>,
}

impl<'a> Branch<'a> {
    pub fn choose(view: &View<'_>, txn: &'a TxnRequest) -> Result<Self, ReadError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            if !holds(view, compare)? {
                succeeded = false;
                break;
            }
        }
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let nested = ops
            .iter()
            .filter_map(|op| match &op.request {
                Some(Request::RequestTxn(inner)) => Some(Self::choose(view, inner)),
                _ => None,
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { succeeded, ops, nested })
    }
}

/// True iff the compare holds for every key that it names.
fn holds(view: &View<'_>, compare: &Compare) -> Result<bool, ReadError> {
    let target = CompareTarget::try_from(compare.target).ok();
    let need = Need {
        facts: true,
        row: matches!(target, Some(CompareTarget::Value | CompareTarget::Lease)),
        ..Need::default()
    };
    let (mut any, mut all) = (false, true);
    view.walk(Bounds::of(&compare.key, &compare.range_end), false, need, |pair| {
        any = true;
        let facts = pair.facts;
        let mut kv = KeyValue {
            create_revision: facts.created,
            mod_revision: facts.revision.main,
            version: facts.version,
            ..KeyValue::default()
        };
        if need.row {
            let mut one = [pair];
            view.fill(&mut one)?;
            kv = one[0].row.as_ref().map(row::decode).unwrap_or_default();
        }
        all = pair_holds(compare, target, &kv);
        Ok(if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    if any {
        return Ok(all);
    }
    // No key: its numbers count as 0, and its value equals none.
    Ok(target != Some(CompareTarget::Value) && pair_holds(compare, target, &KeyValue::default()))
}

fn pair_holds(compare: &Compare, target: Option<CompareTarget>, kv: &KeyValue) -> bool {
    let operand = &compare.target_union;
    let ordering = match target {
        Some(CompareTarget::Version) => kv.version.cmp(match operand {
            Some(TargetUnion::Version(version)) => version,
            _ => &0,
        }),
        Some(CompareTarget::Create) => kv.create_revision.cmp(match operand {
            Some(TargetUnion::CreateRevision(revision)) => revision,
            _ => &0,
        }),
        Some(CompareTarget::Mod) => kv.mod_revision.cmp(match operand {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => &0,
        }),
        Some(CompareTarget::Value) => kv.value.as_ref().cmp(match operand {
            Some(TargetUnion::Value(value)) => value.as_ref(),
            _ => &[],
        }),
        Some(CompareTarget::Lease) => kv.lease.cmp(match operand {
            Some(TargetUnion::Lease(lease)) => lease,
            _ => &0,
        }),
        None => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        // etcd lets an operator that it doesn't know hold.
        Err(_) => true,
    }
}
