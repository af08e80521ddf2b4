//! The name that was probably meant by a misspelled one.

/// The most similar key, if one is similar enough. The last segments decide, since many keys share
/// the first.
pub(super) fn nearest_key<'a>(given: &str, keys: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let segments = |key: &str| match key.rsplit_once('.') {
        Some((group, last)) => (group.to_owned(), last.to_owned()),
        None => (String::new(), key.to_owned()),
    };
    let (group, last) = segments(&given);
    let scored = keys.filter_map(|key| {
        let (its_group, its_last) = segments(key);
        let of_last = strsim::jaro_winkler(&last, &its_last);
        let of_group = strsim::jaro_winkler(&group, &its_group);
        (of_last > 0.8).then_some((of_last + of_group / 4.0, key))
    });
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
}

/// The variable that differs in two letters at most, with one underscore in place of `dot`.
pub(super) fn nearest_variable(
    given: &str,
    variables: impl Iterator<Item = String>,
    dot: &str,
) -> Option<String> {
    let plain = |name: &str| name.replace(dot, "_");
    variables
        .map(|known| (strsim::damerau_levenshtein(&plain(&known), &plain(given)), known))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, known)| known)
}
