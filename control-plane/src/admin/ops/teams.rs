//! Teams of an organization.

use nemo_proto::admin::{
    CreateTeamRequest, DeleteTeamRequest, DeleteTeamResponse, GetTeamRequest, ListTeamsRequest,
    ListTeamsResponse, Team, UpdateTeamRequest,
};
use nemo_types::TeamId;

use super::list_filter;
use crate::{
    admin::{Action, Admin, AdminError, Call, Written, page_token, validate},
    store::teams,
};

impl Admin {
    pub async fn create_team(
        &self,
        call: &Call,
        request: CreateTeamRequest,
    ) -> Result<Written<Team>, AdminError> {
        validate::name("name", &request.name)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "team.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        let row = teams::insert(&mut write.tx, TeamId::generate().0, &request.name).await?;
        write.done(row.into()).await
    }

    pub async fn get_team(&self, call: &Call, request: GetTeamRequest) -> Result<Team, AdminError> {
        let id: TeamId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let row = teams::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("team", id))
    }

    pub async fn list_teams(
        &self,
        call: &Call,
        request: ListTeamsRequest,
    ) -> Result<ListTeamsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let filter = list_filter!(request);
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let listed = teams::list(&mut tx, request.disabled, page, &filter).await?;
        Ok(ListTeamsResponse {
            teams: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_team(
        &self,
        call: &Call,
        request: UpdateTeamRequest,
    ) -> Result<Written<Team>, AdminError> {
        let id: TeamId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "team.update").await?;
        let before = teams::get(&mut write.tx, id.0).await?;
        write.found::<Team>(before, id)?;
        let row = teams::update(&mut write.tx, id.0, request.name.as_deref(), request.disabled).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("team", id))?.into()).await
    }

    /// Deletes the team and its keys.
    pub async fn delete_team(
        &self,
        call: &Call,
        request: DeleteTeamRequest,
    ) -> Result<Written<DeleteTeamResponse>, AdminError> {
        let id: TeamId = validate::id("id", &request.id)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "team.delete").await?;
        let before = teams::get(&mut write.tx, id.0).await?;
        write.found::<Team>(before, id)?;
        teams::delete(&mut write.tx, id.0).await?;
        write.deleted().await
    }
}
