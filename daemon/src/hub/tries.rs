//! When something is tried again, and after how long.

use std::time::Duration;

use super::HubError;
use super::api::Patience;

/// Tries in a row that brought nothing.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    patience: &'a Patience,
    most: u32,
    made: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(patience: &'a Patience, most: u32) -> Self {
        Self { patience, most, made: 0 }
    }

    /// Something came of it: count anew.
    pub(super) fn reset(&mut self) {
        self.made = 0;
    }

    /// Waits until it makes sense to try again, or gives the error back.
    pub(super) async fn after(&mut self, error: HubError) -> Result<(), HubError> {
        self.made += 1;
        if self.made >= self.most || !error.is_retryable() {
            return Err(error);
        }
        let own = self.patience.pause * 2_u32.saturating_pow(self.made - 1);
        let pause = match error {
            HubError::TooManyRequests { retry_after: Some(wanted), .. } => wanted,
            _ => own.min(self.patience.longest_pause),
        };
        // A hub that wants an hour of rest gets it; who waits for the model hears of it now.
        if pause > self.patience.longest_pause {
            return Err(error);
        }
        tracing::info!(%error, pause = ?pause, "trying again");
        if pause > Duration::ZERO {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }
}
