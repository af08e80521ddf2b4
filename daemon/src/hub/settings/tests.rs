//! Variables as Python reads them.

use crate::hub::settings::{HubSettings, Token};
use std::path::Path;

fn settings(variables: &[(&str, &str)]) -> HubSettings {
    HubSettings::from_variables(|name| {
        let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
        Some(value.into())
    })
}

#[test]
fn the_cache_is_where_python_has_it() {
    for (variables, cache) in [
        (vec![("HOME", "/u")], "/u/.cache/huggingface/hub"),
        (vec![("HOME", "/u"), ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
        (vec![("HOME", "/u"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub"),
        (vec![("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")], "/c"),
        (vec![("HF_HOME", "~/h"), ("HOME", "/u")], "/u/h/hub"),
        (vec![("HF_HOME", ""), ("HOME", "/u")], "/u/.cache/huggingface/hub"),
        (vec![], ""),
    ] {
        assert_eq!(settings(&variables).cache, Path::new(cache), "{variables:?}");
    }
}

#[test]
fn the_endpoint_loses_its_last_slash() {
    assert_eq!(settings(&[]).endpoint, "https://huggingface.co");
    assert_eq!(settings(&[("HF_ENDPOINT", "http://h:1/")]).endpoint, "http://h:1");
}

#[test]
fn an_endpoint_that_no_request_can_reach_is_reported() {
    for sound in ["https://hub.example", "http://127.0.0.1:8080", "http://[::1]:1/mirror"] {
        assert_eq!(settings(&[("HF_ENDPOINT", sound)]).endpoint_fault(), None, "{sound}");
    }
    for wrong in ["hub.example", "ftp://hub.example", "http://", "file:///hub", "https:// x"] {
        let fault = settings(&[("HF_ENDPOINT", wrong)]).endpoint_fault().unwrap();
        assert!(fault.contains(wrong.trim_end_matches('/')), "{fault}");
    }
}

#[test]
fn offline_is_what_python_takes_for_yes() {
    for yes in ["1", "true", "TRUE", "Yes", "on", " ON "] {
        assert!(settings(&[("HF_HUB_OFFLINE", yes)]).is_offline, "{yes}");
    }
    for no in ["", "0", "false", "no", "off", "2"] {
        assert!(!settings(&[("HF_HUB_OFFLINE", no)]).is_offline, "{no}");
    }
}

#[test]
fn the_token_comes_from_the_variable_then_from_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let other = folder.path().join("other");
    std::fs::write(folder.path().join("token"), "in-home\n").unwrap();
    std::fs::write(&other, "in-file").unwrap();
    let other = other.to_str().unwrap();
    let token = |variables: &[(&str, &str)]| settings(variables).token;
    assert_eq!(token(&[("HF_HOME", home)]), Token::new("in-home"));
    assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN_PATH", other)]), Token::new("in-file"));
    assert_eq!(token(&[("HF_HOME", home), ("HF_TOKEN", " direct\n")]), Token::new("direct"));
    assert_eq!(token(&[("HF_HOME", other)]), None);
    assert_eq!(Token::new(" \n"), None);
    assert_eq!(Token::new("two\nlines"), None);
}

#[test]
fn a_token_is_never_shown() {
    let shown = format!("{:?}", settings(&[("HF_TOKEN", "hf_secret")]));
    assert!(shown.contains("Token") && !shown.contains("secret"), "{shown}");
}
