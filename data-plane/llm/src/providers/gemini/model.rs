//! What a model's name tells: families differ in what they take.

/// A Gemini model's generation, times ten: `gemini-2.5-flash` is 25. Names that tell none are taken to be of today.
pub(super) fn generation(model: &str) -> u32 {
    const UNKNOWN: u32 = 25;
    let name = model.rsplit('/').next().unwrap_or(model);
    let Some(version) = name.strip_prefix("gemini-") else { return UNKNOWN };
    let mut digits = version.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let Some(number) = digits.next() else { return UNKNOWN };
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    match (major.parse::<u32>(), minor.parse::<u32>()) {
        (Ok(major), Ok(minor)) if major < 1000 && minor < 10 => major * 10 + minor,
        _ => UNKNOWN,
    }
}

/// From here on models think in levels, and refuse a call in the history that does not carry its signature.
pub(super) const SIGNED: u32 = 30;
/// From here on models think, in tokens.
pub(super) const THINKS: u32 = 25;

/// The large ones, which can't be kept from thinking.
pub(super) fn is_pro(model: &str) -> bool {
    model.contains("-pro")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_read_from_names() {
        for (model, generation_times_ten) in [
            ("gemini-2.5-flash", 25),
            ("gemini-3-pro-preview", 30),
            ("gemini-3.1-pro", 31),
            ("google/gemini-2.0-flash-001", 20),
            ("gemini-1.5-pro", 15),
            ("gemini-flash-latest", 25),
            ("gemini-99999999999", 25),
            ("gemma-3-27b-it", 25),
            ("", 25),
        ] {
            assert_eq!(generation(model), generation_times_ten, "{model}");
        }
    }
}
