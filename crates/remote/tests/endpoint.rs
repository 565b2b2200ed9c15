//! URLs, words and keys.

#![allow(clippy::unwrap_used, reason = "tests")]

use glmbench_remote::{Api, Key, Route, Url};

#[test]
fn words_are_read_back() {
    for api in Api::ALL {
        assert_eq!(api.word().parse::<Api>().unwrap(), api);
    }
    assert!("llamacpp".parse::<Api>().unwrap_err().to_string().contains("expected mindie, tgi"));
    assert_eq!("infer".parse::<Route>().unwrap(), Route::Infer);
    assert!("chat".parse::<Route>().is_err());
}

#[test]
fn urls_are_normal_or_refused() {
    let url = |text: &str| text.parse::<Url>();
    assert_eq!(url("HTTP://host:1025/").unwrap().as_str(), "http://host:1025");
    assert_eq!(url("https://[::1]:1025/base/").unwrap().as_str(), "https://[::1]:1025/base");
    assert!(url("https://host").unwrap().is_https());
    for wrong in ["host:1025", "ftp://host", "http://", "http://host?x=1", "http://host#x", "http://a b", ""]
    {
        assert!(url(wrong).is_err(), "{wrong}");
    }
    let error = url("http://user:hunter2@host").unwrap_err().to_string();
    assert!(error.contains("password") && !error.contains("hunter2"), "{error}");
}

#[test]
fn keys_are_one_line_and_hidden() {
    assert_eq!(format!("{:?}", Key::new(" sk-1 \n").unwrap()), "Key(hidden)");
    for wrong in ["", " \n", "two words", "two\nlines", "schlüssel"] {
        let error = Key::new(wrong).unwrap_err().to_string();
        assert!(wrong.trim().is_empty() || !error.contains(wrong), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "sk-from-file\n").unwrap();
    assert_eq!(Key::from_file(&path).unwrap(), Key::new("sk-from-file").unwrap());
    let error = Key::from_file(&folder.path().join("none")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
    assert!(Key::from_env("GLMBENCH_NO_SUCH_VARIABLE").unwrap_err().to_string().contains("is not set"));
}
