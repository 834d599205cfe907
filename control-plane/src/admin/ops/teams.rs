//! Teams of an organization.

use nemo_proto::admin::{
    CreateTeamRequest, DeleteTeamRequest, DeleteTeamResponse, GetTeamRequest, ListTeamsRequest,
    ListTeamsResponse, Team, UpdateTeamRequest,
};
use nemo_types::TeamId;

use super::deleted;
use crate::{
    admin::{Action, Admin, AdminError, Caller, page_token, validate},
    store::teams,
};

impl Admin {
    pub async fn create_team(&self, caller: &Caller, request: CreateTeamRequest) -> Result<Team, AdminError> {
        validate::name("name", &request.name)?;
        let mut tx = self.tenant(caller, Action::Write, &request.org_id).await?;
        let row = teams::insert(&mut tx, TeamId::generate().0, &request.name).await?;
        tx.commit().await?;
        Ok(row.into())
    }

    pub async fn get_team(&self, caller: &Caller, request: GetTeamRequest) -> Result<Team, AdminError> {
        let id: TeamId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(caller, Action::Read, &request.org_id).await?;
        let row = teams::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("team", id))
    }

    pub async fn list_teams(
        &self,
        caller: &Caller,
        request: ListTeamsRequest,
    ) -> Result<ListTeamsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let mut tx = self.tenant(caller, Action::Read, &request.org_id).await?;
        let listed = teams::list(&mut tx, page).await?;
        Ok(ListTeamsResponse {
            teams: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_team(&self, caller: &Caller, request: UpdateTeamRequest) -> Result<Team, AdminError> {
        let id: TeamId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        let mut tx = self.tenant(caller, Action::Write, &request.org_id).await?;
        let row = teams::update(&mut tx, id.0, request.name.as_deref(), request.disabled).await?;
        tx.commit().await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("team", id))
    }

    /// Deletes the team and its keys.
    pub async fn delete_team(
        &self,
        caller: &Caller,
        request: DeleteTeamRequest,
    ) -> Result<DeleteTeamResponse, AdminError> {
        let id: TeamId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(caller, Action::Write, &request.org_id).await?;
        let found = teams::delete(&mut tx, id.0).await?;
        tx.commit().await?;
        deleted(found, "team", id)?;
        Ok(DeleteTeamResponse {})
    }
}
