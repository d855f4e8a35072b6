//! The language from outside: files that must load, files that must not and what is said about them, and the schema.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use netloom::topology::{LoadOptions, Topology, load_bytes};

#[path = "language/modes.rs"]
mod modes;

#[path = "language/meaning.rs"]
mod meaning;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn yaml_files(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join(directory))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{directory} has no files");
    files
}

fn load_path(path: &Path) -> Result<Topology, String> {
    let bytes = fs::read(path).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    load_bytes(name, &bytes, &LoadOptions::default()).map_err(|diagnostics| diagnostics.render(false))
}

#[test]
fn good_files_and_topologies_load() {
    for path in yaml_files("topologies").into_iter().chain(yaml_files("tests/good")) {
        if let Err(said) = load_path(&path) {
            panic!("{}:\n{said}", path.display());
        }
    }
}

/// The message of every bad file stands beside it; `UPDATE_SNAPSHOTS=1` writes them anew, for reading before commit.
#[test]
fn bad_files_are_refused_with_these_words() {
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    let mut differing = Vec::new();
    for path in yaml_files("tests/bad") {
        let said = match load_path(&path) {
            Err(said) => said,
            Ok(_) => {
                differing.push(format!("{} loads", path.display()));
                continue;
            }
        };
        let beside = path.with_extension("txt");
        if update {
            fs::write(&beside, &said).unwrap();
        }
        let want = fs::read_to_string(&beside).unwrap_or_default();
        if said != want {
            differing.push(format!("{}:\n--- said\n{said}--- wanted\n{want}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn schema() -> jsonschema::Validator {
    jsonschema::draft202012::new(&netloom::spec::schema()).unwrap()
}

/// The file as another parser reads it.
fn as_json(text: &str) -> Option<serde_json::Value> {
    serde_yaml::from_str_with_options(text, serde_yaml::options! { strict_booleans: true }).ok()
}

#[test]
fn the_schema_is_one_and_accepts_every_good_file() {
    let document = netloom::spec::schema();
    assert!(jsonschema::draft202012::meta::is_valid(&document));
    let schema = schema();
    for path in yaml_files("topologies").into_iter().chain(yaml_files("tests/good")) {
        let value = as_json(&fs::read_to_string(&path).unwrap()).unwrap();
        let errors: Vec<String> =
            schema.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
    }
}

/// What a schema can say it must say: these bad files are refused by it too.
#[test]
fn the_schema_refuses_what_has_the_wrong_shape() {
    let schema = schema();
    let list = fs::read_to_string(root().join("tests/bad/refused-by-schema.list")).unwrap();
    let wanted: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    let mut refused = Vec::new();
    for path in yaml_files("tests/bad") {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let value = fs::read_to_string(&path).ok().and_then(|text| as_json(&text));
        if value.is_some_and(|value| !schema.is_valid(&value)) {
            refused.push(name);
        }
    }
    assert_eq!(refused, wanted);
}

/// Damaged files neither break the program nor get past the schema.
#[test]
fn damaged_files_are_read_without_harm() {
    damage(101);
}

#[test]
#[ignore = "slow"]
fn files_damaged_everywhere_are_read_without_harm() {
    damage(5);
}

fn damage(step: usize) {
    let schema = schema();
    let options = LoadOptions::default();
    let mut loaded = 0;
    let mut check = |text: &str| {
        if netloom::topology::load("damaged", text, &options).is_ok() {
            loaded += 1;
            let value = as_json(text).unwrap_or_else(|| panic!("only we can read:\n{text}"));
            assert!(schema.is_valid(&value), "loads, but the schema refuses:\n{text}");
        }
    };
    for path in yaml_files("topologies") {
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for gone in 0..lines.len() {
            let left: Vec<&str> =
                lines.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, l)| *l).collect();
            check(&left.join("\n"));
            check(&lines[..gone].join("\n"));
        }
        for (place, c) in text.char_indices().step_by(step) {
            check(&text[..place]);
            for other in ["", "]", "{", ":", "0", "\t", "\u{0}", "é", "[", "- ", "&a ", "*a ", "!"] {
                check(&format!("{}{other}{}", &text[..place], &text[place + c.len_utf8()..]));
            }
        }
    }
    assert!(loaded > 100, "only {loaded} damaged files load: the damage is too great to show anything");
}

#[test]
fn the_published_schema_is_the_one_printed() {
    let path = root().join("docs/netloom.schema.json");
    let printed = serde_json::to_string_pretty(&netloom::spec::schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &printed).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap_or_default(), printed);
}

#[test]
fn the_reference_tables_are_the_declared_keys() {
    generated("docs/language.md", "reference", &netloom::spec::reference::markdown());
}

#[test]
fn the_page_of_the_modes_is_their_entries() {
    generated("docs/modes.md", "modes", &netloom::mode::reference::markdown());
}

/// What stands between two comments of a page is what the program says.
fn generated(page: &str, part: &str, wanted: &str) {
    let path = root().join(page);
    let text = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {part}: begin -->\n"), format!("<!-- {part}: end -->"));
    let (before, rest) = text.split_once(&begin).unwrap();
    let (found, after) = rest.split_once(&end).unwrap();
    let wanted = format!("\n{}\n\n", wanted.trim_end());
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(found, wanted);
}

#[test]
fn what_cannot_be_read_is_said_plainly() {
    use netloom::topology::{LoadError, SIZE_MAX, load_file};
    let options = LoadOptions::default();
    let missing = load_file(Path::new("/nonexistent/lab.yaml"), &options).unwrap_err();
    let LoadError::File(error) = missing else { panic!("{missing}") };
    assert_eq!(error.kind.exit_code(), 2);
    assert!(
        error.message().contains("/nonexistent/lab.yaml") && error.mend().is_some(),
        "{}",
        error.report()
    );
    let directory = load_file(root(), &options).unwrap_err();
    assert!(matches!(directory, LoadError::File(_)), "{directory}");

    // A file of 100 MB that is one long hole: refused by its first bytes, in no time and no memory.
    let path = std::env::temp_dir().join(format!("netloom-language-{}.yaml", std::process::id()));
    let file = fs::File::create(&path).unwrap();
    file.set_len(100_000_000).unwrap();
    let refused = load_file(&path, &options);
    fs::remove_file(&path).unwrap();
    let LoadError::Mistakes(diagnostics) = refused.unwrap_err() else { panic!("not read") };
    assert!(diagnostics.render(false).contains("larger than 8 MiB"), "{diagnostics}");
    assert!(netloom::topology::load("big", &" ".repeat(SIZE_MAX + 1), &options).is_err());
}

#[test]
fn diagnostics_are_data_too() {
    let text = "lab: ok\nnetwrks: {}\n";
    let diagnostics = netloom::topology::load("a.yaml", text, &LoadOptions::default()).unwrap_err();
    let value = serde_json::to_value(&diagnostics).unwrap();
    let wanted = serde_json::json!({ "errors": [{
        "file": "a.yaml", "line": 2, "column": 1,
        "message": "unknown key `netwrks` in the file", "hint": "did you mean `networks`?",
    }] });
    assert_eq!(value, wanted);
    assert_eq!(netloom::Error::from(diagnostics).kind.exit_code(), 2);
}

#[test]
fn colours_change_no_word() {
    let text = "lab: ok\nnetwrks: {}\n";
    let diagnostics = netloom::topology::load("a.yaml", text, &LoadOptions::default()).unwrap_err();
    let mut plain = String::new();
    let mut escape = false;
    for c in diagnostics.render(true).chars() {
        match c {
            '\u{1b}' => escape = true,
            'm' if escape => escape = false,
            _ if escape => {}
            _ => plain.push(c),
        }
    }
    assert_eq!(plain, diagnostics.render(false));
}

/// A reader tries the documentation's labs first.
#[test]
fn the_labs_in_the_documentation_load() {
    let text = fs::read_to_string(root().join("docs/language.md")).unwrap();
    let mut tried = 0;
    for block in text.split("```yaml\n").skip(1) {
        let lab = block.split("```").next().unwrap();
        if lab.starts_with("lab:") {
            netloom::topology::load("docs/language.md", lab, &LoadOptions::default()).unwrap();
            tried += 1;
        }
    }
    assert!(tried > 0);
}

/// Where what a mode promises follows from a choice, the page names both sides of it.
#[test]
fn the_page_of_the_modes_names_every_construct_and_state() {
    let text = fs::read_to_string(root().join("docs/modes.md")).unwrap();
    for mode in netloom::mode::all() {
        assert!(text.contains(&format!("\n### {}\n", mode.id)), "{}", mode.id);
        let Some(contract) = mode.contract else { continue };
        for said in contract.states.iter().map(|state| state.label).chain([contract.note, contract.source]) {
            assert!(text.contains(said), "{}: {said}", mode.id);
        }
    }
}

/// The README shows the file that the demo runs, not an older one.
#[test]
fn the_readme_shows_the_lab_of_the_demo() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let lab = read("topologies/hci-firewall.yaml");
    assert!(read("README.md").contains(&format!("```yaml\n{}\n```", lab.trim())));
}
