//! How often and how long requests to a hub are repeated.

use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::{Duration, SystemTime};

/// The limits of repeated requests. hf-hub tries once, and waits forever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Tries of a request, and of a download without progress.
    pub(super) tries: u32,
    /// The pause before the second try; each further pause is twice as long.
    pub(super) pause: Duration,
    /// A hub that asks for a longer pause is given up.
    pub(super) longest_pause: Duration,
    /// A connection without any data for this long is given up.
    pub(super) silence: Duration,
}

impl Patience {
    pub(super) const DEFAULT: Self = Self {
        tries: 5,
        pause: Duration::from_millis(500),
        longest_pause: Duration::from_secs(60),
        silence: Duration::from_secs(30),
    };

    /// The pause after a number of failures.
    pub(super) fn after(&self, failures: u32) -> Duration {
        self.pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest_pause)
    }
}

/// The pause that the hub asks for: `Retry-After: 30` or with a date, or its own
/// `RateLimit: "api";r=0;t=30`.
pub(super) fn wanted_pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let seconds = |text: &str| text.trim().parse().ok().map(Duration::from_secs);
    let text = |value: &reqwest::header::HeaderValue| value.to_str().ok().map(str::to_owned);
    // A date in the past asks for no pause.
    let until = |text: &str| {
        let date = httpdate::parse_http_date(text.trim()).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    };
    let after = headers.get(RETRY_AFTER).and_then(text);
    let after = after.and_then(|text| seconds(&text).or_else(|| until(&text)));
    after.or_else(|| {
        let limit = headers.get("ratelimit").and_then(text)?;
        limit.split(';').find_map(|part| seconds(part.trim().strip_prefix("t=")?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_says_when_to_come_back_in_three_ways() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:27:00 GMT").unwrap();
        for (name, value, seconds) in [
            ("retry-after", "30", Some(30)),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT", Some(60)),
            ("retry-after", "Wed, 21 Oct 2026 07:26:00 GMT", Some(0)),
            // The two older formats.
            ("retry-after", "Wednesday, 21-Oct-26 07:28:00 GMT", Some(60)),
            ("retry-after", "Wed Oct 21 07:28:00 2026", Some(60)),
            ("retry-after", "Tue, 29 Feb 2028 07:27:00 GMT", Some(42_854_400)),
            ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT", Some(251_609_733_179)),
            ("retry-after", "tomorrow", None),
            ("retry-after", "", None),
            ("retry-after", "-1", None),
            ("retry-after", "18446744073709551616", None),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00", None),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00 CET", None),
            ("retry-after", "Wed, 21 Oct 2026 24:28:00 GMT", None),
            ("retry-after", "Wed, 21 Oct 2026 07:28:00:00 GMT", None),
            ("retry-after", "Wed, 32 Oct 2026 07:28:00 GMT", None),
            ("retry-after", "Wed, 21 Nix 2026 07:28:00 GMT", None),
            ("retry-after", "Wed, 21 Oct 1969 07:28:00 GMT", None),
            ("retry-after", "Wed, 21 Oct 10000 07:28:00 GMT", None),
            ("ratelimit", "\"api\";r=0;t=55", Some(55)),
            ("ratelimit", "nonsense", None),
        ] {
            let headers = HeaderMap::from_iter([(
                reqwest::header::HeaderName::from_static(name),
                value.parse().unwrap(),
            )]);
            assert_eq!(wanted_pause(&headers, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        let after = |failures| Patience::DEFAULT.after(failures).as_millis();
        assert_eq!([1, 2, 3, 100].map(after), [500, 1000, 2000, 60_000]);
    }
}
