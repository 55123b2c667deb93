//! The Cluster service: who the members are, and how that changes.

use etcfs_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};

use super::{Headers, Refusal};
use crate::{
    config::peer_url,
    propose::{MemberChange, Members, ReadBarrier},
};

#[derive(Clone, Debug)]
pub struct Cluster {
    pub members: Members,
    pub barrier: ReadBarrier,
    pub headers: Headers,
}

impl Cluster {
    pub async fn member_list(&self, request: MemberListRequest) -> Result<MemberListResponse, Refusal> {
        if request.linearizable {
            self.barrier.wait().await?;
        }
        Ok(MemberListResponse { header: self.headers.at(0), members: self.list() })
    }

    pub async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Refusal> {
        let peer_urls = urls(&request.peer_ur_ls)?;
        let id = self.change(MemberChange::Add { peer_urls, learner: request.is_learner }).await?;
        let members = self.list();
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(MemberAddResponse { header: self.headers.at(0), member, members })
    }

    pub async fn member_remove(&self, request: MemberRemoveRequest) -> Result<MemberRemoveResponse, Refusal> {
        self.change(MemberChange::Remove { id: request.id }).await?;
        Ok(MemberRemoveResponse { header: self.headers.at(0), members: self.list() })
    }

    pub async fn member_update(&self, request: MemberUpdateRequest) -> Result<MemberUpdateResponse, Refusal> {
        let peer_urls = urls(&request.peer_ur_ls)?;
        self.change(MemberChange::Update { id: request.id, peer_urls }).await?;
        Ok(MemberUpdateResponse { header: self.headers.at(0), members: self.list() })
    }

    pub async fn member_promote(
        &self,
        request: MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, Refusal> {
        self.change(MemberChange::Promote { id: request.id }).await?;
        Ok(MemberPromoteResponse { header: self.headers.at(0), members: self.list() })
    }

    /// Changes the members, and sees to it that this one knows.
    async fn change(&self, change: MemberChange) -> Result<u64, Refusal> {
        let id = self.members.change(&change).await?;
        // Who has removed itself hears no more; the change is made all the same.
        if change != (MemberChange::Remove { id: self.members.member_id() }) {
            self.barrier.wait().await?;
        }
        Ok(id)
    }

    fn list(&self) -> Vec<Member> {
        let members = self.members.list().into_iter().map(|member| Member {
            id: member.id,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.is_learner,
        });
        members.collect()
    }
}

/// As they are kept: in one spelling, in order.
fn urls(given: &[String]) -> Result<Vec<String>, Refusal> {
    let urls: Option<Vec<String>> = given.iter().map(|url| peer_url(url)).collect();
    let mut urls = urls.filter(|urls| !urls.is_empty()).ok_or(Refusal::MemberBadUrls)?;
    urls.sort();
    urls.dedup();
    Ok(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_urls_are_checked_and_sorted() {
        let of = |given: &[&str]| urls(&given.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["http://b:1", "http://a:1", "http://b:1"]).unwrap(), ["http://a:1", "http://b:1"]);
        for bad in [&[][..], &["a:1"], &["http://a"], &["http://a:1", "nonsense"]] {
            assert_eq!(of(bad).unwrap_err(), Refusal::MemberBadUrls, "{bad:?}");
        }
    }
}
