//! "Did you mean".

/// The nearest of `known`, as a hint; `None` when nothing is near.
pub(crate) fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(wrong, known).map(|name| format!("did you mean `{name}`?"))
}

/// The nearest of `known` by edit distance, at most a third of the name away (and at least one edit).
pub(crate) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a name of this length, and the distance is quadratic in it.
    if wrong.len() > 64 {
        return None;
    }
    let limit = (wrong.chars().count() / 3).max(1);
    let lower = wrong.to_ascii_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by(|a, b| a.cmp(b))
        .map(|(_, name)| name)
}

/// Names for a hint: all of a few, the first of many.
pub(crate) fn listing<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MOST: usize = 12;
    let mut names = names.into_iter();
    let shown: Vec<String> = names.by_ref().take(MOST).map(|name| format!("`{name}`")).collect();
    match (shown.is_empty(), names.count()) {
        (true, _) => "none".to_owned(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The hint for a name that is not there: the nearest one, or all there are.
pub(crate) fn unknown<'a>(
    wrong: &str,
    plural: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    if known.clone().into_iter().next().is_none() {
        return format!("there are no {plural} yet: add it, or remove what refers to it");
    }
    did_you_mean(wrong, known.clone()).unwrap_or_else(|| format!("the {plural} are: {}", listing(known)))
}

/// The hint for a mode that is not there: the construct of that name, the nearest mode, or where they are listed.
pub(crate) fn unknown_mode(wrong: &str) -> String {
    let known = crate::mode::all().map(|mode| mode.id);
    let construct = |mode: &str| mode.split_once('/').is_some_and(|(_, construct)| construct == wrong);
    let same: Vec<&str> = known.clone().filter(|mode| construct(mode)).collect();
    if same.is_empty() {
        return did_you_mean(wrong, known).unwrap_or_else(|| "`netloom modes` lists all modes".to_owned());
    }
    format!("of that name there is {}", listing(same))
}
