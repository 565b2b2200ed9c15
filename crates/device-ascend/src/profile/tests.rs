use super::*;

#[test]
fn the_profiles_in_the_binary_are_complete() {
    for (name, text) in BUILTIN {
        let profile = Profile::builtin(name).unwrap();
        assert_eq!(profile.name, name);
        assert_eq!(profile.sha256.len(), 64);
        assert_eq!(profile.entries.len(), text.matches("\nsource = ").count());
        let lines = profile.settings_lines();
        assert!(lines.starts_with("soc = Ascend"), "{lines}");
        assert_eq!(lines.lines().count(), profile.entries.len() + 1);
        assert!(profile.value("memory_bytes_per_s").unwrap() > 1e11);
    }
    let error = Profile::builtin("400x").unwrap_err().to_string();
    assert_eq!(
        error,
        "profile \"400x\" is unknown, expected 300i-duo, 300i-duo-48g, 800i-a2, 800i-a2-64g or a file"
    );
}

#[test]
fn mistakes_name_file_line_and_what_was_expected() {
    let good = BUILTIN[0].1;
    let line = |part: &str| good.lines().position(|l| l == part).unwrap() + 1;
    let at = |part: &str| format!("profile mine.toml line {}: ", line(part));
    for (from, to, expected) in [
        (
            "mark = \"derived\"\nsource = \"half",
            "mark = \"guessed\"\nsource = \"half",
            at("[cube_fp16_flops]")
                + "[cube_fp16_flops] mark is \"guessed\", expected published, derived, calibrated or assumed",
        ),
        ("soc = \"Ascend310P3\"", "soc = \"Ascend1\"", at("soc = \"Ascend310P3\"") + "soc is \"Ascend1\""),
        ("[l2_bytes]", "[l3_bytes]", at("[l2_bytes]") + "[l3_bytes] is unknown"),
        (
            "value = 0.75",
            "value = 7.5",
            at("[memory_efficiency]") + "[memory_efficiency] value is 7.5, expected a number",
        ),
        ("value = 0.75", "value = nan", at("[memory_efficiency]") + "[memory_efficiency] value is nan"),
        (
            "unit = \"W\"",
            "unit = \"kW\"",
            at("[max_power_w]") + "[max_power_w] unit is \"kW\", expected \"W\"",
        ),
        ("chips_per_card = 2", "chips_per_card = 0", at("chips_per_card = 2") + "chips_per_card: expected"),
        ("chips_per_card = 2", "chips_per_card = two", at("chips_per_card = 2")),
    ] {
        assert!(good.contains(from), "{from}");
        let message = Profile::parse(&good.replacen(from, to, 1), "mine.toml").unwrap_err().to_string();
        assert!(message.starts_with(&expected), "{message}\nexpected {expected}");
    }
    let start = good.find("[host_call_ns]").unwrap();
    let end = good.find("[max_power_w]").unwrap();
    let without = [&good[..start], &good[end..]].concat();
    let message = Profile::parse(&without, "mine.toml").unwrap_err().to_string();
    assert_eq!(message, "profile mine.toml: [host_call_ns] is missing");
}

#[test]
fn a_fit_is_of_the_figures_that_it_names() {
    let fit = "[[fit]]\nphase = \"decode\"\nchips = 2\nrows = 9\nshapes = 9\nerror = 0.03\nworst = 0.07\nbatch = 32\n\
        tokens = 2064\nparameters = 6.2e9\ngraphs = false\n";
    let plain = Profile::builtin("300i-duo").unwrap();
    let text = format!("fitted = \"{}\"\n{}\n{fit}", plain.figures_sha256(), plain.text);
    let profile = Profile::parse(&text, "mine.toml").unwrap();
    let told = &profile.clock().fits[0];
    assert_eq!((told.phase.as_str(), told.chips, told.rows, told.error), ("decode", 2, 9, 0.03));
    assert_eq!(profile.settings_lines(), plain.settings_lines());
    assert!(plain.fits.is_empty());
    let refused = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Profile::parse(&text.replacen(from, to, 1), "mine.toml").unwrap_err().to_string()
    };
    // A figure that was changed afterwards.
    assert!(refused("value = 0.75", "value = 0.9").contains("these were changed after the fit"));
    assert!(refused("fitted = ", "title2 = ").contains("is unknown"));
    for (from, to, expected) in [
        ("phase = \"decode\"", "phase = \"e2e\"", "[[fit]] phase: expected prefill or decode"),
        ("rows = 9", "rows = 0", "[[fit]] rows: expected a whole number from 1"),
        ("error = 0.03", "error = nan", "[[fit]] error: expected a number from 0 to 10"),
        ("graphs = false", "graphs = 0", "[[fit]] graphs: expected true or false"),
        ("worst = 0.07", "worse = 0.07", "[[fit]] worse: expected one of phase, "),
    ] {
        let message = refused(from, to);
        assert!(message.contains(expected) && message.contains("mine.toml line "), "{message}");
    }
}

#[test]
fn the_emulator_takes_every_line() {
    // The emulator's own list, from its source: only the names connect the two.
    let settings = include_str!("../../../ascend-emulator/src/settings.rs");
    for (name, _) in BUILTIN {
        for entry in Profile::builtin(name).unwrap().entries {
            assert!(settings.contains(&format!("\n    {},\n", entry.key)), "{}", entry.key);
        }
    }
}
