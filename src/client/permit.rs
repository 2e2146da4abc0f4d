//! Permits of the async client.

use super::Client;
use super::calls;
use super::connection::Connection;
use super::error::ClientError;
use crate::api::{AcquireAnswer, CommitRequest, SettleAnswer};

/// An admitted call.
///
/// Settle it when the call is over: what was reserved and not used comes back, and slots are free.
///
/// **Dropping it counts as having used what was reserved**, and frees its slots at once. A guard that gave everything back
/// when it is dropped would let a call that panicked or was cancelled half-way exceed the limit, for the provider may well
/// have counted it; who knows that nothing was used says [`release`](Self::release). For this a permit keeps its
/// connection to itself (it is [bound](crate::api::Bind::Connection) to it), so that it also ends when the process does.
#[derive(Debug)]
#[must_use = "dropping a permit counts as having used what was reserved"]
pub struct Permit {
    pub(super) client: Client,
    pub(super) connection: Connection,
    pub(super) answer: AcquireAnswer,
}

impl Permit {
    /// What the daemon answered: among others [`expires_in_ms`](AcquireAnswer::expires_in_ms), after which the permit
    /// counts as used, and the limits as they are now.
    pub fn answer(&self) -> &AcquireAnswer {
        &self.answer
    }

    /// Tells what the call really used: what was reserved beyond it comes back, what was used beyond what was reserved is
    /// owed. What is not named was used as reserved.
    ///
    /// # Errors
    /// See [`ClientError`]; a permit whose time is over is a [`ClientError::Problem`] with status 410.
    pub async fn commit(self, used: &CommitRequest) -> Result<SettleAnswer, ClientError> {
        let call = calls::commit(self.answer.permit.as_deref().unwrap_or_default(), used);
        self.client.run_on(&call, Some(self.connection)).await
    }

    /// Tells that the call used nothing.
    ///
    /// # Errors
    /// See [`ClientError`]; a permit whose time is over is a [`ClientError::Problem`] with status 410.
    pub async fn release(self) -> Result<SettleAnswer, ClientError> {
        let call = calls::release(self.answer.permit.as_deref().unwrap_or_default());
        self.client.run_on(&call, Some(self.connection)).await
    }
}
