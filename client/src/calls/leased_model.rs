/// Makes a model, a struct with the field `lease`, dereference to its lease. The lease's methods
/// exist on the model, too, so that programs may name them by path (`EmbeddingModel::info`).
///
/// `leased_model!(Model, Lease, Client)`, or with `async, await` after them if `Lease::release` is
/// a future.
macro_rules! leased_model {
    ($model:ident, $lease:ident, $client:ident $(, $async:tt, $await:tt)?) => {
        impl $model {
            /// The model, as it was when the lease was taken.
            #[must_use]
            pub fn info(&self) -> emberd_protocol::ModelInfo {
                self.lease.info()
            }

            /// The lease.
            #[must_use]
            pub fn lease(&self) -> &$lease {
                &self.lease
            }

            /// The client that took the lease.
            #[must_use]
            pub fn client(&self) -> &$client {
                self.lease.client()
            }

            /// Releases the lease for all clones, and waits until the daemon has released it.
            ///
            /// # Errors
            /// `REFERENCE_ERROR` the second time.
            pub $($async)? fn release(&self) -> Result<(), crate::error::Error> {
                self.lease.release()$(.$await)?
            }
        }

        impl std::ops::Deref for $model {
            type Target = $lease;

            fn deref(&self) -> &$lease {
                &self.lease
            }
        }
    };
}

pub(crate) use leased_model;
