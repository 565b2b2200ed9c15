//! C-Eval: its subjects and the two layouts of its releases.

mod csv_layout;
mod jsonl_layout;

use std::path::Path;

pub(super) use csv_layout::read as read_csv;
pub(super) use jsonl_layout::read as read_jsonl;

use super::Category::{self, Humanities, Other, SocialScience, Stem};
use super::{DatasetError, Layout};

/// An official subject: key, Chinese name, category.
pub type OfficialSubject = (&'static str, &'static str, Category);

/// The 52 subjects of C-Eval, ordered by category and key.
#[rustfmt::skip]
pub const OFFICIAL_SUBJECTS: [OfficialSubject; 52] = [
    ("advanced_mathematics", "高等数学", Stem),
    ("college_chemistry", "大学化学", Stem),
    ("college_physics", "大学物理", Stem),
    ("college_programming", "大学编程", Stem),
    ("computer_architecture", "计算机组成", Stem),
    ("computer_network", "计算机网络", Stem),
    ("discrete_mathematics", "离散数学", Stem),
    ("electrical_engineer", "注册电气工程师", Stem),
    ("high_school_biology", "高中生物", Stem),
    ("high_school_chemistry", "高中化学", Stem),
    ("high_school_mathematics", "高中数学", Stem),
    ("high_school_physics", "高中物理", Stem),
    ("metrology_engineer", "注册计量师", Stem),
    ("middle_school_biology", "初中生物", Stem),
    ("middle_school_chemistry", "初中化学", Stem),
    ("middle_school_mathematics", "初中数学", Stem),
    ("middle_school_physics", "初中物理", Stem),
    ("operating_system", "操作系统", Stem),
    ("probability_and_statistics", "概率统计", Stem),
    ("veterinary_medicine", "兽医学", Stem),
    ("business_administration", "工商管理", SocialScience),
    ("college_economics", "大学经济学", SocialScience),
    ("education_science", "教育学", SocialScience),
    ("high_school_geography", "高中地理", SocialScience),
    ("high_school_politics", "高中政治", SocialScience),
    ("mao_zedong_thought", "毛泽东思想和中国特色社会主义理论体系概论", SocialScience),
    ("marxism", "马克思主义基本原理", SocialScience),
    ("middle_school_geography", "初中地理", SocialScience),
    ("middle_school_politics", "初中政治", SocialScience),
    ("teacher_qualification", "教师资格", SocialScience),
    ("art_studies", "艺术学", Humanities),
    ("chinese_language_and_literature", "中国语言文学", Humanities),
    ("high_school_chinese", "高中语文", Humanities),
    ("high_school_history", "高中历史", Humanities),
    ("ideological_and_moral_cultivation", "思想道德修养与法律基础", Humanities),
    ("law", "法学", Humanities),
    ("legal_professional", "法律职业资格", Humanities),
    ("logic", "逻辑学", Humanities),
    ("middle_school_history", "初中历史", Humanities),
    ("modern_chinese_history", "近代史纲要", Humanities),
    ("professional_tour_guide", "导游资格", Humanities),
    ("accountant", "注册会计师", Other),
    ("basic_medicine", "基础医学", Other),
    ("civil_servant", "公务员", Other),
    ("clinical_medicine", "临床医学", Other),
    ("environmental_impact_assessment_engineer", "环境影响评价工程师", Other),
    ("fire_engineer", "注册消防工程师", Other),
    ("physician", "医师资格", Other),
    ("plant_protection", "植物保护", Other),
    ("sports_science", "体育学", Other),
    ("tax_accountant", "税务师", Other),
    ("urban_and_rural_planner", "注册城乡规划师", Other),
];

/// The eight subjects of "C-Eval Hard".
pub const HARD_SUBJECTS: [&str; 8] = [
    "advanced_mathematics",
    "discrete_mathematics",
    "probability_and_statistics",
    "college_chemistry",
    "college_physics",
    "high_school_mathematics",
    "high_school_chemistry",
    "high_school_physics",
];

/// Name of the file with the names and category of every subject.
pub(super) const MAPPING_FILE: &str = "subject_mapping.json";

/// Returns `subject_mapping.json` of the official subjects: key → English name, Chinese name, category. The released
/// archive of C-Eval does not contain this file, so `dataset prepare` writes it.
pub fn mapping_json() -> String {
    let mapping: serde_json::Map<_, _> = OFFICIAL_SUBJECTS
        .iter()
        .map(|(key, chinese, category)| {
            (key.to_string(), serde_json::json!([english_name(key), chinese, category.as_str()]))
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&mapping).expect("invariant: a map of strings is JSON");
    text.push('\n');
    text
}

/// Returns the official English name: the words of the key, capitalised except `and`.
fn english_name(key: &str) -> String {
    let capital = |word: &str| match word {
        "and" => word.to_owned(),
        _ => word[..1].to_uppercase() + &word[1..],
    };
    key.split('_').map(capital).collect::<Vec<_>>().join(" ")
}

/// Returns the official entry of a subject.
pub(super) fn official(key: &str) -> Option<&'static OfficialSubject> {
    OFFICIAL_SUBJECTS.iter().find(|(k, _, _)| *k == key)
}

/// Determines the layout from the contents of the split folders.
pub(super) fn recognise(root: &Path) -> Result<Layout, DatasetError> {
    for split in ["val", "test", "dev"] {
        let dir = root.join(split);
        if !dir.is_dir() {
            continue;
        }
        for name in super::entries(&dir)? {
            if Path::new(&name).extension().is_some_and(|e| e == "csv") {
                return Ok(Layout::CEvalCsv);
            }
            if Category::from_name(&name).is_some() && dir.join(&name).is_dir() {
                return Ok(Layout::CEvalJsonl);
            }
        }
    }
    Err(DatasetError::layout(
        root,
        "neither of C-Eval's layouts",
        "`{dev,val,test}/<subject>_<split>.csv` with `subject_mapping.json`, or `{val,test}/{STEM,Social_Science,Humanities,Other}/<subject>.jsonl`",
    ))
}

/// Checks that every requested subject is in `known`.
fn check_subjects<'a>(
    place: &Path,
    wanted: &[String],
    known: impl Iterator<Item = &'a String> + Clone,
) -> Result<(), DatasetError> {
    match wanted.iter().find(|s| !known.clone().any(|k| k == *s)) {
        None => Ok(()),
        Some(unknown) => {
            let known = known.map(String::as_str).collect::<Vec<_>>().join(", ");
            Err(DatasetError::layout(place, format!("no subject `{unknown}`"), format!("one of {known}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_categories_have_their_published_numbers_of_subjects() {
        let count = |c| OFFICIAL_SUBJECTS.iter().filter(|(_, _, category)| *category == c).count();
        assert_eq!(Category::ALL.map(count), [20, 10, 11, 11]);
        for hard in HARD_SUBJECTS {
            assert_eq!(official(hard).unwrap().2, Stem);
        }
    }

    #[test]
    fn english_names_are_the_official_ones() {
        assert_eq!(english_name("urban_and_rural_planner"), "Urban and Rural Planner");
        assert_eq!(english_name("law"), "Law");
    }
}
