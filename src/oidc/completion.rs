//! The claims of a person after a login or a refresh: what the ID token says, and whether UserInfo has to be
//! asked for the rest.

use url::Url;

use crate::secret::Secret;

use super::claims::{Merged, lacks_needed, merge, needs_any, overage, renew};
use super::config::UserInfoMode;
use super::discovery::Metadata;
use super::error::{Error, Refusal};
use super::id_token::VerifiedIdToken;
use super::provider::Provider;
use super::userinfo;

impl Provider {
    /// The claims of an ID token, completed by UserInfo where the configuration wants that.
    pub(super) async fn complete_claims(
        &self,
        id_token: &VerifiedIdToken,
        access_token: &Secret<String>,
        metadata: &Metadata,
    ) -> Result<Merged, Error> {
        let needed = &self.config.needed_claims;
        let lacking = lacks_needed(id_token.claims(), needed);
        let ask = match self.config.user_info {
            UserInfoMode::Always => true,
            UserInfoMode::Auto => lacking,
            UserInfoMode::Never => false,
        };
        let alone = || Merged { claims: id_token.claims().clone(), ..Merged::default() };
        let merged = match metadata.user_info_endpoint.as_ref().filter(|_| ask) {
            None => alone(),
            Some(url) => match self.ask_user_info(url, access_token, id_token.subject()).await {
                Ok(more) => merge(id_token.claims(), &more),
                Err(Error::UserInfo(_)) if !lacking => alone(),
                Err(error) => return Err(error),
            },
        };
        match overage(&merged.claims, needed) {
            Some(claim) => Err(Error::Overage { claim }),
            None => Ok(merged),
        }
    }

    /// The claims of a session whose refresh brought no ID token: UserInfo is all that can have news.
    pub(super) async fn renew_claims(
        &self,
        old: &Merged,
        subject: &str,
        access_token: &Secret<String>,
        metadata: &Metadata,
    ) -> Result<Merged, Error> {
        let needed = &self.config.needed_claims;
        let ask = self.config.user_info != UserInfoMode::Never && needs_any(needed);
        let Some(url) = metadata.user_info_endpoint.as_ref().filter(|_| ask) else { return Ok(old.clone()) };
        let user_info = self.ask_user_info(url, access_token, subject).await?;
        match overage(&user_info, needed) {
            Some(claim) => Err(Error::Overage { claim }),
            None => Ok(renew(old, needed, &user_info)),
        }
    }

    async fn ask_user_info(
        &self,
        url: &Url,
        access_token: &Secret<String>,
        subject: &str,
    ) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
        userinfo::fetch(&self.outbound, url, access_token, subject).await.map_err(|problem| match problem {
            userinfo::Problem::OtherSubject => Refusal::UserInfoSubject.into(),
            userinfo::Problem::Unusable(reason) => Error::UserInfo(reason),
        })
    }
}
